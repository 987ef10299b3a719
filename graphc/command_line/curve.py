"""A learning curve as SVG: the quantities of a training history, each scaled to its own panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from graphc.command_line.svg import document

WIDTH, HEIGHT = 560, 170  # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 30, 34  # margins
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # distinguishable with every kind of colour vision


def learning_curve(history: Sequence[Mapping[str, float]]) -> str:
    """An SVG with one panel for each quantity of the history, drawn over the epochs.

    Quantities that share their last word ("accuracy" and "test_accuracy") share a panel.
    """
    panels: dict[str, list[str]] = {}
    for name in history[0] if history else ():
        if name != "epoch" and all(isinstance(h.get(name), int | float) for h in history):
            panels.setdefault(name.split("_")[-1], []).append(name)
    body = [_panel(history, names, k * HEIGHT) for k, names in enumerate(panels.values())]
    return document(WIDTH, HEIGHT * max(len(panels), 1), body)


def _panel(history: Sequence[Mapping[str, float]], names: Sequence[str], top: int) -> str:
    values = [float(h[name]) for name in names for h in history if math.isfinite(h[name])]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high == low:
        low, high = low - 0.5, high + 0.5
    last = max(len(history) - 1, 1)

    def across(k: int) -> float:
        return LEFT + k / last * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return top + TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in _ticks(low, high):
        y = down(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{tick:g}</text>')
    for k in sorted({0, last // 2, last}):
        parts.append(
            f'<text x="{across(k):.1f}" y="{top + HEIGHT - 14}" text-anchor="middle" fill="#555">{k + 1}</text>'
        )
    for k, name in enumerate(names):
        colour = COLOURS[k % len(COLOURS)]
        points = [(across(i), down(h[name])) for i, h in enumerate(history) if math.isfinite(h[name])]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f"{name.replace('_', ' ')} {history[-1][name]:.3g}"
        parts.append(f'<text x="{LEFT + 170 * k}" y="{top + 18}" fill="{colour}">{escape(label)}</text>')
    return "\n".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that span a range."""
    step = 10 ** math.floor(math.log10((high - low) / 2))
    while (high - low) / step > 5:
        step *= 2
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]
