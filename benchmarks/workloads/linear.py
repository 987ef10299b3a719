"""h[t] = a[t] ⊙ h[t-1] + b[t], the recurrence of state-space models, over many channels and long sequences."""

from __future__ import annotations

import os

from benchmarks.compare import Comparison
from benchmarks.problems import Linear

CHANNELS = 1536
BATCH = 8
ARRAYS = 60  # of (T, N, C) that fit into the memory: all peers' inputs, results and temporaries in training


def comparisons(quick: bool) -> list[Comparison]:
    lengths = (1024,) if quick else (4096, 16384, 65536)
    return [
        Comparison("linear", work, Linear(steps, batch(steps, memory()), CHANNELS))
        for steps in lengths
        for work in ("forward", "training")
    ]


def batch(steps: int, available: int) -> int:
    """As many sequences as fit into so many bytes, at most `BATCH`; the table shows how many."""
    return max(1, min(BATCH, available // (ARRAYS * 4 * steps * CHANNELS)))


def memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
