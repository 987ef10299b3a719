"""Measures what a core of this machine can do, once a process: some milliseconds.

Out: a `Core`. The sizes of the caches come from the system. The rest is timed in small native loops, each several
times, of which the fastest counts, so that what else the machine does matters little. A cycle is what each of a chain
of operations takes that wait for each other.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

from graphc.codegen.cpu.jit import native
from graphc.codegen.parallel.core import TYPICAL, Core
from graphc.codegen.target import Target
from graphc.codegen.team.microbenchmarks import CHAINED, LINE, LOADED, MET, MULTIPLIED, PROBES, WORKED, probes
from graphc.codegen.team.team import SUPPORTED, Job, runner, team
from graphc.machine import cores

__all__ = ["this_core", "tick"]

_SAMPLES = 7
_TURNS = 10_000  # of loops in registers
_READ = 1 << 22  # bytes of a sample
_FEW, _MANY = 100, 400  # barriers of a sample; the difference is without what begins and ends it
_SHORTEST = 10e-9  # seconds that a barrier takes at least: less, and only one thread was there
_WHILE = 0.02  # seconds, in which what it takes to read two clocks is nothing
_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@functools.cache
def _code() -> llvm.ResourceTracker:
    return native(probes(Target.host()), Target.host(), *PROBES, optimized=True)


@functools.cache
def this_core() -> Core:
    """The core of this machine: what was measured, within limits that no known processor passes; what could not be
    measured is as in `TYPICAL`."""
    machine = Target.host()
    code = _code()
    chain, multiply = (ctypes.CFUNCTYPE(None, _POINTER, _COUNT)(code[name]) for name in ("chain", "multiply"))
    read = ctypes.CFUNCTYPE(None, _POINTER, _COUNT, _COUNT)(code["read"])
    cycle = _seconds(chain) / (_TURNS * CHAINED)
    level_1, level_2 = _cache(1) or TYPICAL.level_1, _cache(2) or TYPICAL.level_2
    vector = 4 * machine.lanes(4)
    meeting = _meeting(code["meet"]) if SUPPORTED and cores() > 1 else 0.0
    return Core(
        level_1,
        level_2,
        within=_between(8.0, _reading(read, vector, level_2 // 2) * cycle, 128.0),
        beyond=_between(2.0, _reading(read, vector, 3 * level_2) * cycle, 64.0),
        products=_between(0.5, _TURNS * MULTIPLIED / _seconds(multiply) * cycle, 4.0),
        barrier=_between(100.0, meeting / cycle, 5000.0) if meeting > _SHORTEST else TYPICAL.barrier,
        clock=1 / cycle,
    )


@functools.cache
def tick() -> float:
    """How many seconds a tick of the clock is that programs read."""
    now, block = ctypes.CFUNCTYPE(None, _POINTER, _COUNT)(_code()["now"]), _block(WORKED)
    seen = []
    for _ in range(2):
        now(block.ctypes.data, 0)
        seen.append((time.perf_counter(), int(block.view(np.int64)[0])))
        time.sleep(_WHILE)
    (first, begin), (second, end) = seen
    return (second - first) / (end - begin)


def _seconds(probe: Callable[[int, int], None]) -> float:
    """The seconds of a probe that stays in registers."""
    block = _block(WORKED)
    return _fastest(lambda: probe(block.ctypes.data, _TURNS))


def _reading(read: Callable[[int, int, int], None], vector: int, size: int) -> float:
    """The bytes a second at which a block of so many bytes is read again and again."""
    block, turns, times = _block(size), size // (LOADED * vector), max(1, _READ // size)
    return times * turns * LOADED * vector / _fastest(lambda: read(block.ctypes.data, turns, times))


def _meeting(meet: int) -> float:
    """The seconds of a barrier between two threads, with what they then read of each other."""
    team.start(2)
    block = _block(2 * MET * LINE)
    args, rows = (ctypes.c_void_p * 1)(block.ctypes.data), np.arange(2, dtype=np.int64)
    found = {}
    for times in (_FEW, _MANY):
        sizes, patience = (ctypes.c_int64 * 1)(times), (ctypes.c_int64 * 2)()
        job = Job(
            function=meet,
            args=ctypes.addressof(args),
            sizes=ctypes.addressof(sizes),
            alone=rows.ctypes.data,
            shares=rows.ctypes.data,
            stride=rows.itemsize,
            threads=len(rows),
            tolerance=2**62,
            patience=ctypes.addressof(patience),
        )
        found[times] = _fastest(functools.partial(runner(), team.address, ctypes.addressof(job)))
    return (found[_MANY] - found[_FEW]) / (_MANY - _FEW)


def _fastest(sample: Callable[[], None]) -> float:
    """The seconds of a sample: the least of several."""
    times = []
    for _ in range(_SAMPLES):
        begun = time.perf_counter()
        sample()
        times.append(time.perf_counter() - begun)
    return min(times)


def _block(size: int) -> np.ndarray:
    """Zeros that begin at a cache line. They are written once: all memory that was never written lies in one page."""
    raw = np.full(size + LINE, 0, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]


def _between(least: float, value: float, most: float) -> float:
    return max(least, min(value, most))


def _cache(level: int) -> int | None:
    """The bytes of a core's cache of data, if the system says so."""
    for index in sorted(_CACHES.glob("index*")):
        try:
            kind, number, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind in ("Data", "Unified") and number == str(level) and size[-1:] == "K" and size[:-1].isdigit():
            return int(size[:-1]) << 10
    return None
