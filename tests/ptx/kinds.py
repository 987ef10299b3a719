"""PTX types as numpy dtypes, and reading register bits as values of a type."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ptx.errors import UnknownInstruction

Array = np.ndarray[Any, Any]

UNSIGNED: dict[int, np.dtype[Any]] = {
    1: np.dtype(bool),
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
    32: np.dtype(np.uint32),
    64: np.dtype(np.uint64),
    128: np.dtype("V16"),  # numpy has no such number: its bytes
}
SIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.int8),
    16: np.dtype(np.int16),
    32: np.dtype(np.int32),
    64: np.dtype(np.int64),
}

_DTYPES: dict[str, np.dtype[Any]] = {
    **{f"u{b}": UNSIGNED[b] for b in (8, 16, 32, 64)},
    **{f"b{b}": UNSIGNED[b] for b in (8, 16, 32, 64, 128)},
    **{f"s{b}": SIGNED[b] for b in (8, 16, 32, 64)},
    "pred": UNSIGNED[1],
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "bf16": UNSIGNED[16],  # numpy has no bfloat16: its bits
    "tf32": UNSIGNED[32],
    "f16x2": UNSIGNED[32],
    "bf16x2": UNSIGNED[32],
    "f32x2": UNSIGNED[64],
    "u16x2": UNSIGNED[32],
    "s16x2": UNSIGNED[32],
}

FLOATS = {"f16", "bf16", "f32", "f64"}


def is_type(name: str) -> bool:
    """Whether a modifier names a type."""
    return name in _DTYPES


def dtype(name: str) -> np.dtype[Any]:
    """The dtype that holds a PTX type (for bfloat16, tf32 and packed pairs: their bits)."""
    if name not in _DTYPES:
        raise UnknownInstruction(f"the emulator knows no type .{name}")
    return _DTYPES[name]


def bits(name: str) -> int:
    """The width of a PTX type."""
    return 1 if name == "pred" else dtype(name).itemsize * 8


def as_type(values: Array, wanted: np.dtype[Any]) -> Array:
    """Register bits, seen as another dtype: truncated where it is narrower."""
    if values.dtype == wanted:
        return values
    size = wanted.itemsize
    if values.dtype.itemsize != size:
        values = values.astype(UNSIGNED[size * 8])
    return values.view(wanted)


def to_register(values: Array, width: int) -> Array:
    """Values as the bits of a register of this width: signed ones are sign-extended, others zero-extended."""
    size = max(width // 8, 1)
    if width == 1:
        return values if values.dtype == bool else values.astype(bool)
    if values.dtype.itemsize != size:
        if values.dtype.kind == "f":
            values = values.view(UNSIGNED[values.dtype.itemsize * 8])
        values = values.astype(UNSIGNED[width])
    return values.view(UNSIGNED[width]) if values.dtype.kind != "u" else values
