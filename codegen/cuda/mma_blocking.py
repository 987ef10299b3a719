"""Chooses the tile of a product on the tensor cores, by counting; and says how its factors lie in shared memory.

In: the factors of a product, how elements are rounded, about how many points there are, an architecture. Out: an
`MmaBlocking`. Of all tiles whose sums, fragments and fetched elements fit a thread's registers, it takes the one that
needs the fewest cycles: of the tensor cores, of shared memory, or of the second-level cache, whichever a block keeps
longest, for as many tiles one after another as an SM gets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.codegen.cuda.arch import WARP, Arch
from graphc.codegen.cuda.blocks import Blocking, line
from graphc.codegen.cuda.factors import Factor, Factors
from graphc.codegen.cuda.mma import COLUMNS, ROWS, Fragments

__all__ = ["Lines", "MmaBlocking", "Points", "bytes_of", "lines_of", "mma_blocking"]

_SUMS = 64  # registers of a thread
_FRAGMENTS = 40
_FETCHED = 48
_DEPTHS = (32, 16)  # terms of a block
_PAD = 16  # bytes after each row, so that the eight rows of a matrix lie in different banks
_WORDS_PAD = 32  # so that the four rows of a fragment that is read word by word do
_RESERVED = 1024  # bytes of shared memory that are not for tiles
_MULTIPLY_ADDS = 2048  # of packed elements that an SM makes in two cycles
_BANKS = 128  # bytes of shared memory in a cycle
_TILE = 1500  # cycles before the first block and after the last, when nothing overlaps


@dataclass(frozen=True, slots=True)
class MmaBlocking(Blocking):
    """Of the warps `across` stand side by side along the right points, the others along the left ones."""

    across: int


@dataclass(frozen=True, slots=True)
class Lines:
    """How a factor lies in shared memory: elements of `size` bytes, in lines of `stride` bytes, one for each point or,
    where neighbouring points lie side by side, for each term."""

    size: int
    stride: int
    by_points: bool

    def offset(self, point: int, term: int) -> int:
        """Bytes from the first element."""
        line, place = (point, term) if self.by_points else (term, point)
        return line * self.stride + place * self.size


def lines_of(factor: Factor, points: int, depth: int, fragments: Fragments) -> Lines:
    size = 4 // fragments.packed
    if factor.along == "terms":
        return Lines(size, depth * size + _PAD, True)
    return Lines(size, points * size + (_PAD if fragments.packed > 1 else _WORDS_PAD), False)


def bytes_of(factors: Sequence[Factor], points: int, depth: int, fragments: Fragments) -> int:
    """What a block of these factors of one side takes."""
    lines = [lines_of(factor, points, depth, fragments) for factor in factors]
    return sum(line.stride * (points if line.by_points else depth) for line in lines)


@dataclass(frozen=True, slots=True)
class Points:
    """About how many points a product has on each side, for each of those that both sides have; and terms."""

    left: int
    right: int
    both: int
    terms: int


def mma_blocking(factors: Factors, fragments: Fragments, points: Points, threads: int, arch: Arch) -> MmaBlocking:
    """The cheapest tile for CTAs of so many threads."""
    tiles = list(_tiles(factors, fragments, threads, arch.shared - _RESERVED))
    return min(tiles, key=lambda tile: _cycles(tile, factors, fragments, points, threads, arch))


def _tiles(factors: Factors, fragments: Fragments, threads: int, shared: int) -> Iterator[MmaBlocking]:
    """All that fit; at least the smallest, which then takes more registers than there should be."""
    warps, sums = threads // WARP, len(factors.reduce.sums)
    counts = len(factors.lefts), len(factors.rights)
    smallest = True
    for depth, tall, wide, across in itertools.product(_DEPTHS, (1, 2, 4), (1, 2, 4, 8), (1, 2, 4, 8)):
        height, width = ROWS * tall * warps // across, COLUMNS * wide * across
        stage = bytes_of(factors.lefts, height, depth, fragments) + bytes_of(factors.rights, width, depth, fragments)
        if max(height, width) > threads:  # a line of neighbouring points is brought, and stored, by as many threads
            continue
        needed = max(2 * stage, 4 * sums * height * line(width))
        held = 4 * counts[0] * tall + 2 * counts[1] * wide
        fetched = (counts[0] * height + counts[1] * width) * depth // threads
        fits = 4 * sums * tall * wide <= _SUMS and held <= _FRAGMENTS and fetched <= _FETCHED
        if needed <= shared and (fits or smallest):
            smallest = False
            yield MmaBlocking(height, width, depth, tall, wide, stage, needed, across)


def _cycles(
    tile: MmaBlocking, factors: Factors, fragments: Fragments, points: Points, threads: int, arch: Arch
) -> float:
    """Of an SM, which gets as many tiles as any other, or one more."""
    cached = arch.l2 / (arch.sms * arch.clock * 1e9)  # bytes in a cycle
    elements = (len(factors.lefts) * tile.height + len(factors.rights) * tile.width) * tile.depth
    made = len(factors.terms) * tile.height * tile.width * tile.depth
    read = 4 * (4 * len(factors.lefts) * tile.tall + 2 * len(factors.rights) * tile.wide) * threads
    stored = elements * 4 // fragments.packed
    shared = (stored + read * tile.depth // fragments.depth) / _BANKS
    block = max(2 * made / (_MULTIPLY_ADDS * fragments.packed / 2), shared, 4 * elements / cached)
    results = 4 * len(factors.reduce.sums) * tile.height * tile.width
    whole = -(-points.terms // tile.depth) * block + results * (2 / _BANKS + 1 / cached) + _TILE
    return -(-tile.tiles(points.left, points.right) * points.both // arch.sms) * whole
