"""What the CUDA back end made of a graph, as data and in words.

In: a program's code and the sizes to estimate for. Out: for each loop the groupings that the cost model compared, with
counted bytes and operations; for each other kernel how its points are computed. All of it is read from the code's
units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.cuda.cost_model import Grouping, Step, groupings, step_of
from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.mma import ROWS
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.mma_geometry import MmaGeometry
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.roofline import count
from graphc.codegen.cuda.units import Unit
from graphc.codegen.lengths import evaluate
from graphc.codegen.memory.arena import MemoryUse, memory_use, readable
from graphc.codegen.program import kernels
from graphc.reporting.phrases import at_lengths, many

__all__ = ["CudaExplanation", "Limited", "LoopExplanation", "PointwiseExplanation", "explain_cuda"]

_WORDS = {"cta": "inside one SM", "cluster": "inside a cluster", "grid": "over the grid"}
_THROUGH = {
    "cta": " through shared memory",
    "cluster": " through distributed shared memory",
    "grid": " through words of global memory",
}
_HOMES = {"registers": "in registers", "shared": "in shared memory", "memory": "not on the chip"}


@dataclass(frozen=True, slots=True)
class LoopExplanation:
    """A loop: its kernels, the dims along which it falls apart into slices, the work of one step, and the groupings,
    the chosen one first. A loop that runs in every chunk has several `launches`; all else is of one launch."""

    name: str
    kernels: tuple[str, ...]
    slices: tuple[str, ...]
    step: Step
    ways: tuple[Grouping, ...]
    launches: int

    def lines(self) -> Iterator[str]:
        one = "one persistent kernel" + _times(self.launches)
        yield f"loop {self.name}: {one}; computes {', '.join(self.kernels)}"
        yield f"  {self._independence()}"
        yield f"  a step: {self.step.flops:,} operations, {readable(self.step.stationary)} that every step reads again"
        yield f"  {many(self.step.barriers, 'barrier')} a step; {self.step.steps:,} steps"
        chosen, *others = self.ways
        whole = "in all" if self.launches == 1 else "a launch"
        yield f"  chosen: {_way(chosen)} {whole}"
        for line in _operands(chosen):
            yield f"    {line}"
        for other in others:
            yield f"  not chosen: {_way(other)} {whole}"

    def _independence(self) -> str:
        if not self.slices:
            return "does not fall apart: some step needs all of the one before"
        return f"falls apart along {' and '.join(self.slices)}: slices never wait for each other"


@dataclass(frozen=True, slots=True)
class PointwiseExplanation:
    """A loop of which each thread computes one of the `points` in all `steps`, or in one of the `parts` of them: its
    kernels, the dims of the points, whether it is a linear recurrence, the steps whose operands are loaded `together`,
    and how often it runs (`launches`), in so many `seconds` each by count."""

    name: str
    kernels: tuple[str, ...]
    slices: tuple[str, ...]
    points: int
    steps: int
    is_linear: bool
    parts: int
    together: int
    seconds: float
    launches: int

    def lines(self) -> Iterator[str]:
        one = "one thread for each point" + _times(self.launches)
        yield f"loop {self.name}: {one}; computes {', '.join(self.kernels)}"
        if self.slices:
            yield f"  falls apart along {' and '.join(self.slices)}, into points: none of them needs another"
        yield f"  {self.points:,} points, each {self.steps:,} steps; its states stay in registers"
        if self.is_linear:
            yield f"  a linear recurrence: {self._in_parts()}"
        together = "operands of a step are" if self.together == 1 else f"operands of {self.together} steps are"
        whole = "in all" if self.launches == 1 else "a launch"
        yield f"  {together} loaded together; about {1e3 * self.seconds:.3g} ms {whole}"

    def _in_parts(self) -> str:
        if self.parts == 1:
            return "its steps are not in parts, since its points keep the chip busy, or it is short"
        return f"in {self.parts} parts, computed at the same time, once for what they come to and once to store it"


@dataclass(frozen=True, slots=True)
class Limited:
    """What a limit on memory leads to: the memory that a call takes then; and, for each axis that it goes through in
    chunks, how many there are, and how many steps each has except the last."""

    limit: int
    use: MemoryUse
    chunks: Mapping[str, tuple[int, int]]

    def __str__(self) -> str:
        taken = f"memory: {readable(self.use.peak)} of {readable(self.limit)}"
        parts = [f"in {count} chunks of {steps} steps of {axis}" for axis, (count, steps) in self.chunks.items()]
        return f"{taken}, {' and '.join(parts) or 'in one piece'}"


@dataclass(frozen=True, slots=True)
class CudaExplanation:
    """The explanation of a graph; `str` gives it in words. Times are estimates of the cost model for these
    `lengths`."""

    graph: str
    arch: str
    lengths: Mapping[str, int]
    loops: tuple[LoopExplanation | PointwiseExplanation, ...]
    kernels: tuple[str, ...]
    limited: Limited | None

    def __str__(self) -> str:
        sizes = at_lengths(self.lengths)
        lines = [f"{self.graph} on {self.arch}" + (f"; estimates for {sizes}" if sizes else "")]
        lines += [] if self.limited is None else [str(self.limited)]
        for loop in self.loops:
            lines += ["", *loop.lines()]
        lines += ["", "outside of loops", *(f"  {kernel}" for kernel in self.kernels)] if self.kernels else []
        return "\n".join(lines) + "\n"


def explain_cuda(code: CudaCode, sizes: Mapping[str, int], limit: int | None = None) -> CudaExplanation:
    """The explanation of some code. `sizes`: the lengths of the axes, and those of chunks if the code has them."""
    loops = tuple(_loop(unit, code, sizes) for unit in code.units if not isinstance(unit, PointsUnit))
    others = tuple(_kernel(unit, sizes) for unit in code.units if isinstance(unit, PointsUnit))
    chunked = [name for name in sizes if f"{name}.chunks" in sizes]
    chunks = {name: (sizes[f"{name}.chunks"], sizes[f"{name}.chunk"]) for name in chunked}
    lengths = {name: length for name, length in sizes.items() if not name.endswith((".chunk", ".chunks"))}
    limited = None if limit is None else Limited(limit, memory_use(code.program, sizes), chunks)
    return CudaExplanation(code.program.name, code.arch.name, lengths, loops, others, limited)


def _loop(
    unit: LoopUnit | PointwiseUnit, code: CudaCode, sizes: Mapping[str, int]
) -> LoopExplanation | PointwiseExplanation:
    inside = list(kernels((unit.loop,)))
    names, slices = tuple(k.name for k in inside), tuple(s.dims[inside[0].name] for s in unit.slicings)
    if isinstance(unit, PointwiseUnit):
        points, steps = unit.points(sizes), evaluate(unit.loop.extent, sizes)
        seconds, launches = count(unit, code, sizes).seconds, _launches(unit, sizes)
        parts, is_linear = unit.parts(sizes, code.arch), unit.linear is not None
        return PointwiseExplanation(
            unit.loop.index, names, slices, points, steps, is_linear, parts, unit.together, seconds, launches
        )
    best: dict[str, Grouping] = {}
    for way in groupings(unit, code.program, code.arch, sizes):
        best.setdefault(unit.symbol_of(way.version), way)
    return LoopExplanation(
        unit.loop.index,
        names,
        slices,
        step_of(unit, code.program, sizes),
        tuple(best.values()),
        _launches(unit, sizes),
    )


def _launches(unit: Unit, sizes: Mapping[str, int]) -> int:
    """How often a unit runs."""
    return math.prod(evaluate(loop.extent, sizes) for loop in unit.around)


def _times(launches: int) -> str:
    return "" if launches == 1 else f", {launches} times"


def _way(way: Grouping) -> str:
    version = way.version
    off_chip = "" if version.on_chip or not version.products else ", operands do not fit on the chip"
    times = f"about {1e6 * way.step:.2f} µs a step, at least {1e6 * way.waiting:.2f} of it waiting"
    times += f"; {1e3 * way.seconds:.3g} ms"
    where = _WORDS[version.kind] + (_THROUGH[version.kind] if version.mirrors else "")
    where += " without barriers" if version.exchanges else ""
    return f"exchange {where}, {many(way.groups, 'group')} of {many(version.ctas, 'CTA')}{off_chip}: {times}"


def _operands(way: Grouping) -> Iterator[str]:
    for name, geometry in way.version.geometries.items():
        size = readable(geometry.bytes)
        tall = geometry.tall * (ROWS if isinstance(geometry, MmaGeometry) else 1)
        tile = f"tiles of {tall} × {geometry.rows}, {len(way.version.products[name].sums)} sums each"
        yield f"{name}: {size} of operands a CTA {_HOMES[geometry.home]}; {tile}"


def _kernel(unit: PointsUnit, sizes: Mapping[str, int]) -> str:
    return f"{unit.kernel.name}: {_how(unit)}{_times(_launches(unit, sizes))}"


def _how(unit: PointsUnit) -> str:
    if unit.product is not None:
        factors, block = unit.product
        by = f"{block.height} × {block.width}, {len(factors.reduce.sums)} sums each, {block.depth} terms at a time"
        return f"tiles of {by}, through shared memory"
    if unit.search is not None:
        return f"a warp searches the terms of each {unit.search.choice.row.index}"
    by = {1: "one thread", WARP: "a warp"}.get(unit.lanes, "a CTA")
    return f"{by} for each point"
