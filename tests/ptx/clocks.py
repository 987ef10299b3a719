"""Vector clocks: which accesses happen before what a warp does now.

The unit is the warp. Each warp counts epochs; its own goes up whenever it releases something (a barrier, a fence, a
release), so that what it does later is told apart from what others know of. `known(w, v)` is the last epoch of warp v
that is ordered before what warp w does now. While CTAs do not synchronise with each other this is a small matrix for
each (`inside`), later one matrix of all warps (`across`). A warp's lanes are ordered among themselves by `synced`:
accesses of earlier epochs happened before.
"""

from __future__ import annotations

import numpy as np

from tests.ptx.geometry import WARP, Geometry
from tests.ptx.kinds import Array

EPOCH_SHIFT = 40
_WARP_SHIFT = 5  # from the number of a thread to that of its warp


class Clocks:
    """The clocks of all resident warps."""

    def __init__(self, geometry: Geometry) -> None:
        self.per_cta = geometry.warps
        self.count = geometry.ctas * geometry.warps
        self.epoch = np.ones(self.count, np.uint32)
        self.synced = np.zeros(self.count, np.uint32)
        self.inside = np.zeros((self.count, self.per_cta), np.uint32)
        self.across: Array | None = None
        self._own = np.arange(self.count) % self.per_cta
        self.inside[np.arange(self.count), self._own] = 1
        self._stamps = np.repeat(np.array([1 << EPOCH_SHIFT], np.uint64), self.count * WARP)
        self._stamps += np.arange(1, self.count * WARP + 1, dtype=np.uint64)

    def known(self, warps: Array, others: Array) -> Array:
        """The last epoch of each other warp that is ordered before each warp's present."""
        if self.across is not None:
            return np.take(self.across, warps * self.count + others)
        place = others - warps + self._own[warps]
        near = (place >= 0) & (place < self.per_cta)
        return np.where(near, self.inside[warps, np.where(near, place, 0)], np.uint32(0))

    def of(self, warp: int) -> Array:
        """What a warp knows of all warps, itself included: what it releases."""
        if self.across is not None:
            return np.array(self.across[warp])
        clock = np.zeros(self.count, np.uint32)
        clock[self._near(warp)] = self.inside[warp]
        return clock

    def learn(self, warp: int, clock: Array) -> None:
        """Join what was released to what a warp knows: an acquire."""
        near = self._near(warp)
        if self.across is None and (clock[: near.start].any() or clock[near.stop :].any()):
            self.across = np.stack([self.of(w) for w in range(self.count)])
        if self.across is not None:
            np.maximum(self.across[warp], clock, out=self.across[warp])
        else:
            np.maximum(self.inside[warp], clock[near], out=self.inside[warp])

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
        return self._stamps if len(threads) == len(self._stamps) else self._stamps[threads]

    def order_lanes(self, warps: Array) -> None:
        """The lanes of these warps wait for each other."""
        self.advance(warps)
        self.synced[warps] = self.epoch[warps]

    def meet(self, warps: Array, keys: Array) -> None:
        """Warps that share a key wait for each other; `warps` in ascending order."""
        if self._whole_ctas(warps, keys):
            ctas = np.unique(warps // self.per_cta)
            table = self.inside if self.across is None else self.across
            rows = table.reshape(len(table) // self.per_cta, self.per_cta, -1)
            rows[ctas] = rows[ctas].max(axis=1, keepdims=True)
        else:
            for key in np.unique(keys):
                self._join(warps[keys == key])
        self.order_lanes(np.unique(warps))

    def _whole_ctas(self, warps: Array, keys: Array) -> bool:
        if len(warps) % self.per_cta:
            return False
        by_cta, together = warps.reshape(-1, self.per_cta), keys.reshape(-1, self.per_cta)
        one_cta = by_cta[:, 0] % self.per_cta == 0
        return bool((one_cta & (by_cta[:, -1] - by_cta[:, 0] == self.per_cta - 1)).all()) and bool(
            (together == together[:, :1]).all()
        )

    def _join(self, warps: Array) -> None:
        clock = np.zeros(self.count, np.uint32)
        for warp in warps:
            np.maximum(clock, self.of(int(warp)), out=clock)
        for warp in warps:
            self.learn(int(warp), clock)


def warps_of(threads: Array) -> Array:
    """The warps of some threads, each once, ascending."""
    return _distinct(threads >> _WARP_SHIFT)


def warps_and(threads: Array, keys: Array) -> tuple[Array, Array]:
    """The different pairs of a thread's warp and its key (below 2^32), ascending by warp."""
    pairs = _distinct((threads >> _WARP_SHIFT << 32) | keys)
    return pairs >> 32, pairs & 0xFFFFFFFF


def _distinct(values: Array) -> Array:
    """Sorted and each once. Neighbours are mostly equal, so most of the sorting is saved."""
    return np.unique(values[np.flatnonzero(np.diff(values, prepend=-1))])
