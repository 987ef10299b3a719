"""`mma.sync`, `ldmatrix`, `stmatrix`: matrices spread over the 32 lanes of a warp.

The layout of fragments, for elements of which e fit into 32 bits (PTX ISA 9.0, "Warp Level Matrix Multiply-Accumulate
Instructions"), with lane = 4 * group + t: register r of A (16 × k) holds row group + 8 (r mod 2) and columns
e t + 4 e (r div 2) onwards; register r of B (k × 8) holds rows e t + 4 e r onwards of column group; the accumulator's
four elements are rows group and group + 8, columns 2 t and 2 t + 1.

Products and sums are exact but for the last rounding; devices round and truncate in between, in an order that NVIDIA
does not document.
"""

from __future__ import annotations

import re

import numpy as np

from tests.ptx import kinds
from tests.ptx.access import Kind, load, store
from tests.ptx.elementwise import only
from tests.ptx.errors import UndefinedResult
from tests.ptx.flow import GONE, Control, ControlBuilder
from tests.ptx.geometry import WARP
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Reader
from tests.ptx.rounding import from_bfloat
from tests.ptx.syntax import Address, Instruction
from tests.ptx.transfers import address_reader, space_of
from tests.ptx.warps import converged

_LANE = np.arange(WARP)
_GROUP, _T = _LANE // 4, _LANE % 4
_ALL = np.array([0xFFFFFFFF], np.uint32)

_ELEMENTS = {"f16": 2, "bf16": 2, "tf32": 1, "s8": 4, "u8": 4}
_SHAPES = {
    "f16": ("m16n8k8", "m16n8k16"),
    "bf16": ("m16n8k8", "m16n8k16"),
    "tf32": ("m16n8k4", "m16n8k8"),
    "s8": ("m16n8k16", "m16n8k32"),
    "u8": ("m16n8k16", "m16n8k32"),
}


def a_places(registers: int, e: int) -> tuple[Array, Array]:
    """Rows and columns of A's elements, each (lanes, registers, e)."""
    r, i = np.arange(registers)[None, :, None], np.arange(e)[None, None, :]
    row = _GROUP[:, None, None] + 8 * (r % 2) + 0 * i
    return row, _T[:, None, None] * e + i + 4 * e * (r // 2)


def b_places(registers: int, e: int) -> tuple[Array, Array]:
    """Rows and columns of B's elements, each (lanes, registers, e)."""
    r, i = np.arange(registers)[None, :, None], np.arange(e)[None, None, :]
    return _T[:, None, None] * e + i + 4 * e * r, _GROUP[:, None, None] + 0 * r + 0 * i


def c_places() -> tuple[Array, Array]:
    """Rows and columns of the accumulator's four elements, each (lanes, 4)."""
    r = np.arange(4)[None, :]
    return _GROUP[:, None] + 8 * (r // 2), 2 * _T[:, None] + r % 2


def multiply(i: Instruction, d: Decoder, place: int) -> Control:
    """`mma.sync.aligned.m16n8kK.row.col`: d = a b + c."""
    shape = next((m for m in i.modifiers if re.fullmatch(r"m\d+n\d+k\d+", m)), "")
    only(i, d, "sync", "aligned", "row", "col", "satfinite", shape)
    types = [m for m in i.modifiers if kinds.is_type(m)]
    if len(types) != 4 or not i.has("row", "col") or shape not in _SHAPES.get(types[1], ()):
        raise d.unknown(i)
    result, a_type, b_type, c_type = types
    depth = int(shape.split("k")[1])
    e = _ELEMENTS[a_type]
    operands = [d.items(o) for o in i.operands]
    readers = [[d.reader(o, "b32") for o in items] for items in operands[1:]]
    writers = [d.writer(o) for o in operands[0]]
    a_at, b_at, c_at = a_places(len(readers[0]), e), b_places(len(readers[1]), e), c_places()

    def step(g: Group) -> int:
        if not converged(i, g, _ALL, place):
            return GONE
        _whole_warps(i, g)
        a = _matrix(_values(_words(g, readers[0]), a_type), a_at, (16, depth))
        b = _matrix(_values(_words(g, readers[1]), b_type), b_at, (depth, 8))
        c = _accumulator(_words(g, readers[2]), c_type)
        total = np.matmul(a, b)[:, c_at[0], c_at[1]] + c
        for write, values in zip(writers, _results(total, result), strict=True):
            write(g, values.reshape(-1))
        return place + 1

    return step


def _whole_warps(i: Instruction, g: Group) -> None:
    if g.count % WARP or g.machine.geometry.threads % WARP:
        raise g.machine.error(UndefinedResult, i, int(g.numbers[0]), "needs all 32 lanes of each warp")


def _words(g: Group, readers: list[Reader]) -> Array:
    """Registers as (warps, lanes, registers)."""
    return np.stack([g.spread(r(g)).reshape(-1, WARP) for r in readers], axis=2)


def _values(words: Array, kind: str) -> Array:
    """32-bit words as float64 values of the elements in them, (warps, lanes, registers, e)."""
    if kind == "tf32":  # the lower 13 bits are not looked at
        return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)[..., None]
    parts = words[..., None].view(kinds.dtype(kind))
    return (from_bfloat(parts) if kind == "bf16" else parts).astype(np.float64)


def _matrix(values: Array, places: tuple[Array, Array], shape: tuple[int, int]) -> Array:
    result = np.zeros((len(values), *shape))
    result[:, places[0], places[1]] = values
    return result


def _accumulator(words: Array, kind: str) -> Array:
    """(warps, lanes, 4) values."""
    if kind == "f16":
        return words.view(np.float16).astype(np.float64)
    return words.view(kinds.dtype(kind)).astype(np.float64)


def _results(total: Array, kind: str) -> list[Array]:
    """The destination registers, each (warps, lanes)."""
    if kind == "f16":
        packed = np.ascontiguousarray(total.astype(np.float16)).view(np.uint32)
        return [packed[:, :, k] for k in range(2)]
    if kind == "s32":
        return [total[:, :, k].astype(np.int64).astype(np.int32) for k in range(4)]
    return [total[:, :, k].astype(np.float32) for k in range(4)]


def _transfer_kind(i: Instruction, d: Decoder, address: Address) -> tuple[Kind, int]:
    only(i, d, "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")
    if not i.has("m8n8", "b16"):
        raise d.unknown(i)
    return Kind(i, space_of(i, d, address), 16), {"x1": 1, "x2": 2, "x4": 4}[i.one_of("x1", "x2", "x4")]


def _rows_of(g: Group, count: int) -> Group:
    """The lanes whose addresses count: 8 for each matrix."""
    return Group(g.machine, g.numbers.reshape(-1, WARP)[:, : 8 * count].reshape(-1), g.limit)


def load_matrix(i: Instruction, d: Decoder, place: int) -> Control:
    """`ldmatrix`: 8 × 8 matrices of 16-bit elements; lane 8 m + r names row r of matrix m."""
    address = i.operands[1]
    if not isinstance(address, Address):
        raise d.unknown(i)
    kind, count = _transfer_kind(i, d, address)
    read = address_reader(d, address)
    writers = [d.writer(o) for o in d.items(i.operands[0])]

    def step(g: Group) -> int:
        if not converged(i, g, _ALL, place):
            return GONE
        _whole_warps(i, g)
        addresses = g.spread(read(g)).reshape(-1, WARP)[:, : 8 * count].reshape(-1)
        words = np.stack(load(_rows_of(g, count), kind, addresses, kinds.UNSIGNED[32], 4), axis=1)
        halves = np.ascontiguousarray(words).view(np.uint16).reshape(-1, count, 8, 8)
        if i.has("trans"):
            halves = halves.swapaxes(2, 3)
        fragments = np.ascontiguousarray(halves).view(np.uint32)  # (warps, matrices, 8 rows, 4 words)
        for m, write in enumerate(writers):
            write(g, fragments[:, m, _GROUP, _T].reshape(-1))
        return place + 1

    return step


def store_matrix(i: Instruction, d: Decoder, place: int) -> Control:
    """`stmatrix`: the opposite of `ldmatrix`."""
    address = i.operands[0]
    if not isinstance(address, Address):
        raise d.unknown(i)
    kind, count = _transfer_kind(i, d, address)
    read = address_reader(d, address)
    readers = [d.reader(o, "b32") for o in d.items(i.operands[1])]

    def step(g: Group) -> int:
        if not converged(i, g, _ALL, place):
            return GONE
        _whole_warps(i, g)
        words = np.ascontiguousarray(_words(g, readers).swapaxes(1, 2)).reshape(-1, count, 8, 4)
        halves = words.view(np.uint16)
        if i.has("trans"):
            words = np.ascontiguousarray(halves.swapaxes(2, 3)).view(np.uint32)
        rows = words.reshape(-1, 4)
        addresses = g.spread(read(g)).reshape(-1, WARP)[:, : 8 * count].reshape(-1)
        store(_rows_of(g, count), kind, addresses, [np.ascontiguousarray(rows[:, k]) for k in range(4)])
        return place + 1

    return step


CONTROLS: dict[str, ControlBuilder] = {"mma": multiply, "ldmatrix": load_matrix, "stmatrix": store_matrix}
