"""What each sweep of a program in chunks runs: its own statements, and again those whose values it needs.

In: the sweeps of a program (`graphc.codegen.memory.sweeps`). Out: a `Run` for each. Of most values only one chunk is
kept, the current one. So a sweep computes again what earlier sweeps stored of the chunk: a network's gradient begins
every chunk with the network. What a chunk reads of its neighbours cannot be had so; it must be kept for every chunk, by
the sweep that stores it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from graphc.codegen.memory.plan import with_stores
from graphc.codegen.memory.sweeps import Scheduled, Sweeps, reads_along
from graphc.codegen.program import Statement
from graphc.codegen.uses import loaded
from graphc.errors import UnsupportedError

__all__ = ["Run", "Side", "check_params", "halos_of", "runs_of"]

Side = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class Run:
    """What one sweep runs: statements that compute and store no more than is needed; and `neighbours`, the buffers of
    which it reads the chunk before or after."""

    statements: tuple[Statement, ...]
    neighbours: frozenset[tuple[str, Side]]


def runs_of(found: Sweeps, axis: str) -> list[Run]:
    """What each sweep runs. They are made from the last to the first: what a sweep reads of neighbours, an earlier one
    must keep."""
    kept: set[tuple[str, Side]] = set()
    runs: list[Run] = []
    for sweep in reversed(range(len(found.descending))):
        while True:  # it may itself keep what it reads of neighbours
            saved = {name for name, _ in kept if found.home(name) == sweep}
            run = _run(found, axis, sweep, saved)
            if run.neighbours <= kept:
                break
            kept |= run.neighbours
        runs.append(run)
    return runs[::-1]


def _run(found: Sweeps, axis: str, sweep: int, saved: set[str]) -> Run:
    """What a sweep runs to make its own results, and the buffers of which it keeps checkpoints (`saved`). From the last
    statement to the first: each makes no more than those behind it need."""
    needed = set(saved)
    neighbours: set[tuple[str, Side]] = set()
    statements: list[Statement] = []
    for scheduled in reversed(found.order):
        if not scheduled.item.piecewise or scheduled.sweep > sweep:
            continue
        keep = set(needed) if scheduled.sweep < sweep else needed | (scheduled.stores - set(found.along))
        statement = _reduced(scheduled, keep, found, axis)
        if statement is None:
            continue
        statements.append(statement)
        for name, reach in reads_along(statement, axis).items():
            if name in found.along:
                assert reach is not None
                needed.add(name)
                neighbours |= {(name, "before")} if reach[0] < 0 else set()
                neighbours |= {(name, "after")} if reach[1] > 0 else set()
    return Run(tuple(statements[::-1]), frozenset(neighbours))


def _reduced(scheduled: Scheduled, keep: set[str], found: Sweeps, axis: str) -> Statement | None:
    """The statement, reduced to what makes the buffers to keep, and what its own later steps need for that."""
    while True:
        statement = with_stores(scheduled.item.statement, keep)
        if statement is None:
            return None
        more = {b for b in reads_along(statement, axis) if b in scheduled.stores and b in found.along} - keep
        if not more:
            return statement
        keep = keep | more


def halos_of(runs: Sequence[Run], axis: str) -> dict[str, tuple[int, int]]:
    """For each buffer, how many steps before and after a chunk are read, in any sweep."""
    found: dict[str, tuple[int, int]] = {}
    for run in runs:
        names = {name for name, _ in run.neighbours}
        for statement in run.statements:
            for name, reach in reads_along(statement, axis).items():
                if name in names and reach is not None:
                    before, after = found.get(name, (0, 0))
                    found[name] = (max(before, -reach[0]), max(after, reach[1]))
    return found


def check_params(found: Sweeps, runs: Sequence[Run], params: set[str]) -> None:
    """Raise `UnsupportedError` if a sweep reads a param after it was overwritten."""
    for scheduled in (s for s in found.order if s.stores & params):
        later = loaded(statement for run in runs[scheduled.sweep :] for statement in run.statements)
        if both := scheduled.stores & params & later:
            names = ", ".join(sorted(both))
            raise UnsupportedError(
                f"memory cannot be limited here: {names} is updated as soon as its new value is known, but values "
                f"that depend on {names} are computed again after that; compile without memory"
            )
