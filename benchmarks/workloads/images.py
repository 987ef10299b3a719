"""The image model: inference and a step of training; and what the step costs each peer alone, in memory above all."""

from __future__ import annotations

from benchmarks.compare import Comparison, Work
from benchmarks.images import Images

RIVALS = ("graphc", "PyTorch")  # those that have the model
TITLE = "a training step, each peer in a process of its own"


def problem(quick: bool) -> Images:
    return Images(8 if quick else 32)


def comparisons(quick: bool) -> list[Comparison]:
    works: tuple[Work, ...] = ("forward", "training")
    return [Comparison("images", work, problem(quick)) for work in works]
