"""float16 and bfloat16 in memory, float32 in registers: the conversions, as instructions.

In: the 16 bits of elements, or float32 values; scalars and vectors alike. Out: the same numbers as float32, or the
nearest numbers' bits, the even one of two, infinity past the largest. NaN stays NaN. A machine without instructions for
them gets integer arithmetic, because LLVM would call a library. Denormal float32 numbers count as zero where a machine
is told so, but float16's own denormals are ordinary float32 numbers, so no step on the way may be one.
"""

from __future__ import annotations

from graphc.codegen.llvm.builder import Function, Value, element_type, lane_count, vector_type
from graphc.codegen.llvm.vector_expressions import Body, Vector, select

__all__ = ["half_of_pair", "pair_of_halves", "rounded", "widened"]

_SIGN = 1 << 31
_INFINITY = 0x7F800000  # the bits of a float32; those of a NaN are more
_SMALLEST = 0x38800000  # 2⁻¹⁴, float16's smallest normal number
_TOO_LARGE = 0x47800000  # 2¹⁶: from here on, float16 has infinity alone
_HALF = 0x3F000000  # 0.5, whose last bit has the weight of float16's smallest number, 2⁻²⁴
_REBIASED = 112 << 23  # between the exponents of float32 and of float16


def widened(f: Function, bits: Value, dtype: str) -> Value:
    """float32 values from elements as they lie in memory (i16)."""
    native = _native(f, dtype)
    if native is not None:
        return f.convert("fpext", f.convert("bitcast", bits, native), "float")
    formula = _from_float16 if dtype == "float16" else _from_bfloat16
    return _value(formula(_vector(f, f.convert("zext", bits, "i32"))).as_float())


def half_of_pair(f: Function, pairs: Value, half: int) -> Value:
    """float32 values from pairs of bfloat16, each a word (i32): the first or the second ones. The first in memory is
    the lower half of its word."""
    bits = _vector(f, pairs)
    return _value((bits << 16 if half == 0 else bits & ~0xFFFF).as_float())


def pair_of_halves(f: Function, first: Value, second: Value) -> Value:
    """Pairs of bfloat16, each a word (i32), from float32 values that are rounded."""
    low, high = (_vector(f, f.convert("zext", rounded(f, value, "bfloat16"), "i32")) for value in (first, second))
    return _value(low | high << 16)


def rounded(f: Function, value: Value, dtype: str) -> Value:
    """Elements as they lie in memory (i16) from float32 values."""
    native = _native(f, dtype)
    if native is not None:
        return f.convert("bitcast", f.convert("fptrunc", value, native), "i16")
    formula = _to_float16 if dtype == "float16" else _to_bfloat16
    return f.convert("trunc", _value(formula(_vector(f, value).bits())), "i16")


def _native(f: Function, dtype: str) -> str | None:
    """LLVM's name for the dtype, where the machine has instructions for it."""
    return {"float16": "half" if f.halves else None, "bfloat16": "bfloat" if f.bfloats else None}[dtype]


def _from_bfloat16(word: Vector) -> Vector:
    return word << 16


def _to_bfloat16(bits: Vector) -> Vector:
    """The upper half, rounded: one more if the lower half is more than half of the upper one's last bit, or just half
    of it and that bit is odd."""
    odd = (bits >> 16) & 1
    nearest = (bits + 0x7FFF + odd) >> 16
    return select((bits & ~_SIGN) > _INFINITY, (bits >> 16) | 0x40, nearest)


def _from_float16(word: Vector) -> Vector:
    sign, digits = (word & 0x8000) << 16, (word & 0x7FFF) << 13
    normal = digits + _REBIASED
    special = digits | _INFINITY
    # A denormal m · 2⁻²⁴ is what m in the last digits adds to 2⁻¹⁴.
    small = ((digits | _SMALLEST).as_float() - (word.constant(_SMALLEST)).as_float()).bits()
    finite = select(digits < 1 << 23, small, normal)
    return select(digits < 31 << 23, finite, special) | sign


def _to_float16(bits: Vector) -> Vector:
    sign, size = (bits >> 16) & 0x8000, bits & ~_SIGN
    odd = (size >> 13) & 1
    normal = (size - _REBIASED + 0xFFF + odd) >> 13
    # Added to 0.5, a small number is rounded where float16 ends.
    small = (size.as_float() + bits.constant(_HALF).as_float()).bits() - _HALF
    special = select(size > _INFINITY, bits.constant(0x7E00), 0x7C00)
    finite = select(size < _SMALLEST, small, normal)
    return select(size < _TOO_LARGE, finite, special) | sign


class _Inline(Body):
    """Instructions that are appended to a function."""

    def __init__(self, function: Function) -> None:
        super().__init__(fused=False)
        self.function = function

    def emit(self, element: str, width: int, instruction: str) -> Vector:
        made = self.function.emit(vector_type(element, width), instruction)
        return Vector(self, made.text, element, width)


def _vector(f: Function, value: Value) -> Vector:
    return Vector(_Inline(f), value.text, element_type(value.type), lane_count(value.type))


def _value(vector: Vector) -> Value:
    return Value(vector.text, vector.type)
