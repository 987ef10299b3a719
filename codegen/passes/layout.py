"""Chooses in which order the dims of a temporary lie, and with them the dims of the kernels that store it.

In: a Program. Out: a Program that computes the same. Where a kernel reads windows, at `x[c, u + k, v + l]`, the dims of
the places u and v are bad ones to run in vector lanes: their loads are never aligned, and the borders need masks. The
dim to run in lanes is then one that stands alone in its subscript, such as the channel. Buffers that such a kernel
loads or stores get that dim last (channels-last, for images), and so does every kernel that stores to them; nothing
here knows what a channel is. Kernels that would have different dims last vote, each with as many votes as it has points
to add. Inputs, params and outputs lie as the caller has them.

    >>> import graphc as gc
    >>> from graphc.pipeline.stages import stages
    >>> g = gc.Graph("net")
    >>> x = g.input("x", (3, 32, 32), over=g.axis("n"))
    >>> a = gc.relu(gc.layers.conv(g, x, 16, size=3, name="first"))
    >>> g.output("y", gc.layers.conv(g, a, 32, size=3, name="second"))
    >>> planned = stages(g).planned
    >>> for program in planned, layout(planned):
    ...     print(program.buffer("relu"))
    temp relu: float32[#n, 16, 30, 30]
    temp relu: float32[#n, 30, 30, 16]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from graphc.codegen.access import Access
from graphc.codegen.lengths import known_lengths, length_of
from graphc.codegen.program import (
    Buffer,
    Index,
    Kernel,
    Load,
    Program,
    Reduce,
    Store,
    kernels,
    map_kernel,
    map_kernels,
    map_reduces,
)
from graphc.codegen.uses import Touch, touched
from graphc.scalar import map_loads, walk

__all__ = ["layout"]

_Item = TypeVar("_Item")
_LoadOrStore = TypeVar("_LoadOrStore", Load, Store)

LONG = 16  # elements: a dim that fills a vector


def layout(program: Program) -> Program:
    """The program with temporaries whose last dim is one that can run in vector lanes."""
    last = _last_dims(program)
    if not last:
        return program
    buffers = tuple(_turned(b, last) for b in program.buffers)
    return replace(
        program, buffers=buffers, body=map_kernels(program.body, lambda kernel: _kernel(kernel, last, program))
    )


def _last_dims(program: Program) -> dict[str, int]:
    """For each buffer whose dims change places, the dim that goes last: the one with the most votes."""
    votes: dict[str, Counter[int]] = {}
    for kernel in kernels(program.body):
        for buffer, dim in _wishes(kernel, program):
            votes.setdefault(buffer, Counter())[dim] += _work(kernel)
    chosen = {name: dims.most_common(1)[0][0] for name, dims in votes.items()}
    return {name: dim for name, dim in chosen.items() if dim < len(program.buffer(name).dims) - 1}


def _wishes(kernel: Kernel, program: Program) -> Iterator[tuple[str, int]]:
    """The temporaries that a kernel with windows loads or stores, each with the dim that the kernel would like to be
    last: the longest that fills a vector and that no window moves along."""
    touches = _touches(kernel, Access(kernel, program))
    places = {name for touch in touches for name in touch.places}
    if not places:
        return
    temps = {b.name for b in program.buffers if b.kind == "temp" and not b.has_ring}
    lengths = _lengths(kernel)
    for touch in touches:
        alone = [(s.name, k) for k, s in enumerate(touch.at) if isinstance(s, Index) and s.name in lengths]
        good = [(lengths[name], k) for name, k in alone if lengths[name] >= LONG and name not in places]
        if touch.buffer in temps and good:
            yield touch.buffer, max(good)[1]


@dataclass(frozen=True, slots=True)
class Windows:
    """What moves a kernel's windows. `places` are dims of the kernel that share a subscript with a dim of a reduction
    (u and v above); `inside` are those dims of reductions (k and l), in the order of the subscripts."""

    places: frozenset[str]
    inside: tuple[str, ...]


def _windows(kernel: Kernel, program: Program) -> Windows:
    access, own = Access(kernel, program), {dim.index for dim in kernel.dims}
    seen = [touch for touch in _touches(kernel, access) if touch.places]
    places = frozenset().union(*(touch.places for touch in seen))
    moving = [sorted(access.dependence(subscript)) for touch in seen for subscript in touch.at]
    inside = tuple(dict.fromkeys(name for names in moving for name in names if name not in own))
    return Windows(places, inside)


@dataclass(frozen=True, slots=True)
class _WindowTouch(Touch):
    """A load or a store of a kernel, and the `places` of the window that it reads, if it reads one."""

    places: frozenset[str]


def _touches(kernel: Kernel, access: Access) -> list[_WindowTouch]:
    """What a kernel's reductions load, and what the kernel stores."""
    own = {dim.index for dim in kernel.dims}
    found = []
    for reduce in kernel.reduces:
        bound = {dim.index for dim in reduce.dims}
        for load in dict.fromkeys(load for value in reduce.values for load in access.loads(value)):
            shared = [access.dependence(s) for s in load.at]
            mixed = [names & own for names in shared if names & own and names & bound]
            found.append(_WindowTouch(load.buffer, load.at, False, frozenset().union(*mixed)))
    return found + [_WindowTouch(store.buffer, store.at, True, frozenset()) for store in kernel.stores]


def _lengths(kernel: Kernel) -> dict[str, int]:
    """The known lengths of a kernel's dims and of its reductions'."""
    return known_lengths([*kernel.dims, *(dim for reduce in kernel.reduces for dim in reduce.dims)])


def _work(kernel: Kernel) -> int:
    """At how many points a kernel's reductions add something. A dim whose length comes with the data counts as one
    point."""
    return length_of(kernel.dims) * max((length_of(reduce.dims) for reduce in kernel.reduces), default=1)


# Turning.


def _to_end(items: Sequence[_Item], dim: int) -> tuple[_Item, ...]:
    return (*items[:dim], *items[dim + 1 :], items[dim])


def _turned(buffer: Buffer, last: Mapping[str, int]) -> Buffer:
    return replace(buffer, dims=_to_end(buffer.dims, last[buffer.name])) if buffer.name in last else buffer


def _kernel(kernel: Kernel, last: Mapping[str, int], program: Program) -> Kernel:
    if last.keys().isdisjoint(touched((kernel,))):
        return kernel
    turned = map_kernel(kernel, lambda scalar: map_loads(scalar, lambda load: _moved(load, last)))
    stores = tuple(_moved(store, last) for store in turned.stores)
    turned = replace(turned, stores=stores)
    return _ordered(turned, last, _windows(turned, program))


def _moved(touch: _LoadOrStore, last: Mapping[str, int]) -> _LoadOrStore:
    """A load or store with its subscripts in the order in which its buffer lies."""
    return replace(touch, at=_to_end(touch.at, last[touch.buffer])) if touch.buffer in last else touch


def _ordered(kernel: Kernel, last: Mapping[str, int], windows: Windows) -> Kernel:
    """A kernel with its dims in another order. If it stores a temporary that was turned, they stand as they lie in it.
    Otherwise, if it has windows, the places stand first, and the long dims that no window moves with stand last. Its
    reductions go through the inside of windows in the order in which it lies in memory."""
    store = next((s for s in kernel.stores if s.buffer in last), None)
    rank: dict[str, int] = {}
    if store is not None:
        names = [s.name for s in store.at if isinstance(s, Index)]
        rank = {name: k for k, name in enumerate(names)}
    elif windows.places and kernel.stores:
        lies = [{p.name for p in walk(s) if isinstance(p, Index)} for s in kernel.stores[0].at]
        lengths = _lengths(kernel)
        rank = {
            dim.index: max((k for k, names in enumerate(lies) if dim.index in names), default=-1)
            for dim in kernel.dims
            if dim.index not in windows.places and lengths.get(dim.index, 0) >= LONG
        }
    dims = tuple(sorted(kernel.dims, key=lambda dim: rank.get(dim.index, -1)))
    return map_reduces(replace(kernel, dims=dims), lambda reduce: _inside(reduce, windows))


def _inside(reduce: Reduce, windows: Windows) -> Reduce:
    rank = {name: k for k, name in enumerate(windows.inside)}
    return replace(reduce, dims=tuple(sorted(reduce.dims, key=lambda dim: rank.get(dim.index, -1))))
