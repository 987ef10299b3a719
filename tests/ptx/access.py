"""Loads and stores: from addresses in a state space to bytes, with every check.

An access is resolved to parts, one for each `Space` that its lanes reach: which lanes, and at which offsets. A generic
address is a global one, or lies in the window of shared or local memory. A shared::cluster address holds the rank of
its CTA plus 1 above bit 24; without one it is the CTA's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.ptx.errors import MisalignedAccess, OutOfBounds, PtxError, UninitialisedRead
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.memory import GLOBAL_BASE, PENDING, UNWRITTEN, WRITTEN, Memory, Space
from tests.ptx.syntax import Instruction

if TYPE_CHECKING:
    from tests.ptx.machine import Machine

SHARED_WINDOW = 0x7E00_0000_0000
LOCAL_WINDOW = 0x7D00_0000_0000
RANK_SHIFT = 24

_STORED = (WRITTEN, UNWRITTEN)


@dataclass(frozen=True, slots=True)
class Part:
    """Some lanes of a group (None: all) and their offsets into a space; one offset when all lanes share it."""

    space: Space
    lanes: Array | None
    offsets: Array


@dataclass(frozen=True, slots=True)
class Kind:
    """How an instruction touches memory."""

    instruction: Instruction
    space: str  # generic, global, shared, cluster, local
    size: int  # bytes of each lane's access
    strong: bool = False  # volatile, relaxed, acquire, release or atomic
    scope: str = "gpu"
    acquire: bool = False
    release: bool = False


def resolve(g: Group, kind: Kind, addresses: Array) -> list[Part]:
    """The parts of an access; raises for addresses outside of every space and for misaligned ones."""
    align = np.uint64(kind.size - 1)
    if (addresses & align).any():
        raise fault(MisalignedAccess, g, kind, addresses, addresses & align != 0, "is no multiple of the size")
    if kind.space != "generic":
        return [_part(g, kind, kind.space, None, addresses)]
    where = addresses >> np.uint64(32)
    shared, local = where == SHARED_WINDOW >> 32, where == LOCAL_WINDOW >> 32
    if not shared.any() and not local.any():
        return [_part(g, kind, "global", None, addresses)]
    parts = []
    for name, mask, base in (("cluster", shared, SHARED_WINDOW), ("local", local, LOCAL_WINDOW)):
        if mask.all():
            return [_part(g, kind, name, None, addresses - np.uint64(base))]
        if mask.any():
            parts.append(_part(g, kind, name, np.flatnonzero(mask), addresses[mask] - np.uint64(base)))
    other = ~(shared | local)
    if other.any():
        parts.append(_part(g, kind, "global", np.flatnonzero(other), addresses[other]))
    return parts


def _part(g: Group, kind: Kind, name: str, lanes: Array | None, addresses: Array) -> Part:
    machine = g.machine
    if name == "global":
        space: Space = machine.memory
        offsets = (addresses - np.uint64(GLOBAL_BASE)).view(np.int64)
        limit = len(space.data) - kind.size
        if not _within(offsets, limit):
            raise fault(OutOfBounds, g, kind, addresses, (offsets < 0) | (offsets > limit), "", lanes)
        return Part(space, lanes, offsets)
    if name == "local":
        space, stride, owner = machine.local, machine.local_stride, g.numbers
    else:
        space, stride = machine.shared, machine.shared_stride
        owner = g.choose(machine.cta_of)
    if lanes is not None:
        owner = owner[lanes]
    elif len(addresses) == 1 and (len(owner) == 1 or name == "local" or (owner[0] != owner).any()):
        addresses = g.spread(addresses)
    elif len(addresses) == 1:
        owner = owner[:1]
    if name in ("shared", "cluster"):
        owner, addresses = _in_cluster(g, kind, name, lanes, owner, addresses)
    inside = addresses.view(np.int64)
    limit = stride - kind.size
    if not _within(inside, limit):
        raise fault(OutOfBounds, g, kind, addresses, (inside < 0) | (inside > limit), "", lanes)
    return Part(space, lanes, owner * stride + inside)


def _within(offsets: Array, limit: int) -> bool:
    return bool(offsets.min() >= 0 and offsets.max() <= limit)


def _in_cluster(
    g: Group, kind: Kind, name: str, lanes: Array | None, owner: Array, addresses: Array
) -> tuple[Array, Array]:
    """The CTA that a shared::cluster address names, and the offset in its shared memory."""
    rank = (addresses >> np.uint64(RANK_SHIFT)).view(np.int64)
    if not rank.any():
        return owner, addresses
    machine = g.machine
    first = owner - owner % machine.cluster_size
    named = np.where(rank == 0, owner, first + rank - 1)
    wrong = rank > machine.cluster_size
    if wrong.any():
        raise fault(OutOfBounds, g, kind, addresses, wrong, "names a CTA that the cluster does not have", lanes)
    if name == "shared" and (named != owner).any():
        why = "is another CTA's shared memory, which only .shared::cluster reaches"
        raise fault(OutOfBounds, g, kind, addresses, named != owner, why, lanes)
    gone = machine.cta_exited(named)
    if gone.any():
        raise fault(OutOfBounds, g, kind, addresses, gone, "is the shared memory of a CTA that has exited", lanes)
    return named, addresses & np.uint64((1 << RANK_SHIFT) - 1)


def load(g: Group, kind: Kind, addresses: Array, dtype: np.dtype[Any], count: int) -> list[Array]:
    """`count` elements for each lane, checked: allocated, written, not racing."""
    parts = resolve(g, kind, addresses)
    results: list[Array] = []
    for part in parts:
        bad = part.space.faults(part.offsets, kind.size, (WRITTEN,))
        if bad is not None:
            raise state_error(g, kind, part, addresses, bad)
        g.machine.races.read(g, kind, part)
        if kind.strong:
            g.machine.races.synchronise(g, kind, part, reads=True, writes=False)
        values = part.space.get(part.offsets, dtype, count)
        if part.lanes is None:
            return values
        if not results:
            results = [np.zeros(g.count, dtype) for _ in range(count)]
        for result, value in zip(results, values, strict=True):
            result[part.lanes] = value
    return results


def store(g: Group, kind: Kind, addresses: Array, values: list[Array]) -> None:
    """One or more elements from each lane, checked: allocated, not racing."""
    for part in resolve(g, kind, addresses):
        bad = part.space.faults(part.offsets, kind.size, _STORED)
        if bad is not None:
            raise state_error(g, kind, part, addresses, bad)
        g.machine.races.write(g, kind, part)
        if kind.strong:
            g.machine.races.synchronise(g, kind, part, reads=False, writes=True, restarts=True)
        mine = values if part.lanes is None else [g.spread(v)[part.lanes] for v in values]
        if len(part.offsets) == 1:
            mine = [v[-1:] for v in mine]
        if not kind.strong:
            g.machine.still = 0
        elif g.machine.still:
            old = part.space.get(part.offsets, mine[0].dtype, len(mine))
            if any((before != now).any() for before, now in zip(old, mine, strict=True)):
                g.machine.still = 0
        part.space.put(part.offsets, mine)


def check_there(g: Group, kind: Kind, addresses: Array) -> None:
    """The addresses are allocated."""
    for part in resolve(g, kind, addresses):
        bad = part.space.faults(part.offsets, kind.size, (*_STORED, PENDING))
        if bad is not None:
            raise state_error(g, kind, part, addresses, bad)


def state_error(g: Group, kind: Kind, part: Part, addresses: Array, bad: Array) -> PtxError:
    """The error for an access whose first bad one `bad` tells."""
    first = int(np.flatnonzero(bad)[0])
    offset = int(part.offsets[first])
    states = part.space.state[offset : offset + kind.size]
    mask = np.zeros(g.count, bool)
    mask[first if part.lanes is None else part.lanes[first]] = True
    if (states == PENDING).any():
        return fault(UninitialisedRead, g, kind, addresses, mask, "is still being written by an asynchronous copy")
    if (states == 0).any():
        return fault(OutOfBounds, g, kind, addresses, mask, "")
    return fault(UninitialisedRead, g, kind, addresses, mask, "has bytes that were never written")


def fault(
    error: type[PtxError], g: Group, kind: Kind, addresses: Array, bad: Array, why: str, lanes: Array | None = None
) -> PtxError:
    """An error that names the kernel, the line, the first thread whose access is bad, and the address."""
    first = int(np.flatnonzero(bad)[0])
    thread = int(g.numbers[first if lanes is None else lanes[first]])
    address = int(addresses[first % len(addresses)])
    if not why:
        why = "is " + _place(g.machine, kind, address)
    return g.machine.error(error, kind.instruction, thread, f"{kind.size} bytes at 0x{address:x}: the address {why}")


def _place(machine: Machine, kind: Kind, address: int) -> str:
    memory: Memory = machine.memory
    if kind.space in ("generic", "global") and not LOCAL_WINDOW <= address < GLOBAL_BASE:
        return memory.describe(address)
    what = "local" if kind.space == "local" or address >> 32 == LOCAL_WINDOW >> 32 else "shared"
    size = machine.local_bytes if what == "local" else machine.shared_bytes
    return f"outside of the {size} bytes of {what} memory, which begin at 0x400"
