"""Vector clocks: which accesses happen before what a thread does now.

Each warp counts epochs; its own goes up whenever it releases something (a barrier, a fence, a release), so that what it
does later is told apart from what others know of. What all lanes of a warp know is a row of a matrix: for each other
warp the last epoch that is ordered before its present. While CTAs do not synchronise with each other there is a small
matrix for each (`inside`), later one of all warps (`across`). The lanes of a warp are ordered among themselves by
`synced`: accesses of earlier epochs happened before.

A single lane may release, and acquire, without its warp. What it releases of its own warp is what was done before the
lanes last met, and its own accesses (`Knowledge.lanes`). What it acquires is its own (`private`), until they meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tests.ptx.geometry import WARP, Geometry
from tests.ptx.kinds import Array

EPOCH_SHIFT = 40
WARP_SHIFT = 5  # from the number of a thread to that of its warp


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The last known epoch of each warp; and of single threads, where it is later than that of their warp."""

    warps: Array
    lanes: dict[int, int]

    def joined(self, other: Knowledge) -> Knowledge:
        """Both together."""
        warps = np.maximum(self.warps, other.warps)
        return Knowledge(warps, later(warps, self.lanes, other.lanes))

    def within(self, first: int, end: int) -> Knowledge:
        """The part about some warps."""
        if first == 0 and end == len(self.warps):
            return self
        warps = np.zeros_like(self.warps)
        warps[first:end] = self.warps[first:end]
        return Knowledge(warps, {t: e for t, e in self.lanes.items() if first <= t >> WARP_SHIFT < end})

    def includes(self, thread: int, epoch: int) -> bool:
        """Whether what a thread did in an epoch is known."""
        return bool(self.warps[thread >> WARP_SHIFT] >= epoch) or self.lanes.get(thread, 0) >= epoch


def later(warps: Array, *tables: dict[int, int]) -> dict[int, int]:
    """The threads' epochs of several tables that tell more than the warps' epochs."""
    found: dict[int, int] = {}
    for table in tables:
        for thread, epoch in table.items():
            if epoch > warps[thread >> WARP_SHIFT] and epoch > found.get(thread, 0):
                found[thread] = epoch
    return found


class Clocks:
    """The clocks of all resident warps."""

    def __init__(self, geometry: Geometry) -> None:
        self.per_cta = geometry.warps
        self.count = geometry.ctas * geometry.warps
        self.epoch = np.ones(self.count, np.uint32)
        self.synced = np.zeros(self.count, np.uint32)
        self.inside = np.zeros((self.count, self.per_cta), np.uint32)
        self.across: Array | None = None
        self.accesses = 0  # weak ones, of all threads
        self.private: dict[int, Knowledge] = {}  # by thread
        self._lanes: dict[int, dict[int, int]] = {}  # by warp: what all of it know of single threads
        self._met = np.zeros(self.count, np.int64)  # by warp: the accesses there had been when its lanes last met
        self._own = np.arange(self.count) % self.per_cta
        self.inside[np.arange(self.count), self._own] = 1
        self._stamps = np.repeat(np.array([1 << EPOCH_SHIFT], np.uint64), self.count * WARP)
        self._stamps += np.arange(1, self.count * WARP + 1, dtype=np.uint64)

    def known(self, warps: Array, others: Array) -> Array:
        """The last epoch of each other warp that is ordered before the present of all lanes of each warp."""
        if self.across is not None:
            return np.take(self.across, warps * self.count + others)
        place = others - warps + self._own[warps]
        near = (place >= 0) & (place < self.per_cta)
        return np.where(near, self.inside[warps, np.where(near, place, 0)], np.uint32(0))

    def knows(self, thread: int, other: int, epoch: int) -> bool:
        """Whether a lane knows of another thread's epoch what `known` does not say of its warp."""
        alone = self.private.get(thread)
        if alone is not None and alone.includes(other, epoch):
            return True
        return self._lanes.get(thread >> WARP_SHIFT, {}).get(other, 0) >= epoch

    def of(self, warp: int) -> Knowledge:
        """What all lanes of a warp release together."""
        lanes = self._lanes.get(warp, {})
        if self.across is not None:
            return Knowledge(np.array(self.across[warp]), lanes)
        clock = np.zeros(self.count, np.uint32)
        clock[self._near(warp)] = self.inside[warp]
        return Knowledge(clock, lanes)

    def of_lane(self, thread: int) -> Knowledge:
        """What one lane releases."""
        warp = thread >> WARP_SHIFT
        own = int(self.epoch[warp]) if self.accesses > self._met[warp] else 0  # nothing of its own where nobody did any
        common = self.alone(self.of(warp), thread, int(self.synced[warp]), own)
        return common.joined(self.private[thread]) if thread in self.private else common

    def alone(self, common: Knowledge, thread: int, synced: int, epoch: int) -> Knowledge:
        """The part of a warp's knowledge that is one lane's: of the other lanes only what was before they last met."""
        warps = common.warps.copy()
        warps[thread >> WARP_SHIFT] = max(synced - 1, 0)
        return Knowledge(warps, later(warps, common.lanes, {thread: epoch}))

    def learn(self, warp: int, knowledge: Knowledge) -> None:
        """All lanes of a warp acquire."""
        near, clock = self._near(warp), knowledge.warps
        if self.across is None and (clock[: near.start].any() or clock[near.stop :].any()):
            self.across = np.stack([self.of(w).warps for w in range(self.count)])
        if self.across is not None:
            np.maximum(self.across[warp], clock, out=self.across[warp])
        else:
            np.maximum(self.inside[warp], clock[near], out=self.inside[warp])
        if knowledge.lanes:
            self._lanes[warp] = later(self.of(warp).warps, self._lanes.get(warp, {}), knowledge.lanes)

    def learn_alone(self, thread: int, knowledge: Knowledge) -> None:
        """One lane acquires."""
        old = self.private.get(thread)
        self.private[thread] = knowledge if old is None else old.joined(knowledge)

    def advance(self, warps: Array) -> None:
        """A new epoch begins for these warps (each named once)."""
        self.epoch[warps] += np.uint32(1)
        if self.across is not None:
            self.across[warps, warps] = self.epoch[warps]
        else:
            self.inside[warps, self._own[warps]] = self.epoch[warps]
        self._stamps.reshape(-1, WARP)[warps] += np.uint64(1 << EPOCH_SHIFT)

    def _near(self, warp: int) -> slice:
        """The warps of a warp's CTA."""
        first = warp - warp % self.per_cta
        return slice(first, first + self.per_cta)

    def stamps(self, threads: Array) -> Array:
        """For each thread its warp's epoch, above bit EPOCH_SHIFT, and its own number plus 1."""
        every = len(threads) == len(self._stamps) and (len(threads) == 1 or threads[0] != threads[1])
        return self._stamps if every else self._stamps[threads]  # a wide access names half of the threads twice

    def order_lanes(self, warps: Array) -> None:
        """The lanes of these warps (each named once) wait for each other."""
        self._settle(warps)
        self._restart(warps)

    def meet(self, warps: Array, keys: Array) -> None:
        """Warps that share a key wait for each other; `warps` in ascending order."""
        distinct = np.unique(warps)
        self._settle(distinct)
        if self._whole_ctas(warps, keys):
            ctas = np.unique(warps // self.per_cta)
            table = self.inside if self.across is None else self.across
            rows = table.reshape(len(table) // self.per_cta, self.per_cta, -1)
            rows[ctas] = rows[ctas].max(axis=1, keepdims=True)
            self._share_lanes(ctas.tolist())
        else:
            for key in np.unique(keys):
                self._join(warps[keys == key])
        self._restart(distinct)

    def _settle(self, warps: Array) -> None:
        """What one lane of these warps knows, all know."""
        if self.private:
            meeting = set(warps.tolist())
            for thread in [t for t in self.private if t >> WARP_SHIFT in meeting]:
                self.learn(thread >> WARP_SHIFT, self.private.pop(thread))

    def _restart(self, warps: Array) -> None:
        """What follows is not ordered among the lanes, what was before is."""
        self.advance(warps)
        self.synced[warps] = self.epoch[warps]
        self._met[warps] = self.accesses

    def _share_lanes(self, ctas: Iterable[int]) -> None:
        """What a warp knows of single threads, its CTA knows."""
        if not self._lanes:
            return
        for cta in ctas:
            warps = range(cta * self.per_cta, (cta + 1) * self.per_cta)
            tables = [self._lanes.pop(w) for w in warps if w in self._lanes]
            shared = later(self.of(warps[0]).warps, *tables) if tables else {}
            if shared:
                self._lanes.update(dict.fromkeys(warps, shared))

    def _whole_ctas(self, warps: Array, keys: Array) -> bool:
        if len(warps) % self.per_cta:
            return False
        by_cta, together = warps.reshape(-1, self.per_cta), keys.reshape(-1, self.per_cta)
        one_cta = by_cta[:, 0] % self.per_cta == 0
        return bool((one_cta & (by_cta[:, -1] - by_cta[:, 0] == self.per_cta - 1)).all()) and bool(
            (together == together[:, :1]).all()
        )

    def _join(self, warps: Array) -> None:
        together = self.of(int(warps[0]))
        for warp in warps[1:]:
            together = together.joined(self.of(int(warp)))
        for warp in warps:
            self.learn(int(warp), together)


def warps_of(threads: Array) -> Array:
    """The warps of some threads, each once, ascending."""
    return _distinct(threads >> WARP_SHIFT)


def warps_and(threads: Array, keys: Array) -> tuple[Array, Array]:
    """The different pairs of a thread's warp and its key (below 2^32), ascending by warp."""
    pairs = _distinct((threads >> WARP_SHIFT << 32) | keys)
    return pairs >> 32, pairs & 0xFFFFFFFF


def _distinct(values: Array) -> Array:
    """Sorted and each once. Neighbours are mostly equal, so most of the sorting is saved."""
    return np.unique(values[np.flatnonzero(np.diff(values, prepend=-1))])
