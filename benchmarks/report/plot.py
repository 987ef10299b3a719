"""The plots of a run: every peer's time beside graphc's, and what a longer sequence costs.

Colours are those of Okabe & Ito, which everybody can tell apart; shapes differ too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.compare import Row
from benchmarks.report.table import duration
from benchmarks.workloads.scaling import Point

matplotlib.use("Agg")  # no windows
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "graphc",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
MARKS = {
    "graphc": ("#000000", "o"),
    "graphc, float32": ("#999999", "o"),
    "PyTorch": ("#D55E00", "s"),
    "JAX": ("#0072B2", "^"),
    "JAX associative": ("#56B4E9", "v"),
    "ONNX Runtime": ("#009E73", "D"),
}


def ratios(path: Path, title: str, rows: Sequence[Row]) -> None:
    """For each row, the peers' times divided by graphc's on a logarithmic axis: right of 1, graphc is faster."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(9, 1.6 + 0.22 * len(rows)), layout="constrained")
        for name in dict.fromkeys(name for row in rows for name in row.timings if name != "graphc"):
            colour, mark = MARKS[name]
            own = [(place, row) for place, row in enumerate(rows) if name in row.timings]
            axes.scatter(
                [row.ratio(name) for _, row in own],
                [place for place, _ in own],
                edgecolors=colour,
                facecolors=["white" if row.disturbed else colour for _, row in own],
                marker=mark,
                s=26,
                alpha=0.85,
                zorder=3,
            )
            axes.scatter([], [], color=colour, marker=mark, s=26, label=name)
        _ratio_axis(axes)
        _row_axis(axes, rows)
        figure.suptitle(
            f"{title}\nEach peer's time ÷ graphc's, whose own stands at the left", x=0.01, ha="left", fontsize=9
        )
        figure.legend(loc="outside lower right", ncols=4, frameon=False)
        _save(figure, path)


def _ratio_axis(axes: Any) -> None:
    axes.set_xscale("log")
    low, high = min(axes.get_xlim()[0], 0.5), max(axes.get_xlim()[1], 2)
    axes.axvline(1, color="black", linewidth=1)
    axes.axvspan(low, 1, color="#D55E00", alpha=0.08, linewidth=0)
    axes.set_xlim(low, high)
    axes.grid(axis="x", which="both", color="#e4e4e4", linewidth=0.5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("shaded: the peer is faster; hollow: disturbed by other processes")


def _row_axis(axes: Any, rows: Sequence[Row]) -> None:
    """A line for each row, the first on top, and one between workloads."""
    labels = [f"{row.name}, {row.sizes}   {duration(row, 'graphc')}" for row in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", color="#f0f0f0", linewidth=0.5)
    for place, (before, row) in enumerate(pairwise(rows)):
        if row.workload != before.workload:
            axes.axhline(place + 0.5, color="#999999", linewidth=0.7)


def scaling(path: Path, title: str, points: Sequence[Point]) -> None:
    """Compile seconds, run seconds and peak memory against the length of the sequence."""
    panels: tuple[tuple[str, Callable[[Point], float | None]], ...] = (
        ("build and compile, s", lambda p: p.cost.prepare),
        ("one training step, ms", lambda p: 1e3 * p.cost.run),
        ("peak memory, MB", lambda p: p.cost.peak and p.cost.peak / 1e6),
    )
    with plt.rc_context(STYLE):
        figure, plots = plt.subplots(1, len(panels), figsize=(9, 3.2), layout="constrained")
        for axes, (label, value) in zip(plots, panels, strict=True):
            for name in dict.fromkeys(p.cost.peer for p in points):
                own = [p for p in points if p.cost.peer == name and value(p)]
                colour, mark = MARKS[name]
                line = {"color": colour, "marker": mark, "markersize": 4, "linewidth": 1.2, "label": name}
                axes.plot([p.steps for p in own], [value(p) for p in own], **line)
            axes.set_title(label, fontsize=9)
            _length_axis(axes)
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False)
        _save(figure, path)


def _length_axis(axes: Any) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("T")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}" if x < 1024 else f"{x / 1024:g}k"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.grid(color="#e4e4e4", linewidth=0.5)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)
    plt.close(figure)
