"""profile on a GPU: where the time of a call goes, launch by launch.

In: a call to be measured, and words for its statements. Out: a `CudaProfile`: the time of each launch, between two
events of the driver, and the time that the cost model counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high

from graphc.codegen.cuda.launches import Launched
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.roofline import count
from graphc.codegen.cuda.units import Unit
from graphc.language.graph import Graph
from graphc.reporting.profile_table import Line, duration, table, title
from graphc.reporting.profile_words import Words
from graphc.runtime.cuda import Measured

__all__ = ["CudaPart", "CudaProfile", "profile_cuda"]


@dataclass(frozen=True, slots=True)
class CudaPart:
    """A statement: what it does, the seconds that its launches take in a call, the operations of its products (a
    multiply-add is two), and the seconds that the cost model counts. It has so many `launches`; the first has `groups`
    groups of `ctas` CTAs. The CTAs of a group exchange what they make inside a "cta", a "cluster" or the "grid", or not
    at all if `exchange` is empty."""

    what: str
    seconds: float
    operations: float
    counted: float
    launches: int
    exchange: str
    groups: int
    ctas: int

    @property
    def grid(self) -> str:
        """The CTAs in words."""
        together = f"{self.exchange} {self.groups} × {self.ctas}" if self.exchange else f"{self.groups}"
        return together if self.launches == 1 else f"{self.launches} times {together}"


@dataclass(frozen=True, slots=True)
class CudaProfile:
    """Where the time of a call on a GPU goes, as medians of several calls. `seconds`: of a whole bound call, from and
    to the host. The parts were measured one after another, without the host. `str` is a table."""

    graph: str
    arch: str
    sms: int
    lengths: Mapping[str, int]
    seconds: float
    parts: tuple[CudaPart, ...]

    def __str__(self) -> str:
        wide = 2 + max(len(words) for words in ("CTAs", *(part.grid for part in self.parts)))
        about = title(self.graph, self.lengths, self.seconds, f"{self.arch} with {self.sms} SMs")
        about += f", {duration(sum(part.counted for part in self.parts))} by count"
        lines = [Line(part.seconds, f"{_figures(part)}{part.grid:>{wide}}", part.what) for part in self.parts]
        heading = f"  by count  GFLOP/s{'CTAs':>{wide}}"
        return f"{about}\n\n{table(heading, lines, self.seconds, 'launching and copies')}"


def _figures(part: CudaPart) -> str:
    rate = part.operations / part.seconds if part.seconds else 0.0
    return f"{duration(part.counted):>10}{rate * 1e-9:9.1f}" if rate else f"{duration(part.counted):>10}{'':9}"


def profile_cuda(graph: Graph, words: Words, measured: Measured, calls: int) -> CudaProfile:
    """Measure so many calls, after one that is not counted."""
    measured.call()
    whole, runs = [], []
    for _ in range(calls):
        begun = time.perf_counter()
        measured.call()
        whole.append(time.perf_counter() - begun)
    timed = measured.timed()
    for _ in range(calls):
        runs.append(timed())
    code, sizes = measured.chosen.code, measured.chosen.sizes
    return CudaProfile(
        graph.name,
        code.arch.name,
        code.arch.sms,
        {name: sizes[name] for name, axis in graph.axes.items() if axis.is_open},
        median_high(whole),
        tuple(_parts(words, measured, [median_high(each) for each in zip(*runs, strict=True)])),
    )


def _parts(words: Words, measured: Measured, seconds: Sequence[float]) -> Iterator[CudaPart]:
    """A part for each statement, with all of its launches, in the order of the first ones."""
    of_unit: dict[str, list[tuple[Launched, float]]] = {}
    for launched, spent in zip(measured.launched, seconds, strict=True):
        of_unit.setdefault(launched.unit.symbol, []).append((launched, spent))
    for runs in of_unit.values():
        yield _part(words, measured.chosen.code, runs)


def _part(words: Words, code: CudaCode, runs: Sequence[tuple[Launched, float]]) -> CudaPart:
    whole = [one for one, _ in runs if one.is_last]
    first = whole[0]
    exchange, ctas = _exchange(first.unit, first.launch.symbol)
    statement = first.unit.statement
    return CudaPart(
        words.statement(statement),
        sum(spent for _, spent in runs),
        sum(words.operations(statement, one.sizes) for one in whole),
        sum(count(one.unit, code, one.sizes).seconds for one in whole),
        len(whole),
        exchange,
        first.launch.grid // ctas,
        ctas,
    )


def _exchange(unit: Unit, symbol: str) -> tuple[str, int]:
    """How the CTAs of a group exchange, and how many there are."""
    if not isinstance(unit, LoopUnit):
        return "", 1
    version = next(version for version in unit.versions if unit.symbol_of(version) == symbol)
    return version.kind, version.ctas
