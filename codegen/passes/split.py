"""Splits a dim that is only taken apart again: afterwards subscripts are sums of indices.

In: a Program. Out: a Program that computes the same. A value that was reshaped is read at the digits of a position,

    x[r // 4, (r // 2) mod 2, r mod 2]  for r < 1024    becomes    x[a, b, c]  for a < 256, b < 2, c < 2

and what reads the position itself reads 4 a + 2 b + c. Only dims that a reduction's loads take apart are split: those
are read again and again, and an address that moves by a constant costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from graphc.codegen.access import Access
from graphc.codegen.lengths import length_of
from graphc.codegen.program import (
    Call,
    Const,
    Dim,
    Index,
    Kernel,
    Let,
    Program,
    Reduce,
    Scalar,
    map_kernel,
    map_kernels,
    map_reduce,
)
from graphc.scalar import call, index, replaced, walk

__all__ = ["cuts", "split"]


def split(program: Program) -> Program:
    """The program with dims split that the loads of reductions take apart."""
    return replace(program, body=map_kernels(program.body, lambda kernel: _kernel(kernel, program)))


def _kernel(kernel: Kernel, program: Program) -> Kernel:
    access = Access(kernel, program)
    around = _parts(kernel.dims, kernel.reduces, access)

    def step(part: Let | Reduce) -> Let | Reduce:
        if isinstance(part, Let):
            return Let(part.name, _taken_apart(part.value, around))
        own = around | _parts(part.dims, [part], access)  # another's dim of the same name may be of another length
        return replace(map_reduce(part, lambda scalar: _taken_apart(scalar, own)), dims=_dims(part.dims, own))

    stored = map_kernel(replace(kernel, body=()), lambda scalar: _taken_apart(scalar, around))
    return replace(stored, dims=_dims(kernel.dims, around), body=tuple(map(step, kernel.body)))


@dataclass(frozen=True, slots=True)
class _Parts:
    """A dim as digits, the most significant first: the value of a one in each place, and the dim that counts there."""

    places: tuple[int, ...]
    dims: tuple[Dim, ...]

    def digits(self, low: int, high: int) -> Scalar | None:
        """(position mod high) // low, where position < extent; None if the digits are not cut at these places."""
        high = min(high, self.extent)
        if low >= high:
            return index(0)
        if not {low, high} <= {*self.places, self.extent}:
            return None
        total: Scalar = index(0)
        for dim, place in zip(self.dims, self.places, strict=True):
            if low <= place < high:
                total = call("add", total, call("mul", Index(dim.index), index(place // low)))
        return total

    @property
    def extent(self) -> int:
        return self.places[0] * length_of(self.dims[:1])


def _parts(dims: Sequence[Dim], reduces: Sequence[Reduce], access: Access) -> dict[str, _Parts]:
    """The dims that reductions take apart, by name."""
    subscripts = {s for r in reduces for total in r.sums for load in access.loads(total.value) for s in load.at}
    found: dict[str, _Parts] = {}
    for dim in dims:
        if dim.length is not None:
            apart = {cut for s in subscripts for cut in cuts(s, Index(dim.index)) if cut < dim.length}
            places = sorted({1, dim.length} | apart)
            if len(places) > 2 and all(b % a == 0 for a, b in pairwise(places)):
                digits = [Dim(f"{dim.index}.{k}", index(b // a)) for k, (a, b) in enumerate(pairwise(places))]
                found[dim.index] = _Parts(tuple(places[-2::-1]), tuple(digits[::-1]))
    return found


def cuts(scalar: Scalar, own: Index) -> Iterator[int]:
    """The places at which a subscript cuts the digits of an index."""
    for part in walk(scalar):
        match part:
            case Call("mod", (Call("floordiv", (x, Const(low))), Const(high))) if x == own:
                yield int(low) * int(high)
            case Call("floordiv" | "mod", (x, Const(place))) if x == own:
                yield int(place)


def _dims(dims: Sequence[Dim], parts: Mapping[str, _Parts]) -> tuple[Dim, ...]:
    return tuple(new for dim in dims for new in (parts[dim.index].dims if dim.index in parts else (dim,)))


def _taken_apart(scalar: Scalar, parts: Mapping[str, _Parts]) -> Scalar:
    def rule(part: Scalar) -> Scalar | None:
        match part:
            case Call("mod", (Call("floordiv", (Index(name), Const(low))), Const(high))) if name in parts:
                return parts[name].digits(int(low), int(low) * int(high))
            case Call("floordiv", (Index(name), Const(place))) if name in parts:
                return parts[name].digits(int(place), parts[name].extent)
            case Call("mod", (Index(name), Const(place))) if name in parts:
                return parts[name].digits(1, int(place))
            case Index(name) if name in parts:
                return parts[name].digits(1, parts[name].extent)
        return None

    return replaced(scalar, rule) if parts else scalar
