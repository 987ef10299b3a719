"""Results as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import HORIZONTALS
from rich.table import Table

from benchmarks.alone import Cost
from benchmarks.compare import Row


def times(title: str, rows: Sequence[Row]) -> Table:
    """A column for each peer: its median ± half of what lies between the quartiles, and how often graphc's it is."""
    peers = list(dict.fromkeys(name for row in rows for name in row.timings))
    heading = f"{title}: median, spread, and time ÷ graphc's (red: graphc is slower)"
    table = Table("", title=heading, box=HORIZONTALS, show_lines=True, padding=0, pad_edge=False)
    table.columns[0].no_wrap = True
    for name in peers:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        mark = " [red]![/]" if row.disturbed else ""
        table.add_row(f"{row.name}{mark}\n[dim]{row.sizes}[/]", *(_cell(row, name) for name in peers))
    return table


def duration(row: Row, name: str) -> str:
    """A peer's median with its unit, which is a step's where the row says so."""
    seconds = row.timings[name].median
    return f"{significant(1e6 * seconds)} µs" if row.per_step else f"{significant(1e3 * seconds)} ms"


def _cell(row: Row, name: str) -> str:
    if name not in row.timings:
        return "–"
    timing = row.timings[name]
    spread = 50 * (timing.high - timing.low) / timing.median
    text = f"{duration(row, name)} [dim]±{spread:.0f}%[/]"
    if name == "graphc":
        return text
    ratio = row.ratio(name)
    return f"{text}\n[{'green' if ratio >= 1 else 'red'}]× {significant(ratio)}[/]"


def costs(title: str, lines: Iterable[tuple[str, Cost]]) -> Table:
    """One line for each peer, with what tells it from others of the same peer."""
    table = Table("", "", "compile s", "run ms", "peak MB", title=title, box=HORIZONTALS)
    for label, cost in lines:
        peak = "–" if cost.peak is None else significant(cost.peak / 1e6)
        figures = (significant(cost.prepare), significant(1e3 * cost.run), peak)
        table.add_row(f"{cost.peer} !" if cost.disturbed else cost.peer, label, *figures)
    return table


def significant(value: float) -> str:
    """Three significant digits, without an exponent: 0.0123, 1.23, 12.3, 123, 12345."""
    digits = 2
    while digits < 6 and value and abs(value) * 10 ** (digits - 2) < 0.9995:
        digits += 1
    return f"{value:.{digits if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0}f}"
