"""Branches and exits: where a group of threads goes on. Each returns the next position, or -1: the group is gone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.errors import OutOfBounds, Trap
from tests.ptx.group import Group
from tests.ptx.operands import Decoder
from tests.ptx.syntax import Instruction, Symbol

GONE = -1
Control = Callable[[Group], int]
ControlBuilder = Callable[[Instruction, Decoder, int], Control]

_WAITING = {"mbarrier", "nanosleep", "atom"}


def _spins(d: Decoder, target: int, place: int) -> bool:
    """Whether a loop reads what other threads change, so that it may be waiting for them."""
    for i in d.program.code[target : place + 1]:
        if i.opcode in _WAITING or (i.opcode == "ld" and i.one_of("acquire", "relaxed", "volatile", "mmio")):
            return True
    return False


def branch(i: Instruction, d: Decoder, place: int) -> Control:
    """`bra`: where threads part, both halves wait for their turn; those that spin wait until all others have moved."""
    label = next(o for o in i.operands if isinstance(o, Symbol))
    target, following = d.program.labels[label.name], place + 1
    backwards = target <= place
    spins = backwards and _spins(d, target, place)

    def jump(g: Group) -> int:
        if backwards:
            g.machine.turn(i, g)
            if spins:
                g.machine.defer(g, g.numbers, target)
                return GONE
        return target

    if i.guard is None:
        return jump
    slot, wanted = d.slot(i.guard), not i.guard_negated

    def conditional(g: Group) -> int:
        taken = g.read(slot)
        if len(taken) == 1 or taken.all() or not taken.any():
            return jump(g) if bool(taken[0]) is wanted else following
        taken = taken if wanted else ~taken
        machine, numbers = g.machine, g.numbers
        g.flush(machine.code.live[target] | machine.code.live[following])
        if spins:
            machine.defer(g, numbers[taken], target)
        else:
            machine.stop(g, numbers[taken], target)
        machine.stop(g, numbers[~taken], following)
        if backwards:
            machine.turn(i, g)
        return GONE

    return conditional


def branch_by_index(i: Instruction, d: Decoder, place: int) -> Control:
    """`brx.idx`: each thread to the label its index picks."""
    table = next(o for o in i.operands if isinstance(o, Symbol))
    targets = np.array([d.program.labels[label] for label in d.program.branch_targets[table.name]])
    read = d.reader(i.operands[0], "u32")

    def step(g: Group) -> int:
        index = g.spread(read(g))
        if (index >= len(targets)).any():
            thread = int(g.numbers[np.flatnonzero(index >= len(targets))[0]])
            raise g.machine.error(OutOfBounds, i, thread, f"index {index.max()} in a table of {len(targets)} labels")
        where = targets[index]
        for target in np.unique(where):
            g.machine.stop(g, g.numbers[where == target], int(target))
        return GONE

    return step


def leave(i: Instruction, d: Decoder, place: int) -> Control:
    """`ret` of a kernel, and `exit`."""

    def step(g: Group) -> int:
        g.machine.exit(g)
        return GONE

    return step


def trap(i: Instruction, d: Decoder, place: int) -> Control:
    def step(g: Group) -> int:
        raise g.machine.error(Trap, i, int(g.numbers[0]), "the kernel gave up")

    return step


CONTROLS: dict[str, ControlBuilder] = {
    "bra": branch,
    "brx": branch_by_index,
    "ret": leave,
    "exit": leave,
    "trap": trap,
}
