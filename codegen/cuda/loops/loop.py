"""A loop as one persistent kernel: all steps in one launch, which wait where a step needs the one before.

In: a `LoopUnit` (`graphc.codegen.cuda.units`) and one of its versions. Out: the code of its device function. A group of
CTAs computes a slice of the loop's points from the first step to the last, and meets at the unit's barriers, or tells
in rounds what others need. Groups never wait for each other. How many slices there are comes with the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import Part, Place, place
from graphc.codegen.cuda.kernel.points import compute_points
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.all_gather import AllGather, ClusterAllGather, MemoryAllGather
from graphc.codegen.cuda.loops.barriers import Kind, after_counters, barrier, counter_of
from graphc.codegen.cuda.loops.exchanges import BARRIER_BYTES, WORD_BYTES, Exchange
from graphc.codegen.cuda.loops.geometry import Geometry
from graphc.codegen.cuda.loops.loop_unit import LoopUnit, counters_value, parts_value, steps_around
from graphc.codegen.cuda.loops.mirror import Mirrored, near_loads
from graphc.codegen.cuda.loops.mirror_fill import fill
from graphc.codegen.cuda.loops.mma_tile import MmaGeometry, MmaTile
from graphc.codegen.cuda.loops.prefetch import FirstCell, Prefetch, PrefetchRegisters, prefetches
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.cuda.loops.thread_mapping import cells_of
from graphc.codegen.cuda.loops.tile import Tile
from graphc.codegen.cuda.loops.versions import Version
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.program import Kernel, Load, Program, Ring, Statement, kernels

__all__ = ["LoopEmitter"]


class LoopEmitter:
    """Writes one persistent kernel."""

    def __init__(
        self, function: DeviceFunction, unit: LoopUnit, version: Version, program: Program, arch: Arch
    ) -> None:
        self.function = function
        self.unit = unit
        self.version = version
        self.program = program
        self.target, self.sms = arch.target, arch.sms
        self.elementary: set[tuple[str, str, int]] = set()
        self.tiles: dict[str, Tile | MmaTile] = {}
        self.mirrors: dict[str, Mirrored] = {}
        self.tellers: dict[Exchange, AllGather] = {}
        self.first_cells: dict[str, FirstCell] = {}
        self.foreseen = self._foreseen()
        self.kept = PrefetchRegisters(function, self.foreseen, program, version.waits_briefly)
        self.later: list[tuple[str, Value]] = []  # the index of the innermost loop, one step later and more
        self.time = i64(0)  # the steps before this one

    def emit(self) -> None:
        f = self.function
        cta, ctas = f.wide(f.register("ctaid.x")), i64(self.version.ctas)
        group, rank = f.binary("udiv", cta, ctas), f.binary("urem", cta, ctas)
        self.counter = i64(0)
        if self.version.kind == "grid":
            self.counter = counter_of(f, counters_value(), group)
        self.place = place(f, self.unit.threads, rank, ctas)
        self.parts = self._parts(group)
        self._load_operands()
        self._fetch_first()
        self.mirrors = self._mirrors(group)
        for teller in self.tellers.values():
            teller.begin()
        if self.mirrors:  # all have begun, and cleared what others will store to
            barrier(f, self._stored_to_by_others, self.place, self.counter)
        self._statement(self.unit.loop, steps_around(self.unit.around))
        self._end()

    @property
    def _stored_to_by_others(self) -> Kind:
        """Whose shared memory threads of other CTAs store to: over the grid, nobody's."""
        return "cta" if self.version.kind == "grid" else self.version.kind

    def _end(self) -> None:
        """None ends while others may still store to its memory, or read what it has told."""
        f, last = self.function, self._scalars(None, {}).value(self.unit.loop.extent)
        for round, teller in self.tellers.items():
            if round.wraps and self.version.kind == "cluster":
                with self._taking_part(round):
                    teller.receive(f.binary("sub nsw", last, i64(1)), i64(0))
        if self.mirrors:
            self._meet()
        for round, teller in self.tellers.items():
            with self._taking_part(round):
                teller.end()

    @contextmanager
    def _taking_part(self, round: Exchange) -> Iterator[None]:
        """For the CTAs that tell and hear."""
        if round.ctas == self.version.ctas:
            yield
            return
        with self.function.when(self.function.compare("icmp slt", self.place.cta, i64(round.ctas))):
            yield

    def _meet(self) -> None:
        """All threads of the group wait for each other."""
        barrier(self.function, self.version.kind, self.place, self.counter)

    def _load_operands(self) -> None:
        """What products read in every step comes onto the chip before the first."""
        for kernel in kernels((self.unit.loop,)):
            if kernel.name in self.version.tiles:
                product, geometry = self.version.tiles[kernel.name]
                tile = self._tile(kernel, product, geometry)
                scalars = self._scalars(kernel, {})
                tile.load(scalars)
                self.elementary |= scalars.functions.elementary
                self.tiles[kernel.name] = tile
                self.first_cells[kernel.name] = tile.first_cell(scalars)

    # What is there before it is needed.

    def _foreseen(self) -> tuple[Prefetch, ...]:
        """None where products read the state from memory: what they read ahead takes the registers."""
        unit, version = self.unit, self.version
        if not version.mirrors:
            return ()
        tiles = {name: tile for name, (_, tile) in version.tiles.items()}
        products = {name: product for name, (product, _) in version.tiles.items()}
        cells = cells_of(unit.loop, products, tiles, unit.visited, unit.slicings)
        waits = {round.before for round in version.exchanges} if version.exchanges else unit.barriers
        return prefetches(unit.loop, cells, waits, self.program)

    def _fetch_first(self) -> None:
        """Before the first step, if there is one: what it finds in registers, or on its way."""
        f, loop = self.function, self.unit.loop
        extent = self._scalars(None, {}).value(loop.extent)
        first = f.binary("sub nsw", extent, i64(1)) if loop.reverse else i64(0)
        wanted = [x for x in self.foreseen if x.is_of_the_step_before or x in self.kept.coming]
        with f.when(f.compare("icmp sgt", extent, i64(0))):
            self._at_first_cells(self.kept.begin, wanted, {**steps_around(self.unit.around), loop.index: first})

    def _fetch_before(self, kernel: Kernel, indices: Mapping[str, Value]) -> None:
        """Before a wait: what kernels behind it take in this step or the next, and those before it in the next."""
        own = [x for x in self.foreseen if x.wait == kernel.name]
        index, following = self.later[0]
        for ahead, step in enumerate((indices[index], following)):
            wanted = [x for x in own if self.kept.steps_ahead(x) == ahead]
            self._at_first_cells(self.kept.fetch, wanted, {**indices, index: step})

    def _at_first_cells(
        self,
        make: Callable[[Scalars, Sequence[Prefetch]], None],
        wanted: Sequence[Prefetch],
        indices: Mapping[str, Value],
    ) -> None:
        by_name = {kernel.name: kernel for kernel in kernels((self.unit.loop,))}
        for name in dict.fromkeys(x.kernel for x in wanted):
            product, kernel = self.unit.visited.get(name, name), by_name[name]
            cell, scalars = self.first_cells[product], self._scalars(kernel, indices)
            with (
                self.function.when(cell.exists),
                scalars.scope(self.tiles[product].renamed(kernel, cell.indices)),
            ):
                make(scalars, [x for x in wanted if x.kernel == name])

    def _mirrors(self, group: Value) -> dict[str, Mirrored]:
        """Those of a round lie together, and behind them the others, each alone."""
        f, made = self.function, {}
        base = f.dynamic(self.version.shared)
        words = self._words(group)
        for k, (round, together) in enumerate(self.version.together):
            laid = []
            for mirror in together:
                mirrored = Mirrored(f, mirror, self.parts, self.version.ctas, base, len(together))
                mirrored.clear(self.place.thread, self.place.threads)
                if mirror.filled:
                    fill(self._scalars(None, {}), mirrored, self.place)
                base = f.offset(base, "i8", mirrored.step_bytes)
                laid.append(mirrored)
                made[mirror.buffer.name] = mirrored
            base = f.offset(laid[0].base, "i8", f.binary("mul nsw", laid[0].from_step_to_step, i64(2)))
            if round is not None and words is not None:
                teller = MemoryAllGather(f, round, laid, self.place, words)
                words = teller.after
                self.tellers[round] = teller
            elif round is not None:
                at = self.version.shared - BARRIER_BYTES * (len(self.version.exchanges) - k)
                barriers = f.dynamic(at)
                self.tellers[round] = ClusterAllGather(f, round, laid, self.place, barriers)
        return made

    def _words(self, group: Value) -> Value | None:
        """Where the group's words lie in global memory, if it tells through them."""
        f, version = self.function, self.version
        if version.kind != "grid" or not version.exchanges:
            return None
        scalars, most = self._scalars(None, {}), i64(0)
        for round in version.exchanges:
            mirror, lines = round.mirrors[0], i64(len(round.mirrors))
            for k in mirror.rows:
                extent = mirror.buffer.dims[k]
                assert not isinstance(extent, Ring)
                length = scalars.value(extent)
                if k in mirror.sliced:
                    count = parts_value(mirror.sliced[k])
                    above = f.binary("add nsw", length, f.binary("sub nsw", count, i64(1)))
                    length = f.binary("udiv", above, count)
                lines = f.binary("mul nsw", length, lines)
            of_line = 2 * WORD_BYTES * round.ctas * round.words_of_line
            most = f.binary("add nsw", most, f.binary("mul nsw", lines, i64(of_line)))
        return f.offset(after_counters(f, counters_value(), self.sms), "i8", f.binary("mul nsw", group, most))

    def _tile(self, kernel: Kernel, product: Product, geometry: Geometry | MmaGeometry) -> Tile | MmaTile:
        f, where, fragments = self.function, self._place_of(kernel), self.version.fragments
        if isinstance(geometry, MmaGeometry) and fragments is not None:
            return MmaTile(f, kernel, product, geometry, fragments, where)
        assert isinstance(geometry, Geometry)
        return Tile(f, kernel, product, geometry, where)

    def _parts(self, group: Value) -> list[Part]:
        """This group's part of each of the loop's slicings."""
        f, parts = self.function, []
        scalars = self._scalars(None, {})
        for k, slicing in enumerate(self.unit.slicings):
            count, length = parts_value(k), scalars.value(slicing.extent)
            piece, group = f.binary("urem", group, count), f.binary("udiv", group, count)
            first = f.binary("udiv", f.binary("mul nsw", piece, length), count)
            after = f.binary("mul nsw", f.binary("add nsw", piece, i64(1)), length)
            parts.append((first, f.binary("udiv", after, count)))
        return parts

    def _scalars(self, kernel: Kernel | None, indices: Mapping[str, Value]) -> Scalars:
        access = Access(kernel or Kernel("", (), (), ()), self.program)
        if self.unit.loop.index not in indices:  # before the first step
            return Scalars(self.function, access, self.target, {**steps_around(self.unit.around), **indices})
        near: set[Load] = set()
        if kernel is not None and kernel.name in self.tiles:
            product, _ = self.version.tiles[kernel.name]
            near = near_loads(kernel, product, self.version.mirrors, self.program)
        alone = bool(self.version.exchanges)
        later = self.later[-1] if self.later else None
        return Scalars(self.function, access, self.target, indices, later, self.mirrors, near, alone)

    def _statement(self, statement: Statement, indices: Mapping[str, Value]) -> None:
        if isinstance(statement, Kernel):
            self._kernel(statement, indices)
            return
        f, scalars = self.function, self._scalars(None, indices)
        extent = scalars.value(statement.extent)
        with f.loop(i64(0), extent, i64(1), "step", unroll=False) as (count, _):
            last = f.binary("sub nsw", extent, i64(1))
            ahead = range(1, 4 if self.kept.early else 3)
            later = (f.intrinsic("smin", f.binary("add nsw", count, i64(k)), last) for k in ahead)
            steps = [count, *later]
            if statement.reverse:
                steps = [f.binary("sub nsw", last, step) for step in steps]
            around, self.time = self.later, count
            self.later = [(statement.index, step) for step in steps[1:]]
            for inner in statement.body:
                self._statement(inner, {**indices, statement.index: steps[0]})
            self.later = around

    def _kernel(self, kernel: Kernel, indices: Mapping[str, Value]) -> None:
        scalars = self._scalars(kernel, indices)
        self._fetch_before(kernel, indices)
        if self.tellers:
            self._hear(kernel, scalars)
        elif kernel.name in self.unit.barriers:
            self._meet()
        if kernel.name in self.tiles:
            met = bool(self.tellers) or kernel.name in self.unit.barriers  # whoever tells has met before
            self.tiles[kernel.name].compute(scalars, self.kept, met)
        elif kernel.name in self.unit.visited:
            self.tiles[self.unit.visited[kernel.name]].visit(scalars, kernel, self.kept)
        else:
            compute_points(scalars, kernel, self.unit.lanes[kernel.name], self._place_of(kernel))
        self.elementary |= scalars.functions.elementary
        self._tell(kernel, scalars)

    def _hear(self, kernel: Kernel, scalars: Scalars) -> None:
        """Wait for what others tell before a kernel: in this step, or the one before."""
        f = self.function
        for round, teller in self.tellers.items():
            if round.before == kernel.name:
                slot = self._slot(round, scalars)
                with self._taking_part(round):
                    if not round.wraps:
                        teller.receive(self.time, slot)
                        continue
                    with f.when(f.compare("icmp sgt", self.time, i64(0))):
                        before = f.binary("sub nsw", self.time, i64(1))
                        teller.receive(before, f.binary("xor", slot, i64(1)))

    def _tell(self, kernel: Kernel, scalars: Scalars) -> None:
        """Tell what a kernel has stored last."""
        rounds = [round for round in self.tellers if round.after == kernel.name]
        if rounds:
            self.function.sync_cta()
        for round in rounds:
            with self._taking_part(round):
                self.tellers[round].send(self.time, self._slot(round, scalars))

    def _slot(self, round: Exchange, scalars: Scalars) -> Value:
        """Where in its mirrors lies what this step tells."""
        return self.function.binary("and", scalars.value(round.mirrors[0].stored_at), i64(1))

    def _place_of(self, kernel: Kernel) -> Place:
        own = {s.dims[kernel.name]: part for s, part in zip(self.unit.slicings, self.parts, strict=True)}
        return replace(self.place, parts=own)
