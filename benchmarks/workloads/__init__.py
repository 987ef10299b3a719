"""The workloads: lists of comparisons, as data. `scaling` is told apart: it runs in processes of its own."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.compare import Comparison
from benchmarks.workloads import custom, linear, lstm, streaming

COMPARISONS: dict[str, Callable[[bool], list[Comparison]]] = {
    "streaming": streaming.comparisons,
    "lstm": lstm.comparisons,
    "custom": custom.comparisons,
    "linear": linear.comparisons,
}
"""By name: quick or not → what is compared."""

SCALING = "scaling"
NAMES = (*COMPARISONS, SCALING)
