"""A product at the top of a program, by tiles in shared memory: the classical blocked matrix product, as a pipeline.

In: a kernel, its `Factors`, and a `Blocking`. Out: code, appended to a device function. A CTA computes a tile of left
points by right points. It goes through the terms in blocks, of which shared memory has two: while a block's products
are added to sums in registers, with multiply-adds (`graphc.codegen.cuda.gemm.fma_product`) or on the tensor cores
(`graphc.codegen.cuda.gemm.mma_product`), the threads fetch the next one (`graphc.codegen.cuda.gemm.tile_loader`), and
put it beside afterwards. So one barrier a block is enough. Factors that are taken as they lie in memory need no
registers on their way: of those, as many blocks as there are stages but one are being copied all the time. At the end
the sums go through shared memory once more, so that neighbouring threads compute and store neighbouring points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from graphc.codegen.cuda.gemm.factors import Factor, Factors
from graphc.codegen.cuda.gemm.tile_loader import Odometers, Run, Side, TileLoader
from graphc.codegen.cuda.isa.place import Place, digits
from graphc.codegen.cuda.kernel.points import end_point
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Const, Dim, Index, Kernel, Ref

__all__ = ["BlockedProduct", "Blocking", "line"]

_LINE_PAD = 8  # words after each row of sums: pairs of neighbours in four rows then lie in different banks


@dataclass(frozen=True, slots=True)
class Blocking:
    """A tile has `height` left points and `width` right points; the terms go by `depth`, a power of two. Of a tile
    `tall` by `wide` cells, or fragments, are one thread's, or warp's. Of shared memory a block of the factors takes
    `stage` bytes, and everything `shared`; it has room for `stages` blocks, a power of two. `resident` CTAs are to run
    on an SM at the same time."""

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
        """Sums from one row to the next in shared memory."""
        return line(self.width)

    def tiles(self, left: int, right: int) -> int:
        """How many tiles so many left and right points have."""
        return -(-left // self.height) * -(-right // self.width)


def line(width: int) -> int:
    """Sums from one row of a tile to the next in shared memory."""
    return width + _LINE_PAD


@dataclass(frozen=True, slots=True)
class _Point:
    """A left or right point of a tile, and whether it exists."""

    exists: Value
    indices: dict[str, Value]


class BlockedProduct(ABC):
    """The code of one product; what its sums are made with is left to others."""

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

    def compute(self) -> None:
        """All tiles that fall to this CTA."""
        f, b, x = self.f, self.block, self.factors
        down, across = self._tiles(self.rows, b.height), self._tiles(self.columns, b.width)
        total = self.s.product([self._count(x.both), down, across])
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
        return self.s.product([self.lengths[dim.index] for dim in dims])

    def _tiles(self, points: Value, size: int) -> Value:
        return self.f.binary("udiv", self.f.binary("add nsw", points, i64(size - 1)), i64(size))

    def _indices(self, dims: Sequence[Dim], number: Value) -> dict[str, Value]:
        found = digits(self.f, number, [self.lengths[dim.index] for dim in dims])
        return dict(zip((dim.index for dim in dims), found, strict=True))

    # Sums.

    def _sum_up(self, row: Value, column: Value) -> None:
        """Block after block: fetch the next one while the products of this one are added, then put it beside."""
        f, b = self.f, self.block
        self.begin()
        odometers: Odometers = {}
        bringers = self._bringers(row, column, odometers)
        if self.copied:
            self._stream(bringers, odometers)
            return
        with f.loop(i64(-b.depth), self.terms, i64(b.depth), "block", unroll=False) as (first, _), self.s.scope({}):
            following = f.binary("add nsw", first, i64(b.depth))
            more = f.compare("icmp slt", following, self.terms)
            number = f.binary("lshr", following, i64(b.depth.bit_length() - 1))
            stage = f.binary("and", number, i64(1))
            with f.when(more), self.s.scope({}):
                for bringer in bringers.values():
                    bringer.fetch()
                for odometer in odometers.values():
                    odometer.advance()
            with f.when(f.compare("icmp sge", first, i64(0))), self.s.scope({}):
                self.add_block(f.binary("xor", stage, i64(1)))
            with f.when(more), self.s.scope({}):
                for (is_left, operand), bringer in bringers.items():
                    self._put_block(is_left, operand, bringer, stage)
            f.sync_cta()

    def _stream(self, bringers: Mapping[tuple[bool, int], TileLoader], odometers: Odometers) -> None:
        """Block after block: wait for one, and add its products while copies of the one that takes the place of the
        last begin. The addresses of these are computed in between, where the tensor cores do not wait for them."""
        f, b = self.f, self.block
        ahead = b.stages - 1
        for stage in range(ahead):
            exists = f.compare("icmp slt", i64(stage * b.depth), self.terms)
            for _ in self._copies(bringers, odometers, i64(stage), exists):
                pass
            f.commit_copies()
        with f.loop(i64(0), self.terms, i64(b.depth), "block", unroll=False) as (first, _), self.s.scope({}):
            f.wait_copies(ahead - 1)
            f.sync_cta()  # all have waited, and all have read what is replaced now
            number = f.binary("lshr", first, i64(b.depth.bit_length() - 1))
            exists = f.compare("icmp slt", f.binary("add nsw", first, i64(ahead * b.depth)), self.terms)
            replaced = f.binary("and", f.binary("add nsw", number, i64(ahead)), i64(ahead))
            copies = self._copies(bringers, odometers, replaced, exists)
            count = sum(len(bringer.runs) for bringer in bringers.values())
            self.add_block(f.binary("and", number, i64(ahead)), [partial(next, copies)] * count)
            for _ in copies:
                raise AssertionError("more copies than runs")
            f.commit_copies()
        f.wait_copies(0)  # for the zeros of blocks that do not exist, too
        f.sync_cta()

    def _copies(
        self, bringers: Mapping[tuple[bool, int], TileLoader], odometers: Odometers, stage: Value, exists: Value
    ) -> Iterator[None]:
        """Begin to copy a block, if it exists, run by run: a step for each."""
        for (is_left, operand), bringer in bringers.items():
            yield from bringer.copies(partial(self.address, is_left, operand, stage), exists)
        for odometer in odometers.values():
            odometer.advance()

    def _bringers(self, row: Value, column: Value, odometers: Odometers) -> dict[tuple[bool, int], TileLoader]:
        """What this thread brings of each factor, left and right, by number."""
        b, x = self.block, self.factors
        left = Side(x.left, self.rows, row, b.height, self.both)
        right = Side(x.right, self.columns, column, b.width, self.both)
        return {
            (is_left, operand): TileLoader(
                self.s, factor, x.reduce, side, b.depth, self.place, odometers, self.rounded(factor)
            )
            for is_left, side, factors in ((True, left, x.lefts), (False, right, x.rights))
            for operand, factor in enumerate(factors)
        }

    def _put_block(self, is_left: bool, operand: int, bringer: TileLoader, stage: Value) -> None:
        """What was fetched of a factor, to shared memory."""
        f = self.f
        for run in bringer.runs:
            with ExitStack() as stack:
                if run.exists is not None:
                    stack.enter_context(f.when(run.exists))
                    stack.enter_context(self.s.scope({}))
                values = [f.get(variable, bringer.type) for variable in run.values]
                counts = None if run.counts is None else f.get(run.counts, "i1")
                self.put(is_left, operand, stage, run, values, counts)

    def rounded(self, factor: Factor) -> str | None:
        """The type to which a factor's elements are rounded where they are fetched; None: they are not."""
        return None

    @property
    def copied(self) -> bool:
        """Whether all factors are copied as they lie in memory, to where `address` says."""
        return False

    def address(self, is_left: bool, operand: int, stage: Value, run: Run) -> Value:
        """Where a run belongs in a stage."""
        raise NotImplementedError

    @abstractmethod
    def begin(self) -> None:
        """Set all sums to 0."""

    @abstractmethod
    def put(
        self, is_left: bool, operand: int, stage: Value, run: Run, values: Sequence[Value], counts: Value | None
    ) -> None:
        """Put a run of a factor's elements where `add_block` finds it in this stage; 0, if it does not count."""

    @abstractmethod
    def add_block(self, stage: Value, meanwhile: Sequence[Callable[[], None]] = ()) -> None:
        """Add the products of a block's factors to the sums; and emit what else is to be done in the meantime."""

    @abstractmethod
    def spread(self) -> None:
        """Put all sums where `result` says."""

    # Results.

    def result(self, total: int, row: Value, column: Value) -> Value:
        """Where a cell's sum lies in shared memory."""
        f, b = self.f, self.block
        index = f.binary("add nsw", f.binary("mul nsw", row, i64(b.line)), column)
        return f.offset(f.offset(self.memory, self.element, i64(total * b.height * b.line)), self.element, index)

    def _end(self, row: Value, column: Value) -> None:
        """Compute and store what the tile's cells make of their sums. A thread stays in its columns."""
        f, b, x, s = self.f, self.block, self.factors, self.s
        run = self._neighbours()
        minor = b.width // run
        assert self.place.threads % minor == 0
        first = f.binary("mul nsw", f.binary("urem", self.place.thread, i64(minor)), i64(run))
        across = self._cell(first, column, x.right)
        start, step = f.binary("udiv", self.place.thread, i64(minor)), i64(self.place.threads // minor)
        with f.loop(start, i64(b.height), step, "row", unroll=False) as (high, _), s.scope({}):
            down = self._cell(high, row, x.left)
            with (
                f.when(f.binary("and", across.exists, down.exists)),
                s.scope({**self.both, **across.indices, **down.indices}),
            ):
                for k in range(run):
                    moved = {d.index: f.binary("add nsw", s.value(Index(d.index)), i64(k)) for d in x.right[-1:] if k}
                    with s.scope(moved):
                        for number, total in enumerate(x.reduce.sums):
                            at = self.result(number, high, f.binary("add nsw", first, i64(k)))
                            s.bind(Ref(total.name, x.dtype), f.get(at, self.element))
                        end_point(s, self.kernel, 1, self.place)

    def _neighbours(self) -> int:
        """The cells of a row that a thread computes together: as many as one instruction stores, if they exist
        together."""
        run = 16 // STORAGE[self.factors.dtype][1]
        extents = [dim.extent for dim in self.factors.right[-1:]]
        return run if any(isinstance(n, Const) and int(n.value) % run == 0 for n in extents) else 1

    def _cell(self, number: Value, start: Value, dims: Sequence[Dim]) -> _Point:
        point = self.f.binary("add nsw", start, number)
        exists = self.f.compare("icmp slt", point, self._count(dims))
        return _Point(exists, self._indices(dims, point))
