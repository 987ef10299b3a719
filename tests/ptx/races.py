"""Data races: two threads touch the same byte, one of them writes, and nothing orders the two.

For every few bytes of memory the detector keeps the last write and two reads since (the latest, and the latest of
another warp), each with its thread, epoch and line, and compares an access with them by the vector clocks of `clocks`.
Order comes from `ordering`. Two accesses that are atomic, volatile, relaxed and so on do not race with each other if
each has the other's thread in its scope, and both are of the same bytes (PTX ISA, "Morally Strong Operations").

What it reports is a race in the PTX memory model. What it does not see:
- `bar.arrive` and cluster barriers count for a warp: lanes that reach them apart from each other are taken together.
- Of many reads of a byte only two are remembered, so a write may race unseen with an earlier third reader.
- CTAs that do not run at the same time (see `RESIDENT_THREADS` in `launch`) are taken as unordered, even where one
  waits for what another has released before it ended.
- All elements of a vector are read or written at once, though PTX has them one after another.
- `cp.async` is the issuing thread's own access; other proxies need no fence here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tests.ptx.clocks import EPOCH_SHIFT, WARP_SHIFT
from tests.ptx.errors import PtxError, Race
from tests.ptx.geometry import WARP, Geometry
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.memory import Space
from tests.ptx.ordering import Ordering

if TYPE_CHECKING:
    from tests.ptx.access import Kind, Part

# A remembered access: epoch, line, whether strong, thread + 1; 0: none.
_THREAD_BITS, _STRONG_BIT, _LINE_SHIFT = 20, 20, 21
_THREAD_MASK = np.uint64((1 << _THREAD_BITS) - 1)
_STRONG = np.uint64(1 << _STRONG_BIT)
_UNORDERED = "no barrier, release or acquire orders the two"
_LINE_MASK = (1 << (EPOCH_SHIFT - _LINE_SHIFT)) - 1
_NARROW: dict[str, Callable[[int], int]] = {"cta": lambda cluster: 1, "cluster": lambda cluster: cluster}  # CTAs


class Shadow:
    """For each granule of a space: the last write, and two reads since."""

    def __init__(self, space: Space, granule: int) -> None:
        size = len(space.data) // granule
        self.write = np.zeros(size, np.uint64)
        self.read = np.zeros(size, np.uint64)
        self.other_read = np.zeros(size, np.uint64)


class Ended:
    """What CTAs of a launch that have ended did to global memory: for each granule, the last write and a read. On a GPU
    they may run beside those that follow, or after."""

    def __init__(self) -> None:
        self.write = self.read = np.zeros(0, np.uint64)
        self.strong: dict[int, set[tuple[str, int]]] = {}  # by line: scopes and sizes of its strong accesses so far

    def add(self, shadow: Shadow) -> None:
        if not len(self.write):
            self.write, self.read = shadow.write, shadow.read
            return
        self.write = np.where(shadow.write, shadow.write, self.write)
        self.read = np.where(shadow.read, shadow.read, self.read)


class Races(Ordering):
    """The detector of one machine. `granule`: bytes, the smallest access of the kernel. `ended`: what the CTAs of the
    launch did that ran before those of the machine."""

    def __init__(self, geometry: Geometry, granule: int, ended: Ended | None = None) -> None:
        super().__init__(geometry)
        self.granule = granule
        self._ended = Ended() if ended is None else ended
        self._shift = granule.bit_length() - 1
        self._shadows: dict[int, Shadow] = {}
        self._strong = self._ended.strong
        self._unlike = self._are_unlike()

    def read(self, g: Group, kind: Kind, part: Part) -> None:
        """Compare a read with the last write, and remember it."""
        if part.space is g.machine.local:
            return
        self.clocks.accesses += not kind.strong
        if kind.strong:
            self._know(kind)
        shadow = self._shadow(part.space)
        granules = part.offsets >> self._shift
        count = kind.size // self.granule
        if len(granules) == 1 and g.count > 1 and part.lanes is None:
            self._read_one(g, kind, part, shadow, int(granules[0]), count)
            return
        threads, granules = self._lanes(g, part, granules, count)
        self._check_ended(g, kind, part, granules, threads, writes=False)
        written = shadow.write[granules]
        self._check(g, kind, written, threads, "writes")
        self._check_unchanged(g, kind, written, threads)
        tags = self._tags(kind, threads)
        warps = threads >> WARP_SHIFT
        before = shadow.read[granules]
        other = (self._warp(before) != warps) & (before != 0)
        if other.any():
            shadow.other_read[granules[other]] = before[other]
        shadow.read[granules] = tags
        lost = self._warp(shadow.read[granules]) != warps
        if lost.any():
            shadow.other_read[granules[lost]] = tags[lost]

    def _read_one(self, g: Group, kind: Kind, part: Part, shadow: Shadow, granule: int, count: int) -> None:
        """All threads of the group read the same place."""
        threads = g.numbers
        self._check_ended(g, kind, part, np.arange(granule, granule + count), threads, writes=False)
        ends = self._tags(kind, threads[[0, -1]])
        for place in range(granule, granule + count):
            if shadow.write[place]:
                written = np.repeat(shadow.write[place : place + 1], len(threads))
                self._check(g, kind, written, threads, "writes")
                self._check_unchanged(g, kind, written, threads)
            if shadow.read[place] and self._warp(shadow.read[place : place + 1])[0] != threads[-1] // WARP:
                shadow.other_read[place] = shadow.read[place]
            shadow.read[place] = ends[1]
            if threads[0] // WARP != threads[-1] // WARP:
                shadow.other_read[place] = ends[0]

    def write(self, g: Group, kind: Kind, part: Part) -> None:
        """Compare a write with the last write and the reads since, and remember it."""
        if part.space is g.machine.local:
            return
        self.clocks.accesses += not kind.strong
        if kind.strong:
            self._know(kind)
        shadow = self._shadow(part.space)
        granules = part.offsets >> self._shift
        if len(granules) == 1 and g.count > 1 and part.lanes is None:
            granules = np.repeat(granules, g.count)
        threads, granules = self._lanes(g, part, granules, kind.size // self.granule)
        self._check_ended(g, kind, part, granules, threads, writes=True)
        self._check(g, kind, shadow.write[granules], threads, "writes")
        self._check(g, kind, shadow.read[granules], threads, "reads")
        self._check(g, kind, shadow.other_read[granules], threads, "reads")
        tags = self._tags(kind, threads)
        shadow.write[granules] = tags
        if not kind.strong:
            self._check_same_time(g, kind, shadow.write[granules], tags, threads)
        shadow.read[granules] = 0
        shadow.other_read[granules] = 0

    def _check_same_time(self, g: Group, kind: Kind, found: Array, tags: Array, threads: Array) -> None:
        """Two lanes that write one place in one instruction: only one tag is left."""
        lost = found != tags
        if lost.any():
            first = int(np.flatnonzero(lost)[0])
            raise self._error(g, kind, int(threads[first]), int(found[first]), "writes")

    def _check_unchanged(self, g: Group, kind: Kind, written: Array, threads: Array) -> None:
        """`ld.global.nc` may give an old value of what this launch has written, also after a barrier."""
        if kind.instruction.has("nc") and written.any():
            first = int(np.flatnonzero(written)[0])
            raise self._error(
                g, kind, int(threads[first]), int(written[first]), "writes", "`.nc` needs memory that nothing writes"
            )

    def _check_ended(self, g: Group, kind: Kind, part: Part, granules: Array, threads: Array, writes: bool) -> None:
        """CTAs that have ended wrote here, or read what is written now."""
        if part.space is not g.machine.memory or not len(self._ended.write):
            return
        for tags, verb in ((self._ended.write, "writes"), (self._ended.read, "reads"))[: 1 + writes]:
            found = tags[granules]
            both = np.full(len(found), False) if not kind.strong else found & _STRONG != 0
            if both.any() and self._unlike:
                both[both] = self._morally_strong(kind, found[both], None)
            bad = (found != 0) & ~both
            if bad.any():
                first = int(np.flatnonzero(bad)[0])
                what = f"another CTA, which {verb} the same bytes in {self._line(g, int(found[first]))}"
                thread = int(threads[first % len(threads)])
                raise g.machine.error(Race, kind.instruction, thread, f"races with {what}; {_UNORDERED}")

    def end(self, space: Space) -> None:
        """All CTAs of the machine have ended."""
        if id(space) in self._shadows:
            self._ended.add(self._shadows[id(space)])

    def _line(self, g: Group, tag: int) -> str:
        line = tag >> _LINE_SHIFT & _LINE_MASK
        text = next((i.text for i in g.machine.code.program.code if i.line == line), "")
        return f"line {line} `{text}`"

    def _lanes(self, g: Group, part: Part, granules: Array, count: int) -> tuple[Array, Array]:
        """Threads and granules, one entry for each granule that an access covers."""
        threads = g.numbers if part.lanes is None else g.numbers[part.lanes]
        if count == 1:
            return threads, granules
        return np.repeat(threads, count), (granules[:, None] + np.arange(count)).reshape(-1)

    def _know(self, kind: Kind) -> None:
        """Remember a strong access."""
        known = self._strong.setdefault(kind.instruction.line & _LINE_MASK, set())
        if (kind.scope, _element(kind)) not in known:
            known.add((kind.scope, _element(kind)))
            self._unlike = self._are_unlike()

    def _are_unlike(self) -> bool:
        """Whether scopes or sizes may keep two of the strong accesses from being morally strong."""
        known = set().union(*self._strong.values())
        return len({size for _, size in known}) > 1 or any(scope in _NARROW for scope, _ in known)

    def _morally_strong(self, kind: Kind, tags: Array, threads: tuple[Array, Array] | None) -> Array:
        """Whether each of some strong accesses, remembered as tags, and the present one are morally strong. `threads`:
        those of the present access and of the others; None: others that are in no narrow scope of these."""
        found = np.full(len(tags), True)
        lines = (tags >> np.uint64(_LINE_SHIFT)) & np.uint64(_LINE_MASK)
        for line in np.unique(lines).tolist():
            mine, others = lines == line, self._strong[line]
            found[mine] = {size for _, size in others} == {_element(kind)}
            for scope in {kind.scope, *(scope for scope, _ in others)} & _NARROW.keys():
                if threads is None:
                    found[mine] = False
                    continue
                span = _NARROW[scope](self.ctas_per_cluster) * self.clocks.per_cta * WARP
                now, then = threads
                found[mine] &= now[mine] // span == then[mine] // span
        return found

    def _tags(self, kind: Kind, threads: Array) -> Array:
        line = (kind.instruction.line & _LINE_MASK) << _LINE_SHIFT
        return self.clocks.stamps(threads) | np.uint64(line | (int(_STRONG) if kind.strong else 0))

    def _warp(self, tags: Array) -> Array:
        return ((tags & _THREAD_MASK).view(np.int64) - 1) >> WARP_SHIFT

    def _check(self, g: Group, kind: Kind, tags: Array, threads: Array, verb: str) -> None:
        """Raise unless every remembered access is ordered before the present one."""
        if not tags.any():
            return
        earlier = (tags & _THREAD_MASK).view(np.int64) - 1
        suspect = (earlier != threads) & (earlier >= 0)
        if kind.strong:
            both = suspect & ((tags & _STRONG) != 0)
            if self._unlike and both.any():
                both[both] = self._morally_strong(kind, tags[both], (threads[both], earlier[both]))
            suspect &= ~both
        chosen = np.flatnonzero(suspect)
        if not len(chosen):
            return
        tags, earlier, threads = tags[chosen], earlier[chosen], threads[chosen]
        epochs = (tags >> np.uint64(EPOCH_SHIFT)).astype(np.uint32)
        then, now = earlier >> WARP_SHIFT, threads >> WARP_SHIFT
        ordered = np.where(then == now, epochs < self.clocks.synced[now], epochs <= self.clocks.known(now, then))
        for n in np.flatnonzero(~ordered):
            if not self.clocks.knows(int(threads[n]), int(earlier[n]), int(epochs[n])):
                raise self._error(g, kind, int(threads[n]), int(tags[n]), verb)

    def _error(self, g: Group, kind: Kind, thread: int, tag: int, verb: str, why: str = _UNORDERED) -> PtxError:
        other = (tag & int(_THREAD_MASK)) - 1
        machine = g.machine
        what = f"races with {machine.geometry.name(other)}, which {verb} the same bytes in {self._line(g, tag)}; {why}"
        return machine.error(Race, kind.instruction, thread, what)

    def _shadow(self, space: Space) -> Shadow:
        key = id(space)
        if key not in self._shadows:
            self._shadows[key] = Shadow(space, self.granule)
        return self._shadows[key]


def _element(kind: Kind) -> int:
    """The bytes that an access reads or writes as one."""
    return kind.size // {"v2": 2, "v4": 4, "v8": 8}.get(kind.instruction.one_of("v2", "v4", "v8"), 1)


class Unchecked(Races):
    """A detector that looks at nothing."""

    def end(self, space: Space) -> None: ...
    def read(self, g: Group, kind: Kind, part: Part) -> None: ...
    def write(self, g: Group, kind: Kind, part: Part) -> None: ...
    def meet(self, threads: Array, keys: Array) -> None: ...
    def order_warps(self, threads: Array) -> None: ...
    def signal(self, threads: Array, keys: Array) -> None: ...
    def arrive(self, threads: Array, clusters: Array, releases: bool) -> None: ...
    def complete(self, clusters: Array) -> None: ...
    def depart(self, threads: Array, clusters: Array, acquires: bool) -> None: ...
    def fence(self, g: Group, scope: str) -> None: ...
    def synchronise(self, *_: object, **__: object) -> None: ...
