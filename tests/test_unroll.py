"""unroll: an acyclic graph of the same meaning, for every kind of axis, of read and of reduction."""

from collections.abc import Callable
from typing import Any

import networkx
import numpy as np
import pytest

import graphc as gc
from graphc.checks.causality import edges_of, reachable
from graphc.errors import AxisError, DefinitionError, UnsupportedError
from graphc.ir import FLOATS
from graphc.language.graph import declared_arrays
from graphc.notation.parse import parse

T, N = 4, 3
RAGGED = np.array([4, 1, 2], np.int32)

Setup = tuple[gc.Graph, Any, Any, gc.Value]


def over_time(lengths: str) -> Setup:
    """A graph over t and n with an input x, whose time axis is "data", "fixed" or "ragged"."""
    g = gc.Graph("g", dtype="float64")
    n = g.axis("n")
    length: Any = {"data": None, "fixed": T}.get(lengths)
    if lengths == "ragged":
        length = g.input("lengths", (), over=(n,), dtype="int32")
    t = g.axis("t", length)
    return g, t, n, g.input("x", (2,), over=(t, n))


def random_arrays(g: gc.Graph, seed: int = 0, **given: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sizes = {"t": T, "n": N, "j": 2}
    arrays: dict[str, Any] = {}
    for name, node in declared_arrays(g).items():
        shape = (*(sizes[a.name] for a in node.axes), *node.shape)
        arrays[name] = rng.normal(size=shape) if node.dtype in FLOATS else rng.integers(0, 2, shape).astype(node.dtype)
    if "lengths" in arrays:
        arrays["lengths"] = RAGGED
    return arrays | given


def assert_same(left: gc.Graph, right: gc.Graph, arrays: dict[str, Any]) -> None:
    a, b = gc.interpret(left, **arrays), gc.interpret(right, **arrays)
    assert list(a) == list(b)
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape)
        np.testing.assert_allclose(a[name], b[name], rtol=1e-11, atol=1e-13, err_msg=name)


def scan(g: gc.Graph, x: gc.Value, step: int, **kind: Any) -> gc.State:
    t = g.axes["t"]
    h = g.state("h", x.shape, over=x.axes, **kind)
    h[t] = gc.tanh(x + 0.5 * h[t + step])
    return h


def reset_scan(g: gc.Graph, t: Any, n: Any, x: gc.Value) -> gc.Value:
    h = g.state("h", (2,), over=(t, n), initial=g.param("h0", (2,)), reset=x[0] > 0.5)
    h[t] = gc.tanh(x + 0.5 * h[t - 2])
    return h


def table_rows(g: gc.Graph, t: Any, n: Any, x: gc.Value) -> gc.Value:
    rows = gc.embedding(g.param("E", (2, 3)), g.input("word", (2,), over=(t, n), dtype="int32"))
    return rows * x.reshape(2, 1)


FEATURES: dict[str, Callable[[gc.Graph, Any, Any, gc.Value], gc.Value]] = {
    "delay": lambda g, t, n, x: scan(g, x, -1),
    "long delay": lambda g, t, n, x: scan(g, x, -3, initial=g.param("h0", (2,))),
    "reverse": lambda g, t, n, x: scan(g, x, 2, initial=g.input("h0", (2,), over=(n,))),
    "longer than the axis": lambda g, t, n, x: scan(g, x, -9, initial=1.5),
    "reset": reset_scan,
    "last": lambda g, t, n, x: scan(g, x, -1)[t.last],
    "first": lambda g, t, n, x: scan(g, x, 1)[t.first],
    "point": lambda g, t, n, x: x[t.at(2)],
    "shift with a fill over the axis": lambda g, t, n, x: x.shift(t, 2, fill=2.0 * x),
    "shift along both": lambda g, t, n, x: x[t - 1, n + 1],
    "order of axes": lambda g, t, n, x: g.input("z", (), over=(t, g.axis("j"), n))[t.first],
    "sum": lambda g, t, n, x: gc.sum(x, over=t),
    "mean": lambda g, t, n, x: gc.mean(x * x, over=(t, n)),
    "max": lambda g, t, n, x: gc.max(gc.relu(x), over=t),
    "softmax over time": lambda g, t, n, x: gc.exp(x) / gc.sum(gc.exp(x), over=t),
    "product summed over time": lambda g, t, n, x: gc.sum(gc.outer(x, x[t - 1]), over=t),
    "product of a broadcast": lambda g, t, n, x: gc.sum(gc.outer(gc.mean(x, over=n), x), over=(t, n)),
    "index": lambda g, t, n, x: x * gc.cast(gc.index(t) + gc.length(t), "float64"),
    "rows": table_rows,
    "random": lambda g, t, n, x: gc.dropout(x, 0.5, seed=7),
    "no padding": lambda g, t, n, x: gc.mean(gc.cast(gc.index(t), "float64")[t - 1] * g.input("a", (), over=t), over=t),
}


def feature(name: str, lengths: str) -> gc.Graph:
    g, t, n, x = over_time(lengths)
    value = FEATURES[name](g, t, n, x)
    g.output("value", value)
    g.output("loss", gc.mean(gc.sum(gc.sin(value * 1.7)), over=value.axes) if value.axes else gc.sum(value))
    return g


KINDS = ("data", "fixed", "ragged")
CASES = [(name, kind) for name in FEATURES for kind in KINDS if (name, kind) != ("shift along both", "ragged")]


@pytest.mark.parametrize(("name", "lengths"), CASES)
def test_the_square_commutes(name: str, lengths: str) -> None:
    g = feature(name, lengths)
    wrt = [k for k, node in declared_arrays(g).items() if node.dtype in FLOATS]
    dg = gc.grad(g, "loss", wrt=wrt)
    arrays = random_arrays(g)
    assert_same(dg, gc.unroll(dg, t=T), arrays)
    assert_same(dg, gc.grad(gc.unroll(g, t=T), "loss", wrt=wrt), arrays)
    assert_same(dg, gc.unroll(dg, t=T, n=N), arrays)


@pytest.mark.parametrize(("name", "lengths"), CASES)
def test_no_cycle_and_no_recurrent_axis_is_left(name: str, lengths: str) -> None:
    u = gc.unroll(gc.grad(feature(name, lengths), "loss", wrt="x"), t=T)
    edges = [e for node in reachable(u) for e in edges_of(u, node)]
    assert networkx.is_directed_acyclic_graph(networkx.DiGraph((e.operand, e.node) for e in edges))
    assert not any(equation.node.axes and equation.node.axes[0].name == "t" for equation in u.states.values())
    assert all(s in range(T) for step in u.steps.values() for s in step)
    assert parse(str(u)) == u


def test_unrolling_again_changes_nothing_but_the_form() -> None:
    g = feature("delay", "data")
    assert_same(g, gc.unroll(gc.unroll(g, t=T), t=T), random_arrays(g))


@pytest.mark.parametrize("lengths", [[0, 1, 2], [0, 0, 0], [4, 4, 4]])
def test_padding_is_never_looked_at(lengths: list[int]) -> None:
    """Whatever lies past an example's length, in values and in gradients of the unrolled graph."""
    g, t, n, x = over_time("ragged")
    label = g.input("label", (), over=(t, n), dtype="int32")
    h = scan(g, gc.log(x * x) @ g.param("W", (2, 2)), -1)
    g.output("last", h[t.last])
    g.output("largest", gc.max(h, over=t))
    g.output("loss", gc.sum(gc.sum(gc.cross_entropy(h, label) + gc.sum(h[t.last]), over=t), over=n))
    exists = np.arange(T)[:, None] < np.array(lengths)
    arrays = random_arrays(g, lengths=np.array(lengths, np.int32))
    arrays["x"][~exists] = np.nan
    arrays["label"][~exists] = -1
    wrt = ["W", "x"] if min(lengths) else ["W"]  # log(0²) at the steps of an empty example
    folded = gc.interpret(gc.grad(g, "loss", wrt=wrt), **arrays)
    unrolled = gc.interpret(gc.grad(gc.unroll(g, t=T), "loss", wrt=wrt), **arrays)
    for name, value in folded.items():
        if min(lengths) or not name.startswith("grad"):
            np.testing.assert_allclose(unrolled[name], value, rtol=1e-11, err_msg=name)


def test_two_recurrent_axes() -> None:
    g = gc.Graph("image", dtype="float64")
    i, j, n = g.axis("i", 3), g.axis("j"), g.axis("n")
    p = g.input("p", (2,), over=(i, j, n))
    W = g.param("W", (2, 2))
    o = g.state("o", (2,), over=(i, j, n))
    o[i, j] = gc.tanh(p + W @ o[i - 1] + o[j - 1] - 0.5 * o[i - 1, j - 2])
    g.output("o", o)
    g.output("loss", gc.sum(gc.sum(o * o), over=(j, i, n)))
    dg = gc.grad(g, "loss", wrt=["W", "p"])
    rng = np.random.default_rng(0)
    arrays = {"p": rng.normal(size=(3, 4, 2, 2)), "W": rng.normal(size=(2, 2))}
    for steps in ({"i": 3}, {"j": 4}, {"i": 3, "j": 4}, {"j": 4, "i": 3}):
        assert_same(dg, gc.unroll(dg, **steps), arrays)
        assert_same(dg, gc.grad(gc.unroll(g, **steps), "loss", wrt=["W", "p"]), arrays)
    u = gc.unroll(g, i=3, j=4)
    assert u.steps[u.states["o_i2_j3"].node] == (2, 3)


def test_names_of_steps_are_free() -> None:
    g, _, _, x = over_time("data")
    h = scan(g, x + g.param("h_t1", (2,)), -1)
    g.output("h", h)
    u = gc.unroll(g, t=T)
    assert {"h_t0", "h_t1_", "h_t2", "h_t3"} == set(u.states)
    assert_same(g, u, random_arrays(g))


def test_updates_and_lines_stay() -> None:
    g, t, n, x = over_time("data")
    m = g.param("m", (2,), trainable=False)
    total = gc.mean(x, over=(t, n))
    g.update(m, 0.9 * m + 0.1 * total)
    g.output("total", total)
    u = gc.unroll(g, t=T)
    assert g.locations[total.node] in u.locations.values()
    left, right = random_arrays(g), random_arrays(g)
    gc.interpret(g, **left)
    gc.interpret(u, **right)
    np.testing.assert_allclose(left["m"], right["m"], rtol=1e-12)


def test_custom_gradients_keep_their_rules() -> None:
    @gc.custom_gradient
    def spike(v: gc.Value, scale: gc.Value) -> Any:
        return gc.where(v > 0, scale, 0.0), lambda d: (d / (1 + gc.abs(v)), gc.sum(d * v))

    @gc.custom_gradient
    def level(v: gc.Value) -> Any:
        t = v.axes[0]
        return gc.sum(v, over=t), lambda d: d * gc.cast(gc.index(t), "float64")

    g, t, n, x = over_time("ragged")
    h = g.state("h", (2,), over=(t, n))
    h[t] = spike(x + 0.5 * h[t - 1], g.param("scale", ()))
    g.output("loss", gc.sum(gc.sum(level(h) * level(x)), over=n))
    dg = gc.grad(g, "loss", wrt=["x", "scale"])
    arrays = random_arrays(g)
    assert_same(dg, gc.unroll(dg, t=T), arrays)
    assert_same(dg, gc.grad(gc.unroll(g, t=T), "loss", wrt=["x", "scale"]), arrays)


def test_a_rule_that_looks_at_other_steps_is_refused() -> None:
    @gc.custom_gradient
    def late(v: gc.Value) -> Any:
        return v * 1.0, lambda d: d[v.axes[0] + 1]

    g, t, n, x = over_time("data")
    g.output("loss", gc.sum(gc.sum(late(x)), over=(t, n)))
    with pytest.raises(UnsupportedError, match="reads the adjoint at other points of axis 't'"):
        gc.unroll(g, t=T)


def test_long_axes_do_not_exhaust_the_stack() -> None:
    g, t, n, x = over_time("ragged")
    g.output("loss", gc.sum(gc.sum(scan(g, x, -1)[t.last]), over=n))
    u = gc.unroll(gc.grad(g, "loss", wrt="x"), t=200)
    arrays = {"x": np.ones((200, 1, 2)), "lengths": np.array([150], np.int32)}
    assert_same(gc.grad(g, "loss", wrt="x"), u, arrays)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"z": 3}, "no axis 'z' to unroll; it has n, t"),
        ({"t": 0}, "at least 1, got 0"),
        ({"t": 2.5}, "at least 1, got 2.5"),
        ({"t": 5}, "4 long and cannot be unrolled to 5"),
    ],
)
def test_impossible_lengths(lengths: dict[str, Any], message: str) -> None:
    with pytest.raises(AxisError, match=message) as error:
        gc.unroll(feature("delay", "fixed"), **lengths)
    assert error.value.location is not None
    assert error.value.location.file == __file__


def test_a_shift_between_examples_of_different_lengths_is_refused() -> None:
    with pytest.raises(AxisError, match="axis 'n' of a value over 't', whose length differs along 'n'"):
        feature("shift along both", "ragged")


def test_an_axis_that_measures_another() -> None:
    g = feature("delay", "ragged")
    with pytest.raises(AxisError, match="lengths of axis 't' vary over axis 'n'; unroll 't' as well"):
        gc.unroll(g, n=N)


@pytest.mark.parametrize(
    "of", [lambda g: g, lambda g: g.copy(), lambda g: gc.grad(g, "loss"), lambda g: gc.select(g, "h")]
)
def test_a_state_that_is_looked_up_keeps_its_resets(of: Callable[[gc.Graph], gc.Graph]) -> None:
    g = gc.Graph("resets", dtype="float64")
    t = g.axis("t")
    x, again = g.input("x", (), over=t), g.input("again", (), over=t, dtype="bool")
    h = g.state("h", (), over=t, initial=g.param("h0", ()), reset=again)
    h[t] = h[t - 1] + x
    g.output("h", h)
    g.output("loss", gc.sum(h[t - 2] ** 2, over=t))
    expected = str(gc.select(_with_output(g, h[t - 2]), "later"))
    assert (
        str(gc.select(_with_output(of(g), of(g).value("h")[t - 2]), "later")).splitlines()[1:]
        == expected.splitlines()[1:]
    )


@pytest.mark.parametrize(("of", "name"), [(lambda g: gc.unroll(g, n=2), "h_n0"), (lambda g: gc.step(g, over="n"), "h")])
def test_and_where_an_axis_is_gone(of: Callable[[gc.Graph], gc.Graph], name: str) -> None:
    """Each of the states that are left has the reset that is its own, and what has no axis more keeps its own."""
    g = gc.Graph("resets", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (), over=(t, n))
    h = g.state("h", (), over=(t, n), initial=7.0, reset=x > 0.5)
    h[t] = h[t - 1] / 2 + x
    g.output("h", h)
    array = np.random.default_rng(0).random((6, 2))
    expected = gc.interpret(_with_output(g, h[t - 1]), x=array)["later"]
    left = of(g)
    later = _with_output(left, left.value(name)[left.axes["t"] - 1])
    given = array if "n" in later.axes else array[:, 0]
    np.testing.assert_allclose(gc.interpret(later, x=given)["later"], expected[:, 0])


def test_a_reset_that_is_made_over_an_axis_that_is_gone() -> None:
    g = gc.Graph("resets", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (), over=(t, n))
    h = g.state("h", (), over=t, initial=7.0, reset=gc.max(x, over=n) > 0.8)
    h[t] = h[t - 1] / 2 + gc.mean(x, over=n)
    g.output("h", h)
    array = np.random.default_rng(0).random((6, 2))
    expected = gc.interpret(_with_output(g, h[t - 1]), x=array)["later"]
    unrolled = gc.unroll(g, n=2)
    later = _with_output(unrolled, unrolled.value("h")[t - 1])
    np.testing.assert_allclose(gc.interpret(later, x=array)["later"], expected)


@pytest.mark.parametrize("gone", ["input", "state"])
def test_what_a_reset_reads_may_have_been_dropped(gone: str) -> None:
    g = gc.Graph("resets")
    t = g.axis("t")
    flag = g.input("flag", (), over=t)
    if gone == "state":
        seen = g.state("seen", (), over=t)
        seen[t] = seen[t - 1] + flag
        flag = seen
    h = g.state("h", (), over=t, initial=1.0, reset=flag > 1)
    h[t] = 2 * g.input("x", (), over=t)
    g.output("h", h)
    selected = gc.select(g, "h")
    selected.output("later", selected.value("h")[t - 1])
    with pytest.raises(DefinitionError, match=f"has no {gone} '.*', which is read"):
        gc.compile(selected)


def _with_output(g: gc.Graph, value: gc.Value) -> gc.Graph:
    result = g.copy("looked_up")
    result.outputs["later"] = value.node
    return result
