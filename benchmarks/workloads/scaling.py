"""What a longer sequence costs: seconds to compile, seconds to run, and bytes, in training, against T."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.alone import Cost, measure
from benchmarks.problems import Sequence

CELL, BATCH, UNITS = "LSTM", 4, 64
TITLE = f"{CELL} training, N {BATCH}, H {UNITS}, each peer in a process of its own"


@dataclass(frozen=True, slots=True)
class Point:
    """One peer at one length."""

    steps: int
    cost: Cost


def lengths(quick: bool) -> tuple[int, ...]:
    return (16, 256, 4096) if quick else (16, 64, 256, 1024, 4096, 16384, 65536)


def point(peer: str, steps: int, threads: int) -> Point:
    return Point(steps, measure(peer, Sequence(CELL, steps, BATCH, UNITS), threads))
