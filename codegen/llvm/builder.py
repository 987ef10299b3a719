"""A small builder of textual LLVM IR: typed values, basic blocks, structured loops and branches.

In: a function's name, parameters and attributes, then calls that append instructions. Out: its text.

Control flow is structured, so every block is closed by the context manager that opened it. A block keeps its
terminator apart from its instructions: code can still be appended to a loop's preheader while the loop's body is
being written, which is how `graphc.codegen.cpu.nest` places a value at the outermost level it can live at.
Local variables are `alloca`s that LLVM turns into registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Block", "Function", "Value", "element_type", "i64", "lane_count", "mangled", "quoted", "vector_type"]


@dataclass(frozen=True, slots=True)
class Value:
    """An operand: a register, an argument, or a constant, with its LLVM type."""

    text: str
    type: str

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


def vector_type(element: str, lanes: int) -> str:
    """The type of `lanes` elements; one lane is a scalar."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def lane_count(type: str) -> int:
    """The lanes of a type; 1 for a scalar."""
    return int(type[1:].split(" x ")[0]) if type.startswith("<") else 1


def element_type(type: str) -> str:
    """The type of one lane."""
    return type[1:-1].split(" x ")[1] if type.startswith("<") else type


def i64(value: int) -> Value:
    """An index that is a constant."""
    return Value(str(value), "i64")


@dataclass(slots=True)
class Block:
    """A basic block: its instructions, and the one that ends it."""

    name: str
    lines: list[str] = field(default_factory=list)
    terminator: str = "ret void"


@dataclass(slots=True)
class _Open:
    """A loop that is being written. `multiples` of its index advance with it: of each the value, what it begins at, and
    by how much it grows, by factor."""

    start: Value
    step: Value
    preheader: Block
    multiples: dict[Value, tuple[Value, Value, Value]] = field(default_factory=dict)  # by factor


class Function:
    """One function returning nothing, built from its first instruction to its last.

    Where LLVM recognises the induction variable of a loop, it rewrites every address in the loop as a pointer that
    advances. On processors that gains nothing, and is half of the work of making machine code. So unless a function is
    `counted`, the index of the next round goes through `llvm.expect`, so that LLVM does not recognise the induction
    variable.

    `halves`: the machine has instructions that convert float16 (LLVM's `half`); `bfloats`: that round to bfloat16.
    """

    counted = False
    bfloats = False

    def __init__(self, name: str, parameters: Sequence[str], linkage: str = "internal", halves: bool = False) -> None:
        self.halves = halves
        self._header = f"define {linkage} void @{name}({', '.join(parameters)})"
        self.entry = Block("entry")
        self.blocks = [self.entry]
        self.block = self.entry
        self._count = 0
        self._open: dict[Value, _Open] = {}  # by index
        self.declarations: set[str] = set()

    def text(self, attributes: str) -> str:
        """The function's definition, with LLVM's attributes for it."""
        lines = [f"{self._header} {attributes} {{"]
        for block in self.blocks:
            lines += [f"{block.name}:", *(f"  {line}" for line in block.lines), f"  {block.terminator}"]
        return "\n".join([*lines, "}"])

    # Instructions

    def emit(self, type: str, instruction: str) -> Value:
        """Append `%new = instruction`, whose result has the given type."""
        self._count += 1
        value = Value(f"%.{self._count}", type)
        self.block.lines.append(f"{value.text} = {instruction}")
        return value

    def effect(self, instruction: str) -> None:
        """Append an instruction that has no result."""
        self.block.lines.append(instruction)

    def binary(self, op: str, a: Value, b: Value) -> Value:
        """`op` on two values of one type."""
        return self.emit(a.type, f"{op} {a}, {b.text}")

    def compare(self, op: str, a: Value, b: Value) -> Value:
        """`op` with its predicate: "icmp slt", "fcmp olt"."""
        return self.emit(vector_type("i1", lane_count(a.type)), f"{op} {a}, {b.text}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """`a` where the condition holds, and `b` elsewhere."""
        return a if a == b else self.emit(a.type, f"select {condition}, {a}, {b}")

    def convert(self, op: str, a: Value, element: str) -> Value:
        """A conversion of every lane to another element type."""
        type = vector_type(element, lane_count(a.type))
        return self.emit(type, f"{op} {a} to {type}")

    def call(self, type: str, name: str, *arguments: Value, declare: bool = True) -> Value:
        """Call a function, or declare and call an intrinsic."""
        if declare:
            self.declarations.add(f"declare {type} @{name}({', '.join(a.type for a in arguments)})")
        return self.emit(type, f"call {type} @{name}({', '.join(map(str, arguments))})")

    def run(self, name: str, *arguments: Value) -> None:
        """Declare and call an intrinsic for its effect."""
        self.declarations.add(f"declare void @{name}({', '.join(a.type for a in arguments)})")
        self.effect(f"call void @{name}({', '.join(map(str, arguments))})")

    def intrinsic(self, name: str, a: Value, *others: Value) -> Value:
        """Call `llvm.name`, overloaded on the type of its first argument and of the same result."""
        return self.call(a.type, f"llvm.{name}.{mangled(a.type)}", a, *others)

    def splat(self, a: Value, lanes: int) -> Value:
        """The same value in every lane."""
        if lanes == lane_count(a.type):
            return a
        type = vector_type(a.type, lanes)
        first = self.emit(type, f"insertelement {type} poison, {a}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.emit(type, f"shufflevector {first}, {type} poison, {zeros}")

    def offset(self, pointer: Value, element: str, index: Value) -> Value:
        """The address `index` elements on; of every lane where the index is a vector."""
        if index == i64(0):
            return pointer
        type = vector_type("ptr", max(lane_count(pointer.type), lane_count(index.type)))
        return self.emit(type, f"getelementptr {element}, {pointer}, {index}")

    # Local variables

    def variable(self, type: str, count: int = 1) -> Value:
        """Uninitialised stack space; LLVM keeps it in registers where every use has a fixed offset."""
        self._count += 1
        self.entry.lines.insert(0, f"%.{self._count} = alloca {type}, i64 {count}")
        return Value(f"%.{self._count}", "ptr")

    def get(self, variable: Value, type: str, align: int | None = None) -> Value:
        """A load of a value of this type."""
        return self.emit(type, f"load {type}, {variable}" + (f", align {align}" if align else ""))

    def put(self, value: Value, variable: Value, align: int | None = None) -> None:
        """A store of a value."""
        self.effect(f"store {value}, {variable}" + (f", align {align}" if align else ""))

    # Control flow

    @contextmanager
    def at(self, block: Block) -> Iterator[None]:
        """Append to the end of another block, which must dominate the uses."""
        current, self.block = self.block, block
        yield
        self.block = current

    @contextmanager
    def loop(
        self, start: Value, stop: Value, step: Value, name: str, unroll: bool = True
    ) -> Iterator[tuple[Value, Block]]:
        """for (index = start; index < stop; index += step). Gives the index and the preheader, which runs once and
        only if the body runs at all, so that loads may be hoisted to it."""
        self._count += 1
        count = self._count
        preheader, body, done = (Block(f"{name}.{part}.{count}") for part in ("enter", "loop", "done"))
        some = self.compare("icmp slt", start, stop)
        self._close(f"br {some}, label %{preheader.name}, label %{done.name}", preheader)
        self._close(f"br label %{body.name}", body)
        index = Value(f"%.{name}.{count}", "i64")
        self._open[index] = opened = _Open(start, step, preheader)
        yield index, preheader
        del self._open[index]
        advancing = ((index, start, step), *opened.multiples.values())
        following = [self._hidden(self.binary("add nsw", value, by)) for value, _, by in advancing]
        more = self.compare("icmp slt", following[0], stop)
        body.lines[:0] = [
            f"{value.text} = phi i64 [ {first.text}, %{preheader.name} ], [ {after.text}, %{self.block.name} ]"
            for (value, first, _), after in zip(advancing, following, strict=True)
        ]
        metadata = "" if unroll else ", !llvm.loop !0"
        self._close(f"br {more}, label %{body.name}, label %{done.name}{metadata}", done)

    def multiple(self, index: Value, factor: Value) -> Value:
        """A loop's index times a factor that is known before the loop, as a value that advances with the index. A shift
        in each round would do, but takes a register more; and if pointers fill the registers, LLVM then orders loads
        badly."""
        loop = self._open.get(index)
        if loop is None or factor == i64(1):
            return self.binary("mul nsw", index, factor)
        if factor not in loop.multiples:
            with self.at(loop.preheader):
                first = loop.start if loop.start == i64(0) else self.binary("mul nsw", loop.start, factor)
                by = factor if loop.step == i64(1) else self.binary("mul nsw", loop.step, factor)
            self._count += 1
            loop.multiples[factor] = Value(f"%.multiple.{self._count}", "i64"), first, by
        return loop.multiples[factor][0]

    def _hidden(self, index: Value) -> Value:
        """The index of the next round. LLVM does not recognise it as one, unless the function's loops are `counted`."""
        return index if self.counted else self.intrinsic("expect", index, i64(0))

    @contextmanager
    def when(self, condition: Value) -> Iterator[Block]:
        """if (condition). Gives the block before the branch."""
        self._count += 1
        before, then, done = self.block, Block(f"then.{self._count}"), Block(f"endif.{self._count}")
        self._close(f"br {condition}, label %{then.name}, label %{done.name}", then)
        yield before
        self._close(f"br label %{done.name}", done)

    def _close(self, terminator: str, following: Block) -> None:
        self.block.terminator = terminator
        self.blocks.append(following)
        self.block = following


def quoted(sigil: str, name: str) -> str:
    """A name of the user's as an LLVM identifier; anything but plain characters is escaped."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else _escaped(c) for c in name)
    return f'{sigil}"{plain}"'


def _escaped(character: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in character.encode())


def mangled(type: str) -> str:
    """The type as an intrinsic's name spells it: v16f32, i64, p0."""
    element = {"float": "f32", "double": "f64", "ptr": "p0"}.get(element_type(type), element_type(type))
    return f"v{lane_count(type)}{element}" if type.startswith("<") else element
