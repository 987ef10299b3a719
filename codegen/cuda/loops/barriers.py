"""Barriers of a group of CTAs that share a loop's steps: inside one CTA, in a cluster, or over the grid.

In: the kind of a group of CTAs. Out: the code of one barrier. After it each thread of the group sees what all of them
stored before it.

The grid's barrier counts in global memory. Each CTA but the first adds 1, and the first adds what makes the sum 2^31.
So the top bit flips exactly when the last CTA has arrived, and the counter needs no reset before the next barrier or
the next launch (the method of CUDA's cooperative groups).
"""

from __future__ import annotations

from typing import Literal

from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.place import Place
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["Kind", "after_counters", "barrier", "counter_bytes", "counter_of"]

Kind = Literal["cta", "cluster", "grid"]

_STRIDE = 32  # words between the counters of two groups: they lie in cache lines of their own
_TOP_BIT = -(2**31)


def barrier(f: DeviceFunction, kind: Kind, place: Place, counter: Value) -> None:
    """All threads of the group wait for each other. `counter` is the group's; only the grid's barrier uses it."""
    match kind:
        case "cta":
            f.sync_cta()
        case "cluster":
            f.sync_cluster()
        case "grid":
            _sync_grid(f, place, counter)


def _sync_grid(f: DeviceFunction, place: Place, counter: Value) -> None:
    """One thread of each CTA adds to the counter and polls it; the other threads of the CTA wait for that thread."""
    f.sync_cta()
    with f.when(f.compare("icmp eq", place.thread, i64(0))):
        others = f.binary("sub", f.narrow(place.ctas), i32(1))
        whole = f.binary("sub", i32(_TOP_BIT), others)
        leads = f.compare("icmp eq", place.cta, i64(0))
        before = f.add_release(counter, f.select(leads, whole, i32(1)))
        with f.repeat_until() as decide:
            turned = f.binary("xor", before, f.load_acquire(counter))
            decide(f.compare("icmp slt", turned, i32(0)))
    f.sync_cta()


def counter_bytes(sms: int) -> int:
    """The memory of the counters, which must be 0 before the first launch."""
    return 4 * _STRIDE * sms


def after_counters(f: DeviceFunction, counters: Value, sms: int) -> Value:
    """The address of the memory behind the counters."""
    return f.offset(counters, "i8", i64(counter_bytes(sms)))


def counter_of(f: DeviceFunction, counters: Value, group: Value) -> Value:
    """The address of a group's counter."""
    return f.offset(counters, "i32", f.binary("mul nsw", group, i64(_STRIDE)))
