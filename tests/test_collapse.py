"""collapse: dims that are only walked together become one, others stay, and values are the same."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import testing
from graphc.codegen.cpu.jit import load
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.memory.plan import plan
from graphc.codegen.passes.collapse import collapse
from graphc.codegen.passes.merge_sums import merge_sums
from graphc.codegen.passes.pack import pack
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Dim,
    Index,
    Kernel,
    Load,
    Program,
    Reduce,
    Ref,
    Scalar,
    Size,
    Store,
    kernels,
)
from graphc.codegen.verify_program import verify
from graphc.language.graph import declared_arrays
from graphc.pipeline.stages import stages
from graphc.scalar import call, index

T, N = Size("t"), Size("n")
t, n, k, u = (Index(name) for name in "tnku")


def product(x: Load, dims: tuple[Dim, ...], out: tuple[Scalar, ...], when: Scalar | None = None) -> Program:
    """out[t, n, u] = Σ_k W[k, u] x: rows of steps and examples, as each case reads them."""
    value = call("mul", Load("W", (k, u), "float32"), x)
    reduce = Reduce((Dim("k", index(7)),), (Accumulate("s", "sum", value),), (), when)
    kernel = Kernel("product", dims, (reduce,), (Store("o", out, Ref("s", "float32")),))
    buffers = (
        Buffer("x", "float32", (T, N, index(7)), "input"),
        Buffer("lengths", "int32", (N,), "input"),
        Buffer("W", "float32", (index(7), index(16)), "input"),
        Buffer("o", "float32", (T, N, index(16)) if out[0] == t else (N, T, index(16)), "output"),
    )
    return Program("product", ("t", "n"), buffers, (kernel,))


ROWS = (Dim("t", T), Dim("n", N), Dim("u", index(16)))
X = Load("x", (t, n, k), "float32")
CASES = {
    "rows of one matrix": (product(X, ROWS, (t, n, u)), ["t.n", "u"]),
    "transposed": (product(X, ROWS, (n, t, u)), ["t", "n", "u"]),
    "other order of dims": (product(X, (ROWS[1], ROWS[0], ROWS[2]), (t, n, u)), ["n", "t", "u"]),
    "the step before": (
        product(Load("x", (call("max", call("add", t, index(-1)), index(0)), n, k), "float32"), ROWS, (t, n, u)),
        ["t", "n", "u"],
    ),
    "a condition on one": (
        product(X, ROWS, (t, n, u), call("lt", t, call("mul", n, index(2)))),
        ["t", "n", "u"],
    ),
}


def run_natively(program: Program, arrays: dict[str, Any], sizes: dict[str, int]) -> None:
    pointers = [arrays[buffer.name].ctypes.data for buffer in program.buffers]
    counts = [sizes[name] for name in program.sizes]
    load(program)((ctypes.c_void_p * len(pointers))(*pointers), (ctypes.c_int64 * len(counts))(*counts))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", [(5, 1), (1, 9), (4, 7), (0, 3), (3, 0)])
def test_rows_become_one_dim_where_they_lie_so(name: str, lengths: tuple[int, int]) -> None:
    before, dims = CASES[name]
    after = collapse(before)
    verify(after)
    (kernel,) = kernels(after.body)
    assert [dim.index for dim in kernel.dims] == dims
    sizes = dict(zip(("t", "n"), lengths, strict=True))
    random = np.random.default_rng(0)
    given_arrays = {
        "x": random.normal(size=(*lengths, 7)).astype(np.float32),
        "lengths": np.zeros(lengths[1], np.int32),
        "W": random.normal(size=(7, 16)).astype(np.float32),
    }
    expected = allocate(before, given_arrays, sizes)
    interpret(before, expected, sizes)
    for run in (interpret, run_natively):
        found = allocate(after, given_arrays, sizes)
        run(after, found, sizes)
        np.testing.assert_allclose(found["o"], expected["o"], rtol=1e-5, atol=1e-6)


@settings(max_examples=15)
@given(testing.graphs())
def test_programs_of_random_graphs_keep_their_values(example: testing.Example) -> None:
    graph = gc.grad(example.graph, "loss", wrt=list(example.graph.params))
    made = stages(graph)
    before = pack(merge_sums(plan(made.lowered.program)))
    after = collapse(before)
    sizes = dict(zip(before.sizes, (example.lengths.get(s, 1) for s in before.sizes), strict=True))
    for name, node in declared_arrays(graph).items():
        sizes |= dict(zip([a.name for a in node.axes], np.shape(example.arrays[name]), strict=False))
    given_arrays = {**{x: np.asarray(a) for x, a in example.arrays.items()}, **made.lowered.constants}
    expected = allocate(before, given_arrays, sizes)
    interpret(before, expected, sizes)
    found = allocate(after, given_arrays, sizes)
    interpret(after, found, sizes)
    for buffer in before.buffers:
        if buffer.kind == "output":
            np.testing.assert_allclose(found[buffer.name], expected[buffer.name], rtol=1e-9, atol=1e-12)
