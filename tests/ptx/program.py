"""A kernel as one flat list of instructions: device functions inlined, guards turned into branches, memory laid out.

In: a parsed Text and the name of an entry. Out: a Program, in which every label is a position in the code, every
guarded instruction but a branch is jumped over by a branch, and every shared, local and parameter variable has its
offset. The parameters of inlined functions are local variables of the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.ptx.errors import InvalidLaunch, SyntaxMistake, UnknownInstruction
from tests.ptx.syntax import (
    Address,
    Function,
    Instruction,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Statement,
    Symbol,
    Text,
    Variable,
    Vector,
)

SHARED_START = 1024  # the first offset of shared memory, so that a null pointer points nowhere
LOCAL_START = 1024


@dataclass(frozen=True)
class Program:
    """A kernel, ready to be decoded."""

    name: str
    code: tuple[Instruction, ...]
    labels: dict[str, int]
    branch_targets: dict[str, tuple[str, ...]]
    parameters: dict[str, tuple[int, Variable]]  # offset and declaration, in order
    shared: dict[str, int]
    shared_bytes: int  # statically declared ones
    local: dict[str, int]
    local_bytes: int
    directives: dict[str, tuple[int, ...]]


def flatten(text: Text, name: str) -> Program:
    """The Program of an entry of a module."""
    if name not in text.functions or not text.functions[name].entry:
        entries = ", ".join(f.name for f in text.functions.values() if f.entry)
        raise InvalidLaunch(f"the module has no kernel {name}; it has {entries or 'none'}")
    entry = text.functions[name]
    flattener = _Flattener(text)
    statements = list(flattener.body(entry, "", {}, (name,)))
    code, labels = _resolve(statements)
    shared, static = _layout(
        [v for v in (*text.variables, *flattener.variables) if v.space == "shared"], SHARED_START, dynamic_last=True
    )
    local, frame = _layout([v for v in flattener.variables if v.space in ("local", "param")], LOCAL_START)
    offsets, _ = _layout(list(entry.parameters), 0)
    parameters = {v.name: (offsets[v.name], v) for v in entry.parameters}
    return Program(
        name, code, labels, flattener.targets, parameters, shared, static - SHARED_START, local, frame - LOCAL_START,
        entry.directives,
    )  # fmt: skip


def _layout(variables: list[Variable], start: int, dynamic_last: bool = False) -> tuple[dict[str, int], int]:
    """Offsets of variables one after the other, and the end of the last; those of unknown size lie at that end."""
    offsets: dict[str, int] = {}
    end = start
    for variable in variables:
        if not (dynamic_last and variable.external):
            end = -(-end // variable.align) * variable.align
            offsets[variable.name] = end
            end += variable.bytes
    if dynamic_last and any(v.external for v in variables):
        end = -(-end // 16) * 16
        offsets.update({v.name: end for v in variables if v.external})
    return offsets, end


def _resolve(statements: list[Statement]) -> tuple[tuple[Instruction, ...], dict[str, int]]:
    """Labels taken out and counted; a kernel ends in `ret`, also where its text does not say so."""
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    for statement in statements:
        if isinstance(statement, Label):
            labels[statement.name] = len(code)
        else:
            code.append(statement)
    code.append(Instruction("ret", (), (), code[-1].line if code else 0, text="ret;"))
    return tuple(code), labels


class _Flattener:
    """Walks bodies, inlining calls; collects the variables and branch tables of everything inlined."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.variables: list[Variable] = []
        self.targets: dict[str, tuple[str, ...]] = {}
        self.copies = 0

    def body(self, f: Function, suffix: str, bound: dict[str, str], stack: tuple[str, ...]) -> Iterator[Statement]:
        """A function's statements, its own names made unique by `suffix`, its parameters replaced as `bound` says."""
        own = {v.name: v.name + suffix for v in f.variables}
        own |= {s.name: s.name + suffix for s in f.body if isinstance(s, Label)}
        own |= {name: name + suffix for name in f.branch_targets}
        names = own | bound
        self.variables.extend(replace(v, name=names[v.name]) for v in f.variables)
        for table, labels in f.branch_targets.items():
            self.targets[names[table]] = tuple(names[label] for label in labels)
        for statement in f.body:
            if isinstance(statement, Label):
                yield Label(names[statement.name])
                continue
            instruction = replace(
                statement,
                operands=tuple(_rename(o, names, suffix) for o in statement.operands),
                guard=statement.guard and Register(statement.guard.name + suffix, 1),
            )
            if instruction.opcode == "call":
                yield from self._guarded(instruction, self._call(instruction, stack))
            elif instruction.opcode == "ret" and suffix:
                yield replace(instruction, opcode="bra", operands=(Symbol(f"(return){suffix}"),))
            elif instruction.opcode in ("bra", "brx"):
                yield instruction
            else:
                yield from self._guarded(instruction, iter((replace(instruction, guard=None),)))

    def _guarded(self, instruction: Instruction, inner: Iterator[Statement]) -> Iterator[Statement]:
        if instruction.guard is None:
            yield from inner
            return
        self.copies += 1
        end = f"(skip){self.copies}"
        yield replace(
            instruction,
            opcode="bra",
            modifiers=(),
            operands=(Symbol(end),),
            guard_negated=not instruction.guard_negated,
        )
        yield from inner
        yield Label(end)

    def _call(self, call: Instruction, stack: tuple[str, ...]) -> Iterator[Statement]:
        lists = [o for o in call.operands if isinstance(o, Vector)]
        callee = next((o for o in call.operands if isinstance(o, Symbol)), None)
        if callee is None or callee.name not in self.text.functions:
            raise UnknownInstruction(f"line {call.line}: `{call.text}` calls no function of this module")
        function = self.text.functions[callee.name]
        if callee.name in stack:
            raise UnknownInstruction(
                f"line {call.line}: `{call.text}` is recursive, which the emulator does not follow"
            )
        formal = (*function.results, *function.parameters)
        actual = [o for group in lists for o in group.items]
        if len(formal) != len(actual) or not all(isinstance(a, Symbol) for a in actual):
            raise SyntaxMistake(f"line {call.line}: `{call.text}` needs {len(formal)} .param variables")
        self.copies += 1
        suffix = f"#{self.copies}"
        bound = {f.name: a.name for f, a in zip(formal, actual, strict=True) if isinstance(a, Symbol)}
        yield from self.body(function, suffix, bound, (*stack, callee.name))
        yield Label(f"(return){suffix}")


def _rename(operand: Operand, names: dict[str, str], suffix: str) -> Operand:
    match operand:
        case Register(name, bits):
            return Register(name + suffix, bits)
        case Symbol(name, offset):
            return Symbol(names.get(name, name), offset)
        case Address(base, offset):
            renamed = _rename(base, names, suffix)
            assert isinstance(renamed, Register | Symbol) or renamed == base
            return Address(renamed, offset)
        case Vector(items):
            return Vector(tuple(_rename(i, names, suffix) for i in items))
        case Pair(first, second):
            return Pair(_rename(first, names, suffix), _rename(second, names, suffix))
        case Negated(inner):
            return Negated(Register(inner.name + suffix, inner.bits))
        case _:
            return operand
