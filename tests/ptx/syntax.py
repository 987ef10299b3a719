"""The parts of a PTX text, as immutable values: operands, instructions, variables, functions.

Names of registers and variables are unique within a function: the parser renames those of inner `{ }` scopes.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Register:
    """A register; `bits` is its width, 1 for a predicate."""

    name: str
    bits: int


@dataclass(frozen=True, slots=True)
class Special:
    """A read-only register such as `%tid.x`."""

    name: str


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant: an integer, or the bits of a float of the given width."""

    value: int
    float_bits: int = 0  # 0: an integer


@dataclass(frozen=True, slots=True)
class Symbol:
    """The name of a variable, label or function, and an offset in bytes."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """`[base + offset]`."""

    base: Register | Symbol | Immediate
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """`{a, b, …}`, or the parenthesised list of a call."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """`d|p`: two destinations."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Negated:
    """`!p`."""

    operand: Register


@dataclass(frozen=True, slots=True)
class Sink:
    """`_`: a result that nobody wants."""


Operand = Register | Special | Immediate | Symbol | Address | Vector | Pair | Negated | Sink


@dataclass(frozen=True, slots=True)
class Instruction:
    """`@guard opcode.modifiers operands;`, with the line it stands on."""

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    line: int
    guard: Register | None = None
    guard_negated: bool = False
    text: str = ""

    def has(self, *modifiers: str) -> bool:
        """Whether all these modifiers are there."""
        return all(m in self.modifiers for m in modifiers)

    def one_of(self, *modifiers: str, default: str = "") -> str:
        """The first of these modifiers that is there."""
        return next((m for m in self.modifiers if m in modifiers), default)


@dataclass(frozen=True, slots=True)
class Label:
    """A place that branches go to."""

    name: str


Statement = Instruction | Label


@dataclass(frozen=True, slots=True)
class Variable:
    """A named piece of memory; `init` holds numbers and, for addresses, symbols, of `element_bytes` each."""

    name: str
    space: str  # global, const, shared, local or param
    bytes: int
    align: int
    element_bytes: int = 1
    init: tuple[int | Symbol, ...] = ()
    external: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """An entry or a device function."""

    name: str
    entry: bool
    parameters: tuple[Variable, ...]
    results: tuple[Variable, ...]
    body: tuple[Statement, ...]
    variables: tuple[Variable, ...]
    branch_targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    directives: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    """A whole PTX module."""

    version: str
    target: str
    functions: dict[str, Function]
    variables: tuple[Variable, ...]
