"""How the threads of a group compute a product with held operands, and where on the chip these stay.

In: a `Product`, and how many CTAs share its units. Out: a `Geometry`. A warp computes tiles of units by rows; its lanes
share the terms of the sums. The units of a CTA are its own in every step, so their operands are loaded once, before
the first: into registers, if each lane's part of them fits there, else into shared memory, else not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.loops.products import Part, Product
from graphc.codegen.lengths import length_of
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Const

__all__ = ["Geometry", "Home", "geometry"]

Home = Literal["registers", "shared", "memory"]

_SUMS = 32  # accumulators of a thread
_ROWS = 4  # of a tile
_UNITS = 4  # of a tile whose operands are not in registers


@dataclass(frozen=True, slots=True)
class Geometry:
    """`units` of each group are dealt to its CTAs, `per_cta` to each. Of a CTA's warps `across` stand side by
    side along units, the others along rows. A tile has `tall` units and `rows` rows. `offset` is where operands
    begin in shared memory, in bytes.
    """

    units: int
    per_cta: int
    across: int
    tall: int
    rows: int
    home: Home
    bytes: int
    registers: int = 0
    offset: int = 0

    @property
    def shared_bytes(self) -> int:
        return self.bytes if self.home == "shared" else 0

    @property
    def cell(self) -> tuple[object, ...]:
        """What decides which thread ends with the sums of a cell."""
        return "lanes", self.units, self.per_cta, self.across, self.tall, self.rows

    @property
    def cells(self) -> int:
        """The cells of a tile, up to the next power of two."""
        return 1 << (self.tall * self.rows - 1).bit_length()


def chunks(part: Part) -> int:
    """How often the lanes of a warp go through a sum's terms."""
    return -(-part.length // WARP)


def geometry(
    product: Product, ctas: int, warps: int, shared: int, registers: int, most_rows: int | None = None
) -> Geometry:
    """`shared`: the bytes of shared memory that are free; `registers`: how many of a thread. A tile has no more than
    `most_rows`."""
    units = length_of(product.apart)
    per_cta = -(-units // ctas)
    across = min(warps, 1 << (per_cta - 1).bit_length())
    rows = min(_ROWS, most_rows or _ROWS) if product.rows else 1
    if all(isinstance(dim.extent, Const) for dim in product.rows):
        rows = min(rows, 1 << (max(1, length_of(product.rows)).bit_length() - 1))
    words = STORAGE[product.sums[0].value.dtype][1] // 4
    depth = sum(chunks(part) * len(part.terms) for part in product.parts)
    size = 4 * words * depth * WARP * per_cta
    tall = -(-per_cta // across)
    while rows > 1 and len(product.sums) * tall * rows * words > _SUMS:
        rows //= 2
    if tall * depth * words <= registers and len(product.sums) * tall * rows * words <= _SUMS:
        return Geometry(units, per_cta, across, tall, rows, "registers", size, tall * depth * words)
    tall, rows = min(tall, _UNITS), max(1, rows) if product.rows else 1
    while tall > 1 and len(product.sums) * tall * rows * words > _SUMS:
        tall //= 2
    return Geometry(units, per_cta, across, tall, rows, "shared" if size <= shared else "memory", size)
