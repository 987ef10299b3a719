"""Finds dims along which a loop falls apart into slices that never need each other: the batch, the heads.

In: a `Loop`. Out: its `Slicing`s. A slicing names one dim of every kernel of the loop, such that every access to a
buffer that the loop stores has this dim as the same subscript:

    h[t, n, e] = f(h[t - 1, n, r], …)        falls apart along n, not along e

Different groups of CTAs may compute the slices, in all steps, and never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.program import Dim, Index, Kernel, Loop, Program, Ring, Scalar, kernels
from graphc.codegen.uses import loads, stored
from graphc.scalar import walk

__all__ = ["Slicing", "slicings"]


@dataclass(frozen=True)
class Slicing:
    """For each kernel of a loop, by name, the dim along which it is sliced; and that dim's length."""

    dims: Mapping[str, str]
    extent: Scalar


def slicings(loop: Loop, program: Program) -> tuple[Slicing, ...]:
    """All of a loop's slicings. The loop can be cut along all of them at the same time."""
    inside = list(kernels((loop,)))
    made = stored((loop,))
    accesses = {kernel.name: list(_accesses(kernel, made)) for kernel in inside}
    rings = {b.name: {k for k, d in enumerate(b.dims) if isinstance(d, Ring)} for b in program.buffers}
    found: list[Slicing] = []
    for dim in inside[0].dims:
        if any(isinstance(part, Index) for part in walk(dim.extent)):
            continue
        dims = _spread(inside, dim, accesses, rings)
        if dims is not None and not any(_overlap(dims, known.dims) for known in found):
            found.append(Slicing(dims, dim.extent))
    return tuple(found)


def _accesses(kernel: Kernel, made: set[str]) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
    """The accesses of a kernel to what the loop stores."""
    yield from ((load.buffer, load.at) for load in loads(kernel) if load.buffer in made)
    yield from ((store.buffer, store.at) for store in kernel.stores)


def _overlap(a: Mapping[str, str], b: Mapping[str, str]) -> bool:
    return any(a[name] == b[name] for name in a)


def _spread(
    inside: list[Kernel],
    seed: Dim,
    accesses: Mapping[str, list[tuple[str, tuple[Scalar, ...]]]],
    rings: Mapping[str, set[int]],
) -> dict[str, str] | None:
    """The dims of all kernels that must be sliced together with a dim of the first kernel; None if that is
    impossible."""
    dims: dict[str, str] = {inside[0].name: seed.index}
    places: dict[str, int] = {}
    todo = [inside[0]]
    while todo:
        kernel = todo.pop()
        for buffer, at in accesses[kernel.name]:
            if buffer not in places:
                own = Index(dims[kernel.name])
                place = next((k for k, x in enumerate(at) if x == own and k not in rings[buffer]), None)
                if place is None:
                    return None
                places[buffer] = place
            elif at[places[buffer]] != Index(dims[kernel.name]):
                return None
        for other in inside:
            if other.name not in dims:
                dim = _forced(other, accesses[other.name], places, seed)
                if dim is not None:
                    dims[other.name] = dim
                    todo.append(other)
    return dims if len(dims) == len(inside) else None


def _forced(
    kernel: Kernel, accesses: list[tuple[str, tuple[Scalar, ...]]], places: Mapping[str, int], seed: Dim
) -> str | None:
    """The dim by which a kernel accesses a buffer whose sliced subscript is known."""
    for buffer, at in accesses:
        if buffer in places:
            for dim in kernel.dims:
                if at[places[buffer]] == Index(dim.index) and dim.extent == seed.extent:
                    return dim.index
    return None
