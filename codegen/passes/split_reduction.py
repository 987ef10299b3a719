"""Makes subtotals of sums over many points that leave few results: afterwards threads can share them out.

In: a Program. Out: a Program that computes the same, up to rounding. A sum over all pixels of all images,

    s[c] = Σ x[n, u, v, c] over n, u, v    becomes    p[n, c] = Σ x[n, u, v, c] over u, v;    s[c] = Σ p[n, c] over n

A kernel's points are what threads divide, and there are too few of s[c]; each p[n, c] adds up in its own order, so
that the result is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.lengths import known_length
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ref,
    Statement,
    Store,
    indices_of,
)

__all__ = ["split_reduction"]

_FEW = 1024  # results, of which two threads would each go through all the memory, or share out badly
_MUCH = 1 << 12  # values added up in the subtotals of one index: enough to be worth storing them


def split_reduction(program: Program) -> Program:
    """The program with subtotals of sums over many points that leave few results."""
    body: list[Statement] = []
    buffers: list[Buffer] = []
    for statement in program.body:
        reduce = _divisible(statement) if isinstance(statement, Kernel) else None
        if reduce is None or not isinstance(statement, Kernel):
            body.append(statement)
            continue
        made = [_buffer(statement, reduce, total) for total in reduce.sums]
        body += [_subtotals(statement, reduce, made), _totals(statement, reduce, made)]
        buffers += made
    return replace(program, buffers=(*program.buffers, *buffers), body=tuple(body))


def _divisible(kernel: Kernel) -> Reduce | None:
    """The one reduction of a kernel of few points, if it adds up much inside its first dim."""
    results = known_length(kernel.dims)
    if len(kernel.reduces) != 1 or results is None or results > _FEW:
        return None
    (reduce,) = kernel.reduces
    inside = known_length(reduce.dims[1:]) if len(reduce.dims) > 1 else None
    return reduce if inside is not None and inside * results >= _MUCH else None


def _buffer(kernel: Kernel, reduce: Reduce, total: Accumulate) -> Buffer:
    extents = tuple(dim.extent for dim in (reduce.dims[0], *kernel.dims))
    return Buffer(f"{kernel.name}.{total.name}", total.value.dtype, extents, "temp")


def _subtotals(kernel: Kernel, reduce: Reduce, buffers: Sequence[Buffer]) -> Kernel:
    """The kernel that stores the reduction over all dims but the first, for each point of the first."""
    first, *others = reduce.dims
    dims = (first, *kernel.dims)
    at = indices_of(dims)
    before = kernel.body[: kernel.body.index(reduce)]
    sums = zip(buffers, reduce.sums, strict=True)
    stores = tuple(Store(buffer.name, at, Ref(total.name, total.value.dtype)) for buffer, total in sums)
    return Kernel(f"{kernel.name}.subtotals", dims, (*before, replace(reduce, dims=tuple(others))), stores)


def _totals(kernel: Kernel, reduce: Reduce, buffers: Sequence[Buffer]) -> Kernel:
    """The kernel, adding up subtotals instead."""
    first = reduce.dims[0]
    at = indices_of((first, *kernel.dims))
    sums = tuple(
        replace(total, value=Load(buffer.name, at, buffer.dtype))
        for buffer, total in zip(buffers, reduce.sums, strict=True)
    )
    body: tuple[Let | Reduce, ...] = tuple(Reduce((first,), sums) if s is reduce else s for s in kernel.body)
    return replace(kernel, body=body)
