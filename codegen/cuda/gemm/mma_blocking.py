"""Chooses the tile of a product on the tensor cores, by counting; and says how its factors lie in shared memory.

In: the factors of a product, how elements are rounded, about how many points there are, an architecture. Out: an
`MmaBlocking`. Of all tiles whose sums, fragments and fetched elements fit a thread's registers, it is the one that
takes the fewest cycles. A block takes as long as the busiest of the tensor cores, shared memory and the second-level
cache; that is multiplied by the tiles that an SM computes one after another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from graphc.codegen.cuda.gemm.blocks import Blocking, line
from graphc.codegen.cuda.gemm.factors import Factor, Factors
from graphc.codegen.cuda.isa.arch import THREADS, WARP, Arch
from graphc.codegen.cuda.isa.mma import COLUMNS, ROWS, Fragments

__all__ = ["Lines", "MmaBlocking", "Points", "bytes_of", "is_copied", "lines_of", "mma_blocking", "mma_parts"]

_SUMS = 128  # registers of a thread
_FRAGMENTS = 48
_FETCHED = 48
_PLACES = {"terms": 3, "points": 1}  # for the address of each run that a thread loads, by what it goes along
_CONDITIONS = 32  # for the reduction's condition, if there is one
_REGISTERS_COPIED = 200  # for all of these; the others are for other addresses
_REGISTERS_FETCHED = 176  # the same, if factors are fetched and computed instead of copied
_REGISTERS_SHARED = 104  # the same, where two CTAs are to share an SM, and factors are copied
_DEPTHS = (64, 32, 16)  # terms of a block
_STAGES = (4, 2)  # blocks of factors that are copied
_PAD = 16  # bytes after each row, so that the eight rows of a matrix lie in different banks
_WORDS_PAD = 32  # the same for a fragment that is read word by word: its four rows
_RESERVED = 1024  # bytes of shared memory that are not for tiles
_MULTIPLY_ADDS = 2400  # of packed elements that an SM makes in two cycles
_BANKS = 128  # bytes of shared memory in a cycle
_LATENCY = 1000  # cycles from a request to the memory that all SMs share to its answer, when it is busy
_LAUNCH = 4000  # cycles of one more kernel
_MOST_PARTS = 256
_TILE = 1500  # cycles before the first block and after the last, when nothing overlaps
_BLOCK = 100  # cycles of a barrier, and of what is computed for each block anew


@dataclass(frozen=True, slots=True, kw_only=True)
class MmaBlocking(Blocking):
    """A blocking for the tensor cores, for which elements are rounded as `fragments` say. `across` warps lie side by
    side along the right points, the others along the left ones."""

    across: int
    fragments: Fragments


@dataclass(frozen=True, slots=True)
class Lines:
    """How a factor lies in shared memory: elements of `size` bytes, in lines of `stride` bytes. There is a line for
    each point (`by_points`), or for each term, where neighbouring points lie side by side."""

    size: int
    stride: int
    by_points: bool

    def offset(self, point: int, term: int) -> int:
        """The offset of an element from the first, in bytes."""
        line, place = (point, term) if self.by_points else (term, point)
        return line * self.stride + place * self.size


def lines_of(factor: Factor, points: int, depth: int, fragments: Fragments) -> Lines:
    """How a block of so many points and `depth` terms of a factor lies in shared memory."""
    size = 4 // fragments.packed
    if factor.along == "terms":
        return Lines(size, depth * size + _PAD, True)
    return Lines(size, points * size + (_PAD if fragments.packed > 1 else _WORDS_PAD), False)


def bytes_of(factors: Sequence[Factor], points: int, depth: int, fragments: Fragments) -> int:
    """The bytes of a block of these factors, all of one side."""
    lines = [lines_of(factor, points, depth, fragments) for factor in factors]
    return sum(line.stride * (points if line.by_points else depth) for line in lines)


@dataclass(frozen=True, slots=True)
class Points:
    """About how many points a product has: `left` and `right` ones, for each of `both` sides' common points; and how
    many terms."""

    left: int
    right: int
    both: int
    terms: int


def mma_blocking(factors: Factors, fragments: Fragments, points: Points, arch: Arch) -> MmaBlocking:
    """The cheapest tile."""
    return min(
        _tiles(factors, fragments, arch.shared - _RESERVED),
        key=lambda tile: _cycles(tile, factors, points, arch),
    )


def mma_parts(factors: Factors, fragments: Fragments, points: Points, arch: Arch) -> int:
    """Into how many parts a product's sums should be split (split-K), so that all SMs have large tiles: the number that
    takes the fewest cycles, with those for adding up the parts."""
    tiles = list(_tiles(factors, fragments, arch.shared - _RESERVED))
    results = len(factors.reduce.sums) * points.left * points.right * points.both
    passing = 8 * results * arch.clock * 1e9 / arch.memory  # cycles to store and load one part of all sums

    def cycles(parts: int) -> float:
        part = Points(points.left, points.right, points.both * parts, -(-points.terms // parts))
        whole = min(_cycles(tile, factors, part, arch) for tile in tiles)
        return whole if parts == 1 else whole + parts * passing + _LAUNCH

    return min((1 << k for k in range(_MOST_PARTS.bit_length())), key=cycles)


def is_copied(factors: Factors, fragments: Fragments) -> bool:
    """Whether all factors lie in memory as the tensor cores take them, several elements together."""
    every = (*factors.lefts, *factors.rights)
    stored = fragments.dtype is not None and all(factor.stored == fragments.dtype for factor in every)
    return stored and all(factor.placed and factor.run > 1 for factor in every)


def _tiles(factors: Factors, fragments: Fragments, shared: int) -> Iterator[MmaBlocking]:
    """All tiles that fit. If none fits the registers, the smallest one."""
    warps, sums = THREADS // WARP, len(factors.reduce.sums)
    counts = len(factors.lefts), len(factors.rights)
    at_once = (1, 1) if counts == (len(factors.terms),) * 2 else counts  # of factors whose fragments are needed
    copied = is_copied(factors, fragments)
    smallest = True
    for depth, tall, wide, across in itertools.product(reversed(_DEPTHS), (1, 2, 4), (1, 2, 4, 8), (1, 2, 4, 8)):
        height, width = ROWS * tall * warps // across, COLUMNS * wide * across
        stage = bytes_of(factors.lefts, height, depth, fragments) + bytes_of(factors.rights, width, depth, fragments)
        if max(height, width) > THREADS:  # loading and storing a line takes a thread for each point
            continue
        added = 4 * sums * tall * wide
        operands = 4 * at_once[0] * tall + 2 * at_once[1] * wide
        fetched = 0 if copied else (counts[0] * height + counts[1] * width) * depth // THREADS
        places = _places(factors.lefts, height, depth) + _places(factors.rights, width, depth)
        places += 0 if factors.reduce.when is None else _CONDITIONS
        every = added + operands + fetched + places
        most = _REGISTERS_COPIED if copied else _REGISTERS_FETCHED
        fits = added <= _SUMS and operands <= _FRAGMENTS and fetched <= _FETCHED and every <= most
        for stages in _STAGES if copied else (2,):
            needed = max(stages * stage, 4 * sums * height * line(width))
            if needed <= shared and (fits or smallest):
                smallest = False
                two = copied and added + operands + places <= _REGISTERS_SHARED and 2 * needed <= shared
                resident = 2 if two else 1
                yield MmaBlocking(
                    height,
                    width,
                    depth,
                    tall,
                    wide,
                    stage,
                    needed,
                    stages,
                    resident,
                    across=across,
                    fragments=fragments,
                )


def _places(factors: Sequence[Factor], points: int, depth: int) -> int:
    """Registers for the addresses of the runs that each thread loads."""
    return sum(_PLACES[factor.along] * -(-points * depth // (factor.run * THREADS)) for factor in factors)


def _cycles(tile: MmaBlocking, factors: Factors, points: Points, arch: Arch) -> float:
    """The cycles of an SM that computes the most tiles."""
    fragments = tile.fragments
    cached = arch.l2 / (arch.sms * arch.clock * 1e9)  # bytes in a cycle
    elements = (len(factors.lefts) * tile.height + len(factors.rights) * tile.width) * tile.depth
    made = len(factors.terms) * tile.height * tile.width * tile.depth
    read = 4 * (4 * len(factors.lefts) * tile.tall + 2 * len(factors.rights) * tile.wide) * THREADS
    stored = elements * 4 // fragments.packed
    shared = (stored + read * tile.depth // fragments.depth) / _BANKS
    size = 2 if is_copied(factors, fragments) else 4
    tiles = -(-tile.tiles(points.left, points.right) * points.both // arch.sms)
    resident = min(tile.resident, tiles)
    block = max(
        2 * made / (_MULTIPLY_ADDS * fragments.packed / 2),
        shared,
        size * elements / cached,
        _LATENCY / (resident * (tile.stages - 1)),
    )
    results = 4 * len(factors.reduce.sums) * tile.height * tile.width
    ends = results * (2 / _BANKS + 1 / cached) + _TILE
    return tiles * (-(-points.terms // tile.depth) * (block + _BLOCK / resident) + ends / resident)
