"""The table of a profile: a line for each part of a call, with its time and its share of the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.reporting.phrases import at_lengths

_SMALL = 0.005  # of the time: parts that take less are named together
_WIDEST = 100  # characters of what is said of a part


@dataclass(frozen=True, slots=True)
class Line:
    """A part's seconds, its further figures, as wide as their heading, and what it does."""

    seconds: float
    figures: str
    what: str


def title(graph: str, lengths: Mapping[str, int], seconds: float, on: str) -> str:
    """What the table is of, and how long a call takes `on` what it runs on."""
    about = ", ".join(filter(None, (graph, at_lengths(lengths))))
    return f"{about}: {duration(seconds)} a call on {on}"


def table(heading: str, lines: Sequence[Line], seconds: float, rest: str) -> str:
    """The lines in order, below a `heading` of their figures. `rest` says what the time goes to that no line accounts
    for."""
    small = [line for line in lines if line.seconds < _SMALL * seconds]
    left = seconds - sum(line.seconds for line in lines)
    shown = [line for line in lines if line not in small]
    if small:
        shown.append(Line(sum(line.seconds for line in small), "", f"{len(small)} more"))
    if left > _SMALL * seconds:
        shown.append(Line(left, "", rest))
    text = [f"      time  share{heading}  part"]
    for line in shown:
        what = line.what if len(line.what) <= _WIDEST else line.what[: _WIDEST - 1] + "…"
        share = line.seconds / seconds
        text.append(f"{duration(line.seconds):>10}{share:7.1%}{line.figures:{len(heading)}}  {what}")
    return "\n".join(text) + "\n"


def duration(seconds: float) -> str:
    """A time in the unit that suits it: 0.0012 is "1.2 ms"."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
