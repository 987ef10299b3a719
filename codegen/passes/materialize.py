"""Copies what a contraction reads through a reshape into the order in which it is read.

In: a Program. Out: a Program that computes the same. A load that takes an index apart into digits,

    x[n, r // 4, 2 i + (r // 2) mod 2, 2 j + r mod 2]    becomes    y[i, j, n, r]

where y is filled right before. The blocks of an image are read so, again and again; a copy of them is as large as the
image. Only a copy that is no larger than its source is made, so windows that overlap stay as they are. Kernels that
read a source the same way share the copy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import MEMORY, Access, substitute
from graphc.codegen.passes.split import cuts
from graphc.codegen.program import (
    Buffer,
    Const,
    Index,
    Kernel,
    Load,
    Program,
    Scalar,
    Statement,
    Store,
    indices_of,
    kernels,
    map_kernel,
    numbered,
)
from graphc.codegen.uses import loads, store_counts
from graphc.scalar import replaced, with_indices

__all__ = ["materialize"]


@dataclass(frozen=True, slots=True)
class _View:
    """Elements of a buffer by indices of its own, d0, d1 and so on: kernels that read alike have equal views."""

    source: str
    dtype: str
    extents: tuple[Scalar, ...]
    at: tuple[Scalar, ...]


_Viewed = tuple[_View, tuple[Index, ...]]
"""The view that a copy holds, and the indices at which a load reads the copy."""


def materialize(program: Program) -> Program:
    """The program with copies of the buffers that contractions read by the digits of an index."""
    writers = store_counts(program.body)
    settled = {b.name for b in program.buffers if (b.kind, writers[b.name]) in (("temp", 1), ("input", 0))}
    views = {s: _views(s, settled, program) for s in program.body if isinstance(s, Kernel)}
    copies: dict[_View, Buffer] = {}
    for view in dict.fromkeys(view for found in views.values() for view, _ in found.values()):
        copies[view] = _buffer(view, copies)
    only = _only_views(program, views)
    body: list[Statement] = []
    made: set[_View] = set()
    for statement in program.body:
        if isinstance(statement, Kernel):
            needed = [view for view, _ in views[statement].values() if view not in made and view not in only.values()]
            body += [_copy(view, copies[view]) for view in dict.fromkeys(needed)]
            made.update(needed)
            instead = next((only[s.buffer] for s in statement.stores if s.buffer in only), None)
            statement = _reading(statement, views[statement], copies)
            statement = statement if instead is None else _storing(statement, instead, copies[instead])
        body.append(statement)
    kept = [b for b in program.buffers if b.name not in only]
    return replace(program, buffers=(*kept, *copies.values()), body=tuple(body))


def _only_views(program: Program, views: Mapping[Kernel, Mapping[Load, _Viewed]]) -> dict[str, _View]:
    """The sources that can be stored as they are viewed, and in no other way. All loads of such a source share one
    view, and the kernel that stores it has no reductions and stores one element at each point."""
    read: dict[str, set[_View | None]] = {}
    for kernel in kernels(program.body):
        served = views.get(kernel, {})
        for load in set(loads(kernel)):
            read.setdefault(load.buffer, set()).add(served[load][0] if load in served else None)
    found: dict[str, _View] = {}
    for statement in program.body:
        if isinstance(statement, Kernel) and len(statement.stores) == 1:
            (store,) = statement.stores
            plain = store.at == indices_of(statement.dims) and not store.accumulate
            seen = read.get(store.buffer, set())
            if plain and len(seen) == 1 and not statement.reduces:
                (view,) = seen
                found |= {} if view is None else {store.buffer: view}
    return found


def _views(kernel: Kernel, settled: set[str], program: Program) -> dict[Load, _Viewed]:
    """The loads of a kernel that read a copy instead. The same load may stand in several reductions, whose dims of one
    name may be of different lengths; it stays unless all of them view it alike."""
    access = Access(kernel, program)
    found: dict[Load, _Viewed | None] = {}
    for reduce in kernel.reduces:
        extents = {dim.index: dim.extent for dim in (*kernel.dims, *reduce.dims)}
        for load in dict.fromkeys(load for value in reduce.values for load in access.loads(value)):
            viewed = _viewed(load, extents, access) if load.buffer in settled else None
            if found.setdefault(load, viewed) != viewed:
                found[load] = None
    return {load: viewed for load, viewed in found.items() if viewed is not None}


def _viewed(load: Load, extents: Mapping[str, Scalar], access: Access) -> _Viewed | None:
    """How a load inside a reduction reads a copy; None if it takes no index apart, or the copy would be too large."""
    order = _order(load, extents, access) if set(extents) > access.dependence(load) - {MEMORY} else []
    if not order or _larger([extents[name] for name in order], access.buffers[load.buffer]):
        return None
    return _view(load, order, extents, access), tuple(map(Index, order))


def _order(load: Load, extents: Mapping[str, Scalar], access: Access) -> list[str]:
    """The indices of a copy, those that the load takes apart last; none if it takes none apart."""
    moving = set().union(*(access.dependence(s) for s in load.at))
    if load.when is not None or not moving <= set(extents):
        return []
    apart = {name for name in moving if any(True for s in load.at for _ in cuts(s, Index(name)))}
    return [n for n in extents if n in moving - apart] + [n for n in extents if n in apart] if apart else []


def _larger(extents: Sequence[Scalar], source: Buffer) -> bool:
    """Whether there are, or may be, more elements of these extents than the source has."""
    if source.has_ring:
        return True
    ours, theirs = _count(extents), _count(source.extents)
    return ours[1] != theirs[1] or ours[0] > theirs[0]


def _count(extents: Sequence[Scalar]) -> tuple[int, Counter[Scalar]]:
    """A product of extents: the product of those that are known, and the others."""
    known = math.prod(int(extent.value) for extent in extents if isinstance(extent, Const))
    return known, Counter(extent for extent in extents if not isinstance(extent, Const))


def _view(load: Load, order: Sequence[str], extents: Mapping[str, Scalar], access: Access) -> _View:
    names: dict[str, Scalar] = {name: Index(f"d{k}") for k, name in enumerate(order)}
    at = tuple(substitute(s, names, access) for s in load.at)
    return _View(load.buffer, load.dtype, tuple(extents[name] for name in order), at)


def _buffer(view: _View, copies: Mapping[_View, Buffer]) -> Buffer:
    times = sum(other.source == view.source for other in copies)
    name = f"{view.source}.blocks" + (f".{times}" if times else "")
    return Buffer(name, view.dtype, view.extents, "temp")


def _copy(view: _View, buffer: Buffer) -> Kernel:
    dims = numbered(view.extents)
    store = Store(buffer.name, indices_of(dims), Load(view.source, view.at, view.dtype))
    return Kernel(f"materialize.{buffer.name}", dims, (), (store,))


def _storing(kernel: Kernel, view: _View, buffer: Buffer) -> Kernel:
    """The kernel that stores a source, changed to store what a view sees of it."""
    copy = _copy(view, buffer)
    where = {dim.index: subscript for dim, subscript in zip(kernel.dims, view.at, strict=True)}
    moved = map_kernel(kernel, lambda scalar: with_indices(scalar, where))
    return replace(moved, dims=copy.dims, stores=(replace(copy.stores[0], value=moved.stores[0].value),))


def _reading(kernel: Kernel, views: Mapping[Load, _Viewed], copies: Mapping[_View, Buffer]) -> Kernel:
    if not views:
        return kernel

    def rule(part: Scalar) -> Scalar | None:
        if not isinstance(part, Load) or part not in views:
            return None
        view, at = views[part]
        return Load(copies[view].name, at, view.dtype)

    return map_kernel(kernel, lambda scalar: replaced(scalar, rule))
