"""Moves, comparisons and selections."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx import kinds
from tests.ptx.elementwise import Builder, compute, only, type_of
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Reader, Step
from tests.ptx.rounding import from_bfloat
from tests.ptx.syntax import Instruction, Vector

Comparison = Callable[[Array, Array], Array]


def _unordered(a: Array, b: Array) -> Array:
    return np.isnan(a) | np.isnan(b)


def _or_unordered(function: Comparison) -> Comparison:
    return lambda a, b: function(a, b) | _unordered(a, b)


def _ordered_not_equal(a: Array, b: Array) -> Array:
    return (a != b) & ~_unordered(a, b)


_INTEGER: dict[str, Comparison] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
_FLOAT: dict[str, Comparison] = {
    "eq": np.equal, "ne": _ordered_not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "equ": _or_unordered(np.equal), "neu": np.not_equal, "ltu": _or_unordered(np.less),
    "leu": _or_unordered(np.less_equal), "gtu": _or_unordered(np.greater), "geu": _or_unordered(np.greater_equal),
    "num": lambda a, b: ~_unordered(a, b), "nan": _unordered,
}  # fmt: skip
_COMBINE: dict[str, Comparison] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def comparison(i: Instruction, d: Decoder, kind: str) -> Comparison:
    """The comparison that an instruction names, on values of a type."""
    table = _FLOAT if kind in kinds.FLOATS else _INTEGER
    name = i.modifiers[0]
    if name not in table:
        raise d.unknown(i, f"comparison .{name} of .{kind}")
    plain = table[name]
    if kind == "bf16":
        return lambda a, b: plain(from_bfloat(a), from_bfloat(b))
    return plain


def set_predicate(i: Instruction, d: Decoder) -> Step:
    """`setp`: p = a ? b, and q = not that; each combined with a predicate where there is one."""
    only(i, d, "ftz", *_INTEGER, *_FLOAT, *_COMBINE)
    kind = type_of(i, d)
    compare = comparison(i, d, kind)
    first, second = d.pair(i.operands[0])
    a, b = (d.reader(o, kind) for o in i.operands[1:3])
    combine = next((_COMBINE[m] for m in i.modifiers if m in _COMBINE), None)
    if combine is None:
        if len(i.operands) != 3:
            raise d.unknown(i)
        if i.operands[0].__class__.__name__ == "Pair":
            return lambda g: _both(g, compare(a(g), b(g)), first, second)
        return lambda g: first(g, compare(a(g), b(g)))
    c = d.reader(i.operands[3], "pred")

    def step(g: Group) -> None:
        result, other = compare(a(g), b(g)), c(g)
        first(g, combine(result, other))
        second(g, combine(~result, other))

    return step


def _both(
    g: Group, result: Array, first: Callable[[Group, Array], None], second: Callable[[Group, Array], None]
) -> None:
    first(g, result)
    second(g, ~result)


def set_value(i: Instruction, d: Decoder) -> Step:
    """`set`: all ones or 1.0 where the comparison holds."""
    target, source = [m for m in i.modifiers if kinds.is_type(m)]
    compare = comparison(i, d, source)
    yes = np.float32(1).view(np.uint32) if target == "f32" else np.uint32(0xFFFFFFFF)
    return compute(i, d, lambda a, b: np.where(compare(a, b), yes, np.uint32(0)), source)


def select(i: Instruction, d: Decoder) -> Step:
    kind = f"b{kinds.bits(type_of(i, d))}"
    return compute(i, d, lambda a, b, p: np.where(p, a, b), kind, kind, "pred")


def select_by_sign(i: Instruction, d: Decoder) -> Step:
    """`slct`: a where c is not negative, else b."""
    value, sign = [m for m in i.modifiers if kinds.is_type(m)]
    kind = f"b{kinds.bits(value)}"
    return compute(i, d, lambda a, b, c: np.where(c >= 0, a, b), kind, kind, sign)


def move(i: Instruction, d: Decoder) -> Step:
    """`mov`: also packs and unpacks vectors, and takes the address of a variable."""
    kind = type_of(i, d)
    target, source = i.operands
    if isinstance(target, Vector) and isinstance(source, Vector):
        raise d.unknown(i)
    read: Reader = d.reader(source, kind if kind == "pred" else f"b{kinds.bits(kind)}")
    if kind.startswith("f"):
        read = d.reader(source, kind)
    write = d.writer(target)
    return lambda g: write(g, read(g))


INSTRUCTIONS: dict[str, Builder] = {
    "mov": move,
    "setp": set_predicate,
    "set": set_value,
    "selp": select,
    "slct": select_by_sign,
}
