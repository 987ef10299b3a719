"""What this machine has: cores and memory."""

from __future__ import annotations

import os

from graphc.errors import ArgumentError


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_memory(needed: int, what: str) -> None:
    """Raise `ArgumentError` if so many bytes are more than the machine has, before any is taken."""
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return
    if needed > there:
        raise ArgumentError(f"{what} needs {needed / 2**30:.1f} GiB, but this machine has {there / 2**30:.1f} GiB")
