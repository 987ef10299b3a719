"""The tile of a contraction: how many rows and vectors of accumulators stay in registers side by side.

In: what one step of a reduction multiplies and loads. Out: the tile that takes the fewest cycles a point of the kernel,
found by counting: multiplications, loads, what the second-level cache can serve, and the latency of a chain.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MOST_VECTORS", "Step", "Tile", "best_tile", "row_sizes"]

MOST_VECTORS = 8
_LATENCY = 4  # cycles of a fused multiply-add, of which two start in a cycle, beside two loads
_CACHE = 3 / 64  # cycles for each byte that the second-level cache serves
_LOOP = 0.5  # cycles of the loop itself
_TEST = 8  # cycles to see whether a point of a reduction counts
_LOAD = 0.1  # what a vector load costs beside, to decide between equals


@dataclass(frozen=True, slots=True)
class Step:
    """One point of a reduction, for all points of its kernel: so many `sums`, of so many `products` in all. A sum takes
    `together` of them in at once.

    `loads` says of each operand whether it varies with the row, and whether with the vector. `heights` and `widths` are
    the lengths to plan for, in rows and in vectors. There are so many vector `registers`, of so many `bytes` each.
    """

    sums: int
    products: int
    loads: tuple[tuple[bool, bool], ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    tested: bool
    registers: int
    bytes: int
    together: int = 1


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile of so many rows and vectors. A step goes through it row by row, and holds the operands of its vectors; or,
    `by_vector`, vector by vector, and holds the operands of its rows. `cycles` are those of a step for one row of one
    vector, in the mean over the lengths."""

    rows: int
    vectors: int
    by_vector: bool
    cycles: float


@functools.lru_cache(1024)
def best_tile(step: Step) -> Tile:
    """The tile with the fewest cycles a point whose accumulators and operands fit the registers."""
    budget = step.registers * 3 // 4
    groups = -(-_terms(step) // step.together)
    shared = -(-sum(by_lane and not by_row for by_row, by_lane in step.loads) // groups)
    broadcast = -(-sum(by_row and not by_lane for by_row, by_lane in step.loads) // groups)
    tiles = [
        Tile(rows, vectors, rows * broadcast < vectors * shared, _cost(step, rows, vectors))
        for rows in range(1, min(budget // step.sums, max(step.heights)) + 1)
        for vectors in range(1, min(MOST_VECTORS, max(step.widths)) + 1)
        if rows * vectors * step.sums <= budget
        and rows * vectors * step.sums + min(rows * broadcast, vectors * shared) < step.registers
    ]
    return min(tiles, key=lambda tile: tile.cycles, default=Tile(1, 1, False, _cost(step, 1, 1)))


def row_sizes(rows: int) -> tuple[int, ...]:
    """The heights of the tiles that cover any number of rows, the largest first."""
    return (rows, *(size for size in (2, 1) if size < rows))


def _cost(step: Step, rows: int, vectors: int) -> float:
    planes = len(step.widths) * len(step.heights)
    wide = [(many / width, size) for width in step.widths for many, size in _segments(width, (vectors, 1))]
    high = [(many / height, size) for height in step.heights for many, size in _segments(height, row_sizes(rows))]
    return sum(m * n * _cycles(step, h, w) for m, w in wide for n, h in high if m and n) / planes


def _cycles(step: Step, high: int, wide: int) -> float:
    """Cycles of one step of one tile: as many as multiplications, loads, the cache or latency ask for, whichever asks
    for most."""
    made = sum((high if by_row else 1) * (wide if by_lane else 1) for by_row, by_lane in step.loads)
    vectors = sum((high if by_row else 1) * wide for by_row, by_lane in step.loads if by_lane)
    busy = max(step.products * high * wide / 2, made / 2, _LATENCY * _terms(step), _CACHE * step.bytes * vectors)
    return busy + _LOAD * vectors + _LOOP + (_TEST if step.tested else 0)


def _terms(step: Step) -> int:
    """How many products an accumulator takes in, one after another, in a step."""
    return -(-step.products // step.sums)


def _segments(extent: int, sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """How many tiles of each size, the largest first, cover an extent; the last may overhang."""
    for size in sizes:
        count = -(-extent // size) if size == sizes[-1] else extent // size
        yield count, size
        extent = max(0, extent - count * size)
