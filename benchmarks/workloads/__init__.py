"""The workloads: lists of comparisons, as data. `scaling`, and what `images` costs each
peer alone, are told apart: they run in processes of their own."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.compare import Comparison
from benchmarks.workloads import bfloat16, classification, custom, images, linear, lstm, streaming

COMPARISONS: dict[str, Callable[[bool], list[Comparison]]] = {
    "streaming": streaming.comparisons,
    "lstm": lstm.comparisons,
    "classification": classification.comparisons,
    "custom": custom.comparisons,
    "bfloat16": bfloat16.comparisons,
    "linear": linear.comparisons,
    "images": images.comparisons,
}
"""By name: quick or not → what is compared."""

IMAGES, SCALING = "images", "scaling"
NAMES = (*COMPARISONS, SCALING)
