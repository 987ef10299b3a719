"""Which statements of a program can run beside each other, block by block of an axis.

In: a Program, and the dims along which its kernels can be cut. Out: its `Wavefront`s. In a stack of recurrent layers
the loop of one layer needs of the one below no more than what that has made so far, and so does the product between
them: while one thread is at a block of steps of the lower layer, another is at an earlier block of the upper one
(Lamport, "The parallel execution of DO loops", CACM 1974). Loops that need nothing of each other, as of a bidirectional
layer, run beside each other as well. Threads meet after every block, rather than in every step.

Two statements may be computed so if all that both touch, and one of them stores, lies at a fixed distance along the
axis; what stands between them in the program is run before or after all blocks. Whether it pays, and how the stages
are shared out, is decided at the call (`graphc.codegen.parallel.work_sharing`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

from graphc.codegen.program import Buffer, Call, Const, Index, Kernel, Loop, Program, Ring, Scalar, kernels
from graphc.codegen.uses import Touch, touches
from graphc.scalar import index, offset_from

__all__ = ["Stage", "Wavefront", "wavefronts"]

Distances = frozenset[int | None]  # in steps of the axis; None: not known, or not the same everywhere
Grain = Callable[[Kernel, str], int | None]  # the points at whose multiples a kernel's dim can be cut; None: nowhere


@dataclass(frozen=True, slots=True)
class Stage:
    """A statement, by its `position` in the program, that goes along the axis: a loop by its steps, a kernel by its dim
    `index`, which has so many `points` for every step. It can be cut before any multiple of `grain` steps."""

    position: int
    index: str
    points: Scalar
    grain: int
    descending: bool


@dataclass(frozen=True)
class Wavefront:
    """Stages in the order of the program, with the statements between them that run before and after all blocks.

    `ahead` says, for two stages of which the later waits for the earlier, how many steps beyond its own it needs the
    earlier to be. Its keys are (number of the earlier, number of the later).
    """

    extent: Scalar
    stages: tuple[Stage, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    ahead: Mapping[tuple[int, int], int]

    @property
    def first(self) -> int:
        """Where its statements begin in the program."""
        return min(stage.position for stage in self.stages)

    @property
    def end(self) -> int:
        """The place after the last of its statements."""
        return max(stage.position for stage in self.stages) + 1


def wavefronts(program: Program, grain: Grain) -> tuple[Wavefront, ...]:
    """The wavefronts of a program, in order. Each has as many loops as it can, and no statement is in two."""
    search = _Search(program, grain)
    loops = [position for position, statement in enumerate(program.body) if isinstance(statement, Loop)]
    found: list[Wavefront] = []
    start = 0
    while loops:
        best, count = None, 1
        for more in range(1, len(loops) + 1):
            made = search.with_loops(tuple(loops[:more]), start)
            if made is None:
                break
            best, count = made, more
        if best is not None and len(best.stages) > 1:
            found.append(replace(best, ahead=search.ahead(best)))
        start, loops = loops[count - 1] + 1, loops[count:]
    return tuple(found)


class _Search:
    """What is known of one program's statements."""

    def __init__(self, program: Program, grain: Grain) -> None:
        self.body, self.grain = program.body, grain
        self.buffers = program.declared
        self.touches = [frozenset(t for k in kernels((s,)) for t in touches(k)) for s in program.body]
        self.touched = [frozenset(touch.buffer for touch in found) for found in self.touches]
        self.stored = [frozenset(touch.buffer for touch in found if touch.store) for found in self.touches]
        self.distances = cache(self._distances)
        self.sharing = self._sharing()

    def _sharing(self) -> list[frozenset[int]]:
        """For each statement those that store what it touches, or touch what it stores."""
        touching, storing = defaultdict[str, set[int]](set), defaultdict[str, set[int]](set)
        for found, names in ((touching, self.touched), (storing, self.stored)):
            for position, own in enumerate(names):
                for name in own:
                    found[name].add(position)
        return [
            frozenset(chain.from_iterable((*(storing[b] for b in touched), *(touching[b] for b in stored))))
            for touched, stored in zip(self.touched, self.stored, strict=True)
        ]

    def with_loops(self, loops: tuple[int, ...], start: int) -> Wavefront | None:
        """The wavefront of these loops, and of kernels after `start`, without what is `ahead`; None if the loops cannot
        run beside each other."""
        extent = self._loop(loops[0]).extent
        if any(self._loop(p).extent != extent for p in loops):
            return None
        stages: dict[int, Stage] = {}
        before: list[int] = []
        after: dict[int, None] = {}
        for position in range(start, loops[-1] + 1):
            blocked = self._waits(position, after, extent)
            stage = None if blocked else self._stage(position, stages, loops, extent)
            if stage is not None:
                stages[position] = stage
            elif position in loops:
                return None
            elif blocked or self._waits(position, stages, extent):
                after[position] = None
            elif stages:
                before.append(position)
        return Wavefront(extent, tuple(stages.values()), tuple(before), tuple(after), {})

    def _waits(self, position: int, earlier: Container[int], extent: Scalar) -> bool:
        """Whether a statement needs an earlier one, or the reverse."""
        return any(p in earlier and self.distances(p, position, extent) for p in self.sharing[position])

    def _loop(self, position: int) -> Loop:
        loop = self.body[position]
        assert isinstance(loop, Loop)
        return loop

    def _stage(
        self, position: int, stages: Mapping[int, Stage], loops: tuple[int, ...], extent: Scalar
    ) -> Stage | None:
        """The statement as a stage beside the earlier ones and the loops; None if it cannot be one."""
        walk = self._walk(position, extent)
        if walk is None:
            return None
        statement = self.body[position]
        others = {p: stages[p].descending for p in self.sharing[position] if p in stages}
        if isinstance(statement, Kernel):
            others |= {p: self._loop(p).reverse for p in self.sharing[position].intersection(loops) if p > position}
        meets = {p: self.distances(min(p, position), max(p, position), extent) for p in others}
        directions = {others[p] for p, found in meets.items() if found}
        if isinstance(statement, Loop):
            directions.add(statement.reverse)
        if len(directions) != 1 or any(None in found for found in meets.values()):
            return None
        name, points, grain = walk
        return Stage(position, name, points, grain, next(iter(directions)))

    def _walk(self, position: int, extent: Scalar) -> tuple[str, Scalar, int] | None:
        """How a statement goes along an axis of this length: its index, the points that it has for every step, and the
        grain."""
        statement = self.body[position]
        if isinstance(statement, Loop):
            return (statement.index, index(1), 1) if statement.extent == extent else None
        for dim in statement.dims:
            match dim.extent:
                case e if e == extent:
                    points: Scalar = index(1)
                case Call("mul", (e, per)) if e == extent:
                    points = per
                case _:
                    continue
            grain = self.grain(statement, dim.index)
            if grain is not None:
                return dim.index, points, grain // math.gcd(grain, _known(points))
        return None

    def _distances(self, earlier: int, later: int, extent: Scalar) -> Distances:
        """By how many steps the earlier statement must be ahead of the later one; empty if neither needs the other."""
        shared = (self.stored[earlier] & self.touched[later]) | (self.touched[earlier] & self.stored[later])
        if not shared:
            return frozenset()
        first, second = self._walk(earlier, extent), self._walk(later, extent)
        return frozenset(
            self._distance(a, b, first, second)
            for a in self.touches[earlier]
            for b in self.touches[later]
            if a.buffer == b.buffer and a.buffer in shared and (a.store or b.store)
        )

    def _distance(
        self, a: Touch, b: Touch, first: tuple[str, Scalar, int] | None, second: tuple[str, Scalar, int] | None
    ) -> int | None:
        if first is None or second is None:
            return None
        buffer: Buffer = self.buffers[a.buffer]
        for x, y, dim in zip(a.at, b.at, buffer.dims, strict=True):
            made, needed = _offset(x, first[0], first[1]), _offset(y, second[0], second[1])
            if made is not None and needed is not None and not isinstance(dim, Ring):
                return needed - made
        return None

    def ahead(self, wave: Wavefront) -> dict[tuple[int, int], int]:
        """By how many steps each stage must be ahead of each that needs it."""
        result = {}
        places = {stage.position: k for k, stage in enumerate(wave.stages)}
        for k, later in enumerate(wave.stages):
            for j in sorted(places[p] for p in self.sharing[later.position] if places.get(p, k) < k):
                distances = self.distances(wave.stages[j].position, later.position, wave.extent)
                found = [d for d in distances if d is not None]
                if found:
                    result[j, k] = max(-d for d in found) if later.descending else max(found)
        return result


def _offset(subscript: Scalar, name: str, points: Scalar) -> int | None:
    """How far a subscript is from the step of a statement that has `points` points for each step."""
    if points == index(1):
        return offset_from(subscript, name)
    match subscript:
        case Call("floordiv", (Index(own), per)) if own == name and per == points:
            return 0
        case Call("add", (Call("floordiv", (Index(own), per)), Const(value))) if own == name and per == points:
            return int(value)
    return None


def _known(points: Scalar) -> int:
    return int(points.value) if isinstance(points, Const) else 1
