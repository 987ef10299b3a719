"""`cvt`: between integers and floats of all widths, with every rounding, saturation, ReLU and packed pairs."""

from __future__ import annotations

import numpy as np

from tests.ptx import kinds
from tests.ptx.approximate import flushed
from tests.ptx.elementwise import Builder, Function, compute, only
from tests.ptx.kinds import FLOATS, Array
from tests.ptx.operands import Decoder, Step
from tests.ptx.rounding import bfloat_bits, from_bfloat, round_to
from tests.ptx.syntax import Instruction

_INTEGER_ROUNDING = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_MODES = ("rn", "rna", "rz", "rm", "rp")


def convert(i: Instruction, d: Decoder) -> Step:
    only(i, d, "ftz", "sat", "satfinite", "relu", *_INTEGER_ROUNDING, *_MODES)
    types = [m for m in i.modifiers if kinds.is_type(m)]
    if len(types) != 2:
        raise d.unknown(i, "it needs two types")
    target, source = types
    if target in ("f16x2", "bf16x2"):
        return _packed(i, d, target, source)
    floats = (target in FLOATS or target == "tf32", source in FLOATS)
    function = {
        (False, False): _integers,
        (True, False): _to_float,
        (False, True): _to_integer,
        (True, True): _floats,
    }[floats](i, target, source)
    return compute(i, d, function, source)


def _packed(i: Instruction, d: Decoder, target: str, source: str) -> Step:
    """`cvt.rn.bf16x2.f32 d, a, b`: a in the upper half, b in the lower."""
    if source != "f32" or len(i.operands) != 3:
        raise d.unknown(i)
    narrow = _floats(i, target.removesuffix("x2"), "f32")

    def both(a: Array, b: Array) -> Array:
        high, low = (narrow(v).view(np.uint16).astype(np.uint32) for v in (a, b))
        return (high << np.uint32(16)) | low

    return compute(i, d, both, "f32")


def _integers(i: Instruction, target: str, source: str) -> Function:
    wanted = kinds.dtype(target)
    if not i.has("sat"):
        return lambda a: a.astype(wanted)
    limits = np.iinfo(wanted)

    def clamped(a: Array) -> Array:
        a = np.where(a < limits.min, limits.min, a) if a.dtype.kind == "i" and wanted.kind == "u" else a
        low = max(int(limits.min), int(np.iinfo(a.dtype).min))
        return np.clip(a, low, min(int(limits.max), int(np.iinfo(a.dtype).max))).astype(wanted)

    return clamped


def _to_float(i: Instruction, target: str, source: str) -> Function:
    mode = i.one_of(*_MODES, default="rn")
    if mode == "rn" and target in ("f32", "f64"):
        wanted = kinds.dtype(target)
        return lambda a: _saturated(i, a.astype(wanted))  # numpy rounds integers once, to nearest
    if kinds.bits(source) < 64 and target != "f64":
        return lambda a: _rounded(i, a.astype(np.float64), target, mode)

    def exact(a: Array) -> Array:
        """64-bit integers to odd first: their low bits become one sticky bit."""
        high = (a >> a.dtype.type(11)) << a.dtype.type(11)
        sticky = (high | (a != high).astype(a.dtype) << a.dtype.type(11)) if kinds.bits(source) == 64 else a
        return _rounded(i, sticky.astype(np.float64), target, mode)

    return exact


def _to_integer(i: Instruction, target: str, source: str) -> Function:
    """Out of range: the nearest value of the type; NaN: 0 (for 64 bits the top bit alone), as devices do."""
    rounding = _INTEGER_ROUNDING[i.one_of(*_INTEGER_ROUNDING, default="rzi")]
    wanted = kinds.dtype(target)
    limits = np.iinfo(wanted)
    not_a_number = wanted.type(0) if wanted.itemsize < 8 else np.uint64(1 << 63).astype(wanted)

    def converted(a: Array) -> Array:
        wide = _widen(flushed(a) if i.has("ftz") and source == "f32" else a, source)
        whole = rounding(wide)
        above, below = whole >= float(limits.max) + 1.0, whole < float(limits.min)
        inside = np.where(above | below | np.isnan(whole), 0.0, whole).astype(wanted)
        result = np.where(above, wanted.type(limits.max), np.where(below, wanted.type(limits.min), inside))
        return np.where(np.isnan(whole), not_a_number, result)

    return converted


def _floats(i: Instruction, target: str, source: str) -> Function:
    whole = i.one_of(*_INTEGER_ROUNDING)
    mode = i.one_of(*_MODES, default="rn")
    quick = target == "f32" and not (i.modifiers[0] in _MODES or i.has("ftz") or i.has("sat") or whole)
    if quick and source == "bf16":
        return from_bfloat
    if quick and source == "f16":
        return lambda a: a.astype(np.float32)

    def converted(a: Array) -> Array:
        wide = _widen(flushed(a) if i.has("ftz") and source == "f32" else a, source)
        if whole:
            wide = np.copysign(_INTEGER_ROUNDING[whole](wide), wide)
        return _rounded(i, wide, target, mode)

    return converted


def _widen(a: Array, source: str) -> Array:
    return (from_bfloat(a) if source == "bf16" else a).astype(np.float64)


def _rounded(i: Instruction, wide: Array, target: str, mode: str) -> Array:
    """float64 values in the target format, after the instruction's ReLU and saturation."""
    if i.has("relu"):
        wide = np.where(wide > 0, wide, np.where(np.isnan(wide), wide, 0.0))
    if i.has("satfinite") and target in ("f16", "bf16", "tf32"):
        largest = float(np.finfo(np.float16).max) if target == "f16" else float(2.0**128 - 2.0 ** (127 - 10 + 1))
        largest = float(np.float32(3.3895314e38)) if target == "bf16" else largest
        wide = np.where(np.isnan(wide), wide, np.clip(wide, -largest, largest))
    if target == "bf16":
        return bfloat_bits(wide, mode)
    if target == "tf32":
        return np.where(
            np.isnan(wide), np.uint32(0x7FFFFFFF), round_to(wide, "tf32", mode).astype(np.float32).view(np.uint32)
        )
    result = _saturated(i, round_to(wide, target, mode).astype(kinds.dtype(target)))
    return flushed(result) if i.has("ftz") and target == "f32" else result


def _saturated(i: Instruction, values: Array) -> Array:
    return np.fmin(np.fmax(values, values.dtype.type(0)), values.dtype.type(1)) if i.has("sat") else values


INSTRUCTIONS: dict[str, Builder] = {"cvt": convert}
