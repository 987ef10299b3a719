"""Cells that no vendor has a kernel for, which is what researchers try: T 256, a batch of 16, 128 units."""

from __future__ import annotations

from benchmarks.compare import Comparison
from benchmarks.problems import Sequence

CELLS = ("peephole LSTM", "LayerNorm LSTM", "sLSTM", "mLSTM", "LEM", "minGRU")


def comparisons(quick: bool) -> list[Comparison]:
    steps = 64 if quick else 256
    return [
        Comparison("custom", work, Sequence(cell, steps, 16, 128)) for cell in CELLS for work in ("forward", "training")
    ]
