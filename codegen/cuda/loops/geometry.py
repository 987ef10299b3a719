"""How the threads of a group compute a product by multiply-adds, and where on the chip its operands are stationary.

In: a `Product`, and how many CTAs share its units. Out: a `Geometry`. A warp computes tiles of units by rows; its lanes
share the terms of the sums. A CTA computes the same units in every step, so their operands are loaded once, before the
first step: into registers, if each lane's part of them fits there; else into shared memory. If they do not fit there
either, they are loaded in each step.
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
_ROWS = 4  # of a tile, at most
_UNITS = 4  # of a tile whose operands are not in registers, at most


@dataclass(frozen=True, slots=True)
class Geometry:
    """The `units` of a group are mapped to its CTAs, `per_cta` to each. `across` warps of a CTA lie side by side along
    the units, the others along the rows. A tile has `tall` units and `rows` rows. Operands stay in `home`, where those
    of a CTA take `bytes`: in `registers` of each thread, or in shared memory from `offset` on (in bytes).
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
        """The shared memory that operands take."""
        return self.bytes if self.home == "shared" else 0

    @property
    def cell(self) -> tuple[object, ...]:
        """Everything that decides which thread computes a cell: equal, if the threads are the same."""
        return "lanes", self.units, self.per_cta, self.across, self.tall, self.rows

    @property
    def cells(self) -> int:
        """The cells of a tile, rounded up to a power of two."""
        return 1 << (self.tall * self.rows - 1).bit_length()


def chunks(part: Part) -> int:
    """How often the lanes of a warp go through a sum's terms."""
    return -(-part.length // WARP)


def geometry(
    product: Product, ctas: int, warps: int, shared: int, registers: int, most_rows: int | None = None
) -> Geometry:
    """The geometry of a product. `shared`: the bytes of shared memory that are free; `registers`: the registers of a
    thread that are. A tile has no more than `most_rows` rows."""
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
