"""`g.output(name, value, over=…)`: the axes of an array in the order that was asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AxisError
from tests.cuda_emulated import compiled

SHAPE = {"t": 4, "n": 3, "s": 2}
ORDERS = list(itertools.permutations("tns"))


def attention(order: tuple[str, ...] | None) -> gc.Graph:
    """A recurrence along t, of which each point meets each of s; lengths along s differ."""
    g = gc.Graph("order")
    t, n = g.axis("t"), g.axis("n")
    s = g.axis("s", g.input("lengths", (), over=n, dtype="int32"))
    x, k = g.input("x", (2,), over=(t, n)), g.input("k", (2,), over=(s, n))
    h = g.state("h", (2,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (2, 2)) @ h[t - 1] + x)
    meet = h * k
    over = None if order is None else [{"t": t, "n": n, "s": s}[name] for name in order]
    g.output("meet", meet, over=over)
    g.output("loss", gc.sum(gc.sum(meet * meet), over=(t, n, s)))
    return g


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x, k = (rng.normal(size=(SHAPE[a], SHAPE["n"], 2)).astype(np.float32) for a in "ts")
    return {"x": x, "k": k, "lengths": np.array([2, 1, 0], np.int32)}


@pytest.mark.parametrize("order", ORDERS)
def test_an_array_has_its_axes_in_the_order_given(order: tuple[str, ...]) -> None:
    plain, g = attention(None), attention(order)
    assert [axis.name for axis in g.value("meet").axes] == list(order)
    assert gc.parse(str(g)) == g
    given = arrays() | gc.initialize(g, seed=1)
    first = [axis.name for axis in plain.value("meet").axes]
    expected = gc.interpret(plain, **given)["meet"].transpose(*(first.index(name) for name in order), 3)
    assert expected.shape == (*(SHAPE[name] for name in order), 2)
    for run in (gc.compile(g), gc.compile(gc.grad(g, "loss")), lambda **a: gc.interpret(g, **a)):
        np.testing.assert_allclose(run(**given)["meet"], expected, rtol=1e-5, atol=1e-6)
    if order == ORDERS[-1]:
        np.testing.assert_allclose(compiled(g)(**given)["meet"], expected, rtol=1e-5, atol=1e-6)  # on a GPU
    unrolled = gc.compile(gc.unroll(g, t=SHAPE["t"]))(**given)["meet"]
    np.testing.assert_allclose(unrolled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_a_derivative_through_it_and_a_step_of_it(order: tuple[str, ...]) -> None:
    g = attention(order)
    given = arrays() | gc.initialize(g, seed=1)
    direction = np.random.default_rng(1).normal(size=(*(SHAPE[name] for name in order), 2)).astype(np.float32)
    plain = attention(None)
    first = [axis.name for axis in plain.value("meet").axes]
    turned = np.ascontiguousarray(direction.transpose(*(order.index(name) for name in first), 3))
    found, expected = (
        gc.compile(gc.vjp(gc.select(graph, "meet"), "meet", wrt=["W", "k"]))(**given, cotangent_meet=d)
        for graph, d in ((g, direction), (plain, turned))
    )
    for name in ("grad_W", "grad_k"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)
    one = gc.compile(gc.step(gc.select(g, "meet"), over="t"))
    carry = gc.initial_carry(gc.select(g, "meet"), over="t", n=SHAPE["n"], s=SHAPE["s"])
    whole = gc.compile(g)(**given)["meet"]
    for k in range(SHAPE["t"]):
        made = one(**given | {"x": given["x"][k]}, **carry)["meet"]
        np.testing.assert_allclose(made, np.take(whole, k, axis=order.index("t")), rtol=1e-5, atol=1e-6)


def test_axes_that_are_not_the_values_are_refused() -> None:
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (), over=(t, n))
    for over in ((t,), (n, t, g.axis("m", 2)), ()):
        with pytest.raises(AxisError, match="output 'y' varies over t, n; over= takes all its axes"):
            g.output("y", x, over=over)
    with pytest.raises(AxisError, match="names an axis twice"):
        g.output("y", x, over=(t, t, n))
    assert not g.outputs
    g.output("y", x, over=(n, t))
    assert gc.compile(g)(x=np.arange(6, dtype=np.float32).reshape(2, 3))["y"].tolist() == [[0, 3], [1, 4], [2, 5]]
