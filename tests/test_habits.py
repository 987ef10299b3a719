"""Habits of numpy, PyTorch and Python are refused with what is written here; Python's protocols go on working."""

from __future__ import annotations

import copy
import itertools
import math
import operator
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import (
    ArgumentError,
    AxisError,
    DefinitionError,
    DtypeError,
    GraphError,
    MissingAttributeError,
    ProtocolError,
    ShapeError,
    UnsupportedError,
)
from graphc.language.habits import INSTEAD
from tests.mistakes import Mistake, Mistakes, check

refused = Mistakes()


@pytest.mark.parametrize(("mistake", "kind", "says"), refused)
def test_mistake(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    check(mistake, kind, says)


def network() -> tuple[gc.Graph, Any, Any]:
    g = gc.Graph("elman")
    t = g.axis("t")
    x = g.input("x", (3,), over=t)
    h = g.state("h", (3,), over=t)
    h[t] = gc.tanh(x + g.param("W", (3, 3)) @ h[t - 1])
    g.output("loss", gc.sum(gc.sum(h), over=t))
    g.output("data", gc.sum(gc.sum(x), over=t))
    return g, t, x


X = np.ones((2, 3), np.float32)
SGD = gc.optim.SGD(0.1)


# Values.


@refused(MissingAttributeError, "a value has no attribute 'sum'", "write gc.sum(x, …)")
def method_of_an_array() -> None:
    _, _, x = network()
    x.sum()  # here


@refused(MissingAttributeError, "a state has no attribute 'detach'", "gc.stop_gradient(x)")
def method_of_a_tensor() -> None:
    g, _, _ = network()
    g.value("h").detach()  # here


@refused(MissingAttributeError, "a value has no attribute 'numpy'; write g.output(", "numbers in a call alone")
def numbers_of_a_value() -> None:
    _, _, x = network()
    x.numpy()  # here


@refused(MissingAttributeError, "a state has no attribute 'last'; write x[t.last]")
def point_as_an_attribute() -> None:
    g, _, _ = network()
    g.value("h").last  # noqa: B018 # here


@refused(MissingAttributeError, "a graph has no attribute 'backward'; write gc.grad")
def backward_of_a_graph() -> None:
    g, _, _ = network()
    g.backward()  # here


@refused(ProtocolError, "gc.compile takes no cuda=; it takes graph, target, ", 'write target="cuda"')
def options_of_another_compiler() -> None:
    g, _, _ = network()
    gc.compile(g, cuda=True)  # here


@refused(ProtocolError, "takes no thread=", "did you mean 'threads'?")
def misspelt_option() -> None:
    g, _, _ = network()
    gc.compile(g, thread=2)  # here


@refused(ShapeError, "2 subscripts on an event of shape (3,)", "a point of an axis is x[t.at(0)]")
def subscripts_of_axes() -> None:
    _, _, x = network()
    x[:, 0]  # here


@refused(ShapeError, "index 5 is outside dimension 0", "a point of an axis is x[t.at(0)]")
def number_of_a_step() -> None:
    _, _, x = network()
    x[5]  # here


@refused(ShapeError, "output 'h' is float32[3] over t", "gc.mean(gc.sum(x), over=t)")
def derivative_of_an_array() -> None:
    g, _, _ = network()
    g.output("h", gc.relu(g.value("h")))  # here
    gc.grad(g, "h")


@refused(ArgumentError, "missing: W (float32[3, 3])", "**gc.initialize(g)")
def call_without_params() -> None:
    g, _, _ = network()
    gc.compile(g)(x=X)  # here


@refused(AxisError, "indexed by axis 't' that does not vary over it: float32[3]; declare it with over=t")
def input_without_its_axis() -> None:
    g, t, _ = network()
    g.input("z", (3,))[t]  # here


@refused(AxisError, "over= takes axes of the graph, got 's': s = g.axis('s')")
def axes_by_name() -> None:
    g, t, _ = network()
    g.input("z", (3,), over=(t, "s"))  # type: ignore[arg-type] # here


@refused(DefinitionError, "the left side of an equation is the current point: s[t] = …", "initial= of g.state")
def value_before_the_first_step() -> None:
    g, t, _ = network()
    s = g.state("s", (3,), over=t)
    s[0] = 0.0  # here


def test_params_of_a_graph_have_shapes() -> None:
    g, _, _ = network()
    assert (g.params["W"].shape, g.params["W"].dtype) == ((3, 3), "float32")


@refused(ProtocolError, "read by name, .h, .c: h = gc.cells.lstm(g, x, 8, over=t).h")
def states_in_an_order() -> None:
    g, t, x = network()
    _, _ = gc.cells.lstm(g, x, 4, over=t)  # here


@refused(DefinitionError, "states by name, and .h is its output, but cell returned State", "SimpleNamespace(h=h)")
def state_of_a_cell() -> None:
    def cell(g: gc.Graph, x: Any, units: int, over: Any, name: str) -> Any:
        h = g.state(name, (units,), over=over)
        h[over] = gc.tanh(h[over - 1])
        return h

    g, t, x = network()
    gc.cells.stack(g, x, cell, 4, 2, over=t)  # here


@refused(DefinitionError, "both directions takes reverse=, which cell does not", "h[t + 1] in place of h[t - 1]")
def cell_of_one_direction() -> None:
    def cell(g: gc.Graph, x: Any, units: int, over: Any, name: str) -> Any: ...

    g, t, x = network()
    gc.cells.bidirectional(g, x, cell, 4, over=t)  # here


@refused(ShapeError, "its initial value (2, 3); one that differs per example is g.input('s0', (3,), over=n)")
def initial_values_of_a_batch() -> None:
    g, t, _ = network()
    g.state("s", (3,), over=t, initial=np.zeros((2, 3)))  # here


@refused(ArgumentError, "unknown: step, speed_W; the params of this graph alone are {name: state[name]")
def what_an_optimiser_remembers() -> None:
    g, _, _ = network()
    gc.compile(g)(x=X, W=np.eye(3, dtype="f"), step=0, speed_W=0)  # here


@refused(MissingAttributeError, "no attribute 'shpae'", "did you mean 'shape'?")
def misspelt_attribute() -> None:
    _, _, x = network()
    x.shpae  # noqa: B018 # here


@refused(MissingAttributeError, "'graphc' has no attribute 'sigmod'", "did you mean 'sigmoid'?")
def misspelt_function() -> None:
    gc.sigmod(0.0)  # here


@refused(MissingAttributeError, "code for a CPU has no .ptx", 'gc.emit(g, target="cuda").ptx')
def code_of_a_gpu() -> None:
    g, _, x = network()
    g.output("y", gc.tanh(x))
    gc.compile(g).ptx  # noqa: B018 # here


@refused(MissingAttributeError, "code for a GPU has no .object", "gc.emit(g).object")
def code_of_a_cpu() -> None:
    g, _, x = network()
    g.output("y", gc.tanh(x))
    gc.emit(g, target="cuda").object  # noqa: B018 # here


@refused(MissingAttributeError, "'graphc' has no attribute 'matmul'", "x @ y")
def function_of_numpy() -> None:
    gc.matmul  # noqa: B018 # here


@refused(MissingAttributeError, "no attribute 'reshape'; write x.reshape(…)")
def method_as_a_function() -> None:
    gc.reshape  # noqa: B018 # here


@refused(MissingAttributeError, "no attribute 'input'; write g.input(…)")
def declaration_as_a_function() -> None:
    gc.input  # noqa: B018 # here


@refused(MissingAttributeError, "write gc.cells.lstm(…)")
def cell_as_a_function() -> None:
    gc.LSTM  # noqa: B018 # here


@refused(MissingAttributeError, "write gc.embedding(table, index)")
def rows_of_a_table() -> None:
    gc.gather  # noqa: B018 # here


@refused(MissingAttributeError, "did you mean 'log_sigmoid'?")
def function_by_pytorchs_name() -> None:
    gc.logsigmoid  # noqa: B018 # here


@refused(ProtocolError, "x.shape", "gc.length(t)")
def length_of_a_value() -> None:
    _, _, x = network()
    len(x)  # here


@refused(ProtocolError, "gc.exp(x)", "gc.compile(g)")
def function_of_math() -> None:
    _, _, x = network()
    math.exp(x[0])  # here


@refused(ProtocolError, 'gc.cast(x, "int32")')
def value_as_an_int() -> None:
    _, _, x = network()
    int(x[0])  # here


@refused(ProtocolError, "gc.embedding(table, x)")
def value_as_an_index() -> None:
    _, _, x = network()
    [1, 2, 3][x[0]]  # here


@refused(DtypeError, "gc.embedding(table, x)", "v[t.at(x)] the point of an axis")
def value_as_a_subscript() -> None:
    g, _, x = network()
    x[g.input("k", (), dtype="int32")]  # here


@refused(ProtocolError, "cannot be iterated over", "h[t] = f(h[t - 1], x)")
def loop_over_a_number() -> None:
    _, _, x = network()
    for _ in x[0]:  # here
        pass


@refused(ProtocolError, "gc.sum takes no axis=", "dim=0", "over=t")
def axis_in_place_of_dim() -> None:
    _, _, x = network()
    gc.sum(x, axis=0)  # here


@refused(ProtocolError, "gc.concat takes no axis=; dimensions of the event go by dim=0")
def axis_of_what_has_no_axes() -> None:
    _, _, x = network()
    gc.concat([x, x], axis=0)  # here


@refused(DtypeError, "a dropout rate is a number", "<value slice")
def rate_that_is_a_value() -> None:
    _, _, x = network()
    gc.dropout(x, x[0:1], 0)  # here


# Axes.


@refused(AxisError, "point of axis 't' is a whole number of steps", "t - 1 or t + 2", "gc.index(t)")
def point_at_twice_the_distance() -> None:
    g, t, _ = network()
    g.value("h")[2 * t]  # here


@refused(AxisError, "a whole number of steps", "no multiple or part of it")
def point_at_half_the_distance() -> None:
    g, t, _ = network()
    g.value("h")[(t - 1) // 2]  # here


@refused(AxisError, "fixed when the graph is built", "gc.index(t); got <input k: int32[]>")
def delay_by_a_value() -> None:
    g, t, _ = network()
    g.value("h")[t - g.input("k", (), dtype="int32")]  # here


@refused(AxisError, "a whole number of steps", "got <input k: int32[]>")
def shift_by_a_value() -> None:
    g, t, x = network()
    x.shift(t, g.input("k", (), dtype="int32"))  # here


@refused(ShapeError, "dim= takes event dimensions", "axes are named by over=, gc.softmax(x, over=t)", "Got <axis t>")
def axis_as_a_dimension() -> None:
    _, t, x = network()
    gc.softmax(x, t)  # type: ignore[arg-type] # here


@refused(ShapeError, "dim= takes event dimensions, such as dim=0. Got <axis t>")
def axis_to_join_along() -> None:
    _, t, x = network()
    gc.concat([x, x], dim=t)  # type: ignore[arg-type] # here


@refused(AxisError, "event dimensions are named by dim=. Got 0")
def dimension_as_an_axis() -> None:
    _, _, x = network()
    gc.argmax(x, 0)  # type: ignore[arg-type] # here


@refused(ShapeError, "axes go by over=. Got (<axis t>, 3)")
def axis_in_a_shape() -> None:
    g, t, _ = network()
    g.input("z", (t, 3))  # type: ignore[arg-type] # here


@refused(ProtocolError, "gc.concat takes its values in a list: gc.concat([x, y])")
def values_one_by_one() -> None:
    _, _, x = network()
    gc.concat(x, x)  # type: ignore[arg-type] # here


@refused(ShapeError, "stack of no values")
def stack_of_nothing() -> None:
    gc.stack([])  # here


@refused(ShapeError, "of events (3,), ()", "the event (1,) of a number x is x[None]")
def number_joined_to_a_vector() -> None:
    _, _, x = network()
    gc.concat([x, 1.0])  # here


@refused(ShapeError, "a number of equal parts or a list of their lengths, got 3.0")
def part_of_a_part() -> None:
    _, _, x = network()
    gc.split(x, 3.0)  # type: ignore[arg-type] # here


@refused(ProtocolError, "gc.floor(x + 0.5)")
def rounded_value() -> None:
    _, _, x = network()
    round(x[0])  # type: ignore[call-overload] # here


@refused(DtypeError, "got LSTM", "a cell has several values, and .h is its output")
def cell_as_a_value() -> None:
    g, t, x = network()
    g.param("V", (2, 4)) @ gc.cells.lstm(g, x, 4, over=t)  # here


@refused(AxisError, "a whole number of steps", "got 0.5")
def delay_by_a_part_of_a_step() -> None:
    _, t, x = network()
    x[t - 0.5]  # here


@refused(AxisError, "t.at takes a position counted from 0", "got -1", "t.last")
def position_from_the_end() -> None:
    _, t, x = network()
    x[t.at(-1)]  # here


@refused(AxisError, "x[t - 1][t.last]")
def point_before_the_last() -> None:
    _, t, x = network()
    x[t.last - 1]  # here


@refused(DtypeError, "an axis has no slices")
def range_of_an_axis() -> None:
    _, t, x = network()
    x[t - 1 :]  # here


@refused(DtypeError, "got Axis", "gc.index(t)")
def axis_as_a_value() -> None:
    _, t, x = network()
    x * t  # here


# Graphs and calls.


@refused(ArgumentError, "arrays are given by name, f(x=…, W=…)")
def array_without_a_name() -> None:
    gc.compile(network()[0])(X)  # here


@refused(ArgumentError, "arrays are given by name, f(x=…, W=…)", "f(**arrays)")
def dict_of_arrays() -> None:
    gc.interpret(network()[0], {"x": X})  # here


@refused(ArgumentError, "arrays are given by name")
def bound_array_without_a_name() -> None:
    gc.compile(network()[0]).bind(X)  # here


@refused(ArgumentError, "arrays are given by name")
def frozen_array_without_a_name() -> None:
    gc.compile(network()[0]).freeze(X)  # here


@refused(GraphError, "threads is a whole number from 1", "got 2.0")
def threads_as_a_float() -> None:
    gc.compile(network()[0], threads=2.0)  # here


@refused(GraphError, "threads is a whole number from 1", "got '2'")
def threads_as_a_text() -> None:
    gc.compile(network()[0], threads="2")  # here


@refused(GraphError, "memory is a number of bytes or a text", "got 2.5")
def memory_as_a_float() -> None:
    gc.compile(network()[0], memory=2.5)  # here


@refused(ArgumentError, "'graphviz-pure' or 'dot'", "got 'neato'")
def layout_engine() -> None:
    gc.draw(network()[0], engine="neato")  # here


# Training.


@refused(DefinitionError, "gc.optim.Adam(lr=1e-3), got the class Adam")
def optimiser_as_a_class() -> None:
    gc.training_step(network()[0], "loss", gc.optim.Adam)  # here


@refused(DefinitionError, "gc.optim.Adam(lr=1e-3), got 'adam'")
def optimiser_by_name() -> None:
    gc.training_step(network()[0], "loss", "adam")  # here


@refused(ArgumentError, "updates no param", "gc.training_step(g,")
def fit_of_what_learns_nothing() -> None:
    gc.fit(network()[0], [{"x": X}])  # here


@refused(ArgumentError, "batches= is a list of dicts")
def batch_in_place_of_batches() -> None:
    gc.fit(gc.training_step(network()[0], "loss", SGD), {"x": X})  # here


@refused(ArgumentError, "a batch is a dict of arrays by name", "got ndarray")
def batch_without_names() -> None:
    gc.fit(gc.training_step(network()[0], "loss", SGD), [X], quiet=True)  # here


@refused(ArgumentError, "state= names", "a0, a1, a2, a3, a4 and 2 more")
def state_of_another_graph() -> None:
    step = gc.training_step(network()[0], "loss", SGD)
    gc.fit(step, [{"x": X}], state={f"a{k}": X for k in range(7)})  # here


@refused(ArgumentError, "state= names what graph 'elman_step' has not: w; did you mean 'W'?")
def misspelt_state() -> None:
    gc.fit(gc.training_step(network()[0], "loss", SGD), [{"x": X}], state={"w": X})  # here


def test_training_must_reach_a_param() -> None:
    g, _, _ = network()
    with pytest.raises(DefinitionError, match="'data' depends on no param that training moves: W do not reach it"):
        gc.training_step(g, "data", SGD)
    fixed = gc.Graph("fixed")
    fixed.output("loss", fixed.param("w", (), trainable=False) * 2)
    with pytest.raises(DefinitionError, match="graph 'fixed' has none"):
        gc.training_step(fixed, "loss", SGD)


TAKERS: dict[str, Callable[[Any], object]] = {
    "compile": gc.compile,
    "emit": gc.emit,
    "interpret": gc.interpret,
    "draw": gc.draw,
    "explain": gc.explain,
    "verify": gc.verify,
    "unroll": lambda g: gc.unroll(g, t=2),
    "grad": lambda g: gc.grad(g, "loss"),
    "vjp": lambda g: gc.vjp(g, "loss"),
    "jvp": lambda g: gc.jvp(g, "loss"),
    "select": lambda g: gc.select(g, "loss"),
    "step": lambda g: gc.step(g, over="t"),
    "initial_carry": lambda g: gc.initial_carry(g, over="t"),
    "initialize": gc.initialize,
    "inference": gc.inference,
    "training_step": lambda g: gc.training_step(g, "loss", SGD),
    "fit": lambda g: gc.fit(g, []),
    "export": lambda g: gc.export(g, {"t": 2}, name="f"),
}


@pytest.mark.parametrize("name", TAKERS)
def test_what_is_no_graph_is_refused(name: str) -> None:
    g, _, x = network()
    for other in (x, str(g), gc.Graph):
        with pytest.raises(DefinitionError, match="expected a graph"):
            TAKERS[name](other)


def test_protocols_go_on_working() -> None:
    g, _, x = network()
    assert [v.shape for v in x] == [()] * 3
    assert len(list(x)) == len([*x]) == 3
    assert not hasattr(x, "sum")
    assert getattr(x, "sum", None) is None
    assert not hasattr(x, "_repr_html_")
    assert not hasattr(gc, "sigmod")
    assert copy.copy(x).node is x.node
    assert copy.deepcopy(x).node is x.node
    assert copy.copy(g.value("h")).initial is g.value("h").initial
    assert "shape" in dir(x)
    assert repr(x) == "<input x: float32[3] over t>"
    assert repr(g.value("h")) == "<state h: float32[3] over t>"
    assert repr(gc.tanh(x)) == "<value tanh: float32[3] over t>"
    assert (+x).node is x.node


def test_a_fit_shows_no_arrays() -> None:
    g, _, _ = network()
    made = gc.fit(gc.training_step(g, "loss", SGD), [{"x": X}], epochs=2, quiet=True)
    assert repr(made) == f"<fit: 2 arrays, 2 epochs, the last {made.history[-1]}>"


def test_what_is_made_of_a_graph_shows_no_code() -> None:
    g = gc.Graph("net")
    t = g.axis("t")
    h = g.state("h", (3,), over=t)
    h[t] = gc.tanh(g.param("W", (3, 3)) @ h[t - 1] + g.input("x", (3,), over=t))
    g.output("y", h)
    compiled = gc.compile(g)
    assert repr(compiled) == "<compiled net: x, W → y>"
    assert repr(compiled.freeze(W=np.zeros((3, 3), np.float32))) == "<compiled net: x → y>"
    shipped = gc.export(g, {"t": 1}, triple="aarch64-linux-gnu", arch="cortex-a72")
    assert repr(shipped) == f"<C function net: 0 bytes of constants, {shipped.workspace} of workspace>"
    assert repr(shipped.emitted) == "<code for aarch64-unknown-linux-gnu cortex-a72>"
    assert repr(gc.emit(g, target="cuda")) == "<code for sm_90: net>"
    assert len(repr(gc.draw(g))) < 80


def test_advice_names_what_there_is_not() -> None:
    """A habit whose name graphc has is none."""
    for name in INSTEAD:
        assert not hasattr(gc.Value, name), name


def test_advice_names_what_there_is() -> None:
    for name, advice in INSTEAD.items():
        for used in re.findall(r"\bgc\.([\w.]+)", advice):
            assert operator.attrgetter(used)(gc), name


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("cumsum", "np.tril(np.ones((3, 3))) @ x", np.cumsum),
        (
            "topk",
            "gc.where(gc.sum(x[None] > x[:, None], dim=1) < 2, x, 0)",
            lambda a: np.where(a > np.sort(a)[-3], a, 0),
        ),
        ("argsort", "gc.sum(x[None] < x[:, None], dim=1)", lambda a: np.argsort(np.argsort(a))),
        ("fft", "np.fft.fft(np.eye(3)).real @ x", lambda a: np.fft.fft(a).real),
        ("logcosh", "gc.abs(x) + gc.softplus(-2 * gc.abs(x)) - np.log(2)", lambda a: np.log(np.cosh(a))),
        ("heaviside", "gc.where(x > 0, 1.0, 0.0)", lambda a: np.heaviside(a, 0)),
        ("ste", "x + gc.stop_gradient(gc.floor(x + 0.5) - x)", np.round),
    ],
)
@pytest.mark.parametrize("a", list(itertools.permutations([-1.3, 0.4, 2.6])))
def test_advice_computes_it(name: str, code: str, expected: Callable[..., Any], a: tuple[float, ...]) -> None:
    assert code.replace("np.fft.fft(np.eye(3)).real", "F.real") in INSTEAD[name]
    g = gc.Graph("advised", dtype="float64")
    g.output("y", eval(code, {"np": np, "gc": gc, "x": g.input("x", (3,))}))
    np.testing.assert_allclose(gc.interpret(g, x=np.array(a))["y"], expected(np.array(a)), atol=1e-12)


def test_elements_in_order() -> None:
    g = gc.Graph("ordered")
    x = g.input("x", (3,))
    r = gc.sum(x[None] < x[:, None], dim=1)
    g.output("y", gc.sum(gc.where(r[None] == np.arange(3)[:, None], x, 0), dim=1))
    assert "gc.sum(gc.where(r[None] == np.arange(3)[:, None], x, 0), dim=1)" in INSTEAD["sort"]
    np.testing.assert_array_equal(gc.interpret(g, x=np.array([2, -1, 1], np.float32))["y"], [-1, 1, 2])


def test_what_is_known_is_no_misspelling() -> None:
    """Other libraries' functions are not taken for classes, or for what is spelled a little like them."""
    far = ["convolve", "cov", "cross", "histogram", "inner", "interp", "less_", "map", "median", "partition"]
    for name in far:
        with pytest.raises(MissingAttributeError) as error:
            getattr(gc, name)
        assert error.value.reason == f"module 'graphc' has no attribute {name!r}"
    for name, instead in {"sigmod": "sigmoid", "tahn": "tanh", "Grpah": "Graph", "onehot": "one_hot"}.items():
        with pytest.raises(MissingAttributeError, match=f"did you mean '{instead}'"):
            getattr(gc, name)


# Axes and their points.


@refused(AxisError, "no number while the graph is built", "gc.where(gc.index(t) == 0, a, b)")
def axis_compared_with_a_number() -> None:
    _, t, x = network()
    gc.where(t == 0, 1.0, x)  # here


@refused(AxisError, "gc.index(t)")
def axis_that_differs_from_a_number() -> None:
    _, t, x = network()
    gc.where(t != np.int32(0), 1.0, x)  # here


@refused(AxisError, "gc.index(t)")
def axis_less_than_a_number() -> None:
    _, t, _ = network()
    t < 3  # noqa: B015 # here


@refused(AxisError, "gc.index(t)")
def point_compared_with_a_value() -> None:
    _, t, x = network()
    t - 1 == gc.sum(x)  # noqa: B015 # here


@refused(AxisError, "x[t.last]")
def element_of_an_axis() -> None:
    _, t, x = network()
    x[t[-1]]  # here


@refused(AxisError, "at most 2,147,483,647 steps away")
def point_too_far_away() -> None:
    _, t, x = network()
    x[t + 2**63]  # here


@refused(AxisError, "a whole number from 1 to", "Got 'T'")
def length_that_is_a_name() -> None:
    gc.Graph("g").axis("t", "T")  # type: ignore[arg-type] # here


@refused(AxisError, "one for each example is an input", "Got [3, 2]")
def lengths_that_are_a_list() -> None:
    gc.Graph("g").axis("t", [3, 2])  # type: ignore[arg-type] # here


@refused(AxisError, "t = g.axis('t'), over=t")
def over_the_name_of_an_axis() -> None:
    gc.Graph("g").input("x", (3,), over="t")  # type: ignore[arg-type] # here


@refused(AxisError, "gc.index takes an axis", "got 't'")
def index_of_a_name() -> None:
    gc.index("t")  # type: ignore[arg-type] # here


@refused(ShapeError, "Steps are named by an axis, x[t]; x[0] is an element")
def step_by_number() -> None:
    g, _, x = network()
    g.param("V", (3, 3)) @ x[0]  # here


@refused(ShapeError, "False is no subscript")
def bool_as_a_subscript() -> None:
    _, _, x = network()
    x[False]  # here


@refused(DtypeError, "one that is known while the graph is built is an if")
def bool_as_a_condition() -> None:
    _, _, x = network()
    gc.where(True, x, 0.0)  # here


@refused(DtypeError, "the table comes first")
def index_before_its_table() -> None:
    g, t, x = network()
    gc.embedding(g.input("word", (), over=t, dtype="int32"), x)  # here


# Graphs, results and modules.


@refused(MissingAttributeError, "g.outputs['loss'] is its entry")
def output_as_an_attribute() -> None:
    g, _, _ = network()
    g.loss  # noqa: B018 # here


@refused(ProtocolError, "g.outputs['loss'] is its entry")
def output_as_an_item() -> None:
    g, _, _ = network()
    g["loss"]  # here


@refused(MissingAttributeError, "write gc.compile(g, …)")
def function_as_a_method() -> None:
    g, _, _ = network()
    g.compile()  # here


@refused(MissingAttributeError, "r['data'] is that output")
def result_as_an_attribute() -> None:
    g, _, _ = network()
    gc.compile(gc.select(g, "data"))(x=X, **gc.initialize(g)).data  # noqa: B018 # here


@refused(MissingAttributeError, "gc.cells.gru")
def cell_in_capitals() -> None:
    gc.cells.GRU  # noqa: B018 # here


@refused(MissingAttributeError, "gc.optim.Adam")
def optimiser_in_small_letters() -> None:
    gc.optim.adam(lr=0.1)  # here


@refused(MissingAttributeError, "gc.layers has no 'Dropout2d'")
def layer_that_there_is_not() -> None:
    gc.layers.Dropout2d  # noqa: B018 # here


@refused(DefinitionError, "got LSTM", "of its states, h, c, one is a value")
def cell_that_reads_a_cell() -> None:
    g, t, x = network()
    below = gc.cells.lstm(g, x, 3, over=t)
    gc.cells.lstm(g, below, 3, over=t, name="above")  # type: ignore[arg-type] # here


@refused(DefinitionError, "one output is differentiated, by its name", "gc.vjp takes a list")
def gradient_of_several() -> None:
    g, _, _ = network()
    gc.grad(g, ["loss", "data"])  # type: ignore[arg-type] # here


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda g: gc.compile(g, device="cuda"), "device='cuda' is for target='cuda'"),
        (
            lambda g: gc.compile(g, precision="tf32"),
            "precision='tf32' is for target='cuda'; on a CPU there is float32 and",
        ),
        (lambda g: gc.emit(g, precision="f16"), "precision='f16' is for target='cuda'"),
        (lambda g: gc.explain(g, precision="bfloat16"), "no precision 'bfloat16'; there is float32, bf16"),
        (lambda g: gc.compile(g, target="cuda", threads=2), "threads=2 is for target='cpu'"),
        (
            lambda g: gc.emit(g, target="cuda", triple="aarch64-linux-gnu"),
            "triple='aarch64-linux-gnu' is for target='cpu'",
        ),
        (lambda g: gc.emit(g, target="cuda", features="+avx2"), "features='+avx2' is for target='cpu'"),
        (lambda g: gc.explain(g, memory="1 MiB"), "memory='1 MiB' is for target='cuda'"),
        (lambda g: gc.explain(g, target="cuda", features="+avx2"), "features='+avx2' is for target='cpu'"),
        (lambda g: gc.compile(g, target="gpu"), "no target 'gpu'; use target='cpu' or target='cuda'"),
        (lambda g: gc.emit(g, target="gpu"), "no target 'gpu'"),
        (lambda g: gc.explain(g, target="gpu"), "no target 'gpu'"),
    ],
)
def test_options_for_the_other_target_are_refused(use: Callable[[gc.Graph], object], says: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(says)):
        use(network()[0])


def test_products_are_explained_as_they_are_rounded() -> None:
    g = network()[0]
    rounded, exact = (str(gc.explain(g, target="cuda", precision=p)) for p in ("bf16", "float32"))
    assert rounded != exact


def test_what_is_no_mistake_still_works() -> None:
    g, t, _ = network()
    same = [(t, g.axes["t"]), (t - 1, t - 1), (t.last, t.last), (t.at(300), t.at(300))]
    assert all(a == b for a, b in same)
    assert all(a != b for a, b in [(t, t - 1), (t.first, t.last), (t, None), (t, "t")])
    assert len({t, g.axes["t"], t - 1, t.at(300), t.at(300)}) == 3
    assert (g.axes.get("u") or t) is t
    assert copy.deepcopy(g) == g
    assert not hasattr(g, "no_such_thing")


def test_powers_of_whole_numbers_are_whole() -> None:
    g = gc.Graph("powers")
    n = g.axis("n")
    k = g.input("k", (), over=n, dtype="int32")
    for power in range(6):
        g.output(f"p{power}", k**power)
    g.output("root", k**0.5)
    given = np.array([0, 1, 2, -3, 50], np.int32)
    with np.errstate(invalid="ignore"):
        results = gc.interpret(g, k=given)
    assert g.outputs["root"].dtype == "float32"
    for power in range(6):
        np.testing.assert_array_equal(results[f"p{power}"], given**power)
        assert results[f"p{power}"].dtype == np.int32
