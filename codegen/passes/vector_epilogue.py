"""Computes in vectors what is made of horizontal sums: afterwards these are stored, and a kernel of its own reads them.

In: a Program. Out: a Program that computes the same. A sum along the last dim of what it reads runs in lanes along that
dim (`graphc.codegen.tiling.vectorize`), and the kernel's points one by one; so all that they make of the sum would be
scalar code:

    y[t, u] = gelu(Σ c[u, k] · s[t, u, k] over k)
    becomes
    p[t, u] = Σ c[u, k] · s[t, u, k] over k;    y[t, u] = gelu(p[t, u])

This is done where enough is made of the sums, at enough points, to pay for storing them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.lengths import length_of
from graphc.codegen.program import (
    Buffer,
    Index,
    Kernel,
    Let,
    Load,
    Loop,
    Program,
    Reduce,
    Ref,
    Statement,
    Store,
    indices_of,
)
from graphc.codegen.tiling.instructions import instructions
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import used_steps
from graphc.scalar import walk

__all__ = ["vector_epilogues"]

_WORTH = 12  # instructions at a point that the sums do not need: storing a sum and loading it again costs as much
_WORTH_A_STEP = 1 << 12  # instructions in a step of a loop, which takes longer with one more kernel
_TYPICAL = 16  # points of a dim whose length comes with the data, to decide by


def vector_epilogues(program: Program) -> Program:
    """The program with two kernels in the place of each for which this pays, in loops too."""
    taken = program.names
    buffers: list[Buffer] = []

    def parts(statements: tuple[Statement, ...], in_loop: bool) -> Iterator[Statement]:
        for statement in statements:
            if isinstance(statement, Loop):
                yield replace(statement, body=tuple(parts(statement.body, True)))
                continue
            found = _apart(statement, program, in_loop, taken)
            if found is None:
                yield statement
                continue
            sums, rest, made = found
            buffers.extend(made)
            yield from (sums, rest)

    body = tuple(parts(program.body, False))
    return replace(program, buffers=(*program.buffers, *buffers), body=body)


def _apart(
    kernel: Kernel, program: Program, in_loop: bool, taken: set[str]
) -> tuple[Kernel, Kernel, list[Buffer]] | None:
    """A kernel of the sums, one of what is made of them, and the buffers between. None if the kernel stays whole."""
    if not kernel.reduces or any(store.accumulate for store in kernel.stores):
        return None
    if any(isinstance(part, Index) for dim in kernel.dims for part in walk(dim.extent)):
        return None  # memory has no lengths that change from step to step
    if vector_index(kernel, program) is not None:
        return None
    sums, rest, buffers = _parted(kernel)
    saved = _instructions(rest) - _instructions(sums)
    if saved < _WORTH or (in_loop and saved * length_of(kernel.dims, unknown=_TYPICAL) < _WORTH_A_STEP):
        return None
    with_buffers = replace(program, buffers=(*program.buffers, *buffers))
    names = {sums.name, *(buffer.name for buffer in buffers)}
    if names & taken or vector_index(rest, with_buffers, whole=kernel) is None:
        return None
    taken |= names
    return sums, rest, buffers


def _parted(kernel: Kernel) -> tuple[Kernel, Kernel, list[Buffer]]:
    """A kernel that stores the sums, one that loads them for the rest, and the buffers between."""
    at, extents = indices_of(kernel.dims), tuple(dim.extent for dim in kernel.dims)
    buffers: list[Buffer] = []
    stores: list[Store] = []
    body: list[Let | Reduce] = []
    for step in kernel.body:
        if isinstance(step, Let):
            body.append(step)
            continue
        for total in step.sums:
            buffer = Buffer(f"{kernel.name}.{total.name}", total.value.dtype, extents, "temp")
            buffers.append(buffer)
            stores.append(Store(buffer.name, at, Ref(total.name, buffer.dtype)))
            body.append(Let(total.name, Load(buffer.name, at, buffer.dtype)))
    sums = Kernel(f"{kernel.name}.sums", kernel.dims, used_steps(kernel.body, stores), tuple(stores))
    return sums, replace(kernel, body=used_steps(body, kernel.stores)), buffers


def _instructions(kernel: Kernel) -> float:
    """How many instructions a point takes, without its sums."""
    lets = [step.value for step in kernel.body if isinstance(step, Let)]
    return instructions([*lets, *(store.value for store in kernel.stores)])
