"""Run the benchmarks of the GPU: `python -m benchmarks.cuda --help`. Without a GPU nothing is measured."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.cuda import measure, record
from benchmarks.cuda.own import Own
from benchmarks.cuda.peers import rivals
from benchmarks.cuda.problems import IMAGE_PRECISION, IMAGES, PROBLEMS, WORKS
from benchmarks.timing import Effort
from graphc.codegen.cuda.driver.driver import nvidia_device
from graphc.errors import UnsupportedError

RESULTS = Path(__file__).parents[1] / "results"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.cuda", description="graphc beside its peers on a GPU.")
    parser.add_argument("--rounds", type=int, default=11, help="samples of each peer (default: 11)")
    parser.add_argument("--seconds", type=float, default=4, help="at most, for a problem (default: 4)")
    parser.add_argument("--only", default="", help="problems whose names begin so")
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder for cuda.json (default: benchmarks/results)"
    )
    given = parser.parse_args(arguments)
    try:
        own = Own(nvidia_device())
    except UnsupportedError as error:
        print(f"nothing was measured: {error.reason}", file=sys.stderr)
        return 1
    others, messages = rivals()
    about = record.environment(own.device, [own, *others], arguments)
    print(record.title(about), *messages, sep="\n")
    effort, rows = Effort(given.rounds, given.seconds), []
    for problem in PROBLEMS:
        for work in WORKS if problem.name.startswith(given.only) else ():
            rows.append(measure.layer(problem, work, own, others, effort))
            print(rows[-1], flush=True)
    if IMAGES.name.startswith(given.only):
        rows.append(measure.image_training(IMAGES, IMAGE_PRECISION, own, others, effort))
        print(rows[-1])
    print(f"written: {record.write(given.output, about, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
