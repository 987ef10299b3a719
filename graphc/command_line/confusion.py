"""A confusion matrix as SVG: of each class, by row, how many photographs were named as each class, by column."""

from __future__ import annotations

from xml.sax.saxutils import escape

import numpy as np

from graphc.command_line.predictions import Predictions
from graphc.command_line.svg import RIGHT, WRONG, cut, document

MOST = 50  # classes drawn
SIDE = 560  # of the matrix, in pixels, where cells have no bound to keep to
CELL = (12.0, 72.0)  # the least and the largest side of a cell
HEAD = 84  # title and the columns' caption
CHARACTER = 6.3  # the mean width of one, in pixels
NAME = 18  # characters of a class's name that are shown


def confusion_matrix(predictions: Predictions, title: str) -> str:
    """An SVG. A cell's depth is its share of its row: blue where right, orange where wrong.

    Of more than 50 classes, those with the most mistakes are drawn, and the caption says so.
    """
    shown = _shown(predictions.confusion)
    counts = predictions.confusion[np.ix_(shown, shown)]
    totals = predictions.confusion[shown].sum(axis=1)
    names = [cut(predictions.classes[k], NAME) for k in shown]
    cell = float(np.clip(SIDE / len(shown), *CELL))
    margin = round(CHARACTER * max(map(len, names))) + 40
    left, top = margin, HEAD + margin - 24
    caption = "rows: what it is; columns: what it was named"
    if len(shown) < len(predictions.classes):
        caption += f"; the {len(shown)} of {len(predictions.classes):,} classes with the most mistakes"
    width = max(left + cell * len(shown) + 24, 48 + 10.5 * len(title), 48 + 6.5 * len(caption))
    height = top + cell * len(shown) + 24
    parts = [
        f'<text x="24" y="32" font-size="17" font-weight="bold">{escape(title)}</text>',
        f'<text x="24" y="54" fill="#555">{caption}</text>',
        *(_row(names[i], counts[i], int(totals[i]), i, left, top + i * cell, cell) for i in range(len(shown))),
        *(_column(name, left + (k + 0.5) * cell, top - 8, cell) for k, name in enumerate(names)),
    ]
    return document(width, height, parts)


def _shown(counts: np.ndarray) -> np.ndarray:
    """The numbers of the classes to draw, ascending."""
    wrong = counts - np.diag(np.diag(counts))
    mistakes = wrong.sum(axis=0) + wrong.sum(axis=1)
    return np.sort(np.argsort(-mistakes, kind="stable")[:MOST])


def _row(name: str, counts: np.ndarray, total: int, row: int, left: float, y: float, cell: float) -> str:
    size = min(12.0, 0.8 * cell)
    parts = [f'<text x="{left - 8}" y="{y + cell / 2 + 4:.1f}" text-anchor="end" font-size="{size:.0f}">'
             f"{escape(name)}</text>"]  # fmt: skip
    for column, count in enumerate(map(int, counts)):
        share = count / total if total else 0.0
        x = left + column * cell
        fill = _shade(RIGHT if column == row else WRONG, share)
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="{fill}" stroke="#ddd"/>'
        )
        if count:
            colour = "white" if share > 0.5 else "#222"
            parts.append(_count(count, share, x + cell / 2, y + cell / 2, cell, colour))
    return "\n".join(parts)


def _count(count: int, share: float, x: float, y: float, cell: float, colour: str) -> str:
    """The number in a cell, as large as fits, and the share of its row where there is room for it."""
    room = cell >= 44
    size = min(15.0, 0.7 * cell, 1.5 * cell / len(str(count)))
    text = f'<text x="{x:.1f}" y="{y + (0 if room else size / 3):.1f}" text-anchor="middle" fill="{colour}"'
    number = f'{text} font-size="{size:.1f}">{count}</text>'
    below = f'<text x="{x:.1f}" y="{y + 15:.1f}" text-anchor="middle" fill="{colour}" font-size="11">{share:.0%}</text>'
    return number + (below if room else "")


def _column(name: str, x: float, y: float, cell: float) -> str:
    size = min(12.0, 0.8 * cell)
    place = f"translate({x + size / 3:.1f} {y:.1f}) rotate(-90)"
    return f'<text transform="{place}" font-size="{size:.0f}">{escape(name)}</text>'


def _shade(colour: str, share: float) -> str:
    """From white to a colour; the least that is more than nothing can be seen."""
    depth = 0.15 + 0.85 * share if share else 0.0
    return "#" + "".join(f"{round(255 + depth * (part - 255)):02x}" for part in bytes.fromhex(colour[1:]))
