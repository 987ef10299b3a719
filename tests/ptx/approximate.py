"""The approximate functions, as wrong as their documentation allows.

Each is the correctly rounded result moved by a part of its documented error bound that depends on the argument's bits
alone: a kernel that is right here is right for any conforming device, and runs give the same bits every time.
Bounds: PTX ISA 9.0, sections "Floating Point Instructions" and "Half Precision Floating Point Instructions".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx.kinds import Array
from tests.ptx.rounding import bfloat_bits, from_bfloat, round_to

Real = Callable[[Array], Array]

RELATIVE = {
    ("rcp", "f32"): 2.0**-23,
    ("sqrt", "f32"): 2.0**-23,
    ("rsqrt", "f32"): 2.0**-22.9,
    ("rcp", "f64"): 2.0**-20,
    ("rsqrt", "f64"): 2.0**-20,
    ("ex2", "f32"): 2.0**-22.5,
    ("ex2", "f16"): 2.0**-9.9,
    ("ex2", "bf16"): 2.0**-7,
    ("tanh", "f32"): 2.0**-11,
    ("tanh", "f16"): 2.0**-10.987,
    ("tanh", "bf16"): 2.0**-8,
    ("div", "f32"): 2.0**-22,
}
# Absolute for results up to 1, relative for larger ones.
ABSOLUTE = {("lg2", "f32"): 2.0**-22, ("sin", "f32"): 2.0**-20.5, ("cos", "f32"): 2.0**-20.5}

_HALF_ULP = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8, "f64": 0.0}

EXACT: dict[str, Real] = {
    "rcp": lambda x: 1.0 / x,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "ex2": np.exp2,
    "lg2": np.log2,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
}


def wobble(bits: Array) -> Array:
    """A number in [-1, 1) for each pattern of bits, as if drawn at random."""
    x = bits.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def perturbed(name: str, format_name: str, exact: Array, bits: Array) -> Array:
    """Exact float64 results moved by less than the bound, such that rounding them still stays within it."""
    if (name, format_name) in RELATIVE:
        room = max(RELATIVE[name, format_name] - _HALF_ULP[format_name], 0.0)
        moved = exact * (1.0 + room * wobble(bits))
    else:
        room = ABSOLUTE[name, format_name] * np.maximum(1.0, np.abs(exact)) - _HALF_ULP[format_name] * np.abs(exact)
        moved = exact + room * wobble(bits)
    if name == "tanh":
        moved = np.clip(moved, -1.0, 1.0)
    specified = ~np.isfinite(exact) | (exact == 0) | ((exact == 1) & (name in ("ex2", "cos")))
    return np.where(specified, exact, moved)


def function(name: str, format_name: str, flush: bool) -> Callable[[Array], Array]:
    """An approximate function from register bits of a format to register bits."""

    def single(bits: Array) -> Array:
        x = flushed(bits.view(np.float32)) if flush else bits.view(np.float32)
        y = perturbed(name, "f32", EXACT[name](x.astype(np.float64)), bits).astype(np.float32)
        return flushed(y) if flush else y

    def half(bits: Array) -> Array:
        x = bits.view(np.float16).astype(np.float64)
        return round_to(perturbed(name, "f16", EXACT[name](x), bits), "f16").astype(np.float16)

    def brain(bits: Array) -> Array:
        x = from_bfloat(bits).astype(np.float64)
        return bfloat_bits(perturbed(name, "bf16", EXACT[name](x), bits))

    def double(bits: Array) -> Array:
        return perturbed(name, "f64", EXACT[name](bits.view(np.float64)), bits)

    return {"f32": single, "f16": half, "bf16": brain, "f64": double}[format_name]


def flushed(x: Array) -> Array:
    """Subnormal float32 values as zeros of their sign."""
    small = np.abs(x) < np.float32(2.0**-126)
    return np.where(small, np.copysign(np.float32(0), x), x) if small.any() else x
