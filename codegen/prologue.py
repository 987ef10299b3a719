"""prologue: what a Program makes of some of its arrays alone, as a Program of its own.

In: a Program, and the names of arrays that do not change between its calls. Out: two Programs. The first computes,
once, whatever depends on these arrays and on no length of an axis: weights laid out for the vector units above all. The
second is the rest, and reads the results of the first as inputs. One after the other they compute what the whole does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.program import Buffer, Kind, Loop, Program, Reduce, Ring, Scalar, Statement, kernels, scalars
from graphc.plan import loads
from graphc.scalar import Size, walk

__all__ = ["split"]


def split(program: Program, fixed: frozenset[str]) -> tuple[Program, Program]:
    """The part of the program that needs the `fixed` buffers alone, and the rest. `fixed` are never stored to."""
    temps = {b.name for b in program.buffers if b.kind == "temp" and not any(isinstance(d, Ring) for d in b.dims)}
    writers = Counter(name for statement in program.body for name in _stored(statement))
    known, first, rest = set(fixed), [], []
    for statement in program.body:
        made = _stored(statement)
        alone = made <= temps and all(writers[name] == 1 for name in made)
        if alone and _loaded(statement) - made <= known and not _measured(statement):
            known |= made
            first.append(statement)
        else:
            rest.append(statement)
    needed = {name for statement in rest for name in _loaded(statement)}
    results = {name for statement in first for name in _stored(statement)} & needed
    return _prologue(program, tuple(first), results), _remainder(program, tuple(rest), results)


def _prologue(program: Program, body: tuple[Statement, ...], results: set[str]) -> Program:
    touched = {name for statement in body for name in _loaded(statement) | _stored(statement)}
    buffers = tuple(_of_kind(b, "output") if b.name in results else b for b in program.buffers if b.name in touched)
    return Program(f"{program.name}_prologue", (), buffers, body)


def _remainder(program: Program, body: tuple[Statement, ...], results: set[str]) -> Program:
    touched = {name for statement in body for name in _loaded(statement) | _stored(statement)}
    buffers = tuple(
        _of_kind(b, "input") if b.name in results else b
        for b in program.buffers
        if b.kind != "temp" or b.name in touched
    )
    return replace(program, buffers=buffers, body=body)


def _of_kind(buffer: Buffer, kind: Kind) -> Buffer:
    return replace(buffer, kind=kind)


def _stored(statement: Statement) -> set[str]:
    return {store.buffer for kernel in kernels((statement,)) for store in kernel.stores}


def _loaded(statement: Statement) -> set[str]:
    return {load.buffer for kernel in kernels((statement,)) for load in loads(kernel)}


def _measured(statement: Statement) -> bool:
    """Whether it depends on the length of an axis."""
    return any(isinstance(part, Size) for scalar in _scalars(statement) for part in walk(scalar))


def _scalars(statement: Statement) -> Iterator[Scalar]:
    """All that a statement computes, and how far its loops and dims go."""
    if isinstance(statement, Loop):
        yield statement.extent
        for inner in statement.body:
            yield from _scalars(inner)
        return
    yield from scalars(statement)
    reduced = [dim for step in statement.body if isinstance(step, Reduce) for dim in step.dims]
    yield from (dim.extent for dim in (*statement.dims, *reduced))
