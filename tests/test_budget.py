"""A limit on the memory of compiled calls: what is said, what is taken, and that results stay."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.memory.budget import _enough, choose, parse_bytes
from graphc.errors import ArgumentError, GraphError
from graphc.pipeline.stages import in_chunks, stages
from graphc.testing import random_arrays


def network(units: int) -> gc.Graph:
    g = gc.Graph("lstm")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.lstm(g, g.input("x", (8,), over=(t, n)), units, over=t, name="cell").h
    g.output("last", h[t.last])
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g


def lstm(units: int) -> gc.Graph:
    g = network(units)
    return gc.grad(g, "loss", wrt=[*g.params, "x"])


@pytest.mark.parametrize(
    ("text", "size"), [("64 MiB", 64 << 20), ("1.5 GB", 1_500_000_000), ("4096", 4096), (" 2kib ", 2048), (7, 7)]
)
def test_sizes_are_read(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-3 MiB", "12 parsecs", 0, -1])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(GraphError, match="memory is"):
        gc.compile(lstm(4), memory=text)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_call_keeps_to_its_limit_and_computes_the_same(threads: int) -> None:
    dg = lstm(48)
    free = gc.compile(dg, threads=threads)
    arrays = random_arrays(dg, 0, t=150, n=16)
    whole, expected = free.memory(t=150, n=16), free(**arrays)
    for limit in (whole.peak, whole.peak // 2, whole.peak // 3):
        f = gc.compile(dg, threads=threads, memory=limit)
        use, call = f.memory(t=150, n=16), f.bind(**arrays)
        assert call.workspace.nbytes + use.results <= limit
        found = call()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=1e-5)
        for name in ("last", "grad_x"):
            np.testing.assert_array_equal(found[name], expected[name])


def test_memory_grows_with_the_root_of_the_length() -> None:
    made = stages(gc.grad(network(16), "loss"))
    chunked = in_chunks(made)
    for root in (16, 32, 64, 128):
        choice = choose(made.program, chunked, 8_000 * root, {"t": root**2, "n": 4})
        assert choice.use.peak <= 8_000 * root
        assert root / 4 <= choice.sizes["t.chunk"] <= 4 * root


def test_a_limit_that_is_too_low_says_what_it_takes() -> None:
    dg = lstm(16)
    f = gc.compile(dg, memory="100 KiB")
    with pytest.raises(ArgumentError, match=r"at least .* limited to 100\.0 KiB.*grad_x") as error:
        f(**random_arrays(dg, 0, t=2000, n=4))
    wanted = str(error.value).split("memory='")[1].split("'")[0]
    gc.compile(dg, memory=wanted)(**random_arrays(dg, 0, t=2000, n=4))


def test_without_a_state_there_are_no_chunks() -> None:
    g = gc.Graph("g")
    n = g.axis("n")
    g.output("y", gc.tanh(g.input("x", (64,), over=n)))
    f = gc.compile(g, memory="1 MiB")
    assert f(x=np.zeros((8, 64), np.float32))["y"].shape == (8, 64)
    with pytest.raises(ArgumentError, match="no state"):
        f(x=np.zeros((8000, 64), np.float32))


def test_the_limit_that_is_suggested_is_the_smallest() -> None:
    """What is said is enough, and a tenth of its unit less is not."""
    for size in (1, 1023, 1024, 1025, 7000, 1 << 20, (1 << 20) + 1, 123_456_789, 5 << 30):
        text = _enough(size)
        number, unit = text.split()
        assert size <= parse_bytes(text)
        assert unit == "B" or parse_bytes(f"{float(number) - 0.1:.1f} {unit}") < size
    dg = lstm(1)
    with pytest.raises(ArgumentError, match=r"memory='\d+ B'"):
        gc.compile(dg, memory=1)(**random_arrays(dg, 0, t=2, n=1))
