"""How often, and in which direction, a program goes through the parts of an axis.

In: the statements of `graphc.codegen.memory.running_sums`. Out: for each the sweep that it belongs to, and for each
sweep its direction. A statement shares a sweep with what it reads as long as it reads no part that is still to come;
what a sum over the axis comes to is known after the sweep that makes it. A recurrent network takes one ascending sweep,
and its gradient a descending one after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from graphc.codegen.memory.running_sums import Item, Split
from graphc.codegen.program import Loop, Statement, kernels
from graphc.codegen.uses import loads, stored
from graphc.scalar import Index, offset_from

When = Literal["before", "in parts", "after"]
_ORDER: tuple[When, ...] = ("before", "in parts", "after")
Reach = tuple[int, int]  # the lowest and the highest offset along the axis


@dataclass(frozen=True, slots=True)
class Scheduled:
    """An item and its sweep. One that runs once stands before the sweep. `reads` are the buffers that it loads, each
    with how far from its own point along the axis; None: anywhere."""

    item: Item
    sweep: int
    reads: Mapping[str, Reach | None]
    stores: frozenset[str]


@dataclass(frozen=True)
class Sweeps:
    """The statements in order; whether each sweep descends; and the temporaries of which one part at a time is enough,
    each with the dimension that runs along the axis."""

    order: tuple[Scheduled, ...]
    descending: tuple[bool, ...]
    along: Mapping[str, int]

    def home(self, buffer: str) -> int:
        """The sweep after which all of a buffer has been stored."""
        return max(s.sweep for s in self.order if buffer in s.stores)


@dataclass(frozen=True, slots=True)
class _Available:
    """When a buffer has been stored: before a sweep, after it, or part by part in it."""

    sweep: int
    when: When


def sweeps(split: Split) -> Sweeps:
    """The sweeps of a program whose sums over the axis are running sums."""
    along = _along(split)
    directions: list[bool | None] = []  # of each sweep: whether it descends; None: either will do
    available: dict[str, _Available] = {}
    order: list[Scheduled] = []
    for item in split.body:
        statement = item.statement
        stores = frozenset(stored((statement,)))
        reads = reads_along(statement, split.axis)
        if item.piecewise:
            wanted = statement.reverse if isinstance(statement, Loop) and statement.index == split.axis else None
            sweep = _earliest({b: r for b, r in reads.items() if b not in stores}, available, wanted, directions)
        else:
            sweep = max((a.sweep + (a.when != "before") for b in reads if (a := available.get(b))), default=0)
        for buffer in stores:  # others may have stored other parts of it, as of a concatenation
            own = _Available(sweep, _when(item, buffer, split.axis))
            available[buffer] = max(own, available.get(buffer, own), key=lambda a: (a.sweep, _ORDER.index(a.when)))
        order.append(Scheduled(item, sweep, reads, stores))
    params = {b.name for b in split.buffers.values() if b.kind == "param"}
    order = [_late(s, order, params, len(directions)) for s in order]
    return Sweeps(tuple(order), tuple(bool(d) for d in directions), along)


def _late(scheduled: Scheduled, order: Sequence[Scheduled], params: set[str], last: int) -> Scheduled:
    """A statement that overwrites a param, moved behind every sweep, as all of them may read the param; unless
    something needs what else it makes."""
    others = scheduled.stores - params
    needed = any(others & other.reads.keys() for other in order if other is not scheduled)
    return scheduled if needed or not scheduled.stores & params else replace(scheduled, sweep=last)


def _earliest(
    reads: Mapping[str, Reach | None],
    available: Mapping[str, _Available],
    wanted: bool | None,
    directions: list[bool | None],
) -> int:
    """The first sweep in which a statement can run, at the earliest the one that makes what it reads. There, who reads
    the parts before needs an ascending sweep, and who reads those ahead a descending one; a loop has its own direction
    (`wanted`). This may settle the direction of the sweep."""
    sweep = 0
    for buffer, reach in reads.items():
        if known := available.get(buffer):
            shared = known.when == "before" or (known.when == "in parts" and reach is not None)
            sweep = max(sweep, known.sweep + (not shared))
    while True:
        if sweep == len(directions):
            directions.append(None)
        in_it = _Available(sweep, "in parts")
        reaches = [reach for buffer, reach in reads.items() if reach and available.get(buffer) == in_it]
        back, ahead = any(low < 0 for low, _ in reaches), any(high > 0 for _, high in reaches)
        needed = {wanted, directions[sweep], True if ahead else None, False if back else None} - {None}
        if len(needed) <= 1:
            directions[sweep] = next(iter(needed), None)
            return sweep
        sweep += 1


def reads_along(statement: Statement, axis: str) -> dict[str, Reach | None]:
    """The buffers that a statement loads, each with how far from its own point along the axis; None: anywhere."""
    reads: dict[str, Reach | None] = {}
    for load in (load for kernel in kernels((statement,)) for load in loads(kernel)):
        offsets = [k for s in load.at if (k := offset_from(s, axis)) is not None]
        known = reads.get(load.buffer, (offsets[0], offsets[0]) if offsets else None)
        reads[load.buffer] = (min(known[0], *offsets), max(known[1], *offsets)) if known and offsets else None
    return reads


def _when(item: Item, buffer: str, axis: str) -> When:
    """When a statement has made a buffer: in parts, if each point of the axis stores its own part."""
    if not item.piecewise:
        return "before"
    stores = [s for kernel in kernels((item.statement,)) for s in kernel.stores if s.buffer == buffer]
    return "in parts" if all(Index(axis) in store.at for store in stores) else "after"


def _along(split: Split) -> dict[str, int]:
    """The temporaries that only piecewise statements touch, at their own index of the axis or at a fixed distance from
    it; each with the dimension that runs along the axis."""
    places: dict[str, set[int]] = {
        b.name: set(range(len(b.dims))) for b in split.buffers.values() if b.kind == "temp" and b.dims
    }
    for item in split.body:
        for kernel in kernels((item.statement,)):
            for load in loads(kernel):
                if load.buffer in places:
                    fits = {k for k, s in enumerate(load.at) if offset_from(s, split.axis) is not None}
                    places[load.buffer] &= fits if item.piecewise else set()
            for store in kernel.stores:
                if store.buffer in places:
                    fits = {k for k, s in enumerate(store.at) if s == Index(split.axis)}
                    places[store.buffer] &= fits if item.piecewise else set()
    return {name: min(found) for name, found in places.items() if found and len(found) == 1}
