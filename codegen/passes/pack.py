"""Lays out the operands of contractions anew: afterwards a reduction loads along its kernel's vector dimension.

In: a Program. Out: a Program that computes the same. A load inside a `Reduce` that moves with the vector index v in a
dim that is not the buffer's last (`W[v, k]`) reads a copy of the buffer in which that dim is last, if its elements are
read more than once. The copy of a large operand is in panels, `W[v // 16, k, v % 16]`: a reduction then walks through
memory without gaps, and its stride does not fold the cache onto a few of its sets (Goto & van de Geijn, "Anatomy of
High-Performance Matrix Multiplication", 2008). Large operands are laid out in panels too if they already lie along v,
or if they vary with another dimension of the kernel, as with that of a tile's rows. A few rows between panels lie
unused, so that panels that are read side by side do not fold the cache either.

The copy is made right before the outermost statement that needs it and does not store to its source, so that a loop
over time finds it ready, and made once as long as nothing stores to its source.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from graphc.codegen.access import Access, coefficient
from graphc.codegen.program import (
    Buffer,
    Const,
    Index,
    Kernel,
    Load,
    Loop,
    Program,
    Reduce,
    Ring,
    Scalar,
    Statement,
    Store,
    indices_of,
    map_reduce,
    map_reduces,
    numbered,
)
from graphc.codegen.tiling.vectorize import loads_of, vector_index
from graphc.codegen.uses import stored
from graphc.scalar import call, computed, index, replaced, replaced_inside

__all__ = ["pack"]

_Item = TypeVar("_Item")


PANEL = 16  # elements: a multiple of the lanes of every vector unit, and a cache line of float32
ROW = 2 * PANEL  # elements: rows no longer than a tile is wide lie without gaps as they are
LARGE = 1 << 15  # bytes: a smaller operand stays in the first-level cache however it lies


@dataclass(frozen=True, slots=True)
class _Turn:
    """How a copy of a buffer lies: `dim` goes last, behind the others in this `order`. With `panels`, `dim` is cut into
    pieces, each of which lies so."""

    buffer: str
    dim: int
    order: tuple[int, ...]  # of the other dims
    panels: bool = False

    @property
    def copy(self) -> str:
        turned = "" if list(self.order) == sorted(self.order) else "." + "".join(map(str, self.order))
        return f"{self.buffer}.{'panels' if self.panels else 'last'}{self.dim}{turned}"

    def rest(self, items: tuple[_Item, ...]) -> tuple[_Item, ...]:
        return tuple(items[k] for k in self.order)

    def at(self, subscripts: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        """Where an element of the buffer lies in the copy."""
        last = subscripts[self.dim]
        if not self.panels:
            return (*self.rest(subscripts), last)
        panel = index(PANEL)
        return (call("floordiv", last, panel), *self.rest(subscripts), call("mod", last, panel))

    def dims(self, extents: tuple[Scalar | Ring, ...]) -> tuple[Scalar | Ring, ...]:
        last = extents[self.dim]
        if not self.panels:
            return (*self.rest(extents), last)
        assert isinstance(last, Const)
        return (index(-(-int(last.value) // PANEL)), *_spaced(self.rest(extents)), index(PANEL))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A copy that is to be made inside so many loops."""

    turn: _Turn
    depth: int


def pack(program: Program) -> Program:
    """The program with copies of operands, laid out for the loads of reductions."""
    copies: Counter[_Turn] = Counter()
    body, _ = _body(program.body, (), program, copies)
    temps = tuple(_turned_buffer(turn, program.buffer(turn.buffer)) for turn in copies)
    return replace(program, buffers=(*program.buffers, *temps), body=body)


def _body(
    statements: tuple[Statement, ...], around: tuple[Loop, ...], program: Program, copies: Counter[_Turn]
) -> tuple[tuple[Statement, ...], set[_Wanted]]:
    """The statements, each after the copies that it needs; and the copies that loops further out are to make."""
    body: list[Statement] = []
    outside: set[_Wanted] = set()
    current: set[_Turn] = set()  # the copies that agree with their sources
    for statement in statements:
        if isinstance(statement, Loop):
            inner, wanted = _body(statement.body, (*around, statement), program, copies)
            turned: Statement = replace(statement, body=inner)
        else:
            turned, wanted = _turn_kernel(statement, around, program)
        needed = {want.turn for want in wanted if want.depth == len(around)}
        for turn in sorted(needed - current, key=lambda turn: turn.copy):
            copies[turn] += 1
            body.append(_copy(turn, program.buffer(turn.buffer), copies[turn]))
        body.append(turned)
        outside |= {want for want in wanted if want.depth < len(around)}
        written = stored((statement,))
        current = {turn for turn in current | needed if turn.buffer not in written}
    return tuple(body), outside


def _turned_buffer(turn: _Turn, source: Buffer) -> Buffer:
    return Buffer(turn.copy, source.dtype, turn.dims(source.dims), "temp")


def _spaced(rows: tuple[Scalar | Ring, ...]) -> tuple[Scalar | Ring, ...]:
    """The rows of a panel, padded until their number is 2 modulo 4, so that panels read side by side fall into
    different cache sets. Rows that come with the data, or that no padding brings there, stay as they are."""
    if not all(isinstance(extent, Const) for extent in rows):
        return rows
    counts = [int(extent.value) for extent in rows if isinstance(extent, Const)]
    for more in range(4):
        if math.prod((*counts[:-1], counts[-1] + more)) % 4 == 2:
            return (*rows[:-1], index(counts[-1] + more))
    return rows


def _copy(turn: _Turn, source: Buffer, time: int) -> Kernel:
    """The kernel that fills a copy for the `time`-th time. It stores in the copy's order."""
    dims = numbered(source.extents)
    at = indices_of(dims)
    name = f"pack.{turn.copy}" + (f".{time}" if time > 1 else "")
    store = Store(turn.copy, turn.at(at), Load(source.name, at, computed(source.dtype)))
    return Kernel(name, (*turn.rest(dims), dims[turn.dim]), (), (store,))


def _turn_kernel(kernel: Kernel, around: tuple[Loop, ...], program: Program) -> tuple[Kernel, set[_Wanted]]:
    """The kernel with its loads reading copies, and those copies."""
    vector = vector_index(kernel, program) if kernel.reduces else None
    if vector is None:
        return kernel, set()
    access = Access(kernel, program)
    wanted: set[_Wanted] = set()

    def turned(reduce: Reduce) -> Reduce:
        turns: dict[Load, _Turn] = {}  # another reduction may go through the same buffer in another order
        for load in dict.fromkeys(loads_of(reduce.values, access)):
            depth = _depth(load, kernel, around, access)
            turn = _panels(load, reduce, kernel, access) or _turn(load, reduce, vector, access)
            if turn is not None and depth is not None:
                turns[load] = turn
                wanted.add(_Wanted(turn, depth))
        return _reading(reduce, turns)

    return map_reduces(kernel, turned), wanted


def _depth(load: Load, kernel: Kernel, around: tuple[Loop, ...], access: Access) -> int | None:
    """In how many loops a copy for this load is made: as few as leave it right. None if a copy does not pay."""
    moving = access.dependence(load)
    nest: tuple[Statement, ...] = (*around, kernel)
    for depth, statement in enumerate(nest):
        if load.buffer not in stored((statement,)):
            indices = {loop.index for loop in around[depth:]} | {d.index for d in kernel.dims if d.extent != index(1)}
            return depth if not indices <= moving else None  # else each element is read once
        if isinstance(statement, Loop) and statement.index in moving:
            return None  # each step reads another part
    return None


def _turn(load: Load, reduce: Reduce, vector: str, access: Access) -> _Turn | None:
    dim = _strided_dim(load, vector, access)
    return None if dim is None else _Turn(load.buffer, dim, _order(load, dim, reduce, access))


def _order(load: Load, last: int, reduce: Reduce, access: Access) -> tuple[int, ...]:
    """The dims of a buffer but the last, in the order in which a reduction goes through them."""
    ranks = [
        max((k for k, dim in enumerate(reduce.dims) if dim.index in access.dependence(s)), default=-1) for s in load.at
    ]
    return tuple(sorted((k for k in range(len(load.at)) if k != last), key=lambda k: ranks[k]))


def _panels(load: Load, reduce: Reduce, kernel: Kernel, access: Access) -> _Turn | None:
    """Panels for a load of a large operand, if exactly one of its subscripts is a dim of the kernel, and that dim is
    long."""
    own = {dim.index: dim.extent for dim in kernel.dims}
    moving = [k for k, s in enumerate(load.at) if isinstance(s, Index) and s.name in own]
    if len(moving) != 1:
        return None
    buffer = access.buffers[load.buffer]
    extents = buffer.dims
    extent = extents[moving[0]]
    if not isinstance(extent, Const) or extent.value <= PANEL or buffer.has_ring:
        return None
    if moving[0] == len(extents) - 1 and extent.value <= ROW:
        return None
    size = 4
    for other in extents:
        size *= int(other.value) if isinstance(other, Const) else LARGE
    order = _order(load, moving[0], reduce, access)
    return _Turn(load.buffer, moving[0], order, panels=True) if size >= LARGE else None


def _strided_dim(load: Load, vector: str, access: Access) -> int | None:
    """The dim along which neighbouring lanes read neighbouring elements, unless there is none or it is the last one."""
    moving = [dim for dim, subscript in enumerate(load.at) if vector in access.dependence(subscript)]
    if len(moving) != 1 or moving[0] == len(load.at) - 1:
        return None
    if access.buffers[load.buffer].has_ring:
        return None
    return moving[0] if coefficient(load.at[moving[0]], vector, access) == index(1) else None


def _reading(reduce: Reduce, turns: Mapping[Load, _Turn]) -> Reduce:
    """The reduction with every load that has a turn reading the copy instead."""

    def rule(part: Scalar) -> Scalar | None:
        turn = turns.get(part) if isinstance(part, Load) else None
        if turn is None or not isinstance(part, Load):
            return None
        inside = replaced_inside(part, rule)
        return replace(inside, buffer=turn.copy, at=turn.at(inside.at))

    return map_reduce(reduce, lambda scalar: replaced(scalar, rule))
