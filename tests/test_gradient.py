"""gc.gradient and gc.jacobian: the derivatives of functions of values, against those of whole graphs, within
recurrences, and again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.errors import DefinitionError, DtypeError, GraphError, ShapeError, UnsupportedError
from graphc.testing import check_gradients
from tests.mistakes import Mistake, Mistakes, check

refused = Mistakes()


@pytest.mark.parametrize(("mistake", "kind", "says"), refused)
def test_mistake(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    check(mistake, kind, says)


def plain() -> tuple[gc.Graph, gc.Value, gc.Value]:
    """A graph with an input over two axes, and a param."""
    g = gc.Graph("plain", dtype="float64")
    return g, g.input("x", (3,), over=(g.axis("t"), g.axis("n"))), g.param("W", (3, 3))


X = np.random.default_rng(0).normal(size=(4, 2, 3))
W = np.random.default_rng(1).normal(size=(3, 3))

ENERGIES: dict[str, Callable[[gc.Value, gc.Value], gc.Value]] = {
    "a product": lambda x, W: x @ (W @ x),
    "a concatenation": lambda x, W: gc.sum(gc.tanh(W @ x) * gc.concat([x[1:], x[:1]])),
    "a normalisation": lambda x, W: gc.sum(gc.softmax(W @ x) * gc.standardize(x)),
    "a gradient of its own": lambda x, W: gc.sum(gc.custom_gradient(lambda v: (gc.sign(v), lambda d: d * v))(W @ x)),
    "without one argument": lambda x, W: gc.sum(x**4),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_it_is_the_gradient_of_the_sum_over_all_points(name: str) -> None:
    """By a value over the axes, and by one without them."""
    g, x, w = plain()
    for output, value in zip(("x", "W"), gc.gradient(ENERGIES[name], x, w), strict=True):
        g.output(output, value)
    whole, x, w = plain()
    whole.output("loss", gc.sum(ENERGIES[name](x, w), over=x.axes))
    right = gc.interpret(gc.grad(whole, "loss", wrt=["x", "W"]), x=X, W=W)
    for found in (gc.interpret(g, x=X, W=W), gc.compile(g)(x=X, W=W)):
        for output in ("x", "W"):
            np.testing.assert_allclose(found[output], right[f"grad_{output}"], rtol=1e-12, atol=1e-14)


def learner(inner: Callable[..., gc.Value]) -> gc.Graph:
    """A linear memory that takes a step down the gradient of its error at each point of time."""
    g, x, W = plain()
    t, n = x.axes
    M = g.state("M", (3, 3), over=(t, n), initial=W)
    M[t] = M[t - 1] - 0.1 * inner(M[t - 1], x)
    g.output("loss", gc.sum(gc.sum(M @ gc.tanh(x)), over=(t, n)))
    return g


def test_a_memory_that_learns_is_as_written_by_hand() -> None:
    made = learner(lambda M, x: gc.gradient(lambda M: gc.sum((M @ x - 1.0) ** 2), M))
    hand = learner(lambda M, x: 2 * gc.outer(M @ x - 1.0, x))
    results = [gc.compile(gc.grad(g, "loss", wrt=["W", "x"]))(x=X, W=W) for g in (made, hand)]
    for name in ("loss", "grad_W", "grad_x"):
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-12)
    check_gradients(made, "loss")
    assert gc.parse(str(made)) == made


def test_what_is_made_like_an_argument_is_none() -> None:
    g, x, w = plain()
    g.output("d", gc.gradient(lambda r: 0.5 * gc.sum((r - w @ x) ** 2), w @ x))
    assert not gc.interpret(g, x=X, W=W)["d"].any()


def test_a_gradient_within_a_gradient() -> None:
    g, x, _ = plain()

    def inner(y: gc.Value) -> gc.Value:
        return gc.gradient(lambda z: gc.sum(y * z**3), y)  # 3 y³

    g.output("d", gc.gradient(lambda y: gc.sum(inner(y)), x))
    np.testing.assert_allclose(gc.interpret(g, x=X, W=W)["d"], 9 * X**2)


def test_what_it_reads_at_other_points_counts() -> None:
    g, x, _ = plain()
    t = x.axes[0]
    g.output("d", gc.gradient(lambda y: gc.sum(y * y[t - 1]), x))
    before, after = np.roll(X, 1, axis=0), np.roll(X, -1, axis=0)
    before[0] = after[-1] = 0
    np.testing.assert_allclose(gc.interpret(g, x=X, W=W)["d"], before + after)


@refused(DefinitionError, "takes a function and the values of its arguments", 'gc.grad(g, "loss")')
def derivative_of_a_value() -> None:
    _, x, _ = plain()
    gc.gradient(gc.sum(x * x), x)  # type: ignore[call-overload] # here


@refused(DefinitionError, "gc.gradient(energy, q), got Graph, str")
def derivative_of_a_graph() -> None:
    g, _, _ = plain()
    gc.gradient(g, "loss")  # type: ignore[call-overload] # here


@refused(DtypeError, "int32 has no derivative")
def derivative_at_an_integer() -> None:
    g, _, _ = plain()
    gc.gradient(lambda k: gc.sum(k), gc.index(g.axes["t"]))  # here


@refused(ShapeError, "differentiates a number, but the function gives float64[3] over t, n; sum it")
def derivative_of_a_vector() -> None:
    _, x, _ = plain()
    gc.gradient(gc.tanh, x)  # here


@refused(DefinitionError, "is read outside of it", "call the function again")
def what_a_function_makes_is_kept() -> None:
    g, x, _ = plain()

    def energy(y: gc.Value) -> gc.Value:
        g.output("energy", gc.sum(y * y))
        return gc.sum(y * y)

    g.output("d", gc.gradient(energy, x))  # here
    gc.verify(g)


FUNCTIONS: dict[str, Callable[[gc.Value, gc.Value], gc.Value]] = {
    "a step": lambda x, W: gc.tanh(W @ x + 1.0),
    "a product of its own": lambda x, W: gc.outer(x, W @ x) @ gc.softmax(x),
    "a number": lambda x, W: gc.sum(x**3),
    "a matrix": lambda x, W: gc.outer(x, gc.sin(x)).T,
    "in other places": lambda x, W: gc.roll(gc.standardize(x), 1)[::-1],
    "itself": lambda x, W: x,
    "something else": lambda x, W: W,
    "a gradient": lambda x, W: gc.gradient(lambda v: v @ (W @ v), x),
    "a Jacobian": lambda x, W: gc.jacobian(lambda v: gc.tanh(W @ v), x),
}


def differences(f: Callable[[np.ndarray], np.ndarray], at: np.ndarray, dims: int) -> np.ndarray:
    """Central differences of f by each element of the last `dims` dimensions of an array, the last of the result."""
    columns = []
    for k in np.ndindex(at.shape[at.ndim - dims :]):
        step = np.zeros_like(at)
        step[(..., *k)] = 1e-6
        columns.append((f(at + step) - f(at - step)) / 2e-6)
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *at.shape[at.ndim - dims :])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_jacobian_has_a_column_for_each_element(name: str) -> None:
    g, x, w = plain()
    g.output("y", FUNCTIONS[name](x, w) + 0 * x[0])
    g.output("J", gc.jacobian(lambda v: FUNCTIONS[name](v, w), x), over=x.axes)
    assert gc.parse(str(g)) == g
    value = gc.compile(gc.select(g, "y"))
    expected = differences(lambda x: value(x=x, W=W)["y"], X, 1)
    for found in (gc.interpret(g, x=X, W=W), gc.compile(g)(x=X, W=W)):
        np.testing.assert_allclose(found["J"], expected, rtol=1e-6, atol=1e-8)


def test_a_jacobian_by_a_param_is_of_each_point() -> None:
    g, x, w = plain()
    g.output("J", gc.jacobian(lambda v: gc.tanh(v @ x), w))
    found = gc.compile(g)(x=X, W=W)["J"]
    assert found.shape == (4, 2, 3, 3, 3)
    slopes = 1 - np.tanh(X @ W.T) ** 2
    np.testing.assert_allclose(found, np.einsum("tni,ij,tnk->tnijk", slopes, np.eye(3), X), rtol=1e-12, atol=1e-15)


def test_a_jacobian_by_a_param_of_a_sum_over_all_points() -> None:
    g, x, w = plain()
    g.output("J", gc.jacobian(lambda v: gc.sum(gc.tanh(v @ x), over=x.axes), w))
    slopes = 1 - np.tanh(X @ W.T) ** 2
    expected = np.einsum("tni,ij,tnk->ijk", slopes, np.eye(3), X)
    np.testing.assert_allclose(gc.compile(g)(x=X, W=W)["J"], expected, rtol=1e-12, atol=1e-14)


def test_of_one_product_no_sum_is_left() -> None:
    """A column of U is taken, not multiplied by an identity."""
    g, x, w = plain()
    g.output("J", gc.jacobian(lambda v: gc.tanh(w @ v), x))
    assert str(g).count("@") == 1


def test_a_jacobian_on_a_cycle_has_a_gradient() -> None:
    """A filter's covariance goes through the Jacobian of each step (Kalman 1960, extended)."""
    g, x, w = plain()
    t, n = x.axes
    m, P = g.state("m", (3,), over=(t, n)), g.state("P", (3, 3), over=(t, n), initial=np.eye(3))
    J = gc.jacobian(lambda v: gc.sin(w @ v), m[t - 1])
    m[t] = gc.sin(w @ m[t - 1]) + 0.1 * x
    P[t] = 0.5 * J @ P[t - 1] @ J.T + np.eye(3)
    g.output("loss", gc.mean(gc.sum(P) + gc.sum(m * m), over=(t, n)))
    check_gradients(g, arrays={"x": X, "W": W})


def test_what_is_made_does_not_depend_on_what_was_made_before() -> None:
    def text() -> str:
        g, x, w = plain()
        g.output("J", gc.jacobian(lambda v: w @ v * v, x))
        g.output("K", gc.jacobian(lambda v: v * v, x))
        return str(g)

    assert text() == text()


@refused(UnsupportedError, "point by point", "axis 't'", "shift")
def at_other_points() -> object:
    _, x, _ = plain()
    return gc.jacobian(lambda v: v.shift(x.axes[0], -1), x)  # here


@refused(UnsupportedError, "point by point", "axis 't'", "shift")
def a_param_at_other_points() -> object:
    _, x, w = plain()
    return gc.jacobian(lambda v: (v @ x).shift(x.axes[0], -1), w)  # here


@refused(UnsupportedError, "point by point", "axis 'n'", "sum")
def of_all_points() -> object:
    _, x, _ = plain()
    return gc.jacobian(lambda v: v - gc.mean(v, over=x.axes[1]), x)  # here


@refused(DefinitionError, "gc.jacobian(step, h[t - 1])", "got Value, function")
def the_wrong_way_round() -> object:
    _, x, _ = plain()
    return gc.jacobian(x, lambda v: v)  # type: ignore[arg-type]  # here


@refused(DtypeError, "no derivative", "int32")
def of_whole_numbers() -> object:
    _, x, _ = plain()
    return gc.jacobian(lambda v: v * 1.0, gc.argmax(x))  # here


@refused(DtypeError, "differentiates numbers", "bool")
def of_conditions() -> object:
    _, x, _ = plain()
    return gc.jacobian(lambda v: v > 0, x)  # here
