"""Float arithmetic: float32 and float64 as IEEE 754 says, float16 and bfloat16 (also in pairs) rounded once.

float16 and bfloat16 sums, products and quotients are computed in float64, whose precision is more than twice theirs
plus two bits, so rounding them again is the same as rounding once.
"""

from __future__ import annotations

import numpy as np

from tests.ptx import approximate, integers, kinds
from tests.ptx.approximate import flushed
from tests.ptx.elementwise import Builder, Function, compute, only, type_of
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Step
from tests.ptx.rounding import (
    bfloat_bits,
    fma_double,
    fma_single,
    fma_to_odd,
    from_bfloat,
    round_to,
    sum_to_odd,
)
from tests.ptx.syntax import Instruction

ROUNDINGS = ("rn", "rz", "rm", "rp")


def maximum(a: Array, b: Array) -> Array:
    """The greater; a NaN loses, +0 beats -0."""
    return np.where(a == b, np.where(np.signbit(a), b, a), np.fmax(a, b))


def minimum(a: Array, b: Array) -> Array:
    """The smaller; a NaN loses, -0 beats +0."""
    return np.where(a == b, np.where(np.signbit(a), a, b), np.fmin(a, b))


def keeping_nan(function: Function) -> Function:
    """`.NaN`: a NaN wins."""
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), np.asarray(np.nan, a.dtype), function(a, b))


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once (float32 or float64)."""
    return fma_single(a, b, c) if a.dtype == np.float32 else fma_double(a, b, c)


NATIVE: dict[str, Function] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "fma": fma,
    "mad": fma,
    "min": minimum,
    "max": maximum,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rcp": lambda a: a.dtype.type(1) / a,
}
# The exact results in float64, rounded to odd, from which any rounding is right; for float32 and narrower sources.
TO_ODD: dict[str, Function] = {
    **NATIVE,
    "add": sum_to_odd,
    "sub": lambda a, b: sum_to_odd(a, -b),
    "fma": fma_to_odd,
    "mad": fma_to_odd,
}


def canonical(function: Function) -> Function:
    """float32 results whose NaNs all have the bits that devices give."""

    def clean(*sources: Array) -> Array:
        result = function(*sources)
        bad = np.isnan(result)
        return np.where(bad, np.uint32(0x7FFFFFFF).view(np.float32), result) if bad.any() else result

    return clean


def _single(i: Instruction, name: str, function: Function) -> Function:
    mode = i.one_of(*ROUNDINGS, default="rn")
    if mode != "rn":
        odd = TO_ODD[name]

        def directed(*sources: Array) -> Array:
            wide = odd(*(s.astype(np.float64) for s in sources))
            return round_to(wide, "f32", mode).astype(np.float32)

        function = directed
    function = function if name in ("neg", "abs") else canonical(function)
    if i.has("ftz"):
        function = _flushing(function)
    if i.has("sat"):
        plain = function
        function = lambda *s: np.fmin(np.fmax(plain(*s), np.float32(0)), np.float32(1))  # noqa: E731
    return function


def _flushing(function: Function) -> Function:
    return lambda *sources: flushed(function(*(flushed(s) for s in sources)))


def _narrow(name: str, kind: str, nan: bool, relu: bool, saturate: bool) -> Function:
    """A function of float16 values or bfloat16 bits."""
    exact = keeping_nan(TO_ODD[name]) if nan else TO_ODD[name]

    def computed(*sources: Array) -> Array:
        wide = exact(*(_widen(s, kind) for s in sources))
        if relu:
            wide = np.where(np.isnan(wide), wide, np.maximum(wide, 0.0))
        if saturate:
            wide = np.fmin(np.fmax(wide, 0.0), 1.0)
        return bfloat_bits(wide) if kind == "bf16" else round_to(wide, "f16").astype(np.float16)

    return computed


def _widen(values: Array, kind: str) -> Array:
    return (from_bfloat(values) if kind == "bf16" else values).astype(np.float64)


def in_pairs(function: Function, kind: str) -> Function:
    """A function of 16- or 32-bit values, applied to both halves of values of twice the width."""
    element, width = kinds.dtype(kind), kinds.bits(kind)
    half, whole = kinds.UNSIGNED[width], kinds.UNSIGNED[2 * width]
    shift = whole.type(width)

    def both(*sources: Array) -> Array:
        low = function(*(s.astype(half).view(element) for s in sources)).view(half)
        high = function(*((s >> shift).astype(half).view(element) for s in sources)).view(half)
        return low.astype(whole) | (high.astype(whole) << shift)

    return both


def arithmetic(name: str, otherwise: Builder | None = None) -> Builder:
    """A float instruction; `otherwise` builds it for integers."""

    def build(i: Instruction, d: Decoder) -> Step:
        kind = type_of(i, d)
        if kinds.dtype(kind).kind in "iu" and not kind.startswith("bf16") and not kind.startswith("f"):
            if otherwise is None:
                raise d.unknown(i, f"type .{kind}")
            return otherwise(i, d)
        if i.has("approx") or i.has("full"):
            return _approximation(i, d)
        only(i, d, "ftz", "sat", "NaN", "relu", "oob", *ROUNDINGS)
        if name == "rsqrt":
            raise d.unknown(i, "rsqrt needs .approx")
        narrow = kind.removesuffix("x2")
        if narrow in ("f16", "bf16"):
            function = _narrow(name, narrow, i.has("NaN"), i.has("relu"), i.has("sat"))
            return compute(i, d, in_pairs(function, narrow) if kind.endswith("x2") else function, kind)
        function = keeping_nan(NATIVE[name]) if i.has("NaN") else NATIVE[name]
        if narrow == "f32":
            function = _single(i, name, function)
            function = in_pairs(function, "f32") if kind == "f32x2" else function
        elif i.one_of(*ROUNDINGS, default="rn") != "rn":
            raise d.unknown(i, "float64 is rounded to nearest only")
        return compute(i, d, function, kind)

    return build


def _approximation(i: Instruction, d: Decoder) -> Step:
    only(i, d, "approx", "full", "ftz")
    kind = type_of(i, d)
    narrow = kind.removesuffix("x2")
    if i.opcode == "div":
        return compute(i, d, _flushing(_quotient) if i.has("ftz") else _quotient, "f32")
    key = (i.opcode, narrow)
    if key not in approximate.RELATIVE and key not in approximate.ABSOLUTE:
        raise d.unknown(i, f"type .{kind}")
    function = approximate.function(i.opcode, narrow, i.has("ftz"))
    if kind.endswith("x2"):
        return compute(i, d, in_pairs(lambda v: function(v.view(np.uint16)), narrow), kind)
    return compute(i, d, function, f"b{kinds.bits(kind)}")


def _quotient(a: Array, b: Array) -> Array:
    exact = a.astype(np.float64) / b
    return approximate.perturbed("div", "f32", exact, a.view(np.uint32) ^ b.view(np.uint32)).astype(np.float32)


def _copysign(i: Instruction, d: Decoder) -> Step:
    return compute(i, d, lambda a, b: np.copysign(b, a), type_of(i, d))


_CLASSES: dict[str, Function] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda a: ~np.isnan(a),
    "notanumber": np.isnan,
    "normal": lambda a: np.isfinite(a) & (np.abs(a) >= np.finfo(a.dtype).tiny),
    "subnormal": lambda a: (a != 0) & (np.abs(a) < np.finfo(a.dtype).tiny),
}


def _classify(i: Instruction, d: Decoder) -> Step:
    """`testp`."""
    only(i, d, *_CLASSES)
    return compute(i, d, _CLASSES[i.modifiers[0]], type_of(i, d))


INSTRUCTIONS: dict[str, Builder] = {
    "add": arithmetic("add", integers.ADD),
    "sub": arithmetic("sub", integers.SUB),
    "mul": arithmetic("mul", integers.multiply),
    "div": arithmetic("div", integers.DIV),
    "fma": arithmetic("fma"),
    "mad": arithmetic("mad", integers.multiply_add),
    "min": arithmetic("min", integers.MIN),
    "max": arithmetic("max", integers.MAX),
    "neg": arithmetic("neg", integers.NEG),
    "abs": arithmetic("abs", integers.ABS),
    "sqrt": arithmetic("sqrt"),
    "rcp": arithmetic("rcp"),
    "rsqrt": arithmetic("rsqrt"),
    "ex2": _approximation,
    "lg2": _approximation,
    "tanh": _approximation,
    "sin": _approximation,
    "cos": _approximation,
    "copysign": _copysign,
    "testp": _classify,
}
