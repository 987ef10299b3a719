"""A batch of one, as in audio or control: time for a step, in a call over many steps, and in a call of one step."""

from __future__ import annotations

from benchmarks.compare import Comparison
from benchmarks.problems import Sequence

STEPS = 1024
SOME = 16  # of a call each, for the comparison of results


def comparisons(quick: bool) -> list[Comparison]:
    sizes = (32, 256) if quick else (32, 64, 128, 256)
    return [
        comparison
        for cell in ("LSTM", "GRU")
        for units in sizes
        for comparison in (
            Comparison("streaming", "forward", Sequence(cell, STEPS, 1, units), per_step=True),
            Comparison("streaming", "step", Sequence(cell, SOME, 1, units)),
        )
    ]
