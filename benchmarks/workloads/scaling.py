"""What a longer sequence costs: seconds to compile, seconds to run, and bytes, in training, against T.

Each peer runs each length in a process of its own, `python -m benchmarks.workloads.scaling PEER T THREADS`, which
prints a `Point`. Its peak memory is that of one run above what the process had when everything was imported and built;
Linux tells it, other systems do not.
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
from benchmarks.problems import Sequence

ROOT = Path(__file__).parents[2]
CELL, BATCH, UNITS = "LSTM", 4, 64
TITLE = f"{CELL} training, N {BATCH}, H {UNITS}, each peer in a process of its own"
RIVALS = ("graphc", "PyTorch", "JAX")  # those that train


@dataclass(frozen=True, slots=True)
class Point:
    """One peer at one length. Seconds to prepare and compile, and to run (median); peak in bytes; cores of others."""

    peer: str
    steps: int
    prepare: float
    run: float
    peak: int | None
    others: float = 0.0

    @property
    def disturbed(self) -> bool:
        return self.others > QUIET


def lengths(quick: bool) -> tuple[int, ...]:
    return (16, 256, 4096) if quick else (16, 64, 256, 1024, 4096, 16384, 65536)


def measure(peer: str, steps: int, threads: int) -> Point:
    """Run one point in a new process."""
    command = [sys.executable, "-m", "benchmarks.workloads.scaling", peer, str(steps), str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return Point(**json.loads(done.stdout.splitlines()[-1]))


def alone(name: str, steps: int, threads: int) -> Point:
    """Measure in this process, in which nothing else has run."""
    peer = peers.load(name, threads)
    warm = Sequence(CELL, 2, 1, 8)
    peer.training(warm)[name].run()  # what the library does once, at its first use
    problem = Sequence(CELL, steps, BATCH, UNITS)
    _ = problem.x, problem.params  # made before the clock runs
    begun = time.perf_counter()
    call = peer.training(problem)[name]
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
    return Point(name, steps, prepared, statistics.median(seconds), peak, others(quiet_since))


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
    print(json.dumps(asdict(alone(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
