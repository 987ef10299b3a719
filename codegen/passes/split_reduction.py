"""Makes subtotals of sums over many points that leave few results: afterwards threads can share them out.

In: a Program. Out: a Program that computes the same, up to rounding. A sum over all pixels of all images,

    s[c] = Σ x[n, u, v, c] over n, u, v    becomes    p[n, c] = Σ x[n, u, v, c] over u, v;    s[c] = Σ p[n, c] over n

A kernel's points are what threads divide, and there are too few of s[c]; each p[n, c] adds up in its own order, so
that the result is the same for any number of threads.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.lengths import known_length
from graphc.codegen.passes.subtotals import subtotals
from graphc.codegen.program import Buffer, Kernel, Program, Reduce, Statement

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
        first, *others = reduce.dims
        part = replace(reduce, dims=tuple(others))
        between, both = subtotals(statement, reduce, part, first, "subtotals")
        body += both
        buffers += between
    return replace(program, buffers=(*program.buffers, *buffers), body=tuple(body))


def _divisible(kernel: Kernel) -> Reduce | None:
    """The one reduction of a kernel of few points, if it adds up much inside its first dim."""
    results = known_length(kernel.dims)
    if len(kernel.reduces) != 1 or results is None or results > _FEW:
        return None
    (reduce,) = kernel.reduces
    inside = known_length(reduce.dims[1:]) if len(reduce.dims) > 1 else None
    return reduce if inside is not None and inside * results >= _MUCH else None
