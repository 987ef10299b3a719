"""The functions of the scalar language as LLVM instructions, on scalars and vectors alike.

In: operands of equal shape and their dtype. Out: the result. What LLVM leaves undefined (a division by zero, a
shift by too much, a conversion out of range) is given a value here, because lanes that a mask or a `select` later
discards are computed too.
"""

from __future__ import annotations

import struct

import numpy as np

from graphc.codegen.llvm.builder import Function, Value, element_type, lane_count, mangled, vector_type
from graphc.codegen.llvm.half_precision import rounded, widened
from graphc.codegen.llvm.math import intrinsic_name
from graphc.codegen.target import Target
from graphc.scalar import nearest

__all__ = ["REGISTER", "STORAGE", "Functions", "constant"]

# The LLVM type of a dtype in a register, and in memory with its size in bytes. Those of no register are float32 there.
REGISTER = {"float32": "float", "float64": "double", "int32": "i32", "bool": "i1", "index": "i64"}
STORAGE = {
    "float32": ("float", 4),
    "float64": ("double", 8),
    "float16": ("i16", 2),
    "bfloat16": ("i16", 2),
    "int32": ("i32", 4),
    "bool": ("i8", 1),
    "index": ("i64", 8),
}

_FLOAT_OPS = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT_OPS = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_FLOAT_TESTS = {"lt": "fcmp olt", "le": "fcmp ole", "eq": "fcmp oeq", "ne": "fcmp une"}
_INT_TESTS = {"lt": "icmp slt", "le": "icmp sle", "eq": "icmp eq", "ne": "icmp ne"}
_BOOL_TESTS = {**_INT_TESTS, "lt": "icmp ult", "le": "icmp ule"}
# Floats of at least this magnitude are integers, so they are their own floor.
_INTEGRAL_FROM = {"float": 2.0**23, "double": 2.0**52}


def constant(value: float | int | bool, dtype: str) -> Value:
    """A constant. Floats are spelled by their bits, exactly; those of a dtype that only stores are as they lie in
    memory."""
    match dtype:
        case "float32":
            with np.errstate(over="ignore"):
                rounded = float(np.float32(value))
            return Value(f"0x{struct.pack('>d', rounded).hex().upper()}", "float")
        case "float64":
            return Value(f"0x{struct.pack('>d', float(value)).hex().upper()}", "double")
        case "float16" | "bfloat16":
            return Value(str(nearest(value, dtype).view(np.uint16)), "i16")
        case "bool":
            return Value("true" if value else "false", "i1")
        case "int32":
            return Value(str((int(value) + 2**31) % 2**32 - 2**31), "i32")
        case _:
            return Value(str(int(value)), "i64")


class Functions:
    """Emits functions into an LLVM function, and notes which elementary functions it needs defined."""

    def __init__(self, function: Function, target: Target) -> None:
        self.function = function
        self.target = target
        self.elementary: set[tuple[str, str, int]] = set()

    def apply(self, fn: str, args: list[Value], source: str, result: str) -> Value:
        """One function of the table. `source` is the dtype of its last argument, `result` that of its result."""
        f = self.function
        a, floats = args[-1], source.startswith("float")
        match fn:
            case "select":
                return f.select(*args)
            case "cast":
                return self._cast(a, source, result)
            case "lt" | "le" | "eq" | "ne":
                tests = _FLOAT_TESTS if floats else _BOOL_TESTS if source == "bool" else _INT_TESTS
                return f.compare(tests[fn], *args)
            case "max" | "min":
                return self.extreme(fn, *args)
            case "floordiv" | "mod":
                return self._divide(fn, *args)
            case "shl" | "shr":
                return self._shift(fn, *args)
            case "neg":
                return f.emit(a.type, f"fneg {a}") if floats else f.binary("sub", self._like(0, a), a)
            case "abs":
                return f.intrinsic("fabs", a) if floats else f.intrinsic("abs", a, Value("false", "i1"))
            case "not":
                return f.binary("xor", a, self._like(1 if source == "bool" else -1, a))
            case "sqrt":
                return f.intrinsic("sqrt", a)
            case "floor":
                return self._floor(a)
            case "round.float16" | "round.bfloat16":
                dtype = fn.removeprefix("round.")
                return widened(f, rounded(f, a, dtype), dtype)
            case _ if fn in _INT_OPS or fn in _FLOAT_OPS:
                return f.binary((_FLOAT_OPS if floats else _INT_OPS)[fn], *args)
            case _:
                return self._elementary(fn, args, source)

    def multiply_add(self, a: Value, b: Value, total: Value) -> Value:
        """total + a·b, rounded once where the machine can."""
        if self.target.has_fma:
            return self.function.intrinsic("fma", a, b, total)
        return self.function.binary("fadd", total, self.function.binary("fmul", a, b))

    def dot(self, a: Value, b: Value, total: Value) -> Value:
        """total + a₁·b₁ + a₀·b₀, of pairs of bfloat16, each pair a word; rounded after each addition."""
        f, lanes = self.function, lane_count(total.type)
        x, y = (f.emit(f"<{2 * lanes} x bfloat>", f"bitcast {word} to <{2 * lanes} x bfloat>") for word in (a, b))
        return f.call(total.type, f"llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}", total, x, y)

    def extreme(self, fn: str, a: Value, b: Value) -> Value:
        """The larger or the smaller of two. Of floats it is NaN if either is."""
        f = self.function
        kind = element_type(a.type)
        if kind not in ("float", "double"):
            return f.intrinsic({"max": "smax", "min": "smin"}[fn], a, b)
        # x86's instruction gives b where the two are unordered, so only a NaN in `a` needs a second look.
        nearer = f.select(f.compare("fcmp ogt" if fn == "max" else "fcmp olt", a, b), a, b)
        return f.select(f.compare("fcmp uno", a, a), a, nearer)

    def _like(self, value: int, a: Value) -> Value:
        """An integer constant of the type of `a`."""
        lanes, element = lane_count(a.type), element_type(a.type)
        text = {0: "false", 1: "true"}[value] if element == "i1" else str(value)
        return Value(text if lanes == 1 else f"<{', '.join([f'{element} {text}'] * lanes)}>", a.type)

    def _divide(self, fn: str, a: Value, b: Value) -> Value:
        """The quotient rounded down, or the remainder of the divisor's sign that goes with it. Both are 0 if the
        divisor is 0."""
        f = self.function
        if element_type(a.type) == "i64":  # an index: divisors are lengths, or counts
            return self._divide_index(fn, a, b)
        zero, one, minus = (self._like(value, a) for value in (0, 1, -1))
        none, opposite = f.compare("icmp eq", b, zero), f.compare("icmp eq", b, minus)
        safe = f.select(f.binary("or", none, opposite), one, b)  # the lowest number has no opposite
        remainder = f.binary("srem", a, safe)
        apart = f.compare("icmp slt", f.binary("xor", remainder, safe), zero)
        below = f.binary("and", f.compare("icmp ne", remainder, zero), apart)
        if fn == "mod":
            return f.select(below, f.binary("add", remainder, safe), remainder)
        quotient = f.binary("sdiv", a, safe)
        quotient = f.select(below, f.binary("sub", quotient, one), quotient)
        return f.select(none, zero, f.select(opposite, f.binary("sub", zero, a), quotient))

    def _divide_index(self, fn: str, a: Value, b: Value) -> Value:
        """The quotient rounded down, or the remainder, which is never negative. The divisor is positive; for any other
        the result is any number."""
        f = self.function
        zero, one = self._like(0, a), self._like(1, a)
        if not b.text.isdigit():
            b = f.select(f.compare("icmp sgt", b, zero), b, one)
        remainder = f.binary("srem", a, b)
        below = f.compare("icmp slt", remainder, zero)
        if fn == "mod":
            return f.select(below, f.binary("add", remainder, b), remainder)
        quotient = f.binary("sdiv", a, b)
        return f.select(below, f.binary("sub", quotient, one), quotient)

    def _shift(self, fn: str, a: Value, by: Value) -> Value:
        """Shifted bits. By 32 and more, all are lost."""
        f = self.function
        shifted = f.binary("lshr" if fn == "shr" else "shl", a, f.binary("and", by, self._like(31, a)))
        return f.select(f.compare("icmp ult", by, self._like(32, a)), shifted, self._like(0, a))

    def _floor(self, a: Value) -> Value:
        f = self.function
        if self.target.has_floor:
            return f.intrinsic("floor", a)
        kind, lanes = element_type(a.type), lane_count(a.type)
        dtype = {"float": "float32", "double": "float64"}[kind]
        limit = f.splat(constant(_INTEGRAL_FROM[kind], dtype), lanes)
        one = f.splat(constant(1.0, dtype), lanes)
        fractional = f.compare("fcmp olt", f.intrinsic("fabs", a), limit)
        whole = "i32" if kind == "float" else "i64"
        safe = f.select(fractional, a, Value("zeroinitializer" if lanes > 1 else "0.0", a.type))
        truncated = f.convert("sitofp", f.convert("fptosi", safe, whole), kind)
        lower = f.select(f.compare("fcmp ogt", truncated, a), f.binary("fsub", truncated, one), truncated)
        signed = f.intrinsic("copysign", lower, a)
        return f.select(fractional, signed, a)

    def _cast(self, a: Value, source: str, result: str) -> Value:
        f = self.function
        if source == result:
            return a
        to, from_float, to_float = REGISTER[result], source.startswith("float"), result.startswith("float")
        if result == "bool":
            if from_float:
                zero = Value("zeroinitializer" if lane_count(a.type) > 1 else "0.0", a.type)
                return f.compare("fcmp une", a, zero)
            return f.compare("icmp ne", a, self._like(0, a))
        if from_float and to_float:
            if result == "float64":
                return f.convert("fpext", a, to)
            # LLVM may take the sign of a float64 for that of a float16, and would call a library to convert it, unless
            # something stands between the two conversions.
            narrow = f.convert("fptrunc", a, to)
            return f.intrinsic("arithmetic.fence", narrow) if f.halves else narrow
        if from_float:
            return self._truncate(a, to)
        if to_float:
            return f.convert("uitofp" if source == "bool" else "sitofp", a, to)
        narrowing = source == "index"
        return f.convert("zext" if source == "bool" else "trunc" if narrowing else "sext", a, to)

    def _truncate(self, a: Value, to: str) -> Value:
        """A float as an integer, towards zero. Out of range it is the nearest integer that there is, and NaN is 0."""
        type = vector_type(to, lane_count(a.type))
        return self.function.call(type, f"llvm.fptosi.sat.{mangled(type)}.{mangled(a.type)}", a)

    def _elementary(self, fn: str, args: list[Value], dtype: str) -> Value:
        lanes = lane_count(args[0].type)
        self.elementary.add((fn, dtype, lanes))
        name = intrinsic_name(fn, dtype, lanes)
        return self.function.call(args[0].type, name, *args, declare=False)
