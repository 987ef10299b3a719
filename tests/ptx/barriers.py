"""Barriers of a CTA (`bar`, `barrier.cta`) and of a cluster (`barrier.cluster`): who waits, and when they go on.

A barrier without a count is complete when every thread of its CTA waits at one and the same instruction. One with a
count is complete when that many threads have come, from anywhere. Threads that have exited never come to a CTA's
barrier, which is reported; a cluster's barrier does without them, as PTX defines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.ptx.errors import BarrierDivergence, InvalidLaunch
from tests.ptx.flow import GONE, Control, ControlBuilder
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Reader
from tests.ptx.syntax import Instruction

if TYPE_CHECKING:
    from tests.ptx.machine import Machine

NAMED = 16  # barriers of a CTA
_AT_BARRIER, _AT_CLUSTER, _EXITED = 1, 2, 5


class Barriers:
    """The state of all barriers of the resident CTAs."""

    def __init__(self, machine: Machine) -> None:
        geometry = machine.geometry
        self.machine = machine
        clusters = geometry.ctas // machine.cluster_size
        self.which = np.zeros(machine.count, np.int64)  # the barrier a thread waits at: its CTA * NAMED + number
        self.wanted = np.zeros(geometry.ctas * NAMED, np.int64)  # threads to wait for; 0: nobody has come yet
        self.signals = np.zeros(geometry.ctas * NAMED, np.int64)  # threads that came by `bar.arrive`
        self.counted = np.zeros(geometry.ctas * NAMED, bool)  # whether its threads gave a count
        self.cluster_of = geometry.cta // machine.cluster_size
        self.arrived = np.zeros(machine.count, bool)  # at the cluster's barrier, and has not waited yet
        self.phase = np.zeros(clusters, np.int64)
        self.phase_of = np.zeros(machine.count, np.int64)  # the phase in which a thread arrived

    # -- barriers of a CTA -------------------------------------------------------------------------------------------

    def come(self, i: Instruction, g: Group, number: Array, count: Array | None, place: int, waits: bool) -> int:
        """The group's threads come to a barrier; the position after it when all can go on at once."""
        machine = self.machine
        keys = self._keys(i, g, number)
        threads = machine.geometry.threads
        if count is None and waits and self._whole(g, keys, threads):
            machine.races.meet(g.numbers, keys)
            machine.still = 0
            return place + 1
        expected = np.full(1, threads) if count is None else count.astype(np.int64)
        self._expect(i, g, keys, expected, count is not None)
        if waits:
            machine.block(g, g.numbers, place + 1, _AT_BARRIER)
            self.which[g.numbers] = keys
        else:
            self.signals += np.bincount(keys, minlength=len(self.signals))
            machine.races.signal(g.numbers, keys)
        self._settle(np.unique(keys))
        return GONE if waits else place + 1

    def _keys(self, i: Instruction, g: Group, number: Array) -> Array:
        if (number >= NAMED).any():
            raise self.machine.error(
                InvalidLaunch, i, int(g.numbers[0]), f"there are {NAMED} barriers, not {number.max()}"
            )
        return g.choose(self.machine.cta_of) * NAMED + number.astype(np.int64)

    def _whole(self, g: Group, keys: Array, threads: int) -> bool:
        """Whether the group is all threads of its CTAs, each CTA at one barrier where nobody waits yet."""
        if self.wanted[keys].any():
            return False
        counts = np.bincount(keys, minlength=1)
        return bool((counts[counts > 0] == threads).all())

    def _expect(self, i: Instruction, g: Group, keys: Array, expected: Array, counted: bool) -> None:
        old = self.wanted[keys]
        wrong = (old != 0) & (old != expected)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            count = int(expected[first % len(expected)])
            why = f"waits for {count} threads at a barrier where others wait for {int(old[first])}"
            raise self.machine.error(BarrierDivergence, i, int(g.numbers[first]), why)
        self.wanted[keys] = expected
        self.counted[keys] = counted

    def _settle(self, keys: Array) -> None:
        """Let go whom a complete barrier holds."""
        machine = self.machine
        waiting = np.flatnonzero(machine.status == _AT_BARRIER)
        present = np.bincount(self.which[waiting], minlength=len(self.wanted)) + self.signals
        done = keys[present[keys] >= self.wanted[keys]]
        if not len(done):
            return
        released = waiting[np.isin(self.which[waiting], done)]
        self._same_instruction(released)
        machine.races.meet(released, self.which[released])
        self.wanted[done] = 0
        self.signals[done] = 0
        machine.still = 0
        machine.release(released)

    def _same_instruction(self, released: Array) -> None:
        """All threads of a CTA must wait at one `bar.sync`; those with a count may differ from warp to warp."""
        machine = self.machine
        unit = np.where(self.counted[self.which[released]], released // 32, -1 - self.which[released])
        _, first, group = np.unique(unit, return_index=True, return_inverse=True)
        place = machine.resume[released]
        differs = np.flatnonzero(place != place[first[group]])
        if len(differs):
            thread = int(released[differs[0]])
            other = int(released[first[group[differs[0]]]])
            code = machine.code.program.code
            why = (
                f"{machine.geometry.name(other)} is at another barrier, in line {code[machine.resume[other] - 1].line}"
            )
            raise machine.error(BarrierDivergence, code[machine.resume[thread] - 1], thread, why)

    # -- barriers of a cluster ---------------------------------------------------------------------------------------

    def arrive(self, i: Instruction, g: Group, releases: bool) -> None:
        """`barrier.cluster.arrive`."""
        numbers, machine = g.numbers, self.machine
        if self.arrived[numbers].any():
            thread = int(numbers[np.flatnonzero(self.arrived[numbers])[0]])
            raise machine.error(BarrierDivergence, i, thread, "arrives twice without waiting in between")
        self.arrived[numbers] = True
        self.phase_of[numbers] = self.phase[self.cluster_of[numbers]]
        machine.races.arrive(numbers, self.cluster_of[numbers], releases)
        self._settle_clusters()

    def wait(self, i: Instruction, g: Group, place: int, acquires: bool) -> int:
        """`barrier.cluster.wait`."""
        numbers, machine = g.numbers, self.machine
        pending = self.phase[self.cluster_of[numbers]] == self.phase_of[numbers]
        missing = ~self.arrived[numbers]
        if missing.any():
            thread = int(numbers[np.flatnonzero(missing)[0]])
            raise machine.error(BarrierDivergence, i, thread, "waits for a barrier at which it has not arrived")
        if not pending.any():
            self.arrived[numbers] = False
            machine.races.depart(numbers, self.cluster_of[numbers], acquires)
            return place + 1
        machine.block(g, numbers, place, _AT_CLUSTER)  # it looks again when the phase is over
        machine.release(numbers[~pending])  # those of a phase before, which the others have overtaken
        return GONE

    def _settle_clusters(self) -> None:
        machine = self.machine
        alive = machine.status != _EXITED
        missing = np.bincount(self.cluster_of[alive & ~self.arrived], minlength=len(self.phase))
        current = self.arrived & (self.phase_of == self.phase[self.cluster_of])
        present = np.bincount(self.cluster_of[current], minlength=len(self.phase))
        living = np.bincount(self.cluster_of[alive], minlength=len(self.phase))
        done = (missing == 0) & (living > 0) & (present >= living)
        if done.any():
            self.phase[done] += 1
            machine.still = 0
            machine.races.complete(np.flatnonzero(done))
            machine.release(np.flatnonzero((machine.status == _AT_CLUSTER) & done[self.cluster_of]))

    # -- exits and dead ends -----------------------------------------------------------------------------------------

    def exited(self) -> None:
        """Threads have exited: a cluster's barrier no longer waits for them."""
        self.arrived &= self.machine.status != _EXITED
        if self.arrived.any():
            self._settle_clusters()

    def explain(self) -> None:
        """Raise for the first thread that waits at a CTA's barrier for ever, saying where the others are."""
        machine = self.machine
        waiting = np.flatnonzero(machine.status == _AT_BARRIER)
        if not len(waiting):
            return
        thread = int(waiting[0])
        geometry, code = machine.geometry, machine.code.program.code
        cta = slice(*(np.array([0, geometry.padded]) + thread // geometry.padded * geometry.padded))
        exists = geometry.exists[cta]
        exited = int((machine.status[cta][exists] == _EXITED).sum())
        here = int(((machine.status[cta] == _AT_BARRIER) & (self.which[cta] == self.which[thread])).sum())
        others = int(exists.sum()) - exited - here
        why = (
            f"{here} threads of the CTA wait here for {int(self.wanted[self.which[thread]])} to come, "
            f"{exited} have exited, {others} wait elsewhere"
        )
        raise machine.error(BarrierDivergence, code[machine.resume[thread] - 1], thread, why)


def barrier(i: Instruction, d: Decoder, place: int) -> Control:
    """`bar.sync`, `bar.arrive`, `barrier.cta.…`, `barrier.cluster.…`, and `bar.warp.sync`."""
    if i.has("cluster"):
        return _cluster(i, d, place)
    if i.has("warp"):
        return _warp(i, d, place)
    if not i.one_of("sync", "arrive"):
        raise d.unknown(i)
    number = d.reader(i.operands[0], "u32")
    count: Reader | None = d.reader(i.operands[1], "u32") if len(i.operands) > 1 else None
    waits = i.has("sync")
    return lambda g: g.machine.barriers.come(i, g, number(g), None if count is None else count(g), place, waits)


def _cluster(i: Instruction, d: Decoder, place: int) -> Control:
    if i.has("wait"):
        return lambda g: g.machine.barriers.wait(i, g, place, True)
    releases = not i.has("relaxed")

    def arrive(g: Group) -> int:
        g.machine.barriers.arrive(i, g, releases)
        return place + 1

    return arrive


def _warp(i: Instruction, d: Decoder, place: int) -> Control:
    from tests.ptx.warps import converged

    mask = d.reader(i.operands[0], "u32")

    def step(g: Group) -> int:
        if not converged(i, g, mask(g), place):
            return GONE
        g.machine.races.order_warps(g.numbers)
        return place + 1

    return step


CONTROLS: dict[str, ControlBuilder] = {"bar": barrier, "barrier": barrier}
