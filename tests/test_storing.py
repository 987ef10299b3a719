"""Graphs whose inputs, params and states are float16 or bfloat16: what is computed in which dtype, what is rounded
where, and the whole square of `tests.test_square` on random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import checkpoint, testing
from graphc.codegen.interpret_program import allocate
from graphc.codegen.interpret_program import interpret as interpret_program
from graphc.errors import ArgumentError, DtypeError, ShapeError
from graphc.ir import FLOATING
from graphc.language.graph import declared_arrays
from graphc.pipeline.stages import stages
from graphc.scalar import STORED, computed, nearest
from tests import cuda_emulated
from tests.test_square import assert_same
from tests.test_step import stepped

NUMPY = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
TOLERANCE = 3e-2  # where sums are added in another order, a state can be rounded the other way


def floating(graph: gc.Graph) -> list[str]:
    declared = declared_arrays(graph)
    return [name for name, node in declared.items() if node.dtype in FLOATING]


def network(x: str = "bfloat16", weights: str = "float16", state: str = "bfloat16") -> gc.Graph:
    g = gc.Graph("low")
    t, n = g.axis("t"), g.axis("n")
    seen = g.input("x", (3,), over=(t, n), dtype=x)
    W, U = g.param("W", (5, 3), dtype=weights), g.param("U", (5, 5), dtype=weights)
    b = g.param("b", (5,))
    h = g.state("h", (5,), over=(t, n), initial=0.1, dtype=state)
    h[t] = gc.tanh(W @ seen[t] + U @ h[t - 1] + b)
    g.output("h", h)
    g.output("last", gc.cast(h[t.last], "float16"))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g


def arrays_of(g: gc.Graph, seed: int = 0) -> dict[str, np.ndarray]:
    return testing.random_arrays(g, seed, t=6, n=3)


# What has which dtype.


@pytest.mark.parametrize("dtype", STORED)
def test_what_is_computed_is_float32(dtype: str) -> None:
    g = gc.Graph("rules")
    t = g.axis("t")
    x, p = g.input("x", (4,), over=t, dtype=dtype), g.param("p", (4,), dtype=dtype)
    other = g.param("q", (4,), dtype="float16" if dtype == "bfloat16" else "bfloat16")
    for value in (x + p, x + x, -x, x * 2, x * 2.5, x + other, gc.tanh(x), gc.sum(x), gc.sum(x, over=t)):
        assert value.dtype == "float32"
    for value in (
        x @ p,
        gc.concat([x, other]),
        gc.stack([x, x * 2]),
        gc.where(x > 0, x, p),
        gc.stop_gradient(x),
        x == p,
    ):
        assert value.dtype in ("float32", "bool")
    assert (x + g.param("d", (4,), dtype="float64")).dtype == "float64"
    assert (x + g.param("i", (4,), dtype="int32")).dtype == "float32"
    for value in (x, x[t - 1], x[t.last], x[t.at(2)], x.shift(t, 1, fill=p), gc.cast(p, dtype), gc.cast(x * 2, dtype)):
        assert value.dtype == dtype
    square = x.reshape(2, 2)
    for value in (x[0], x[1:3], square, square.T, gc.transpose(square), gc.flip(x), gc.roll(x, 1), gc.split(x, 2)[1]):
        assert value.dtype == dtype
    for value in (gc.concat([x, p]), gc.stack([p, p])):
        assert value.dtype == dtype
    assert gc.cast(x, "float32").dtype == "float32"
    assert gc.cast(x, "int32").dtype == "int32"


@pytest.mark.parametrize("dtype", STORED)
def test_what_rearranges_a_value_stores_it_as_it_is(dtype: str) -> None:
    """Outputs and states that are parts of others, put together anew: without a rounding, and with float32 adjoints."""
    g = gc.Graph("parts")
    t = g.axis("t")
    x, p = g.input("x", (6,), over=t, dtype=dtype), g.param("p", (6,), dtype=dtype)
    h = g.state("h", (6,), over=t, dtype=dtype)
    h[t] = gc.concat([h[t - 1][3:], gc.flip(x[:3])])
    g.output("turned", gc.stack([x, p]).reshape(3, 4).T)
    g.output("h", h)
    g.output("loss", gc.sum(gc.sum(h * h.reshape(2, 3).T.reshape(6)), over=t))
    dg = gc.grad(g, "loss", wrt=["x", "p"])
    arrays = testing.random_arrays(dg, 0, t=4)
    expected = gc.interpret(dg, **arrays)
    assert {name: array.dtype.name for name, array in expected.items() if name in g.outputs} == {
        "turned": dtype,
        "h": dtype,
        "loss": "float32",
    }
    assert expected["grad_x"].dtype == "float32"
    turned = np.stack([arrays["x"], np.broadcast_to(arrays["p"], (4, 6))], 1).reshape(4, 3, 4).transpose(0, 2, 1)
    assert expected["turned"].tobytes() == turned.tobytes()
    same(gc.compile(dg)(**arrays), expected)
    same(cuda_emulated.compiled(dg)(**arrays), expected)
    assert gc.parse(str(dg)) == dg


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("run", ["interpreted", "compiled"])
def test_rounding_is_where_it_is_written(dtype: str, run: str) -> None:
    """A chain of operations is rounded once, at its end: at a cast, a state, an initial value and an update."""
    g = gc.Graph("rounded")
    t = g.axis("t", 4)
    x, p = g.input("x", (7,), over=t), g.param("p", (7,), dtype=dtype)
    g.output("cast", gc.cast(x * x + x, dtype))
    g.output("used", gc.cast(x, dtype) * x)
    g.output("twice", gc.cast(gc.cast(x, dtype), "float32"))
    h = g.state("h", (7,), over=t, initial=gc.cast(g.param("start", (7,)), dtype), dtype=dtype)
    h[t] = h[t - 1] * 0.7 + x
    g.output("h", h)
    k = g.state("k", (7,), over=t, initial=g.value("start"), dtype=dtype)
    k[t] = h[t - 1] * 0.7 + x
    g.output("k", k)
    g.update(p, p * 1.01)
    rng = np.random.default_rng(1)
    given = {"x": rng.normal(size=(4, 7)).astype(np.float32), "start": rng.normal(size=7).astype(np.float32)}
    given["p"] = rng.normal(size=7).astype(dtype)
    before, wide = given["p"].copy(), lambda a: a.astype(np.float32)
    found = {"interpreted": gc.interpret, "compiled": lambda g, **a: gc.compile(g)(**a)}[run](g, **given)
    x_, low = given["x"], lambda a: nearest(a, dtype)
    np.testing.assert_array_equal(wide(found["cast"]), wide(low(x_ * x_ + x_)))
    np.testing.assert_array_equal(found["used"], wide(low(x_)) * x_)
    np.testing.assert_array_equal(found["twice"], wide(low(x_)))
    state = low(given["start"])
    for step in range(4):
        state = low(wide(state) * np.float32(0.7) + x_[step])
        np.testing.assert_allclose(wide(found["h"][step]), wide(state), rtol=2.0**-7)
    assert {found[name].dtype for name in ("cast", "h", "k")} == {np.dtype(dtype)}
    np.testing.assert_array_equal(wide(given["p"]), wide(low(wide(before) * np.float32(1.01))))


@pytest.mark.parametrize("shape", [(), (3,), (20,)])
@pytest.mark.parametrize("dtype", STORED)
def test_a_state_of_two_bytes_in_a_float64_graph(dtype: str, shape: tuple[int, ...]) -> None:
    """What is computed in float64 is stored in two conversions, neither of which is left to a library."""
    g = gc.Graph("halved", dtype="float64")
    t = g.axis("t")
    x = g.input("x", shape, over=t)
    for fn in (gc.tanh, gc.sigmoid, gc.erf, gc.sin, gc.exp, gc.floor, gc.abs, gc.sign, gc.relu, gc.softplus):
        h = g.state(fn.__name__, shape, over=t, dtype=dtype)
        h[t] = gc.cast(fn(0.5 * h[t - 1] + x), dtype)
        g.output(h.name, h)
    arrays = testing.random_arrays(g, t=6)
    expected = gc.interpret(g, **arrays)
    for name, array in gc.compile(g)(**arrays).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_float64_is_rounded_by_way_of_float32() -> None:
    """To bfloat16, 1 + 2⁻⁸ + 2⁻⁴⁰ is a tie in float32."""
    g = gc.Graph("double", dtype="float64")
    g.output("y", gc.cast(g.param("p", ()), "bfloat16"))
    p = np.array(1 + 2.0**-8 + 2.0**-40)
    for found in (gc.interpret(g, p=p)["y"], gc.compile(g)(p=p)["y"]):
        assert float(found) == 1.0


# Gradients.


@pytest.mark.parametrize("dtype", STORED)
def test_adjoints_are_float32(dtype: str) -> None:
    dg = gc.grad(network(dtype, dtype, dtype), "loss", wrt=["W", "U", "b", "x"])
    assert {dg.outputs[name].dtype for name in dg.outputs if name.startswith("grad_")} == {"float32"}
    assert dg.states["adjoint_h"].node.dtype == "float32"
    for derived in (gc.vjp(network(dtype, dtype, dtype), "h"), gc.jvp(network(dtype, dtype, dtype), "h")):
        added = [node for name, node in derived.inputs.items() if name.startswith(("cotangent", "tangent"))]
        assert {node.dtype for node in added} == {"float32"}
    assert gc.jvp(network(dtype, dtype, dtype), "h").outputs["tangent_h"].dtype == "float32"


def test_a_gradient_by_hand_in_another_dtype() -> None:
    """Numbers make the result float64, as the graph is; the argument is float32, and so is its adjoint."""

    @gc.custom_gradient
    def spike(v: gc.Value) -> Any:
        return gc.where(v > 0, 1.0, 0.0), lambda d: d / (1 + gc.abs(v)) ** 2

    g = gc.Graph("spikes", dtype="float64")
    x = g.input("x", (3,), dtype="bfloat16")
    g.output("loss", gc.sum(spike(x) * 2 + gc.cast(gc.sin(x), "float64")))
    given = np.array([0.5, -1.0, 2.0])
    for run in (gc.interpret, lambda graph, **arrays: gc.compile(graph)(**arrays)):
        found = run(gc.grad(g, "loss", wrt=["x"]), x=given.astype(ml_dtypes.bfloat16))["grad_x"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, 2 / (1 + np.abs(given)) ** 2 + np.cos(given), rtol=1e-6)


def test_what_is_small_does_not_vanish() -> None:
    """A sum over 4,096 steps of what float16 cannot hold, beside a sum that it could not continue."""
    g = gc.Graph("small")
    t = g.axis("t")
    w = g.param("w", (), dtype="float16")
    g.output("loss", gc.sum(g.input("x", (), over=t, dtype="float16") * w * 1e-6, over=t))
    dg = gc.grad(g, "loss")
    x = np.full(4096, 2.0**-10, np.float16)
    for run in (gc.interpret, lambda g, **arrays: gc.compile(g)(**arrays)):
        found = run(dg, x=x, w=np.float16(1))["grad_w"]
        np.testing.assert_allclose(found, 4096 * 2.0**-10 * 1e-6, rtol=1e-5)


def test_gradients_are_checked_in_double_precision() -> None:
    assert max(testing.check_gradients(network()).values()) < 1e-6


@settings(max_examples=10)
@given(testing.graphs(smooth=True, storing=True))
def test_gradients_of_random_graphs(example: testing.Example) -> None:
    testing.check_gradients(example.graph, arrays=example.arrays, wrt=floating(example.graph)[:2], tolerance=1e-5)


# Random graphs.


@settings(max_examples=25)
@given(testing.graphs(smooth=True, storing=True, dtype="float32"))
def test_unrolling_and_differentiating_commute(example: testing.Example) -> None:
    wrt = floating(example.graph)
    folded = gc.grad(example.graph, "loss", wrt=wrt)
    expected = gc.interpret(folded, **example.arrays)
    same(gc.interpret(gc.unroll(folded, **example.lengths), **example.arrays), expected)
    unrolled = gc.grad(gc.unroll(example.graph, **example.lengths), "loss", wrt=wrt)
    same(gc.interpret(unrolled, **example.arrays), expected)


@settings(max_examples=30)
@given(testing.graphs(storing=True))
def test_printed_graphs_read_back(example: testing.Example) -> None:
    for graph in (example.graph, gc.grad(example.graph, "loss", wrt="x"), gc.unroll(example.graph, **example.lengths)):
        assert gc.parse(str(graph)) == graph
        assert str(gc.parse(str(graph))) == str(graph)


@settings(max_examples=20)
@given(testing.graphs(smooth=True, storing=True, dtype="float32"))
def test_compiled_code_computes_what_the_interpreter_does(example: testing.Example) -> None:
    folded = gc.grad(example.graph, "loss", wrt=floating(example.graph))
    same(gc.compile(folded)(**example.arrays), gc.interpret(folded, **example.arrays))


@settings(max_examples=15)
@given(testing.graphs(smooth=True, storing=True, dtype="float32"))
def test_programs_compute_what_the_interpreter_does(example: testing.Example) -> None:
    """The second oracle: no vectors, no layouts, and no machine's conversions."""
    folded = gc.grad(example.graph, "loss", wrt=floating(example.graph))
    made = stages(folded)
    arrays = {**{name: np.asarray(a) for name, a in example.arrays.items()}, **made.lowered.constants}
    sizes = {"n": len(example.arrays["label"].T), **example.lengths}
    buffers = allocate(made.program, arrays, sizes)
    interpret_program(made.program, buffers, sizes)
    found = {name: buffers[buffer] for name, buffer in made.lowered.outputs.items()}
    same(found, gc.interpret(folded, **example.arrays))


@settings(max_examples=4)
@given(testing.graphs(smooth=True, storing=True, dtype="float32"))
def test_unrolled_graphs_compile(example: testing.Example) -> None:
    unrolled = gc.unroll(example.graph, **example.lengths)
    same(gc.compile(unrolled)(**example.arrays), gc.interpret(unrolled, **example.arrays))


@settings(max_examples=10)
@given(testing.graphs(smooth=True, storing=True, dtype="float32", causal=True, most_states=2))
def test_streaming_steps_compute_the_sequence(example: testing.Example) -> None:
    """What delays read of the past is kept between calls in its own dtype."""
    g = example.graph
    steps = example.arrays["x"].shape[g.inputs["x"].axes.index(g.axes["t"])]
    expected = gc.interpret(g, **example.arrays)
    for compiled in (False, True):
        same(stepped(g, example.arrays, steps, compiled), expected)


# Arrays, params, checkpoints.


@pytest.mark.parametrize("dtype", STORED)
def test_calls_take_arrays_of_exactly_the_dtype(dtype: str) -> None:
    g = network(dtype, dtype, dtype)
    arrays = arrays_of(g)
    assert arrays["x"].dtype == NUMPY[dtype]
    f, spelled = gc.compile(g), {"float16": "np.float16", "bfloat16": "ml_dtypes.bfloat16"}[dtype]
    for run in (lambda **a: gc.interpret(g, **a), f):
        found = run(**{**arrays, "W": arrays["W"].astype(np.float32).tolist()})
        same(found, run(**arrays))
        with pytest.raises(ArgumentError, match=f"x is an array of float32, expected {dtype}; pass x.astype.{spelled}"):
            run(**{**arrays, "x": arrays["x"].astype(np.float32)})
        with pytest.raises(ArgumentError, match=f"b is an array of {dtype}, expected float32"):
            run(**{**arrays, "b": arrays["b"].astype(dtype)})
    strided = np.asfortranarray(arrays["W"])
    same(f(**{**arrays, "W": strided}), f(**arrays))


@pytest.mark.parametrize("dtype", STORED)
def test_bound_and_frozen_calls(dtype: str) -> None:
    g = network(dtype, dtype, dtype)
    arrays = arrays_of(g)
    expected = gc.compile(g)(**arrays)
    same(gc.compile(g).bind(**arrays)(), expected)
    weights = {name: arrays[name] for name in g.params}
    frozen = gc.compile(g).freeze(**weights)
    same(frozen(x=arrays["x"]), expected)
    same(frozen.bind(x=arrays["x"])(), expected)


def test_a_limit_on_memory() -> None:
    """Checkpoints of a chunk's states have the states' dtype."""
    g = gc.grad(network(), "loss")
    arrays = testing.random_arrays(g, 0, t=400, n=3)
    limited = gc.compile(g, memory="48 KiB")
    same(limited(**arrays), gc.compile(g)(**arrays))


@pytest.mark.parametrize("dtype", STORED)
def test_training(dtype: str, tmp_path: Path) -> None:
    """Params are rounded after each step, what the optimiser remembers is float32; both go into a checkpoint."""
    step = gc.training_step(network("float32", dtype, "float32"), "loss", gc.optim.Adam(lr=1e-2, clip=1.0))
    state = gc.initialize(step, seed=0)
    assert state["W"].dtype == NUMPY[dtype]
    assert {a.dtype.name for name, a in state.items() if name.endswith("_W")} == {"float32"}
    x = np.random.default_rng(0).normal(size=(6, 3, 3)).astype(np.float32)
    interpreted = {name: a.copy() for name, a in state.items()}
    same(gc.compile(step)(x=x, **state), gc.interpret(step, x=x, **interpreted))
    same(state, interpreted)
    run = gc.compile(step)
    losses = [float(run(x=x, **state)["loss"]) for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    checkpoint.save(tmp_path / "state.safetensors", state)
    found = checkpoint.load(tmp_path / "state.safetensors")
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        assert found[name].tobytes() == array.tobytes()


def test_fit_resumes(tmp_path: Path) -> None:
    step = gc.training_step(network("bfloat16", "bfloat16", "float16"), "loss", gc.optim.Momentum(lr=0.1))
    batch = {"x": arrays_of(network())["x"]}
    path = tmp_path / "run.safetensors"
    whole = gc.fit(step, [batch], epochs=4, seed=1)
    gc.fit(step, [batch], epochs=2, seed=1, checkpoint=path)
    resumed = gc.fit(step, [batch], epochs=4, seed=1, checkpoint=path)
    for name, array in whole.state.items():
        assert resumed.state[name].tobytes() == array.tobytes()


def test_initial_params_are_rounded_from_those_of_float32() -> None:
    low, single = gc.initialize(network(weights="bfloat16")), gc.initialize(network(weights="float32"))
    np.testing.assert_array_equal(low["W"].astype(np.float32), nearest(single["W"], "bfloat16").astype(np.float32))


def test_cells_compute_in_float32() -> None:
    g = gc.Graph("cell")
    t, n = g.axis("t"), g.axis("n")
    made = gc.cells.lstm(g, g.input("x", (3,), over=(t, n), dtype="float16"), 4, over=t)
    assert {p.node.dtype for p in g.params.values()} == {"float32"}
    assert made.h.dtype == "float32"


# Mistakes.


def test_mistakes() -> None:
    g = gc.Graph("wrong", dtype="float64")
    t = g.axis("t")
    x = g.input("x", (3,), over=t, dtype="bfloat16")
    h = g.state("h", (3,), over=t)
    with pytest.raises(DtypeError, match="state 'h' is float64, but is defined by a value of dtype bfloat16"):
        h[t] = x
    with pytest.raises(ShapeError, match="float64"):
        g.update(g.param("p", (3,)), g.param("q", (3,), dtype="float16"))
    with pytest.raises(DtypeError, match="default dtype is float32 or float64"):
        gc.Graph("low", dtype="float16")
    with pytest.raises(DtypeError, match="float8"):
        g.input("z", (3,), dtype="float8")
    with pytest.raises(DtypeError, match="int32"):
        gc.embedding(g.param("table", (4, 2)), x)


def test_constants_of_numpys_dtypes() -> None:
    """They are numbers like any others: a constant is of the graph's dtype."""
    for dtype in NUMPY.values():
        g = gc.Graph("constants")
        x = g.input("x", (2,))
        g.output("y", np.array([0.5, 3], dtype) * x + dtype(2))
        assert g.outputs["y"].dtype == "float32"
        np.testing.assert_array_equal(gc.interpret(g, x=np.ones(2, np.float32))["y"], [2.5, 5.0])


def same(found: Any, expected: Any) -> None:
    as_float32 = lambda arrays: {k: a.astype(computed(a.dtype.name)) for k, a in arrays.items()}  # noqa: E731
    assert [a.dtype for _, a in sorted(found.items())] == [a.dtype for _, a in sorted(expected.items())]
    assert_same(as_float32(found), as_float32(expected), TOLERANCE)
