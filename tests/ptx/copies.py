"""`cp.async`: copies from global to shared memory that are done when their thread waits for them, and not before.

Until then the destination is marked as pending: whoever touches it gets an error. The source is read at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.ptx.access import Kind, load, resolve, state_error
from tests.ptx.elementwise import Builder
from tests.ptx.group import Group
from tests.ptx.kinds import UNSIGNED, Array
from tests.ptx.memory import PENDING, UNWRITTEN, WRITTEN
from tests.ptx.operands import Decoder, Step
from tests.ptx.syntax import Address, Immediate, Instruction
from tests.ptx.transfers import address_reader

_WORD = UNSIGNED[32]


@dataclass(frozen=True, slots=True)
class Pending:
    """Copies that some threads have begun: where to, what, and in which of the thread's groups."""

    threads: Array
    offsets: Array
    words: list[Array]
    groups: Array


class Copies:
    """The copies under way, and how many groups each thread has committed."""

    def __init__(self, count: int) -> None:
        self.pending: list[Pending] = []
        self.committed = np.zeros(count, np.int64)


def copy(i: Instruction, d: Decoder) -> Step:
    """`cp.async.ca|cg.shared.global`, `commit_group`, `wait_group n`, `wait_all`."""
    if not i.has("async") or i.has("bulk") or i.has("mbarrier"):
        raise d.unknown(i)
    if i.has("commit_group"):
        return _commit
    if i.has("wait_all"):
        return lambda g: _finish(g, None)
    if i.has("wait_group"):
        count = i.operands[0]
        if not isinstance(count, Immediate):
            raise d.unknown(i, "the number of groups must be a constant")
        return lambda g: _finish(g, count.value)
    return _begin(i, d)


def _begin(i: Instruction, d: Decoder) -> Step:
    target, source, size = i.operands[:3]
    if not (isinstance(target, Address) and isinstance(source, Address) and isinstance(size, Immediate)):
        raise d.unknown(i)
    if size.value not in (4, 8, 16) or (i.has("cg") and size.value != 16):
        raise d.unknown(i, f"a copy of {size.value} bytes")
    target_kind, source_kind = Kind(i, "shared", size.value), Kind(i, "global", size.value)
    read_target, read_source = address_reader(d, target), address_reader(d, source)
    length = d.reader(i.operands[3], "u32") if len(i.operands) > 3 else None
    fetch = _whole(source_kind) if length is None else _shortened(source_kind, length)

    def step(g: Group) -> None:
        words = fetch(g, read_source(g))
        (part,) = resolve(g, target_kind, g.spread(read_target(g)))
        bad = part.space.faults(part.offsets, size.value, (WRITTEN, UNWRITTEN))
        if bad is not None:
            raise state_error(g, target_kind, part, read_target(g), bad)
        g.machine.races.write(g, target_kind, part)
        part.space.mark(part.offsets, size.value, PENDING)
        copies = g.machine.copies
        copies.pending.append(Pending(g.numbers, part.offsets, words, copies.committed[g.numbers]))

    return step


def _whole(kind: Kind) -> Callable[[Group, Array], list[Array]]:
    return lambda g, addresses: [g.spread(w) for w in load(g, kind, addresses, _WORD, kind.size // 4)]


def _shortened(kind: Kind, length: Callable[[Group], Array]) -> Callable[[Group, Array], list[Array]]:
    """Copies whose last bytes are zeros and not read; whole words only."""

    def fetch(g: Group, addresses: Array) -> list[Array]:
        addresses, lengths = g.spread(addresses), g.spread(length(g))
        words = []
        for k in range(kind.size // 4):
            word = np.zeros(g.count, np.uint32)
            lanes = np.flatnonzero(lengths > 4 * k)
            if len(lanes):
                some = Group(g.machine, g.numbers[lanes], g.limit)
                part = Kind(kind.instruction, kind.space, 4)
                word[lanes] = load(some, part, addresses[lanes] + np.uint64(4 * k), _WORD, 1)[0]
            words.append(word)
        return words

    return fetch


def _commit(g: Group) -> None:
    g.machine.copies.committed[g.numbers] += 1


def _finish(g: Group, open_groups: int | None) -> None:
    """The group's threads wait until all but so many of their groups are done (None: until everything is)."""
    copies, shared = g.machine.copies, g.machine.shared
    waiting = np.zeros(g.machine.count, bool)
    waiting[g.numbers] = True
    left: list[Pending] = []
    for p in copies.pending:
        due = waiting[p.threads]
        if open_groups is not None:
            due = due & (p.groups < copies.committed[p.threads] - open_groups)
        if due.any():
            shared.put(p.offsets[due], [w[due] for w in p.words])
            g.machine.still = 0
        if not due.all():
            keep = ~due
            left.append(Pending(p.threads[keep], p.offsets[keep], [w[keep] for w in p.words], p.groups[keep]))
    copies.pending = left


INSTRUCTIONS: dict[str, Builder] = {"cp": copy}
