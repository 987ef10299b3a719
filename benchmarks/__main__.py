"""Run the benchmarks: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import alone, peers
from benchmarks.compare import Comparison, Row, compare
from benchmarks.report import record, table
from benchmarks.timing import Effort
from benchmarks.workloads import COMPARISONS, IMAGES, NAMES, SCALING, images, scaling

QUICK, FULL = Effort(rounds=5, seconds=1), Effort(rounds=11, seconds=2)
ROOT = Path(__file__).parents[1]

Piece = TypeVar("Piece")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    only: tuple[str, ...]
    quick: bool
    threads: int
    output: Path


def options(arguments: list[str]) -> Options:
    """Parse the command line. Only the whole is written beside the code, so that a trial does not replace it."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="graphc beside its peers, in one process.")
    parser.add_argument("--only", action="append", choices=NAMES, help="a workload; may be repeated (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and runs: about two minutes")
    parser.add_argument("--threads", type=int, help="of each peer (default: one for each core)")
    parser.add_argument(
        "--output", type=Path, help="folder for the results (default: benchmarks/results; out/benchmarks for a part)"
    )
    given = parser.parse_args(arguments)
    folder = ROOT / ("out/benchmarks" if given.quick or given.only else "benchmarks/results")
    return Options(tuple(given.only or NAMES), given.quick, restrict(given.threads), given.output or folder)


def restrict(threads: int | None) -> int:
    """Keep this process and its children to as many cores as threads, as JAX has no other way to be told."""
    if not hasattr(os, "sched_setaffinity"):
        return threads or os.cpu_count() or 1
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return len(cores)


def compared(asked: Options, found: Sequence[peers.Peer], console: Console) -> list[Row]:
    """The workloads that run in this process; each one's table is printed when it is done."""
    effort = QUICK if asked.quick else FULL
    rows: list[Row] = []
    for name, comparisons in COMPARISONS.items():
        if name in asked.only:
            work = comparisons(asked.quick)
            own = tracked(name, work, lambda c: f"{c.name}, {c.sizes}", _comparer(found, effort), console)
            console.print(table.times(name, own))
            rows += own
    return rows


def scaled(asked: Options, found: Sequence[peers.Peer], console: Console) -> list[scaling.Point]:
    """The workload whose peers run in processes of their own, and its table."""
    if SCALING not in asked.only:
        return []
    rivals = [peer.name for peer in found if peer.name in alone.RIVALS]
    work = [(name, steps) for name in rivals for steps in scaling.lengths(asked.quick)]
    points = tracked(SCALING, work, lambda w: f"{w[0]}, T {w[1]}", lambda w: scaling.point(*w, asked.threads), console)
    console.print(table.costs(scaling.TITLE, [(f"T {p.steps:,}", p.cost) for p in points]))
    return points


def image_costs(asked: Options, found: Sequence[peers.Peer], console: Console) -> list[alone.Cost]:
    """What a step of training the image model costs each peer alone, and its table."""
    if IMAGES not in asked.only:
        return []
    rivals, problem = [peer.name for peer in found if peer.name in images.RIVALS], images.problem(asked.quick)
    costs = tracked(IMAGES, rivals, str, lambda name: alone.measure(name, problem, asked.threads), console)
    console.print(table.costs(f"{problem.name}, {images.TITLE}", [(c.sizes, c) for c in costs]))
    return costs


def tracked(
    name: str,
    work: Sequence[Piece],
    label: Callable[[Piece], str],
    do: Callable[[Piece], Result],
    console: Console,
) -> list[Result]:
    """The results of pieces of work, with a progress bar that says which one is being done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, TextColumn("{task.fields[now]}"), console=console, transient=True) as progress:
        task = progress.add_task(name, total=len(work), now="")
        for piece in work:
            progress.update(task, now=label(piece))
            results.append(do(piece))
            progress.advance(task)
    return results


def _comparer(found: Sequence[peers.Peer], effort: Effort) -> Callable[[Comparison], Row]:
    return lambda comparison: compare(comparison, found, effort)


def main(arguments: list[str]) -> None:
    asked = options(arguments)
    console = Console()
    found = peers.available(asked.threads)
    about = record.environment(found, asked.threads, arguments)
    title = record.title(about)
    console.print(title)
    for name in peers.missing():
        console.print(f"{name} is not installed and left out; pip install -e '.\\[bench]' brings it")
    rows, costs, points = (work(asked, found, console) for work in (compared, image_costs, scaled))
    results = [*rows, *costs, *(point.cost for point in points)]
    disturbed = sum(result.disturbed for result in results)
    if disturbed:
        console.print(f"{disturbed} of {len(results)} results were disturbed by other processes (marked !)")
    for path in record.write(asked.output, about, rows, points, costs):
        console.print(f"written: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
