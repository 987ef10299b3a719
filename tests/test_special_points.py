"""Values and derivatives where formulas meet: ties, zeros, numbers that are none, and points that do not exist."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.language.value import Value

RUNS = {"interpreted": gc.interpret, "compiled": lambda graph, **arrays: gc.compile(graph)(**arrays)}


def derivatives(run: str, function: Callable[..., Value], **points: list[float]) -> tuple[np.ndarray, ...]:
    """Σ function's gradient by each argument, in float64."""
    g = gc.Graph("points", dtype="float64")
    inputs = {name: g.input(name, (len(at),)) for name, at in points.items()}
    g.output("loss", gc.sum(function(*inputs.values())))
    found = RUNS[run](gc.grad(g, "loss", wrt=list(points)), **{n: np.array(at) for n, at in points.items()})
    return tuple(found[f"grad_{name}"] for name in points)


def second(run: str, function: Callable[[Value], Value], at: list[float]) -> np.ndarray:
    """The second derivative at each point."""
    g = gc.Graph("points", dtype="float64")
    g.output("loss", gc.sum(function(g.input("x", (len(at),)))))
    moved = gc.jvp(gc.select(gc.grad(g, "loss", wrt=["x"]), "grad_x"), "grad_x", wrt=["x"])
    return np.asarray(RUNS[run](moved, x=np.array(at), tangent_x=np.ones(len(at)))["tangent_grad_x"])


@pytest.mark.parametrize("run", RUNS)
def test_elu_is_smooth_at_zero(run: str) -> None:
    (found,) = derivatives(run, gc.elu, x=[-1.0, -0.0, 0.0, 1.0, np.nan])
    np.testing.assert_allclose(found[:4], [np.exp(-1), 1, 1, 1])
    assert np.isnan(found[4])
    (found,) = derivatives(run, lambda x: gc.elu(x, 0.5), x=[-1.0, 1000.0])
    np.testing.assert_allclose(found, [0.5 * np.exp(-1), 1])


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("as_param", [False, True], ids=["a number", "a value"])
def test_powers_have_derivatives_at_zero(run: str, as_param: bool) -> None:
    """Σ xᵏ for k = 0, 1, 2, 3."""

    def polynomial(x: Value, *exponents: Value) -> Value:
        total: Value | float = 0.0
        for power in exponents or (0.0, 1.0, 2.0, 3.0):
            total = total + x**power
        return gc.sum(total)

    at = [0.0, 2.0, -1.5]
    exponents = {f"k{k}": [float(k)] for k in range(4)} if as_param else {}
    found = derivatives(run, polynomial, x=at, **exponents)[0]
    np.testing.assert_allclose(found, [1 + 2 * x + 3 * x * x for x in at])
    if not as_param:
        np.testing.assert_allclose(second(run, polynomial, at), [2 + 6 * x for x in at])


@pytest.mark.parametrize("run", RUNS)
def test_an_exponent_learns_beside_a_zero(run: str) -> None:
    _, found = derivatives(run, lambda x, p: x**p, x=[0.0, 1.0, 2.0], p=[2.0, 2.0, 2.0])
    np.testing.assert_allclose(found, [0, 0, 4 * np.log(2)])
    _, found = derivatives(run, lambda x, p: x**p, x=[0.0, 3.0], p=[0.0, 0.0])
    np.testing.assert_allclose(found, [0, np.log(3)])


@pytest.mark.parametrize("run", RUNS)
def test_argmax_names_a_position_that_there_is(run: str) -> None:
    rows = np.array([[0, np.nan, 1], [np.nan, np.nan, 2], [1, 3, 3], [-np.inf, -np.inf, -np.inf]], np.float32)
    g = gc.Graph("rows")
    g.output("position", gc.argmax(g.input("x", (3,), over=g.axis("n"))))
    np.testing.assert_array_equal(RUNS[run](g, x=rows)["position"], rows.argmax(axis=1))


LENGTHS = np.array([4, 1, 0, 2], np.int32)


def ragged(**reductions: Callable[[Value, gc.Graph], Value]) -> gc.Graph:
    """Of a value over time alone, where each example has its own times."""
    g = gc.Graph("ragged", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    value = g.param("w", (2,), init="zeros") + gc.cast(gc.index(t), "float64")
    for name, reduced in reductions.items():
        g.output(name, reduced(value, g))
    return g


@pytest.mark.parametrize("run", RUNS)
def test_what_is_the_same_for_all_is_reduced_over_the_points_of_each(run: str) -> None:
    names = {"sum": gc.sum, "mean": gc.mean, "max": gc.max, "min": gc.min, "var": gc.var, "std": gc.standardize}
    g = ragged(**{name: lambda v, g, f=f: f(v, over=g.axes["t"]) for name, f in names.items()})
    w = np.array([0.5, -1.0])
    found = RUNS[run](g, w=w, lengths=LENGTHS)
    for k, length in enumerate(LENGTHS):
        rows = w + np.arange(length)[:, None]
        np.testing.assert_allclose(found["sum"][k], rows.sum(axis=0))
        if not length:
            continue
        for name, f in {"mean": np.mean, "max": np.max, "min": np.min, "var": np.var}.items():
            np.testing.assert_allclose(found[name][k], f(rows, axis=0), err_msg=name)
        expected = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5)
        np.testing.assert_allclose(found["std"][:length, k], expected, atol=1e-12)


@pytest.mark.parametrize("run", RUNS)
def test_a_total_of_what_is_the_same_for_all_counts_every_examples_points(run: str) -> None:
    g = ragged(total=lambda v, g: gc.sum(v, over=(g.axes["t"], g.axes["n"])))
    w = np.array([0.5, -1.0])
    expected = sum((w + np.arange(length)[:, None]).sum(axis=0) for length in LENGTHS)
    np.testing.assert_allclose(RUNS[run](g, w=w, lengths=LENGTHS)["total"], expected)


@pytest.mark.parametrize("run", RUNS)
def test_a_weighted_mean_of_ones_is_one(run: str) -> None:
    g = gc.Graph("weighted", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    decay, x = g.param("decay", ()), g.input("x", (), over=(t, n))
    weights = gc.exp(-decay * gc.cast(gc.index(t), "float64"))
    mean = gc.sum(weights * x, over=t) / gc.sum(weights, over=t)
    g.output("mean", mean)
    g.output("loss", gc.sum(gc.sum(weights, over=t), over=n))
    arrays = {"lengths": np.array([4, 1, 2], np.int32), "x": np.ones((4, 3)), "decay": np.array(0.5)}
    np.testing.assert_allclose(RUNS[run](g, **arrays)["mean"], 1.0)
    gc.testing.check_gradients(g, "loss", arrays=arrays, run=RUNS[run])


@pytest.mark.parametrize("run", RUNS)
def test_shares_of_an_example_without_points_add_up_to_nothing(run: str) -> None:
    g = gc.Graph("shares", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x, v = g.input("x", (), over=(t, n)), g.input("v", (), over=(t, n))
    total = gc.sum(x, over=t)
    g.output("quotients", gc.sum(x / total, over=t))
    g.output("products", gc.sum(x * (1 / total), over=t))
    g.output("weighted", gc.sum(v * (x * (1 / total)), over=t))
    found = RUNS[run](g, lengths=LENGTHS, x=np.ones((4, 4)), v=np.full((4, 4), 2.0))
    np.testing.assert_allclose(found["quotients"], LENGTHS > 0)
    np.testing.assert_allclose(found["products"], LENGTHS > 0)
    np.testing.assert_allclose(found["weighted"], 2.0 * (LENGTHS > 0))


@pytest.mark.parametrize("run", RUNS)
def test_a_sum_of_no_points_is_zero_whatever_its_terms_are_divided_by(run: str) -> None:
    """A mean that is written as a sum of quotients, of an example without points, and of a call without any."""
    g = gc.Graph("means", dtype="float64")
    n = g.axis("n")
    t, s = g.axis("t", g.input("lengths", (), over=n, dtype="int32")), g.axis("s")
    x, y = g.input("x", (2,), over=(t, n)), g.input("y", (2,), over=s)
    length = gc.cast(gc.length(t), "float64")
    g.output("quotients", gc.sum(x / length, over=t))
    g.output("products", gc.sum(x * (1 / length), over=t))
    g.output("shares", gc.sum(gc.softmax(x, over=t), over=t))
    g.output("of_all", gc.sum(x / gc.sum(length, over=n), over=(t, n)))
    g.output("open", gc.sum(y / gc.cast(gc.length(s), "float64"), over=s))
    arrays = np.random.default_rng(0).normal(size=(4, 4, 2))
    found = RUNS[run](g, x=arrays, lengths=LENGTHS, y=np.zeros((0, 2)))
    means = np.array([arrays[: max(length, 1), k].mean(axis=0) * (length > 0) for k, length in enumerate(LENGTHS)])
    np.testing.assert_allclose(found["quotients"], means)
    np.testing.assert_allclose(found["products"], means)
    np.testing.assert_allclose(found["shares"], np.repeat(LENGTHS[:, None] > 0, 2, axis=1))
    np.testing.assert_allclose(found["of_all"], (means * LENGTHS[:, None]).sum(axis=0) / LENGTHS.sum())
    np.testing.assert_array_equal(found["open"], [0, 0])


def double(**outputs: Callable[[gc.Graph], Value]) -> dict[str, np.ndarray]:
    """Of a float64 graph with an input over its axis."""
    g = gc.Graph("double", dtype="float64")
    g.input("x", (), over=g.axis("t"))
    for name, output in outputs.items():
        g.output(name, output(g))
    assert gc.parse(str(g)) == g
    return dict(gc.interpret(g, x=np.array([1.0, -1.0, 2.0])))


def test_constants_have_the_dtype_of_their_graph() -> None:
    """Where nothing but a condition, a position or a length says which that is."""
    made = double(
        chosen=lambda g: gc.where(g.value("x") > 0, 0.1, 0.2),
        large=lambda g: gc.where(g.value("x") > 0, 1e300, -1e300),
        scaled=lambda g: gc.index(g.axes["t"]) * 0.1,
        root=lambda g: gc.sqrt(gc.length(g.axes["t"])),
        table=lambda g: gc.one_hot(gc.index(g.axes["t"]), 3) * 0.1,
        angle=lambda g: gc.sin(gc.index(g.axes["t"]) / 10000**0.5),
        drawn=lambda g: gc.random(3, [g.axes["t"]]),
    )
    position = np.arange(3)
    expected = {
        "chosen": np.array([0.1, 0.2, 0.1]),
        "large": np.array([1e300, -1e300, 1e300]),
        "scaled": position * 0.1,
        "root": np.sqrt(3),
        "table": np.eye(3) * 0.1,
        "angle": np.sin(position / 100),
    }
    for name, array in expected.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-15, err_msg=name)
    assert {array.dtype.name for array in made.values()} == {"float64"}


def test_positions_of_equal_axes_serve_graphs_of_either_dtype() -> None:
    for dtype in ("float32", "float64", "float32"):
        g = gc.Graph("either", dtype=dtype)
        t = g.axis("t")
        g.output("y", g.input("x", (), over=t) * (gc.index(t) * 0.1))
        assert g.outputs["y"].dtype == dtype


def test_a_surrogate_gradient_is_of_the_graphs_dtype() -> None:
    @gc.custom_gradient
    def spike(v: Value) -> tuple[Value, Callable[[Value], Value]]:
        return gc.where(v > 0, 1.0, 0.0), lambda d: d / (1 + gc.abs(v)) ** 2

    g = gc.Graph("spiking", dtype="float64")
    t = g.axis("t")
    s = g.state("s", (), over=t)
    s[t] = spike(g.input("x", (), over=t) + s[t - 1])
    g.output("loss", gc.sum(s, over=t))
    assert gc.interpret(gc.grad(g, "loss", wrt=["x"]), x=np.ones(3))["grad_x"].dtype == np.float64


def test_positions_do_not_hide_a_mix_of_graphs() -> None:
    first, second_ = (gc.Graph(name) for name in ("first", "second"))
    x, y = (g.input("x", (), over=g.axis("t")) for g in (first, second_))
    with pytest.raises(gc.GraphError, match="two graphs do not mix: 'first' and 'second'"):
        _ = gc.index(first.axes["t"]) * x + y


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_float_beyond_all_integers_is_the_last_one(run: str, dtype: str) -> None:
    at = [np.inf, -np.inf, np.nan, 3e9, -3e9, 2147483647.0, -2147483648.0, 2147483520.0, -1.9, 1.9, -0.0]
    last, first = 2**31 - 1, -(2**31)
    expected = [last, first, 0, last, first, last, first, 2147483520, -1, 1, 0]
    g = gc.Graph("cast", dtype=dtype)
    g.output("whole", gc.cast(g.input("x", (len(at),)), "int32"))
    np.testing.assert_array_equal(RUNS[run](g, x=np.array(at, dtype))["whole"], expected)


@pytest.mark.parametrize("run", RUNS)
def test_both_modes_agree_where_an_example_has_no_points(run: str) -> None:
    """What a reduction or a read of none gives is a number, or is made one; so are its derivatives, of any mode."""
    g = gc.Graph("none", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x = g.input("x", (2,), over=(t, n))
    made = [reduce(x, over=t) for reduce in (gc.sum, gc.max, gc.min, gc.logsumexp)]
    made += [gc.sum(gc.softmax(x, over=t) * x, over=t), x[t.first], x[t.last], x[t.at(1)]]
    g.output("y", gc.sum(sum(gc.tanh(value) ** 2 for value in made)))
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(3, 3, 2)), "lengths": np.array([3, 0, 1], np.int32)}
    direction, weights = rng.normal(size=(3, 3, 2)), rng.normal(size=3)
    reverse = gc.vjp(g, "y", wrt=["x"])
    gradient = RUNS[run](reverse, **arrays, cotangent_y=weights)["grad_x"]
    moved = RUNS[run](gc.jvp(g, "y", wrt=["x"]), **arrays, tangent_x=direction)["tangent_y"]
    np.testing.assert_allclose(weights @ moved, np.vdot(gradient, direction))
    product = gc.jvp(gc.select(reverse, "grad_x"), "grad_x", wrt=["x"])
    ahead, behind = (
        RUNS[run](reverse, **{**arrays, "x": arrays["x"] + s * direction}, cotangent_y=weights)["grad_x"]
        for s in (1e-6, -1e-6)
    )
    found = RUNS[run](product, **arrays, cotangent_y=weights, tangent_x=direction)["tangent_grad_x"]
    np.testing.assert_allclose(found, (ahead - behind) / 2e-6, atol=1e-7)
