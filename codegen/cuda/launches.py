"""The launches of one call: which kernels of the module run, in which order, on what grids.

In: a program's code and the lengths of a call. Out: `Launch`es as plain data, without the addresses of buffers.
Launches that would compute nothing are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.cuda.cost_model import Grouping, groupings
from graphc.codegen.cuda.host_loop import extents, steps
from graphc.codegen.cuda.isa.arch import WARP, Arch
from graphc.codegen.cuda.kernel.points import owned_dims
from graphc.codegen.cuda.loops.barriers import counter_bytes
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.loops.scan import totals_bytes
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.units import Unit
from graphc.codegen.lengths import evaluate, points_of, step_name
from graphc.codegen.program import Program, kernels
from graphc.codegen.uses import loaded, stored
from graphc.errors import ArgumentError

__all__ = ["COUNTERS", "TOTALS", "Launch", "Launched", "exchange_bytes", "launched", "launches"]

COUNTERS = "(counters)"  # stands among the arguments for the address of the barriers' counters
TOTALS = "(totals)"  # for that of what the parts of a linear recurrence come to
_MOST_POINTS = 2**31 - 2**20  # of 32 bits with a sign, with room for what threads count past the last
_CTAS_AN_SM = 8


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel on a grid of `grid` CTAs of `block` threads, in clusters of `cluster`; each CTA has `shared` bytes of
    dynamic shared memory. An argument is a buffer's name, for its address, or an integer of 64 bits. `cooperative`: all
    CTAs must run at the same time. `loads` and `stores` are the buffers that it touches. `words` bytes of memory behind
    the barriers' counters hold what its CTAs exchange. `urgent`: it runs at high priority, because it takes long and
    others wait for it. `alone`: nothing else may run at the same time. `totals`: the bytes for what the parts of a
    linear recurrence come to.
    """

    symbol: str
    grid: int
    block: int
    cluster: int
    shared: int
    cooperative: bool
    arguments: tuple[str | int, ...]
    loads: frozenset[str]
    stores: frozenset[str]
    words: int = 0
    urgent: bool = False
    alone: bool = False
    totals: int = 0


@dataclass(frozen=True, slots=True)
class Launched:
    """A launch, with the unit whose work it is and the sizes that it was made for. A unit may have several launches for
    the same sizes, of which one `is_last`."""

    unit: Unit
    sizes: Mapping[str, int]
    launch: Launch
    is_last: bool = True


def exchange_bytes(launches: Iterable[Launch], arch: Arch) -> int:
    """The memory of the barriers' counters and of exchanged words, which must be 0 before the first launch."""
    return counter_bytes(arch.sms) + max((launch.words for launch in launches), default=0)


def launches(
    code: CudaCode, sizes: Mapping[str, int], groupings_of: Mapping[str, Grouping] | None = None
) -> tuple[Launch, ...]:
    """The launches of a call with these lengths. `groupings_of` chooses how loops are grouped, by symbol; else the cost
    model does."""
    return tuple(one.launch for one in launched(code, sizes, groupings_of))


def launched(
    code: CudaCode, sizes: Mapping[str, int], groupings_of: Mapping[str, Grouping] | None = None
) -> Iterator[Launched]:
    """The same launches, each with its unit and sizes. Host loops are unrolled."""
    _check_points(code.program, sizes)
    chosen = _Chosen(code, groupings_of or {})
    for unit, at in _in_order(code.units, 0, sizes):
        launch = _launch(unit, code, at, chosen)
        if launch is None:
            continue
        if isinstance(unit, PointwiseUnit) and launch.totals:
            yield Launched(unit, at, _totals(unit, launch), is_last=False)
        yield Launched(unit, at, launch)


def _in_order(units: Iterable[Unit], depth: int, sizes: Mapping[str, int]) -> Iterator[tuple[Unit, Mapping[str, int]]]:
    """Units as often as they run, with the sizes at each step of the host loops around them. The outer `depth` of these
    loops are around all units."""
    for loop, inside in itertools.groupby(units, lambda unit: unit.around[depth] if unit.around[depth:] else None):
        if loop is None:
            yield from ((unit, sizes) for unit in inside)
            continue
        own = tuple(inside)
        for at in steps(loop, sizes):
            yield from _in_order(own, depth + 1, at)


class _Chosen:
    """How loops are grouped in one call. The cost model runs once for each combination of a loop's lengths."""

    def __init__(self, code: CudaCode, given: Mapping[str, Grouping]) -> None:
        self._code, self._given = code, given
        self._found: dict[tuple[str | int, ...], Grouping] = {}

    def of(self, unit: LoopUnit, sizes: Mapping[str, int]) -> Grouping:
        if unit.symbol in self._given:
            return self._given[unit.symbol]
        key: tuple[str | int, ...] = (unit.symbol, *(evaluate(extent, sizes) for extent in extents(unit.loop)))
        if key not in self._found:
            self._found[key] = groupings(unit, self._code.program, self._code.arch, sizes)[0]
        return self._found[key]


def _launch(unit: Unit, code: CudaCode, sizes: Mapping[str, int], chosen: _Chosen) -> Launch | None:
    numbers = (sizes[name] for name in (*code.program.sizes, *(step_name(loop.index) for loop in unit.around)))
    given: tuple[str | int, ...] = (*unit.buffers, *numbers)
    if isinstance(unit, PointsUnit):
        grid = _grid(unit, code.arch, sizes)
        shared = 0 if unit.product is None else unit.product[1].shared
        return Launch(unit.symbol, grid, unit.threads, 1, shared, False, given, *_touched(unit)) if grid else None
    if not evaluate(unit.loop.extent, sizes):
        return None
    if isinstance(unit, PointwiseUnit):
        return _pointwise(unit, given, sizes, code.arch)
    lengths = [evaluate(slicing.extent, sizes) for slicing in unit.slicings]
    return _persistent(unit, chosen.of(unit, sizes), given, lengths, code.arch)


def _grid(unit: PointsUnit, arch: Arch, sizes: Mapping[str, int]) -> int:
    """Enough CTAs for all points, but no more than the chip holds; then each computes several points."""
    own, sequential = owned_dims(unit.kernel)
    points = points_of(own, sizes) if points_of(sequential, sizes) else 0
    ctas = -(-points * unit.lanes // (unit.run * unit.threads))
    if unit.search is not None:
        ctas = -(-unit.search.warps(unit.kernel, sizes) * WARP // unit.threads)
    if unit.product is not None:
        factors, block = unit.product
        counts = (points_of(dims, sizes) for dims in (factors.left, factors.right))
        ctas = block.tiles(*counts) * points_of(factors.both, sizes)
    return min(ctas, arch.sms * _CTAS_AN_SM)


def _persistent(
    unit: LoopUnit, grouping: Grouping, given: tuple[str | int, ...], sliced: Sequence[int], arch: Arch
) -> Launch:
    """The launch of a loop. `sliced`: the lengths of its slicings."""
    arguments, version = (*given, *grouping.parts), grouping.version
    grid = version.kind == "grid"
    words = sum(exchange.bytes(sliced, grouping.parts) for exchange in version.exchanges) if version.sends_words else 0
    loads, stores = _touched(unit)
    ctas = grouping.groups * version.ctas
    return Launch(
        unit.symbol_of(version),
        ctas,
        unit.threads,
        version.ctas if version.kind == "cluster" else 1,
        grouping.shared,
        grid,
        (*arguments, COUNTERS) if grid else arguments,
        loads,
        stores | {COUNTERS} if grid else stores,
        grouping.groups * words,
        urgent=True,
        alone=2 * ctas > arch.sms,
    )


def _pointwise(
    unit: PointwiseUnit, given: tuple[str | int, ...], sizes: Mapping[str, int], arch: Arch
) -> Launch | None:
    """The launch of a pointwise loop; None if it has no points. If its steps are in parts, it loads their totals."""
    points, parts = unit.points(sizes), unit.parts(sizes, arch)
    if not points:
        return None
    loads, stores = _touched(unit)
    launch = Launch(
        unit.symbol, -(-points * parts // unit.threads), unit.threads, 1, 0, False, given, loads, stores, urgent=True
    )
    if unit.linear is None:
        return launch
    launch = replace(launch, arguments=(*given, parts, TOTALS))
    if parts == 1:
        return launch
    totals = totals_bytes(len(unit.linear.states), points, parts - 1)
    return replace(launch, loads=loads | {TOTALS}, totals=totals)


def _totals(unit: PointwiseUnit, launch: Launch) -> Launch:
    """The launch that computes what the parts come to that another launch is in."""
    return replace(launch, symbol=unit.totals_symbol, stores=frozenset({TOTALS}))


def _touched(unit: Unit) -> tuple[frozenset[str], frozenset[str]]:
    """The buffers that a unit loads, and those that it stores to."""
    return frozenset(loaded((unit.statement,))), frozenset(stored((unit.statement,)))


def _check_points(program: Program, sizes: Mapping[str, int]) -> None:
    """Threads number points, and terms of reductions, in 32 bits."""
    for kernel in kernels(program.body):
        counted = (kernel.dims, *(reduce.dims for reduce in kernel.reduces))
        if any(points_of(dims, sizes) > _MOST_POINTS for dims in counted):
            raise ArgumentError(
                f"kernel {kernel.name} has more than {_MOST_POINTS} points; call it with shorter arrays"
            )
