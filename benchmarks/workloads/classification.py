"""One class for a whole sequence: the loss reads the last step alone, and the gradient vanishes on its way back.

Below 1.2e-38 numbers of float32 are denormal, which take a processor a hundred cycles each unless it is told to take
them for zero (`graphc.codegen.cpu.denormals`).
"""

from __future__ import annotations

from benchmarks.compare import Comparison
from benchmarks.problems import Sequence


def comparisons(quick: bool) -> list[Comparison]:
    steps = 256 if quick else 1024
    return [Comparison("classification", "training", Sequence(cell, steps, 16, 128, True)) for cell in ("LSTM", "GRU")]
