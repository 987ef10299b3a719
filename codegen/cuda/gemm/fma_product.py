"""Blocked products by multiply-adds: each thread computes some cells of the tile, with their sums in registers.

In: the factors of a product, and about how many points they have. Out: a `Blocking`, and the code that goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.cuda.gemm.blocks import BlockedProduct, Blocking, Operand, line
from graphc.codegen.cuda.gemm.factors import Factors
from graphc.codegen.cuda.gemm.tile_loader import Run
from graphc.codegen.cuda.isa.place import Place
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER, STORAGE, constant
from graphc.codegen.program import Kernel

__all__ = ["SIDE", "FmaProduct", "fma_blocking"]

SIDE = 16  # threads along each side of a tile
_BUDGET = 64  # words of sums that a thread holds
_SIDE_CELLS = 8  # of a thread, along each side
_SHARED = 24 * 1024  # bytes for a block of the factors
_PAD = 4  # words after each row, so that rows begin in different banks


def fma_blocking(factors: Factors, left: int, right: int) -> Blocking:
    """The sizes of the blocks, for about so many left and right points."""
    size = STORAGE[factors.dtype][1]
    sums = len(factors.reduce.sums) * size // 4
    tall = wide = 1
    while 2 * sums * tall * wide <= _BUDGET:
        # The side that loads fewer elements for each term grows first.
        ways = [(len(factors.lefts) * tall, 2 * tall, wide), (len(factors.rights) * wide, tall, 2 * wide)]
        fitting = [way for way in ways if SIDE * way[1] <= max(SIDE, left) and SIDE * way[2] <= max(SIDE, right)]
        fitting = [way for way in fitting if max(way[1:]) <= _SIDE_CELLS]
        if not fitting:
            break
        _, tall, wide = min(fitting)
    height, width = SIDE * tall, SIDE * wide
    row = len(factors.lefts) * (height + _PAD) + len(factors.rights) * (width + _PAD)
    depth = 16
    while depth > 4 and depth * row * size > _SHARED:
        depth //= 2
    results = len(factors.reduce.sums) * height * line(width)
    stage = size * depth * row
    return Blocking(height, width, depth, tall, wide, stage, max(2 * stage, size * results))


class FmaProduct(BlockedProduct):
    """In shared memory the elements of a factor lie term by term, neighbouring points side by side."""

    def __init__(self, s: Scalars, kernel: Kernel, factors: Factors, block: Blocking, place: Place) -> None:
        super().__init__(s, kernel, factors, block, place)
        # All of these are set by `begin`, for each tile.
        self.across = self.down = i64(0)  # the thread's place among the CTA's, along the right and the left points
        self.sums: dict[tuple[int, int, int], Value] = {}  # variables: by sum, left and right cell of the thread

    def begin(self) -> None:
        f, b, x = self.f, self.block, self.factors
        self.across = f.binary("and", self.place.thread, i64(SIDE - 1))
        self.down = f.binary("lshr", self.place.thread, i64(SIDE.bit_length() - 1))
        keys = [(t, i, j) for t in range(len(x.reduce.sums)) for i in range(b.tall) for j in range(b.wide)]
        self.sums = {key: f.variable(REGISTER[x.dtype]) for key in keys}
        for variable in self.sums.values():
            f.put(constant(0, x.dtype), variable)

    def address(self, operand: Operand, stage: Value, run: Run) -> Value:
        return self._address(operand, stage, run.term, run.point)

    def put(self, operand: Operand, stage: Value, run: Run, values: Sequence[Value], counts: Value | None) -> None:
        f = self.f
        zero = constant(0, self.factors.dtype)
        factors = self.factors.lefts if operand.is_left else self.factors.rights
        step = self._row(operand) if factors[operand.number].along == "terms" else 1
        first = self.address(operand, stage, run)
        for k, value in enumerate(values):
            stored = value if counts is None else f.select(counts, value, zero)
            f.put(stored, f.offset(first, self.element, i64(k * step)))

    def _row(self, operand: Operand) -> int:
        """The distance of two terms of a factor, in elements."""
        return (self.block.height if operand.is_left else self.block.width) + _PAD

    def _address(self, operand: Operand, stage: Value, term: Value, point: Value) -> Value:
        f, b, row = self.f, self.block, self._row(operand)
        start = b.depth * row * operand.number
        if not operand.is_left:
            start += b.depth * (b.height + _PAD) * len(self.factors.lefts)
        index = f.binary("add nsw", f.binary("mul nsw", term, i64(row)), point)
        block = f.offset(self.memory, "i8", f.binary("mul nsw", stage, i64(b.stage)))
        return f.offset(f.offset(block, self.element, i64(start)), self.element, index)

    def add_block(self, stage: Value, meanwhile: Sequence[Callable[[], None]] = ()) -> None:
        with self.s.counting(i64(0), i64(self.block.depth), i64(1), "term") as k:
            self._add(stage, k)

    def _add(self, stage: Value, k: Value) -> None:
        """One term of all sums of this thread's cells."""
        f, b, x = self.f, self.block, self.factors
        top = f.binary("mul nsw", self.down, i64(b.tall))
        left = f.binary("mul nsw", self.across, i64(b.wide))
        rows = [self._loaded(Operand(True, n), stage, k, top, b.tall) for n in range(len(x.lefts))]
        columns = [self._loaded(Operand(False, n), stage, k, left, b.wide) for n in range(len(x.rights))]
        for total, l, r in x.terms:
            for i in range(b.tall):
                for j in range(b.wide):
                    variable = self.sums[total, i, j]
                    before = f.get(variable, REGISTER[x.dtype])
                    f.put(self.s.functions.multiply_add(rows[l][i], columns[r][j], before), variable)

    def _loaded(self, operand: Operand, stage: Value, term: Value, first: Value, count: int) -> list[Value]:
        """The elements of neighbouring points."""
        start = self._address(operand, stage, term, first)
        return [self.f.get(self.f.offset(start, self.element, i64(k)), self.element) for k in range(count)]

    def spread(self) -> None:
        f, b, x = self.f, self.block, self.factors
        top = f.binary("mul nsw", self.down, i64(b.tall))
        left = f.binary("mul nsw", self.across, i64(b.wide))
        for (total, i, j), variable in self.sums.items():
            at = self.result(total, f.binary("add nsw", top, i64(i)), f.binary("add nsw", left, i64(j)))
            f.put(f.get(variable, REGISTER[x.dtype]), at)
