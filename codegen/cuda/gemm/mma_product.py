"""Blocked products on the tensor cores: each warp computes some fragments of the tile, with their sums in registers.

In: the factors of a product and its `MmaBlocking`. Out: code, appended to a device
function. Factors are rounded once, as they are loaded, and lie in shared memory as they do in memory: with neighbouring
terms side by side, or neighbouring points. `ldmatrix` reads either as fragments. Neighbouring points of 4 bytes (tf32)
are the exception: their elements are read one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.codegen.cuda.gemm.blocks import BlockedProduct, Operand
from graphc.codegen.cuda.gemm.factors import Factor, Factors
from graphc.codegen.cuda.gemm.mma_blocking import Lines, MmaBlocking, bytes_of, is_copied, lines_of
from graphc.codegen.cuda.gemm.tile_loader import Run
from graphc.codegen.cuda.isa.device import i32
from graphc.codegen.cuda.isa.mma import COLUMNS, ROWS
from graphc.codegen.cuda.isa.place import Place
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import constant
from graphc.codegen.program import Kernel

__all__ = ["MmaProduct"]


class MmaProduct(BlockedProduct):
    """Warps share the tile; each adds up its fragments of it."""

    def __init__(self, s: Scalars, kernel: Kernel, factors: Factors, block: MmaBlocking, place: Place) -> None:
        super().__init__(s, kernel, factors, block, place)
        self.fragments = fragments = block.fragments
        self.across = block.across
        self.lines: dict[Operand, Lines] = {}
        self._starts: dict[Operand, int] = {}
        # All of these are set by `begin`, for each tile.
        self.major = self.minor = i64(0)  # g and t of this lane (`graphc.codegen.cuda.isa.mma`)
        self.top = self.side = i64(0)  # the first left and right point of this warp in the tile
        self.sums: dict[tuple[int, int, int], list[Value]] = {}  # variables: by sum, left and right fragment
        self._lanes: dict[Operand, Value] = {}  # by factor: what `_lane_offset` gives
        start = 0
        for is_left, side, points in ((True, factors.lefts, block.height), (False, factors.rights, block.width)):
            for number, factor in enumerate(side):
                operand = Operand(is_left, number)
                self.lines[operand] = lines_of(factor, points, block.depth, fragments)
                self._starts[operand] = start
                start += bytes_of([factor], points, block.depth, fragments)

    def rounded(self, factor: Factor) -> str | None:
        """The type of elements that are stored as the tensor cores take them: LLVM drops the conversions to float32 and
        back. Other factors are not rounded as they are fetched, since rounding would wait for the loads, which should
        overlap with the products; `put` rounds them."""
        stored = factor.stored is not None and factor.stored == self.fragments.dtype
        whole = factor.load is self.s.access.resolve(factor.value)
        return self.fragments.element if stored and whole else None

    def begin(self) -> None:
        f, b, factors = self.f, self.block, self.factors
        self.major = f.binary("lshr", self.place.lane, i64(2))
        self.minor = f.binary("and", self.place.lane, i64(3))
        down, across = (f.binary(op, self.place.warp, i64(self.across)) for op in ("udiv", "urem"))
        self.top = f.binary("mul nsw", down, i64(ROWS * b.tall))
        self.side = f.binary("mul nsw", across, i64(COLUMNS * b.wide))
        keys = [(t, i, j) for t in range(len(factors.reduce.sums)) for i in range(b.tall) for j in range(b.wide)]
        self.sums = {key: [f.variable("float") for _ in range(4)] for key in keys}
        for variable in (v for variables in self.sums.values() for v in variables):
            f.put(constant(0, factors.dtype), variable)
        self._lanes = {operand: self._lane_offset(operand) for operand in self.lines}

    # Elements in shared memory.

    @property
    def copied(self) -> bool:
        return is_copied(self.factors, self.fragments)

    def address(self, operand: Operand, stage: Value, run: Run) -> Value:
        return self.f.offset(self._block(stage), "i8", self._offset(operand, run.point, run.term))

    def put(self, operand: Operand, stage: Value, run: Run, values: Sequence[Value], counts: Value | None) -> None:
        f, fragments = self.f, self.fragments
        address = self.address(operand, stage, run)
        if len(values) < fragments.packed:
            zero = Value("0.0", fragments.element)
            value = fragments.rounded(f, values[0])
            f.put(value if counts is None else f.select(counts, value, zero), address)
            return
        for k in range(0, len(values), fragments.packed):
            packed = fragments.pack(f, values[k : k + fragments.packed])
            stored = packed if counts is None else f.select(counts, packed, i32(0))
            f.put(stored, f.offset(address, "i8", i64(4 * k // fragments.packed)), 4)

    def _block(self, stage: Value) -> Value:
        return self.f.offset(self.memory, "i8", self.f.binary("mul nsw", stage, i64(self.block.stage)))

    def _offset(self, operand: Operand, point: Value, term: Value) -> Value:
        """The offset of an element from the beginning of a block, in bytes."""
        f, lines = self.f, self.lines[operand]
        line, place = (point, term) if lines.by_points else (term, point)
        first = f.binary("add nsw", f.binary("mul nsw", line, i64(lines.stride)), i64(self._starts[operand]))
        return f.binary("add nsw", first, f.binary("mul nsw", place, i64(lines.size)))

    def _in_matrices(self, lines: Lines) -> bool:
        """Whether `ldmatrix` can read a factor: it can transpose rows of eight points only if elements have 16 bits."""
        return lines.by_points or self.fragments.packed > 1

    def _lane_offset(self, operand: Operand) -> Value:
        """The offset of what this lane reads of the warp's first fragment; with `ldmatrix`, of the row whose address it
        gives. An instruction reads four matrices. The second has the next eight points of a left factor, or the next
        terms of a right one; the third has the next terms of a left factor, or the next points of a right one."""
        f, lines, lane = self.f, self.lines[operand], self.place.lane
        origin = self.top if operand.is_left else self.side
        if not self._in_matrices(lines):
            return self._offset(operand, f.binary("add nsw", origin, self.major), self.minor)
        row = f.binary("and", lane, i64(7))
        odd = f.binary("and", f.binary("lshr", lane, i64(3)), i64(1))
        upper = f.binary("lshr", lane, i64(4))
        points, terms = (odd, upper) if operand.is_left else (upper, odd)
        point = f.binary("add nsw", origin, f.binary("mul nsw", points, i64(8)))
        term = f.binary("mul nsw", terms, i64(self.fragments.depth // 2))
        if lines.by_points:
            return self._offset(operand, f.binary("add nsw", point, row), term)
        return self._offset(operand, point, f.binary("add nsw", term, row))

    # Products.

    def add_block(self, stage: Value, meanwhile: Sequence[Callable[[], None]] = ()) -> None:
        """The terms of a block, as many at a time as a fragment has; `meanwhile` is spread between them."""
        f, b = self.f, self.block
        block = self._block(stage)
        first = {operand: f.offset(block, "i8", offset) for operand, offset in self._lanes.items()}
        slices = b.depth // self.fragments.depth
        for number in range(slices):
            term = number * self.fragments.depth
            for piece in meanwhile[number * len(meanwhile) // slices : (number + 1) * len(meanwhile) // slices]:
                piece()
            left: dict[int, list[list[Value]]] = {}
            right: dict[int, list[list[Value]]] = {}
            for total, l, r in self.factors.terms:
                if l not in left:
                    left[l] = self._left(l, first[Operand(True, l)], term)
                if r not in right:
                    right[r] = self._right(r, first[Operand(False, r)], term)
                for i in range(b.tall):
                    for j in range(b.wide):
                        variables = self.sums[total, i, j]
                        before = [f.get(variable, "float") for variable in variables]
                        after = self.fragments.multiply(f, left[l][i], right[r][j], before)
                        for value, variable in zip(after, variables, strict=True):
                            f.put(value, variable)

    def _left(self, number: int, first: Value, term: int) -> list[list[Value]]:
        """The fragments of a left factor from a term of the block on: one for every sixteen points."""
        lines = self.lines[Operand(True, number)]
        places = self.fragments.left
        return [self._fragment(lines, first, ROWS * i, term, places) for i in range(self.block.tall)]

    def _right(self, number: int, first: Value, term: int) -> list[list[Value]]:
        """The fragments of a right factor: one for every eight points, loaded two at a time."""
        lines, wide = self.lines[Operand(False, number)], self.block.wide
        found: list[list[Value]] = []
        for j in range(0, wide, 2):
            points = (0, COLUMNS) if j + 1 < wide else (0,)
            places = tuple((point, term) for point in points for term in self.fragments.right)
            registers = self._fragment(lines, first, COLUMNS * j, term, places)
            found += [registers[k : k + 2] for k in range(0, len(registers), 2)]
        return found

    def _fragment(
        self, lines: Lines, first: Value, point: int, term: int, places: Sequence[tuple[int, int]]
    ) -> list[Value]:
        """The registers of a fragment. `places`: the point and the term of each, counted from the first."""
        f = self.f
        start = f.offset(first, "i8", i64(lines.offset(point, term)))
        if self._in_matrices(lines):
            return f.load_matrices(start, len(places), transposed=not lines.by_points)
        return [f.get(f.offset(start, "i8", i64(lines.offset(p, k))), "i32") for p, k in places]

    def spread(self) -> None:
        f = self.f
        for (total, i, j), variables in self.sums.items():
            for number, variable in enumerate(variables):
                row = f.binary("add nsw", self.top, f.binary("add nsw", self.major, i64(ROWS * i + 8 * (number // 2))))
                first = f.binary("add nsw", self.side, f.binary("mul nsw", self.minor, i64(2)))
                column = f.binary("add nsw", first, i64(COLUMNS * j + number % 2))
                f.put(f.get(variable, "float"), self.result(total, row, column))
