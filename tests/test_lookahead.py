"""Two steps at once compute what single steps do, and are taken where they pay and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.scheduling.lookahead import lookahead
from graphc.simplification.prepare import prepare
from graphc.testing import Example, random_arrays


@st.composite
def recurrences(draw: Any) -> Example:
    """h[t] = a · h[t ± k] + b in many spellings, with coefficients of every kind, for one or a few elements."""
    g = gc.Graph("linear", dtype="float64")
    n = g.axis("n", draw(st.sampled_from([1, 2])))
    ragged = draw(st.booleans())
    lengths = g.input("lengths", (), over=n, dtype="int32") if ragged else None
    t = g.axis("t", lengths)
    over = (t, n) if ragged or draw(st.booleans()) else (t,)
    shape = draw(st.sampled_from([(), (1,), (4,)] if over == (t,) else [(), (1,)]))
    a, b = g.input("a", shape, over=over), g.input("b", shape, over=over)
    p = g.param("p", shape)
    initial = draw(st.sampled_from([0.0, 0.75, p]))
    reset = b[0] > 0 if shape == (1,) and draw(st.booleans()) else None
    h = g.state("h", shape, over=over, initial=initial, reset=reset)
    before = h[t + draw(st.sampled_from([-3, -2, -1, 1, 2]))]
    spellings = (
        a * before + b,
        b - before * a,
        (1 - a) * before,
        before / (2 + a) + a * b,
        gc.where(a > 0, before, b) * 0.5,
        p * before + b,
        -(before + b) * a,
        before * 0.5,
        before * a + before + b,
    )
    h[t] = draw(st.sampled_from(spellings))
    g.output("h", h)
    g.output("later", gc.sin(h) + h[t - 1])
    g.output("loss", gc.sum(gc.sum(h * h) if shape else h * h, over=over))
    return Example(g, random_arrays(g, draw(st.integers(0, 99)), t=draw(st.integers(1, 7))))


@settings(max_examples=60)
@given(recurrences(), st.booleans())
def test_two_steps_at_once_compute_the_same(example: Example, differentiated: bool) -> None:
    graph, arrays = example.graph, example.arrays
    if differentiated:
        graph = gc.grad(graph, "loss", wrt=["a", "b", "p"])
    ahead = lookahead(prepare(graph)).graph
    expected = gc.interpret(graph, **arrays)
    for found in (gc.interpret(ahead, **arrays), gc.compile(graph)(**arrays)):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=name)


def linear(shape: tuple[int, ...], points: int | None = 1, **options: Any) -> gc.Graph:
    g = gc.Graph("linear", **options)
    t, n = g.axis("t"), g.axis("n", points)
    a, b = g.input("a", shape, over=(t, n)), g.input("b", shape, over=(t, n))
    h = g.state("h", shape, over=(t, n))
    h[t] = a * h[t - 1] + b
    g.output("loss", gc.sum(gc.sum(h * h) if shape else h * h, over=(t, n)))
    return g


def carriers(graph: gc.Graph) -> dict[str, str]:
    return dict(lookahead(prepare(graph)).carriers)


@pytest.mark.parametrize(
    ("graph", "pays"),
    [
        (linear(()), True),
        (linear((8,)), True),
        (linear((4,), points=2), True),
        (linear((4,), dtype="float64"), True),
        (linear((8,), dtype="float64"), False),  # 64 bytes
        (linear((2,)), False),  # fills no vector
        (linear((16,)), False),
        (linear((), points=None), False),  # the length of a batch comes with the data
    ],
)
def test_it_is_taken_for_small_states(graph: gc.Graph, pays: bool) -> None:
    assert carriers(graph) == ({"h": "h"} if pays else {})


def test_the_adjoint_of_a_linear_recurrence_is_taken_too() -> None:
    assert carriers(gc.grad(linear(()), "loss", wrt="b")) == {"h": "h", "adjoint_h_ahead": "adjoint_h"}


def test_it_is_not_taken_for_other_cycles() -> None:
    """Curved, dense, of two delays, or with coefficients that are not at hand."""
    for equation in (
        lambda g, h, t, x: gc.tanh(h[t - 1] + x),
        lambda g, h, t, x: g.param("W", (4, 4)) @ h[t - 1] + x,
        lambda g, h, t, x: h[t - 1] * x + h[t - 2],
        lambda g, h, t, x: h[t - 1][::-1] * x,
        lambda g, h, t, x: gc.sigmoid(x) * h[t - 1] + x,
    ):
        g = gc.Graph("other")
        t = g.axis("t")
        h = g.state("h", (4,), over=t)
        h[t] = equation(g, h, t, g.input("x", (4,), over=t))
        g.output("h", h)
        assert carriers(g) == {}


def test_the_explanation_says_so() -> None:
    graph = gc.grad(linear(()), "loss", wrt="b")
    cycles = gc.explain(graph).cycles
    assert len(cycles) == 2
    for cycle in cycles:
        scan, loop = cycle.schedules[:2]
        assert (scan.name, loop.name) == ("scan", "loop")
        assert scan.cycles is not None
        assert loop.cycles is not None
        assert scan.cycles < loop.cycles
        assert [len(cycle.reads), len(cycle.inside)] == [1, 1]
