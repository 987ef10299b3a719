"""A product with stationary operands on the tensor cores: its code before a loop, and in each of the loop's steps.

In: a kernel, its `Product`, an `MmaGeometry`. Out: code, appended to a device function. The stationary operands of the
CTA's units are the left factor. They are rounded once, before the first step, and stay as fragments in registers or in
shared memory. The other operands are the right factor, rounded as they are read; its columns are the product's rows,
the batch. The warps of a CTA share its units, sixteen at a time; if there are more warps, several share the terms. Each
warp stores its sums to shared memory. There every thread adds the sums of some cells, in the order of the warps, and
computes and stores the results of these cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.mma import COLUMNS, ROWS, Fragments
from graphc.codegen.cuda.isa.place import Place
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.mma_geometry import FRAGMENT, MmaGeometry, chunks_of_warp
from graphc.codegen.cuda.loops.prefetch import FirstCell, PrefetchRegisters
from graphc.codegen.cuda.loops.products import Part, Product, Term
from graphc.codegen.cuda.loops.stationary import Rows, StationaryProduct
from graphc.codegen.lengths import length_of
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import constant
from graphc.codegen.program import Index, Kernel, Load, Ref, Scalar
from graphc.scalar import walk

__all__ = ["MmaTile"]


class MmaTile(StationaryProduct[MmaGeometry]):
    """The warps of a CTA share the units, sixteen at a time, and the terms."""

    def __init__(
        self,
        function: DeviceFunction,
        kernel: Kernel,
        product: Product,
        geometry: MmaGeometry,
        fragments: Fragments,
        place: Place,
    ) -> None:
        super().__init__(function, kernel, product, geometry, place)
        self.fragments = fragments
        self.major = function.binary("lshr", place.lane, i64(2))  # g
        self.minor = function.binary("and", place.lane, i64(3))  # t
        self.side = function.binary("and", place.warp, i64(geometry.across - 1))
        self.split = function.binary("udiv", place.warp, i64(geometry.across))
        self._registers: dict[tuple[int, int, int, int], list[Value]] = {}  # by tile, part, term and chunk
        self._spilled: dict[tuple[int, int, int, int], Value] = {}  # addresses of fragments, by the same

    # Operands.

    def _first_term(self, chunk: Value) -> Value:
        """The first k of this lane in one of its warp's chunks."""
        f, x = self.function, self.fragments
        number = f.binary("add nsw", f.binary("mul nsw", chunk, i64(self.geometry.splits)), self.split)
        first = f.binary("mul nsw", number, i64(x.depth))
        return f.binary("add nsw", first, f.binary("mul nsw", self.minor, i64(x.packed)))

    def _packed(self, s: Scalars, part: Part, k: Value, operand: Scalar) -> Value:
        """The register with an operand's neighbouring elements from term k on; 0 past the last term."""
        f, values = self.function, []
        whole = part.length % (self.fragments.depth * self.geometry.splits) == 0
        load, when = s.access.loaded(operand)
        if load is not None and load in s.near and self._lies_packed(s, part, load, when):
            return self._loaded_packed(s, part, k, load, when, whole)
        for number in range(self.fragments.packed):
            at = f.binary("add nsw", k, i64(number))
            inside = at if whole else f.intrinsic("smin", at, i64(part.length - 1))
            with s.scope(self.named(part.dims, inside)):
                value = s.value(operand)
            if not whole:
                exists = f.compare("icmp slt", at, i64(part.length))
                value = f.select(exists, value, constant(0.0, "float32"))
            values.append(value)
        return self.fragments.pack(f, values)

    def _lies_packed(self, s: Scalars, part: Part, load: Load, when: Scalar | None) -> bool:
        """Whether a register can be loaded from a mirror as it is: neighbouring terms lie side by side there, rounded,
        an even number of them, and the load's condition does not depend on the term."""
        mirror, last = s.mirrors[load.buffer].mirror, part.dims[-1]
        if when is not None and not s.access.dependence(when).isdisjoint(dim.index for dim in part.dims):
            return False
        if self.fragments.packed == 1 or mirror.dtype != self.fragments.dtype or not mirror.line:
            return False
        inner = mirror.line[-1]
        along = [at for at in load.at if Index(last.index) in walk(at)]
        return (
            along == [load.at[inner]] == [Index(last.index)]
            and mirror.buffer.dims[inner] == last.extent
            and length_of((last,)) % 2 == 0
        )

    def _loaded_packed(self, s: Scalars, part: Part, k: Value, load: Load, when: Scalar | None, whole: bool) -> Value:
        """The same, loaded from a mirror as it is. `whole`: no k is past the last term."""
        f = self.function
        inside = k if whole else f.intrinsic("smin", k, i64(part.length - 2))
        with s.scope(self.named(part.dims, inside)):
            register = f.get(s.mirrored(load), "i32", 4)
            register = register if when is None else f.select(s.value(when), register, i32(0))
        return register if whole else f.select(f.compare("icmp slt", k, i64(part.length)), register, i32(0))

    # Stationary operands.

    def load(self, s: Scalars) -> None:
        f, g = self.function, self.geometry
        for p, part in enumerate(self.product.parts):
            chunks = chunks_of_warp(part, self.fragments.depth, g.splits)
            if g.home == "registers":
                for chunk in range(chunks):
                    for (tile, t), value in self._fragments(s, part, i64(chunk)).items():
                        self._store_fragment((tile, p, t, chunk), value)
            elif g.home == "shared":
                with s.counting(i64(0), i64(chunks), i64(1), "chunk") as at:
                    for (tile, t), registers in self._fragments(s, part, at).items():
                        for k, register in enumerate(registers):
                            f.put(register, f.offset(self._fragment_address(tile, p, t, at), "i32", i64(k)))

    def _store_fragment(self, key: tuple[int, int, int, int], value: list[Value]) -> None:
        """Hold a fragment in registers, or spill it to shared memory. Each lane will read what it has written
        itself."""
        g = self.geometry
        number, count = len(self._registers) + len(self._spilled), g.in_registers + g.spilled
        if number * g.spilled // count == (number + 1) * g.spilled // count:  # spread evenly
            self._registers[key] = value
            return
        self._spilled[key] = address = self._spill_address(len(self._spilled))
        for k, register in enumerate(value):
            self.function.put(register, self.function.offset(address, "i32", i64(k)))

    def _spill_address(self, number: int) -> Value:
        f, g = self.function, self.geometry
        first = f.binary("add nsw", f.binary("mul nsw", self.place.warp, i64(g.spilled)), i64(number))
        lane = f.binary("add nsw", f.binary("mul nsw", first, i64(WARP)), self.place.lane)
        base = f.dynamic(g.offset)
        return f.offset(base, "i32", f.binary("mul nsw", lane, i64(FRAGMENT)))

    def _fragments(self, s: Scalars, part: Part, chunk: Value) -> dict[tuple[int, int], list[Value]]:
        """This lane's registers of the stationary fragments of a chunk, loaded and rounded, by tile and term."""
        f, found = self.function, {}
        first = self._first_term(chunk)
        for tile in range(self.geometry.tall):
            for t, term in enumerate(part.terms):
                registers = []
                for row, k in self.fragments.left:
                    local = f.binary("add nsw", self._tile_start(tile), f.binary("add nsw", self.major, i64(row)))
                    with s.scope(self.unit(local)):
                        registers.append(self._packed(s, part, f.binary("add nsw", first, i64(k)), term.stationary))
                found[tile, t] = registers
        return found

    def _tile_start(self, tile: int) -> Value:
        """The first unit of one of this warp's tiles, by its number in the CTA."""
        f, g = self.function, self.geometry
        number = f.binary("add nsw", f.binary("mul nsw", self.side, i64(g.tall)), i64(tile))
        return f.binary("mul nsw", number, i64(ROWS))

    def _fragment_address(self, tile: int, p: int, t: int, chunk: Value) -> Value:
        """The address of this lane's registers of a fragment, if all fragments are in shared memory."""
        f, g, parts = self.function, self.geometry, self.product.parts
        counts = [chunks_of_warp(part, self.fragments.depth, g.splits) for part in parts]
        of_tile = sum(n * len(part.terms) for n, part in zip(counts, parts, strict=True))
        before = sum(n * len(part.terms) for n, part in zip(counts[:p], parts[:p], strict=True)) + t * counts[p]
        warp = f.binary("mul nsw", self.place.warp, i64(of_tile * g.tall))
        number = f.binary("add nsw", f.binary("add nsw", warp, i64(tile * of_tile + before)), chunk)
        lane = f.binary("add nsw", f.binary("mul nsw", number, i64(WARP)), self.place.lane)
        base = f.dynamic(g.offset)
        return f.offset(base, "i32", f.binary("mul nsw", lane, i64(FRAGMENT)))

    # In a step.

    def compute(self, s: Scalars, prefetched: PrefetchRegisters, synced: bool) -> None:
        """As in the base class. The shared memory of the sums is used again by the next pass, and in the next step; so
        a CTA that is not synchronised in between is synchronised here."""
        f, rows = self.function, self.rows(s)
        for _ in self._each_width(s, rows):
            with s.counting(i64(0), rows.count, i64(self.geometry.rows), "pass") as first:
                sums = self._sums(s, first, rows)
                with f.when(f.compare("icmp ne", first, i64(0))):
                    f.sync_cta()
                self._put(sums, first, rows)
                f.sync_cta()
                with self._cells(s, self.kernel, first, rows) as (local, row, is_first):
                    for k, total in enumerate(self.product.sums):
                        s.bind(Ref(total.name, "float32"), self._whole(k, local, row))
                    self.end(s, self.kernel, prefetched, is_first)
        if not synced:
            f.sync_cta()

    def epilogue(self, s: Scalars, kernel: Kernel, prefetched: PrefetchRegisters) -> None:
        rows = self.rows(s)
        with (
            s.counting(i64(0), rows.count, i64(self.geometry.rows), "pass") as first,
            self._cells(s, kernel, first, rows) as (_, _, is_first),
        ):
            self.end(s, kernel, prefetched, is_first)

    def _each_width(self, s: Scalars, rows: Rows) -> Iterator[None]:
        """Emit the code twice: with passes of many rows, and with passes of eight, for a group that has no more."""
        f, many = self.function, self.geometry
        if many.wide == 1:
            yield
            return
        few = f.compare("icmp sle", rows.count, i64(COLUMNS))
        for wide, is_it in ((many.wide, f.binary("xor", few, Value("true", "i1"))), (1, few)):
            self.geometry = replace(many, wide=wide)
            with s.when(is_it):
                yield
        self.geometry = many

    def first_cell(self, s: Scalars) -> FirstCell:
        f, rows = self.function, self.rows(s)
        exists, local, row = self._cell_of(self.place.thread, i64(0), rows)
        exists = f.binary("and", exists, f.compare("icmp slt", row, i64(self.geometry.rows)))
        return FirstCell(exists, {**self.unit(local), **self.row(row, rows)})

    def _sums(self, s: Scalars, first: Value, rows: Rows) -> dict[tuple[int, int, int], list[Value]]:
        """The variables of this lane's sums, by tile, number of the sum, and eight rows."""
        f, g = self.function, self.geometry
        keys = [(i, k, j) for i in range(g.tall) for k in range(len(self.product.sums)) for j in range(g.wide)]
        sums = {key: [f.variable("float") for _ in range(4)] for key in keys}
        for variable in (v for variables in sums.values() for v in variables):
            f.put(constant(0.0, "float32"), variable)
        last = f.binary("sub nsw", rows.count, i64(1))
        of_pass = []
        for j in range(g.wide):
            number = f.binary("add nsw", first, f.binary("add nsw", self.major, i64(COLUMNS * j)))
            of_pass.append(self.row(f.intrinsic("smin", number, last), rows))
        for p, part in enumerate(self.product.parts):
            with self._each_chunk(s, part) as chunks:
                for chunk in chunks:
                    self._add(s, p, part, chunk, of_pass, sums)
        return sums

    @contextmanager
    def _each_chunk(self, s: Scalars, part: Part) -> Iterator[list[Value]]:
        """The chunks of a part: unrolled if their fragments are in registers, else in a loop."""
        chunks = chunks_of_warp(part, self.fragments.depth, self.geometry.splits)
        if self.geometry.home == "registers":
            yield [i64(chunk) for chunk in range(chunks)]
            return
        with s.counting(i64(0), i64(chunks), i64(1), "chunk") as chunk:
            yield [chunk]

    def _add(
        self,
        s: Scalars,
        p: int,
        part: Part,
        chunk: Value,
        rows: list[dict[str, Value]],
        sums: dict[tuple[int, int, int], list[Value]],
    ) -> None:
        """Add the products of one chunk of terms to all sums."""
        f, g = self.function, self.geometry
        stationary = self._stationary(s, p, part, chunk)
        first = self._first_term(chunk)
        for j, row in enumerate(rows):
            with s.scope({**self.fixed(), **row}):
                others = {term.other: self._right(s, part, first, term) for term in part.terms}
                for t, term in enumerate(part.terms):
                    for i in range(g.tall):
                        variables = sums[i, term.total, j]
                        before = [f.get(variable, "float") for variable in variables]
                        after = self.fragments.multiply(f, stationary[i, t], others[term.other], before)
                        for value, variable in zip(after, variables, strict=True):
                            f.put(value, variable)

    def _right(self, s: Scalars, part: Part, first: Value, term: Term) -> list[Value]:
        """This lane's registers of the other operand's fragment."""
        f = self.function
        return [self._packed(s, part, f.binary("add nsw", first, i64(k)), term.other) for k in self.fragments.right]

    def _stationary(self, s: Scalars, p: int, part: Part, chunk: Value) -> dict[tuple[int, int], list[Value]]:
        """The stationary fragments of a chunk, from where they stay, by tile and term."""
        f, g = self.function, self.geometry
        keys = [(i, t) for i in range(g.tall) for t in range(len(part.terms))]
        if g.home == "registers":
            return {(i, t): self._fragment_of((i, p, t, int(chunk.text))) for i, t in keys}
        if g.home == "memory":
            return self._fragments(s, part, chunk)
        found = {}
        for i, t in keys:
            address = self._fragment_address(i, p, t, chunk)
            found[i, t] = [f.get(f.offset(address, "i32", i64(k)), "i32") for k in range(FRAGMENT)]
        return found

    def _fragment_of(self, key: tuple[int, int, int, int]) -> list[Value]:
        """A fragment that `_store_fragment` has stored."""
        f = self.function
        if key in self._registers:
            return self._registers[key]
        return [f.get(f.offset(self._spilled[key], "i32", i64(k)), "i32") for k in range(FRAGMENT)]

    # Results.

    def _cell(self, split: Value, total: int, unit: Value, row: Value) -> Value:
        """The address in shared memory of a cell's sum over the terms of one of the warps that share them."""
        f, g = self.function, self.geometry
        start = g.offset + g.fragment_bytes
        base = f.dynamic(start)
        line = f.binary("mul nsw", split, i64(len(self.product.sums) * g.rows * g.line))
        line = f.binary("add nsw", line, i64(total * g.rows * g.line))
        index = f.binary("add nsw", line, f.binary("mul nsw", row, i64(g.line)))
        return f.offset(base, "float", f.binary("add nsw", index, unit))

    def _put(self, sums: dict[tuple[int, int, int], list[Value]], first: Value, rows: Rows) -> None:
        """Store the sums of a pass to shared memory, except those of eight rows of which none exists."""
        f = self.function
        column = f.binary("mul nsw", self.minor, i64(2))
        for j in range(self.geometry.wide):
            with f.when(f.compare("icmp slt", f.binary("add nsw", first, i64(COLUMNS * j)), rows.count)):
                for (i, total, eight), variables in sums.items():
                    for k, variable in enumerate(variables if eight == j else []):
                        half = f.binary("add nsw", self.major, i64(8 * (k // 2)))
                        unit = f.binary("add nsw", self._tile_start(i), half)
                        row = f.binary("add nsw", column, i64(COLUMNS * j + k % 2))
                        f.put(f.get(variable, "float"), self._cell(self.split, total, unit, row))

    def _whole(self, total: int, local: Value, row: Value) -> Value:
        """A cell's sum over the terms of all warps."""
        f = self.function
        value = f.get(self._cell(i64(0), total, local, row), "float")
        for split in range(1, self.geometry.splits):
            value = f.binary("fadd", value, f.get(self._cell(i64(split), total, local, row), "float"))
        return value

    @contextmanager
    def _cells(self, s: Scalars, kernel: Kernel, first: Value, rows: Rows) -> Iterator[tuple[Value, Value, Value]]:
        """A loop over this thread's cells of a pass; neighbouring threads have neighbouring units. Yields the unit and
        the row of a cell, and whether it is this thread's first, with the indices of the cell's point in a kernel over
        the same points."""
        f, g = self.function, self.geometry
        cells, threads = i64(g.padded * g.rows), i64(self.place.threads)
        with f.loop(self.place.thread, cells, threads, "cell", unroll=False) as (cell, _), s.scope({}):
            exists, local, row = self._cell_of(cell, first, rows)
            with f.when(exists):
                is_first = f.compare("icmp eq", f.binary("add nsw", cell, first), self.place.thread)
                indices = {**self.unit(local), **self.row(f.binary("add nsw", first, row), rows)}
                with s.scope(self.renamed(kernel, indices)):
                    yield local, row, is_first

    def _cell_of(self, cell: Value, first: Value, rows: Rows) -> tuple[Value, Value, Value]:
        """A cell of the pass that begins at row `first`, by its number: whether it exists, its unit in the CTA, and its
        row in the pass."""
        f, g = self.function, self.geometry
        local, row = f.binary("urem", cell, i64(g.padded)), f.binary("udiv", cell, i64(g.padded))
        conditions = [
            f.compare("icmp slt", self.number(local), i64(g.units)),
            f.compare("icmp slt", f.binary("add nsw", first, row), rows.count),
            f.compare("icmp slt", local, i64(g.per_cta)),
        ]
        return f.every(conditions), local, row
