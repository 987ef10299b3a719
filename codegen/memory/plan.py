"""plan: what a Program keeps in memory. `graphc.codegen.memory.arena` says where, once the lengths are known.

1. A value that nothing loads is not stored; a kernel that stores nothing is dropped.
2. A value that only the loop that computes it reads, at most k steps later, keeps a ring of k + 1 steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.program import Buffer, Loop, Program, Ring, Statement
from graphc.codegen.uses import loaded, loads, stored, used_steps
from graphc.scalar import Index, Scalar, offset_from


def plan(program: Program) -> Program:
    return rings(_without_unread(program))


# Unread values.


def _without_unread(program: Program) -> Program:
    """Drop stores to temporaries that nothing loads, what was computed for them alone, and empty kernels."""
    while True:
        read = loaded(program.body)
        keep = read | {b.name for b in program.buffers if b.kind != "temp"}
        body = tuple(s for s in (with_stores(s, keep) for s in program.body) if s is not None)
        if body == program.body:
            break
        program = replace(program, body=body)
    touched = read | stored(program.body)
    buffers = tuple(b for b in program.buffers if b.kind != "temp" or b.name in touched)
    return replace(program, buffers=buffers)


def with_stores(statement: Statement, keep: set[str]) -> Statement | None:
    """A statement that stores to these buffers alone, and computes what that takes; None if it stores to none."""
    if isinstance(statement, Loop):
        body = tuple(s for s in (with_stores(s, keep) for s in statement.body) if s is not None)
        return replace(statement, body=body) if body else None
    stores = tuple(s for s in statement.stores if s.buffer in keep)
    return replace(statement, stores=stores, body=used_steps(statement.body, stores)) if stores else None


# Rings.


@dataclass(frozen=True, slots=True)
class Access:
    """A load or store of a buffer, and the loops around it, outermost first."""

    at: tuple[Scalar, ...]
    loops: tuple[Loop, ...]
    is_store: bool


def rings(program: Program) -> Program:
    accesses: dict[str, list[Access]] = {}
    for access_name, access in _accesses(program.body, ()):
        accesses.setdefault(access_name, []).append(access)
    buffers = tuple(_with_ring(b, accesses.get(b.name, [])) for b in program.buffers)
    return replace(program, buffers=buffers)


def _accesses(body: Sequence[Statement], loops: tuple[Loop, ...]) -> Iterator[tuple[str, Access]]:
    for statement in body:
        if isinstance(statement, Loop):
            yield from _accesses(statement.body, (*loops, statement))
        else:
            for load in loads(statement):
                yield load.buffer, Access(load.at, loops, False)
            for store in statement.stores:
                yield store.buffer, Access(store.at, loops, True)


def _with_ring(buffer: Buffer, accesses: Sequence[Access]) -> Buffer:
    """Dimensions that follow a loop keep as few steps as its readers look back, from the outermost loop inwards."""
    stores = [a for a in accesses if a.is_store]
    if buffer.kind != "temp" or not stores:
        return buffer
    dims = list(buffer.dims)
    for depth, loop in enumerate(stores[0].loops):
        if any(len(a.loops) <= depth or a.loops[depth] is not loop for a in accesses):
            break
        dim = next((k for k, s in enumerate(stores[0].at) if s == Index(loop.index)), None)
        if dim is None:
            break
        distances = [offset_from(a.at[dim], loop.index) for a in accesses]
        if any(d is None for d in distances):
            break
        furthest = max(abs(d) for d in distances if d is not None)
        dims[dim] = Ring(furthest + 1)
        if furthest:
            break  # earlier steps of this loop are read, so all steps of the loops inside it are kept
    return replace(buffer, dims=tuple(dims))
