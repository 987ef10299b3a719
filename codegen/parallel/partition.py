"""How threads may share out a program: which dims of its kernels can be cut, and where threads must meet.

In: a Program and the tile each kernel is computed in. Out: its `Partition`. All threads run the whole program, each
its own part of every kernel, and meet at a barrier wherever one needs what another has made. Between the top-level
statements they always meet. Inside a loop it depends on the `Strategy`, the dim along which the loop's kernels are
cut: cut along the batch, no thread ever needs another's part, and there is no barrier at all; cut along the units,
each step has one wherever a product reads the whole of what the threads have made in parts. So the loop of
h[t] = tanh(W @ h[t - 1]) has two strategies: along n, without barriers, and along e.0, with one before the kernel h.

Some statements can run whole beside each other instead (`graphc.codegen.parallel.wavefront`).

The strategy is chosen at the call, when sizes are known (`graphc.codegen.parallel.work_sharing`). A barrier is left out
only where it is proven needless (`graphc.codegen.parallel.hazards`): the two accesses move along with their kernels'
cut dims through the same subscript, and the cuts are the same; or they lie at different steps of the loop.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.parallel.cost import Cost, cost
from graphc.codegen.parallel.hazards import Access, barriers
from graphc.codegen.parallel.row import Row
from graphc.codegen.parallel.wavefront import Wavefront, wavefronts
from graphc.codegen.program import (
    Buffer,
    Index,
    Kernel,
    Loop,
    Program,
    Ring,
    Scalar,
    Statement,
    kernels,
)
from graphc.codegen.target import Target
from graphc.codegen.tiling.tiling import Tiling, tiling_of
from graphc.scalar import walk

__all__ = ["Cut", "Partition", "Strategy", "partition"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A dim of a kernel that can be cut before any multiple of `grain` points."""

    index: str
    extent: Scalar
    grain: int


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to run one top-level statement: the cut of each kernel that is cut, by name; and the kernels before which
    threads meet."""

    along: str
    cuts: Mapping[str, Cut]
    barriers: frozenset[str]


@dataclass(frozen=True)
class Partition:
    """The dims of each kernel that can be cut, the strategies for each top-level statement, and the statements that can
    run beside each other."""

    tilings: Mapping[str, Tiling]
    costs: Mapping[str, Cost]
    cuts: Mapping[str, tuple[Cut, ...]]
    strategies: tuple[tuple[Strategy, ...], ...]
    wavefronts: tuple[Wavefront, ...]

    @functools.cached_property
    def row(self) -> Row:
        """What a thread's row of the table of shares looks like."""
        stages = tuple(len(wave.stages) for wave in self.wavefronts)
        return Row(len(self.strategies), stages, {name: len(cuts) for name, cuts in self.cuts.items()})

    def meeting(self, statement: int, kernel: str) -> int:
        """The strategies under which threads meet before a kernel, as a sum of powers of two."""
        chosen = self.strategies[statement]
        return sum(1 << k for k, strategy in enumerate(chosen) if kernel in strategy.barriers)


def partition(program: Program, target: Target) -> Partition:
    """How threads may share out a program, in the tiles that are best on a target."""
    tilings = {kernel.name: tiling_of(kernel, program, target) for kernel in kernels(program.body)}
    costs = {kernel.name: cost(kernel, tilings[kernel.name].lanes) for kernel in kernels(program.body)}
    cuts = {kernel.name: tuple(_cuts(kernel, tilings[kernel.name])) for kernel in kernels(program.body)}
    strategies = tuple(tuple(_strategies(statement, cuts, program.declared)) for statement in program.body)
    grains = {(kernel, cut.index): cut.grain for kernel, own in cuts.items() for cut in own}
    waves = wavefronts(program, lambda kernel, dim: grains.get((kernel.name, dim)))
    return Partition(tilings, costs, cuts, strategies, waves)


def _cuts(kernel: Kernel, tiling: Tiling) -> Iterator[Cut]:
    """The dims that can be cut: their length is known at the call, and no two points of different parts add to one
    element."""
    accumulating = [store for store in kernel.stores if store.accumulate]
    for dim in kernel.dims:
        grain = 1  # where the length comes with the data, as of a batch, anywhere: kernels agree on that
        if dim.index == tiling.vector and dim.length is not None:
            grain = tiling.lanes * tiling.widths[0]
        elif dim.index == tiling.row and dim.length is not None:
            grain = tiling.heights[0]
        if any(isinstance(part, Index) for part in walk(dim.extent)):
            continue
        if dim.length is not None and dim.length <= grain:
            continue
        if all(Index(dim.index) in store.at for store in accumulating):
            yield Cut(dim.index, dim.extent, grain)


def _strategies(
    statement: Statement, cuts: Mapping[str, tuple[Cut, ...]], buffers: Mapping[str, Buffer]
) -> Iterator[Strategy]:
    """One strategy for each dim along which a kernel of the statement can be cut."""
    inside = list(kernels((statement,)))
    for along in dict.fromkeys(cut.index for kernel in inside for cut in cuts[kernel.name]):
        chosen = {}
        for kernel in inside:
            own = cuts[kernel.name]
            cut = next((c for c in own if c.index == along), own[-1] if own else None)
            if cut is not None:
                chosen[kernel.name] = cut
        chosen = _alike(chosen)
        meetings: frozenset[str] = frozenset()
        if isinstance(statement, Loop):
            owners = {kernel.name: chosen.get(kernel.name) for kernel in inside}
            meetings = barriers(statement, owners, buffers, _same_thread)
        yield Strategy(along, chosen, meetings)


def _alike(cuts: Mapping[str, Cut]) -> dict[str, Cut]:
    """The cuts, with one grain for all that cut the same length, so that the same parts fall to the same thread."""
    grains: dict[Scalar, int] = {}
    for cut in cuts.values():
        grains[cut.extent] = math.lcm(grains.get(cut.extent, 1), cut.grain)
    return {name: Cut(cut.index, cut.extent, grains[cut.extent]) for name, cut in cuts.items()}


def _same_thread(a: Access[Cut | None], b: Access[Cut | None], buffer: Buffer) -> bool:
    """Whether one thread makes both accesses to any element that both touch."""
    first, second = a.owner, b.owner
    if first is None or second is None:
        return first is second  # neither is cut: the first thread runs both
    if (first.extent, first.grain) != (second.extent, second.grain):
        return False
    return any(
        x == Index(first.index) and y == Index(second.index) and not isinstance(dim, Ring)
        for x, y, dim in zip(a.at, b.at, buffer.dims, strict=True)
    )
