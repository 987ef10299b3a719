"""A program whose sizes are known: afterwards it asks for none.

In: a Program, and the number of each of its sizes. Out: a Program without sizes that computes the same for these
lengths. Divisions by a size become divisions by a number, which takes no library, and tiles are made for what there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.codegen.program import Dim, Loop, Program, Ring, Scalar, Size, Statement, map_kernel, map_reduces
from graphc.scalar import index, replaced

__all__ = ["specialize"]


def specialize(program: Program, sizes: Mapping[str, int]) -> Program:
    """The program for these sizes alone."""

    def known(scalar: Scalar) -> Scalar:
        return replaced(scalar, lambda part: index(sizes[part.name]) if isinstance(part, Size) else None)

    def dims(given: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(Dim(dim.index, known(dim.extent)) for dim in given)

    def statement(part: Statement) -> Statement:
        if isinstance(part, Loop):
            return replace(part, extent=known(part.extent), body=tuple(map(statement, part.body)))
        kernel = map_reduces(map_kernel(part, known), lambda reduce: replace(reduce, dims=dims(reduce.dims)))
        return replace(kernel, dims=dims(kernel.dims))

    buffers = tuple(
        replace(b, dims=tuple(d if isinstance(d, Ring) else known(d) for d in b.dims)) for b in program.buffers
    )
    return Program(program.name, (), buffers, tuple(map(statement, program.body)))
