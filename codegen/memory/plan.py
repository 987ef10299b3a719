"""What a Program keeps in memory. `graphc.codegen.memory.arena` says where, once the lengths are known.

1. A value that nothing loads is not stored; a kernel that stores nothing is dropped.
2. A value that only the loop that computes it reads, at most k steps later, keeps a ring of k + 1 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.program import Buffer, Loop, Program, Ring, Statement, nested_kernels
from graphc.codegen.uses import Touch, loaded, touches, used, used_steps
from graphc.scalar import Index, offset_from


def plan(program: Program) -> Program:
    """The program without stores that nothing reads, and with rings where a few steps of a value are enough."""
    return rings(_without_unread(program))


# Unread values.


def _without_unread(program: Program) -> Program:
    """Drop stores to temporaries that nothing loads, what was computed for them alone, and empty kernels."""
    while True:
        keep = loaded(program.body) | {b.name for b in program.buffers if b.kind != "temp"}
        body = tuple(s for s in (with_stores(s, keep) for s in program.body) if s is not None)
        if body == program.body:
            return replace(program, buffers=used(program.buffers, body))
        program = replace(program, body=body)


def with_stores(statement: Statement, keep: set[str]) -> Statement | None:
    """The statement, storing to these buffers alone and computing only what that takes; None if it stores to none of
    them."""
    if isinstance(statement, Loop):
        body = tuple(s for s in (with_stores(s, keep) for s in statement.body) if s is not None)
        return replace(statement, body=body) if body else None
    stores = tuple(s for s in statement.stores if s.buffer in keep)
    return replace(statement, stores=stores, body=used_steps(statement.body, stores)) if stores else None


# Rings.


def rings(program: Program) -> Program:
    """The program in which a value keeps as many steps of a loop as the loop reads."""
    found: dict[str, list[tuple[Touch, tuple[Loop, ...]]]] = {}
    for kernel, loops in nested_kernels(program.body):
        for touch in touches(kernel):
            found.setdefault(touch.buffer, []).append((touch, loops))
    return replace(program, buffers=tuple(_with_ring(b, found.get(b.name, [])) for b in program.buffers))


def _with_ring(buffer: Buffer, found: Sequence[tuple[Touch, tuple[Loop, ...]]]) -> Buffer:
    """The buffer with rings in the place of dims that follow a loop, from the outermost loop inwards: each keeps as few
    steps as the readers look back. `found` are the buffer's loads and stores, each with the loops around it."""
    stores = [(touch, loops) for touch, loops in found if touch.store]
    if buffer.kind != "temp" or not stores:
        return buffer
    first, around = stores[0]
    dims = list(buffer.dims)
    for depth, loop in enumerate(around):
        if any(len(loops) <= depth or loops[depth] is not loop for _, loops in found):
            break
        dim = next((k for k, s in enumerate(first.at) if s == Index(loop.index)), None)
        if dim is None:
            break
        distances = [offset_from(touch.at[dim], loop.index) for touch, _ in found]
        if any(d is None for d in distances):
            break
        furthest = max(abs(d) for d in distances if d is not None)
        dims[dim] = Ring(furthest + 1)
        if furthest:
            break  # earlier steps of this loop are read, so all steps of the loops inside it are kept
    return replace(buffer, dims=tuple(dims))
