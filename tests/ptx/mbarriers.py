"""`mbarrier`: barriers in shared memory, also of other CTAs of the cluster, and `st.async`, which reports to one.

A barrier's phase ends when no arrival and no announced byte is missing. Its 8 bytes of memory are opaque; here they
hold the number of the phase. Operations that name no scope are taken as ordering the cluster, which code that reports
to barriers of other CTAs relies on, though PTX says .cta.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.ptx import kinds
from tests.ptx.access import Kind, Part, resolve, store
from tests.ptx.elementwise import Builder, type_of
from tests.ptx.errors import UninitialisedRead
from tests.ptx.group import Group
from tests.ptx.kinds import UNSIGNED, Array
from tests.ptx.operands import Decoder, Reader, Step
from tests.ptx.syntax import Address, Instruction
from tests.ptx.transfers import SCOPES, address_reader, space_of


@dataclass(slots=True)
class State:
    """Arrivals expected in each phase, arrivals and bytes still missing in this one, and its number."""

    expected: int
    missing: int
    bytes: int = 0
    phase: int = 0

    def settle(self) -> None:
        """Go on to the next phase when nothing is missing."""
        if self.missing == 0 and self.bytes == 0:
            self.phase += 1
            self.missing = self.expected


class Location:
    """An instruction's barrier operand: finds the states of the barriers that the group's lanes name."""

    def __init__(self, i: Instruction, d: Decoder, address: Address) -> None:
        scope = i.one_of(*SCOPES, default="cluster")
        space = space_of(i, d, address)
        space = "cluster" if i.opcode == "st" else space
        self.kind = Kind(i, space, 8, strong=True, scope=scope)
        self.read = address_reader(d, address)

    def offsets(self, g: Group) -> Array:
        """The offset of each lane's barrier in shared memory."""
        (part,) = resolve(g, self.kind, g.spread(self.read(g)))
        return part.offsets

    def states(self, g: Group, offsets: Array) -> dict[int, State]:
        """The barriers by offset; an error for a place where none was initialised."""
        table = g.machine.mbarriers
        found = {int(o): table.get(int(o)) for o in np.unique(offsets)}
        for offset, state in found.items():
            if state is None:
                thread = int(g.numbers[np.flatnonzero(offsets == offset)[0]])
                what = "no mbarrier was initialised at this address"
                raise g.machine.error(UninitialisedRead, self.kind.instruction, thread, what)
        return {o: s for o, s in found.items() if s is not None}

    def synchronise(self, g: Group, acquire: bool, release: bool) -> None:
        """Tell the race detector."""
        (part,) = resolve(g, self.kind, g.spread(self.read(g)))
        kind = replace(self.kind, acquire=acquire, release=release)
        g.machine.races.synchronise(g, kind, part, reads=acquire, writes=release)

    def show(self, g: Group, offset: int, state: State) -> None:
        """Write the barrier's opaque bytes."""
        g.machine.shared.put(np.array([offset]), [np.array([state.phase], np.uint64)])
        g.machine.still = 0


def build(i: Instruction, d: Decoder) -> Step:
    name = i.one_of("init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "test_wait", "try_wait")
    result = not isinstance(i.operands[0], Address)
    place = i.operands[1 if result else 0]
    if not name or not isinstance(place, Address):
        raise d.unknown(i)
    location = Location(i, d, place)
    rest = i.operands[2 if result else 1 :]
    if name in ("test_wait", "try_wait"):
        return _wait(i, d, location)
    if name == "init":
        return _init(location, d.reader(rest[0], "u32"))
    if name == "inval":
        return lambda g: _forget(g, location)
    if name in ("expect_tx", "complete_tx") and not i.has("arrive"):
        sign = 1 if name == "expect_tx" else -1
        amount = d.reader(rest[0], "u32")
        return lambda g: _change(g, location, 0, sign * amount(g).astype(np.int64))
    return _arrive(i, d, location)


def _init(location: Location, count: Reader) -> Step:
    def step(g: Group) -> None:
        offsets, counts = location.offsets(g), g.spread(count(g))
        for offset, expected in zip(offsets.tolist(), counts.tolist(), strict=True):
            state = g.machine.mbarriers[offset] = State(expected, expected)
            location.show(g, offset, state)
        location.synchronise(g, acquire=False, release=True)

    return step


def _forget(g: Group, location: Location) -> None:
    for offset in np.unique(location.offsets(g)).tolist():
        g.machine.mbarriers.pop(offset, None)


def _arrive(i: Instruction, d: Decoder, location: Location) -> Step:
    """`arrive`, also with a count or with bytes announced; the result is the phase arrived in."""
    with_bytes, drops = i.has("expect_tx"), i.has("arrive_drop")
    result = not isinstance(i.operands[0], Address)
    write = d.writer(i.operands[0]) if result else lambda g, values: None
    rest = i.operands[2 if result else 1 :]
    amount = d.reader(rest[0], "u32") if rest else None
    releases = not i.has("relaxed")

    def step(g: Group) -> None:
        offsets = location.offsets(g)
        phases = {o: s.phase for o, s in location.states(g, offsets).items()}
        given = np.ones(1, np.int64) if amount is None else amount(g).astype(np.int64)
        if releases:
            location.synchronise(g, acquire=False, release=True)
        zero = np.zeros(1, np.int64)
        _change(g, location, np.ones(1, np.int64) if with_bytes else given, given if with_bytes else zero, drops)
        write(g, np.array([phases[o] for o in offsets.tolist()], np.uint64))

    return step


def _change(g: Group, location: Location, arrivals: Array | int, announced: Array, drops: bool = False) -> None:
    """Count arrivals and bytes of all lanes, and end phases that are complete."""
    offsets = location.offsets(g)
    came, added = g.spread(np.atleast_1d(arrivals)), g.spread(announced)
    for offset, state in location.states(g, offsets).items():
        mine = offsets == offset
        state.bytes += int(added[mine].sum())
        for n in came[mine].tolist():  # one after the other: they may end several phases
            state.expected -= n if drops else 0
            state.missing -= n
            if n:
                state.settle()
        if not came[mine].any():
            state.settle()
        location.show(g, offset, state)


def _wait(i: Instruction, d: Decoder, location: Location) -> Step:
    """`test_wait`, `try_wait`: whether the phase of a token, or of a parity, is over."""
    write = d.writer(i.operands[0])
    parity = i.has("parity")
    token = d.reader(i.operands[2], "u32" if parity else "u64")
    acquires = not i.has("relaxed")

    def step(g: Group) -> None:
        offsets = location.offsets(g)
        phases = {o: s.phase for o, s in location.states(g, offsets).items()}
        now = np.array([phases[o] for o in offsets.tolist()], np.uint64)
        done = (now & np.uint64(1)) != (token(g) & np.uint32(1)) if parity else now != token(g)
        if acquires and done.any():
            lanes = np.flatnonzero(g.spread(done))
            some = g if len(lanes) == g.count else Group(g.machine, g.numbers[lanes], g.limit)
            part = Part(g.machine.shared, None, offsets[lanes])
            g.machine.races.synchronise(some, replace(location.kind, acquire=True), part, reads=True, writes=False)
        write(g, done)

    return step


def store_async(i: Instruction, d: Decoder) -> Step:
    """`st.async.shared::cluster.mbarrier::complete_tx::bytes`: a remote store that counts its bytes at a barrier."""
    target, barrier = i.operands[0], i.operands[2]
    if not isinstance(target, Address) or not isinstance(barrier, Address):
        raise d.unknown(i)
    values = [d.reader(o, f"b{kinds.bits(type_of(i, d))}") for o in d.items(i.operands[1])]
    size = kinds.bits(type_of(i, d)) // 8 * len(values)
    kind = Kind(i, "cluster", size)
    read, location = address_reader(d, target), Location(i, d, barrier)

    def step(g: Group) -> None:
        store(g, kind, g.spread(read(g)), [g.spread(v(g)).view(UNSIGNED[size // len(values) * 8]) for v in values])
        location.synchronise(g, acquire=False, release=True)
        _change(g, location, 0, np.array([-size]))

    return step


INSTRUCTIONS: dict[str, Builder] = {"mbarrier": build}
