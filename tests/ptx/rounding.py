"""Exact rounding: float64 values to float32, float16, bfloat16 and tf32, and the fused multiply-add.

Sums are first rounded to float64 "to odd": inexact ones get an odd last bit, so that rounding them again to a format
of at most 51 bits equals rounding the exact sum once (Boldo & Melquiond, "Emulation of FMA and correctly rounded sums:
proved algorithms using rounding to odd", IEEE Transactions on Computers 57(4), 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tests.ptx.kinds import Array


@dataclass(frozen=True, slots=True)
class Format:
    """A binary float format: bits of precision (with the hidden one), exponents of the least and greatest normals."""

    precision: int
    least: int
    greatest: int


FORMATS = {
    "f16": Format(11, -14, 15),
    "bf16": Format(8, -126, 127),
    "tf32": Format(11, -126, 127),
    "f32": Format(24, -126, 127),
    "f64": Format(53, -1022, 1023),
}


def round_to(values: Array, format_name: str, mode: str = "rn") -> Array:
    """float64 values rounded to a format, as float64. Modes: rn (ties to even), rna (ties away), rz, rm, rp."""
    if format_name == "f64":
        return values
    f = FORMATS[format_name]
    _, exponent = np.frexp(values)
    grain = np.maximum(exponent - 1, f.least) - (f.precision - 1)
    scaled = np.ldexp(values, -grain)
    match mode:
        case "rn":
            whole = np.rint(scaled)
        case "rna":
            whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
        case "rz":
            whole = np.trunc(scaled)
        case "rm":
            whole = np.floor(scaled)
        case "rp":
            whole = np.ceil(scaled)
        case _:
            raise ValueError(f"no rounding mode {mode}")
    result = np.copysign(np.ldexp(whole, grain), values)
    return _overflow(result, values, f, mode)


def _overflow(result: Array, values: Array, f: Format, mode: str) -> Array:
    largest = float(np.ldexp(2.0 - 2.0 ** (1 - f.precision), f.greatest))
    over = np.abs(result) > largest
    if over.any():
        stays = {"rz": np.ones_like(over), "rm": values > 0, "rp": values < 0}.get(mode, np.zeros_like(over))
        limit = np.where(stays & np.isfinite(values), largest, np.inf)
        result = np.where(over, np.copysign(limit, values), result)
    return np.where(np.isfinite(values), result, values)


def sum_to_odd(a: Array, b: Array) -> Array:
    """a + b in float64, rounded to odd."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)  # Knuth's TwoSum
    inexact = (error != 0) & np.isfinite(total)
    if not inexact.any():
        return total
    raw = np.atleast_1d(total).view(np.int64)
    even = (raw & 1) == 0
    outward = (error > 0) == (total > 0)  # the exact sum is further from 0 than the rounded one
    return np.where(inexact & even, raw + np.where(outward, 1, -1), raw).view(np.float64)


def fma_single(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32 arrays, rounded once to float32."""
    product = a.astype(np.float64) * b  # exact: 24 + 24 bits
    return sum_to_odd(product, c.astype(np.float64)).astype(np.float32)


def fma_to_odd(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float64 arrays that hold values of at most 24 bits, rounded to odd."""
    return sum_to_odd(a * b, c)


def fma_double(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float64 arrays, rounded once to float64.

    Where the product's error and all sums are exact in float64, by error-free transformations; elsewhere (very large,
    very small, not finite) element by element in rational numbers.
    """
    a, b, c = (np.array(v) for v in np.broadcast_arrays(a, b, c))
    high, low = _two_product(a, b)
    sum_high, sum_low = _two_sum(c, low)
    top, bottom = _two_sum(high, sum_high)
    result = top + sum_to_odd(bottom, sum_low)
    size = np.abs(high)
    safe = np.isfinite(result) & (size < 2.0**900) & (np.abs(a) < 2.0**900) & (np.abs(b) < 2.0**900)
    safe &= (size > 2.0**-900) & (np.abs(result) > 2.0**-900)
    for i in np.flatnonzero(~safe):
        result[i] = _fma_rational(float(a[i]), float(b[i]), float(c[i]))
    return result


def _fma_rational(a: float, b: float, c: float) -> float:
    if not (np.isfinite(a) and np.isfinite(b)) or not np.isfinite(c):
        with np.errstate(all="ignore"):
            return float(np.float64(a) * np.float64(b) + np.float64(c))
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # the sign of zero
    try:
        return float(exact)
    except OverflowError:
        return float(np.copysign(np.inf, 1 if exact > 0 else -1))


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The product and its error, by Veltkamp's splitting."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Array) -> tuple[Array, Array]:
    scaled = a * 134217729.0  # 2^27 + 1
    high = scaled - (scaled - a)
    return high, a - high


def bfloat_bits(values: Array, mode: str = "rn") -> Array:
    """float64 values as the bits of bfloat16."""
    single = round_to(values, "bf16", mode).astype(np.float32)
    bits = (single.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), bits)


def from_bfloat(bits: Array) -> Array:
    """The float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
