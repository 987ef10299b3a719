"""The shape that most instructions share: read the sources as values of a type, compute, write the destination."""

from __future__ import annotations

from collections.abc import Callable

from tests.ptx import kinds
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Step
from tests.ptx.syntax import Instruction

Builder = Callable[[Instruction, Decoder], Step]
Function = Callable[..., Array]


def type_of(i: Instruction, d: Decoder) -> str:
    """The last type among an instruction's modifiers."""
    for modifier in reversed(i.modifiers):
        if kinds.is_type(modifier):
            return modifier
    raise d.unknown(i, "it names no type")


def only(i: Instruction, d: Decoder, *known: str) -> None:
    """Refuse modifiers other than these and types."""
    for modifier in i.modifiers:
        if modifier not in known and not kinds.is_type(modifier):
            raise d.unknown(i, f"modifier .{modifier}")


def compute(i: Instruction, d: Decoder, function: Function, *types: str) -> Step:
    """The step `destination = function(sources)`, the sources read as these types (the last one repeated)."""
    sources = i.operands[1:]
    wanted = [types[min(k, len(types) - 1)] for k in range(len(sources))]
    write = d.writer(i.operands[0])
    readers = [d.reader(o, t) for o, t in zip(sources, wanted, strict=True)]
    match readers:
        case [a]:
            return lambda g: write(g, function(a(g)))
        case [a, b]:
            return lambda g: write(g, function(a(g), b(g)))
        case [a, b, c]:
            return lambda g: write(g, function(a(g), b(g), c(g)))

    def step(g: Group) -> None:
        write(g, function(*(r(g) for r in readers)))

    return step
