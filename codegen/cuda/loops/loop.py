"""A loop as one persistent kernel: one launch computes all steps.

In: a `LoopUnit` (`graphc.codegen.cuda.units`) and one of its versions. Out: the code of its device function. A group of
CTAs computes a slice of the loop's points from the first step to the last. Its CTAs wait for each other at the unit's
barriers, or send each other in exchanges what they need. Groups never wait for each other. The number of slices comes
with the launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import Part, Place, place
from graphc.codegen.cuda.kernel.parameters import counters_value, parts_value, steps_around
from graphc.codegen.cuda.kernel.points import compute_points
from graphc.codegen.cuda.kernel.scalars import NO_KERNEL, Scalars
from graphc.codegen.cuda.loops.all_gather import AllGather, ClusterAllGather, MemoryAllGather
from graphc.codegen.cuda.loops.barriers import Kind, after_counters, barrier, counter_of
from graphc.codegen.cuda.loops.deferred_stores import DeferredStores
from graphc.codegen.cuda.loops.exchanges import BARRIER_BYTES, WORD_BYTES, Exchange
from graphc.codegen.cuda.loops.geometry import Geometry
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.mirror import near_loads
from graphc.codegen.cuda.loops.mirrored import Mirrored
from graphc.codegen.cuda.loops.mma_geometry import MmaGeometry
from graphc.codegen.cuda.loops.mma_tile import MmaTile
from graphc.codegen.cuda.loops.prefetch import FirstCell, Prefetch, PrefetchRegisters, prefetches
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
        self.sms = arch.sms
        self.tiles: dict[str, Tile | MmaTile] = {}
        self.mirrors: dict[str, Mirrored] = {}
        self.gathers: dict[Exchange, AllGather] = {}
        self.first_cells: dict[str, FirstCell] = {}
        self.deferred = DeferredStores(function)
        self.prefetches = self._prefetches()
        self.prefetched = PrefetchRegisters(function, self.prefetches, program, version.waits_briefly)
        self.later: list[tuple[str, Value]] = []  # the innermost loop's index and its value, 1, 2 (and 3) steps later
        self.time = i64(0)  # the steps before this one
        cta, ctas = function.wide(function.register("ctaid.x")), i64(version.ctas)
        self.group, rank = function.binary("udiv", cta, ctas), function.binary("urem", cta, ctas)
        is_grid = version.kind == "grid"
        self.counter = counter_of(function, counters_value(), self.group) if is_grid else i64(0)  # of the barriers
        self.place = place(function, unit.threads, rank, ctas)
        self.parts = self._parts(self.group)  # the group's part of each slicing

    def emit(self) -> None:
        """Append the code of all steps."""
        f = self.function
        self._load_operands()
        self._prefetch_first()
        self.mirrors = self._mirrors()
        for gather in self.gathers.values():
            gather.begin()
        if self.mirrors:  # wait until all CTAs have cleared what others will store to
            barrier(f, self._stored_to_by_others, self.place, self.counter)
        self._statement(self.unit.loop, steps_around(self.unit.around))
        self._end()

    @property
    def _stored_to_by_others(self) -> Kind:
        """The kind of group inside which threads store to the shared memory of others; over the grid they do not."""
        return "cta" if self.version.kind == "grid" else self.version.kind

    def _end(self) -> None:
        """No CTA ends while others may still store to its shared memory, or read what it has sent."""
        f, last = self.function, self._scalars(None, {}).value(self.unit.loop.extent)
        for exchange, gather in self.gathers.items():
            if exchange.wraps and self.version.kind == "cluster":
                with self._participants(exchange):
                    gather.receive(f.binary("sub nsw", last, i64(1)), i64(0))
        if self.mirrors:
            self._barrier()
        for exchange, gather in self.gathers.items():
            with self._participants(exchange):
                gather.end()

    @contextmanager
    def _participants(self, exchange: Exchange) -> Iterator[None]:
        """A branch for the CTAs that take part in an exchange."""
        if exchange.ctas == self.version.ctas:
            yield
            return
        with self.function.when(self.function.compare("icmp slt", self.place.cta, i64(exchange.ctas))):
            yield

    def _barrier(self) -> None:
        """All threads of the group wait for each other."""
        barrier(self.function, self.version.kind, self.place, self.counter)

    def _load_operands(self) -> None:
        """Load the stationary operands of products onto the chip, before the first step."""
        for kernel in kernels((self.unit.loop,)):
            if kernel.name in self.version.products:
                tile = self._tile(kernel)
                scalars = self._scalars(kernel, {})
                tile.load(scalars)
                self.tiles[kernel.name] = tile
                self.first_cells[kernel.name] = tile.first_cell(scalars)

    # Prefetching.

    def _prefetches(self) -> tuple[Prefetch, ...]:
        """The prefetched loads. There are none without mirrors: then products read the state from memory, and what they
        read ahead needs the registers."""
        unit, version = self.unit, self.version
        if not version.mirrors:
            return ()
        cells = cells_of(unit.loop, version.products, version.geometries, unit.epilogues, unit.slicings)
        waits = {exchange.before for exchange in version.exchanges} if version.exchanges else unit.barriers
        return prefetches(unit.loop, cells, waits, self.program)

    def _prefetch_first(self) -> None:
        """Before the first step, if there is one: load what it is to find in registers."""
        f, loop = self.function, self.unit.loop
        extent = self._scalars(None, {}).value(loop.extent)
        first = f.binary("sub nsw", extent, i64(1)) if loop.reverse else i64(0)
        wanted = [x for x in self.prefetches if x.is_needed_at_start or x in self.prefetched.in_flight]
        with f.when(f.compare("icmp sgt", extent, i64(0))):
            self._at_first_cells(self.prefetched.begin, wanted, {**steps_around(self.unit.around), loop.index: first})

    def _prefetch_before(self, kernel: Kernel, indices: Mapping[str, Value]) -> None:
        """Before the wait of a kernel: begin the loads that are ahead of it, for this step and for the next."""
        own = [x for x in self.prefetches if x.wait == kernel.name]
        index, following = self.later[0]
        for ahead, step in enumerate((indices[index], following)):
            wanted = [x for x in own if self.prefetched.steps_ahead(x) == ahead]
            self._at_first_cells(self.prefetched.fetch, wanted, {**indices, index: step})

    def _at_first_cells(
        self,
        make: Callable[[Scalars, Kernel, Sequence[Prefetch]], None],
        wanted: Sequence[Prefetch],
        indices: Mapping[str, Value],
    ) -> None:
        """Emit loads at this thread's first cell of each kernel, if it has one."""
        for name in dict.fromkeys(x.kernel for x in wanted):
            with self._at_first_cell(name, indices) as (scalars, kernel):
                make(scalars, kernel, [x for x in wanted if x.kernel == name])

    @contextmanager
    def _at_first_cell(self, name: str, indices: Mapping[str, Value]) -> Iterator[tuple[Scalars, Kernel]]:
        """A branch for the threads that have a cell of a kernel, with the indices of their first."""
        kernel = next(kernel for kernel in kernels((self.unit.loop,)) if kernel.name == name)
        product = self.unit.epilogues.get(name, name)
        cell, scalars = self.first_cells[product], self._scalars(kernel, indices)
        with self.function.when(cell.exists), scalars.scope(self.tiles[product].renamed(kernel, cell.indices)):
            yield scalars, kernel

    def _store_deferred(self, indices: Mapping[str, Value]) -> None:
        """Make the stores that have waited until something was sent."""
        for name in self.deferred.kernels():
            tile = self.tiles[self.unit.epilogues.get(name, name)]
            assert isinstance(tile, Tile)
            alone = tile.is_alone(self._scalars(tile.kernel, indices))
            with self.function.when(alone), self._at_first_cell(name, indices) as (scalars, _):
                self.deferred.make(scalars, name)

    def _mirrors(self) -> dict[str, Mirrored]:
        """The mirrors by buffer, cleared or filled. Those of an exchange lie side by side. Gathers are made, too."""
        f, made = self.function, {}
        base = f.dynamic(self.version.shared)
        words = self._words()
        for k, (exchange, together) in enumerate(self.version.together):
            laid = []
            for mirror in together:
                mirrored = Mirrored(f, mirror, self.parts, self.version.ctas, base, len(together))
                mirrored.clear(self.place)
                if mirror.filled:
                    mirrored.fill(self._scalars(None, {}), self.place)
                base = f.offset(base, "i8", mirrored.step_bytes)
                laid.append(mirrored)
                made[mirror.buffer.name] = mirrored
            base = f.offset(laid[0].base, "i8", f.binary("mul nsw", laid[0].from_step_to_step, i64(2)))
            if exchange is not None and words is not None:
                gather = MemoryAllGather(f, exchange, laid, self.place, words)
                words = gather.after
                self.gathers[exchange] = gather
            elif exchange is not None:
                at = self.version.shared - BARRIER_BYTES * (len(self.version.exchanges) - k)
                barriers = f.dynamic(at)
                self.gathers[exchange] = ClusterAllGather(f, exchange, laid, self.place, barriers)
        return made

    def _words(self) -> Value | None:
        """The address of the group's words in global memory; None if it sends none."""
        f, version = self.function, self.version
        if not version.sends_words:
            return None
        scalars, most = self._scalars(None, {}), i64(0)
        for exchange in version.exchanges:
            mirror, lines = exchange.mirrors[0], i64(len(exchange.mirrors))
            for k in mirror.rows:
                extent = mirror.buffer.dims[k]
                assert not isinstance(extent, Ring)
                length = scalars.value(extent)
                if k in mirror.sliced:
                    count = parts_value(mirror.sliced[k])
                    above = f.binary("add nsw", length, f.binary("sub nsw", count, i64(1)))
                    length = f.binary("udiv", above, count)
                lines = f.binary("mul nsw", length, lines)
            of_line = 2 * WORD_BYTES * exchange.ctas * exchange.words_of_line
            most = f.binary("add nsw", most, f.binary("mul nsw", lines, i64(of_line)))
        return f.offset(after_counters(f, counters_value(), self.sms), "i8", f.binary("mul nsw", self.group, most))

    def _tile(self, kernel: Kernel) -> Tile | MmaTile:
        f, where, fragments = self.function, self._place_of(kernel), self.version.fragments
        product, geometry = self.version.products[kernel.name], self.version.geometries[kernel.name]
        if isinstance(geometry, MmaGeometry) and fragments is not None:
            return MmaTile(f, kernel, product, geometry, fragments, where)
        assert isinstance(geometry, Geometry)
        return Tile(f, kernel, product, geometry, where, self.deferred if self.version.exchanges else None)

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
        access = Access(kernel or NO_KERNEL, self.program)
        if self.unit.loop.index not in indices:  # before the first step
            return Scalars(self.function, access, {**steps_around(self.unit.around), **indices})
        near: set[Load] = set()
        if kernel is not None and kernel.name in self.tiles:
            near = near_loads(kernel, self.version.products[kernel.name], self.version.mirrors, self.program)
        alone = bool(self.version.exchanges)
        later = self.later[-1] if self.later else None
        return Scalars(self.function, access, indices, later, self.mirrors, near, alone)

    def _statement(self, statement: Statement, indices: Mapping[str, Value]) -> None:
        if isinstance(statement, Kernel):
            self._kernel(statement, indices)
            return
        f, scalars = self.function, self._scalars(None, indices)
        extent = scalars.value(statement.extent)
        with f.loop(i64(0), extent, i64(1), "step", unroll=False) as (count, _):
            last = f.binary("sub nsw", extent, i64(1))
            ahead = range(1, 4 if self.prefetched.early else 3)
            later = (f.intrinsic("smin", f.binary("add nsw", count, i64(k)), last) for k in ahead)
            steps = [count, *later]
            if statement.reverse:
                steps = [f.binary("sub nsw", last, step) for step in steps]
            around, self.time = self.later, count
            self.later = [(statement.index, step) for step in steps[1:]]
            inside = {**indices, statement.index: steps[0]}
            for inner in statement.body:
                self._statement(inner, inside)
            self._store_deferred(inside)
            self.later = around

    def _kernel(self, kernel: Kernel, indices: Mapping[str, Value]) -> None:
        scalars = self._scalars(kernel, indices)
        if self.deferred.are_touched_by(kernel, self.prefetched.kept_for(kernel)):
            self._store_deferred(indices)
        self._prefetch_before(kernel, indices)
        if self.gathers:
            self._receive(kernel, scalars)
        elif kernel.name in self.unit.barriers:
            self._barrier()
        if kernel.name in self.tiles:
            synced = bool(self.gathers) or kernel.name in self.unit.barriers  # exchanges synchronise the CTA
            self.tiles[kernel.name].compute(scalars, self.prefetched, synced)
        elif kernel.name in self.unit.epilogues:
            self.tiles[self.unit.epilogues[kernel.name]].epilogue(scalars, kernel, self.prefetched)
        else:
            compute_points(scalars, kernel, self.unit.lanes[kernel.name], self._place_of(kernel))
        if self._send(kernel, scalars):
            self._store_deferred(indices)

    def _receive(self, kernel: Kernel, scalars: Scalars) -> None:
        """Before a kernel: wait for what others have sent in this step, or in the one before."""
        f = self.function
        for exchange, gather in self.gathers.items():
            if exchange.before == kernel.name:
                slot = self._slot(exchange, scalars)
                with self._participants(exchange):
                    if not exchange.wraps:
                        gather.receive(self.time, slot)
                        continue
                    with f.when(f.compare("icmp sgt", self.time, i64(0))):
                        before = f.binary("sub nsw", self.time, i64(1))
                        gather.receive(before, f.binary("xor", slot, i64(1)))

    def _send(self, kernel: Kernel, scalars: Scalars) -> bool:
        """After a kernel: send the parts of the exchanges that it has completed. Returns whether there were any."""
        exchanges = [exchange for exchange in self.gathers if exchange.after == kernel.name]
        if exchanges:
            self.function.sync_cta()
        for exchange in exchanges:
            with self._participants(exchange):
                self.gathers[exchange].send(self.time, self._slot(exchange, scalars))
        return bool(exchanges)

    def _slot(self, exchange: Exchange, scalars: Scalars) -> Value:
        """The slot of the mirrors that has the parts of this step."""
        return self.function.binary("and", scalars.value(exchange.mirrors[0].stored_at), i64(1))

    def _place_of(self, kernel: Kernel) -> Place:
        own = {s.dims[kernel.name]: part for s, part in zip(self.unit.slicings, self.parts, strict=True)}
        return replace(self.place, parts=own)
