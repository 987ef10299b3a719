"""step: calls of one step each give what one call over the whole sequence gives, for any graph that needs no later
steps; and the arrays that a call overwrites, inputs among them, are read before that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.errors import ArgumentError, AxisError, CausalityError, DefinitionError, UnsupportedError

Arrays = dict[str, np.ndarray]
Call = Callable[[], Mapping[str, np.ndarray]]


def bind(s: gc.Graph, arrays: Arrays, compiled: bool, **options: Any) -> Call:
    """A call of one step that reads and overwrites these arrays."""
    return gc.compile(s, **options).bind(**arrays) if compiled else lambda: gc.interpret(s, **arrays)


def stepped(g: gc.Graph, arrays: Arrays, steps: int, compiled: bool, **options: Any) -> Arrays:
    """The outputs of g, from as many calls of its step form."""
    t, s = g.axes["t"], gc.step(g, over="t")
    assert gc.parse(str(s)) == s
    over_t = {name: node.axes.index(t) for name, node in g.inputs.items() if t in node.axes}
    moved = {name: np.moveaxis(arrays[name], dim, 0) for name, dim in over_t.items()}
    now = {name: np.zeros_like(array[0], order="C") for name, array in moved.items() if name in s.inputs}
    fixed = {name: array for name, array in arrays.items() if name in {*s.inputs, *s.params} and name not in now}
    sizes = {a.name: arrays["x"].shape[k] for k, a in enumerate(g.inputs["x"].axes) if a != t}
    carry = gc.initial_carry(g, over=t, **{**arrays, **sizes})
    call = bind(s, now | fixed | carry | {a: n for a, n in sizes.items() if a in s.axes}, compiled, **options)
    history: list[Arrays] = []
    for k in range(steps):
        for name, array in now.items():
            array[...] = moved[name][k]
        history.append({name: array.copy() for name, array in call().items()})
    return {
        name: np.stack([r[name] for r in history], node.axes.index(t)) if t in node.axes else history[-1][name]
        for name, node in g.outputs.items()
    }


def agree(g: gc.Graph, arrays: Arrays, compiled: bool, **options: Any) -> None:
    """To rounding: numpy's own products differ in the last bit with the alignment of their operands."""
    steps = arrays["x"].shape[g.inputs["x"].axes.index(g.axes["t"])]
    found = stepped(g, arrays, steps, compiled, **options)
    for name, expected in gc.interpret(g, **arrays).items():
        assert found[name].shape == expected.shape
        np.testing.assert_allclose(found[name], expected, rtol=1e-11, atol=1e-13, err_msg=name)


@settings(max_examples=40)
@given(testing.graphs(causal=True))
def test_steps_compute_what_the_sequence_does(example: testing.Example) -> None:
    agree(example.graph, example.arrays, compiled=False)


@settings(max_examples=12)
@given(testing.graphs(causal=True))
def test_compiled_steps_compute_what_the_sequence_does(example: testing.Example) -> None:
    agree(example.graph, example.arrays, compiled=True)


@settings(max_examples=25)
@given(testing.graphs(causal=True, ragged=True), st.booleans())
def test_examples_of_different_lengths_go_on_for_as_long_as_they_are_stepped(
    example: testing.Example, compiled: bool
) -> None:
    """Steps take no lengths, and give what a sequence as long as they are many gives."""
    g, arrays = example.graph, dict(example.arrays)
    steps = arrays["x"].shape[g.inputs["x"].axes.index(g.axes["t"])]
    arrays["lengths"] = np.full_like(arrays["lengths"], steps)
    assert "lengths" not in gc.step(g, over="t").inputs
    agree(g, arrays, compiled)


# Every cell of the library, with 3 units; the functions that make networks of cells are tested below.
CELLS: dict[str, dict[str, Any]] = {
    name: {"outputs": 2} if name in ("jordan", "projected_lstm") else {}
    for name in gc.cells.__all__
    if name.islower()
    and name not in ("bidirectional", "stack", "spatial_rnn")
    and not name.startswith(("from_", "to_"))  # conversions of weights
}


def over_time(dtype: str = "float64") -> tuple[gc.Graph, Any, Any, gc.Value]:
    g = gc.Graph("net", dtype=dtype)
    t, n = g.axis("t"), g.axis("n")
    return g, t, n, g.input("x", (2,), over=(t, n))


def arrays_for(g: gc.Graph, t: int = 5, n: int = 3) -> Arrays:
    """Positive initial states: the normaliser of the slstm is positive."""
    arrays = testing.random_arrays(g, seed=1, t=t, n=n)
    return {name: np.abs(a) if name.startswith("initial") else a for name, a in arrays.items()}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_steps(name: str, compiled: bool) -> None:
    """With its output as initial state given, and restarts where a flag says so."""
    g, t, n, x = over_time()
    flag = g.input("flag", (), over=(t, n), dtype="bool")
    initial = gc.abs(gc.sin(g.input("initial", (), over=n))) + 0.1
    cell = getattr(gc.cells, name)(g, x, 3, over=t, restart=flag, initial=initial, **CELLS[name])
    for state in list(g.states):
        g.output(state, g.value(state))
    g.output("final", (cell.y if name == "jordan" else cell.h)[t.last])
    agree(g, arrays_for(g), compiled)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_stack_steps_and_draws_the_same_numbers(compiled: bool) -> None:
    g, t, _, x = over_time()
    seed = g.input("seed", (), dtype="int32")
    deep = gc.cells.stack(g, x, gc.cells.gru, 3, 2, over=t, dropout=0.5, seed=seed)
    g.output("h", deep.h)
    agree(g, arrays_for(g), compiled)


def test_steps_on_two_threads_compute_the_same() -> None:
    """Sizes at which threads pay: a state is overwritten only when every thread has read it."""
    g, t, _, x = over_time("float32")
    g.output("h", gc.cells.lstm(g, x, 256, over=t).h)
    arrays = arrays_for(g, t=6, n=64)
    one, two = (stepped(g, arrays, 6, compiled=True, threads=k) for k in (1, 2))
    np.testing.assert_array_equal(one["h"], two["h"])
    whole = gc.compile(g)(**arrays)["h"]
    np.testing.assert_allclose(two["h"], whole, rtol=1e-4, atol=1e-6)


def test_every_kind_of_read_keeps_what_it_needs() -> None:
    """And no more: one array for each step back, shared by all that read it."""
    g, t, n, x = over_time()
    h0, first = g.input("h0", (2,), over=n), x[t.first]
    h = g.state("h", (2,), over=(t, n), initial=h0)
    h[t] = gc.tanh(h[t - 1] + 0.5 * h[t - 2] - x[t - 2])
    begun = g.state("begun", (2,), over=(t, n), initial=first)
    begun[t] = 0.5 * begun[t - 1] + x
    g.output("h", h + x.shift(t, -1, fill=0.0))
    g.output("other", x.shift(t, -1, fill=1.0))
    g.output("now", x.shift(t, -1, fill=x))
    g.output("begun", begun)
    g.output("index", gc.index(t) * 2)
    g.output("third", x[t.at(2)])
    g.output("average", gc.mean(x, over=n) / gc.cast(gc.length(n), "float64"))
    arrays = arrays_for(g)
    for compiled in (False, True):
        agree(g, arrays, compiled)
    s = gc.step(g, over=t)
    assert set(s.updates) == set(s.inputs) - {"x"}
    values = {"h_back1", "h_back2", "x_back1", "x_back2", "x_back1_", "begun_back1", "x_at0", "x_at2"}
    assert set(s.updates) == values | {"t_index", "t_back1", "t_back2", "t_back3"}
    start = gc.initial_carry(g, over=t, **arrays)
    np.testing.assert_array_equal(start["h_back2"], arrays["h0"])
    np.testing.assert_array_equal(start["x_back1_"], np.ones((3, 2)))
    assert start["t_back1"].dtype == bool


def test_a_second_axis_stays() -> None:
    """A recurrence over an image's rows, a row at a time: delays along both axes, in any direction along the other."""
    g = gc.Graph("image", dtype="float64")
    i, j = g.axis("i"), g.axis("j", 4)
    x = g.input("x", (2,), over=(j, i))
    edge = g.input("edge", (2,), over=j)
    h = g.state("h", (2,), over=(i, j), initial=0.25)
    h[i, j] = gc.tanh(x + h[i - 1, j + 1] - 0.5 * h[i - 1] + 0.25 * h.shift(j, 1, fill=edge))
    g.output("h", h.shift(i, -1, fill=edge))
    arrays = testing.random_arrays(g, i=5)
    expected = gc.interpret(g, **arrays)["h"]
    s = gc.step(g, over=i)
    for compiled in (False, True):
        now = np.zeros((4, 2))
        carry = gc.initial_carry(g, over="i", edge=arrays["edge"])
        call = bind(s, {"x": now, "edge": arrays["edge"], **carry}, compiled)
        for k in range(5):
            now[...] = arrays["x"][:, k]
            np.testing.assert_allclose(call()["h"], expected[k], rtol=1e-12)


def test_carries_are_the_callers_arrays() -> None:
    """Copied, they fork a sequence; rewritten, they start another; and two sequences do not share any."""
    g, t, n, x = over_time()
    h0 = g.input("h0", (3,), over=n)
    g.output("h", gc.cells.elman(g, x, 3, over=t, initial=h0).h)
    arrays = arrays_for(g, n=1)
    params = {name: arrays[name] for name in g.params}
    f, frame = gc.compile(gc.step(g, over=t)), np.ones((1, 2))
    start = gc.initial_carry(g, over=t, h0=arrays["h0"])
    assert list(start) == ["elman_h_back1"]
    assert start["elman_h_back1"] is not arrays["h0"]
    carry = {name: a.copy() for name, a in start.items()}
    call = f.bind(x=frame, **params, **carry)
    first, second = call()["h"].copy(), call()["h"].copy()
    assert not np.array_equal(first, second)
    fork = f.bind(x=frame, **params, **{name: a.copy() for name, a in carry.items()})
    np.testing.assert_array_equal(call()["h"], fork()["h"])
    for name, a in start.items():
        carry[name][...] = a
    np.testing.assert_array_equal(call()["h"], first)


def test_inputs_are_updated_after_everything_was_read() -> None:
    """At other elements, over other axes, swapped, or by less than they vary over."""
    g = gc.Graph("inputs", dtype="float64")
    n, m = g.axis("n"), g.axis("m")
    a, b = g.input("a", (3,), over=(n, m)), g.input("b", (3,), over=(n, m))
    c, d = g.input("c", (3,), over=(m, n)), g.input("d", (), over=n)
    W = g.param("W", (3, 3))
    g.output("a", a)
    g.update(a, b)
    g.update(b, gc.tanh(W @ a) + c)
    g.update(c, a[n - 1, m + 1] + c[::-1])
    g.update(d, gc.sum(gc.sum(a, over=m)) + W[0, 0])
    g.update(W, W + gc.mean(gc.outer(a[0:3], b), over=(n, m)))
    assert gc.parse(str(g)) == g
    arrays = testing.random_arrays(g, n=4, m=3)
    expected = {name: array.copy() for name, array in arrays.items()}
    gc.interpret(g, **expected)
    np.testing.assert_array_equal(expected["a"], arrays["b"])
    for run in (gc.compile(g), lambda **given: gc.interpret(gc.unroll(g, n=4), **given)):
        found = {name: array.copy() for name, array in arrays.items()}
        run(**found)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12, err_msg=name)


def test_an_input_that_cannot_be_updated_in_place_is_refused() -> None:
    g, t, _, x = over_time()
    g.output("y", x[t - 1])
    s = gc.compile(gc.step(g, over=t))
    with pytest.raises(ArgumentError, match="x_back1 is updated in place"):
        s(x=np.zeros((3, 2)), x_back1=np.zeros((3, 4))[:, ::2])


def test_select_leaves_a_loss_out() -> None:
    g, t, n, x = over_time()
    y = g.input("y", (), over=(t, n), dtype="int32")
    h = gc.cells.elman(g, x, 3, over=t).h
    g.output("p", gc.softmax(h))
    g.output("loss", gc.mean(gc.sum(gc.cross_entropy(h, y), over=t), over=n))
    used = gc.select(gc.training_step(g, "loss", gc.optim.Adam()), "p")
    assert list(used.inputs) == ["x"]
    assert not used.updates
    assert set(g.params) <= set(used.params)
    agree(gc.select(g, "p"), arrays_for(gc.select(g, "p")), compiled=False)
    with pytest.raises(DefinitionError, match="no output 'q'; it has p, loss"):
        gc.select(g, "q")
    with pytest.raises(DefinitionError, match="at least one output"):
        gc.select(g)


def later_output(make: Callable[[gc.Value, Any, Any], gc.Value]) -> gc.Graph:
    g, t, n, x = over_time()
    g.output("now", x)
    g.output("later", make(x, t, n))  # here
    return g


def backwards(x: gc.Value, t: Any, n: Any) -> gc.Value:
    assert x.graph is not None
    b = x.graph.state("b", (2,), over=(t, n))
    b[t] = x + b[t + 1]  # here
    return b


LATER: dict[str, tuple[Callable[[gc.Value, Any, Any], gc.Value], str]] = {
    "a sum": (lambda x, t, n: gc.sum(x, over=t), r"takes in all of axis 't' \(sum\)"),
    "a product over time": (lambda x, t, n: gc.sum(gc.outer(x, x), over=t), "takes in all of axis 't'"),
    "a mean": (lambda x, t, n: gc.mean(x, over=(t, n)), "'t'"),
    "a length": (lambda x, t, n: x / gc.cast(gc.length(t), "float64"), "needs the length of axis 't'"),
    "a step ahead": (lambda x, t, n: x[t + 2], r"reads x\[t \+ 2\], a later step"),
    "a backward recurrence": (backwards, r"reads b\[t \+ 1\], a later step"),
    "the end, from every step": (lambda x, t, n: x - x[t.last], r"reads x\[t.last\] at every step"),
    "a later point, from every step": (lambda x, t, n: x - x[t.at(2)], r"reads x\[t.at\(2\)\] at every step"),
}


@pytest.mark.parametrize("name", LATER)
def test_what_needs_later_steps_is_refused(name: str) -> None:
    make, says = LATER[name]
    g = later_output(make)
    with pytest.raises(CausalityError, match=r"output 'later' .*gc\.select\(g, 'now'\)") as error:
        gc.step(g, over="t")
    assert error.match(says)
    assert error.value.location is not None
    assert error.value.location.file == __file__
    with pytest.raises(CausalityError):
        gc.initial_carry(g, over="t")


def test_other_mistakes_are_refused() -> None:
    g, t, n, x = over_time()
    g.output("y", x[t - 1])
    with pytest.raises(AxisError, match="no axis 's'; it has t, n"):
        gc.step(g, over="s")
    with pytest.raises(AxisError, match="no axis 't'"):
        gc.step(g, over=gc.Graph("other").axis("t", 3))
    with pytest.raises(ArgumentError, match="no input, param or axis 'h0'"):
        gc.initial_carry(g, over=t, n=2, h0=0.0)
    with pytest.raises(ArgumentError, match=r"how long axis 'n' is; pass n="):
        gc.initial_carry(g, over=t)
    with pytest.raises(UnsupportedError, match=r"updates x_back1 once a call"):
        gc.step(gc.step(g, over=t), over=n)
    ragged = gc.Graph("ragged")
    n = ragged.axis("n")
    t = ragged.axis("t", ragged.input("lengths", (), over=n, dtype="int32"))
    ragged.output("y", ragged.input("x", (), over=(t, n))[t - 1])
    with pytest.raises(UnsupportedError, match="the lengths of axis 't' differ from step to step along 'n'"):
        gc.step(ragged, over=n)
