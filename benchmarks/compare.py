"""One comparison: every peer's results are checked against graphc's, and only then are their times taken.

In: a `Comparison` and the peers. Out: a `Row` of the table, or `Mismatch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.disturbance import QUIET, now, others
from benchmarks.images import Images
from benchmarks.peers import Peer, Work
from benchmarks.problems import TOLERANCE, Arrays, Linear, Sequence
from benchmarks.timing import Effort, Timing, interleaved

FLOOR = 1e-3  # of the largest element of all arrays: smaller ones may be nothing but what rounding left of 0
ATTEMPTS = 3  # to find the machine quiet


class Mismatch(Exception):
    """Peers that compute different things, whose times say nothing."""


@dataclass(frozen=True)
class Comparison:
    """A line of a workload. With `per_step`, times are told for a step instead of a call."""

    workload: str
    work: Work
    problem: Sequence | Linear | Images
    per_step: bool = False

    @property
    def name(self) -> str:
        what = {"forward": "", "training": " training", "step": " step by step"}[self.work]
        return f"{self.problem.name}{what}"

    @property
    def sizes(self) -> str:
        return self.problem.sizes if self.work != "step" else self.problem.sizes.split(" ", 2)[2]


@dataclass(frozen=True)
class Row:
    """What was measured: seconds of a call, or of a step of it, by peer; and the cores that others took meanwhile."""

    workload: str
    name: str
    sizes: str
    per_step: bool
    timings: Mapping[str, Timing]
    others: float = 0.0

    @property
    def disturbed(self) -> bool:
        return self.others > QUIET

    def ratio(self, peer: str) -> float:
        """A peer's time divided by graphc's: above 1, graphc is faster."""
        return self.timings[peer].median / self.timings["graphc"].median


def compare(comparison: Comparison, peers: Iterable[Peer], effort: Effort) -> Row:
    """Check, then time. The first peer is graphc, whose results are what the others' must be."""
    prepared = [peer.prepare(comparison.work, comparison.problem) for peer in peers]
    calls = {name: call for found in prepared for name, call in found.items()}
    expected: Arrays = {}
    for name, call in calls.items():
        results = call.results()
        expected = expected or {k: a.copy() for k, a in results.items()}
        check(f"{comparison.name}, {comparison.sizes}: {name}", results, expected, comparison.problem.tolerance)
    timings, others = undisturbed({name: call.run for name, call in calls.items()}, effort)
    steps = comparison.problem.steps if comparison.per_step else 1
    return Row(
        comparison.workload,
        comparison.name,
        comparison.sizes,
        comparison.per_step or comparison.work == "step",
        {name: timing.per(steps) for name, timing in timings.items()},
        others,
    )


def undisturbed(calls: Mapping[str, Callable[[], Any]], effort: Effort) -> tuple[dict[str, Timing], float]:
    """Times, and the cores that others took: of `ATTEMPTS` the first that was quiet, or the least disturbed."""
    attempts: list[tuple[dict[str, Timing], float]] = []
    while len(attempts) < ATTEMPTS and all(taken > QUIET for _, taken in attempts):
        before = now()
        attempts.append((interleaved(calls, effort), others(before)))
    return min(attempts, key=lambda attempt: attempt[1])


def check(what: str, found: Arrays, expected: Arrays, tolerance: float = TOLERANCE) -> None:
    """Raise `Mismatch` unless both have the same arrays, each within `tolerance` of its largest element."""
    floor = FLOOR * max(float(np.abs(a).max()) for a in expected.values())
    if set(found) != set(expected):
        raise Mismatch(f"{what} has {', '.join(sorted(found))}; graphc has {', '.join(sorted(expected))}")
    for name, wanted in expected.items():
        if found[name].shape != wanted.shape:
            raise Mismatch(f"{what}: {name} has shape {found[name].shape}; graphc's has {wanted.shape}")
        error, largest = float(np.abs(found[name] - wanted).max()), float(np.abs(wanted).max())
        if not error <= tolerance * max(largest, floor):
            raise Mismatch(f"{what}: {name} differs from graphc's by {error:.2g}, its largest element is {largest:.2g}")
