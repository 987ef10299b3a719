"""A product at the top of a program, by tiles in shared memory: the classical blocked matrix product, as a pipeline.

In: a kernel, its `Factors`, and a `Blocking`. Out: code, appended to a device function. A CTA computes a tile of left
points by right points and goes through the terms in blocks. While the products of a block are added to sums in
registers, by multiply-adds (`graphc.codegen.cuda.gemm.fma_product`) or on the tensor cores
(`graphc.codegen.cuda.gemm.mma_product`), the threads load the next block (`graphc.codegen.cuda.gemm.tile_loader`).

A factor that must be computed or rounded is loaded into registers, and stored to the other of two stages of shared
memory after the products; so one barrier for each block is enough. If all factors lie in memory as they are multiplied,
they are copied to shared memory asynchronously, without registers, into all stages but the one in use. At the end the
sums go through shared memory, so that neighbouring threads compute and store neighbouring points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from graphc.codegen.cuda.gemm.factors import Factor, Factors
from graphc.codegen.cuda.gemm.tile_loader import Odometers, Run, Side, TileLoader
from graphc.codegen.cuda.isa.place import Place, digits, named
from graphc.codegen.cuda.kernel.points import end_point
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Const, Dim, Index, Kernel, Ref

__all__ = ["BlockedProduct", "Blocking", "Operand", "line"]

_LINE_PAD = 8  # words after each row of sums, so that pairs of neighbours in four rows lie in different banks


@dataclass(frozen=True, slots=True)
class Blocking:
    """The sizes of a blocked product. A tile has `height` left points and `width` right points; a block has `depth`
    terms, a power of two. One thread computes `tall` by `wide` cells of a tile, or one warp as many fragments. A block
    of all factors takes `stage` bytes of shared memory. There are `stages` of them, a power of two, and the CTA uses
    `shared` bytes in all. `resident` CTAs are to run on an SM at the same time."""

    height: int
    width: int
    depth: int
    tall: int
    wide: int
    stage: int
    shared: int
    stages: int = 2
    resident: int = 1

    @property
    def line(self) -> int:
        """The distance of two rows of sums in shared memory, in sums."""
        return line(self.width)

    def tiles(self, left: int, right: int) -> int:
        """How many tiles cover so many left and right points."""
        return -(-left // self.height) * -(-right // self.width)


def line(width: int) -> int:
    """The distance of two rows of sums in shared memory, in sums, for tiles of a width."""
    return width + _LINE_PAD


class Operand(NamedTuple):
    """Which factor: whether it is a left one, and its number among those of its side."""

    is_left: bool
    number: int


@dataclass(frozen=True, slots=True)
class _Point:
    """A left or right point of a tile, and whether it exists."""

    exists: Value
    indices: dict[str, Value]


class BlockedProduct(ABC):
    """The code of one product. Subclasses make the sums: by multiply-adds, or on the tensor cores."""

    def __init__(self, s: Scalars, kernel: Kernel, factors: Factors, block: Blocking, place: Place) -> None:
        self.s = s
        self.f = s.function
        self.kernel = kernel
        self.factors = factors
        self.block = block
        self.place = place
        self.element = STORAGE[factors.dtype][0]
        self.memory = s.function.dynamic(0)
        self.lengths = {dim.index: s.value(dim.extent) for dim in (*kernel.dims, *factors.reduce.dims)}
        self.rows, self.columns = self._count(factors.left), self._count(factors.right)
        self.terms = self._count(factors.reduce.dims)
        self.both: dict[str, Value] = {}  # the indices of the dims of both sides, of the tile that is being computed

    def compute(self) -> None:
        """All tiles of this CTA, one after another."""
        f, b, x = self.f, self.block, self.factors
        down, across = self._tiles(self.rows, b.height), self._tiles(self.columns, b.width)
        total = self.f.product([self._count(x.both), down, across])
        with self.s.counting(self.place.cta, total, self.place.ctas, "tile") as number:
            both, i, j = digits(f, number, [self._count(x.both), down, across])
            self.both = self._indices(x.both, both)
            row = f.binary("mul nsw", i, i64(b.height))
            column = f.binary("mul nsw", j, i64(b.width))
            self._sum_up(row, column)
            self.spread()
            f.sync_cta()
            self._end(row, column)
            f.sync_cta()  # before the memory is used again

    def _count(self, dims: Sequence[Dim]) -> Value:
        return self.f.product([self.lengths[dim.index] for dim in dims])

    def _tiles(self, points: Value, size: int) -> Value:
        return self.f.binary("udiv", self.f.binary("add nsw", points, i64(size - 1)), i64(size))

    def _indices(self, dims: Sequence[Dim], number: Value) -> dict[str, Value]:
        return named(dims, digits(self.f, number, [self.lengths[dim.index] for dim in dims]))

    # Sums.

    def _sum_up(self, row: Value, column: Value) -> None:
        """Block after block: load the next one into registers, add the products of this one, store the next one."""
        f, b = self.f, self.block
        self.begin()
        odometers: Odometers = {}
        loaders = self._loaders(row, column, odometers)
        if self.copied:
            self._stream(loaders, odometers)
            return
        with f.loop(i64(-b.depth), self.terms, i64(b.depth), "block", unroll=False) as (first, _), self.s.scope({}):
            following = f.binary("add nsw", first, i64(b.depth))
            more = f.compare("icmp slt", following, self.terms)
            number = f.binary("lshr", following, i64(b.depth.bit_length() - 1))
            stage = f.binary("and", number, i64(1))
            with self.s.when(more):
                for loader in loaders.values():
                    loader.fetch()
                for odometer in odometers.values():
                    odometer.advance()
            with self.s.when(f.compare("icmp sge", first, i64(0))):
                self.add_block(f.binary("xor", stage, i64(1)))
            with self.s.when(more):
                for operand, loader in loaders.items():
                    self._put_block(operand, loader, stage)
            f.sync_cta()

    def _stream(self, loaders: Mapping[Operand, TileLoader], odometers: Odometers) -> None:
        """Block after block: wait for its copies, then add its products. Meanwhile begin the copies of a later block
        into the stage of the block before. Their addresses are computed between the products of the tensor cores."""
        f, b = self.f, self.block
        ahead = b.stages - 1
        for stage in range(ahead):
            exists = f.compare("icmp slt", i64(stage * b.depth), self.terms)
            for _ in self._copies(loaders, odometers, i64(stage), exists):
                pass
            f.commit_copies()
        with f.loop(i64(0), self.terms, i64(b.depth), "block", unroll=False) as (first, _), self.s.scope({}):
            f.wait_copies(ahead - 1)
            f.sync_cta()  # all copies of this block are there, and the stage to be replaced has been read
            number = f.binary("lshr", first, i64(b.depth.bit_length() - 1))
            exists = f.compare("icmp slt", f.binary("add nsw", first, i64(ahead * b.depth)), self.terms)
            replaced = f.binary("and", f.binary("add nsw", number, i64(ahead)), i64(ahead))
            copies = self._copies(loaders, odometers, replaced, exists)
            count = sum(len(loader.runs) for loader in loaders.values())
            self.add_block(f.binary("and", number, i64(ahead)), [partial(next, copies)] * count)
            for _ in copies:
                raise AssertionError("more copies than runs")
            f.commit_copies()
        f.wait_copies(0)  # the zeros of blocks past the end are copies, too
        f.sync_cta()

    def _copies(
        self, loaders: Mapping[Operand, TileLoader], odometers: Odometers, stage: Value, exists: Value
    ) -> Iterator[None]:
        """Begin to copy a block, or zeros if it does not exist. Each step of the iterator copies one run."""
        for operand, loader in loaders.items():
            yield from loader.copies(partial(self.address, operand, stage), exists)
        for odometer in odometers.values():
            odometer.advance()

    def _loaders(self, row: Value, column: Value, odometers: Odometers) -> dict[Operand, TileLoader]:
        """This thread's loader of each factor."""
        b, x = self.block, self.factors
        left = Side(x.left, self.rows, row, b.height, self.both)
        right = Side(x.right, self.columns, column, b.width, self.both)
        return {
            Operand(is_left, number): TileLoader(
                self.s, factor, x.reduce, side, b.depth, self.place, odometers, self.rounded(factor)
            )
            for is_left, side, factors in ((True, left, x.lefts), (False, right, x.rights))
            for number, factor in enumerate(factors)
        }

    def _put_block(self, operand: Operand, loader: TileLoader, stage: Value) -> None:
        """Store what was fetched of a factor to shared memory."""
        f = self.f
        for run in loader.runs:
            with self.s.when(run.exists):
                values = [f.get(variable, loader.type) for variable in run.values]
                counts = None if run.counts is None else f.get(run.counts, "i1")
                self.put(operand, stage, run, values, counts)

    def rounded(self, factor: Factor) -> str | None:
        """The type to which a factor's elements are rounded as they are fetched; None: they are not."""
        return None

    @property
    def copied(self) -> bool:
        """Whether all factors are copied as they lie in memory, to the places that `address` gives."""
        return False

    @abstractmethod
    def address(self, operand: Operand, stage: Value, run: Run) -> Value:
        """The address of a run in a stage."""

    @abstractmethod
    def begin(self) -> None:
        """Begin a tile: set all sums to 0."""

    @abstractmethod
    def put(self, operand: Operand, stage: Value, run: Run, values: Sequence[Value], counts: Value | None) -> None:
        """Store a run of a factor's elements where `add_block` reads it in this stage; zeros, unless `counts`."""

    @abstractmethod
    def add_block(self, stage: Value, meanwhile: Sequence[Callable[[], None]] = ()) -> None:
        """Add the products of a block's factors to the sums. Each function in `meanwhile` emits code that does not
        depend on the products; it may be called between them. Only products of `copied` factors are given any."""

    @abstractmethod
    def spread(self) -> None:
        """End a tile: store all sums to the places that `result` gives."""

    # Results.

    def result(self, total: int, row: Value, column: Value) -> Value:
        """The address of a cell's sum in shared memory."""
        f, b = self.f, self.block
        index = f.binary("add nsw", f.binary("mul nsw", row, i64(b.line)), column)
        return f.offset(f.offset(self.memory, self.element, i64(total * b.height * b.line)), self.element, index)

    def _end(self, row: Value, column: Value) -> None:
        """Compute and store what the kernel makes of the sums of the tile's cells. A thread keeps its columns."""
        f, b, x, s = self.f, self.block, self.factors, self.s
        run = self._neighbours()
        minor = b.width // run
        assert self.place.threads % minor == 0
        first = f.binary("mul nsw", f.binary("urem", self.place.thread, i64(minor)), i64(run))
        across = self._cell(first, column, x.right)
        start, step = f.binary("udiv", self.place.thread, i64(minor)), i64(self.place.threads // minor)
        with f.loop(start, i64(b.height), step, "row", unroll=False) as (high, _), s.scope({}):
            down = self._cell(high, row, x.left)
            indices = {**self.both, **across.indices, **down.indices}
            with s.when(f.binary("and", across.exists, down.exists), indices):
                for k in range(run):
                    moved = {d.index: f.binary("add nsw", s.value(Index(d.index)), i64(k)) for d in x.right[-1:] if k}
                    with s.scope(moved):
                        for number, total in enumerate(x.reduce.sums):
                            at = self.result(number, high, f.binary("add nsw", first, i64(k)))
                            s.bind(Ref(total.name, x.dtype), f.get(at, self.element))
                        end_point(s, self.kernel, 1, self.place)

    def _neighbours(self) -> int:
        """How many neighbouring cells of a row a thread computes together: as many as one instruction stores, if all of
        them exist or none; else 1."""
        run = 16 // STORAGE[self.factors.dtype][1]
        extents = [dim.extent for dim in self.factors.right[-1:]]
        return run if any(isinstance(n, Const) and int(n.value) % run == 0 for n in extents) else 1

    def _cell(self, number: Value, start: Value, dims: Sequence[Dim]) -> _Point:
        point = self.f.binary("add nsw", start, number)
        exists = self.f.compare("icmp slt", point, self._count(dims))
        return _Point(exists, self._indices(dims, point))
