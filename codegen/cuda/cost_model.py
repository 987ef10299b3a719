"""A cost model of one step of a loop, by which the grouping of the loop's CTAs is chosen.

In: a loop's unit, an architecture, and lengths. Out: `Grouping`s with their estimated seconds, the best first. A step
takes the time in which the busiest CTA computes and fetches operands, plus the time of the group's exchanges or
barriers. Small groups exchange quickly but leave SMs idle. Which grouping is best depends on the number of slices, so
it is decided at the call.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphc.codegen.cuda.isa.arch import THREADS, WARP, Arch
from graphc.codegen.cuda.loops.geometry import Geometry
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.mma_geometry import AnyGeometry, MmaGeometry
from graphc.codegen.cuda.loops.versions import RESERVED, Version
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Call, Index, Kernel, Load, Loop, Program, Scalar, Statement
from graphc.codegen.uses import stored
from graphc.scalar import walk

__all__ = ["LATENCY", "TENSOR", "Grouping", "Step", "groupings", "step_of"]

_CYCLES = 2  # a warp's instruction: 8 warps share 4 schedulers
_BESIDE = 3  # instructions for each term of a reduction: two loads and a multiply-add
TENSOR = 8  # how many times as fast tensor cores are, where the other operand is still to be rounded
_SHARED_WIDTH = 128  # bytes that an SM reads of shared memory in a cycle, for tensor cores; for multiply-adds half
_TURNS = (4, 32, 256, 1 << 20)  # groups that an SM may have one after another: the fewest that do
# Seconds of an H200, fitted to what loops took in every grouping (docs/gpu.md).
LATENCY = 380e-9  # of a kernel inside a step: a load from the second-level cache, a reduction, a store
_NEAR = 640e-9  # of a kernel whose product reads mirrors in shared memory instead
_EPILOGUE = 350e-9  # of a kernel that is a product's epilogue, with what it loads
_CHAINED = 9e-9  # of a product of the tensor cores that waits for the one before, and for its operands
_TURN = 180e-9  # of each further point that a thread has: loads, exponentials and divisions in a chain


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel in one step: its points, and the terms of its reductions at each point. Of the bytes that these read,
    `stationary` are those that no step changes, and `made` those that the loop stores. `epilogue`: it is computed by
    the threads of a product."""

    kernel: str
    points: int
    terms: int
    products: int
    lanes: int
    stationary: int
    made: int
    epilogue: bool


@dataclass(frozen=True, slots=True)
class Step:
    """All kernels of one step of a loop, each with how often it runs, and the barriers of a step."""

    steps: int
    works: tuple[tuple[int, Work], ...]
    barriers: int

    @property
    def flops(self) -> int:
        """The operations of the products of a step, a multiply-add being two."""
        return sum(2 * times * w.points * w.terms * w.products for times, w in self.works)

    @property
    def stationary(self) -> int:
        """Bytes that every step reads again."""
        return sum(w.stationary for _, w in self.works)


@dataclass(frozen=True, slots=True)
class Grouping:
    """A version of the loop on `groups` groups of CTAs. `parts`: into how many parts each slicing is cut; a group has
    one part of each. `shared`: bytes of dynamic shared memory of a CTA. Estimated seconds: of a `step`, of the
    `waiting` in it, however little it computes, and of the whole loop (`seconds`)."""

    version: Version
    parts: tuple[int, ...]
    shared: int
    step: float
    waiting: float
    seconds: float

    @property
    def groups(self) -> int:
        """How many groups of CTAs there are."""
        return math.prod(self.parts)


def groupings(unit: LoopUnit, program: Program, arch: Arch, sizes: Mapping[str, int]) -> tuple[Grouping, ...]:
    """Every way to run the loop that is worth a look, the best first."""
    step = step_of(unit, program, sizes)
    lengths = [evaluate(slicing.extent, sizes) for slicing in unit.slicings]
    found = [
        _estimated(version, parts, step, unit, lengths, arch)
        for version in unit.versions
        for parts in _fitting(version, lengths, arch)
    ]
    return tuple(sorted(found, key=lambda grouping: grouping.seconds))


def _fitting(version: Version, lengths: list[int], arch: Arch) -> list[tuple[int, ...]]:
    """Ways to cut the slicings such that a CTA's mirrors fit into its shared memory. Few groups take turns on an SM if
    that is enough, else many."""
    for turns in _TURNS:
        ways = [p for p in _parts(version, lengths, arch, turns) if _fits(version, lengths, p, arch)]
        if ways:
            return ways
    return []


def _fits(version: Version, lengths: list[int], parts: tuple[int, ...], arch: Arch) -> bool:
    return not version.mirrors or _shared(version, lengths, parts) <= arch.shared - RESERVED


def _parts(version: Version, lengths: list[int], arch: Arch, turns: int) -> Iterator[tuple[int, ...]]:
    """Ways to cut the slicings: each whole, by powers of two, or into its points. CTAs of a grid wait for each other,
    so all groups must be on the chip at the same time; other groups may take turns on an SM."""
    choices = [
        sorted({*(2**k for k in range(max(1, length).bit_length())), max(1, length)}) if fixed is None else [fixed]
        for length, fixed in zip(lengths, version.fixed, strict=True)
    ]
    least = math.prod(fixed or 1 for fixed in version.fixed)
    most = arch.sms // version.ctas if version.kind == "grid" else max(least, turns * arch.sms // version.ctas)
    yield from (parts for parts in itertools.product(*choices) if math.prod(parts) <= most)


def _shared(version: Version, lengths: list[int], parts: tuple[int, ...]) -> int:
    return version.shared + sum(mirror.bytes(lengths, parts) for mirror in version.mirrors)


def _estimated(
    version: Version, parts: tuple[int, ...], step: Step, unit: LoopUnit, lengths: list[int], arch: Arch
) -> Grouping:
    groups = math.prod(parts)
    compute = sum(times * _kernel_seconds(w, version, groups, arch) for times, w in step.works)
    exchange = _exchange_seconds(version, parts, step, unit, lengths, arch)
    waiting = exchange + sum(times * _latency(w, version) for times, w in step.works)
    seconds = compute + exchange
    waves = -(-groups // max(1, arch.at_once(version.ctas, version.kind)))
    shared = _shared(version, lengths, parts)
    return Grouping(version, parts, shared, seconds, waiting, seconds * step.steps * waves)


def _exchange_seconds(
    version: Version, parts: tuple[int, ...], step: Step, unit: LoopUnit, lengths: list[int], arch: Arch
) -> float:
    """The seconds in a step for which the CTAs of a group wait for each other."""
    if not version.exchanges:
        one = {"cta": arch.cta_barrier, "cluster": arch.cluster_barrier, "grid": arch.grid_barrier}[version.kind]
        return step.barriers * one
    if version.kind == "cluster":
        sent = [exchange.sent(lengths, parts) for exchange in version.exchanges]
        return sum(arch.cluster_exchange + count / arch.cluster_rate for count in sent)
    words = [exchange.words_of_thread(lengths, parts, unit.threads) for exchange in version.exchanges]
    return sum(arch.grid_exchange + count * arch.word for count in words)


def _kernel_seconds(work: Work, version: Version, groups: int, arch: Arch) -> float:
    """The seconds of one kernel in one step, in one group."""
    ctas = version.ctas
    points = -(-work.points // groups)
    passes = -(-points * work.lanes // (ctas * THREADS))
    compute = passes * (-(-work.terms * work.products // work.lanes)) * _BESIDE * _CYCLES / (arch.clock * 1e9)
    geometry = version.geometries.get(work.kernel)
    turns = -(-points // (ctas * THREADS))
    if geometry is not None and geometry.home != "memory":
        more = (turns - 1) * _TURN + _product_seconds(geometry, compute, points, arch)
        if isinstance(geometry, MmaGeometry) and not version.mirrors:  # every CTA loads what all have made
            more += ctas * work.made / arch.l2
        return _latency(work, version) + more
    fetched = min(work.stationary, 4 * work.terms * work.products * -(-points // ctas))
    return _latency(work, version) + (passes - 1) * _TURN + max(compute, fetched * arch.sms / arch.l2)


def _latency(work: Work, version: Version) -> float:
    """How long a kernel takes that has nothing to compute."""
    if work.epilogue:
        return _EPILOGUE
    near = version.mirrors and work.kernel in version.geometries
    return _NEAR if near else LATENCY


def _product_seconds(geometry: AnyGeometry, compute: float, points: int, arch: Arch) -> float:
    """A product whose operands are on the chip: shared memory is read anew for every tile of rows."""
    rows, at_once = -(-points // geometry.units), geometry.rows
    if isinstance(geometry, Geometry):
        at_once *= max(1, THREADS // WARP // geometry.across)
    passes = -(-rows // at_once)
    if isinstance(geometry, MmaGeometry):
        compute = compute / TENSOR + passes * (2 * arch.cta_barrier + geometry.chain * _CHAINED)
    if geometry.home == "registers":
        return compute
    width = _SHARED_WIDTH if isinstance(geometry, MmaGeometry) else _SHARED_WIDTH // 2
    return max(compute, passes * geometry.bytes / (width * arch.clock * 1e9))


# Counting.


def step_of(unit: LoopUnit, program: Program, sizes: Mapping[str, int]) -> Step:
    """What one step of the unit's loop does."""
    made = stored((unit.loop,))
    works = tuple(
        (times, _work(kernel, unit.lanes[kernel.name], kernel.name in unit.epilogues, made, program, sizes))
        for times, kernel in _repeated(unit.loop.body, 1, sizes)
    )
    barriers = sum(times for times, kernel in _repeated(unit.loop.body, 1, sizes) if kernel.name in unit.barriers)
    return Step(evaluate(unit.loop.extent, sizes), works, barriers)


def _repeated(body: tuple[Statement, ...], times: int, sizes: Mapping[str, int]) -> Iterator[tuple[int, Kernel]]:
    for statement in body:
        if isinstance(statement, Loop):
            yield from _repeated(statement.body, times * evaluate(statement.extent, sizes), sizes)
        else:
            yield times, statement


def _work(
    kernel: Kernel, lanes: int, epilogue: bool, made: set[str], program: Program, sizes: Mapping[str, int]
) -> Work:
    inside = [value for reduce in kernel.reduces for value in reduce.values]
    dims = (*kernel.dims, *(dim for reduce in kernel.reduces for dim in reduce.dims))
    extents = {dim.index: evaluate(dim.extent, sizes) for dim in dims}
    read: dict[bool, dict[tuple[str, tuple[Scalar, ...]], int]] = {True: {}, False: {}}  # by whether it is made here
    for part in (part for value in inside for part in walk(value) if isinstance(part, Load)):
        size = _count(part, extents) * STORAGE[program.buffer(part.buffer).dtype][1]
        if part.buffer in made or _stays(part, extents):
            read[part.buffer in made][part.buffer, part.at] = size
    return Work(
        kernel.name,
        points_of(kernel.dims, sizes),
        max((points_of(reduce.dims, sizes) for reduce in kernel.reduces), default=1),
        max(1, sum(isinstance(part, Call) and part.fn == "mul" for value in inside for part in walk(value))),
        lanes,
        sum(read[False].values()),
        sum(read[True].values()),
        epilogue,
    )


def _stays(load: Load, extents: Mapping[str, int]) -> bool:
    """Whether a load is of the same elements in every step: no index of a loop is in it."""
    return all(part.name in extents for s in load.at for part in walk(s) if isinstance(part, Index))


def _count(load: Load, extents: Mapping[str, int]) -> int:
    """The elements that a load touches in a step, over all points."""
    names = {part.name for subscript in load.at for part in walk(subscript) if isinstance(part, Index)}
    return math.prod(extents.get(name, 1) for name in names)
