"""LSTM and GRU, for which the peers have kernels of their own: inference and training over a batch."""

from __future__ import annotations

from benchmarks.compare import Comparison
from benchmarks.problems import Sequence


def comparisons(quick: bool) -> list[Comparison]:
    sizes = ((128, 32, 256), (128, 64, 512))[: 1 if quick else None]
    return [
        Comparison("lstm", work, Sequence(cell, *size))
        for size in sizes
        for cell in ("LSTM", "GRU")
        for work in ("forward", "training")
    ]
