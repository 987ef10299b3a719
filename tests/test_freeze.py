"""freeze: arrays fixed for good. A prologue and the rest of a Program compute what the whole does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import testing
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes.prologue import split
from graphc.codegen.program import kernels
from graphc.codegen.verify_program import verify
from graphc.errors import ArgumentError, UnsupportedError
from graphc.pipeline.stages import stages


@settings(max_examples=15)
@given(testing.graphs(most_states=2))
def test_a_prologue_and_the_rest_are_the_program(example: testing.Example) -> None:
    made = stages(gc.grad(example.graph, "loss", wrt="x"))
    fixed = frozenset({*example.graph.params, *made.lowered.constants})
    first, rest = split(made.program, fixed)
    for part in (first, rest):
        verify(part)
    assert not first.sizes
    assert len(first.body) + len(rest.body) == len(made.program.body)
    sizes = {"n": len(example.arrays["label"].T), **example.lengths}
    arrays = {**example.arrays, **made.lowered.constants}
    whole = allocate(made.program, arrays, sizes)
    interpret(made.program, whole, sizes)
    begun = allocate(first, {b.name: arrays[b.name] for b in first.buffers if b.name in arrays}, sizes)
    interpret(first, begun, sizes)
    results = {b.name: begun[b.name] for b in first.buffers if b.kind == "output"}
    found = allocate(rest, arrays | results, sizes)
    interpret(rest, found, sizes)
    for name in made.lowered.outputs.values():
        np.testing.assert_array_equal(found[name], whole[name], err_msg=name)


@settings(max_examples=8)
@given(testing.graphs(most_states=2))
def test_a_frozen_function_computes_what_the_whole_does(example: testing.Example) -> None:
    params = {name: example.arrays[name] for name in example.graph.params}
    others = {name: array for name, array in example.arrays.items() if name not in params}
    found = gc.compile(example.graph).freeze(**params)(**others)
    for name, expected in gc.interpret(example.graph, **example.arrays).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-10, atol=1e-10, err_msg=name)


def network() -> gc.Graph:
    g = gc.Graph("net")
    t, n = g.axis("t"), g.axis("n")
    g.output("h", gc.cells.lstm(g, g.input("x", (32,), over=(t, n)), 32, over=t).h)
    return g


def test_a_frozen_step_lays_no_weights_out() -> None:
    g = network()
    f, params = gc.compile(gc.step(g, over="t")), gc.initialize(g)
    frozen = f.freeze(**params)
    weights = {*params}
    assert any(k.name.startswith("pack.") for k in kernels(f.program.body))
    assert not any(k.name.startswith("pack.") for k in kernels(frozen.program.body))
    assert weights <= {b.name for b in frozen.program.buffers}
    frame = np.ones((2, 32), np.float32)
    one, other = (gc.initial_carry(g, over="t", n=2) for _ in range(2))
    calls = f.bind(x=frame, **params, **one), frozen.bind(x=frame, **other)
    for _ in range(3):
        np.testing.assert_allclose(calls[0]()["h"], calls[1]()["h"], rtol=1e-5, atol=1e-7)


def test_frozen_arrays_are_as_they_were() -> None:
    """Whatever becomes of the caller's; and what is frozen in two turns is frozen as if in one."""
    g = network()
    f, params, x = gc.compile(g), gc.initialize(g), np.ones((4, 3, 32), np.float32)
    expected = f(x=x, **params)["h"]
    half = {name: params[name] for name in list(params)[:5]}
    frozen = f.freeze(**half).freeze(**{name: a for name, a in params.items() if name not in half})
    once = f.freeze(**params)
    for array in params.values():
        array[...] = 0
    np.testing.assert_array_equal(frozen(x=x)["h"], expected)
    np.testing.assert_array_equal(once(x=x)["h"], expected)


def test_what_cannot_be_fixed_is_refused() -> None:
    g = gc.Graph("g")
    x, w, u = g.input("x", (3,), over=g.axis("t")), g.param("w", (3,)), g.param("u", (3,))
    g.output("y", x * w + u)
    g.update(u, u + 1)
    f, array = gc.compile(g), np.ones(3, np.float32)
    with pytest.raises(ArgumentError, match="u is updated by each call"):
        f.freeze(u=array)
    with pytest.raises(ArgumentError, match="over no axes can be fixed, not x; those of graph 'g' are w, u"):
        f.freeze(x=array)
    with pytest.raises(ArgumentError, match=r"w has shape \(2,\), expected \(3,\)"):
        f.freeze(w=array[:2])
    with pytest.raises(ArgumentError, match="w is fixed"):
        f.freeze(w=array)(x=np.ones((2, 3), np.float32), u=array, w=array)
    with pytest.raises(UnsupportedError, match="compile without memory="):
        gc.compile(g, memory="1 MiB").freeze(w=array)
    with pytest.raises(ArgumentError, match="missing: u"):
        f.freeze(w=array)(x=np.ones((2, 3), np.float32))
