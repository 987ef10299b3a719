"""Timing of rival calls in one process: A B C A B C …, so that what else the machine does falls on all of them.

In: calls without arguments that return when their work is done. Out: a `Timing` each: median and quartiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLE = 2e-3  # seconds: calls shorter than this are repeated within a sample, until the clock's own time is nothing
PAUSE = 10e-3  # seconds between samples: peers' threads look for work for more than 5 ms, on everybody's cores


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `rounds` samples of each call, fewer once `seconds` are over, but at least `least`."""

    rounds: int
    seconds: float
    least: int = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a call: the median of the samples, the quartiles that half of them lie between, and the least."""

    median: float
    low: float
    high: float
    best: float
    samples: int

    def per(self, count: float) -> Timing:
        """The time of one of `count` equal parts of the call."""
        return Timing(self.median / count, self.low / count, self.high / count, self.best / count, self.samples)


def interleaved(calls: Mapping[str, Callable[[], Any]], effort: Effort) -> dict[str, Timing]:
    """Time the calls in turn. Each is called once or more beforehand, so that none is timed at its first call."""
    repeats = {name: _repeats(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for done in range(effort.rounds):
        if done >= effort.least and time.perf_counter() - begun > effort.seconds:
            break
        for name, call in calls.items():
            time.sleep(PAUSE)
            seconds[name].append(_sample(call, repeats[name]))
    return {name: summary(found) for name, found in seconds.items()}


def summary(seconds: list[float]) -> Timing:
    """Median and quartiles of samples, of which there is at least one."""
    low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
    return Timing(median, low, high, min(seconds), len(seconds))


def _repeats(call: Callable[[], Any]) -> int:
    """How many calls make one sample: by the second and third call, since the first may prepare something."""
    if _sample(call, 1) > 100 * SAMPLE:
        return 1
    return max(1, round(SAMPLE / max(min(_sample(call, 1), _sample(call, 1)), 1e-9)))


def _sample(call: Callable[[], Any], repeats: int) -> float:
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begun) / repeats
