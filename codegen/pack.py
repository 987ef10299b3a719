"""Turns round the operands of contractions: afterwards a reduction loads along its kernel's vector dimension.

In: a Program. Out: a Program that computes the same. A load inside a `Reduce` that moves with the vector index v in a
dim that is not the buffer's last (`W[v, k]`) reads a copy of the buffer in which that dim is last, if its elements are
read more than once. The copy is made right before the outermost statement that needs it, so that a loop over
time finds it ready, and made once as long as nothing stores to its source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from graphc.codegen.access import Access, coefficient, loads
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Call,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ring,
    Scalar,
    Statement,
    Store,
    kernels,
)
from graphc.codegen.vectorize import vector_index
from graphc.scalar import index

__all__ = ["pack"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Turn:
    """The dim of a buffer that goes last in its copy."""

    buffer: str
    dim: int

    @property
    def copy(self) -> str:
        return f"{self.buffer}.last{self.dim}"

    def apply(self, items: tuple[_Item, ...]) -> tuple[_Item, ...]:
        return (*items[: self.dim], *items[self.dim + 1 :], items[self.dim])


def pack(program: Program) -> Program:
    """The program with copies where they pay."""
    body: list[Statement] = []
    copies: Counter[_Turn] = Counter()
    current: set[_Turn] = set()  # the copies that agree with their sources
    for statement in program.body:
        written = frozenset(store.buffer for kernel in kernels((statement,)) for store in kernel.stores)
        turned, needed = _turn_statement(statement, frozenset(), written, program)
        for turn in sorted(needed - current, key=lambda turn: turn.copy):
            copies[turn] += 1
            body.append(_copy(turn, program.buffer(turn.buffer), copies[turn]))
        body.append(turned)
        current = {turn for turn in current | needed if turn.buffer not in written}
    temps = tuple(_turned_buffer(turn, program.buffer(turn.buffer)) for turn in copies)
    return replace(program, buffers=(*program.buffers, *temps), body=tuple(body))


def _turned_buffer(turn: _Turn, source: Buffer) -> Buffer:
    return Buffer(turn.copy, source.dtype, turn.apply(source.dims), "temp")


def _copy(turn: _Turn, source: Buffer, time: int) -> Kernel:
    """The kernel that fills a copy for the `time`-th time. It stores in the copy's order."""
    extents = [extent for extent in source.dims if not isinstance(extent, Ring)]
    dims = tuple(Dim(f"d{axis}", extent) for axis, extent in enumerate(extents))
    at = tuple(Index(dim.index) for dim in dims)
    name = f"pack.{turn.copy}" + (f".{time}" if time > 1 else "")
    store = Store(turn.copy, turn.apply(at), Load(source.name, at, source.dtype))
    return Kernel(name, turn.apply(dims), (), (store,))


def _turn_statement(
    statement: Statement, loops: frozenset[str], written: frozenset[str], program: Program
) -> tuple[Statement, set[_Turn]]:
    """The statement reading copies, and which it reads. `written` is what its outermost statement stores to."""
    if isinstance(statement, Kernel):
        return _turn_kernel(statement, loops, written, program)
    parts = [_turn_statement(s, loops | {statement.index}, written, program) for s in statement.body]
    return replace(statement, body=tuple(s for s, _ in parts)), set().union(*(turns for _, turns in parts))


def _turn_kernel(
    kernel: Kernel, loops: frozenset[str], written: frozenset[str], program: Program
) -> tuple[Kernel, set[_Turn]]:
    reduces = [step for step in kernel.body if isinstance(step, Reduce)]
    vector = vector_index(kernel, program) if reduces else None
    if vector is None:
        return kernel, set()
    access = Access(kernel, program)
    around = loops | {dim.index for dim in kernel.dims if dim.extent != index(1)}
    turns: dict[Load, _Turn] = {}
    for load in {load for reduce in reduces for scalar in _scalars(reduce) for load in loads(scalar, access)}:
        dim = _strided_dim(load, vector, access)
        read_again = not around <= access.dependence(load)
        if dim is not None and read_again and load.buffer not in written:
            turns[load] = _Turn(load.buffer, dim)
    body = tuple(_replace_in_reduce(step, turns) if isinstance(step, Reduce) else step for step in kernel.body)
    return replace(kernel, body=body), set(turns.values())


def _strided_dim(load: Load, vector: str, access: Access) -> int | None:
    """The dim through which neighbouring lanes read neighbouring elements, if there is one and it is not the last."""
    moving = [dim for dim, subscript in enumerate(load.at) if vector in access.dependence(subscript)]
    if len(moving) != 1 or moving[0] == len(load.at) - 1:
        return None
    if any(isinstance(dim, Ring) for dim in access.buffers[load.buffer].dims):
        return None
    return moving[0] if coefficient(load.at[moving[0]], vector, access) == index(1) else None


def _scalars(reduce: Reduce) -> list[Scalar]:
    return [*(let.value for let in reduce.body), *(total.value for total in reduce.sums)]


def _replace_in_reduce(reduce: Reduce, turns: Mapping[Load, _Turn]) -> Reduce:
    return replace(
        reduce,
        body=tuple(Let(let.name, _replace(let.value, turns)) for let in reduce.body),
        sums=tuple(Accumulate(s.name, s.op, _replace(s.value, turns)) for s in reduce.sums),
    )


def _replace(scalar: Scalar, turns: Mapping[Load, _Turn]) -> Scalar:
    """The scalar with every load that has a turn reading the copy instead."""
    match scalar:
        case Load(buffer, at, dtype, when):
            inner = tuple(_replace(subscript, turns) for subscript in at)
            condition = None if when is None else _replace(when, turns)
            turn = turns.get(scalar)
            if turn is None:
                return Load(buffer, inner, dtype, condition)
            return Load(turn.copy, turn.apply(inner), dtype, condition)
        case Call(fn, args, dtype):
            return Call(fn, tuple(_replace(argument, turns) for argument in args), dtype)
        case _:
            return scalar
