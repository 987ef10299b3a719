"""What is made of horizontal sums is computed in vectors, and long sums that share nothing go through memory row by
row: afterwards the numbers are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes import vector_epilogue
from graphc.codegen.passes.vector_epilogue import vector_epilogues
from graphc.codegen.program import Call, Kernel, kernels, scalars
from graphc.codegen.target import Target
from graphc.codegen.tiling.tiling import tiling_of
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.verify_program import verify
from graphc.pipeline.stages import ARRANGING, stages
from graphc.scalar import walk
from graphc.testing import Example, graphs

WIDE = Target("x86_64-unknown-linux-gnu", "x86-64-v4")


def horizontal(units: int = 40, terms: int = 16) -> gc.Graph:
    """y[t, n, u] = gelu(Σ c[u, k] · s[t, n, u, k] over k), and its gradient."""
    g = gc.Graph("horizontal")
    t, n = g.axis("t"), g.axis("n")
    s = g.input("s", (units, terms), over=(t, n))
    y = gc.gelu(gc.sum(g.param("c", (units, terms)) * s, dim=1) + g.param("b", (units,)))
    g.output("loss", gc.mean(gc.sum(y * y), over=(t, n)))
    return gc.grad(g, "loss", wrt=["c", "b", "s"])


def elementary(kernel: Kernel) -> bool:
    parts = (part for scalar in scalars(kernel) for part in walk(scalar))
    return any(isinstance(part, Call) and part.fn in ("erf", "exp") for part in parts)


def test_elementary_functions_of_horizontal_sums_run_in_lanes() -> None:
    program = stages(horizontal()).program
    found = [kernel for kernel in kernels(program.body) if elementary(kernel)]
    assert found
    assert all(vector_index(kernel, program) is not None for kernel in found)


@settings(deadline=None)
@given(graphs(), st.booleans())
def test_a_program_computes_the_same(example: Example, everywhere: bool) -> None:
    """Whether or not it is worth it."""
    g, arrays = example.graph, example.arrays
    before = stages(g).planned
    for change in ARRANGING[: ARRANGING.index(vector_epilogues)]:
        before = change(before)
    with pytest.MonkeyPatch.context() as patch:
        if everywhere:
            patch.setattr(vector_epilogue, "_WORTH", -1e9)
            patch.setattr(vector_epilogue, "_WORTH_A_STEP", -1e9)
        after = vector_epilogues(before)
    verify(after)
    results, sizes = [], sizes_of(g, arrays)
    for program in (before, after):
        buffers = allocate(program, {**stages(g).lowered.constants, **arrays}, sizes)
        interpret(program, buffers, sizes)
        results.append({b.name: buffers[b.name] for b in program.buffers if b.kind == "output"})
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array)


def sizes_of(g: gc.Graph, arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """The lengths of a call's axes by name."""
    return {axis.name: arrays[name].shape[k] for name, node in g.inputs.items() for k, axis in enumerate(node.axes)}


def sums(rows: int, columns: int, parts: int) -> gc.Graph:
    """Σ a[t, n, u, v] · f(b[t, n, u, v]) over t and n, for several f: every element is read once."""
    g = gc.Graph("sums")
    t, n = g.axis("t"), g.axis("n")
    a, b = (g.input(name, (rows, columns), over=(t, n)) for name in "ab")
    for k in range(parts):
        g.output(f"s{k}", gc.sum(a * (b + k), over=(t, n)))
    g.output("late", gc.sum(a[t - 1] * b, over=(t, n)))
    return g


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("steps", [0, 1, 3, 8, 9, 40])
@pytest.mark.parametrize(
    ("rows", "columns", "parts"), [(128, 16, 8), (5, 33, 1), (300, 4, 3), (2, 64, 2), (7, 200, 2), (3, 300, 1)]
)
def test_sums_over_steps_add_every_term(rows: int, columns: int, parts: int, steps: int, threads: int) -> None:
    g = sums(rows, columns, parts)
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {name: random.normal(size=(steps, 3, rows, columns)).astype(np.float32) for name in "ab"}
    found = gc.compile(g, threads=threads)(**arrays)
    a, b = (array.astype(np.float64) for array in arrays.values())
    for k in range(parts):
        np.testing.assert_allclose(found[f"s{k}"], (a * (b + k)).sum((0, 1)), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found["late"], (a[:-1] * b[1:]).sum((0, 1)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_different_lengths_add_their_own_terms(threads: int) -> None:
    """The examples are rows whose sums end at different steps."""
    g = gc.Graph("ragged")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    a, b = (g.input(name, (20,), over=(t, n)) for name in "ab")
    g.output("sums", gc.sum(a * b, over=t))
    g.output("all", gc.sum(a * b * b, over=(t, n)))
    random, lengths = np.random.default_rng(0), np.array([30, 0, 17, 8, 9], np.int32)
    x, y = random.normal(size=(2, 30, 5, 20)).astype(np.float32)
    there = (np.arange(30)[:, None] < lengths)[..., None]
    found = gc.compile(g, threads=threads)(a=x, b=y, lengths=lengths)
    np.testing.assert_allclose(found["sums"], (x * y * there).sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["all"], (x * y * y * there).sum((0, 1)), rtol=1e-5, atol=1e-5)


def test_many_rows_go_through_memory_together() -> None:
    """A few terms at a time, and not a vector of columns through all of memory."""
    program = stages(sums(128, 16, 8)).program
    tilings = [tiling_of(kernel, program, WIDE) for kernel in kernels(program.body) if kernel.reduces]
    assert tilings
    for tiling in tilings:
        assert tiling.row is not None
        assert tiling.rows == 1
        assert tiling.block > 16
        assert tiling.depth <= 16
        assert tiling.strips * tiling.vectors * tiling.lanes >= 16
    wide = stages(sums(16, 512, 2)).program  # a strip of columns takes enough of each page
    assert all(tiling_of(kernel, wide, WIDE).row is None for kernel in kernels(wide.body) if kernel.reduces)
