"""Every mistake a user can make is a GraphError that begins with the line that made it, and names what was found.

Each function below makes one mistake, on the line that ends in `# here`; its decorator says what the error says.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import (
    ArgumentError,
    AxisError,
    CausalityError,
    DefinitionError,
    DtypeError,
    GraphError,
    ShapeError,
    UnsupportedError,
)
from tests.mistakes import Mistake, Mistakes, check

refused = Mistakes()


@pytest.mark.parametrize(("mistake", "kind", "says"), refused)
def test_mistake(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    check(mistake, kind, says)


def graph() -> tuple[gc.Graph, Any, Any, gc.Value]:
    g = gc.Graph("elman")
    t, n = g.axis("t"), g.axis("n")
    return g, t, n, g.input("x", (3,), over=(t, n))


# Declarations.


@refused(DefinitionError, "'2fast' is not a name")
def name_not_an_identifier() -> None:
    gc.Graph("2fast")  # here


@refused(DefinitionError, "a name has at most 200 characters", "has 5000")
def name_that_is_too_long() -> None:
    g, *_ = graph()
    g.input("x" * 5000, (3,))  # here


@refused(DtypeError, "float32 or float64, got int32")
def default_dtype() -> None:
    gc.Graph("g", dtype="int32")  # here


@refused(DefinitionError, "'lambda' is a keyword of Python", "lambda=…", "use another name")
def name_that_is_a_keyword() -> None:
    g, *_ = graph()
    g.input("lambda", (3,))  # here


@refused(DefinitionError, "axis 't' is declared twice", 'g.axis(f"{name}_t")')
def axis_twice() -> None:
    g, *_ = graph()
    g.axis("t")  # here


@refused(AxisError, "from 1 to 2,147,483,647", "Got 0")
def empty_axis() -> None:
    g, *_ = graph()
    g.axis("i", 0)  # here


@refused(DtypeError, "int32", "float32[3] over t, n")
def lengths_that_are_not_integers() -> None:
    g, _, _, x = graph()
    g.axis("s", x)  # here


@refused(DefinitionError, "'x' is taken already")
def name_twice() -> None:
    g, *_ = graph()
    g.param("x", (3,))  # here


@refused(DefinitionError, "'h' is taken already")
def state_twice() -> None:
    g, t, _, _ = graph()
    g.state("h", (3,), over=t)
    g.state("h", (3,), over=t)  # here


@refused(DefinitionError, "output 'loss' is declared twice")
def output_twice() -> None:
    g, t, n, x = graph()
    loss = gc.sum(gc.sum(x), over=(t, n))
    g.output("loss", loss)
    g.output("loss", loss)  # here


@refused(AxisError, "axis 't' is not one of graph 'other'", "g.axis('t')")
def axis_of_another_graph() -> None:
    _, t, _, _ = graph()
    gc.Graph("other").input("y", (), over=t)  # here


@refused(AxisError, "over= takes axes", "'t'")
def axis_by_name() -> None:
    g, *_ = graph()
    g.input("y", (), over="t")  # type: ignore[arg-type] # here


@refused(AxisError, "names an axis twice: t, t")
def axis_twice_in_over() -> None:
    g, t, _, _ = graph()
    g.input("y", (), over=(t, t))  # here


@refused(ShapeError, "write (3,) instead of 3")
def shape_as_a_number() -> None:
    g, *_ = graph()
    g.param("W", 3)  # type: ignore[arg-type] # here


@refused(ShapeError, "whole numbers, got (2.5,)")
def half_of_an_odd_number() -> None:
    g, *_ = graph()
    g.param("W", (5 / 2,))  # type: ignore[arg-type] # here


@refused(ShapeError, "whole numbers, got 'units'")
def shape_as_a_word() -> None:
    g, *_ = graph()
    g.param("W", "units")  # type: ignore[arg-type] # here


@refused(ShapeError, "at least 1, got (3, 0)")
def empty_event() -> None:
    g, *_ = graph()
    g.param("W", (3, 0))  # here


@refused(DtypeError, "got 1j; a complex value is two, its real and its imaginary part")
def complex_number() -> None:
    _, _, _, x = graph()
    gc.exp(1j * x)  # here


@refused(DtypeError, "a constant is made of numbers", "a complex value is two")
def complex_array() -> None:
    _, _, _, x = graph()
    np.fft.fft(np.eye(3)) @ x  # here


@refused(
    DtypeError,
    "'complex64' is not one of bool, int32, float16, bfloat16, float32, float64; a complex value is two, its real",
)
def unknown_dtype() -> None:
    g, *_ = graph()
    g.param("W", (3,), dtype="complex64")  # here


@refused(DtypeError, "default dtype is float32 or float64", "bfloat16")
def half_precision() -> None:
    gc.Graph("small", dtype="bfloat16")  # here


@refused(ShapeError, "param 'W' has shape (2, 3), its init= (3, 2)")
def init_of_another_shape() -> None:
    g, *_ = graph()
    g.param("W", (2, 3), init=np.zeros((3, 2)))  # here


@refused(DtypeError, "param 'k' is int32, its init= float64")
def init_of_another_dtype() -> None:
    g, *_ = graph()
    g.param("k", (2,), init=[0.5, 1.0], dtype="int32")  # here


@refused(DtypeError, "init= of param 'W' does not make an array")
def init_that_is_no_array() -> None:
    g, *_ = graph()
    g.param("W", (2, 3), init=[[1.0], [1.0, 2.0]])  # here


@refused(DefinitionError, "init= of param 'W'", "printed with the graph", "give the array that it returns")
def init_by_a_function() -> None:
    g, *_ = graph()
    g.param("W", (2, 3), init=np.zeros)  # type: ignore[arg-type] # here


@refused(DefinitionError, "param 'W' names the initialiser 'xavier'", "one of zeros, ones, normal")
def init_by_an_unknown_name() -> None:
    g, *_ = graph()
    g.param("W", (3, 2), init="xavier")  # here


@refused(AxisError, "'h' varies over no axis")
def state_without_axes() -> None:
    g, *_ = graph()
    g.state("h", (3,), over=())  # here


@refused(ShapeError, "state 'h' has events of shape (3,)", "(4,)")
def initial_shape() -> None:
    g, t, _, _ = graph()
    g.state("h", (3,), over=t, initial=np.zeros(4))  # here


@refused(DtypeError, "state 'h' is float32", "int32")
def initial_dtype() -> None:
    g, t, _, _ = graph()
    g.state("h", (3,), over=t, initial=g.input("k", (3,), dtype="int32"))  # here


@refused(DtypeError, "reset of state 'h' is one bool per point", "flag > 0")
def reset_that_is_no_flag() -> None:
    g, t, n, x = graph()
    g.state("h", (3,), over=(t, n), reset=x[0])  # here


# Equations.


@refused(DefinitionError, "'h' is defined twice; the first time at", "h[t] = gc.tanh(x)")
def defined_twice() -> None:
    g, t, n, x = graph()
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(x)
    h[t] = gc.sin(x)  # here


@refused(ShapeError, "'h' has events of shape (4,)", "float32[3] over t, n")
def defined_by_another_shape() -> None:
    g, t, n, x = graph()
    h = g.state("h", (4,), over=(t, n))
    h[t] = x  # here


@refused(DtypeError, "'h' is int32", "float32")
def defined_by_another_dtype() -> None:
    g, t, n, x = graph()
    h = g.state("h", (3,), over=(t, n), dtype="int32")
    h[t] = x  # here


@refused(AxisError, "'h' varies over t", "also varies over 'n'", "over=")
def defined_over_more_axes() -> None:
    g, t, _, x = graph()
    h = g.state("h", (3,), over=t)
    h[t] = x  # here


@refused(DefinitionError, "the left side of an equation is the current point: h[t, n] = …")
def defined_elsewhere() -> None:
    g, t, n, x = graph()
    h = g.state("h", (3,), over=(t, n))
    h[t - 1] = x  # here


@refused(AxisError, "'h' does not vary over axis 'n'")
def defined_along_another_axis() -> None:
    g, t, n, x = graph()
    h = g.state("h", (3,), over=t)
    h[n] = gc.mean(x, over=n)  # here


@refused(DtypeError, "expected int32, got 0.5")
def initial_fraction() -> None:
    g, t, _, _ = graph()
    g.state("k", (), over=t, initial=0.5, dtype="int32")  # here


@refused(DtypeError, "the reset of state 'k' is one bool per point", "flag > 0")
def reset_by_a_number() -> None:
    g, t, _, _ = graph()
    g.state("k", (), over=t, reset=1)  # type: ignore[arg-type] # here


@refused(AxisError, "'h' is delayed along 't', so its initial value cannot vary over it", "h.shift(t, -1, fill=…)")
def initial_value_over_the_delayed_axis() -> None:
    g, t, n, x = graph()
    h = g.state("h", (3,), over=(t, n), initial=x)
    h[t] = gc.tanh(h[t - 1])  # here


@refused(DefinitionError, "a call updates params and inputs", "'h'")
def update_of_a_state() -> None:
    g, t, n, x = graph()
    g.update(g.state("h", (3,), over=t), gc.mean(x, over=n))  # here


@refused(DefinitionError, "'lengths' holds the lengths of an axis")
def update_of_lengths() -> None:
    g, _, n, _ = graph()
    lengths = g.input("lengths", (), over=n, dtype="int32")
    g.axis("i", lengths)
    g.update(lengths, lengths - 1)  # here


@refused(ShapeError, "'y' is float32[3] over n", "float32[3] over t, n")
def update_over_more_axes() -> None:
    g, _, n, x = graph()
    g.update(g.input("y", (3,), over=n), x)  # here


@refused(ShapeError, "'b' is float32[3]", "float32[3] over t, n")
def update_by_another_shape() -> None:
    g, _, _, x = graph()
    b = g.param("b", (3,))
    g.update(b, b + x)  # here


# Expressions.


@refused(ShapeError, "(3,) and (4,) do not broadcast")
def events_that_do_not_broadcast() -> None:
    g, _, _, x = graph()
    x + g.param("b", (4,))  # here


@refused(ShapeError, "4 columns meet 3 rows: W float32[8, 4] @ x float32[3] over t, n")
def product_of_wrong_shapes() -> None:
    g, _, _, x = graph()
    g.param("W", (8, 4)) @ x  # here


@refused(ShapeError, "@ takes vectors and matrices", "use * for numbers")
def product_of_numbers() -> None:
    g, _, _, x = graph()
    g.param("w", ()) @ x  # here


@refused(DefinitionError, "two graphs do not mix: 'elman' and 'other'")
def values_of_two_graphs() -> None:
    _, _, _, x = graph()
    x + gc.Graph("other").param("b", (3,))  # here


@refused(GraphError, "no truth value", "gc.where")
def truth_value() -> None:
    _, _, _, x = graph()
    if x[0] > 0:  # here
        pass


@refused(GraphError, "np.tanh computes arrays", "gc.tanh")
def numpy_function() -> None:
    _, _, _, x = graph()
    np.tanh(x)  # here


@refused(GraphError, "np.add computes arrays")
def numpy_sum() -> None:
    _, _, _, x = graph()
    np.sum(x)  # here


@refused(GraphError, "numpy computes arrays", "gc.sum")
def numpy_array() -> None:
    _, _, _, x = graph()
    np.asarray(x)  # here


@refused(GraphError, "np.add computes arrays")
def numpy_array_updated() -> None:
    _, _, _, x = graph()
    total = np.zeros(3)
    total += x  # here


@refused(ShapeError, "index 3 is outside dimension 0 of an event of shape (3,)")
def index_out_of_range() -> None:
    _, _, _, x = graph()
    x[3]  # here


@refused(ShapeError, "2 subscripts on an event of shape (3,)")
def too_many_indices() -> None:
    _, _, _, x = graph()
    x[0, 1]  # here


@refused(DtypeError, "not 't'")
def subscript_by_name() -> None:
    _, _, _, x = graph()
    x["t"]  # here


@refused(AxisError, "'t' that does not vary over it: float32[3]")
def delay_of_a_param() -> None:
    g, t, _, _ = graph()
    g.param("b", (3,))[t - 1]  # here


@refused(AxisError, "does not vary over axis 't': float32[3]")
def reduction_over_a_missing_axis() -> None:
    g, t, _, _ = graph()
    gc.sum(g.param("b", (3,)), over=t)  # here


@refused(AxisError, "over= takes axes", "dim=")
def reduction_over_a_dimension() -> None:
    _, _, _, x = graph()
    gc.sum(x, over=(0,))  # type: ignore[arg-type] # here


@refused(AxisError, "Got 0.0", "the larger of two values is gc.maximum(x, y)")
def larger_than_a_number() -> None:
    _, _, _, x = graph()
    gc.max(x, 0.0)  # type: ignore[arg-type] # here


@refused(AxisError, "Got <input x", "the smaller of two values is gc.minimum(x, y)")
def smaller_of_two_values() -> None:
    _, _, _, x = graph()
    gc.min(x, x)  # type: ignore[arg-type] # here


@refused(AxisError, "over= takes axes", "dim=", "Got 0")
def sum_of_a_dimension_by_its_place() -> None:
    _, _, _, x = graph()
    gc.sum(x, 0)  # type: ignore[arg-type] # here


@refused(ShapeError, "dim= takes event dimensions", "over=", "Got <axis t>")
def dimension_that_is_an_axis() -> None:
    _, t, _, x = graph()
    gc.sum(x, dim=t)  # here


@refused(ShapeError, "dim= names a dimension of an event of shape (3,) twice, got (0, -1)")
def dimension_twice() -> None:
    *_, x = graph()
    gc.mean(x, dim=(0, -1))  # here


@refused(ShapeError, "dim=1 is outside an event of shape (3,)")
def reduction_of_a_missing_dimension() -> None:
    _, _, _, x = graph()
    gc.sum(x, dim=1)  # here


@refused(ShapeError, "cannot reshape event (3,) to (2, -1)")
def impossible_reshape() -> None:
    _, _, _, x = graph()
    x.reshape(2, -1)  # here


@refused(ShapeError, "3 does not split into 2 equal parts")
def impossible_split() -> None:
    _, _, _, x = graph()
    gc.split(x, 2)  # here


@refused(ShapeError, "'i,j'")
def einsum_without_a_result() -> None:
    _, _, _, x = graph()
    gc.einsum("i,j", x, x)  # here


@refused(ShapeError, "takes a formula", "and then its operands", "got <input x")
def einsum_without_a_formula() -> None:
    _, _, _, x = graph()
    gc.einsum(x, x)  # type: ignore[arg-type] # here


@refused(ShapeError, "einsum of 2 operands", "'i,ij,j->'")
def einsum_of_too_few_operands() -> None:
    _, _, _, x = graph()
    gc.einsum("i,ij,j->", x, x)  # here


@refused(ShapeError, "got 'ii'", "gc.sum(A * np.eye(n), dim=1)")
def einsum_of_a_diagonal() -> None:
    g, _, _, _ = graph()
    gc.einsum("ii->i", g.param("A", (3, 3)))  # here


@refused(ShapeError, "takes a formula", "'...i->...'")
def einsum_with_an_ellipsis() -> None:
    _, _, _, x = graph()
    gc.einsum("...i->...", x)  # here


@refused(ShapeError, "(3,) by 'ij'; axes, such as time, have no letter")
def einsum_of_a_wrong_rank() -> None:
    _, _, _, x = graph()
    gc.einsum("ij->i", x)  # here


@refused(ShapeError, "got 'ik' of 'i,j'")
def einsum_with_an_unknown_letter() -> None:
    _, _, _, x = graph()
    gc.einsum("i,j->ik", x, x)  # here


@refused(ShapeError, "x.T of a vector, float32[3] over t, n", "gc.outer(v, k) for the matrix", "v @ k for the number")
def transpose_of_a_vector() -> None:
    _, _, _, x = graph()
    x @ x.T  # here


@refused(ShapeError, "x.T of a number, float32[] over t, n")
def transpose_of_a_number() -> None:
    _, _, _, x = graph()
    gc.transpose(x[0])  # here


@refused(ShapeError, "gc.transpose(x, 1, 0), got (1.0, 0)")
def transpose_by_floats() -> None:
    g, _, _, _ = graph()
    gc.transpose(g.param("A", (3, 3)), 1.0, 0)  # here


@refused(DtypeError, "int32 number of a class, got float32")
def label_that_is_a_float() -> None:
    _, _, _, x = graph()
    gc.cross_entropy(x, x[0])  # here


@refused(DtypeError, "condition of where is bool, got float32", "v > 0")
def condition_that_is_a_number() -> None:
    _, _, _, x = graph()
    gc.where(x, x, 0.0)  # here


@refused(DtypeError, "expected a value or a number, got str: 'x'")
def a_string() -> None:
    _, _, _, x = graph()
    x + "x"  # here


@refused(ShapeError, "at least 0 and below 1, got 1.5")
def dropout_rate() -> None:
    _, _, _, x = graph()
    gc.dropout(x, 1.5, seed=0)  # here


# Graphs that do not verify.


@refused(DefinitionError, "'elman' has no outputs", "g.output(name, value)")
def nothing_to_compute() -> None:
    g, *_ = graph()
    gc.verify(g)  # here


@refused(UnsupportedError, "lengths of axis 's' are computed (maximum)", "declare them as an input")
def computed_lengths() -> None:
    g, _, n, _ = graph()
    lengths = gc.maximum(g.input("lengths", (), over=n, dtype="int32"), 1)  # here
    s = g.axis("s", lengths)
    g.output("z", g.input("z", (), over=(s, n)))
    gc.interpret(g, x=PROPER["x"], lengths=[1, 2], z=np.zeros((2, 2), "float32"))


@refused(DefinitionError, "state 'h' is never defined; write h[t, n] = …")
def never_defined() -> None:
    g, t, n, _ = graph()
    h = g.state("h", (3,), over=(t, n))  # here
    g.output("h", h)
    gc.interpret(g)


@refused(
    CausalityError,
    "a cycle passes no delay",
    "state a (",
    "state b (",
    " reads ",
    "Read state b at an earlier point: b[t - 1] in place of b[t]",
)
def cycle_without_a_delay() -> None:
    g, t, n, x = graph()
    a = g.state("a", (3,), over=(t, n))
    b = g.state("b", (3,), over=(t, n))  # here
    a[t] = gc.tanh(b) + x
    b[t] = gc.sin(a)
    g.output("b", b)
    gc.verify(g)


@refused(
    CausalityError,
    "point against each other",
    " at t-1",
    " at t+2",
    "one way along t: a[t - 2] in place of a[t + 2], or a[t + 1] in place of a[t - 1].",
)
def delays_against_each_other() -> None:
    g, t, n, x = graph()
    a = g.state("a", (3,), over=(t, n))  # here
    a[t] = gc.tanh(a[t - 1] + a[t + 2]) + x
    g.output("a", a)
    gc.verify(g)


@refused(
    CausalityError,
    " at i-1, j+1",
    " at i+1, j-1",
    "one way along i: b[i - 1] in place of b[i + 1], or a[i + 1] in place of a[i - 1].",
)
def delays_of_two_axes_against_each_other() -> None:
    g, _, _, _ = graph()
    i, j = g.axis("i"), g.axis("j")
    a, b = (g.state(name, (), over=(i, j)) for name in "ab")  # here
    a[i, j] = b[i + 1, j - 1] + 1
    b[i, j] = gc.tanh(a[i - 1, j + 1])
    g.output("a", a)
    gc.verify(g)


@refused(CausalityError, "reads state h", " at all of t", "made[t] = made[t - 1] + ", "h[t])", "guide.md")
def attention_to_steps_before() -> None:
    g, t, n, x = graph()
    s = g.axis("s", t)
    h = g.state("h", (3,), over=(t, n))  # here
    weights = gc.where(gc.index(s) < gc.index(t), gc.sum(x * h[s]), 0.0)
    h[t] = gc.tanh(x + gc.sum(weights * h[s], over=s))
    g.output("h", h)
    gc.verify(g)


@refused(CausalityError, " at all of t")
def cycle_through_a_sum() -> None:
    g, t, n, x = graph()
    a = g.state("a", (3,), over=(t, n))  # here
    a[t] = gc.tanh(a[t - 1] + gc.mean(a, over=t)) + x
    g.output("a", a)
    gc.verify(g)


def test_a_cycle_is_shown_edge_by_edge() -> None:
    """Each line of the explanation names two values and the lines that made them, and the last closes the cycle."""
    with pytest.raises(CausalityError) as raised:
        cycle_without_a_delay()
    edges = [line.strip() for line in raised.value.reason.splitlines() if " reads " in line]
    ends = [tuple(edge.split(" reads ")) for edge in edges]
    assert len(ends) == 5  # a, its sum, tanh, b, sin
    assert [v for _, v in ends] == [u for u, _ in [*ends[1:], ends[0]]]
    assert all(f"({__file__}:" in end for edge in ends for end in edge)


# Derivatives.


@refused(DefinitionError, "no output 'cost'; it has loss")
def derivative_of_nothing() -> None:
    gc.grad(runnable(), "cost")  # here


@refused(DefinitionError, "no param or input 'V'; it has W, x")
def derivative_by_nothing() -> None:
    gc.grad(runnable(), "loss", wrt=["V"])  # here


@refused(DefinitionError, "float32[2]", "is not 'W' of graph 'elman', which is float32[3, 3]")
def derivative_by_a_value_of_another_graph() -> None:
    gc.grad(runnable(), "loss", wrt=[gc.Graph("other").param("W", (2,))])  # here


@refused(DefinitionError, "not an input, a param or a state")
def derivative_by_what_has_no_name() -> None:
    g = runnable()
    gc.grad(g, "loss", wrt=g.value("W") * 2.0)  # here


@refused(DtypeError, "'k' is int32 and has no derivative")
def derivative_by_integers() -> None:
    g = runnable()
    g.input("k", (), dtype="int32")
    gc.grad(g, "loss", wrt="k")  # here


@refused(ShapeError, "'h' is float32[3] over t, n", "gc.vjp")
def derivative_of_an_array() -> None:
    g = runnable()
    g.output("h", g.value("x") * 2.0)  # here
    gc.grad(g, "h")


# Calls: refused alike by the interpreter and by compiled code.


def runnable() -> gc.Graph:
    g, t, n, x = graph()
    W = g.param("W", (3, 3))
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(x + W @ h[t - 1])
    g.output("loss", gc.sum(gc.sum(h), over=(t, n)))
    return g


def labelled() -> gc.Graph:
    g = runnable()
    n = g.axes["n"]
    lengths = g.input("lengths", (), over=n, dtype="int32")
    s = g.axis("s", lengths)
    label = g.input("label", (), over=(s, n), dtype="int32")
    g.output("cost", gc.mean(gc.sum(gc.cross_entropy(g.param("c", (3,)), label), over=s), over=n))
    return g


def fixed() -> gc.Graph:
    g = gc.Graph("fixed")
    i, t = g.axis("i", 4), g.axis("t")
    g.output("y", g.input("x", (), over=i) * gc.cast(gc.length(t), "float32"))
    return g


class Tensor:
    """What PyTorch's does."""

    requires_grad = True

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


PROPER: dict[str, Any] = {"x": np.zeros((4, 2, 3), "float32"), "W": np.zeros((3, 3), "float32")}
MORE = {
    **PROPER,
    "lengths": np.array([3, 1], "int32"),
    "label": np.zeros((3, 2), "int32"),
    "c": np.zeros(3, "float32"),
}
CALLS: dict[str, tuple[Callable[[], gc.Graph], dict[str, Any], tuple[str, ...]]] = {
    "missing": (runnable, {"x": PROPER["x"]}, ("takes", "missing: W (float32[3, 3])")),
    "extra": (runnable, {**PROPER, "V": 1}, ("unknown: V",)),
    "dtype": (runnable, {**PROPER, "x": np.zeros((4, 2, 3))}, ("x", "float64", "expected float32", "astype")),
    "rank": (runnable, {**PROPER, "x": PROPER["x"][0]}, ("x has shape (2, 3), expected (t, n, 3)",)),
    "event": (runnable, {**PROPER, "W": PROPER["W"][:2]}, ("W has shape (2, 3), expected (3, 3)",)),
    "words": (runnable, {**PROPER, "x": "words"}, ("x",)),
    "ragged list": (runnable, {**PROPER, "x": [[1.0], [2.0, 3.0]]}, ("x does not make an array",)),
    "floats for integers": (labelled, {**MORE, "label": [[0.5, 1.0]]}, ("label", "float64, expected int32")),
    "lengths of two arrays": (
        labelled,
        {**MORE, "label": np.zeros((3, 5), "int32")},
        ("axis 'n' is 5 long in label", "but 2 in x"),
    ),
    "length too long": (
        labelled,
        {**MORE, "lengths": np.array([4, 1], "int32")},
        ("lengths", "1 to 4", "'s'", "3 points"),
    ),
    "negative length": (labelled, {**MORE, "lengths": np.array([-1, 1], "int32")}, ("lengths", "-1")),
    "class": (labelled, {**MORE, "label": np.full((3, 2), 3, "int32")}, ("3",)),
    "fixed axis": (fixed, {"x": np.zeros(5, "float32"), "t": 2}, ("axis 'i' is 5 long in x", "4 in the graph")),
    "misspelt": (runnable, {"x": PROPER["x"], "w": PROPER["W"]}, ("unknown: w; did you mean 'W'?",)),
    "tensor with a gradient": (runnable, {**PROPER, "x": Tensor()}, ("x does not make an array", "pass x.detach()")),
    "unknown length": (fixed, {"x": np.zeros(4, "float32")}, ("how long axis 't' is", "t=…")),
    "negative axis": (fixed, {"x": np.zeros(4, "float32"), "t": -1}, ("axis 't'", "not -1")),
    "length that is no number": (fixed, {"x": np.zeros(4, "float32"), "t": "many"}, ("axis 't'", "many")),
}


def compiled(g: gc.Graph, **arrays: Any) -> Any:
    return gc.compile(g)(**arrays)


@pytest.mark.parametrize("run", [gc.interpret, compiled])
@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str, run: Any) -> None:
    make, arrays, says = CALLS[name]
    with pytest.raises(ArgumentError) as raised:
        run(make(), **arrays)
    for text in says:
        assert text in raised.value.reason, raised.value.reason
    assert raised.value.location is not None
    assert raised.value.location.file == __file__


def test_proper_calls_pass() -> None:
    for run in (gc.interpret, compiled):
        assert run(runnable(), **PROPER)["loss"] == 0
        assert run(labelled(), **MORE)["cost"] == pytest.approx(2 * np.log(3))
        assert run(fixed(), x=np.ones(4, "float32"), t=2)["y"].tolist() == [2.0] * 4
