"""profile: where the time of a call goes, statement by statement of its Program.

In: a compiled graph's stages, its runner, and the arrays of a call. Out: a `Profile`, measured in calls that keep
clocks, each thread its own. What is called a statement's time is that of the thread that took longest.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.codegen.cpu.clock import has_clock
from graphc.codegen.target import Target
from graphc.codegen.team.measure import this_core, tick
from graphc.errors import UnsupportedError
from graphc.pipeline.stages import Stages
from graphc.reporting.phrases import many
from graphc.reporting.profile_table import Line, table, title
from graphc.reporting.profile_words import Words
from graphc.runtime.cpu import Layout, Runner


@dataclass(frozen=True, slots=True)
class Part:
    """A statement: what it does, the seconds that it takes in a call, the operations of its products (a multiply-add is
    two), and how many threads share it."""

    what: str
    seconds: float
    operations: float
    threads: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a call goes: of several calls, the one in the middle. `seconds` are those of the whole call, on
    so many `threads`; `peak` is how many operations a second one core makes in products. `str` is a table.

    Parts that run beside each other, each on its own thread, take more together than the call. In the time that no part
    accounts for, threads wait for each other.
    """

    graph: str
    lengths: Mapping[str, int]
    seconds: float
    threads: int
    peak: float
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        lines = [Line(part.seconds, self._speed(part), part.what) for part in self.parts]
        rest = "beginning, ending, and waiting for each other"
        about = title(self.graph, self.lengths, self.seconds, many(self.threads, "thread"))
        return f"{about}\n\n{table('  GFLOP/s  of peak', lines, self.seconds, rest)}"

    def _speed(self, part: Part) -> str:
        rate = part.operations / part.seconds if part.seconds else 0.0
        return f"{rate * 1e-9:9.1f}{rate / (self.peak * part.threads):9.0%}" if rate else ""


def profile(made: Stages, runner: Runner, given: Mapping[str, Any], calls: int) -> Profile:
    """Measure so many calls, after one that is not counted. Arrays that the calls update are copied before."""
    if not has_clock(Target.host()):
        raise UnsupportedError("programs of this processor have no clock to read")
    copies = {name: np.array(array) if name in made.graph.updates else array for name, array in given.items()}
    call, clocks, layout = runner.clocked(copies)
    call()
    made_calls: list[tuple[float, np.ndarray]] = []
    for _ in range(calls):
        clocks[...] = 0
        begun = time.perf_counter()
        call()
        made_calls.append((time.perf_counter() - begun, clocks * tick()))
    seconds, spent = sorted(made_calls, key=lambda one: one[0])[calls // 2]
    core = this_core()
    return Profile(
        made.graph.name,
        {axis.name: extent for axis, extent in layout.sizes.items() if axis.is_open},
        seconds,
        layout.shares.threads,
        2 * core.products * Target.host().lanes(4) * core.clock,
        tuple(_parts(made, layout, spent)),
    )


def _parts(made: Stages, layout: Layout, spent: np.ndarray) -> Iterator[Part]:
    arranged = made.arranged
    others = (buffer for buffer in layout.code.program.buffers if buffer.name not in arranged.declared)  # of chunks
    words = Words(made, replace(arranged, buffers=(*arranged.buffers, *others)))
    for position, statement in enumerate(layout.code.program.body):
        each = spent[:, position]
        operations = words.operations(statement, layout.code.sizes)
        yield Part(
            words.statement(statement), float(each.max()), operations, max(1, int((each > each.max() / 10).sum()))
        )
