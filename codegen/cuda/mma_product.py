"""Blocked products on the tensor cores: each warp has some fragments of the tile, their sums in registers.

In: the factors of a product, how they are rounded, and about how many points they have. Out: a `Blocking`, and the code
that goes with it. Factors are rounded on their way to shared memory.
"""

from __future__ import annotations

from graphc.codegen.cpu_functions import constant
from graphc.codegen.cuda.blocks import BlockedProduct, Blocking
from graphc.codegen.cuda.factors import Factors
from graphc.codegen.cuda.mma import COLUMNS, ROWS, Fragments
from graphc.codegen.cuda.place import Place
from graphc.codegen.cuda.scalars import Scalars
from graphc.codegen.llvm import Value, i64
from graphc.codegen.program import Kernel

__all__ = ["MmaProduct", "mma_blocking"]

_DOWN, _ACROSS = 4, 2  # warps along each side of a tile
_BUDGET = 64  # sums that a thread holds
_SHARED = 40 * 1024  # bytes for the factors' blocks
_PAD_BYTES = 16  # after each row, so that the rows of a fragment lie in different banks


def mma_blocking(factors: Factors, fragments: Fragments, left: int, right: int) -> Blocking:
    """For about so many left and right points."""
    sums = len(factors.reduce.sums)
    tall = wide = 1
    while sums * tall * wide * 8 <= _BUDGET:
        if COLUMNS * _ACROSS * wide * 2 <= right and wide <= 2 * tall:
            wide *= 2
        elif ROWS * _DOWN * tall * 2 <= left and tall < 4:
            tall *= 2
        elif COLUMNS * _ACROSS * wide * 2 <= right and wide < 8:
            wide *= 2
        else:
            break
    height, width = ROWS * _DOWN * tall, COLUMNS * _ACROSS * wide
    points = len(factors.lefts) * height + len(factors.rights) * width
    size = 4 // fragments.packed
    depth = 32
    while depth > fragments.depth and points * (depth * size + _PAD_BYTES) > _SHARED:
        depth //= 2
    shared = max(points * (depth * size + _PAD_BYTES), 4 * sums * height * (width + 1))
    return Blocking(height, width, depth, tall, wide, shared)


class MmaProduct(BlockedProduct):
    """In shared memory the elements of a factor lie point by point, neighbouring terms side by side."""

    def __init__(
        self, s: Scalars, kernel: Kernel, factors: Factors, block: Blocking, fragments: Fragments, place: Place
    ) -> None:
        super().__init__(s, kernel, factors, block, place)
        self.fragments = fragments

    def begin(self) -> None:
        f, b, x = self.f, self.block, self.factors
        self.major = f.binary("lshr", self.place.lane, i64(2))  # g
        self.minor = f.binary("and", self.place.lane, i64(3))  # t
        down, across = f.binary("udiv", self.place.warp, i64(_ACROSS)), f.binary("urem", self.place.warp, i64(_ACROSS))
        self.top = f.binary("mul nsw", down, i64(ROWS * b.tall))
        self.side = f.binary("mul nsw", across, i64(COLUMNS * b.wide))
        keys = [(t, i, j) for t in range(len(x.reduce.sums)) for i in range(b.tall) for j in range(b.wide)]
        self.sums = {key: [f.variable("float") for _ in range(4)] for key in keys}
        for variable in (v for variables in self.sums.values() for v in variables):
            f.put(constant(0, x.dtype), variable)

    def put(self, is_left: bool, operand: int, term: Value, point: Value, value: Value) -> None:
        self.f.put(self.fragments.rounded(self.f, value), self._address(is_left, operand, term, point))

    def _address(self, is_left: bool, operand: int, term: Value, point: Value) -> Value:
        f, b, x = self.f, self.block, self.factors
        pad = _PAD_BYTES * self.fragments.packed // 4
        row = b.depth + pad
        start = row * operand * (b.height if is_left else b.width)
        if not is_left:
            start += row * b.height * len(x.lefts)
        index = f.binary("add nsw", f.binary("mul nsw", point, i64(row)), term)
        element = self.fragments.element
        return f.offset(f.offset(self.memory, element, i64(start)), element, index)

    def add_block(self) -> None:
        """The terms of a block, as many at a time as a fragment has."""
        f, b, x = self.f, self.block, self.factors
        own = f.binary("mul nsw", self.minor, i64(self.fragments.packed))
        for start in range(0, b.depth, self.fragments.depth):
            k = f.binary("add nsw", own, i64(start))
            left = {(o, i): self._left(o, i, k) for o in range(len(x.lefts)) for i in range(b.tall)}
            right = {(o, j): self._right(o, j, k) for o in range(len(x.rights)) for j in range(b.wide)}
            for total, l, r in x.terms:
                for i in range(b.tall):
                    for j in range(b.wide):
                        variables = self.sums[total, i, j]
                        before = [f.get(variable, "float") for variable in variables]
                        after = self.fragments.multiply(f, left[l, i], right[r, j], before)
                        for value, variable in zip(after, variables, strict=True):
                            f.put(value, variable)

    def _left(self, operand: int, i: int, k: Value) -> list[Value]:
        f = self.f
        first = f.binary("add nsw", self.top, f.binary("add nsw", self.major, i64(ROWS * i)))
        return [
            self._register(True, operand, f.binary("add nsw", k, i64(term)), f.binary("add nsw", first, i64(row)))
            for row, term in self.fragments.left
        ]

    def _right(self, operand: int, j: int, k: Value) -> list[Value]:
        f = self.f
        column = f.binary("add nsw", self.side, f.binary("add nsw", self.major, i64(COLUMNS * j)))
        return [
            self._register(False, operand, f.binary("add nsw", k, i64(term)), column) for term in self.fragments.right
        ]

    def _register(self, is_left: bool, operand: int, term: Value, point: Value) -> Value:
        """Neighbouring terms of a factor, as one register."""
        return self.f.get(self._address(is_left, operand, term, point), "i32", 4)

    def spread(self) -> None:
        f = self.f
        for (total, i, j), variables in self.sums.items():
            for number, variable in enumerate(variables):
                row = f.binary("add nsw", self.top, f.binary("add nsw", self.major, i64(ROWS * i + 8 * (number // 2))))
                first = f.binary("add nsw", self.side, f.binary("mul nsw", self.minor, i64(2)))
                column = f.binary("add nsw", first, i64(COLUMNS * j + number % 2))
                f.put(f.get(variable, "float"), self.result(total, row, column))
