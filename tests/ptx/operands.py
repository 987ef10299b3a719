"""Operands as functions of a group: readers give values of a type, writers take values.

`Decoder` is what an instruction's builder gets: it gives every register a slot, and knows where variables lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.ptx import kinds
from tests.ptx.errors import PtxError, SyntaxMistake, UnknownInstruction
from tests.ptx.group import Group
from tests.ptx.kinds import UNSIGNED, Array
from tests.ptx.program import Program
from tests.ptx.syntax import Immediate, Instruction, Negated, Operand, Pair, Register, Sink, Special, Symbol, Vector

Reader = Callable[[Group], Array]
Writer = Callable[[Group, Array], None]
Step = Callable[[Group], None]


class Decoder:
    """Slots of registers and addresses of variables, for one program."""

    def __init__(self, program: Program, addresses: dict[str, int]) -> None:
        self.program = program
        self.addresses = addresses  # of the module's global and constant variables
        self.slots: dict[str, int] = {}
        self.widths: list[int] = []

    def slot(self, register: Register) -> int:
        """The register's place among the machine's registers."""
        if register.name not in self.slots:
            self.slots[register.name] = len(self.widths)
            self.widths.append(register.bits)
        return self.slots[register.name]

    def address_of(self, symbol: Symbol) -> int:
        """The address of a variable in its own state space."""
        program = self.program
        for table in (program.shared, program.local, self.addresses):
            if symbol.name in table:
                return table[symbol.name] + symbol.offset
        raise SyntaxMistake(f"kernel {program.name}: no variable is called {symbol.name}")

    def unknown(self, instruction: Instruction, why: str = "") -> PtxError:
        """The error for an instruction that is not known."""
        because = f": {why}" if why else ""
        return UnknownInstruction(
            f"kernel {self.program.name}, line {instruction.line}: the emulator does not know "
            f"`{instruction.text}`{because}"
        )

    # -- readers -----------------------------------------------------------------------------------------------------

    def reader(self, operand: Operand, type_name: str) -> Reader:
        """Reads an operand as values of a type."""
        wanted = kinds.dtype(type_name)
        match operand:
            case Register():
                return self._register_reader(operand, wanted)
            case Immediate():
                return _constant(_immediate(operand, type_name))
            case Symbol():
                return _constant(np.array([self.address_of(operand)], np.uint64).astype(wanted))
            case Special(name):
                return lambda g: kinds.as_type(g.choose(g.machine.special(name)), wanted)
            case Negated(inner):
                slot = self.slot(inner)
                return lambda g: ~g.read(slot)
            case Vector(items):
                return self._packed_reader(list(items), wanted)
        raise SyntaxMistake(f"kernel {self.program.name}: {operand} is no source operand")

    def _register_reader(self, register: Register, wanted: np.dtype[Any]) -> Reader:
        slot = self.slot(register)
        if UNSIGNED[register.bits] == wanted:
            return lambda g: g.read(slot)
        if register.bits == wanted.itemsize * 8:
            return lambda g: g.read(slot).view(wanted)
        if register.bits > wanted.itemsize * 8 or wanted.kind == "u":
            return lambda g: kinds.as_type(g.read(slot), wanted)
        raise SyntaxMistake(f"kernel {self.program.name}: register {register.name} is too narrow for its use")

    def _packed_reader(self, items: list[Operand], wanted: np.dtype[Any]) -> Reader:
        """`{low, high}` as one value."""
        width = wanted.itemsize * 8 // len(items)
        parts = [self.reader(i, f"b{width}") for i in items]
        whole = UNSIGNED[wanted.itemsize * 8]
        if whole.kind == "V":
            return lambda g: np.stack(np.broadcast_arrays(*(part(g) for part in parts)), axis=1).view(whole).reshape(-1)

        def read(g: Group) -> Array:
            total = parts[0](g).astype(whole)
            for place, part in enumerate(parts[1:], 1):
                total = total | (part(g).astype(whole) << whole.type(width * place))
            return total.view(wanted)

        return read

    # -- writers -----------------------------------------------------------------------------------------------------

    def writer(self, operand: Operand) -> Writer:
        """Writes values into a destination; wider registers are sign-extended for signed values, else zero-extended."""
        match operand:
            case Register(_, width):
                slot = self.slot(operand)
                return lambda g, values: g.write(slot, kinds.to_register(values, width))
            case Sink():
                return lambda g, values: None
            case Vector(items):
                return self._unpacking_writer(list(items))
        raise SyntaxMistake(f"kernel {self.program.name}: {operand} is no destination")

    def _unpacking_writer(self, items: list[Operand]) -> Writer:
        writers = [self.writer(i) for i in items]

        def write(g: Group, values: Array) -> None:
            whole = values.view(UNSIGNED[values.dtype.itemsize * 8])
            width = whole.dtype.itemsize * 8 // len(items)
            if whole.dtype.kind == "V":
                columns = np.ascontiguousarray(whole).view(UNSIGNED[width]).reshape(-1, len(items))
                for place, part in enumerate(writers):
                    part(g, np.ascontiguousarray(columns[:, place]))
                return
            for place, part in enumerate(writers):
                part(g, (whole >> whole.dtype.type(width * place)).astype(UNSIGNED[width]))

        return write

    def pair(self, operand: Operand) -> tuple[Writer, Writer]:
        """The writers of `d|p`, the second one doing nothing where there is only `d`."""
        if isinstance(operand, Pair):
            return self.writer(operand.first), self.writer(operand.second)
        return self.writer(operand), lambda g, values: None

    def items(self, operand: Operand) -> list[Operand]:
        """The parts of a vector operand, or the operand alone."""
        return list(operand.items) if isinstance(operand, Vector) else [operand]


def _constant(values: Array) -> Reader:
    return lambda g: values


def _immediate(operand: Immediate, type_name: str) -> Array:
    """A constant as one value of a type; a float constant is converted to the type's format first."""
    wanted = kinds.dtype(type_name)
    if operand.float_bits == 0:
        if wanted.kind == "f" and type_name != "f16":
            return np.array([operand.value], np.float64).astype(wanted)
        if wanted.kind == "b":
            return np.array([bool(operand.value)])
        mask = (1 << wanted.itemsize * 8) - 1
        return np.array([operand.value & mask], np.uint64).astype(UNSIGNED[wanted.itemsize * 8]).view(wanted)
    bits = np.array([operand.value], UNSIGNED[operand.float_bits])
    if wanted.kind == "f":
        with np.errstate(all="ignore"):
            return bits.view(np.dtype(f"f{operand.float_bits // 8}")).astype(wanted)
    if operand.float_bits == 64 and wanted.itemsize == 4:
        bits = bits.view(np.float64).astype(np.float32).view(np.uint32)
    return kinds.as_type(bits, wanted)
