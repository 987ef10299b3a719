"""What the benchmarks of the GPU should take, by counting: `python -m benchmarks.cuda.estimate --help`. Needs no GPU.

It counts as the compiler does (`graphc.codegen.cuda.roofline`). The times that loops wait are fitted to an H200;
products outside of loops take longer than counted (docs/gpu.md). NVIDIA's assembler, if it is installed, adds the
registers and spills of the loops' kernels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import HORIZONTALS
from rich.console import Console
from rich.progress import track
from rich.table import Table

import graphc as gc
from benchmarks.cuda.problems import IMAGE_PRECISION, IMAGES, PROBLEMS, WORKS, Problem, Work
from benchmarks.images import Images
from benchmarks.report.table import significant
from graphc.codegen.cuda.cost_model import groupings, step_of
from graphc.codegen.cuda.isa.arch import ARCHS, Arch
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.roofline import count
from graphc.codegen.cuda.units import Unit
from graphc.codegen.lengths import evaluate
from tests.ptx import ptxas

RESULTS = Path(__file__).parents[1] / "results"
_WIDTH = 200  # of a table that is not for a terminal

# Microseconds a step that have been published, on an H100: Pöppel, Beck and Hochreiter, "FlashRNN: I/O-aware
# optimization of traditional RNNs on modern hardware", 2024; of cuDNN's persistent kernel, and of JAX's scan, the same.
PUBLISHED: Mapping[tuple[str, Work], str] = {
    ("LSTM 768", "forward"): "cuDNN 1.96, FlashRNN 4.75",
    ("LSTM 768", "training"): "cuDNN 5.07, FlashRNN 13.3",
    **{(f"{c} {k}", "forward"): "FlashRNN 3.1" for c in ("LSTM", "sLSTM") for k in ("12 × 64", "6 × 128", "3 × 256")},
    **{(f"{c} 128", "forward"): "JAX scan 8" for c in ("peephole LSTM", "LEM", "sLSTM")},
}
# The least that an exchange can take, in microseconds a step, by where it happens (H100; from the same sources).
FLOORS: Mapping[str, str] = {"cta": "0.2–0.4", "cluster": "0.6–0.9", "grid": "1.5–1.9"}


@dataclass(frozen=True, slots=True)
class Part:
    """A launch: its seconds by count, its operations and the bytes of the arrays that it touches.

    Of a loop besides: its steps, how its CTAs exchange (or "parts", if its points need no others), and what the
    assembler says.
    """

    kernel: str
    seconds: float
    flops: int
    bytes: int
    steps: int = 0
    kind: str = ""
    ctas: int = 0
    groups: int = 0
    waiting: float = 0.0
    shared: int = 0
    registers: int | None = None
    spills: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A benchmark's parts, in order."""

    problem: str
    sizes: str
    work: Work
    steps: int
    parts: tuple[Part, ...]

    @property
    def loops(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.steps)

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts)


def estimate(problem: Problem | Images, work: Work, arch: Arch, assembled: bool = True) -> Estimate:
    """Count what one call does; `assembled`: ask the assembler, if there is one, for registers and spills."""
    if isinstance(problem, Images):
        graph, precision, sizes = problem.training_step, IMAGE_PRECISION, {"n": problem.batch}
    else:
        graph, precision, sizes = problem.graph(work), problem.precision, {"t": problem.steps, "n": problem.batch}
    code = gc.emit(graph, target="cuda", arch=arch.name, precision=precision)
    reports = ptxas.assemble(code.ptx, arch.name) if assembled and ptxas.find() else {}
    parts = tuple(part for unit in code.units if (part := _part(unit, code, sizes, reports)) is not None)
    return Estimate(problem.name, problem.sizes, work, problem.steps, parts)


def _part(unit: Unit, code: CudaCode, sizes: Mapping[str, int], reports: Mapping[str, ptxas.Report]) -> Part | None:
    if isinstance(unit, PointsUnit):
        counted = count(unit, code, sizes)
        return Part(unit.symbol, counted.seconds, counted.flops, counted.bytes)
    if not evaluate(unit.loop.extent, sizes):
        return None
    if isinstance(unit, PointwiseUnit):
        return _pointwise(unit, code, sizes, reports)
    counted, best = count(unit, code, sizes), groupings(unit, code.program, code.arch, sizes)[0]
    symbol, steps = unit.symbol_of(best.version), step_of(unit, code.program, sizes).steps
    report = reports.get(symbol)
    return Part(
        symbol,
        counted.seconds,
        counted.flops,
        counted.bytes,
        steps,
        best.version.kind,
        best.version.ctas,
        best.groups,
        best.waiting * steps,
        best.shared,
        None if report is None else report.registers,
        None if report is None else report.spills,
    )


def _pointwise(
    unit: PointwiseUnit, code: CudaCode, sizes: Mapping[str, int], reports: Mapping[str, ptxas.Report]
) -> Part:
    """A pointwise loop: its groups are the parts of its steps."""
    counted, report = count(unit, code, sizes), reports.get(unit.symbol)
    return Part(
        unit.symbol,
        counted.seconds,
        counted.flops,
        counted.bytes,
        evaluate(unit.loop.extent, sizes),
        "parts",
        1,
        unit.parts(sizes, code.arch),
        registers=None if report is None else report.registers,
        spills=None if report is None else report.spills,
    )


# What is printed and written.


def table(estimates: Iterable[Estimate], arch: Arch) -> Table:
    title = f"counted for {arch.name}, {arch.sms} SMs; measured on no device"
    made = Table(title=title, box=HORIZONTALS, pad_edge=False)
    for heading in (
        "",
        "loops exchange",
        "regs",
        "spills",
        "µs/step",
        "waiting",
        "floor",
        "rest ms",
        "all ms",
        "known",
    ):
        made.add_column(heading, no_wrap=True)
    for found in estimates:
        made.add_row(*_cells(found))
    return made


def _cells(found: Estimate) -> Iterator[str]:
    loops = found.loops
    yield f"{found.problem} {found.work} [dim]{found.sizes}[/]"
    yield ", ".join(dict.fromkeys(f"{p.kind} {p.groups} × {p.ctas}" for p in loops))
    yield _most(p.registers for p in loops)
    yield _most(p.spills for p in loops)
    yield significant(1e6 * sum(p.seconds for p in loops) / found.steps)
    yield significant(1e6 * sum(p.waiting for p in loops) / found.steps)
    exchanged = Counter(p.kind for p in loops if p.kind in FLOORS)
    yield ", ".join(f"{n} × {FLOORS[kind]}" for kind, n in exchanged.items()) or "–"
    yield significant(1e3 * sum(p.seconds for p in found.parts if not p.steps))
    yield significant(1e3 * found.seconds)
    yield PUBLISHED.get((found.problem, found.work), "–")


def _most(figures: Iterable[int | None]) -> str:
    known = [figure for figure in figures if figure is not None]
    return str(max(known)) if known else "?"


def write(folder: Path, arch: Arch, estimates: Iterable[Estimate]) -> Path:
    """Write cuda_estimate.json, in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cuda_estimate.json"
    about = {"what": "counted, measured on no device", "arch": asdict(arch)}
    rows = [{**asdict(found), "seconds": found.seconds} for found in estimates]
    path.write_text(json.dumps({**about, "estimates": rows}, indent=1, ensure_ascii=False) + "\n")
    return path


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.cuda.estimate", description="What a GPU should take.")
    parser.add_argument("--arch", choices=sorted(ARCHS), default="sm_90", help="default: sm_90")
    parser.add_argument("--only", default="", help="problems whose names begin so")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the file (default: benchmarks/results)")
    given = parser.parse_args(arguments)
    arch = ARCHS[given.arch]
    asked: list[tuple[Problem | Images, Work]] = [(problem, work) for problem in PROBLEMS for work in WORKS]
    asked = [(p, work) for p, work in (*asked, (IMAGES, "training")) if p.name.startswith(given.only)]
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    found = [estimate(p, work, arch) for p, work in track(asked, "counting", console=console, transient=True)]
    console.print(table(found, arch))
    console.print(f"written: {write(given.output, arch, found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
