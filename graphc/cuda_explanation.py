"""What the CUDA back end made of a graph, as data and in words.

In: a program's code and the lengths to estimate for. Out: for each loop the ways to run it that the cost model weighed,
with counted bytes and operations; for each other kernel how its points are computed. All is read off the code's plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.arena import readable
from graphc.codegen.cuda.arch import WARP
from graphc.codegen.cuda.groups import Grouping, Step, groupings, step_of
from graphc.codegen.cuda.mma import ROWS
from graphc.codegen.cuda.mma_tile import MmaGeometry
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.units import LoopUnit, PointsUnit
from graphc.codegen.program import kernels

__all__ = ["CudaExplanation", "LoopExplanation", "explain_cuda"]

_WORDS = {"cta": "inside one SM", "cluster": "inside a cluster", "grid": "over the grid"}
_HOMES = {"registers": "in registers", "shared": "in shared memory", "memory": "not on the chip"}


@dataclass(frozen=True, slots=True)
class LoopExplanation:
    """A loop: its kernels, the dims it falls apart along, what one step does, and the ways to run it, the chosen one
    first, each with where the operands of each product stay."""

    name: str
    kernels: tuple[str, ...]
    slices: tuple[str, ...]
    step: Step
    ways: tuple[Grouping, ...]

    def lines(self) -> Iterator[str]:
        yield f"loop {self.name}: one persistent kernel; computes {', '.join(self.kernels)}"
        yield f"  {self._independence()}"
        yield f"  a step: {self.step.flops:,} operations, {readable(self.step.held)} that every step reads again"
        met = f"{self.step.barriers} barrier{'' if self.step.barriers == 1 else 's'}"
        yield f"  {met} a step; {self.step.steps:,} steps"
        chosen, *others = self.ways
        yield f"  chosen: {_way(chosen)}"
        for line in _operands(chosen):
            yield f"    {line}"
        for other in others:
            yield f"  not chosen: {_way(other)}"

    def _independence(self) -> str:
        if not self.slices:
            return "does not fall apart: some step needs all of the one before"
        return f"falls apart along {' and '.join(self.slices)}: slices never wait for each other"


@dataclass(frozen=True, slots=True)
class CudaExplanation:
    """`str` says it in words. Times are estimates of the cost model for the given `lengths`, not measurements."""

    graph: str
    arch: str
    lengths: Mapping[str, int]
    loops: tuple[LoopExplanation, ...]
    kernels: tuple[str, ...]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} = {length}" for name, length in self.lengths.items())
        lines = [f"{self.graph} on {self.arch}" + (f"; estimates for {sizes}" if sizes else "")]
        for loop in self.loops:
            lines += ["", *loop.lines()]
        lines += ["", "outside of loops", *(f"  {kernel}" for kernel in self.kernels)] if self.kernels else []
        return "\n".join(lines) + "\n"


def explain_cuda(code: CudaCode, lengths: Mapping[str, int]) -> CudaExplanation:
    loops = tuple(_loop(unit, code, lengths) for unit in code.units if isinstance(unit, LoopUnit))
    others = tuple(_kernel(unit) for unit in code.units if isinstance(unit, PointsUnit))
    return CudaExplanation(code.program.name, code.arch.name, lengths, loops, others)


def _loop(unit: LoopUnit, code: CudaCode, lengths: Mapping[str, int]) -> LoopExplanation:
    best: dict[str, Grouping] = {}
    for way in groupings(unit, code.program, code.arch, lengths):
        best.setdefault(unit.symbol_of(way.version), way)
    first = next(kernels((unit.loop,))).name
    return LoopExplanation(
        unit.loop.index,
        tuple(kernel.name for kernel in kernels((unit.loop,))),
        tuple(slicing.dims[first] for slicing in unit.slicings),
        step_of(unit, code.program, lengths),
        tuple(best.values()),
    )


def _way(way: Grouping) -> str:
    version = way.version
    groups = "1 group" if way.groups == 1 else f"{way.groups} groups"
    size = "1 CTA" if version.ctas == 1 else f"{version.ctas} CTAs"
    held = "" if version.holds or not version.tiles else ", operands do not fit on the chip"
    times = f"about {1e6 * way.step:.2f} µs a step, at least {1e6 * way.waiting:.2f} of it waiting"
    times += f"; {1e3 * way.seconds:.3g} ms in all"
    through = {"cta": " through shared memory", "cluster": " through distributed shared memory"}
    where = _WORDS[version.kind] + (through[version.kind] if version.mirrors else "")
    return f"exchange {where}, {groups} of {size}{held}: {times}"


def _operands(way: Grouping) -> Iterator[str]:
    for name, (product, geometry) in way.version.tiles.items():
        size = readable(geometry.bytes)
        tall = geometry.tall * (ROWS if isinstance(geometry, MmaGeometry) else 1)
        tile = f"tiles of {tall} × {geometry.rows}, {len(product.sums)} sums each"
        yield f"{name}: {size} of operands a CTA {_HOMES[geometry.home]}; {tile}"


def _kernel(unit: PointsUnit) -> str:
    if unit.product is not None:
        factors, block = unit.product
        by = f"{block.height} × {block.width}, {len(factors.reduce.sums)} sums each, {block.depth} terms at a time"
        return f"{unit.kernel.name}: tiles of {by}, through shared memory"
    if unit.search is not None:
        return f"{unit.kernel.name}: a warp searches the terms of each {unit.search.choice.row.index}"
    by = {1: "one thread", WARP: "a warp"}.get(unit.lanes, "a CTA")
    return f"{unit.kernel.name}: {by} for each point"
