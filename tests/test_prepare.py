"""What the compiler's algebra may change of a graph: nothing but the last bits of a result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import graphc as gc
from graphc.checks.causality import reachable
from graphc.ir import size
from graphc.language.graph import Graph
from graphc.language.value import Value
from graphc.ops.elementwise import DIV, MUL
from graphc.simplification.prepare import prepare

ROWS, WIDTH = 6, 5
SPECIAL = [0.0, 1e-45, 1e-38, 1e-20, 1.0, 3e38, np.inf, -1.0, np.nan]


def quotients(divisor: Callable[[Value], Value]) -> Graph:
    """Rows of numbers, each divided by something of one number."""
    g = gc.Graph("quotients")
    x, v = g.input("x", (ROWS, WIDTH)), g.input("v", (ROWS, 1))
    g.output("y", x / divisor(v))
    return g


def divisions(graph: Graph) -> int:
    """How many numbers are divided."""
    return sum(size(node.shape) for node in reachable(prepare(graph)) if node.op is DIV)


def test_a_root_that_divides_many_is_inverted_once() -> None:
    assert divisions(quotients(gc.sqrt)) == ROWS
    g = gc.Graph("axes")
    t, n = g.axis("t", 2), g.axis("n", 3)
    g.output("y", g.input("x", (4,), over=(t, n)) / gc.sqrt(g.input("v", (4,), over=n)))
    roots = [node for node in reachable(prepare(g)) if node.op is DIV]
    assert [node.axes for node in roots] == [(n,)]


def test_other_divisors_divide() -> None:
    """1 / 3e38 is flushed to 0, and 3e38 · 0 is not 1."""
    graph = quotients(lambda v: v)
    assert divisions(graph) == ROWS * WIDTH
    x, v = np.full((ROWS, WIDTH), 3e38, np.float32), np.full((ROWS, 1), 3e38, np.float32)
    np.testing.assert_array_equal(gc.compile(graph)(x=x, v=v)["y"], np.ones_like(x))


@settings(max_examples=50)
@given(
    arrays(np.float32, (ROWS, WIDTH), elements=st.floats(width=32)),
    arrays(np.float32, (ROWS, 1), elements=st.floats(width=32) | st.sampled_from(SPECIAL).map(np.float32)),
)
def test_a_root_inverted_divides(x: np.ndarray, v: np.ndarray) -> None:
    normal = np.finfo(np.float32).tiny
    x, v = (np.where(np.abs(a) < normal, np.float32(0), a) for a in (x, v))  # as compiled code takes them
    with np.errstate(all="ignore"):
        expected = x / np.sqrt(v)
    found = gc.compile(quotients(gc.sqrt), threads=1)(x=x, v=v)["y"]
    np.testing.assert_allclose(found, expected, rtol=3e-7, atol=2 * normal)


def test_a_normalisation_by_hand_divides_no_more_than_once_a_row() -> None:
    """Forward and backward."""
    g = gc.Graph("hand")
    x = g.input("x", (ROWS, WIDTH))
    y = (x - gc.mean(x, dim=-1, keepdims=True)) / gc.sqrt(gc.var(x, dim=-1, keepdims=True) + 1e-5)
    g.output("loss", gc.sum(gc.tanh(y)))
    whole = [n for n in reachable(prepare(gc.grad(g, "loss", wrt=["x"]))) if n.op is DIV and n.shape == (ROWS, WIDTH)]
    assert not whole


def test_a_product_that_no_factor_leaves_stays_whole() -> None:
    """p · (q · z) is an output, and part of a sum that r leaves: it is computed once."""
    g = gc.Graph("whole")
    p, q, y, z = (g.input(name, (ROWS, WIDTH)) for name in "pqyz")
    product = p * (q * z)
    g.output("product", product)
    g.output("total", gc.sum(product * g.input("r", (ROWS, 1)) * y, dim=-1))
    wide = [n for n in reachable(prepare(g)) if n.op is MUL and n.shape == (ROWS, WIDTH)]
    assert len(wide) == 3  # q · z, p · (q · z), and that times y
    given = {name: np.random.default_rng(0).normal(size=n.shape).astype(np.float32) for name, n in g.inputs.items()}
    found = gc.compile(g)(**given)["total"]
    np.testing.assert_allclose(found, np.prod([*np.broadcast_arrays(*given.values())], 0).sum(-1), 1e-5, 1e-6)
