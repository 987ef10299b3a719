"""Makes one dim of two that are only ever walked together: rows of all steps and all examples are rows of one matrix.

In: a Program. Out: a Program that computes the same. Two neighbouring dims of a kernel or of a reduction become one,
with the product of their lengths, where every access that moves with either has both as neighbouring subscripts of
neighbouring dims of just these lengths:

    x[t, n, k]  becomes  x[m // N, m mod N, k],  which lies at (m · K + k)

Tiles then run across the border between steps, so a batch of one fills them as well as any other; and what sums over
steps and examples has one long dimension. And a dim that is too short to fill a tile with rows is taken together with
the one before it, wherever they stand. Only kernels with reductions gain by it, and only dims that do not run in
vector lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Scalar,
    map_kernel,
    map_kernels,
    map_reduce,
    map_reduces,
)
from graphc.codegen.tiling.vectorize import vector_index
from graphc.scalar import call, walk, with_indices

__all__ = ["collapse"]

SHORT = 8  # rows that leave a tile half empty
LONGEST = 16  # rows that one tile can have


def collapse(program: Program) -> Program:
    """The program with one dim in the place of two that are only walked together."""
    return replace(program, body=map_kernels(program.body, lambda kernel: _kernel(kernel, program)))


def _kernel(kernel: Kernel, program: Program) -> Kernel:
    if not kernel.reduces:
        return kernel
    vector, buffers = vector_index(kernel, program), program.declared
    for first, second in pairwise(kernel.dims):
        if vector not in (first.index, second.index) and _together(first, second, _scalars(kernel), buffers):
            kernel = _collapsed(kernel, first, second)
            break
    return map_reduces(_longer_rows(kernel, vector), lambda reduce: _reduce(reduce, buffers))


def _longer_rows(kernel: Kernel, vector: str | None) -> Kernel:
    """The kernel with the dim beside the vector's joined to the one before it, where it is too short to fill a tile
    with rows."""
    if vector is None or len(kernel.dims) < 3 or kernel.dims[-1].index != vector:
        return kernel
    first, second = kernel.dims[-3:-1]
    match first.extent, second.extent:
        case Const(a), Const(b) if (
            b < SHORT and a * b <= LONGEST and _is_row(kernel, second) and _is_row(kernel, first)
        ):
            return _collapsed(kernel, first, second)
    return kernel


def _is_row(kernel: Kernel, dim: Dim) -> bool:
    """Whether a kernel's reductions load something that is the same for all points of a dim."""
    parts = (part for reduce in kernel.reduces for scalar in _reduce_scalars(reduce) for part in walk(scalar))
    return any(isinstance(part, Load) and Index(dim.index) not in walk(part) for part in parts)


def _reduce(reduce: Reduce, buffers: Mapping[str, Buffer]) -> Reduce:
    for first, second in pairwise(reduce.dims):
        if _together(first, second, _reduce_scalars(reduce), buffers):
            return _collapsed_reduce(reduce, first, second)
    return reduce


# Whether two dims are only walked together.


def _together(first: Dim, second: Dim, scalars: Iterator[Scalar], buffers: Mapping[str, Buffer]) -> bool:
    if any(isinstance(part, Index) for dim in (first, second) for part in walk(dim.extent)):
        return False
    return all(_moves_with_both(scalar, first, second, buffers) for scalar in scalars)


def _moves_with_both(scalar: Scalar, first: Dim, second: Dim, buffers: Mapping[str, Buffer]) -> bool:
    """Whether a scalar mentions the two dims as neighbouring subscripts, or not at all."""
    match scalar:
        case Index(name):
            return name not in (first.index, second.index)
        case Call(_, args):
            return all(_moves_with_both(a, first, second, buffers) for a in args)
        case Load(buffer, at, _, when):
            rest = _without_both(at, buffers[buffer], first, second)
            return all(_moves_with_both(s, first, second, buffers) for s in (*rest, *([] if when is None else [when])))
    return True


def _without_both(at: Sequence[Scalar], buffer: Buffer, first: Dim, second: Dim) -> Sequence[Scalar]:
    """The subscripts other than the two, if the two stand side by side at dims of their lengths; otherwise all."""
    for k, pair in enumerate(pairwise(at)):
        lengths = tuple(buffer.dims[k : k + 2])
        if pair == (Index(first.index), Index(second.index)) and lengths == (first.extent, second.extent):
            return (*at[:k], *at[k + 2 :])
    return at


def _scalars(kernel: Kernel) -> Iterator[Scalar]:
    for dim in kernel.dims:
        yield dim.extent
    for step in kernel.body:
        if isinstance(step, Let):
            yield step.value
        else:
            yield from _reduce_scalars(step)
    for store in kernel.stores:
        yield store.value
        yield Load(store.buffer, store.at, store.value.dtype)


def _reduce_scalars(reduce: Reduce) -> Iterator[Scalar]:
    yield from (dim.extent for dim in reduce.dims)
    yield from reduce.values
    if reduce.when is not None:
        yield reduce.when


# One dim in the place of two.


def _joined(dims: tuple[Dim, ...], first: Dim, second: Dim) -> tuple[tuple[Dim, ...], dict[str, Scalar]]:
    """The dims with one in the place of the two, and what the indices of the two are made of."""
    k = dims.index(first)
    both = Dim(f"{first.index}.{second.index}", call("mul", first.extent, second.extent))
    digits = (call(fn, Index(both.index), second.extent) for fn in ("floordiv", "mod"))
    return (*dims[:k], both, *dims[k + 2 :]), dict(zip((first.index, second.index), digits, strict=True))


def _collapsed(kernel: Kernel, first: Dim, second: Dim) -> Kernel:
    dims, places = _joined(kernel.dims, first, second)
    return replace(map_kernel(kernel, lambda scalar: with_indices(scalar, places)), dims=dims)


def _collapsed_reduce(reduce: Reduce, first: Dim, second: Dim) -> Reduce:
    dims, places = _joined(reduce.dims, first, second)
    return replace(map_reduce(reduce, lambda scalar: with_indices(scalar, places)), dims=dims)
