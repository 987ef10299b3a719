"""Loops that the host walks: a launch in each step for every statement inside.

In: a `Loop`. Out: whether it is one. A persistent kernel computes the same points in every step. Where the extents
inside a loop depend on its index, as those of chunks do, of which the last is shorter, each step is a program of its
own instead: its kernels become grids and its loops persistent kernels, and the index is an argument of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphc.codegen.lengths import evaluate, step_name
from graphc.codegen.program import Index, Loop, Reduce, Scalar, Statement
from graphc.scalar import walk

__all__ = ["extents", "is_walked", "steps"]


def is_walked(loop: Loop) -> bool:
    own = Index(loop.index)
    return any(part == own for statement in loop.body for extent in extents(statement) for part in walk(extent))


def extents(statement: Statement) -> Iterator[Scalar]:
    """All lengths in a statement."""
    if isinstance(statement, Loop):
        yield statement.extent
        for inner in statement.body:
            yield from extents(inner)
        return
    yield from (dim.extent for dim in statement.dims)
    for step in statement.body:
        if isinstance(step, Reduce):
            yield from (dim.extent for dim in step.dims)


def steps(loop: Loop, sizes: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """The sizes at each step of a loop, in its order."""
    count = evaluate(loop.extent, sizes)
    for step in reversed(range(count)) if loop.reverse else range(count):
        yield {**sizes, step_name(loop.index): step}
