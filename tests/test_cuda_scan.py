"""Linear recurrences on a GPU, their steps in parts. In the emulator, against the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cuda.isa.arch import ARCHS
from graphc.codegen.cuda.loops import pointwise_unit as module
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.compiling.cuda_compile import CompiledCuda
from tests.cuda_emulated import arrays_of, compiled, recurrent


def recurrences(f: CompiledCuda) -> list[PointwiseUnit]:
    """The linear recurrences."""
    return [unit for unit in f.code.units if isinstance(unit, PointwiseUnit) and unit.linear is not None]


def compare(f: CompiledCuda, arrays: dict[str, np.ndarray], tolerance: float) -> None:
    expected, found = gc.interpret(f.stages.graph, **arrays), f(**arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, tolerance, tolerance, err_msg=name)


def names(f: CompiledCuda) -> list[str]:
    """The functions that the last calls launched."""
    return [launch.symbol for launch in f.runner.device.launched]  # type: ignore[attr-defined]


# What is linear.

STEPS: dict[str, tuple[Callable[..., gc.Node], bool]] = {
    "a constant": (lambda h, x: 0.5 * h + x, True),
    "a gate": (lambda h, x: (1 - gc.sigmoid(x)) * h + gc.sigmoid(x) * x, True),
    "twice": (lambda h, x: h * x - (h - x) / (1 + x * x), True),
    "where": (lambda h, x: gc.where(x > 0, -h, x), True),
    "no factor": (lambda h, x: h + x, True),
    "a square": (lambda h, x: 0.1 * h * h + x, False),
    "a quotient": (lambda h, x: x / (2 + h), False),
    "a function": (lambda h, x: gc.tanh(h) + x, False),
    "a maximum": (lambda h, x: gc.maximum(h, x), False),
    "a condition": (lambda h, x: gc.where(h > 0, x, 1.0), False),
}


@pytest.mark.parametrize("kind", STEPS)
def test_which_recurrences_are_linear(kind: str) -> None:
    step, is_linear = STEPS[kind]
    g = gc.Graph("step")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    h = g.state("h", (3,), over=(t, n), initial=0.25)
    h[t] = step(h[t - 1], x[t])
    g.output("h", h)
    f = compiled(g)
    assert len(recurrences(f)) == is_linear
    compare(f, arrays_of(g, t=70, n=2), 2e-5)
    assert any(name.endswith("_totals") for name in names(f)) == is_linear


def test_the_gradient_of_a_pointwise_cell_is_linear() -> None:
    """Whatever the cell's own steps are: an adjoint is."""
    f = compiled(recurrent("indrnn", 4))
    assert len(recurrences(f)) == 1
    compare(f, arrays_of(f.stages.graph, t=90, n=2), 2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t", [63, 64, 65, 127, 300])
def test_a_cell(t: int, dtype: str) -> None:
    """Few steps in one part; more in several, of which the last has the rest."""
    f = compiled(recurrent("min_gru", 5, dtype=dtype))
    compare(f, arrays_of(f.stages.graph, t=t, n=3), 1e-4 if dtype == "float32" else 1e-9)
    assert any(name.endswith("_totals") for name in names(f)) == (t >= 64)


@pytest.mark.parametrize("cell", ["gla", "min_lstm", "rg_lru", "selective_ssm"])
def test_linear_cells_are_scans(cell: str) -> None:
    """Their runs and their gradients."""
    f = compiled(recurrent(cell, 4))
    assert len(recurrences(f)) == 2
    compare(f, arrays_of(f.stages.graph, t=80, n=2), 1e-3)


def test_two_states_that_need_each_other() -> None:
    """The linear recurrent unit (Orvieto et al. 2023), whose complex numbers are real and imaginary parts."""
    g = gc.Graph("lru")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (4,), over=(t, n))
    size, angle = gc.exp(-gc.exp(g.param("nu", (4,)))), g.param("theta", (4,))
    a, b = size * gc.cos(angle), size * gc.sin(angle)
    u, v = g.state("u", (4,), over=(t, n)), g.state("v", (4,), over=(t, n))
    u[t] = a * u[t - 1] - b * v[t - 1] + x
    v[t] = a * v[t - 1] + b * u[t - 1] + g.param("B", (4, 4)) @ x
    g.output("loss", gc.mean(gc.sum((u - v) ** 2), over=(t, n)))
    f = compiled(gc.grad(g, "loss"))
    assert len(recurrences(f)) == 2
    compare(f, arrays_of(f.stages.graph, t=80, n=2), 1e-3)


# Numbers.


def growing(factor: float) -> gc.Graph:
    g = gc.Graph("growing")
    t = g.axis("t")
    h = g.state("h", (3,), over=t)
    h[t] = factor * h[t - 1] + g.input("x", (3,), over=t)[t]
    g.output("h", h)
    return g


def test_a_product_above_what_a_float_holds() -> None:
    """A part of 64 steps multiplies by 3⁶⁴ = 3e30, 16 of them by 3e480: what they multiply is 0, or so small that the
    result is finite."""
    x = np.zeros((900, 3), np.float32)
    x[870, 0], x[860, 1], x[899, 2] = 1e-3, -2.0, 5.0
    f = compiled(growing(3.0))
    (unit,) = recurrences(f)
    assert unit.parts({"t": 900}, f.code.arch) > 8
    compare(f, {"x": x}, 1e-5)


def test_a_tiny_state_before_a_large_product() -> None:
    """The states are 1e-30 at the end of the part before; the part multiplies by 1e50, more than a float holds."""
    x = np.zeros((256, 3), np.float32)
    x[12] = 1e-37
    factor = float(np.float32(10 ** (50 / 16)))
    g = gc.Graph("scaled")
    t = g.axis("t")
    a = g.input("a", (), over=t)
    h = g.state("h", (3,), over=t)
    h[t] = a * h[t - 1] + g.input("x", (3,), over=t)[t]
    g.output("h", h)
    f = compiled(g)
    (unit,) = recurrences(f)
    assert unit.parts({"t": 256}, f.code.arch) == 16
    a_of = np.ones(256, np.float32)
    a_of[16:32] = factor  # to 1e13, by way of one product above the largest float
    compare(f, {"x": x, "a": a_of}, 1e-4)


def test_a_reset_ends_what_is_not_finite() -> None:
    """What a part does not read of the states before it may be NaN or infinite, and grow past what a double holds."""
    g = gc.Graph("resets")
    t = g.axis("t")
    x, a, flag = g.input("x", (3,), over=t), g.input("a", (3,), over=t), g.input("flag", (), over=t, dtype="bool")
    h, v = g.state("h", (3,), over=t, initial=1.0, reset=flag), g.state("v", (3,), over=t)
    h[t] = a * h[t - 1] + gc.where(x > 10, v[t - 1], x)
    v[t] = gc.where(flag, x, a * v[t - 1] - gc.where(x > 0, v[t - 1], x)) + 0.1 * h[t - 1]
    g.output("h", h)
    g.output("v", v)
    f = compiled(g)
    (unit,) = recurrences(f)
    assert unit.parts({"t": 512}, f.code.arch) == 32
    arrays = {"x": np.full((512, 3), 0.1, np.float32), "a": np.full((512, 3), 0.5, np.float32)}
    flags = np.zeros(512, bool)
    flags[[100, 230, 400, 401]] = True
    arrays["x"][40, 0], arrays["a"][170, 1], arrays["a"][265:395] = np.nan, np.inf, 3e5
    arrays["x"][270, 1] = np.nan
    found, expected = f(**arrays, flag=flags), gc.interpret(g, **arrays, flag=flags)
    for name, value in expected.items():
        finite = np.isfinite(value)
        np.testing.assert_array_equal(np.isfinite(found[name]), finite, err_msg=name)
        np.testing.assert_allclose(found[name][finite], value[finite], 1e-4, 1e-4, err_msg=name)
    assert np.isfinite(expected["h"][400:]).all()


def test_a_coefficient_of_zero_does_not_end_nan() -> None:
    """Without a reset, NaN stays, whatever the sign of the zero that it is multiplied by."""
    g = gc.Graph("zeros")
    t = g.axis("t")
    h = g.state("h", (3,), over=t)
    h[t] = g.input("a", (3,), over=t) * h[t - 1] + g.input("x", (3,), over=t)
    g.output("h", h)
    x, a = np.ones((200, 3), np.float32), np.full((200, 3), -0.5, np.float32)
    x[5] = np.nan
    a[50], a[83] = 0.0, -0.0
    f = compiled(g)
    assert len(recurrences(f)) == 1
    compare(f, {"x": x, "a": a}, 1e-5)


def test_a_state_leaves_the_other_as_it_is() -> None:
    """Two recurrences that would meet where x is large: until then what one becomes is nothing to the other."""
    g = gc.Graph("two")
    t = g.axis("t")
    x, a = g.input("x", (3,), over=t), g.input("a", (3,), over=t)
    u, v = g.state("u", (3,), over=t), g.state("v", (3,), over=t)
    u[t] = 0.5 * u[t - 1] + gc.where(x > 10, v[t - 1], x)
    v[t] = a * v[t - 1] + gc.where(x > 10, u[t - 1], 1.0)
    g.output("u", u)
    f = compiled(g)
    assert len(recurrences(f)) == 1
    x_of, a_of = np.ones((200, 3), np.float32), np.full((200, 3), 1e9, np.float32)
    compare(f, {"x": x_of, "a": a_of}, 1e-5)


@pytest.mark.parametrize("shape", [(), (4,), (8,)])
def test_few_points_are_a_scan(shape: tuple[int, ...]) -> None:
    """What a core would do two steps at once, a GPU does in parts."""
    g = gc.Graph("few")
    t = g.axis("t")
    h = g.state("h", shape, over=t)
    h[t] = g.input("a", shape, over=t) * h[t - 1] + g.input("x", shape, over=t)
    g.output("h", h)
    f = compiled(g)
    assert len(recurrences(f)) == 1
    compare(f, arrays_of(g, t=100), 1e-4)
    assert "a linear recurrence: in 12 parts" in str(gc.explain(g, {"t": 200}, target="cuda"))
    assert "_totals" in gc.emit(g, target="cuda").ptx


# Random recurrences.


@dataclass(frozen=True)
class Recurrence:
    graph: gc.Graph
    steps: int
    rows: int


FACTORS: tuple[Callable[[gc.Node], gc.Node | float], ...] = (
    lambda x: 0.9,
    lambda x: -0.5,
    lambda x: gc.sigmoid(x),
    lambda x: 1 - gc.sigmoid(x),
    lambda x: gc.where(x > 0, 1.0, 0.3),
    lambda x: 1 / (1 + x * x),
)


@st.composite
def random_recurrences(draw: st.DrawFn) -> Recurrence:
    """One or two states, in either direction; resets, initial values, lengths that differ; all steps or the last."""
    g = gc.Graph("linear", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=(n,), dtype="int32")) if draw(st.booleans()) else g.axis("t")
    x, z = (g.input(name, (2,), over=(t, n)) for name in "xz")
    count, sign = draw(st.integers(1, 2)), draw(st.sampled_from([-1, 1]))
    flag = g.input("flag", (), over=(t, n), dtype="bool") if draw(st.booleans()) else None
    states = []
    for name in "uv"[:count]:
        initial = draw(st.sampled_from([0.0, 0.5, "given"]))
        start = g.input(f"{name}0", (2,), over=(n,)) if initial == "given" else initial
        states.append(g.state(name, (2,), over=(t, n), initial=start, reset=flag))
    for state in states:
        value: gc.Node = draw(st.sampled_from([x, x * z, gc.tanh(z)]))
        for other in states:
            if other is state or draw(st.booleans()):
                value = value + draw(st.sampled_from(FACTORS))(draw(st.sampled_from([x, z]))) * other[t + sign]
        state[t] = value
    end = t.last if sign < 0 else t.first
    for state in states:
        if draw(st.booleans()):
            g.output(f"all_{state.name}", state)
        g.output(f"end_{state.name}", state[end])
    loss = sum((gc.sum(gc.sin(s)) for s in states[1:]), gc.sum(gc.sin(states[0])))
    g.output("loss", gc.mean(gc.sum(loss, over=t), over=n))
    inputs = ["x", *(name for name in g.inputs if name.endswith("0"))]
    made = gc.grad(g, "loss", wrt=inputs) if draw(st.booleans()) else g
    return Recurrence(made, draw(st.integers(1, 45)), draw(st.integers(1, 3)))


@given(random_recurrences())
@settings(max_examples=15)
def test_random_recurrences(example: Recurrence) -> None:
    """With parts as short as can be, so that all lengths have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SHORTEST", 2)
        patch.setattr(module, "_FEWEST", 2)
        f = compiled(example.graph)
        arrays = arrays_of(example.graph, t=example.steps, n=example.rows)
        compare(f, arrays, 1e-9)


def test_how_many_parts() -> None:
    f = compiled(recurrent("min_gru", 32))
    unit, arch = recurrences(f)[0], ARCHS["sm_90"]
    parts = {(t, n): unit.parts({"t": t, "n": n}, arch) for t in (32, 256, 16384) for n in (1, 16, 1024)}
    assert parts[32, 1] == 1  # short: a launch more would not pay
    assert parts[256, 1] == 16
    assert parts[16384, 1] == 181  # as many parts as each has steps, twice
    assert parts[16384, 16] == 33  # then the chip is busy
    assert parts[16384, 1024] == 1  # as it is without parts
    text = str(gc.explain(recurrent("min_gru", 32), {"t": 16384, "n": 1}, target="cuda"))
    assert "a linear recurrence: in 181 parts" in text
