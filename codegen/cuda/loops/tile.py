"""A product with stationary operands by multiply-adds: its code before a loop, and in each of the loop's steps.

In: a kernel, its `Product` and `Geometry`. Out: code, appended to a device function. `load` loads the operands of the
CTA's units onto the chip. `compute` goes through the tiles. The lanes of a warp share the terms of all sums of a tile,
reduce them so that each lane has the sums of one cell, and compute and store the results of that cell. The order in
which a sum is added depends neither on the other rows nor on the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import Place, digits
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.deferred_stores import DeferredStores
from graphc.codegen.cuda.loops.geometry import Geometry, chunks
from graphc.codegen.cuda.loops.prefetch import FirstCell, PrefetchRegisters
from graphc.codegen.cuda.loops.products import Part, Product
from graphc.codegen.cuda.loops.stationary import Rows, StationaryProduct
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER, STORAGE, constant
from graphc.codegen.program import Kernel, Ref

__all__ = ["Tile"]


class Tile(StationaryProduct[Geometry]):
    """The lanes of a warp share the terms of a tile's sums."""

    def __init__(
        self,
        function: DeviceFunction,
        kernel: Kernel,
        product: Product,
        geometry: Geometry,
        place: Place,
        deferred: DeferredStores | None = None,
    ) -> None:
        super().__init__(function, kernel, product, geometry, place, deferred)
        self._registers: dict[tuple[int, int, int, int], Value] = {}  # by unit, part, term and chunk

    # Terms and their places.

    def _term(self, part: Part, number: Value) -> dict[str, Value]:
        """The indices of a term of a sum; past the end, those of the last."""
        if part.length % WARP:
            number = self.function.intrinsic("smin", number, i64(part.length - 1))
        return self.named(part.dims, number)

    def _existing(self, part: Part, number: Value, value: Value) -> Value:
        """The value of a term; 0 past the last term."""
        if part.length % WARP == 0:
            return value
        f = self.function
        return f.select(f.compare("icmp slt", number, i64(part.length)), value, constant(0, self.dtype))

    def _address(self, local: Value, part: int, term: int, number: Value) -> Value:
        """The address of an operand in shared memory; those of neighbouring terms lie side by side."""
        f, parts = self.function, self.product.parts
        depth = WARP * sum(chunks(p) * len(p.terms) for p in parts)
        start = WARP * (sum(chunks(p) * len(p.terms) for p in parts[:part]) + term * chunks(parts[part]))
        index = f.binary("add nsw", f.binary("mul nsw", local, i64(depth)), f.binary("add nsw", number, i64(start)))
        base = f.dynamic(self.geometry.offset)
        return f.offset(base, STORAGE[self.dtype][0], index)

    # Before the loop.

    def load(self, s: Scalars) -> None:
        if self.geometry.home == "registers":
            self._load_registers(s)
        elif self.geometry.home == "shared":
            self._load_shared(s)

    def _load_registers(self, s: Scalars) -> None:
        f = self.function
        first = self._first_unit()
        for i in range(self.geometry.tall):
            unit = self.unit(f.binary("add nsw", first, i64(i)))
            for p, part in enumerate(self.product.parts):
                for chunk in range(chunks(part)):
                    number = f.binary("add nsw", self.place.lane, i64(chunk * WARP))
                    with s.scope({**unit, **self._term(part, number)}):
                        for t, term in enumerate(part.terms):
                            self._registers[i, p, t, chunk] = self._existing(part, number, s.value(term.stationary))

    def _first_unit(self) -> Value:
        """The first of the units that this warp computes, among those of its CTA."""
        f, g = self.function, self.geometry
        return f.binary("mul nsw", f.binary("and", self.place.warp, i64(g.across - 1)), i64(g.tall))

    def _load_shared(self, s: Scalars) -> None:
        f, g = self.function, self.geometry
        for p, part in enumerate(self.product.parts):
            length = WARP * chunks(part)
            with s.counting(self.place.thread, i64(g.per_cta * length), i64(self.place.threads), "load") as number:
                local, k = digits(f, number, [i64(g.per_cta), i64(length)])
                with s.scope({**self.unit(local), **self._term(part, k)}):
                    for t, term in enumerate(part.terms):
                        f.put(self._existing(part, k, s.value(term.stationary)), self._address(local, p, t, k))
        f.sync_cta()

    # In a step.

    def compute(self, s: Scalars, prefetched: PrefetchRegisters, synced: bool) -> None:
        for _ in self._each_height(s):
            with self._tiles(s) as (first, row, is_first, rows):
                sums = self._sums(s, first, row, rows)
                with self._cell(s, self.kernel, first, row, rows):
                    for total, value in zip(self.product.sums, sums, strict=True):
                        s.bind(Ref(total.name, self.dtype), value)
                    self.end(s, self.kernel, prefetched, is_first)

    def epilogue(self, s: Scalars, kernel: Kernel, prefetched: PrefetchRegisters) -> None:
        for _ in self._each_height(s):
            with self._tiles(s) as (first, row, is_first, rows), self._cell(s, kernel, first, row, rows):
                self.end(s, kernel, prefetched, is_first)

    def _each_height(self, s: Scalars) -> Iterator[None]:
        """Emit the code twice: with tiles of several rows, and with tiles of one row, for a group that has only one."""
        several = self.geometry
        if several.rows == 1:
            yield
            return
        alone = self.is_alone(s)
        for rows, is_it in ((several.rows, self.function.binary("xor", alone, Value("true", "i1"))), (1, alone)):
            self.geometry = replace(several, rows=rows)
            self.has_one_cell = rows == 1 and several.home == "registers"
            with s.when(is_it):
                yield
        self.geometry, self.has_one_cell = several, False

    def is_alone(self, s: Scalars) -> Value:
        """Whether the group has one row."""
        return self.function.compare("icmp sle", self.rows(s).count, i64(1))

    def first_cell(self, s: Scalars) -> FirstCell:
        f, several, rows, found = self.function, self.geometry, self.rows(s), []
        for height in dict.fromkeys((several.rows, 1)):
            self.geometry = replace(several, rows=height)
            row = f.binary("mul nsw", self._first_tile(), i64(height))
            found.append(self._cell_of(self._first_unit(), row, rows))
        self.geometry = several
        exists, local, number = found[0]
        if len(found) > 1:
            alone = self.is_alone(s)
            exists, local, number = (f.select(alone, b, a) for a, b in zip(*found, strict=True))
        return FirstCell(exists, {**self.unit(local), **self.row(number, rows)})

    def _first_tile(self) -> Value:
        """The first tile of rows that this warp computes."""
        return self.function.binary("udiv", self.place.warp, i64(self.geometry.across))

    @contextmanager
    def _tiles(self, s: Scalars) -> Iterator[tuple[Value, Value, Value, Rows]]:
        """A loop over the tiles of this warp. Yields the first unit and the first row of a tile, whether it is the
        warp's first tile, and all rows."""
        f, g, rows = self.function, self.geometry, self.rows(s)
        tiles = f.binary("udiv", f.binary("add nsw", rows.count, i64(g.rows - 1)), i64(g.rows))
        side = self._first_tile()
        with (
            self._unit_tiles(s) as first,
            s.counting(side, tiles, i64(self.place.warps // g.across), "tile") as tile,
        ):
            is_first = f.compare("icmp eq", tile, side)
            if g.home != "registers":
                is_first = f.binary("and", is_first, f.compare("icmp eq", first, self._first_unit()))
            yield first, f.binary("mul nsw", tile, i64(g.rows)), is_first, rows

    @contextmanager
    def _unit_tiles(self, s: Scalars) -> Iterator[Value]:
        """The first unit of each tile of this warp; there is one if operands are in registers."""
        g, start = self.geometry, self._first_unit()
        if g.home == "registers":
            yield start
            return
        with s.counting(start, i64(g.per_cta), i64(g.across * g.tall), "units") as first:
            yield first

    def _sums(self, s: Scalars, first: Value, row: Value, rows: Rows) -> list[Value]:
        """All sums of this lane's cell of the tile."""
        f, g = self.function, self.geometry
        last = f.binary("sub nsw", rows.count, i64(1))
        numbers = (f.intrinsic("smin", f.binary("add nsw", row, i64(j)), last) for j in range(g.rows))
        of_tile = [self.row(number, rows) for number in numbers]
        totals = {
            (total, i, j): f.variable(REGISTER[self.dtype])
            for total in range(len(self.product.sums))
            for i in range(g.tall)
            for j in range(g.rows)
        }
        for variable in totals.values():
            f.put(constant(0, self.dtype), variable)
        for p, part in enumerate(self.product.parts):
            self._through(s, p, part, first, of_tile, totals)
        zero = constant(0, self.dtype)
        results = []
        for total in range(len(self.product.sums)):
            values = [
                f.get(totals[total, c // g.rows, c % g.rows], REGISTER[self.dtype]) for c in range(g.tall * g.rows)
            ]
            results.append(self._reduced([*values, *[zero] * (g.cells - len(values))]))
        return results

    def _through(
        self,
        s: Scalars,
        p: int,
        part: Part,
        first: Value,
        rows: list[dict[str, Value]],
        totals: Mapping[tuple[int, int, int], Value],
    ) -> None:
        """Add this lane's terms of one reduction to the sums."""
        f, g = self.function, self.geometry
        if g.home == "registers":
            for chunk in range(chunks(part)):
                number = f.binary("add nsw", self.place.lane, i64(chunk * WARP))
                stationary = lambda i, t, chunk=chunk: self._registers[i, p, t, chunk]  # noqa: E731
                self._add(s, part, number, rows, totals, stationary)
            return
        with s.counting(self.place.lane, i64(WARP * chunks(part)), i64(WARP), "term") as number:
            self._add(s, part, number, rows, totals, lambda i, t: self._fetched(s, p, t, first, i, number))

    def _fetched(self, s: Scalars, p: int, t: int, first: Value, i: int, number: Value) -> Value:
        """A stationary operand from shared memory, or from global memory if it is not on the chip."""
        f, part = self.function, self.product.parts[p]
        local = f.intrinsic("smin", f.binary("add nsw", first, i64(i)), i64(self.geometry.per_cta - 1))
        if self.geometry.home == "shared":
            return f.get(self._address(local, p, t, number), STORAGE[self.dtype][0])
        with s.scope({**self.unit(local), **self._term(part, number)}):
            return self._existing(part, number, s.value(part.terms[t].stationary))

    def _add(
        self,
        s: Scalars,
        part: Part,
        number: Value,
        rows: list[dict[str, Value]],
        totals: Mapping[tuple[int, int, int], Value],
        stationary: Callable[[int, int], Value],
    ) -> None:
        """One term of every sum, for every cell of the tile."""
        f, g = self.function, self.geometry
        operands = {(i, t): stationary(i, t) for t in range(len(part.terms)) for i in range(g.tall)}
        term_indices = self._term(part, number)
        for j, row in enumerate(rows):
            with s.scope({**self.fixed(), **row, **term_indices}):
                for t, term in enumerate(part.terms):
                    other = self._existing(part, number, s.value(term.other))
                    for i in range(g.tall):
                        variable = totals[term.total, i, j]
                        before = f.get(variable, REGISTER[self.dtype])
                        f.put(s.functions.multiply_add(operands[i, t], other, before), variable)

    def _reduced(self, values: list[Value]) -> Value:
        """Sum each value over all lanes of the warp, so that a lane has the sum of the value whose number is the lane's
        leading bits (a butterfly). In each step a lane sends half of its values to another lane and receives the other
        half, and adds; a single value is added in both lanes."""
        f = self.function
        lane = f.narrow(self.place.lane)
        distance = WARP // 2
        while distance:
            half = len(values) // 2
            if half:
                upper = f.compare("icmp ne", f.binary("and", lane, Value(str(distance), "i32")), Value("0", "i32"))
                pairs = list(zip(values[:half], values[half:], strict=True))
                own = [f.select(upper, b, a) for a, b in pairs]
                sent = [f.select(upper, a, b) for a, b in pairs]
            else:
                own = sent = values
            values = [f.binary("fadd", a, f.shuffle_xor(b, distance)) for a, b in zip(own, sent, strict=True)]
            distance //= 2
        return values[0]

    @contextmanager
    def _cell(self, s: Scalars, kernel: Kernel, first: Value, row: Value, rows: Rows) -> Iterator[None]:
        """A branch for the first of the lanes that have a cell's sums, with the indices of its point in a kernel over
        the same points."""
        exists, local, number = self._cell_of(first, row, rows)
        with s.when(exists), s.scope(self.renamed(kernel, {**self.unit(local), **self.row(number, rows)})):
            yield

    def _cell_of(self, first: Value, row: Value, rows: Rows) -> tuple[Value, Value, Value]:
        """This lane's cell of the tile that begins at a unit and a row: whether it exists and is this lane's to
        compute, its unit in the CTA, and its row."""
        f, g = self.function, self.geometry
        lanes = WARP // g.cells
        cell = f.binary("udiv", self.place.lane, i64(lanes))
        i, j = f.binary("udiv", cell, i64(g.rows)), f.binary("urem", cell, i64(g.rows))
        local, number = f.binary("add nsw", first, i), f.binary("add nsw", row, j)
        conditions = [
            f.compare("icmp eq", f.binary("urem", self.place.lane, i64(lanes)), i64(0)),
            f.compare("icmp slt", i, i64(g.tall)),
            f.compare("icmp slt", local, i64(g.per_cta)),
            f.compare("icmp slt", self.number(local), i64(g.units)),
            f.compare("icmp slt", number, rows.count),
        ]
        return f.every(conditions), local, number
