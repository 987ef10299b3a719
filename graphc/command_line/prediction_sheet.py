"""Photographs beside what a network says of them, as one SVG that holds the pictures."""

from __future__ import annotations

import base64
from xml.sax.saxutils import escape

import numpy as np

from graphc.command_line.predictions import Predictions
from graphc.command_line.svg import RIGHT, WRONG, cut, document
from graphc.datasets.decode import Unreadable, thumbnail
from graphc.datasets.names import printable

COLUMNS, ROWS = 6, 4
PHOTOGRAPH = 128  # the sides that one is kept within, in pixels
TILE_WIDTH, TILE_HEIGHT = PHOTOGRAPH + 28, PHOTOGRAPH + 68
MARGIN, HEAD = 24, 78
NAME = 17  # characters of a class's name that fit below a photograph
NAME_BESIDE = 12  # and in bold beside a percentage


def prediction_sheet(predictions: Predictions, title: str) -> str:
    """An SVG of up to 24 photographs, each with its class, the class that it was named, and that one's probability.

    At most half are mistakes, if there are others: the surest first. The others are spread over the classes.
    """
    tiles = [_tile(predictions, int(k), place) for place, k in enumerate(chosen(predictions))]
    wrong = len(predictions) - predictions.right
    order = f"mistakes come first, the surest at the head; {wrong:,} in all" if wrong else "there are no mistakes"
    caption = f"bold: what each was named, and how probable that was; {order}"
    width = 2 * MARGIN + COLUMNS * TILE_WIDTH
    height = HEAD + -(-len(tiles) // COLUMNS) * TILE_HEIGHT + MARGIN
    head = (
        f'<text x="{MARGIN + 14}" y="34" font-size="17" font-weight="bold">{escape(title)}</text>',
        f'<text x="{MARGIN + 14}" y="56" fill="#555">{caption}</text>',
    )
    return document(width, height, (*head, *tiles))


def chosen(predictions: Predictions) -> np.ndarray:
    """Which photographs are shown: mistakes, the surest first, then others, spread evenly."""
    room = COLUMNS * ROWS
    is_right = predictions.named == predictions.label
    wrong, right = np.flatnonzero(~is_right), np.flatnonzero(is_right)
    surest = wrong[np.argsort(-predictions.probabilities[wrong].max(axis=1), kind="stable")]
    mistakes = surest[: max(room // 2, room - len(right))]
    count = min(room - len(mistakes), len(right))
    spread = right[np.arange(count) * len(right) // max(count, 1)]
    return np.concatenate([mistakes, spread])


def _tile(predictions: Predictions, k: int, place: int) -> str:
    photograph = predictions.photographs[k]
    named = int(predictions.named[k])
    probability = float(predictions.probabilities[k, named])
    colour = RIGHT if named == photograph.label else WRONG
    x, y = MARGIN + place % COLUMNS * TILE_WIDTH + 14, HEAD + place // COLUMNS * TILE_HEIGHT
    is_, was = predictions.classes[photograph.label], predictions.classes[named]
    text = f"{printable(photograph.path.name)}: {is_}, named {was} with probability {probability:.3f}"
    below = y + PHOTOGRAPH
    return (
        f"<g><title>{escape(text)}</title>\n"
        f"{_picture(predictions, k, x, y, colour)}\n"
        f'<rect x="{x}" y="{below + 6}" width="{PHOTOGRAPH}" height="4" fill="#e5e5e5"/>'
        f'<rect x="{x}" y="{below + 6}" width="{PHOTOGRAPH * probability:.1f}" height="4" fill="{colour}"/>\n'
        f'<text x="{x}" y="{below + 27}" fill="{colour}" font-weight="bold">{escape(cut(was, NAME_BESIDE))}</text>'
        f'<text x="{x + PHOTOGRAPH}" y="{below + 27}" fill="{colour}" text-anchor="end">{probability:.0%}</text>\n'
        f'<text x="{x}" y="{below + 44}" fill="#555">{"is" if named == photograph.label else "but is"} '
        f"{escape(cut(is_, NAME))}</text></g>"
    )


def _picture(predictions: Predictions, k: int, x: int, y: int, colour: str) -> str:
    """The photograph in a frame, in the middle of its place; an empty place where the file is gone by now."""
    try:
        data, width, height = thumbnail(predictions.photographs[k].path, PHOTOGRAPH)
    except Unreadable:
        return f'<rect x="{x}" y="{y}" width="{PHOTOGRAPH}" height="{PHOTOGRAPH}" fill="#eee" stroke="{colour}"/>'
    left, top = x + (PHOTOGRAPH - width) / 2, y + (PHOTOGRAPH - height) / 2
    return (
        f'<image x="{left}" y="{top}" width="{width}" height="{height}" '
        f'href="data:image/png;base64,{base64.b64encode(data).decode("ascii")}"/>'
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{colour}" stroke-width="3"/>'
    )
