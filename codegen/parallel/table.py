"""The table of shares: a row for each thread, which says what the thread runs.

In: the strategy of each top-level statement, how each wavefront runs, the sizes of a call. Out: the table, whose words
stand where `graphc.codegen.parallel.row` says.

In a batch of 24, with the statement that packs W left to the first thread, and the loop cut along the batch:

    >>> import graphc as gc
    >>> from graphc.codegen.parallel.partition import partition
    >>> from graphc.codegen.target import Target
    >>> from graphc.pipeline.stages import stages
    >>> g = gc.Graph("elman")
    >>> t, n = g.axis("t"), g.axis("n")
    >>> W, h, x = g.param("W", (512, 512)), g.state("h", (512,), over=(t, n)), g.input("x", (512,), over=(t, n))
    >>> h[t] = gc.tanh(W @ h[t - 1] + x)
    >>> g.output("h", h)
    >>> program = stages(g).program
    >>> found = partition(program, Target("x86_64-unknown-linux-gnu", "skylake-avx512"))
    >>> _, (along_batch, along_units) = found.strategies
    >>> for row in table(program, found, {"t": 100, "n": 24}, 2, (None, along_batch), ()):
    ...     print(*row)
    0 0   0 1   1  0 512  0 512   1   0 12  0 512
    1 0  -1 1   0  0 512  0 512   1  12 24  0 512

Here are the thread and its clocks, the modes of the two statements, and of each kernel whether it runs and its part of
two dims. The kernel h has n < 12 on the first thread, and the rest on the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from graphc.codegen.lengths import evaluate
from graphc.codegen.parallel.partition import Cut, Partition, Strategy
from graphc.codegen.parallel.row import SKIPPED, THREAD
from graphc.codegen.parallel.wavefront_schedule import Rounds
from graphc.codegen.program import Program, kernels

__all__ = ["Table", "bounds", "table"]

Table = npt.NDArray[np.int64]


def bounds(cut: Cut, sizes: Mapping[str, int], threads: int) -> list[int]:
    """Where a dim is cut: the first point of each thread's part, and the end of the last one."""
    extent = evaluate(cut.extent, sizes)
    grains = -(-extent // cut.grain)
    return [min(extent, grains * k // threads * cut.grain) for k in range(threads + 1)]


def table(
    program: Program,
    partition: Partition,
    sizes: Mapping[str, int],
    threads: int,
    chosen: Sequence[Strategy | None],
    waves: Sequence[Rounds | None],
) -> Table:
    """A row for each thread, given the strategy of each top-level statement (None: the first thread runs it whole), and
    how each wavefront runs (None: its statements run one after another)."""
    row = partition.row
    rows = np.zeros((threads, row.words), np.int64)
    rows[:, THREAD] = range(threads)
    for k, (statement, strategy) in enumerate(zip(program.body, chosen, strict=True)):
        if strategy is None:
            rows[1:, row.mode(k)] = SKIPPED
        else:
            rows[:, row.mode(k)] = 1 << partition.strategies[k].index(strategy)
        for kernel in kernels((statement,)):
            own = strategy.cuts.get(kernel.name) if strategy is not None else None
            runs = row.runs(kernel.name)
            rows[0, runs] = 1  # what is not cut, the first thread runs
            for position, cut in enumerate(partition.cuts[kernel.name]):
                first, end = row.first(kernel.name, position), row.end(kernel.name, position)
                rows[:, end] = evaluate(cut.extent, sizes)
                if own is not None and own.index == cut.index:
                    places = bounds(own, sizes, threads)
                    rows[:, first], rows[:, end] = places[:-1], places[1:]
                    rows[:, runs] = rows[:, first] < rows[:, end]
    for number, made in enumerate(waves):
        if made is not None:
            _enter(rows, made, number, partition, program)
    return rows


def _enter(rows: Table, made: Rounds, number: int, partition: Partition, program: Program) -> None:
    """Write into the table how a wavefront runs: each stage whole, on its own thread."""
    row = partition.row
    rows[:, row.rounds(number)], rows[:, row.block(number)] = made.rounds, made.block
    for k, stage in enumerate(partition.wavefronts[number].stages):
        lags = [made.lags[k] if made.owners[k] == thread else SKIPPED for thread in range(len(rows))]
        rows[:, row.lag(number, k)] = lags
        rows[:, row.mode(stage.position)] = 0
        for kernel in kernels((program.body[stage.position],)):
            rows[:, row.runs(kernel.name)] = 1
