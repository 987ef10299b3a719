"""What other processes take of the machine: a peer whose threads wait for each other loses far more than they take.

In: two `now()`. Out: the cores that others kept busy in between. Only Linux tells.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

QUIET = 0.1  # cores: what a machine does by itself


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds: on the wall, of all processes on all cores, and of this one."""

    wall: float
    everybody: float
    own: float


def now() -> Clocks | None:
    """The clocks, or None where the system does not tell."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0]
    except OSError:
        return None
    ticks = [int(n) for n in first.split()[1:9]]  # user nice system idle iowait irq softirq steal
    busy = sum(ticks) - ticks[3] - ticks[4]
    return Clocks(time.perf_counter(), busy / os.sysconf("SC_CLK_TCK"), time.process_time())


def others(before: Clocks | None) -> float:
    """How many cores other processes kept busy since then, to the hundredth; 0 where the system does not tell."""
    after = now()
    if before is None or after is None:
        return 0.0
    busy = (after.everybody - before.everybody) - (after.own - before.own)
    return round(max(busy, 0.0) / (after.wall - before.wall), 2)
