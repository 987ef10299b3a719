"""prologue: what a Program makes of some of its arrays alone, as a Program of its own.

In: a Program, and the names of arrays that do not change between its calls. Out: two Programs. The first computes,
once, whatever depends on these arrays and on no length of an axis: weights laid out for the vector units above all. The
second is the rest, and reads the results of the first as inputs. One after the other they compute what the whole does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from graphc.codegen.program import Buffer, Kind, Loop, Program, Scalar, Statement, scalars
from graphc.codegen.uses import loaded, stored, touched, used
from graphc.scalar import Size, walk

__all__ = ["split"]


def split(program: Program, fixed: frozenset[str]) -> tuple[Program, Program]:
    """The part of the program that depends on the `fixed` buffers alone, and the rest. Nothing stores to the `fixed`
    buffers."""
    temps = {b.name for b in program.buffers if b.kind == "temp" and not b.has_ring}
    writers = Counter(name for statement in program.body for name in stored((statement,)))
    known = set(fixed)
    first: list[Statement] = []
    rest: list[Statement] = []
    for statement in program.body:
        made = stored((statement,))
        alone = made <= temps and all(writers[name] == 1 for name in made)
        if alone and loaded((statement,)) - made <= known and not _measured(statement):
            known |= made
            first.append(statement)
        else:
            rest.append(statement)
    results = stored(first) & loaded(rest)
    here = set(touched(first))
    made_first = _of_kind("output", results, (b for b in program.buffers if b.name in here))
    read_later = _of_kind("input", results, used(program.buffers, rest))
    prologue = Program(f"{program.name}_prologue", (), made_first, tuple(first))
    return prologue, replace(program, buffers=read_later, body=tuple(rest))


def _of_kind(kind: Kind, names: set[str], buffers: Iterable[Buffer]) -> tuple[Buffer, ...]:
    """The buffers, those of these names of another kind."""
    return tuple(replace(buffer, kind=kind) if buffer.name in names else buffer for buffer in buffers)


def _measured(statement: Statement) -> bool:
    """Whether a statement depends on the length of an axis."""
    return any(isinstance(part, Size) for scalar in _scalars(statement) for part in walk(scalar))


def _scalars(statement: Statement) -> Iterator[Scalar]:
    """All that a statement computes, and the extents of its loops and dims."""
    if isinstance(statement, Loop):
        yield statement.extent
        for inner in statement.body:
            yield from _scalars(inner)
        return
    yield from scalars(statement)
    reduced = [dim for reduce in statement.reduces for dim in reduce.dims]
    yield from (dim.extent for dim in (*statement.dims, *reduced))
