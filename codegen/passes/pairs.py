"""Lays out operands in bfloat16 in pairs, so that a reduction loads two of its terms at once.

In: a Program whose operands are packed. Out: a Program that computes the same. Of an operand `W[k, v]`, with v in
vector lanes, neighbours along the reduction's k come to lie side by side, and the reduction takes two terms at a time:

    s[v] = Σ W[k, v] · x[k] over k < K
    becomes
    s[v] = Σ W[k, v, 0] · x[2 k] + W[k, v, 1] · x[2 k + 1] over k < K / 2

One load then has the two halves of a word in every lane, and each half is a float32 number but for a shift or a mask
(`graphc.codegen.llvm.half_precision`). Apart, each term takes a load and two instructions to widen it, which cost as
much time as the shorter operand saves.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Set
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.passes.pack import PANEL
from graphc.codegen.program import (
    Buffer,
    Const,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ref,
    Scalar,
    Store,
    kernels,
    map_kernels,
    map_reduces,
)
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import loads, stored, terms
from graphc.scalar import call, index, replaced, replaced_inside, walk

__all__ = ["pairs"]

_ROW = -2  # the dim of an operand that the reduction goes along; the last one runs in lanes


def pairs(program: Program) -> Program:
    """The program with temporaries in bfloat16 in pairs, where all that touches them can take two terms at a time."""
    chosen = {buffer.name for buffer in program.buffers if _may_lie_in_pairs(buffer)}
    if chosen:
        for kernel in kernels(program.body):
            chosen -= _unfit(kernel, program)
    if not chosen:
        return program
    buffers = tuple(_in_pairs(buffer) if buffer.name in chosen else buffer for buffer in program.buffers)
    return replace(program, buffers=buffers, body=map_kernels(program.body, lambda kernel: _kernel(kernel, chosen)))


def _may_lie_in_pairs(buffer: Buffer) -> bool:
    several = len(buffer.dims) > 1 and not buffer.has_ring and isinstance(buffer.dims[_ROW], Const)
    return several and buffer.kind == "temp" and buffer.dtype == "bfloat16"


def _unfit(kernel: Kernel, program: Program) -> set[str]:
    """The buffers that a kernel cannot read or store two neighbours at a time."""
    access = Access(kernel, program)
    vector = vector_index(kernel, program, access) if kernel.reduces else None
    fit = {
        load
        for reduce in kernel.reduces
        for load in _loads(reduce)
        if vector is not None and _is_even(reduce, access) and _is_operand(load, reduce, vector, access)
    }
    unfit = {load.buffer for load in loads(kernel) if load not in fit}
    return unfit if _copies(kernel) else unfit | stored((kernel,))


def _loads(reduce: Reduce) -> set[Load]:
    return {part for value in reduce.values for part in walk(value) if isinstance(part, Load)}


def _is_even(reduce: Reduce, access: Access) -> bool:
    """Whether two points of a reduction's inner dim can be added as one."""
    inner = reduce.dims[-1]
    tested = reduce.when is not None and inner.index in access.dependence(reduce.when)
    return _has_pairs(inner) and not tested and all(total.op == "sum" for total in reduce.sums)


def _has_pairs(dim: Dim) -> bool:
    return isinstance(dim.extent, Const) and dim.extent.value % 2 == 0


def _is_operand(load: Load, reduce: Reduce, vector: str, access: Access) -> bool:
    """Whether a load goes along the inner dim of a reduction row by row, and along the lanes element by element."""
    inner = reduce.dims[-1].index
    moving = [subscript for subscript in load.at if inner in access.dependence(subscript)]
    return (
        load.when is None
        and moving == list(load.at[_ROW:][:1]) == [Index(inner)]
        and access.lane_step(load.buffer, load.at, vector, PANEL) == 1
    )


def _copies(kernel: Kernel) -> bool:
    """Whether a kernel does nothing but copy, an element at each point, into rows of which each has a partner."""
    if kernel.body or len(kernel.stores) != 1 or not isinstance(kernel.stores[0].value, Load):
        return False
    row = kernel.stores[0].at[_ROW:][:1]
    return any((Index(dim.index),) == row and _has_pairs(dim) for dim in kernel.dims)


# The program with pairs.


def _in_pairs(buffer: Buffer) -> Buffer:
    *others, rows, lanes = buffer.dims
    assert isinstance(rows, Const)
    return replace(buffer, dims=(*others, index(-(-int(rows.value) // 2)), lanes, index(2)))


def _kernel(kernel: Kernel, chosen: Set[str]) -> Kernel:
    kernel = map_reduces(kernel, lambda reduce: _reduce(reduce, chosen))
    if stored((kernel,)).isdisjoint(chosen):
        return kernel
    (store,) = kernel.stores
    row = store.at[_ROW]
    assert isinstance(row, Index)
    dims = tuple(_halved(dim) if dim.index == row.name else dim for dim in kernel.dims)
    stores = tuple(
        Store(store.buffer, (*store.at, index(half)), _half(store.value, row.name, half, chosen, ())) for half in (0, 1)
    )
    return replace(kernel, dims=dims, stores=stores)


def _reduce(reduce: Reduce, chosen: Set[str]) -> Reduce:
    if chosen.isdisjoint(load.buffer for load in _loads(reduce)):
        return reduce
    *outer, inner = reduce.dims
    names = [let.name for let in reduce.body]

    def halves(scalar: Scalar) -> tuple[Scalar, Scalar]:
        first, second = (_half(scalar, inner.index, half, chosen, names) for half in (0, 1))
        return first, second

    body = [Let(_name(let.name, half), value) for let in reduce.body for half, value in enumerate(halves(let.value))]
    sums = []
    for total in reduce.sums:
        every = (half for term in terms(total.value, {}) for half in halves(term))
        sums.append(replace(total, value=functools.reduce(lambda a, b: call("add", a, b), every)))
    return Reduce((*outer, _halved(inner)), tuple(sums), tuple(body), reduce.when)


def _halved(dim: Dim) -> Dim:
    assert isinstance(dim.extent, Const)
    return Dim(dim.index, index(int(dim.extent.value) // 2))


def _name(name: str, half: int) -> str:
    return f"{name}.second" if half else name


def _half(scalar: Scalar, name: str, half: int, chosen: Set[str], names: Collection[str]) -> Scalar:
    """A scalar at the first or the second of two points, where the index of that name counts pairs. `names` differ
    between the two."""

    def rule(part: Scalar) -> Scalar | None:
        match part:
            case Load(buffer) if buffer in chosen:
                return replace(part, at=(*part.at, index(half)))
            case Load():
                return replaced_inside(part, rule)
            case Index() if part.name == name:
                return call("add", call("mul", index(2), part), index(half))
            case Ref() if part.name in names:
                return replace(part, name=_name(part.name, half))
        return None

    return replaced(scalar, rule)
