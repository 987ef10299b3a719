"""Calls of compiled graphs: what arrays they take, what they check each time, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArgumentError


def counter() -> gc.Graph:
    """A running sum of x, whose last value is added to the param `total`."""
    g = gc.Graph("counter")
    t = g.axis("t")
    x, total = g.input("x", (3,), over=t), g.param("total", (3,))
    h = g.state("h", (3,), over=t)
    h[t] = h[t - 1] + x
    g.output("h", h)
    g.output("again", h)
    g.update(total, total + h[t.last])
    return g


def test_any_layout_of_an_input_gives_the_same() -> None:
    f = gc.compile(counter())
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 3)
    for same in (x, np.asfortranarray(x), x[::-1].copy()[::-1], unaligned):
        total = np.zeros(3, np.float32)
        r = f(x=same, total=total)
        np.testing.assert_array_equal(r["h"], np.cumsum(x, axis=0))
        np.testing.assert_array_equal(r["again"], r["h"])
        np.testing.assert_array_equal(total, x.sum(axis=0))
    assert f(x=x.tolist(), total=np.zeros(3, np.float32))["h"][-1, 0] == 18


def test_lengths_change_from_call_to_call() -> None:
    f = gc.compile(counter())
    for steps in (4, 0, 1, 100, 4):
        total = np.zeros(3, np.float32)
        assert f(x=np.ones((steps, 3), np.float32), total=total)["h"].shape == (steps, 3)
        assert (total == steps).all()


@pytest.mark.parametrize(
    "total",
    [
        np.zeros(6, np.float32)[::2],
        np.frombuffer(bytes(12), np.float32),
        np.zeros(13, np.uint8)[1:].view(np.float32),
    ],
    ids=["strided", "read-only", "unaligned"],
)
def test_a_param_that_cannot_be_updated_in_place_is_refused(total: np.ndarray) -> None:
    f = gc.compile(counter())
    for _ in range(2):
        with pytest.raises(ArgumentError, match="total is updated in place"):
            f(x=np.ones((2, 3), np.float32), total=total)


def test_bytes_in_the_other_order_are_refused() -> None:
    g = counter()
    x = np.ones((2, 3), np.float32)
    f = gc.compile(g)
    f(x=x, total=np.zeros(3, np.float32))
    for call in (f, lambda **arrays: gc.interpret(g, **arrays)):
        with pytest.raises(ArgumentError, match="astype"):
            call(x=x.astype(x.dtype.newbyteorder()), total=np.zeros(3, np.float32))


def test_a_bound_call_reads_its_arrays_anew_and_reuses_its_results() -> None:
    x, total = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
    call = gc.compile(counter()).bind(x=x, total=total)
    first = call()
    assert first["h"][-1, 0] == 2
    x[:] = 5
    assert call()["h"] is first["h"]
    assert first["h"][-1, 0] == 10
    assert (total == 12).all()


def test_values_are_checked_at_every_call() -> None:
    """The layout is the same as in the call before; the lengths and the classes are not."""
    g = gc.Graph("g")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x, y = g.input("x", (4,), over=(t, n)), g.input("y", (), over=(t, n), dtype="int32")
    g.output("loss", gc.mean(gc.cross_entropy(x, y), over=(t, n)))
    f = gc.compile(g)
    x_, lengths = np.zeros((3, 2, 4), np.float32), np.array([3, 1], np.int32)
    labels = np.zeros((3, 2), np.int32)
    labels[1:, 1] = 77  # past the second example's length: never looked at
    assert f(x=x_, y=labels, lengths=lengths)["loss"] == pytest.approx(np.log(4))
    with pytest.raises(ArgumentError, match="lengths from 1 to 4"):
        f(x=x_, y=labels, lengths=np.array([4, 1], np.int32))
    with pytest.raises(ArgumentError, match="y names rows or classes 0 to 3"):
        f(x=x_, y=labels, lengths=np.array([3, 2], np.int32))


def test_memory_that_is_not_there_is_not_asked_for() -> None:
    g = gc.Graph("g")
    t = g.axis("t")
    h = g.state("h", (1 << 20,), over=t)
    h[t] = h[t - 1] + 1.0
    g.output("h", h)
    with pytest.raises(ArgumentError, match=r"the call needs .* GiB"):
        gc.compile(g)(t=1 << 30)


def test_a_missing_result_names_those_there_are() -> None:
    r = gc.compile(counter())(x=np.ones((1, 3), np.float32), total=np.zeros(3, np.float32))
    with pytest.raises(KeyError, match="the outputs are h, again"):
        r["loss"]


def test_code_for_other_machines() -> None:
    g = gc.Graph("g")
    t = g.axis("t")
    h = g.state("h", (32,), over=t)
    h[t] = gc.tanh(g.param("W", (32, 32)) @ h[t - 1] + g.input("x", (32,), over=t))
    g.output("h", h)
    assert b"ELF" in gc.emit(g, triple="aarch64-unknown-linux-gnu").object[:4]
    assert "zmm" in gc.emit(g, triple="x86_64-unknown-linux-gnu", arch="skylake-avx512").assembly
    assert "zmm" not in gc.emit(g, triple="x86_64-unknown-linux-gnu", arch="haswell").assembly
