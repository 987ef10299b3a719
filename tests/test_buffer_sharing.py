"""Shared places and earlier statements: what programs compute stays, and their memory shrinks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.memory.arena import arena
from graphc.codegen.memory.buffer_sharing import share_buffers
from graphc.codegen.memory.chunk import chunk, loop_axes
from graphc.codegen.memory.plan import plan
from graphc.codegen.memory.reorder import reorder
from graphc.codegen.program import Buffer, Dim, Kernel, Loop, Program, Ring, Store, kernels
from graphc.codegen.verify_program import verify
from graphc.pipeline.stages import stages
from graphc.scalar import Index, Load, Scalar, Size, call, index
from graphc.testing import Example, graphs

F32 = "float32"
T, N = Size("T"), Size("N")
t, n = Index("t"), Index("n")


def run(program: Program, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    known = {b.name: np.array(arrays[b.name]) for b in program.buffers if b.kind in ("input", "param")}
    full = allocate(program, known, sizes)
    interpret(program, full, sizes)
    return {b.name: full[b.name] for b in program.buffers if b.kind in ("output", "param")}


@settings(max_examples=25)
@given(graphs(), st.booleans(), st.integers(0, 3))
def test_random_programs_compute_the_same_in_less_memory(example: Example, differentiate: bool, chunks: int) -> None:
    graph = gc.grad(example.graph, "loss") if differentiate else example.graph
    sizes = {a.name: a.length for a in graph.axes.values() if isinstance(a.length, int)}
    for name, node in graph.inputs.items():
        sizes |= {a.name: k for a, k in zip(node.axes, example.arrays[name].shape, strict=False)}
    made = stages(graph)
    program = made.planned
    if chunks and (axes := loop_axes(program)):
        chunked = chunk(program, axes[0])
        program, sizes = chunked.program, {**sizes, **chunked.sizes(sizes[axes[0]], chunks)}
    arrays = {**example.arrays, **made.lowered.constants}
    expected = run(program, arrays, sizes)
    for shrunk in (reorder(program), share_buffers(program), share_buffers(reorder(program))):
        verify(shrunk)
        assert len(shrunk.buffers) <= len(program.buffers)
        for name, value in run(shrunk, arrays, sizes).items():
            np.testing.assert_array_equal(value, expected[name])


def test_the_gates_of_an_lstm_take_the_place_of_their_products() -> None:
    g = gc.Graph("lstm")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.lstm(g, g.input("x", (8,), over=(t, n)), 8, over=t, name="cell").h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    program = share_buffers(plan(stages(gc.grad(g, "loss")).lowered.program))
    full = [b for b in program.buffers if b.kind == "temp" and len(b.dims) == 3 and not isinstance(b.dims[0], Ring)]
    assert len(full) == 6  # four gates and two states; what is tanh of one is computed again


def copy(to: str, at: tuple[Scalar, ...], source: str, place: tuple[Scalar, ...], *dims: Dim) -> Kernel:
    value = call("add", Load(source, place, F32), Load(source, place, F32))
    return Kernel(f"{to} of {source}", dims, (), (Store(to, at, value),))


def program(*body: Kernel | Loop) -> Program:
    temps = [Buffer(name, F32, (T, N), "temp") for name in "abc"]
    buffers = (Buffer("x", F32, (T, N), "input"), *temps, Buffer("y", F32, (T, N), "output"))
    return Program("p", ("T", "N"), buffers, body)


GRID = (Dim("t", T), Dim("n", N))


def buffers_of(p: Program) -> list[str]:
    verify(p)
    return [b.name for b in p.buffers]


def test_a_chain_of_values_lies_in_the_result() -> None:
    at = (t, n)
    chain = [copy(to, at, source, at, *GRID) for source, to in ("xa", "ab", "bc", "cy")]
    assert buffers_of(share_buffers(program(*chain))) == ["x", "y"]


def test_what_other_points_read_stays() -> None:
    before = call("sub", call("sub", T, index(1)), t)
    first, last = copy("a", (t, n), "x", (t, n), *GRID), copy("y", (t, n), "a", (before, n), *GRID)
    assert buffers_of(share_buffers(program(first, last))) == ["x", "a", "b", "c", "y"]


def test_what_every_step_reads_stays() -> None:
    """Each step of the loop reads all of `a` and overwrites all of `b`: the next one needs `a` as it was."""
    row = (Dim("m", T), Dim("n", N))
    at = (Index("m"), n)
    body = (copy("b", at, "a", at, *row), copy("y", (t, n), "b", (t, n), Dim("n", N)))
    p = program(copy("a", (t, n), "x", (t, n), *GRID), Loop("t", T, False, body))
    assert {"a", "b"} <= set(buffers_of(share_buffers(p)))


def in_steps(*body: Kernel) -> list[str]:
    """What is left of `a`, made of x for all t and n, and `b` when a loop along t runs these kernels and copies b."""
    made = copy("a", (t, n), "x", (t, n), *GRID)
    last = copy("y", (t, n), "b", (t, n), Dim("n", N))
    return buffers_of(share_buffers(program(made, Loop("t", T, False, (*body, last)))))


def test_what_a_step_has_read_before_is_overwritten() -> None:
    """All of the step's elements, as for their mean; then each in whose place its own result lies."""
    mirrored = call("sub", call("sub", N, index(1)), n)
    whole = copy("c", (t, n), "a", (t, mirrored), Dim("n", N))
    own = copy("b", (t, n), "a", (t, n), Dim("n", N))
    assert "b" not in in_steps(whole, own)
    assert "b" in in_steps(own, whole)  # read after it


def test_what_another_step_reads_is_not_overwritten() -> None:
    before = call("max", call("sub", t, index(1)), index(0))
    other = copy("c", (t, n), "a", (before, n), Dim("n", N))
    own = copy("b", (t, n), "a", (t, n), Dim("n", N))
    assert "b" in in_steps(other, own)


def test_sums_run_before_copies_of_what_they_read() -> None:
    at = (t, n)
    p = program(copy("a", at, "x", at, *GRID), copy("b", at, "a", at, *GRID), copy("y", at, "a", at, *GRID))
    names = [kernel.name for kernel in kernels(reorder(p).body)]
    assert names == ["a of x", "y of a", "b of a"]
    sizes = {"T": 100, "N": 100}
    assert arena(reorder(p), sizes).size <= arena(p, sizes).size
