"""A loop as one persistent kernel: all steps in one launch, with barriers where a step needs the one before.

In: a `LoopUnit` (`graphc.codegen.cuda.units`) and one of its versions. Out: the code of its device function. A group of
CTAs computes a slice of the loop's points from the first step to the last and meets at the unit's barriers; groups
never wait for each other. How many slices there are comes with the launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.device import SHARED, DeviceFunction
from graphc.codegen.cuda.filling import fill
from graphc.codegen.cuda.geometry import Geometry
from graphc.codegen.cuda.held import DYNAMIC
from graphc.codegen.cuda.meeting import counter_of, meet
from graphc.codegen.cuda.mirror import Mirrored
from graphc.codegen.cuda.mma_tile import MmaGeometry, MmaTile
from graphc.codegen.cuda.place import Part, Place, place
from graphc.codegen.cuda.points import compute_points
from graphc.codegen.cuda.products import Product
from graphc.codegen.cuda.scalars import Scalars
from graphc.codegen.cuda.tile import Tile
from graphc.codegen.cuda.units import LoopUnit, counters_value, parts_value, unit_steps
from graphc.codegen.cuda.versions import Version
from graphc.codegen.llvm import Value, i64
from graphc.codegen.program import Kernel, Program, Statement, kernels
from graphc.codegen.target import Target

__all__ = ["LoopEmitter"]


class LoopEmitter:
    """Writes one persistent kernel."""

    def __init__(
        self, function: DeviceFunction, unit: LoopUnit, version: Version, program: Program, target: Target
    ) -> None:
        self.function = function
        self.unit = unit
        self.version = version
        self.program = program
        self.target = target
        self.elementary: set[tuple[str, str, int]] = set()
        self.tiles: dict[str, Tile | MmaTile] = {}
        self.mirrors: dict[str, Mirrored] = {}
        self.following: tuple[str, Value] | None = None

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
        self.mirrors = self._mirrors()
        if self.mirrors:  # all have begun, and cleared what others will store to
            self._meet()
        self._statement(self.unit.loop, unit_steps(self.unit))
        if self.mirrors:  # none ends while others may still store to its memory
            self._meet()

    def _meet(self) -> None:
        """All threads of the group wait for each other."""
        meet(self.function, self.version.kind, self.place, self.counter)

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

    def _mirrors(self) -> dict[str, Mirrored]:
        f, made = self.function, {}
        base = f.offset(Value(f"@{DYNAMIC}", SHARED), "i8", i64(self.version.shared))
        for mirror in self.version.mirrors:
            mirrored = made[mirror.buffer.name] = Mirrored(f, mirror, self.parts, self.version.ctas, base)
            mirrored.clear(self.place.thread, self.place.threads)
            if mirror.filled:
                fill(self._scalars(None, {}), mirrored, self.place)
            base = mirrored.end
        return made

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
            return Scalars(self.function, access, self.target, {**unit_steps(self.unit), **indices})
        near = kernel.name if kernel is not None and kernel.name in self.tiles else None
        return Scalars(self.function, access, self.target, indices, self.following, self.mirrors, near)

    def _statement(self, statement: Statement, indices: Mapping[str, Value]) -> None:
        if isinstance(statement, Kernel):
            self._kernel(statement, indices)
            return
        f, scalars = self.function, self._scalars(None, indices)
        extent = scalars.value(statement.extent)
        with f.loop(i64(0), extent, i64(1), "step", unroll=False) as (count, _):
            last = f.binary("sub nsw", extent, i64(1))
            step, following = count, f.binary("add nsw", count, i64(1))
            following = f.intrinsic("smin", following, last)
            if statement.reverse:
                step, following = (f.binary("sub nsw", last, value) for value in (step, following))
            around, self.following = self.following, (statement.index, following)
            for inner in statement.body:
                self._statement(inner, {**indices, statement.index: step})
            self.following = around

    def _kernel(self, kernel: Kernel, indices: Mapping[str, Value]) -> None:
        if kernel.name in self.unit.barriers:
            self._meet()
        scalars = self._scalars(kernel, indices)
        if kernel.name in self.tiles:
            self.tiles[kernel.name].compute(scalars)
        elif kernel.name in self.unit.visited:
            self.tiles[self.unit.visited[kernel.name]].visit(scalars, kernel)
        else:
            compute_points(scalars, kernel, self.unit.lanes[kernel.name], self._place_of(kernel))
        self.elementary |= scalars.functions.elementary

    def _place_of(self, kernel: Kernel) -> Place:
        own = {s.dims[kernel.name]: part for s, part in zip(self.unit.slicings, self.parts, strict=True)}
        return replace(self.place, parts=own)
