"""How the warps of a CTA compute a product with stationary operands on the tensor cores, and where its operands stay.

In: a `Product`, how many CTAs share its units, and what is free of registers and shared memory. Out: an `MmaGeometry`.
Operands stay as fragments: in registers if they fit there, except for a few that may spill to shared memory; else all
of them in shared memory; else, where that is too small as well, they are loaded in each step.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.mma import COLUMNS, ROWS, Fragments
from graphc.codegen.cuda.loops.geometry import Geometry, Home
from graphc.codegen.cuda.loops.products import Part, Product
from graphc.codegen.lengths import length_of

__all__ = ["FRAGMENT", "AnyGeometry", "MmaGeometry", "chunks_of_warp", "mma_geometry"]

FRAGMENT = 4  # registers of a thread
_SPILLED = 14  # fragments of a warp that may spill to shared memory while the others are in registers
_SUMS = 32  # accumulators of a thread
_FETCHING = 16  # registers for loading fragments that are not in registers
_WIDEST = 4  # times eight rows in a pass, at most: a thread reads their operands ahead
_SKEW = 4  # words: rows that are two apart begin eight banks apart
_CROWDED = 64  # registers: if fragments take so many, passes are narrower


@dataclass(frozen=True, slots=True)
class MmaGeometry:
    """The `units` of a group are mapped to its CTAs, `per_cta` to each. `across` warps lie side by side along the
    units, each with `tall` times sixteen units; `splits` warps share the terms. A pass computes `wide` times eight
    rows. For each sum a warp makes a `chain` of so many products, each added to the one before.

    Fragments of the stationary operands stay in `home`; those of a CTA take `bytes`. A warp has `in_registers` of
    them in registers, and `spilled` in shared memory. From `offset` on, shared memory has the fragments that are not in
    registers, and behind them the sums of a pass, `sum_bytes`.
    """

    units: int
    per_cta: int
    across: int
    splits: int
    tall: int
    wide: int
    chain: int
    home: Home
    bytes: int
    sum_bytes: int
    in_registers: int
    spilled: int
    offset: int = 0

    @property
    def shared_bytes(self) -> int:
        """The shared memory of fragments and sums."""
        return self.sum_bytes + self.fragment_bytes

    @property
    def registers(self) -> int:
        """The registers of a thread that fragments take."""
        return FRAGMENT * self.in_registers

    @property
    def fragment_bytes(self) -> int:
        """The shared memory that fragments take."""
        warps = self.across * self.splits
        spilled = 4 * FRAGMENT * WARP * warps * self.spilled
        return {"registers": spilled, "shared": self.bytes, "memory": 0}[self.home]

    @property
    def rows(self) -> int:
        """The rows of a pass."""
        return COLUMNS * self.wide

    @property
    def cell(self) -> tuple[object, ...]:
        """Everything that decides which thread computes a cell: equal, if the threads are the same."""
        return "threads", self.units, self.per_cta, self.padded, self.rows

    @property
    def padded(self) -> int:
        """The units that a CTA computes, with those that pad its last tile."""
        return ROWS * self.across * self.tall

    @property
    def line(self) -> int:
        """The distance of two rows of sums in shared memory, in words; chosen so that a warp stores to all banks."""
        return self.padded + _SKEW


AnyGeometry = Geometry | MmaGeometry


def chunks_of_warp(part: Part, depth: int, splits: int) -> int:
    """The chunks of `depth` terms of each of the `splits` warps that share a part's terms."""
    return -(-part.length // (depth * splits))


def mma_geometry(
    product: Product,
    fragments: Fragments,
    ctas: int,
    warps: int,
    shared: int,
    registers: int,
    taken: int,
    most_rows: int | None = None,
) -> MmaGeometry:
    """The geometry of a product. `shared`: the bytes of shared memory that are free; `registers`: the registers of a
    thread that are, after fragments of other products have `taken` theirs. A pass has no more than `most_rows` rows;
    fewer, if their sums do not fit. Those of eight rows may not fit either."""
    units = length_of(product.apart)
    per_cta = -(-units // (ctas * ROWS)) * ROWS
    across = min(warps, 1 << (per_cta // ROWS - 1).bit_length())
    tall, splits = -(-per_cta // (ROWS * across)), warps // across
    of_tile = sum(chunks_of_warp(part, fragments.depth, splits) * len(part.terms) for part in product.parts)
    in_registers = tall * of_tile
    if FRAGMENT * in_registers > registers:
        in_registers = max(0, registers - _FETCHING) // FRAGMENT
    spilled = tall * of_tile - in_registers
    sums = _SUMS // 8 if spilled else _SUMS
    widest = 1 if taken >= _CROWDED else _WIDEST // 2 if FRAGMENT * in_registers >= _CROWDED else _WIDEST
    wide = max(1, min(widest, sums // (4 * tall * len(product.sums)), (most_rows or COLUMNS * widest) // COLUMNS))
    size = 4 * FRAGMENT * WARP * of_tile * tall * warps
    narrowest = 4 * splits * len(product.sums) * (ROWS * across * tall + _SKEW) * COLUMNS
    sum_bytes = narrowest * wide
    fits = size + sum_bytes <= shared
    few = (
        spilled <= _SPILLED // (2 * tall * len(product.sums) - 1)
        and 4 * FRAGMENT * WARP * warps * spilled + sum_bytes <= shared
    )
    home: Home = "registers" if in_registers and few else "shared" if fits else "memory"
    if home != "registers":
        in_registers = spilled = 0
    if sum_bytes > shared:
        wide = max(1, shared // narrowest)
        sum_bytes = narrowest * wide
    chain = -(-of_tile // len(product.sums))
    return MmaGeometry(units, per_cta, across, splits, tall, wide, chain, home, size, sum_bytes, in_registers, spilled)
