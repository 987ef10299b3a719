"""PTX text into its functions and variables.

Reads what LLVM's NVPTX back end prints and what people write in inline assembly: nested scopes, register ranges,
vectors, guards, branch tables, call sequences. Debugging sections are skipped. What instructions mean is not known
here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.ptx.errors import SyntaxMistake
from tests.ptx.lexer import Cursor
from tests.ptx.syntax import (
    Address,
    Function,
    Immediate,
    Instruction,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Sink,
    Special,
    Statement,
    Symbol,
    Text,
    Variable,
    Vector,
)

_SPACES = {".global", ".const", ".shared", ".local", ".param"}
_LINKAGE = {".visible", ".extern", ".weak", ".common"}
_KERNEL_DIRECTIVES = {
    ".maxntid", ".reqntid", ".minnctapersm", ".maxnreg", ".reqnctapercluster", ".maxclusterrank", ".explicitcluster",
    ".noreturn", ".maxnctapersm",
}  # fmt: skip
_PARAMETER_NOTES = {".ptr", ".global", ".const", ".shared", ".local"}


def type_bits(name: str) -> int:
    """The width of a PTX type such as `.b32`; 1 for a predicate."""
    if name == ".pred":
        return 1
    return int(name.lstrip(".").lstrip("busf"))


def parse(source: str) -> Text:
    """The functions and variables of a PTX text. SyntaxMistake: what was found, and on which line."""
    return _Parser(source).module()


@dataclass
class _Scope:
    """The names declared between two braces: registers by name, ranges by prefix, and renamed variables and labels."""

    suffix: str
    registers: dict[str, Register] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


class _Parser(Cursor):
    """A recursive descent; the state is a position among the tokens and the stack of scopes."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.scopes: list[_Scope] = []
        self.scope_count = 0

    # -- the module --------------------------------------------------------------------------------------------------

    def module(self) -> Text:
        version, target = "", ""
        functions: dict[str, Function] = {}
        variables: list[Variable] = []
        while self.token.kind != "end":
            word = self.peek()
            if word == ".version":
                self.take()
                version = self.take()
            elif word == ".target":
                self.take()
                target = self.take()
                while self.accept(","):
                    self.take()
            elif word in (".address_size", ".file", ".loc"):
                self.skip_line()
            elif word == ".section":
                self._skip_section()
            elif word in (".pragma", ".alias"):
                self.skip_past(";")
            else:
                self._declaration(functions, variables)
        return Text(version, target, functions, tuple(variables))

    def _skip_section(self) -> None:
        self.skip_past("{")
        self.skip_past("}")

    def _declaration(self, functions: dict[str, Function], variables: list[Variable]) -> None:
        external = False
        while self.peek() in _LINKAGE:
            external |= self.take() == ".extern"
        if self.peek() in (".entry", ".func"):
            function = self._function()
            if function is not None:
                functions[function.name] = function
        elif self.peek() in _SPACES:
            variables.extend(self._variables(external))
        else:
            raise SyntaxMistake(f"line {self.line}: expected a function or a variable, found {self.peek()!r}")

    # -- functions ---------------------------------------------------------------------------------------------------

    def _function(self) -> Function | None:
        entry = self.take() == ".entry"
        results = self._parameters() if self.peek() == "(" else ()
        name = self.take()
        parameters = self._parameters() if self.peek() == "(" else ()
        directives: dict[str, tuple[int, ...]] = {}
        while self.peek() in _KERNEL_DIRECTIVES:
            directive, numbers = self.take(), []
            while self.token.kind == "number":
                numbers.append(self.integer())
                self.accept(",")
            directives[directive[1:]] = tuple(numbers)
        if self.accept(";"):
            return None
        body: list[Statement] = []
        variables: list[Variable] = []
        targets: dict[str, tuple[str, ...]] = {}
        self._block(body, variables, targets)
        return Function(name, entry, parameters, results, tuple(body), tuple(variables), targets, directives)

    def _parameters(self) -> tuple[Variable, ...]:
        self.take("(")
        found = []
        while not self.accept(")"):
            self.take(".param")
            found.append(self._variable("param", external=False))
            self.accept(",")
        return tuple(found)

    def _block(self, body: list[Statement], variables: list[Variable], targets: dict[str, tuple[str, ...]]) -> None:
        self.take("{")
        self.scopes.append(_Scope(f"@{self.scope_count}" if self.scopes else ""))
        self.scope_count += 1
        self._name_labels()
        while not self.accept("}"):
            word = self.peek()
            if word == "{":
                self._block(body, variables, targets)
            elif word == ".reg":
                self._registers()
            elif word in _SPACES:
                variables.extend(self._variables(external=False))
            elif word == ".pragma":
                self.skip_past(";")
            elif word in (".loc", ".file"):
                self.skip_line()
            elif self.peek(1) == ":":
                self._label(body, targets)
            elif not self.accept(";"):
                body.append(self._instruction())
        self.scopes.pop()

    def _name_labels(self) -> None:
        """Labels are seen in the whole of their braces, also before they stand."""
        depth, position = 0, self.at
        while depth >= 0 and self.tokens[position].kind != "end":
            text = self.tokens[position].text
            depth += (text == "{") - (text == "}")
            if text == ":" and depth == 0:
                name = self.tokens[position - 1].text
                self.scopes[-1].names[name] = name + self.scopes[-1].suffix
            position += 1

    def _label(self, body: list[Statement], targets: dict[str, tuple[str, ...]]) -> None:
        name = self._renamed(self.take())
        self.take(":")
        if self.accept(".branchtargets"):
            listed = [self._renamed(self.take())]
            while self.accept(","):
                listed.append(self._renamed(self.take()))
            self.take(";")
            targets[name] = tuple(listed)
        else:
            body.append(Label(name))

    def _registers(self) -> None:
        self.take(".reg")
        bits = type_bits(self.take())
        scope = self.scopes[-1]
        while True:
            name = self.take()
            if self.accept("<"):
                for number in range(self.integer()):
                    scope.registers[f"{name}{number}"] = Register(f"{name}{number}{scope.suffix}", bits)
                self.take(">")
            else:
                scope.registers[name] = Register(name + scope.suffix, bits)
            if not self.accept(","):
                break
        self.take(";")

    # -- variables ---------------------------------------------------------------------------------------------------

    def _variables(self, external: bool) -> list[Variable]:
        space = self.take()[1:]
        found = [self._variable(space, external)]
        self.take(";")
        return found

    def _variable(self, space: str, external: bool) -> Variable:
        align, element = 0, 0
        while True:
            word = self.take()
            if word == ".align":
                align = self.integer()
            elif word == ".attribute":
                self.skip_past(")")
            elif word in _PARAMETER_NOTES:
                if word == ".ptr":  # `.ptr .global .align 16` speaks of what the pointer points to
                    self.accept(".global") or self.accept(".shared") or self.accept(".const") or self.accept(".local")
                    if self.accept(".align"):
                        self.integer()
            elif word.startswith("."):
                element = max(1, type_bits(word) // 8)
            else:
                name = word
                break
        count = 1
        while self.accept("["):
            count *= 0 if self.peek() == "]" else self.integer()
            self.take("]")
        if self.scopes:
            scope = self.scopes[-1]
            scope.names[name] = name + scope.suffix
            name += scope.suffix
        init = self._initialiser() if self.accept("=") else ()
        return Variable(name, space, element * count, max(align, element), element, init, external)

    def _initialiser(self) -> tuple[int | Symbol, ...]:
        if self.accept("{"):
            items: list[int | Symbol] = []
            while not self.accept("}"):
                items.extend(self._initialiser())
                self.accept(",")
            return tuple(items)
        if self.token.kind == "word":
            name = self.take()
            if name == "generic":  # global addresses are generic ones already
                self.take("(")
                name = self.take()
                self.take(")")
            return (Symbol(name, self._offset()),)
        constant = self._number()
        return (constant.value,)

    # -- instructions ------------------------------------------------------------------------------------------------

    def _instruction(self) -> Instruction:
        line, start = self.line, self.token.start
        guard, negated = self._guard() if self.accept("@") else (None, False)
        name = self.take()
        if not name[0].isalpha():
            raise SyntaxMistake(f"line {line}: expected an instruction, found {name!r}")
        operands: list[Operand] = []
        while not self.accept(";"):
            operands.append(self._operand())
            if not self.accept(",") and self.peek() != ";":
                raise SyntaxMistake(f"line {line}: expected ',' or ';' in {name}, found {self.peek()!r}")
        opcode, *modifiers = name.split(".")
        text = " ".join(self.source[start : self.tokens[self.at - 1].start].split()) + ";"
        return Instruction(opcode, tuple(modifiers), tuple(operands), line, guard, negated, text)

    def _guard(self) -> tuple[Register, bool]:
        line, negated = self.line, self.accept("!")
        guard = self._word_operand(self.take())
        if not isinstance(guard, Register) or guard.bits != 1:
            raise SyntaxMistake(f"line {line}: a guard must be a predicate, found {guard}")
        return guard, negated

    def _operand(self) -> Operand:
        token = self.token
        if token.text in ("{", "("):
            return self._list()
        if self.accept("["):
            return self._address()
        if self.accept("!"):
            operand = self._word_operand(self.take())
            if not isinstance(operand, Register):
                raise SyntaxMistake(f"line {token.line}: '!' stands before a predicate, found {operand}")
            return Negated(operand)
        if token.kind == "number" or token.text == "-":
            return self._number()
        operand = self._word_operand(self.take())
        if isinstance(operand, Symbol):
            return Symbol(operand.name, self._offset())
        if self.accept("|"):
            return Pair(operand, self._word_operand(self.take()))
        return operand

    def _list(self) -> Vector:
        closing = "}" if self.take() == "{" else ")"
        items = []
        while not self.accept(closing):
            items.append(self._operand())
            self.accept(",")
        return Vector(tuple(items))

    def _address(self) -> Address:
        if self.token.kind == "number":
            base: Operand = Immediate(self.integer())
        else:
            base = self._word_operand(self.take())
        offset = self._offset()
        self.take("]")
        if not isinstance(base, Register | Symbol | Immediate):
            raise SyntaxMistake(f"line {self.line}: {base} is no address")
        return Address(base, offset)

    def _offset(self) -> int:
        if self.accept("+"):
            return self.integer()
        return self.integer() if self.peek() == "-" else 0

    def _number(self) -> Immediate:
        sign = -1 if self.accept("-") else 1
        text = self.take()
        if text[:2] in ("0f", "0F"):
            return Immediate(int(text[2:], 16), 32)
        if text[:2] in ("0d", "0D"):
            return Immediate(int(text[2:], 16), 64)
        if "." in text:
            return Immediate(int.from_bytes(struct.pack("<d", sign * float(text)), "little"), 64)
        return Immediate(sign * int(text.rstrip("U"), 0))

    def _word_operand(self, word: str) -> Operand:
        if word == "_":
            return Sink()
        for scope in reversed(self.scopes):
            if word in scope.registers:
                return scope.registers[word]
        if word.startswith("%"):
            return Special(word)
        if word == "WARP_SZ":
            return Immediate(32)
        return Symbol(self._renamed(word))

    def _renamed(self, word: str) -> str:
        for scope in reversed(self.scopes):
            if word in scope.names:
                return scope.names[word]
        return word
