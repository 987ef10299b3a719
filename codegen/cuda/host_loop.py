"""Host loops: in each step the host launches a kernel for every statement inside.

In: a `Loop`. Out: whether it is a host loop. A persistent kernel computes the same points in every step. Where extents
inside a loop depend on its index (of chunks the last may be shorter), that is not possible. Then each step has launches
of its own, grids for kernels and persistent kernels for inner loops, and the index is an argument of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from graphc.codegen.lengths import evaluate, step_name
from graphc.codegen.program import Index, Loop, Scalar, Statement
from graphc.scalar import walk

__all__ = ["extents", "is_host_loop", "steps"]


def is_host_loop(loop: Loop) -> bool:
    """Whether any extent inside a loop depends on the loop's index."""
    own = Index(loop.index)
    return any(part == own for statement in loop.body for extent in extents(statement) for part in walk(extent))


def extents(statement: Statement) -> Iterator[Scalar]:
    """All lengths in a statement."""
    if isinstance(statement, Loop):
        yield statement.extent
        for inner in statement.body:
            yield from extents(inner)
        return
    for dims in (statement.dims, *(reduce.dims for reduce in statement.reduces)):
        yield from (dim.extent for dim in dims)


def steps(loop: Loop, sizes: Mapping[str, int]) -> Iterator[Mapping[str, int]]:
    """The sizes at each step of a loop, in its order."""
    count = evaluate(loop.extent, sizes)
    for step in reversed(range(count)) if loop.reverse else range(count):
        yield {**sizes, step_name(loop.index): step}
