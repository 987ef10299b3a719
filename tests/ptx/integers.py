"""Integer and bitwise instructions.

Division by zero, which PTX leaves to the machine, gives all ones, and the remainder gives the dividend.
"""

from __future__ import annotations

import numpy as np

from tests.ptx import kinds
from tests.ptx.elementwise import Builder, Function, compute, only, type_of
from tests.ptx.kinds import SIGNED, UNSIGNED, Array
from tests.ptx.operands import Decoder, Step
from tests.ptx.syntax import Instruction


def multiply_high(a: Array, b: Array) -> Array:
    """The upper half of the product of integers."""
    bits = a.dtype.itemsize * 8
    if bits < 64:
        double = (SIGNED if a.dtype.kind == "i" else UNSIGNED)[bits * 2]
        return (a.astype(double) * b.astype(double) >> double.type(bits)).astype(a.dtype)
    x, y = a.view(np.uint64), b.view(np.uint64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    middle = x1 * y0 + (x0 * y0 >> half)
    carry = (middle & low) + x0 * y1
    high = x1 * y1 + (middle >> half) + (carry >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high.view(a.dtype)


def divide(a: Array, b: Array) -> Array:
    """The quotient rounded towards zero."""
    zero = b == 0
    safe = np.where(zero, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        quotient = a // safe
    else:
        magnitude = np.abs(a).view(UNSIGNED[a.dtype.itemsize * 8]) // np.abs(safe).view(UNSIGNED[a.dtype.itemsize * 8])
        quotient = np.where((a < 0) != (safe < 0), -magnitude.view(a.dtype), magnitude.view(a.dtype))
    return np.where(zero, ~a.dtype.type(0), quotient)


def remainder(a: Array, b: Array) -> Array:
    """The remainder of `divide`; it has the dividend's sign."""
    return np.where(b == 0, a, a - divide(a, b) * b)


def shift_left(a: Array, amount: Array) -> Array:
    """Amounts beyond the width give 0."""
    bits = a.dtype.itemsize * 8
    inside = np.minimum(amount, bits - 1).astype(a.dtype)
    return np.where(amount >= bits, a.dtype.type(0), a << inside)


def shift_right(a: Array, amount: Array) -> Array:
    """Amounts beyond the width leave the sign alone."""
    bits = a.dtype.itemsize * 8
    shifted = a >> np.minimum(amount, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(amount >= bits, a.dtype.type(0), shifted)


def population(a: Array) -> Array:
    """The number of ones."""
    return np.bitwise_count(a).astype(np.uint32)


def leading_zeros(a: Array) -> Array:
    """The number of zeros above the highest one."""
    bits = a.dtype.itemsize * 8
    smeared = a
    for distance in (1, 2, 4, 8, 16, 32)[: bits.bit_length() - 1]:
        smeared = smeared | (smeared >> a.dtype.type(distance))
    return np.uint32(bits) - np.bitwise_count(smeared).astype(np.uint32)


def reverse(a: Array) -> Array:
    """The bits in opposite order."""
    size = a.dtype.itemsize
    table = np.array([int(f"{v:08b}"[::-1], 2) for v in range(256)], np.uint8)
    raw = table[np.ascontiguousarray(a).view(np.uint8).reshape(-1, size)][:, ::-1]
    return np.ascontiguousarray(raw).reshape(-1).view(a.dtype)


def permute(a: Array, b: Array, selector: Array) -> Array:
    """`prmt`: each nibble of the selector picks a byte of {b, a}; its top bit asks for the byte's sign instead."""
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    result = np.zeros(np.broadcast_shapes(both.shape, selector.shape), np.uint32)
    for place in range(4):
        nibble = selector >> np.uint32(4 * place)
        byte = (both >> ((nibble & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint8)
        sign = (byte.view(np.int8) >> 7).view(np.uint8)
        chosen = np.where(nibble & np.uint32(8), sign, byte)
        result |= chosen.astype(np.uint32) << np.uint32(8 * place)
    return result


def extract(a: Array, position: Array, length: Array) -> Array:
    """`bfe`: bits from a position on; signed ones are extended from the field's last bit, or the value's."""
    bits = a.dtype.itemsize * 8
    position, length = position & np.uint32(255), length & np.uint32(255)
    raw = shift_right(a, position)
    kept = np.minimum(length, bits).astype(np.uint32)
    free = np.uint32(bits) - kept
    if a.dtype.kind == "u":
        return shift_right(shift_left(raw, free), free)
    unsigned = UNSIGNED[bits]
    field = shift_right(shift_left(raw.view(unsigned), free).view(a.dtype), free)
    return np.where(kept == 0, a.dtype.type(0), field)


def insert(a: Array, b: Array, position: Array, length: Array) -> Array:
    """`bfi`: the low bits of a put into b."""
    bits = a.dtype.itemsize * 8
    position, length = position & np.uint32(255), length & np.uint32(255)
    ones = a.dtype.type((1 << bits) - 1)
    low = np.where(length >= bits, ones, ~shift_left(np.broadcast_to(ones, length.shape), length))
    mask = shift_left(low, position)
    return (b & ~mask) | (shift_left(a, position) & mask)


def find_leading(a: Array) -> Array:
    """`bfind`: the place of the highest bit that differs from the sign; all ones where there is none."""
    if a.dtype.kind == "i":
        a = np.where(a < 0, ~a, a).view(UNSIGNED[a.dtype.itemsize * 8])
    return np.uint32(a.dtype.itemsize * 8 - 1) - leading_zeros(a)


def funnel(left: bool, clamp: bool) -> Function:
    """`shf`: 32 bits out of {high, low} shifted."""

    def shifted(low: Array, high: Array, amount: Array) -> Array:
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        n = (np.minimum(amount, 32) if clamp else amount & np.uint32(31)).astype(np.uint64)
        return ((both << n) >> np.uint64(32) if left else both >> n).astype(np.uint32)

    return shifted


def logic3(table: int) -> Function:
    """`lop3`: any function of three bits, by its table of eight."""

    def combined(a: Array, b: Array, c: Array) -> Array:
        total = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), a.dtype)
        for row in range(8):
            if table >> row & 1:
                total |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
        return total

    return combined


def saturating(function: Function) -> Function:
    """Signed 32-bit sums and differences kept within their range."""

    def clamped(*sources: Array) -> Array:
        wide = function(*(s.astype(np.int64) for s in sources))
        return np.clip(wide, -(2**31), 2**31 - 1).astype(np.int32)

    return clamped


def arithmetic(function: Function) -> Builder:
    """An instruction on integers of its one type."""

    def build(i: Instruction, d: Decoder) -> Step:
        only(i, d, "sat", "lo", "wrap")
        kind = type_of(i, d)
        return compute(i, d, saturating(function) if i.has("sat") else function, kind)

    return build


def bitwise(function: Function, *types: str) -> Builder:
    """An instruction on bits; further sources may have types of their own."""

    def build(i: Instruction, d: Decoder) -> Step:
        only(i, d)
        return compute(i, d, function, type_of(i, d), *types)

    return build


def multiply(i: Instruction, d: Decoder) -> Step:
    only(i, d, "lo", "hi", "wide")
    kind = type_of(i, d)
    if i.has("hi"):
        return compute(i, d, multiply_high, kind)
    if i.has("wide"):
        wide = kinds.dtype(f"{kind[0]}{kinds.bits(kind) * 2}")
        return compute(i, d, lambda a, b: a.astype(wide) * b.astype(wide), kind)
    return compute(i, d, lambda a, b: a * b, kind)


def multiply_add(i: Instruction, d: Decoder) -> Step:
    only(i, d, "lo", "hi", "wide")
    kind = type_of(i, d)
    if i.has("hi"):
        return compute(i, d, lambda a, b, c: multiply_high(a, b) + c, kind)
    if i.has("wide"):
        name = f"{kind[0]}{kinds.bits(kind) * 2}"
        wide = kinds.dtype(name)
        return compute(i, d, lambda a, b, c: a.astype(wide) * b.astype(wide) + c, kind, kind, name)
    return compute(i, d, lambda a, b, c: a * b + c, kind)


def _insert(i: Instruction, d: Decoder) -> Step:
    only(i, d)
    return compute(i, d, insert, type_of(i, d), type_of(i, d), "u32", "u32")


def _permute(i: Instruction, d: Decoder) -> Step:
    only(i, d)  # the modes .f4e, .b4e and so on are not known
    return compute(i, d, permute, "u32")


def _three_inputs(i: Instruction, d: Decoder) -> Step:
    only(i, d)
    table = i.operands[4]
    short = Instruction(i.opcode, i.modifiers, i.operands[:4], i.line, text=i.text)
    return compute(short, d, logic3(int(getattr(table, "value", 0))), "b32")


def _funnel(i: Instruction, d: Decoder) -> Step:
    only(i, d, "l", "r", "wrap", "clamp")
    return compute(i, d, funnel(i.has("l"), i.has("clamp")), "b32")


def _find(i: Instruction, d: Decoder) -> Step:
    only(i, d, "shiftamt")
    if not i.has("shiftamt"):
        return compute(i, d, find_leading, type_of(i, d))

    def amount(a: Array) -> Array:
        place = find_leading(a)
        return np.where(place == 0xFFFFFFFF, place, np.uint32(a.dtype.itemsize * 8 - 1) - place)

    return compute(i, d, amount, type_of(i, d))


ADD = arithmetic(lambda a, b: a + b)
SUB = arithmetic(lambda a, b: a - b)
DIV = arithmetic(divide)
MIN = arithmetic(np.minimum)
MAX = arithmetic(np.maximum)
NEG = arithmetic(lambda a: -a)
ABS = arithmetic(np.abs)

INSTRUCTIONS: dict[str, Builder] = {
    "rem": arithmetic(remainder),
    "mad": multiply_add,
    "and": bitwise(lambda a, b: a & b),
    "or": bitwise(lambda a, b: a | b),
    "xor": bitwise(lambda a, b: a ^ b),
    "not": bitwise(lambda a: ~a),
    "cnot": bitwise(lambda a: (a == 0).astype(a.dtype)),
    "shl": bitwise(shift_left, "u32"),
    "shr": bitwise(shift_right, "u32"),
    "popc": bitwise(population),
    "clz": bitwise(leading_zeros),
    "brev": bitwise(reverse),
    "bfe": bitwise(extract, "u32", "u32"),
    "bfi": _insert,
    "bfind": _find,
    "prmt": _permute,
    "shf": _funnel,
    "lop3": _three_inputs,
}
