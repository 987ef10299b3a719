"""What this process may use of its machine: cores and memory. Containers get a part of each."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from graphc.errors import ArgumentError

_LIMITS = Path("/sys/fs/cgroup")  # of the container, or of the machine: there nothing is limited


def cores() -> int:
    """The cores that this process may use. Of a share of cores, such as 2.5, those that are whole: threads that wait
    for one that is held back use up the share, too."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        share, period = map(int, (_LIMITS / "cpu.max").read_text().split())
        return max(1, min(there, share // period))
    return there


def check_memory(needed: int, what: str) -> None:
    """Raise `ArgumentError` if so many bytes are more than the machine has, before any is taken."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return
    with contextlib.suppress(OSError, ValueError):
        there = min(there, int((_LIMITS / "memory.max").read_text()))
    if needed > there:
        raise ArgumentError(f"{what} needs {needed / 2**30:.1f} GiB, but this machine has {there / 2**30:.1f} GiB")
