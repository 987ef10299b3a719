"""graphc.jax: a graph as a function of JAX, whose gradients JAX's own check finds right."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArgumentError, GraphError, UnsupportedError

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
check_grads = pytest.importorskip("jax.test_util").check_grads
Function = pytest.importorskip("graphc.jax").Function


@pytest.fixture
def doubles() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def network(dtype: str = "float32", ragged: bool = False) -> gc.Graph:
    g = gc.Graph("net", dtype=dtype)
    n = g.axis("n")
    t = g.axis("t", g.input("length", (), over=n, dtype="int32") if ragged else None)
    h = gc.cells.lstm(g, g.input("x", (2,), over=(t, n)), 3, over=t).h
    g.output("h", h)
    g.output("last", h[t.last])
    g.output("largest", gc.argmax(h))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_of_any_order_are_those_of_finite_differences(ragged: bool) -> None:
    """By inputs and by params, of outputs used together and alone, traced and not."""
    g = network("float64", ragged)
    f, params, x = Function(g), gc.initialize(g), normal(4, 3, 2, dtype="float64")
    length = {"length": np.array([4, 1, 3], np.int32)} if ragged else {}

    def outputs(x: Any, params: Any) -> Any:
        r = f(x=x, **params, **length)
        return r["h"], r["last"]

    check_grads(outputs, (x, params), order=2, modes=["rev"])
    check_grads(jax.jit(outputs), (x, params), order=2, modes=["rev"])
    check_grads(lambda x: outputs(x, params)[1].sum(), (x,), order=3, modes=["rev"])


def test_outputs_and_gradients_are_those_of_compiled_graphs() -> None:
    g = network()
    f, params, x = Function(g), gc.initialize(g), normal(5, 3, 2)
    expected, found = gc.compile(g)(x=x, **params), f(x=x, **params)
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        n: (a.dtype, a.shape) for n, a in expected.items()
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    grads = jax.grad(lambda params: f(x=x, **params)["loss"])(params)
    derived = gc.compile(gc.grad(g, "loss"))(x=x, **params)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, derived[f"grad_{name}"], rtol=1e-5, atol=1e-6)


def test_a_scan_over_steps_is_the_sequence_gradients_too() -> None:
    """What a step updates is a result, and gradients go through it."""
    g = network()
    t = g.axes["t"]
    sequence, step = Function(gc.select(g, "h")), Function(gc.step(gc.select(g, "h"), over=t))
    params, x = gc.initialize(g), normal(6, 3, 2)
    begin = gc.initial_carry(gc.select(g, "h"), over=t, n=3)

    def whole(params: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(sequence(x=x, **params)["h"]))

    def stepwise(params: Any, x: Any) -> Any:
        def one(carry: Any, x: Any) -> Any:
            made = step(x=x, **carry, **params)
            return {name: made[name] for name in carry}, made["h"]

        return jnp.sum(jnp.sin(jax.lax.scan(one, begin, x)[1]))

    a, b = (jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(params, x) for f in (whole, stepwise))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), a, b)


def test_vmap_is_a_call_for_each_element() -> None:
    g = network()
    f, params, x = Function(g), gc.initialize(g), normal(2, 5, 3, 2)
    grad = jax.grad(lambda params, x: f(x=x, **params)["last"].sum())
    found = jax.vmap(grad, in_axes=(None, 0))(params, x)
    for k in range(2):
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda a, k=k: a[k], found), grad(params, x[k]))


def test_statistics_of_batches_are_results() -> None:
    g = gc.Graph("norm")
    n = g.axis("n")
    g.output("y", gc.layers.batch_norm(g, g.input("x", (3,), over=n), over=n))
    params, x = gc.initialize(g), normal(8, 3)
    begin = {name: array.copy() for name, array in params.items()}
    found = Function(g)(x=x, **params)
    assert all((params[name] == array).all() for name, array in begin.items())
    expected = gc.compile(g)(x=x, **params)  # updates params
    np.testing.assert_array_equal(found["y"], expected["y"])
    for name in g.updates:
        np.testing.assert_array_equal(found[name], params[name])
        assert (params[name] != begin[name]).any()


def test_a_training_step_is_a_function_of_its_state() -> None:
    g = network()
    step = gc.training_step(g, "loss", gc.optim.Adam(1e-2))
    x, state = normal(5, 3, 2), gc.initialize(step)
    f, run, mine = jax.jit(Function(step)), gc.compile(step), dict(state)
    for _ in range(3):
        results = f(x=x, **mine)
        mine = {name: results.get(name, array) for name, array in mine.items()}
        expected = run(x=x, **state)
        np.testing.assert_allclose(results["loss"], expected["loss"], rtol=1e-6)
    for name, array in state.items():
        np.testing.assert_allclose(mine[name], array, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_arrays_of_half_precision(dtype: str) -> None:
    """Gradients come in the dtypes of what they are for, as JAX wants it."""
    g = gc.Graph("half")
    t = g.axis("t")
    x, w = g.input("x", (3,), over=t, dtype=dtype), g.param("w", (3,), dtype=dtype)
    s = g.state("s", (3,), over=t)
    s[t] = 0.5 * s[t - 1] + x * w
    g.output("s", gc.cast(s, dtype))
    given = {"x": jnp.asarray(normal(4, 3), dtype), "w": jnp.ones(3, dtype)}
    f = Function(g)
    grads = jax.grad(lambda given: f(**given)["s"].astype(jnp.float32).sum())(given)
    assert {name: a.dtype.name for name, a in grads.items()} == {"x": dtype, "w": dtype}
    np.testing.assert_allclose(grads["x"][-1].astype(np.float32), 1)
    np.testing.assert_allclose(grads["x"][0].astype(np.float32), 1.875)


def test_numbers_of_other_sizes_and_lengths_that_no_array_shows() -> None:
    g = gc.Graph("count")
    t = g.axis("t")
    k, b = g.input("k", (), dtype="int32"), g.input("b", (), over=t, dtype="bool")
    g.output("at", gc.index(t) * k + gc.where(b, 1, 0))
    g.output("flags", b)
    assert Function(g)(k=jnp.uint8(3), b=[True, False])["at"].tolist() == [1, 3]
    assert Function(g)(k=3, b=np.array([True, False]))["flags"].tolist() == [True, False]
    only = gc.select(g, "at")
    made = gc.Graph("made")
    t = made.axis("t")
    made.output("twice", 2 * gc.index(t))
    assert jax.jit(lambda: Function(made)(t=3)["twice"])().tolist() == [0, 2, 4]
    assert Function(only)(k=3, b=np.zeros(0, bool))["at"].shape == (0,)


@pytest.mark.parametrize("wide", [False, True])
def test_numbers_of_python_inside_of_jit(wide: bool, request: pytest.FixtureRequest) -> None:
    """Traced they have no dtype of their own, so they are as good as outside of it."""
    if wide:
        request.getfixturevalue("doubles")
    g = gc.Graph("numbers")
    g.output("y", g.input("a", ()) * 2 + gc.cast(g.input("k", (), dtype="int32"), "float32"))
    f = Function(g)
    for a in (1.5, 3):
        assert f(a=a, k=2)["y"] == jax.jit(f)(a=a, k=2)["y"] == 2 * a + 2
    assert jax.jit(jax.grad(lambda a: f(a=a, k=2)["y"]))(1.5) == 2
    with pytest.raises(ArgumentError, match=r"k is an array of float\d\d, expected int32"):
        jax.jit(f)(a=1.5, k=2.5)
    with pytest.raises(ArgumentError, match=r"a is an array of (float64|float16), expected float32"):
        jax.jit(f)(a=jnp.zeros((), "float64" if wide else "float16"), k=2)


def test_lengths_as_numbers_of_jax() -> None:
    g = gc.Graph("made")
    g.output("twice", 2 * gc.index(g.axis("t")))
    f = Function(g)
    assert f(t=jnp.int32(3))["twice"].tolist() == jax.jit(f, static_argnames="t")(t=3)["twice"].tolist() == [0, 2, 4]
    with pytest.raises(ArgumentError, match=r"axis 't' is not known while JAX compiles.*static_argnames='t'"):
        jax.jit(f)(t=3)
    with pytest.raises(ArgumentError, match="unknown: x"):
        jax.jit(lambda x: f(t=3, x=x))(3)


def test_copies_and_pickles() -> None:
    """Of a function that has been called, with its options."""
    g = network()
    f, given = Function(g, threads=1, precision="bf16"), {"x": normal(5, 3, 2), **gc.initialize(g)}
    expected = jax.grad(lambda x: f(**{**given, "x": x})["loss"])(given["x"])
    for other in (copy.deepcopy(f), pickle.loads(pickle.dumps(f))):
        assert (repr(other), other._settings) == (repr(f), f._settings)
        found = jax.grad(lambda x, other=other: other(**{**given, "x": x})["loss"])(given["x"])
        np.testing.assert_array_equal(found, expected)


def test_calls_on_several_threads_at_once() -> None:
    g = network()
    params, x = gc.initialize(g), normal(50, 8, 2)
    f = jax.jit(lambda x: Function(g)(x=x, **params)["h"])
    inputs = [k * x for k in range(8)]
    expected = [np.asarray(f(x)) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(f, inputs), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_equal_graphs_share_their_code() -> None:
    assert Function(network())._call is Function(network())._call
    assert Function(network())._call is not Function(network(), threads=1)._call


KEPT = """
import pickle, sys
import jax, jax.numpy as jnp
import graphc as gc
from graphc.jax import Function
from jax.experimental.serialize_executable import deserialize_and_load, serialize


def times(factor):
    g = gc.Graph("times")
    g.output("y", g.input("x", (), over=g.axis("n")) * factor)
    return jax.jit(lambda x: Function(g)(x=x)["y"]).lower(jnp.ones(3)).compile()


if sys.argv[1] == "keep":
    with open("kept", "wb") as file:
        pickle.dump(serialize(times(2)), file)
else:
    assert times(5)(jnp.ones(3)).tolist() == [5, 5, 5]
    with open("kept", "rb") as file:
        kept = deserialize_and_load(*pickle.load(file))
    try:
        jax.block_until_ready(kept(jnp.ones(3)))
    except Exception as error:
        assert "with a graph that this one does not know yet" in str(error), error
    else:
        raise AssertionError("of which graph?")
    times(2)
    assert kept(jnp.ones(3)).tolist() == [2, 2, 2]
"""


def test_what_jax_compiled_calls_the_same_graph_in_another_process(tmp_path: Path) -> None:
    for what in ("keep", "call"):
        command = [sys.executable, "-c", KEPT, what]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]


# What does not fit is said while JAX traces, if it is known then.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": jnp.zeros((5, 2))}, r"x has shape \(5, 2\), expected \(t, n, 2\)"),
        ({"x": jnp.zeros((5, 3, 2), jnp.int32)}, "x is an array of int32, expected float32"),
        ({"x": np.zeros((5, 3, 2))}, "x is an array of float64, expected float32"),
        ({"x": jax.random.key(0)}, r"x holds key<fry>, expected float32; of a key make numbers: jax.random.normal"),
        ({"y": jnp.zeros((5, 3, 2))}, r"missing: x .*; unknown: y"),
        ({"x": jnp.zeros((5, 3, 2)), "t": 6}, "axis 't' is 5 long, not 6"),
    ],
)
def test_arrays_that_do_not_fit(given: dict[str, Any], said: str) -> None:
    g = network()
    with pytest.raises(ArgumentError, match=said):
        Function(g)(**given, **gc.initialize(g))
    with pytest.raises(ArgumentError, match="arrays are given by name"):
        Function(g)(given)


def test_lengths_are_checked_once_they_are_known() -> None:
    g = network(ragged=True)
    f, params, x = Function(g), gc.initialize(g), normal(5, 2, 2)
    with pytest.raises(ArgumentError, match="length holds lengths from 1 to 9"):
        f(x=x, length=np.array([1, 9]), **params)
    with pytest.raises(Exception, match=r"ArgumentError: (.*test_jax.*\n.*\n)?length holds lengths from 1 to 9"):
        jax.block_until_ready(jax.jit(f)(x=x, length=jnp.array([1, 9]), **params))
    made = gc.Graph("made")
    n = made.axis("n")
    t = made.axis("t", made.input("length", (), over=n, dtype="int32"))
    made.output("first", gc.index(t) == 0)
    with pytest.raises(ArgumentError, match="no array shows how long axis 't' is; pass t=… as a number"):
        Function(made)(length=np.array([1, 2]))
    assert Function(made)(length=jnp.array([1, 2]), t=2)["first"].shape == (2,)


@pytest.mark.parametrize("reads", ["a table", "a table and residuals", "classes"])
def test_indices_are_checked_where_only_gradients_are_read(reads: str) -> None:
    """XLA computes of a forward pass only what a backward pass reads: of these tables and classes, nothing."""
    g = gc.Graph("reads")
    t = g.axis("t")
    E, word = g.param("E", (5, 2)), g.input("word", (), over=t, dtype="int32")
    if reads == "classes":
        g.output("read", gc.cross_entropy(E[:, 0], word))
    else:
        read = gc.embedding(E, word)
        g.output("read", gc.cells.elman(g, read, 2, over=t).h if "residuals" in reads else read)
    params = gc.initialize(g)
    grad = jax.jit(jax.grad(lambda params, word: Function(g)(**params, word=word)["read"].sum()))
    assert grad(params, jnp.array([1, 4]))["E"].shape == (5, 2)
    with pytest.raises(Exception, match="word names rows or classes 0 to 4, but holds values from 1 to 9"):
        jax.block_until_ready(grad(params, jnp.array([1, 9])))


def test_shapes_are_numbers() -> None:
    g = network()
    x = jax.ShapeDtypeStruct(pytest.importorskip("jax.export").symbolic_shape("a, 3, 2"), jnp.float32)
    with pytest.raises(ArgumentError, match=r"x has shape \(a, 3, 2\); trace with numbers"):
        jax.eval_shape(lambda x: Function(g)(x=x, **gc.initialize(g)), x)


def test_doubles_need_jax_to_have_them() -> None:
    g = network("float64")
    with pytest.raises(UnsupportedError, match="x of graph 'net' is float64, which JAX has only after"):
        Function(g)(x=normal(5, 3, 2, dtype="float64"), **gc.initialize(g))


def test_an_output_called_as_what_is_updated() -> None:
    g = gc.Graph("both")
    total = g.param("total", ())
    g.update(total, total + 1)
    g.output("total", total * 2)
    with pytest.raises(UnsupportedError, match="has an output 'total' and updates what is called so"):
        Function(g)


def test_options_are_checked_before_xla_calls_anything() -> None:
    for options in ({"threads": 0}, {"precision": "tf33"}):
        with pytest.raises(GraphError, match=r"threads|precision"):
            Function(network(), **options)(x=normal(5, 3, 2), **gc.initialize(network()))


def blocks_of_the_guide() -> list[str]:
    guide = (Path(__file__).parent.parent / "docs/guide.md").read_text(encoding="utf-8")
    return re.findall(r"```py\n(.*?)```\n", guide, re.DOTALL)


def test_the_guide_s_model_trains() -> None:
    blocks = blocks_of_the_guide()
    graph = next(b for b in blocks if 'gc.Graph("leaky")' in b)
    graph = graph[graph.index("g = ") : graph.index("class ")]
    model = next(b for b in blocks if "import jax" in b).replace("for _ in", "first, _ = step(params, words)\nfor _ in")
    names: dict[str, Any] = {"gc": gc}
    exec(compile(graph + model, "guide.py", "exec"), names)
    assert names["value"] < 0.95 * names["first"]


def test_the_guide_s_step_keeps_statistics_apart() -> None:
    g = gc.Graph("statistics")
    n = g.axis("n")
    x, calls = g.input("x", (4,), over=n), g.param("calls", (), init=0, dtype="int32", trainable=False)
    g.update(calls, calls + 1)
    h = gc.layers.batch_norm(g, gc.relu(g.param("W", (8, 4)) @ x), over=n)
    said = (g.param("V", (1, 8)) @ gc.dropout(h, 0.1, calls))[0]
    g.output("loss", gc.mean((said - g.input("y", (), over=n)) ** 2, over=n))
    names: dict[str, Any] = {"gc": gc, "jax": jax, "graphc": gc, "g": g}
    exec(next(block for block in blocks_of_the_guide() if "kept = " in block), names)
    moved, kept, x = names["moved"], names["kept"], normal(32, 4)
    losses = []
    for _ in range(60):
        value, moved, kept = names["step"](moved, kept, {"x": x, "y": x.sum(axis=1)})
        losses.append(value)
    assert set(kept) == {"calls", "norm_mean", "norm_var"}
    assert kept["calls"] == 60
    assert losses[-1] < 0.2 * losses[0]
