"""Ways to group a loop's CTAs, measured beside what the cost model says: `python -m benchmarks.cuda.groupings`.

In: the benchmark's problems. Out: a line for each way that by the model is not much slower than the best, and
cuda_groupings.json with all of them. The constants of the model (`graphc.codegen.cuda.cost_model`, `…arch`) are fitted
to such figures. A way is timed only when it computes what the first one did.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import graphc as gc
from benchmarks.compare import check
from benchmarks.cuda import record
from benchmarks.cuda.problems import PROBLEMS, Problem
from graphc.codegen.cuda.cost_model import Grouping, groupings
from graphc.codegen.cuda.driver.driver import Device, nvidia_device
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import UnsupportedError

RESULTS = Path(__file__).parents[1] / "results"
_WORTH = 3.0  # times as long as the best, by count: such ways are measured
_OF_A_VERSION = 2  # ways to cut its slices, the best ones
_CALLS = 5


@dataclass(frozen=True)
class Way:
    """A loop of a problem's training step, grouped in one way: microseconds of a step, measured and by count.
    `barrier_free`: its CTAs send each other what they make, instead of waiting at barriers (`told` in older
    results)."""

    problem: str
    sizes: str
    direction: str
    exchange: str
    groups: int
    ctas: int
    barrier_free: bool
    measured: float
    counted: float
    chosen: bool

    def __str__(self) -> str:
        how = f"{self.exchange} {self.groups} × {self.ctas}" + (", without barriers" if self.barrier_free else "")
        mark = " (chosen)" if self.chosen else ""
        times = f"{self.measured:.2f} µs a step, {self.counted:.2f} by count{mark}"
        return f"{self.problem}, {self.sizes}, {self.direction}: {how}: {times}"


def ways(problem: Problem, device: Device) -> Iterator[Way]:
    """Measure each loop of a training step in its ways, while the other loops are grouped as the model chooses."""
    f = gc.compile(problem.graph("training"), target="cuda", device=device, precision=problem.precision)
    there = f.upload({"x": problem.x, **problem.params})
    sizes = {"t": problem.steps, "n": problem.batch}
    expected = {name: np.array(array.numpy()) for name, array in f(**there).items()}
    for unit in (unit for unit in f.code.units if isinstance(unit, LoopUnit)):
        found = groupings(unit, f.program, f.code.arch, sizes)
        for way in _worthwhile(found):
            seconds = _seconds(f, unit, way, there, expected, problem)
            version, scale = way.version, 1e6 / problem.steps
            yield Way(
                f"{problem.name} {problem.precision}",
                problem.sizes,
                "backward" if unit.loop.reverse else "forward",
                version.kind,
                way.groups,
                version.ctas,
                bool(version.exchanges),
                scale * seconds,
                scale * way.seconds,
                way is found[0],
            )


def _worthwhile(found: tuple[Grouping, ...]) -> Iterator[Grouping]:
    taken: dict[int, int] = {}
    for way in found:
        key = id(way.version)
        if way.seconds < _WORTH * found[0].seconds and taken.get(key, 0) < _OF_A_VERSION:
            taken[key] = taken.get(key, 0) + 1
            yield way


def _seconds(
    f: CompiledCuda,
    unit: LoopUnit,
    way: Grouping,
    there: dict[str, object],
    expected: dict[str, np.ndarray],
    problem: Problem,
) -> float:
    """The seconds of the loop's launches in a call, the median of some calls."""
    measured = f.runner.measured(there, {unit.symbol: way})
    made = {name: array.numpy() for name, array in measured.call().items()}
    check(f"{problem.name}, {unit.symbol_of(way.version)}", made, expected, problem.tolerance)
    timed = measured.timed()
    own = [k for k, launched in enumerate(measured.launched) if launched.unit is unit]
    timed()
    return median(sum(seconds[k] for k in own) for seconds in (timed() for _ in range(_CALLS)))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.cuda.groupings", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--only", default="", help="problems whose names begin so")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder (default: benchmarks/results)")
    given = parser.parse_args(arguments)
    try:
        device = nvidia_device()
    except UnsupportedError as error:
        print(f"nothing was measured: {error.reason}", file=sys.stderr)
        return 1
    found = []
    for problem in (problem for problem in PROBLEMS if problem.name.startswith(given.only)):
        for way in ways(problem, device):
            found.append(way)
            print(way, flush=True)
    about = record.environment(device, [], arguments, "benchmarks.cuda.groupings")
    print(f"written: {record.write(given.output, about, found, 'cuda_groupings.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
