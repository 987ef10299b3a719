"""Threads, warps, CTAs and clusters of a launch: who is where, and the special registers that say so.

The threads of a CTA are padded to whole warps; CTAs are numbered cluster after cluster, so that the CTAs of a cluster
lie together. A `Geometry` describes the CTAs that run at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tests.ptx.kinds import Array

Shape = tuple[int, int, int]
WARP = 32


def unravel(index: Array, shape: Shape) -> tuple[Array, Array, Array]:
    """x, y, z of linear indices, x fastest."""
    x, y = shape[0], shape[1]
    return index % x, index // x % y, index // (x * y)


@dataclass(frozen=True, eq=False)
class Geometry:
    """CTAs `first` to `first + ctas - 1` (in clusters' order) of a grid."""

    grid: Shape
    block: Shape
    cluster: Shape
    first: int
    ctas: int

    @property
    def threads(self) -> int:
        """Threads of a CTA."""
        return math.prod(self.block)

    @property
    def warps(self) -> int:
        """Warps of a CTA."""
        return -(-self.threads // WARP)

    @property
    def padded(self) -> int:
        """Threads of a CTA, those that only fill its last warp included."""
        return self.warps * WARP

    @property
    def count(self) -> int:
        """All threads, padding included."""
        return self.ctas * self.padded

    @cached_property
    def cta(self) -> Array:
        """Each thread's CTA, counted from `first`."""
        return np.repeat(np.arange(self.ctas), self.padded)

    @cached_property
    def linear(self) -> Array:
        """Each thread's number within its CTA."""
        return np.tile(np.arange(self.padded), self.ctas)

    @cached_property
    def exists(self) -> Array:
        """False for padding."""
        return self.linear < self.threads

    @cached_property
    def cta_index(self) -> tuple[Array, Array, Array]:
        """%ctaid of each CTA."""
        size = math.prod(self.cluster)
        number = np.arange(self.first, self.first + self.ctas)
        inner = unravel(number % size, self.cluster)
        outer = unravel(number // size, self.clusters)
        return tuple(o * c + i for o, c, i in zip(outer, self.cluster, inner, strict=True))  # type: ignore[return-value]

    @property
    def clusters(self) -> Shape:
        """The grid counted in clusters."""
        x, y, z = (g // c for g, c in zip(self.grid, self.cluster, strict=True))
        return x, y, z

    def name(self, thread: int) -> str:
        """A thread in words."""
        x, y, z = (int(v) for v in unravel(np.array(thread % self.padded), self.block))
        cx, cy, cz = (int(axis[thread // self.padded]) for axis in self.cta_index)
        return f"thread ({x},{y},{z}) of CTA ({cx},{cy},{cz})"

    def special(self, name: str) -> Array | None:
        """A special register: one value for each thread, or one for all; None when the name is unknown."""
        axis = "xyz".find(name[-1])
        compute = self._vectors.get(name[:-2]) if axis >= 0 and name[-2:-1] == "." else None
        if compute is not None:
            return compute(axis).astype(np.uint32)
        scalar = self._scalars.get(name)
        return None if scalar is None else scalar().astype(np.uint32)

    @cached_property
    def _vectors(self) -> dict[str, Callable[[int], Array]]:
        size = math.prod(self.cluster)
        number = np.arange(self.first, self.first + self.ctas)
        return {
            "%tid": lambda a: np.where(self.exists, unravel(self.linear, self.block)[a], 0),
            "%ntid": lambda a: np.array([self.block[a]]),
            "%ctaid": lambda a: np.repeat(self.cta_index[a], self.padded),
            "%nctaid": lambda a: np.array([self.grid[a]]),
            "%clusterid": lambda a: np.repeat(unravel(number // size, self.clusters)[a], self.padded),
            "%nclusterid": lambda a: np.array([self.clusters[a]]),
            "%cluster_ctaid": lambda a: np.repeat(unravel(number % size, self.cluster)[a], self.padded),
            "%cluster_nctaid": lambda a: np.array([self.cluster[a]]),
        }

    @cached_property
    def _scalars(self) -> dict[str, Callable[[], Array]]:
        size = math.prod(self.cluster)
        lane = self.linear % WARP
        one = np.uint64(1)
        below = (one << lane.astype(np.uint64)) - one
        return {
            "%laneid": lambda: lane,
            "%warpid": lambda: self.linear // WARP,
            "%nwarpid": lambda: np.array([self.warps]),
            "%cluster_ctarank": lambda: np.repeat(np.arange(self.first, self.first + self.ctas) % size, self.padded),
            "%cluster_nctarank": lambda: np.array([size]),
            "%smid": lambda: self.cta % 132,
            "%nsmid": lambda: np.array([132]),
            "%gridid": lambda: np.array([0]),
            "%lanemask_eq": lambda: below + one,
            "%lanemask_lt": lambda: below,
            "%lanemask_le": lambda: below * np.uint64(2) + one,
            "%lanemask_gt": lambda: ~(below * np.uint64(2) + one) & np.uint64(0xFFFFFFFF),
            "%lanemask_ge": lambda: ~below & np.uint64(0xFFFFFFFF),
        }
