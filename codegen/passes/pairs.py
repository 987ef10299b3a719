"""Lays out operands in bfloat16 in pairs, so that a reduction takes two of its terms at once.

In: a Program whose operands are packed. Out: a Program that computes the same. Of an operand `W[k, v]`, with v in
vector lanes, neighbours along the reduction's k come to lie side by side, and the reduction takes two terms at a time:

    s[v] = Σ W[k, v] · x[k] over k < K
    becomes
    s[v] = Σ W[k, v, 0] · x[2 k] + W[k, v, 1] · x[2 k + 1] over k < K / 2

One load then has the two halves of a word in every lane, and each half is a float32 number but for a shift or a mask
(`graphc.codegen.llvm.half_precision`). Apart, each term takes a load and two instructions to widen it, which cost as
much time as the shorter operand saves. Some processors add both products by one instruction, if x is bfloat16 as well.

Where K is odd, or comes with the data, the last row may lack a partner. Then a zero lies in its place; all that the
reduction reads along k must lie in pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Set
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.passes.pack import PANEL
from graphc.codegen.program import (
    Buffer,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ref,
    Ring,
    Scalar,
    Store,
    kernels,
    map_kernels,
    map_reduces,
)
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import loads, stored, terms
from graphc.scalar import call, guarded, index, replaced, replaced_inside, walk, zero

__all__ = ["pairs"]

_ROW = -2  # the dim of an operand that the reduction goes along; the last one runs in lanes


def pairs(program: Program) -> Program:
    """The program with temporaries in bfloat16 in pairs, where all that touches them can take two terms at a time."""
    chosen = {buffer.name for buffer in program.buffers if _may_lie_in_pairs(buffer)}
    unfit = chosen
    while chosen and unfit:
        unfit = {name for kernel in kernels(program.body) for name in _unfit(kernel, chosen, program)} & chosen
        chosen = chosen - unfit
    if not chosen:
        return program
    buffers = tuple(_in_pairs(buffer) if buffer.name in chosen else buffer for buffer in program.buffers)
    return replace(
        program, buffers=buffers, body=map_kernels(program.body, lambda kernel: _kernel(kernel, chosen, program))
    )


def _may_lie_in_pairs(buffer: Buffer) -> bool:
    return len(buffer.dims) > 1 and not buffer.has_ring and buffer.kind == "temp" and buffer.dtype == "bfloat16"


def _unfit(kernel: Kernel, chosen: Set[str], program: Program) -> set[str]:
    """The buffers that a kernel cannot read or store two neighbours at a time, if the `chosen` lie in pairs."""
    access = Access(kernel, program)
    vector = vector_index(kernel, program, access) if kernel.reduces else None
    fit = {
        load
        for reduce in kernel.reduces
        for load in _loads(reduce)
        if vector is not None and _takes_pairs(reduce, chosen, access) and _is_operand(load, reduce, vector, access)
    }
    unfit = {load.buffer for load in loads(kernel) if load not in fit}
    return unfit if _copies(kernel) else unfit | stored((kernel,))


def _loads(reduce: Reduce) -> set[Load]:
    return {part for value in reduce.values for part in walk(value) if isinstance(part, Load)}


def _takes_pairs(reduce: Reduce, chosen: Set[str], access: Access) -> bool:
    """Whether two points of a reduction's inner dim can be added as one, and a last one without a partner adds 0."""
    if not reduce.dims or any(total.op != "sum" for total in reduce.sums):
        return False
    inner = reduce.dims[-1]
    if reduce.when is not None and inner.index in access.dependence(reduce.when):
        return False
    return inner.is_multiple(2) or all(
        factors is not None and all(f.buffer in chosen and inner.index in access.dependence(f) for f in factors)
        for total in reduce.sums
        for factors in map(access.multiplied, access.terms(total.value))
    )


def _is_operand(load: Load, reduce: Reduce, vector: str, access: Access) -> bool:
    """Whether a load goes along the inner dim of a reduction row by row; and along the lanes element by element, or not
    at all."""
    inner = reduce.dims[-1].index
    moving = [part for part in (*load.at, load.when) if part is not None and inner in access.dependence(part)]
    rows = list(load.at[_ROW:][:1])
    return moving == rows == [Index(inner)] and access.lane_step(load.buffer, load.at, vector, PANEL) in (0, 1)


def _copies(kernel: Kernel) -> bool:
    """Whether a kernel does nothing but copy, an element at each point, into rows that it goes through one by one."""
    if kernel.body or len(kernel.stores) != 1 or not isinstance(kernel.stores[0].value, Load):
        return False
    return kernel.stores[0].at[_ROW:][:1] in [(Index(dim.index),) for dim in kernel.dims]


# The program with pairs.


def _in_pairs(buffer: Buffer) -> Buffer:
    *others, rows, lanes = buffer.dims
    assert not isinstance(rows, Ring)
    return replace(buffer, dims=(*others, _half_of(rows), lanes, index(2)))


def _half_of(extent: Scalar) -> Scalar:
    """How many pairs so many rows make; the last may lack a partner."""
    return call("floordiv", call("add", extent, index(1)), index(2))


def _kernel(kernel: Kernel, chosen: Set[str], program: Program) -> Kernel:
    access = Access(kernel, program)
    kernel = map_reduces(kernel, lambda reduce: _reduce(reduce, chosen, access))
    if stored((kernel,)).isdisjoint(chosen):
        return kernel
    (store,) = kernel.stores
    row = next(dim for dim in kernel.dims if Index(dim.index) == store.at[_ROW])
    first, second = (_half(store.value, row.index, half, chosen, ()) for half in (0, 1))
    if not row.is_multiple(2):
        there = call("lt", _place(Index(row.index), 1), row.extent)
        second = call("select", there, guarded(second, there), zero(second.dtype))
    stores = tuple(Store(store.buffer, (*store.at, index(half)), value) for half, value in enumerate((first, second)))
    dims = tuple(replace(dim, extent=_half_of(dim.extent)) if dim is row else dim for dim in kernel.dims)
    return replace(kernel, dims=dims, stores=stores)


def _reduce(reduce: Reduce, chosen: Set[str], access: Access) -> Reduce:
    if chosen.isdisjoint(load.buffer for load in _loads(reduce)):
        return reduce
    *outer, inner = reduce.dims
    names = [let.name for let in reduce.body if inner.index in access.dependence(let.value)]

    def halves(scalar: Scalar) -> tuple[Scalar, Scalar]:
        first, second = (_half(scalar, inner.index, half, chosen, names) for half in (0, 1))
        return first, second

    body: list[Let] = []
    for let in reduce.body:
        values = halves(let.value) if let.name in names else (let.value,)
        body += [Let(_name(let.name, half), value) for half, value in enumerate(values)]
    sums = []
    for total in reduce.sums:
        every = (half for term in terms(total.value, {}) for half in halves(term))
        sums.append(replace(total, value=functools.reduce(lambda a, b: call("add", a, b), every)))
    return Reduce((*outer, Dim(inner.index, _half_of(inner.extent))), tuple(sums), tuple(body), reduce.when)


def _name(name: str, half: int) -> str:
    return f"{name}.second" if half else name


def _place(pair: Scalar, half: int) -> Scalar:
    return call("add", call("mul", index(2), pair), index(half))


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
                return _place(part, half)
            case Ref() if part.name in names:
                return replace(part, name=_name(part.name, half))
        return None

    return replaced(scalar, rule)
