"""What orders threads: barriers, and releases and acquires through memory.

Barriers of a CTA, a cluster and a warp order those that meet. A release adds what its thread knows to what a location
carries; an acquire of the same location, when each is within the other's scope, takes it. Both may be made of a fence
and a relaxed access. So a spinning flag, a lock, an mbarrier, or a grid barrier made of atomics is understood.

When all living lanes of a warp execute such an instruction together, they act as one; else each lane acts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.ptx.clocks import WARP_SHIFT, Clocks, Knowledge, warps_and, warps_of
from tests.ptx.geometry import WARP, Geometry
from tests.ptx.group import Group
from tests.ptx.kinds import Array

if TYPE_CHECKING:
    from tests.ptx.access import Kind, Part

Domain = tuple[int, int]  # warps from one up to another: who can see a release
_EXITED = 5


@dataclass(frozen=True, slots=True)
class Agent:
    """A whole warp, or one lane of it."""

    warp: int
    lane: int | None  # the thread's number

    @property
    def key(self) -> int:
        """The lane's number, or a negative one for a warp."""
        return -1 - self.warp if self.lane is None else self.lane


@dataclass(frozen=True, slots=True)
class Fenced:
    """What a fence would release, with the warp's epochs then."""

    knowledge: Knowledge
    synced: int
    epoch: int


class Ordering:
    """The clocks of the resident warps, and what barriers and memory locations carry."""

    def __init__(self, geometry: Geometry) -> None:
        self.clocks = Clocks(geometry)
        self.ctas_per_cluster = int(np.prod(geometry.cluster))
        self._released: dict[tuple[str, int], dict[Domain, Knowledge]] = {}  # by location: what its releases carry
        self._fenced: dict[int, dict[str, Fenced]] = {}  # by agent and scope: the last fence
        self._seen: dict[int, Knowledge] = {}  # by agent: what its next fence acquires
        self._signals: dict[int, Knowledge] = {}  # what `bar.arrive` brought to a barrier
        self._arrivals: dict[int, Knowledge] = {}  # by cluster: of its present phase
        self._completed: dict[int, Knowledge] = {}  # of its last phase

    # -- barriers ----------------------------------------------------------------------------------------------------

    def meet(self, threads: Array, keys: Array) -> None:
        """Threads that share a key have waited for each other."""
        warps, met = warps_and(threads, keys)
        if self._signals:
            for key in {int(k) for k in np.unique(met)} & self._signals.keys():
                for warp in warps[met == key]:
                    self.clocks.learn(int(warp), self._signals[key])
                del self._signals[key]
        self.clocks.meet(warps, met)

    def order_warps(self, threads: Array) -> None:
        """`bar.warp.sync`: the lanes of these threads' warps have waited for each other."""
        self.clocks.order_lanes(warps_of(threads))

    def signal(self, threads: Array, keys: Array) -> None:
        """`bar.arrive`: others will wait for these threads, which go on."""
        for warp, key in zip(*warps_and(threads, keys), strict=True):
            _join(self._signals, int(key), self._of_warp(int(warp)))
        self.clocks.advance(warps_of(threads))

    def arrive(self, threads: Array, clusters: Array, releases: bool) -> None:
        """`barrier.cluster.arrive`."""
        for warp, cluster in zip(*warps_and(threads, clusters), strict=True):
            if releases:
                _join(self._arrivals, int(cluster), self._of_warp(int(warp)))
        self.clocks.advance(warps_of(threads))

    def complete(self, clusters: Array) -> None:
        """A cluster's phase is over."""
        for cluster in clusters.tolist():
            nothing = Knowledge(np.zeros(self.clocks.count, np.uint32), {})
            self._completed[cluster] = self._arrivals.pop(cluster, nothing)

    def depart(self, threads: Array, clusters: Array, acquires: bool) -> None:
        """`barrier.cluster.wait` has returned."""
        warps, first = np.unique(threads >> WARP_SHIFT, return_index=True)
        if acquires:
            for warp, cluster in zip(warps.tolist(), clusters[first].tolist(), strict=True):
                done = self._completed[cluster]
                self.clocks.learn(warp, done)
                self.clocks.synced[warp] = max(self.clocks.synced[warp], done.warps[warp] + np.uint32(1))

    # -- memory ------------------------------------------------------------------------------------------------------

    def fence(self, g: Group, scope: str) -> None:
        """What an agent has seen by relaxed reads is acquired; what it did can be released by relaxed writes."""
        for agent in self._agents(g, g.numbers):
            for key in {agent.key, -1 - agent.warp} & self._seen.keys():
                self._learn(agent, self._seen[key].within(*self._domain(agent.warp, scope)))
            synced, epoch = int(self.clocks.synced[agent.warp]), int(self.clocks.epoch[agent.warp])
            self._fenced.setdefault(agent.key, {})[scope] = Fenced(self._of(agent), synced, epoch)
        self.clocks.advance(warps_of(g.numbers))

    def synchronise(self, g: Group, kind: Kind, part: Part, reads: bool, writes: bool, restarts: bool = False) -> None:
        """A strong access: an acquire takes what the location carries, a release adds to it.

        A store `restarts` the release sequence; a read-modify-write goes on with the present one.
        """
        release = kind.release and writes
        if not self._released and not release and not (writes and self._fenced):
            return
        threads = g.numbers if part.lanes is None else g.numbers[part.lanes]
        offsets = np.broadcast_to(part.offsets, threads.shape)
        for offset in np.unique(offsets):
            carried = self._released.setdefault((part.space.name, int(offset)), {})
            for agent in self._agents(g, threads[offsets == offset]):
                if reads:
                    self._take(carried, agent, kind)
                if restarts:
                    carried.clear()
                if writes:
                    self._give(carried, agent, kind)
        if release:
            self.clocks.advance(warps_of(threads))

    def _take(self, carried: dict[Domain, Knowledge], agent: Agent, kind: Kind) -> None:
        """Learn what a location carries, as far as the reader's own scope goes: at once, or by a fence later."""
        for scope in ("cta", "cluster", "gpu"):
            found = carried.get(self._domain(agent.warp, scope))
            if found is not None:
                seen = found.within(*self._domain(agent.warp, kind.scope))
                if kind.acquire:
                    self._learn(agent, seen)
                else:
                    _join(self._seen, agent.key, seen)

    def _give(self, carried: dict[Domain, Knowledge], agent: Agent, kind: Kind) -> None:
        """Let a location carry what its writer knows, or knew at its last fence."""
        released = {kind.scope: self._of(agent)} if kind.release else self._at_fence(agent)
        for scope, knowledge in released.items():
            narrower = min((self._domain(agent.warp, s) for s in (scope, kind.scope)), key=lambda d: d[1] - d[0])
            _join(carried, narrower, knowledge)

    def _at_fence(self, agent: Agent) -> dict[str, Knowledge]:
        """By scope, what the agent's last fence would release; a lane may have been fenced with its whole warp."""
        found = {s: f.knowledge for s, f in self._fenced.get(agent.key, {}).items()}
        if agent.lane is not None:
            for scope, fenced in self._fenced.get(-1 - agent.warp, {}).items():
                own = self.clocks.alone(fenced.knowledge, agent.lane, fenced.synced, fenced.epoch)
                found[scope] = own.joined(found[scope]) if scope in found else own
        return found

    # -- agents ------------------------------------------------------------------------------------------------------

    def _agents(self, g: Group, threads: Array) -> Iterator[Agent]:
        """Who acts: whole warps, where all living lanes are among these threads, and single lanes."""
        warps, counts = np.unique(threads >> WARP_SHIFT, return_counts=True)
        for warp, count in zip(warps.tolist(), counts.tolist(), strict=True):
            living = np.count_nonzero(g.machine.status[warp * WARP : (warp + 1) * WARP] != _EXITED)
            if count == living:
                yield Agent(warp, None)
            else:
                yield from (Agent(warp, int(t)) for t in threads[threads >> WARP_SHIFT == warp])

    def _of(self, agent: Agent) -> Knowledge:
        return self._of_warp(agent.warp) if agent.lane is None else self.clocks.of_lane(agent.lane)

    def _of_warp(self, warp: int) -> Knowledge:
        """What all lanes release together: also what each of them knows alone."""
        knowledge = self.clocks.of(warp)
        for thread in [t for t in self.clocks.private if t >> WARP_SHIFT == warp]:
            knowledge = knowledge.joined(self.clocks.private[thread])
        return knowledge

    def _learn(self, agent: Agent, knowledge: Knowledge) -> None:
        if agent.lane is None:
            self.clocks.learn(agent.warp, knowledge)
        else:
            self.clocks.learn_alone(agent.lane, knowledge)

    def _domain(self, warp: int, scope: str) -> Domain:
        """The warps within a scope of a warp: from one up to another."""
        ctas = {"cta": 1, "cluster": self.ctas_per_cluster}.get(scope)
        if ctas is None:
            return 0, self.clocks.count
        span = ctas * self.clocks.per_cta
        return warp - warp % span, warp - warp % span + span


def _join(table: dict[Any, Knowledge], key: Any, knowledge: Knowledge) -> None:
    table[key] = table[key].joined(knowledge) if key in table else knowledge
