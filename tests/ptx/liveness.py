"""Which registers an instruction reads and writes, and which are still needed at each place of the code.

In: a Program and the Decoder that numbers its registers. Out: for each position the set of live registers, as the
bits of an int. A selection of threads writes only live registers back when it stops.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.ptx.operands import Decoder
from tests.ptx.syntax import Address, Instruction, Negated, Operand, Pair, Register, Symbol, Vector

_WITHOUT_RESULT = {
    "st", "red", "bra", "brx", "ret", "exit", "trap", "membar", "fence", "nanosleep", "prefetch", "prefetchu",
    "discard", "applypriority", "cp", "stmatrix", "brkpt", "griddepcontrol", "setmaxnreg", "pmevent",
}  # fmt: skip


def has_result(i: Instruction) -> bool:
    """Whether the first operand is a destination."""
    if i.opcode in ("bar", "barrier"):
        return i.has("red")
    if i.opcode == "mbarrier":
        return i.one_of("test_wait", "try_wait", "arrive", "arrive_drop") != "" and not isinstance(
            i.operands[0], Address
        )
    return i.opcode not in _WITHOUT_RESULT and not (i.opcode == "st" or i.has("async"))


def registers(operand: Operand) -> Iterator[Register]:
    """The registers in an operand."""
    match operand:
        case Register():
            yield operand
        case Negated(inner):
            yield inner
        case Address(base, _) if isinstance(base, Register):
            yield base
        case Vector(items):
            for item in items:
                yield from registers(item)
        case Pair(first, second):
            yield from registers(first)
            yield from registers(second)
        case _:
            pass


def _effect(i: Instruction, d: Decoder) -> tuple[int, int]:
    """The registers read and written, as bits."""
    written = 0
    operands = i.operands
    if has_result(i) and operands:
        written = sum({1 << d.slot(r) for r in registers(operands[0])})
        operands = operands[1:]
    read = {1 << d.slot(r) for o in operands for r in registers(o)}
    if i.guard is not None:
        read.add(1 << d.slot(i.guard))
    return sum(read), written


def _successors(i: Instruction, place: int, d: Decoder) -> tuple[int, ...]:
    program = d.program
    names = [o.name for o in i.operands if isinstance(o, Symbol)]
    match i.opcode:
        case "bra":
            target = program.labels[names[0]]
            return (target,) if i.guard is None else (target, place + 1)
        case "brx":
            return tuple(program.labels[label] for label in program.branch_targets[names[0]])
        case "ret" | "exit" | "trap":
            return ()
    return (place + 1,)


def live_registers(d: Decoder) -> list[int]:
    """For each position of the code, the registers that are read from there on before they are written."""
    code = d.program.code
    effects = [_effect(i, d) for i in code]
    successors = [_successors(i, place, d) for place, i in enumerate(code)]
    live = [0] * (len(code) + 1)
    changed = True
    while changed:
        changed = False
        for place in range(len(code) - 1, -1, -1):
            after = 0
            for successor in successors[place]:
                after |= live[successor]
            read, written = effects[place]
            before = read | (after & ~written)
            if before != live[place]:
                live[place], changed = before, True
    return live
