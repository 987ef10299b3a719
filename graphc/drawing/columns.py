"""Where the vertices of an unrolled graph stand: one column per step, time from left to right, data upwards.

The first column holds what the steps share (params), the last one what is made of several steps (a loss). A row is
as far up as the longest path to it; states and outputs of one name share a row. Within a column, the order in a row
follows the neighbours below and above (the barycentre heuristic of Sugiyama, Tagawa & Toda 1981).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.drawing.picture import Picture, Step, Vertex

ROW = 62.0  # all lengths are in points: from row to row,
GAP = 16.0  # between two vertices,
PADDING = 14.0  # and from a column's edge to what is in it
LETTER = 7.0
SWEEPS = 4
BEYOND = {  # how far a shape goes beyond its text: its least width, what it adds, and its width for each of the text's
    **dict.fromkeys(("op", "state"), (46.0, 28.0, 1.25)),
    "output": (30.0, 14.0, 1.45),
}

Cells = dict[int, dict[int, list[str]]]  # the vertices by column and row


@dataclass(frozen=True, slots=True)
class Column:
    """From `left` to `right`; `step` is None for the columns before the first step and after the last."""

    step: Step | None
    left: float
    right: float


@dataclass(frozen=True, slots=True)
class Grid:
    """The centres of the vertices, and the columns."""

    places: Mapping[str, tuple[float, float]]
    columns: tuple[Column, ...]
    height: float


def grid(picture: Picture) -> Grid:
    steps = sorted({v.step for v in picture.vertices if v.step is not None})
    column = _column_of(picture, steps)
    level = _levels(picture, column)
    widths = {v.key: width(v) for v in picture.vertices}
    cells: Cells = {k: defaultdict(list) for k in range(len(steps) + 2)}
    for vertex in picture.vertices:
        cells[column[vertex.key]][level[vertex.key]].append(vertex.key)
    for rows in cells.values():
        _order(picture, rows)
    places: dict[str, tuple[float, float]] = {}
    columns = []
    left = 0.0
    for k, step in enumerate([None, *steps, None]):
        sizes = {row: sum(widths[key] for key in keys) + GAP * (len(keys) - 1) for row, keys in cells[k].items()}
        if not sizes:
            continue
        right = left + max(sizes.values()) + 2 * PADDING
        columns.append(Column(step, left, right))
        for row, keys in cells[k].items():
            x = (left + right - sizes[row]) / 2
            for key in keys:
                places[key] = (x + widths[key] / 2, row * ROW)
                x += widths[key] + GAP
        left = right + PADDING
    return Grid(places, tuple(columns), ROW * max(level.values(), default=0))


def width(vertex: Vertex) -> float:
    """About what Graphviz gives it: where vertices touch, it lets all arrows run straight through them."""
    least, around, wider = BEYOND.get(vertex.kind, (30.0, 20.0, 1.0))
    return max(least, around + wider * LETTER * max(map(len, vertex.lines)))


def _column_of(picture: Picture, steps: Sequence[Step]) -> dict[str, int]:
    """Each vertex's column: its step's, or the last for what is made of steps, or the first."""
    number = {step: k for k, step in enumerate(steps, 1)}
    column = {v.key: number[v.step] if v.step is not None else 0 for v in picture.vertices}
    free = {v.key for v in picture.vertices if v.step is None}
    heads = defaultdict(list)
    for arrow in picture.arrows:
        heads[arrow.tail].append(arrow.head)
    stack = [key for key in column if key not in free]
    while stack:
        for head in heads[stack.pop()]:
            if head in free:
                free.remove(head)
                column[head] = len(steps) + 1
                stack.append(head)
    return column


def _levels(picture: Picture, column: Mapping[str, int]) -> dict[str, int]:
    """The row of each vertex, counted from below."""
    last = 1 + len({v.step for v in picture.vertices if v.step is not None})
    level = {v.key: 0 if v.kind in ("input", "param") else 1 for v in picture.vertices}
    flows = [(a.tail, a.head) for a in picture.arrows if column[a.head] in (column[a.tail], last)]
    alike: dict[str, list[str]] = defaultdict(list)
    for vertex in picture.vertices:
        if vertex.step is not None and vertex.row:
            alike[vertex.row].append(vertex.key)
    for _ in range(2 * len(level)):  # longest paths; ends early unless rows that are alike lie on a cycle
        before = dict(level)
        for tail, head in flows:
            level[head] = max(level[head], level[tail] + 1)
        for keys in alike.values():
            level |= dict.fromkeys(keys, max(level[key] for key in keys))
        if level == before:
            break
    for vertex in reversed(picture.vertices):  # what the steps share stands just below its first use
        if column[vertex.key] == 0:
            uses = [level[a.head] for a in picture.arrows if a.tail == vertex.key]
            level[vertex.key] = max(level[vertex.key], min(uses, default=0) - 1)
    return level


def _order(picture: Picture, rows: Mapping[int, list[str]]) -> None:
    """Order each row of a column so that few arrows cross."""
    inside = {key for keys in rows.values() for key in keys}
    near: dict[bool, dict[str, list[str]]] = {True: defaultdict(list), False: defaultdict(list)}
    for arrow in picture.arrows:
        if arrow.tail in inside and arrow.head in inside:
            near[True][arrow.head].append(arrow.tail)
            near[False][arrow.tail].append(arrow.head)
    position = {key: k - len(keys) / 2 for keys in rows.values() for k, key in enumerate(keys)}
    for sweep in range(SWEEPS):
        upwards = sweep % 2 == 0
        for row in sorted(rows, reverse=not upwards):
            centres = {
                key: sum(position[n] for n in near[upwards][key]) / len(near[upwards][key])
                if near[upwards][key]
                else position[key]
                for key in rows[row]
            }
            rows[row].sort(key=centres.__getitem__)
            position |= {key: k - len(rows[row]) / 2 for k, key in enumerate(rows[row])}
