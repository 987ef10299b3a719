"""Pointwise loops on a GPU: a thread takes a point through all steps. In the emulator, against the interpreter."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.compiling.cuda_compile import CompiledCuda
from tests.cuda_emulated import arrays_of, compiled, recurrent

LENGTHS = (1, 2, 15, 16, 17, 33, 50)  # steps: fewer and more than are loaded together


def pointwise(f: CompiledCuda) -> list[PointwiseUnit]:
    return [unit for unit in f.code.units if isinstance(unit, PointwiseUnit)]


def compare(g: gc.Graph, *lengths: dict[str, int], tolerance: float = 2e-5, **options: str) -> CompiledCuda:
    """Compile once, and compare with the interpreter at all of these lengths."""
    f = compiled(g, **options)
    for sizes in lengths:
        arrays = arrays_of(g, **sizes)
        found, expected = f(**arrays), gc.interpret(g, **arrays)
        for name, value in expected.items():
            np.testing.assert_allclose(
                np.float64(found[name]), np.float64(value), tolerance, tolerance, err_msg=f"{name} {sizes}"
            )
    return f


def minimal(units: int = 3) -> tuple[gc.Graph, gc.Axis, gc.Axis, gc.Node]:
    g = gc.Graph("pointwise")
    t, n = g.axis("t"), g.axis("n")
    return g, t, n, g.input("x", (units,), over=(t, n))


@pytest.mark.parametrize(("cell", "loops"), [("min_gru", 2), ("min_lstm", 2), ("gru", 0), ("lstm", 0)])
def test_which_loops_are_pointwise(cell: str, loops: int) -> None:
    """Those of cells whose states are not multiplied by matrices, forwards and backwards."""
    assert len(pointwise(compiled(recurrent(cell, 4)))) == loops


@pytest.mark.parametrize("cell", ["min_gru", "min_lstm", "indrnn"])
def test_a_cell_at_all_lengths(cell: str) -> None:
    f = compare(recurrent(cell, 5), *({"t": t, "n": 3} for t in LENGTHS))
    assert pointwise(f)


def leaky(x: gc.Node, h: gc.State, t: gc.Axis) -> gc.Node:
    return 0.5 * h[t - 1] + x[t]


def of_three_steps(x: gc.Node, h: gc.State, t: gc.Axis) -> gc.Node:
    return gc.tanh(h[t - 1] - 0.5 * h[t - 3]) * 0.7 + 0.2 * h[t - 2] * x[t]


def backwards(x: gc.Node, h: gc.State, t: gc.Axis) -> gc.Node:
    return gc.sin(x[t] + h[t + 1]) * x[t + 2]


def read_at_the_point_before(x: gc.Node, h: gc.State, t: gc.Axis) -> gc.Node:
    return gc.sigmoid(x[t - 1] + x) * h[t - 1] + x[t]


@pytest.mark.parametrize("step", [leaky, of_three_steps, backwards, read_at_the_point_before])
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_a_recurrence(step: Callable[..., gc.Node], storage: str) -> None:
    """Its values and its gradient, with initial values of its own."""
    g, t, n, x = minimal()
    h = g.state("h", (3,), over=(t, n), initial=g.input("h0", (3,), over=(n,)), dtype=storage)
    value = step(x, h, t)
    h[t] = value if storage == "float32" else gc.cast(value, storage)
    g.output("h", gc.cast(h, "float32"))
    g.output("loss", gc.mean(gc.sum(gc.sin(gc.cast(h, "float32"))), over=(t, n)))
    lengths = [{"t": t, "n": 2} for t in LENGTHS]
    f = compare(gc.grad(g, "loss", wrt=["x", "h0"]), *lengths, tolerance=2e-5 if storage == "float32" else 2e-2)
    assert len(pointwise(f)) == 2


def test_states_that_need_each_other() -> None:
    """An oscillator: each state of a point reads the other's new or old value, and a flag resets both."""
    g, t, n, x = minimal()
    flag = g.input("flag", (), over=(t, n), dtype="bool")
    u, v = (g.state(name, (3,), over=(t, n), initial=0.25, reset=flag) for name in "uv")
    u[t] = 0.9 * u[t - 1] - 0.3 * v[t - 1] + x[t]
    v[t] = 0.9 * v[t - 1] + 0.3 * u[t]
    g.output("loss", gc.mean(gc.sum(u * v), over=(t, n)))
    f = compare(gc.grad(g, "loss", wrt=["x"]), *({"t": t, "n": 2} for t in LENGTHS))
    assert len(pointwise(f)) == 2


def test_lengths_that_differ() -> None:
    g = gc.Graph("ragged")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=(n,), dtype="int32"))
    x = g.input("x", (3,), over=(t, n))
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(x) * h[t - 1] + x
    g.output("h", h)
    g.output("loss", gc.mean(gc.sum(h[t.last] * h[t.last]), over=n))
    f = compare(gc.grad(g, "loss", wrt=["x"]), {"t": 20, "n": 4}, {"t": 3, "n": 7})
    assert len(pointwise(f)) == 2


def test_a_matrix_of_states_and_none() -> None:
    """More points than a CTA has threads; and a single one, without dims."""
    g = gc.Graph("outer")
    t, n = g.axis("t"), g.axis("n")
    k, v = (g.input(name, (9,), over=(t, n)) for name in "kv")
    c = g.state("c", (9, 9), over=(t, n))
    c[t] = 0.8 * c[t - 1] + v.reshape(9, 1) * k.reshape(1, 9)
    g.output("last", c[t.last])
    assert len(pointwise(compare(g, {"t": 18, "n": 3}))) == 1
    g = gc.Graph("single")
    t = g.axis("t")
    s = g.state("s", (), over=t)
    s[t] = 0.5 * s[t - 1] + g.input("x", (), over=t)
    g.output("s", s)
    assert len(pointwise(compare(g, *({"t": t} for t in LENGTHS)))) == 1


@pytest.mark.parametrize(("t", "n"), [(0, 2), (2, 0)])
def test_nothing_to_compute(t: int, n: int) -> None:
    g, along, batch, x = minimal()
    h = g.state("h", (3,), over=(along, batch))
    h[along] = leaky(x, h, along)
    g.output("h", h)
    g.output("total", gc.sum(gc.sum(h), over=(along, batch)))
    compare(g, {"t": t, "n": n})


def test_in_chunks() -> None:
    """With a limit on memory, a loop goes on where the chunk before has ended."""
    g = recurrent("min_gru", 16)
    arrays = arrays_of(g, t=200, n=3)
    f = compiled(g, memory=140_000)
    found, expected = f(**arrays), gc.interpret(g, **arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=5e-5, atol=5e-5, err_msg=name)
    assert any(
        isinstance(unit, PointwiseUnit) and unit.around for unit in f.runner.choose({"t": 200, "n": 3}).code.units
    )


def test_what_only_the_loop_reads_is_not_stored() -> None:
    """Of the gradient, what goes from step to step is in a register only; of the run, what follows reads the states."""
    f = compiled(recurrent("min_gru", 4))
    forward, backward = pointwise(f)
    assert not forward.kept
    assert len(backward.kept) == 1
    stores = {
        unit.symbol: len(re.findall(r"st\.global", f.code.ptx_of(frozenset({unit.symbol}))))
        for unit in (forward, backward)
    }
    assert stores == {forward.symbol: 17, backward.symbol: 17}  # one of sixteen steps, and one of the rest


def test_explanation_and_profile() -> None:
    g = recurrent("min_gru", 4)
    text = str(gc.explain(g, {"t": 100, "n": 2}, target="cuda"))
    assert "loop t: one thread for each point" in text
    assert "8 points, each 100 steps; its states stay in registers" in text
    assert "operands of 16 steps are loaded together" in text
    profile = compiled(g).profile(2, **arrays_of(g, t=5, n=2))
    assert [part.groups for part in profile.parts if part.what.startswith("loop")] == [1, 1]
