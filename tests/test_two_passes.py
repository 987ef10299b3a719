"""two_passes: a forward and a backward graph that meet in the residuals, and no more of these than are needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import cells, testing
from graphc.checks.causality import reachable
from graphc.ir import FLOATING
from graphc.language.graph import declared_arrays
from graphc.ops.contraction import CONTRACT
from graphc.transforms.two_passes import two_passes


def taken(graph: gc.Graph, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a graph takes of some arrays."""
    return {name: arrays[name] for name in (*graph.inputs, *graph.params)}


def lengths(graph: gc.Graph, example: testing.Example) -> dict[str, int]:
    known = {"n": len(example.arrays["label"].T), **example.lengths}
    return {name: length for name, length in known.items() if name in graph.axes}


@settings(max_examples=40)
@given(testing.graphs(most_states=2))
def test_passes_compute_what_the_vector_jacobian_product_does(example: testing.Example) -> None:
    """Of every output at once, by every input and param, ragged axes and cycles along several included."""
    graph = example.graph
    declared = declared_arrays(graph)
    wrt = [name for name, node in declared.items() if node.dtype in FLOATING]
    made = two_passes(graph, wrt)
    forward = gc.interpret(made.forward, **taken(made.forward, example.arrays), **lengths(made.forward, example))
    for name, expected in gc.interpret(graph, **example.arrays).items():
        np.testing.assert_allclose(forward[name], expected, rtol=1e-12, atol=1e-12)
    random = np.random.default_rng(0)
    vectors = {cotangent: random.normal(size=forward[name].shape) for name, cotangent in made.cotangents.items()}
    whole = gc.interpret(gc.vjp(graph, list(made.cotangents), wrt), **example.arrays, **vectors)
    given_ = {**example.arrays, **vectors, **{name: forward[name] for name in made.residuals}}
    backward = gc.interpret(made.backward, **taken(made.backward, given_), **lengths(made.backward, example))
    again = gc.interpret(made.derivative, **taken(made.derivative, given_), **lengths(made.derivative, example))
    assert set(backward) == set(again) == {f"grad_{name}" for name in wrt}
    for name, array in backward.items():
        np.testing.assert_allclose(array, whole[name], rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(again[name], whole[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("cell", "count"), [("elman", 1), ("lstm", 6), ("gru", 4)])
def test_residuals_are_few_and_nothing_large_is_made_again(cell: str, count: int) -> None:
    """An LSTM keeps its gates and states, a GRU its two gates, its
    candidate and its state: none of the forward products is computed in the backward pass, which has two for
    each weight matrix and nothing else."""
    g = gc.Graph("net")
    t, n = g.axis("t"), g.axis("n")
    made_cell = getattr(cells, cell)(g, g.input("x", (5,), over=(t, n)), 7, over=t)
    g.output("h", getattr(made_cell, "h", made_cell))
    made = two_passes(g, [*g.params, "x"])
    assert len(made.residuals) == count
    assert not set(g.states) & set(made.backward.states)
    matrices = [name for name, param in g.params.items() if len(param.node.shape) == 2]
    products = {node for node in reachable(made.backward) if node.op is CONTRACT}
    assert len(products) == 2 * len(matrices)


def test_a_derivative_has_passes_again() -> None:
    """Although what it takes and gives is called as that of its own derivative would be."""
    g = gc.Graph("net", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (2,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (2, 2)) @ h[t - 1] + g.input("x", (2,), over=(t, n)))
    g.output("h", h)
    random, length = np.random.default_rng(0), {"t": 3, "n": 4}
    for graph in (gc.vjp(g, "h", ["x"]), two_passes(two_passes(g, ["W", "x"]).derivative, ["W", "x"]).derivative):
        leaves = declared_arrays(graph)
        shapes = {name: (*(length[axis.name] for axis in node.axes), *node.shape) for name, node in leaves.items()}
        wrt, arrays = list(leaves), {name: random.normal(size=shape) for name, shape in shapes.items()}
        made = two_passes(graph, wrt)
        forward = gc.interpret(made.forward, **taken(made.forward, arrays))
        given_ = {**arrays, **{name: forward[name] for name in made.residuals}}
        given_ |= {cotangent: random.normal(size=forward[name].shape) for name, cotangent in made.cotangents.items()}
        backward = gc.interpret(made.backward, **taken(made.backward, given_))
        slope, small = sum((backward[f"grad_{name}"] * arrays[name]).sum() for name in wrt), 1e-6
        ahead, behind = (
            gc.interpret(graph, **{name: (1 + by) * arrays[name] for name in wrt}) for by in (small, -small)
        )
        found = sum(
            ((ahead[name] - behind[name]) * given_[cotangent]).sum() for name, cotangent in made.cotangents.items()
        )
        np.testing.assert_allclose(found / (2 * small), slope, rtol=1e-6)


def test_cotangents_of_one_value_with_two_names_are_summed() -> None:
    g = gc.Graph("twice")
    n = g.axis("n")
    y = gc.tanh(g.input("x", (), over=n))
    g.output("a", y)
    g.output("b", y)
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    found = gc.interpret(gc.vjp(g, ["a", "b"], "x"), x=x, cotangent_a=2 * np.ones_like(x), cotangent_b=np.ones_like(x))
    np.testing.assert_allclose(found["grad_x"], 3 * (1 - np.tanh(x) ** 2), rtol=1e-6)
