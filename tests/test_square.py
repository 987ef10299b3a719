"""The commuting square on random recurrent graphs: unrolling, differentiating and every other pass keep the meaning."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import testing
from graphc.ir import FLOATS
from graphc.language.graph import declared_arrays
from graphc.simplification.simplify import simplify
from graphc.transforms.precision import to_dtype


def assert_same(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    assert list(found) == list(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert found[name].shape == expected[name].shape
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def floating(graph: gc.Graph) -> list[str]:
    declared = declared_arrays(graph)
    return [name for name, node in declared.items() if node.dtype in FLOATS]


@settings(max_examples=60)
@given(testing.graphs())
def test_unrolling_and_differentiating_commute(example: testing.Example) -> None:
    wrt = floating(example.graph)
    folded = gc.grad(example.graph, "loss", wrt=wrt)
    expected = gc.interpret(folded, **example.arrays)
    assert_same(gc.interpret(gc.unroll(folded, **example.lengths), **example.arrays), expected)
    unrolled = gc.grad(gc.unroll(example.graph, **example.lengths), "loss", wrt=wrt)
    assert_same(gc.interpret(unrolled, **example.arrays), expected)


@settings(max_examples=40)
@given(testing.graphs())
def test_printed_graphs_read_back(example: testing.Example) -> None:
    for graph in (example.graph, gc.grad(example.graph, "loss", wrt="x"), gc.unroll(example.graph, **example.lengths)):
        assert gc.parse(str(graph)) == graph
        assert str(gc.parse(str(graph))) == str(graph)


def test_what_is_made_of_broadcasts_is_broadcast() -> None:
    """A constant that varies over axes is folded as one that does not: here 1 · 0.5, the seed of a derivative."""
    g = gc.Graph("halves")
    x = g.input("x", (3,), over=(g.axis("t"), g.axis("n")))
    g.output("d", gc.gradient(lambda v: 0.5 * gc.sum(v * x), x))
    assert str(simplify(g)).endswith("output d = 0.5 * x\n")


@settings(max_examples=40)
@given(testing.graphs())
def test_simplify_keeps_values(example: testing.Example) -> None:
    expected = gc.interpret(example.graph, **example.arrays)
    simpler = simplify(example.graph)
    assert_same(gc.interpret(simpler, **example.arrays), expected)
    assert simplify(simpler) == simpler


@settings(max_examples=12)
@given(testing.graphs())
def test_compiled_code_computes_what_the_interpreter_does(example: testing.Example) -> None:
    folded = gc.grad(example.graph, "loss", wrt=floating(example.graph))
    expected = gc.interpret(folded, **example.arrays)
    assert_same(gc.compile(folded)(**example.arrays), expected)


@settings(max_examples=6)
@given(testing.graphs())
def test_unrolled_graphs_compile(example: testing.Example) -> None:
    unrolled = gc.unroll(gc.grad(example.graph, "loss", wrt="x"), **example.lengths)
    assert_same(gc.compile(unrolled)(**example.arrays), gc.interpret(unrolled, **example.arrays))


@settings(max_examples=6)
@given(testing.graphs(dtype="float32"))
def test_single_precision_is_close(example: testing.Example) -> None:
    double = gc.interpret(to_dtype(example.graph, "float64"), **in_double(example.arrays))
    for run in (gc.interpret, lambda graph, **arrays: gc.compile(graph)(**arrays)):
        single = run(example.graph, **example.arrays)
        for name, value in double.items():
            assert single[name].dtype == np.float32
            np.testing.assert_allclose(single[name], value, rtol=1e-3, atol=1e-3, err_msg=name)


def in_double(arrays: testing.Arrays) -> testing.Arrays:
    return {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in arrays.items()}


@settings(max_examples=25)
@given(testing.graphs(smooth=True, most_states=2))
def test_gradients_against_finite_differences(example: testing.Example) -> None:
    testing.check_gradients(example.graph, arrays=example.arrays)


@settings(max_examples=12)
@given(testing.graphs(smooth=True, most_states=2))
def test_second_derivatives(example: testing.Example) -> None:
    twice = gc.grad(example.graph, "loss", wrt="x")
    testing.check_gradients(twice, "grad_x", arrays=example.arrays, tolerance=1e-5)
    once = testing.check_gradients(gc.unroll(twice, **example.lengths), "grad_x", ["x"], arrays=example.arrays)
    assert once["x"] < 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda x, z, p, q: x + z,
        lambda x, z, p, q: gc.sum(x, over=x.axes) + q,
        lambda x, z, p, q: gc.sum(gc.sum(x, over=x.axes)) + p + gc.sum(q),
        lambda x, z, p, q: gc.sin(gc.mean(x, over=x.axes) + gc.mean(z, over=x.axes) + q) * p,
        lambda x, z, p, q: gc.tanh(gc.outer(q, q) @ x + gc.outer(z, z) @ x),
    ],
)
def test_everything_that_a_sum_is_made_of_moves_it(make: Any) -> None:
    """The adjoints of two terms are one value, whether both vary over an axis, one does, or none."""
    g = gc.Graph("terms", dtype="float64")
    t = g.axis("t")
    x, z, p, q = g.input("x", (3,), over=t), g.input("z", (3,), over=t), g.param("p", ()), g.param("q", (3,))
    g.output("y", make(x, z, p, q))
    testing.check_gradients(g, "y")


def test_a_wrong_rule_is_reported() -> None:
    @gc.custom_gradient
    def wrong(x: gc.Value) -> Any:
        return gc.sin(x), lambda d: d * gc.where(gc.index(x.axes[0]) > 0, gc.sin(x), gc.cos(x))

    g = gc.Graph("g")
    t = g.axis("t")
    g.output("loss", gc.sum(gc.sum(wrong(g.input("x", (2,), over=t))), over=t))
    with pytest.raises(testing.GradientError, match=r"derivative of 'loss' by x\[[1-3], [01]\] is .* measure"):
        testing.check_gradients(g)
