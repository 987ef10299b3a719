"""What stands where in a thread's row of the table of shares, which the runtime fills in and the code reads.

A row is a line of 64-bit words:

    the thread's number | the address of its clocks | a mode for each top-level statement
    | for each wavefront: rounds, block, a lag for each stage
    | for each kernel: runs, and first, end for each of its dims that can be cut

So for a program of two statements, with a kernel of one such dim and a kernel of two:

    >>> row = Row(statements=2, stages=(), cuts={"pack": 1, "h": 2})
    >>> row.mode(0), row.mode(1)
    (2, 3)
    >>> row.runs("pack"), row.first("pack", 0), row.end("pack", 0)
    (4, 5, 6)
    >>> row.runs("h"), row.first("h", 0), row.end("h", 0), row.first("h", 1), row.end("h", 1)
    (7, 8, 9, 10, 11)
    >>> row.words
    12
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CLOCKS", "SKIPPED", "THREAD", "Row"]

SKIPPED = -1  # in the place of a mode or of a lag: another thread runs it
THREAD = 0  # where a thread's number stands
CLOCKS = 1  # and the address of its clocks, one for each top-level statement; 0 if none are kept


@dataclass(frozen=True)
class Row:
    """A row for so many top-level `statements`, for wavefronts of so many `stages`, and for kernels, by name, of which
    so many dims can be cut. Each word is given by its place."""

    statements: int
    stages: tuple[int, ...]
    cuts: Mapping[str, int]

    def mode(self, statement: int) -> int:
        """By which strategy a top-level statement runs, as a power of two; 0: whole; `SKIPPED`: on another thread."""
        return CLOCKS + 1 + statement

    def rounds(self, wave: int) -> int:
        """How many rounds a wavefront takes; 0: its statements run one after another."""
        return self.mode(self.statements) + sum(2 + stages for stages in self.stages[:wave])

    def block(self, wave: int) -> int:
        """How many steps a block of a wavefront has."""
        return self.rounds(wave) + 1

    def lag(self, wave: int, stage: int) -> int:
        """How many rounds a stage of a wavefront lags behind; `SKIPPED`: another thread runs it."""
        return self.rounds(wave) + 2 + stage

    def runs(self, kernel: str) -> int:
        """Whether the thread runs a kernel."""
        return self._kernels[kernel]

    def first(self, kernel: str, cut: int) -> int:
        """The first point of the thread's part, along one of a kernel's cuts."""
        return self.runs(kernel) + 1 + 2 * cut

    def end(self, kernel: str, cut: int) -> int:
        """The point after the last one of that part."""
        return self.first(kernel, cut) + 1

    @functools.cached_property
    def words(self) -> int:
        """The length of a row."""
        return self._begin + sum(1 + 2 * cuts for cuts in self.cuts.values())

    @property
    def _begin(self) -> int:
        """Where the words of the kernels begin."""
        return self.rounds(len(self.stages))

    @functools.cached_property
    def _kernels(self) -> dict[str, int]:
        """Where the words of each kernel begin."""
        found, position = {}, self._begin
        for name, cuts in self.cuts.items():
            found[name] = position
            position += 1 + 2 * cuts
        return found
