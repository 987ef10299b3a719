"""A product at the top of a program, by tiles in shared memory: the classical blocked matrix product.

In: a kernel, its `Factors`, and a `Blocking`. Out: code, appended to a device function. A CTA computes a tile of left
points by right points. It goes through the terms in blocks: all threads bring a block of the factors to shared memory,
whatever each element takes to compute, and then each adds products to sums in registers, with multiply-adds
(`graphc.codegen.cuda.fma_product`) or on the tensor cores (`graphc.codegen.cuda.mma_product`). At the end the sums go
through shared memory once more, so that neighbouring threads compute and store neighbouring points.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.access import coefficient
from graphc.codegen.access import loads as loads_of
from graphc.codegen.cpu_functions import REGISTER, STORAGE, constant
from graphc.codegen.cuda.device import SHARED
from graphc.codegen.cuda.factors import Factors
from graphc.codegen.cuda.held import DYNAMIC
from graphc.codegen.cuda.place import Place, digits
from graphc.codegen.cuda.points import end_point
from graphc.codegen.cuda.scalars import Scalars
from graphc.codegen.llvm import Value, i64
from graphc.codegen.program import Const, Dim, Kernel, Ref, Scalar

__all__ = ["BlockedProduct", "Blocking"]


@dataclass(frozen=True, slots=True)
class Blocking:
    """A tile has `height` left points and `width` right points; the terms go by `depth`. Of a tile `tall` by `wide`
    cells, or fragments, are one thread's, or warp's. `shared` are the bytes of shared memory that this takes."""

    height: int
    width: int
    depth: int
    tall: int
    wide: int
    shared: int

    def tiles(self, left: int, right: int) -> int:
        """How many tiles so many left and right points have."""
        return -(-left // self.height) * -(-right // self.width)


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
        self.memory = Value(f"@{DYNAMIC}", SHARED)
        self.lengths = {dim.index: s.value(dim.extent) for dim in (*kernel.dims, *factors.reduce.dims)}

    def compute(self) -> None:
        """All tiles that fall to this CTA."""
        f, b, x = self.f, self.block, self.factors
        self.rows, self.columns = self._count(x.left), self._count(x.right)
        down, across = self._tiles(self.rows, b.height), self._tiles(self.columns, b.width)
        total = self.s.product([self._count(x.both), down, across])
        with self.s.counting(self.place.cta, total, self.place.ctas, "tile") as number:
            both, i, j = digits(f, number, [self._count(x.both), down, across])
            self.s_both = self._indices(x.both, both)
            row = f.binary("mul nsw", i, i64(b.height))
            column = f.binary("mul nsw", j, i64(b.width))
            self._sum_up(row, column)
            self.spread()
            f.meet_cta()
            self._end(row, column)
            f.meet_cta()  # before the memory is used again

    def _count(self, dims: Sequence[Dim]) -> Value:
        return self.s.product([self.lengths[dim.index] for dim in dims])

    def _tiles(self, points: Value, size: int) -> Value:
        return self.f.binary("udiv", self.f.binary("add nsw", points, i64(size - 1)), i64(size))

    def _indices(self, dims: Sequence[Dim], number: Value) -> dict[str, Value]:
        found = digits(self.f, number, [self.lengths[dim.index] for dim in dims])
        return dict(zip((dim.index for dim in dims), found, strict=True))

    def _inside(self, number: Value, count: Value) -> Value:
        """A number, or the last where it is past that."""
        return self.f.intrinsic("smin", number, self.f.binary("sub nsw", count, i64(1)))

    # Sums.

    def _sum_up(self, row: Value, column: Value) -> None:
        """Bring the factors to shared memory, block by block, and add their products to the sums."""
        f, b, x = self.f, self.block, self.factors
        self.begin()
        terms = self._count(x.reduce.dims)
        with self.s.counting(i64(0), terms, i64(b.depth), "block") as first:
            self._bring(x.left, x.lefts, row, self.rows, first, terms, is_left=True)
            self._bring(x.right, x.rights, column, self.columns, first, terms, is_left=False)
            f.meet_cta()
            self.add_block()
            f.meet_cta()

    @abstractmethod
    def begin(self) -> None:
        """Set all sums to 0."""

    @abstractmethod
    def put(self, is_left: bool, operand: int, term: Value, point: Value, value: Value) -> None:
        """Put an element of a factor where `add_block` finds it."""

    @abstractmethod
    def add_block(self) -> None:
        """Add the products of a block's factors to the sums."""

    @abstractmethod
    def spread(self) -> None:
        """Put all sums where `result` says."""

    def _bring(
        self,
        dims: Sequence[Dim],
        operands: Sequence[Scalar],
        start: Value,
        count: Value,
        first: Value,
        terms: Value,
        is_left: bool,
    ) -> None:
        """One block of the left or right factors: what each thread computes of it and puts into shared memory."""
        f, b, x = self.f, self.block, self.factors
        size = b.height if is_left else b.width
        along_terms = self._runs_along_terms(operands[0], dims)
        for part in range(-(-size * b.depth // self.place.threads)):
            number = f.binary("add nsw", self.place.thread, i64(part * self.place.threads))
            minor = i64(b.depth if along_terms else size)
            low, high = f.binary("urem", number, minor), f.binary("udiv", number, minor)
            point, term = (high, low) if along_terms else (low, high)
            with f.when(f.compare("icmp slt", number, i64(size * b.depth))), self.s.scope({}):
                k = f.binary("add nsw", first, term)
                at = self._inside(f.binary("add nsw", start, point), count)
                indices = {
                    **self.s_both,
                    **self._indices(dims, at),
                    **self._indices(x.reduce.dims, self._inside(k, terms)),
                }
                exists = f.compare("icmp slt", k, terms)
                with self.s.scope(indices):
                    values = self._values(operands, exists)
                for operand, value in enumerate(values):
                    self.put(is_left, operand, term, point, value)

    def _values(self, operands: Sequence[Scalar], exists: Value) -> list[Value]:
        """The factors' elements, or 0 for a term that does not exist."""
        f, dtype, when = self.f, self.factors.dtype, self.factors.reduce.when
        zero = constant(0, dtype)
        if when is None:
            return [f.select(exists, self.s.value(operand), zero) for operand in operands]
        variables = [f.variable(REGISTER[dtype]) for _ in operands]
        for variable in variables:
            f.put(zero, variable)
        with f.when(f.binary("and", exists, self.s.value(when))), self.s.scope({}):
            for operand, variable in zip(operands, variables, strict=True):
                f.put(self.s.value(operand), variable)
        return [f.get(variable, REGISTER[dtype]) for variable in variables]

    def _runs_along_terms(self, operand: Scalar, dims: Sequence[Dim]) -> bool:
        """Whether neighbouring terms lie side by side in memory, rather than neighbouring points."""
        access = self.s.access
        load = next(loads_of(operand, access), None)
        if load is None or not dims:
            return True
        offset = access.offset(load.buffer, load.at)
        return coefficient(offset, dims[-1].index, access) != Const(1, "index")

    # Results.

    def result(self, total: int, row: Value, column: Value) -> Value:
        """Where a cell's sum lies in shared memory."""
        f, b = self.f, self.block
        line = b.width + 1
        index = f.binary("add nsw", f.binary("mul nsw", row, i64(line)), column)
        return f.offset(f.offset(self.memory, self.element, i64(total * b.height * line)), self.element, index)

    def _end(self, row: Value, column: Value) -> None:
        """Compute and store what the tile's cells make of their sums."""
        f, b, x, s = self.f, self.block, self.factors, self.s
        last = self.kernel.dims[-1].index if self.kernel.dims else ""
        by_rows = all(dim.index != last for dim in x.left)
        minor = b.width if by_rows else b.height
        cells, threads = i64(b.height * b.width), i64(self.place.threads)
        with f.loop(self.place.thread, cells, threads, "cell", unroll=False) as (cell, _), s.scope({}):
            low, high = f.binary("urem", cell, i64(minor)), f.binary("udiv", cell, i64(minor))
            i, j = (high, low) if by_rows else (low, high)
            m, n = f.binary("add nsw", row, i), f.binary("add nsw", column, j)
            exists = f.binary("and", f.compare("icmp slt", m, self.rows), f.compare("icmp slt", n, self.columns))
            indices = {**self.s_both}
            with f.when(exists), s.scope({}):
                indices |= self._indices(x.left, m) | self._indices(x.right, n)
                with s.scope(indices):
                    for number, total in enumerate(x.reduce.sums):
                        s.bind(Ref(total.name, x.dtype), f.get(self.result(number, i, j), self.element))
                    end_point(s, self.kernel, 1, self.place)
