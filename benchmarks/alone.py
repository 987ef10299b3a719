"""What training costs a peer that is alone in its process: seconds to build and compile, seconds to run, and bytes.

`measure` runs `python -m benchmarks.alone` in a new process, which reads a piece of work as JSON and prints a `Cost`.
The peak memory is that of one run above what the process had when everything was imported and built; Linux alone tells
it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.disturbance import QUIET, now, others
from benchmarks.images import Images
from benchmarks.problems import Sequence

ROOT = Path(__file__).parents[1]
RIVALS = ("graphc", "PyTorch", "JAX")  # those that train

Problem = Sequence | Images
KINDS: dict[str, type[Problem]] = {"sequence": Sequence, "images": Images}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one peer and problem. Seconds to prepare and compile, and to run (median); peak in bytes; cores of others."""

    peer: str
    sizes: str
    prepare: float
    run: float
    peak: int | None
    others: float = 0.0

    @property
    def disturbed(self) -> bool:
        return self.others > QUIET


def measure(peer: str, problem: Problem, threads: int) -> Cost:
    """Run one piece of work in a new process."""
    work = sent(peer, problem, threads)
    command = [sys.executable, "-m", "benchmarks.alone"]
    done = subprocess.run(command, cwd=ROOT, input=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} with {work} failed:\n{done.stderr}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def sent(peer: str, problem: Problem, threads: int) -> str:
    """A piece of work as JSON."""
    kind = next(name for name, own in KINDS.items() if isinstance(problem, own))
    return json.dumps({"peer": peer, "kind": kind, "problem": asdict(problem), "threads": threads})


def received(text: str) -> tuple[str, Problem, int]:
    """The peer, the problem and the threads of a piece of work."""
    work = json.loads(text)
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in work["problem"].items()}
    return work["peer"], KINDS[work["kind"]](**fields), work["threads"]


def alone(name: str, problem: Problem, threads: int) -> Cost:
    """Measure in this process, in which nothing else has run."""
    peer = peers.load(name, threads)
    peer.prepare("training", problem.tiny)[name].run()  # what the library does once, at its first use
    problem.make()  # before the clock runs
    begun = time.perf_counter()
    call = peer.prepare("training", problem)[name]
    prepared = time.perf_counter() - begun
    before = _start_peak()
    call.run()
    after = _memory("VmHWM")
    quiet_since = now()
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < 1 and len(seconds) < 15):
        begun = time.perf_counter()
        call.run()
        seconds.append(time.perf_counter() - begun)
    peak = None if before is None or after is None else max(after - before, 0)
    return Cost(name, problem.sizes, prepared, statistics.median(seconds), peak, others(quiet_since))


def _start_peak() -> int | None:
    """Forget the peak so far, if the system lets us; the memory that a rise is counted from."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _memory("VmHWM")
    return _memory("VmRSS")


def _memory(field: str) -> int | None:
    """A figure of this process in bytes, by its name in /proc/self/status."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    print(json.dumps(asdict(alone(*received(sys.stdin.read())))))
