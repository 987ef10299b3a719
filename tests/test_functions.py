"""Functions that are made of several ops: their values against plain numpy, their gradients against differences, and
machine code against the interpreter; over axes, at zeros, at infinities, and where examples differ in length."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import testing
from graphc.errors import AxisError, DtypeError, ProtocolError, ShapeError

T, N = 4, 3
INF = np.inf
EPS = np.finfo(np.float64).eps
X = np.random.default_rng(0).normal(size=(T, N, 2, 5))


def axes(e: np.ndarray, axis: Any) -> np.ndarray:
    return e / e.sum(axis, keepdims=True)


def log_sum(a: np.ndarray, axis: Any) -> np.ndarray:
    return np.log(np.exp(a).sum(axis))


Function = Callable[..., gc.Value]
CASES: dict[str, tuple[Function, Callable[[np.ndarray], np.ndarray]]] = {
    "softmax over an axis": (lambda x, t, n: gc.softmax(x, over=t), lambda a: axes(np.exp(a), 0)),
    "softmax over two axes": (lambda x, t, n: gc.softmax(x, over=(t, n)), lambda a: axes(np.exp(a), (0, 1))),
    "softmax over an axis and a dim": (lambda x, t, n: gc.softmax(x, 0, over=t), lambda a: axes(np.exp(a), (0, 2))),
    "log_softmax over an axis": (lambda x, t, n: gc.log_softmax(x, over=n), lambda a: np.log(axes(np.exp(a), 1))),
    "logsumexp": (lambda x, t, n: gc.logsumexp(x), lambda a: log_sum(a, (2, 3))),
    "logsumexp of a dim": (lambda x, t, n: gc.logsumexp(x, dim=0), lambda a: log_sum(a, 2)),
    "logsumexp over an axis": (lambda x, t, n: gc.logsumexp(x, over=t), lambda a: log_sum(a, 0)),
    "logsumexp with its dims": (
        lambda x, t, n: gc.logsumexp(x, over=n, dim=1, keepdims=True),
        lambda a: log_sum(a, (1, 3))[..., None],
    ),
    "logaddexp": (lambda x, t, n: gc.logaddexp(x[0], x[1]), lambda a: np.logaddexp(a[:, :, 0], a[:, :, 1])),
    "logaddexp of equals": (lambda x, t, n: gc.logaddexp(x, x), lambda a: np.logaddexp(a, a)),
    "prod": (lambda x, t, n: gc.prod(x), lambda a: a.prod((2, 3))),
    "prod of a dim": (lambda x, t, n: gc.prod(x, dim=-1), lambda a: a.prod(3)),
    "einsum of one": (lambda x, t, n: gc.einsum("ij->j", x), lambda a: a.sum(2)),
    "einsum of one, transposed": (lambda x, t, n: gc.einsum("ij->ji", x), lambda a: a.swapaxes(2, 3)),
    "einsum of three": (
        lambda x, t, n: gc.einsum("i,ij,kj->k", x[:, 0], x, x),
        lambda a: np.einsum("tni,tnij,tnkj->tnk", a[..., 0], a, a),
    ),
    "einsum of four": (
        lambda x, t, n: gc.einsum("i,i,kj,l->jl", x[:, 0], x[:, 1], x, x[0]),
        lambda a: np.einsum("tni,tni,tnkj,tnl->tnjl", a[..., 0], a[..., 1], a, a[:, :, 0]),
    ),
    "transpose": (lambda x, t, n: gc.transpose(x), lambda a: a.swapaxes(2, 3)),
    "transpose by a tuple": (
        lambda x, t, n: gc.transpose(x[None], (2, 0, 1)),
        lambda a: np.moveaxis(a, 3, 2)[:, :, :, None],
    ),
    "log_sigmoid": (lambda x, t, n: gc.log_sigmoid(9 * x), lambda a: -np.logaddexp(0, -9 * a)),
    "rms_norm": (lambda x, t, n: gc.rms_norm(x), lambda a: a / np.sqrt((a * a).mean(3, keepdims=True) + EPS)),
    "rms_norm of two dims": (
        lambda x, t, n: gc.rms_norm(x, dim=(0, 1), eps=0.1),
        lambda a: a / np.sqrt((a * a).mean((2, 3), keepdims=True) + 0.1),
    ),
    "roll": (lambda x, t, n: gc.roll(x, 2), lambda a: np.roll(a, 2, 3)),
    "roll back": (lambda x, t, n: gc.roll(x, -1), lambda a: np.roll(a, -1, 3)),
    "roll far": (lambda x, t, n: gc.roll(x, 7, dim=0), lambda a: np.roll(a, 7, 2)),
    "roll around": (lambda x, t, n: gc.roll(x, -10), lambda a: np.roll(a, -10, 3)),
    "flip": (lambda x, t, n: gc.flip(x), lambda a: a[:, :, ::-1, ::-1]),
    "flip of a dim": (lambda x, t, n: gc.flip(x, 1), lambda a: a[..., ::-1]),
}


def graph(function: Function) -> gc.Graph:
    g = gc.Graph("case", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    g.output("y", function(g.input("x", (2, 5), over=(t, n)), t, n))
    return g


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name: str) -> None:
    function, reference = CASES[name]
    g = graph(function)
    np.testing.assert_allclose(gc.interpret(g, x=X)["y"], reference(X), rtol=1e-12)
    testing.check_gradients(g, "y", ["x"], {"x": X}, tolerance=1e-7)
    once = gc.vjp(g, "y", ["x"])
    cotangent = np.random.default_rng(1).normal(size=reference(X).shape)
    both = {"x": X, "cotangent_y": cotangent}
    testing.check_gradients(once, "grad_x", ["x", "cotangent_y"], both, tolerance=1e-6)
    found, expected = gc.compile(once)(**both), gc.interpret(once, **both)
    for output in expected:
        np.testing.assert_allclose(found[output], expected[output], rtol=1e-11, atol=1e-13)


def attention() -> gc.Graph:
    """Weights of the steps of each example, and what they say."""
    g = gc.Graph("attention", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    score, x = g.input("score", (), over=(t, n)), g.input("x", (2,), over=(t, n))
    weight = gc.softmax(score, over=t)
    g.output("weight", weight)
    g.output("log", gc.log_softmax(score, over=t))
    g.output("context", gc.sum(weight * x, over=t))
    g.output("total", gc.logsumexp(score, over=t))
    g.output("best", gc.argmax(score, over=t))
    g.output("worst", gc.argmin(score, over=t))
    g.output("loss", gc.sum(gc.sum(gc.square(gc.sum(weight * x, over=t))), over=n))
    return g


def test_points_past_an_examples_length_do_not_count() -> None:
    rng = np.random.default_rng(2)
    score, x = rng.normal(size=(T, N)), rng.normal(size=(T, N, 2))
    score[2:, 1] = 99.0  # past the second example's end
    lengths = np.array([4, 2, 0], np.int32)
    g = gc.grad(attention(), "loss", wrt=["score", "x"])
    for run in (gc.interpret, lambda graph, **arrays: gc.compile(graph)(**arrays)):
        r = run(g, lengths=lengths, score=score, x=x)
        for k, length in enumerate(lengths[:2]):
            expected = axes(np.exp(score[:length, k]), 0)
            np.testing.assert_allclose(r["weight"][:length, k], expected, rtol=1e-12)
            np.testing.assert_allclose(r["log"][:length, k], np.log(expected), rtol=1e-12)
            np.testing.assert_allclose(r["context"][k], expected @ x[:length, k], rtol=1e-12)
            np.testing.assert_allclose(r["total"][k], log_sum(score[:length, k], 0), rtol=1e-12)
            assert r["best"][k] == score[:length, k].argmax()
            assert r["worst"][k] == score[:length, k].argmin()
        assert not r["weight"][2:, 1].any()
        assert not r["context"][2].any()
        assert r["total"][2] == -INF
        assert (r["best"][2], r["worst"][2]) == (0, 0)
        assert np.isfinite(r["grad_score"]).all()
        assert not r["grad_score"][2:, 1].any()
    testing.check_gradients(attention(), "loss", ["score", "x"], {"lengths": lengths, "score": score, "x": x})


@pytest.mark.parametrize("over", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_of_sums_at_infinities_and_of_large_numbers(over: bool, dtype: str) -> None:
    rows = np.array([[-INF, -INF], [-INF, 1.0], [1e4, 1e4], [-1e4, -1e4], [INF, 0.0]], dtype)
    expected = np.array([-INF, 1.0, 1e4 + np.log(2), -1e4 + np.log(2), INF], dtype)
    gradient = np.array([[0, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]], dtype)
    g = gc.Graph("sums", dtype=dtype)
    t = g.axis("t")
    x = g.input("x", (5,) if over else (5, 2), over=t if over else ())
    g.output("y", gc.logsumexp(x, over=t) if over else gc.logsumexp(x, dim=1))
    pair = g.input("pair", (5, 2))
    g.output("z", gc.logaddexp(pair[:, 0], pair[:, 1]))
    g = gc.vjp(gc.vjp(g, "y", ["x"]), "z", ["pair"])
    ones = np.ones(5, dtype)
    arrays = {"x": rows.T if over else rows, "pair": rows, "cotangent_y": ones, "cotangent_z": ones, "t": 2}
    for r in (gc.interpret(g, **arrays), gc.compile(g)(**arrays)):
        np.testing.assert_allclose(r["y"], expected, rtol=1e-6)
        np.testing.assert_allclose(r["z"], expected, rtol=1e-6)
        np.testing.assert_allclose((r["grad_x"].T if over else r["grad_x"])[:4], gradient, rtol=1e-6)
        assert not np.isnan(r["grad_pair"]).any()
        np.testing.assert_allclose(r["grad_pair"][1:4], gradient[1:], rtol=1e-6)


@pytest.mark.parametrize("run", [gc.interpret, lambda g, **arrays: gc.compile(g)(**arrays)])
def test_logaddexp_does_not_hide_a_nan(run: Callable[..., dict[str, np.ndarray]]) -> None:
    others = np.array([INF, -INF, 0.0, np.nan], np.float32)
    nothing = np.full(4, np.nan, np.float32)
    g = gc.Graph("sums")
    a, b = g.input("a", (4,)), g.input("b", (4,))
    g.output("y", gc.logaddexp(a, b))
    g = gc.vjp(g, "y", ["a", "b"])
    for pair in ({"a": nothing, "b": others}, {"a": others, "b": nothing}):
        r = run(g, **pair, cotangent_y=np.ones(4, np.float32))
        assert np.isnan(r["y"]).all()
        assert np.isnan(r["grad_a"]).all()
        assert np.isnan(r["grad_b"]).all()


@pytest.mark.parametrize("run", [gc.interpret, lambda g, **arrays: gc.compile(g)(**arrays)])
@pytest.mark.parametrize("top", [1e4, 1e6, 1e8, -1e6])
def test_probabilities_beside_large_logits(top: float, run: Callable[..., dict[str, np.ndarray]]) -> None:
    """What counts is how far the logits are from their maximum, of which a large one leaves no digits for a logarithm;
    and one that is -inf is a class that cannot be, not one that spoils the others."""
    g = gc.Graph("large")
    n = g.axis("n")
    x, label = g.input("x", (4,), over=n), g.input("label", (), over=n, dtype="int32")
    g.output("log", gc.log_softmax(x))
    g.output("loss", gc.cross_entropy(x, label))
    logits = np.float32(top) + np.array([[0, 0, -1, -np.inf], [0, 0, 0, -3e8]], np.float32)
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    expected = below - np.log(np.exp(below).sum(axis=1, keepdims=True))
    found = run(g, x=logits, label=np.array([1, 2], np.int32))
    np.testing.assert_allclose(found["log"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["loss"], [-expected[0, 1], -expected[1, 2]], rtol=1e-6)


def test_a_masked_softmax_has_a_gradient() -> None:
    """Attention masks by -inf: what is masked has weight 0, and no part in the gradient."""
    g = gc.Graph("masked")
    t = g.axis("t")
    score, kept = g.input("score", (), over=t), g.input("kept", (), over=t, dtype="bool")
    weight = gc.softmax(gc.where(kept, score, -INF), over=t)
    g.output("loss", gc.sum(gc.square(weight), over=t))
    dg = gc.grad(g, "loss", wrt=["score"])
    r = gc.compile(dg)(score=np.array([1, 1, 50], np.float32), kept=np.array([True, True, False]))
    assert r["loss"] == pytest.approx(0.5)
    np.testing.assert_allclose(r["grad_score"], 0, atol=1e-7)


def test_a_product_has_its_gradient_at_zeros() -> None:
    g = gc.Graph("product", dtype="float64")
    g.output("y", gc.prod(g.input("x", (3, 5)), dim=1))
    x = np.array([[1.0, 2, 3, 4, 5], [1, 0, 3, 4, 5], [1, 0, 0, 4, 5]])
    dg = gc.vjp(g, "y", ["x"])
    r = gc.compile(dg)(x=x, cotangent_y=np.ones(3))
    expected = [[np.delete(row, k).prod() for k in range(5)] for row in x]
    np.testing.assert_allclose(r["y"], x.prod(1))
    np.testing.assert_allclose(r["grad_x"], expected)
    testing.check_gradients(dg, "grad_x", ["x"], {"x": x, "cotangent_y": np.ones(3)}, tolerance=1e-6)


def test_products_of_integers() -> None:
    g = gc.Graph("integers")
    g.output("y", gc.prod(g.input("x", (2, 3), dtype="int32")))
    assert gc.compile(g)(x=np.array([[1, 2, 3], [4, 5, 6]], np.int32))["y"] == 720


def test_positions_of_extremes() -> None:
    g = gc.Graph("positions")
    t = g.axis("t")
    x = g.input("x", (3,), over=t)
    for name, function in (("max", gc.argmax), ("min", gc.argmin)):
        g.output(name, function(x))
        g.output(f"{name}_over", function(x, over=t))
        g.output(f"{name}_row", function(x.reshape(3, 1), dim=0))
        g.output(f"{name}_column", function(gc.stack([x, 2 - x]), dim=0))
    x_ = np.array([[1, 5, 5], [2, 0, 0], [2, 1, 9]], np.float32)
    for r in (gc.interpret(g, x=x_), gc.compile(g)(x=x_)):
        for name, reference in (("max", np.argmax), ("min", np.argmin)):
            assert r[name].dtype == np.int32
            assert r[name].tolist() == reference(x_, 1).tolist()
            assert r[f"{name}_row"][:, 0].tolist() == reference(x_, 1).tolist()
            assert r[f"{name}_column"].tolist() == reference(np.stack([x_, 2 - x_]), 0).tolist()
            assert r[f"{name}_over"].tolist() == reference(x_, 0).tolist()


def test_least_integers() -> None:
    g = gc.Graph("integers")
    n = g.axis("n")
    x = g.input("x", (3,), over=n, dtype="int32")
    for name, value in (("x", x), ("flag", x > 0)):
        g.output(f"min_{name}", gc.min(value))
        g.output(f"over_{name}", gc.min(value, over=n))
    g.output("argmin", gc.argmin(x))
    lowest = np.iinfo(np.int32).min
    x_ = np.array([[5, lowest, 7], [3, 2, lowest + 1]], np.int32)
    for r in (gc.interpret(g, x=x_), gc.compile(g)(x=x_)):
        for name, value in (("x", x_), ("flag", x_ > 0)):
            assert r[f"min_{name}"].tolist() == value.min(1).tolist()
            assert r[f"over_{name}"].tolist() == value.min(0).tolist()
        assert r["argmin"].tolist() == [1, 2]


def test_lists_of_any_kind() -> None:
    g = gc.Graph("lists")
    x = g.input("x", (4, 3))
    assert [part.shape for part in gc.split(x, np.int64(3))] == [(4, 1)] * 3
    assert [part.shape for part in gc.split(x, np.array([1, 2]))] == [(4, 1), (4, 2)]
    assert gc.concat(np.ones((2, 3))).shape == (6,)
    assert gc.stack([x, x], dim=-1).shape == (4, 3, 2)
    assert x.reshape([2, -1]).shape == (2, 6)


def test_labels_that_do_not_count() -> None:
    g = gc.Graph("ignored")
    n = g.axis("n")
    x, y = g.input("x", (3,), over=n), g.input("y", (), over=n, dtype="int32")
    loss = gc.sum(gc.cross_entropy(x, y, ignore_index=-100), over=n)
    g.output("loss", loss / gc.sum(y != -100, over=n))
    dg = gc.grad(g, "loss", wrt=["x"])
    arrays = {"x": np.array([[1, 2, 3], [9, 9, 9], [0, 0, 0]], np.float32), "y": np.array([2, -100, 0], np.int32)}
    kept = [log_sum(arrays["x"][0], 0) - 3, np.log(3)]
    for r in (gc.interpret(dg, **arrays), gc.compile(dg)(**arrays)):
        assert r["loss"] == pytest.approx(np.mean(kept), rel=1e-6)
        assert not r["grad_x"][1].any()
        assert r["grad_x"][[0, 2]].any(axis=1).all()


def test_log_sigmoid_is_accurate_far_from_zero() -> None:
    x = np.array([-1e4, -100, -20, -1e-3, 20, 100, 1e4], np.float32)
    g = gc.Graph("far")
    g.output("y", gc.log_sigmoid(g.input("x", (7,))))
    g = gc.vjp(g, "y", ["x"])
    exact = x.astype(np.float64)
    arrays = {"x": x, "cotangent_y": np.ones(7, np.float32)}
    for r in (gc.interpret(g, **arrays), gc.compile(g)(**arrays)):
        np.testing.assert_allclose(r["y"], -np.logaddexp(0, -exact), rtol=1e-6, atol=1e-40)
        np.testing.assert_allclose(r["grad_x"], np.exp(-np.logaddexp(0, exact)), rtol=1e-5, atol=1e-38)


def test_rms_norm_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    x = X[0, 0].astype(np.float32) * np.float32(1e-3)  # so small that ε shows
    g = gc.Graph("normalised")
    g.output("y", gc.rms_norm(g.input("x", (2, 5))))
    g.output("whole", gc.rms_norm(g.value("x"), dim=(0, 1)))
    r, given = gc.compile(g)(x=x), torch.from_numpy(x)
    np.testing.assert_allclose(r["y"], torch.nn.functional.rms_norm(given, (5,)).numpy(), rtol=1e-6)
    np.testing.assert_allclose(r["whole"], torch.nn.functional.rms_norm(given, (2, 5)).numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "use"),
    [
        (ShapeError, lambda x, t: gc.softmax(x, dim=1)),
        (ShapeError, lambda x, t: gc.logsumexp(x, dim=1)),
        (ShapeError, lambda x, t: gc.prod(x, dim=3)),
        (ShapeError, lambda x, t: gc.flip(x, 3)),
        (ShapeError, lambda x, t: gc.roll(x, 1, dim=1)),
        (ShapeError, lambda x, t: gc.roll(x[0], 1)),
        (ShapeError, lambda x, t: gc.roll(x, gc.index(t))),
        (ShapeError, lambda x, t: gc.rms_norm(x[0])),
        (ShapeError, lambda x, t: gc.argmin(x[0])),
        (ShapeError, lambda x, t: gc.argmax(x, dim=1)),
        (ShapeError, lambda x, t: gc.argmax(x, over=t, dim=0)),
        (AxisError, lambda x, t: gc.softmax(x[t.last], over=t)),
        (AxisError, lambda x, t: gc.argmax(x[t.last], over=t)),
        (AxisError, lambda x, t: gc.logsumexp(x, over="t")),
        (DtypeError, lambda x, t: gc.cross_entropy(x, 1, ignore_index=True)),
        (ShapeError, lambda x, t: gc.cross_entropy(x, 1, dim=0.5)),
        (ShapeError, lambda x, t: gc.stack([x, x], dim=2)),
        (ShapeError, lambda x, t: gc.concat([x, x], dim=1)),
        (ProtocolError, lambda x, t: gc.concat(3)),
        (ShapeError, lambda x, t: gc.stack([])),
        (ShapeError, lambda x, t: gc.split(x, 3, dim=1)),
        (ShapeError, lambda x, t: gc.split(x, [4, -1])),
        (ShapeError, lambda x, t: gc.split(x, [1.5, 1.5])),
        (ShapeError, lambda x, t: gc.split(x, "ab")),
        (ShapeError, lambda x, t: gc.split(x, [1, 1])),
        (ShapeError, lambda x, t: x.reshape(-3, -1)),
        (ShapeError, lambda x, t: gc.stack([x, x]).reshape(-2, -3)),
        (ShapeError, lambda x, t: x.reshape(1.5, 2)),
        (DtypeError, lambda x, t: gc.random(2.5, t)),
        (DtypeError, lambda x, t: gc.random(2, t, salt=-1)),
        (DtypeError, lambda x, t: gc.random(2, t, salt=1.5)),
        (ShapeError, lambda x, t: gc.random(2, t, shape=2)),
        (AxisError, lambda x, t: x.shift("t", -1)),
        (ShapeError, lambda x, t: gc.one_hot(gc.index(t), 2.5)),
        (ShapeError, lambda x, t: gc.one_hot(gc.index(t), 0)),
    ],
)
def test_refused(kind: type[Exception], use: Callable[..., object]) -> None:
    g = gc.Graph("refused")
    t = g.axis("t")
    with pytest.raises(kind):
        use(g.input("x", (3,), over=t), t)


@pytest.mark.parametrize("dtype", ["int32", "float64"])
@pytest.mark.parametrize("operation", [operator.floordiv, operator.mod])
def test_whole_quotients_and_what_they_leave(operation: Any, dtype: str) -> None:
    """A number or an array before the operator, too."""
    g = gc.Graph("quotients", dtype="float64")
    x = g.input("x", (3,), over=g.axis("t"), dtype=dtype)
    forms = {"after": operation(x, 3), "number": operation(7, x), "array": operation(np.array([7, -7, 8]), x)}
    array = np.array([[2, 3, -4], [5, -6, 9]], dtype)
    expected = {
        "after": operation(array, 3),
        "number": operation(7, array),
        "array": operation(np.array([7, -7, 8]).astype(dtype), array),
    }
    for name, value in forms.items():
        g.output(name, value)
    for found in (gc.interpret(g, x=array), gc.compile(g)(x=array)):
        for name, right in expected.items():
            assert found[name].dtype == dtype
            np.testing.assert_array_equal(found[name], right, err_msg=name)
