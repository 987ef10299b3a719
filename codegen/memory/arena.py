"""Where the temporaries of one call lie, and how many bytes the call takes.

In: a Program and the lengths of a call. Out: offsets in one block of memory, found by exact integers before any memory
is taken. Temporaries whose lives do not overlap share memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.codegen.lengths import buffer_shape
from graphc.codegen.program import Buffer, Program
from graphc.codegen.uses import touched

__all__ = [
    "ALIGNMENT",
    "PAGE",
    "STAGGER",
    "Arena",
    "MemoryUse",
    "TimeSlots",
    "arena",
    "buffer_bytes",
    "buffer_shape",
    "memory_use",
    "readable",
]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
# Buffers that start at the same place of a page compete for the same lines of the first-level cache, and a load seems
# to read what was just stored to another; so each starts some lines further.
PAGE = 4096
STAGGER = 5 * ALIGNMENT

TimeSlots = Sequence[tuple[int, ...]]  # top-level statements by position, those that run at the same time together


@dataclass(frozen=True, slots=True)
class Arena:
    """Where the temporaries of one call lie: byte offsets in one block of memory of `size` bytes."""

    offsets: Mapping[str, int]
    size: int


def arena(program: Program, sizes: Mapping[str, int], time_slots: TimeSlots | None = None) -> Arena:
    """Place the temporaries, the largest first, each at the lowest offset that is free while it lives.

    Statements run in the order of `time_slots`; None: one after another.
    """
    lives = _lives(program, time_slots or [(k,) for k in range(len(program.body))])
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets: dict[str, int] = {}
    wanted = {b.name: buffer_bytes(b, sizes) for b in program.buffers if b.kind == "temp"}
    for rank, name in enumerate(sorted(wanted, key=lambda n: (-wanted[n], n))):
        first, last = lives.get(name, (0, 0))
        offset = start_at = rank * STAGGER % PAGE if wanted[name] > PAGE else 0
        for start, end, (a, b) in sorted(placed):
            if a <= last and first <= b and offset < end and start < offset + wanted[name]:
                offset = -(-end // ALIGNMENT) * ALIGNMENT
                if wanted[name] > PAGE:
                    offset += (start_at - offset) % PAGE
        offsets[name] = offset
        placed.append((offset, offset + wanted[name], (first, last)))
    return Arena(offsets, max((end for _, end, _ in placed), default=0))


def _lives(program: Program, time_slots: TimeSlots) -> dict[str, tuple[int, int]]:
    """The first and the last time slot in which a statement touches each buffer."""
    lives: dict[str, tuple[int, int]] = {}
    for slot, positions in enumerate(time_slots):
        for name in touched(program.body[k] for k in positions):
            lives[name] = (lives.get(name, (slot, slot))[0], slot)
    return lives


def buffer_bytes(buffer: Buffer, sizes: Mapping[str, int]) -> int:
    """The size of a buffer, by exact integers: it is checked before any memory is taken."""
    total = 1 if buffer.dtype == "bool" else np.dtype(buffer.dtype).itemsize
    for extent in buffer_shape(buffer, sizes):
        total *= extent
    return total


# What a call takes.


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The bytes of one call: what it takes from the machine, and the caller's arrays that it reads.

    `results` are the arrays that it returns. `workspace` is the block in which all temporaries lie. `given` are the
    caller's arrays. `buffers` are the sizes of results and temporaries, the largest first; temporaries that are needed
    at different times share memory.
    """

    results: int
    workspace: int
    given: int
    buffers: Mapping[str, int]

    @property
    def peak(self) -> int:
        """The most that the call holds at one time, beside the arrays that it was given."""
        return self.results + self.workspace

    def __str__(self) -> str:
        lines = [f"peak {readable(self.peak)}: results {readable(self.results)}, workspace {readable(self.workspace)}"]
        lines += [f"  {readable(size):>10}  {name}" for name, size in self.buffers.items() if 100 * size >= self.peak]
        return "\n".join([*lines, f"given {readable(self.given)}"]) + "\n"


def memory_use(program: Program, sizes: Mapping[str, int], time_slots: TimeSlots | None = None) -> MemoryUse:
    """What a call with these lengths takes if its statements run in the order of `time_slots`."""
    every = {b.name: buffer_bytes(b, sizes) for b in program.buffers}
    kinds = {b.name: b.kind for b in program.buffers}
    own = [name for name in every if kinds[name] in ("output", "temp")]
    return MemoryUse(
        results=sum(every[name] for name in own if kinds[name] == "output"),
        workspace=arena(program, sizes, time_slots).size,
        given=sum(size for name, size in every.items() if name not in own),
        buffers={name: every[name] for name in sorted(own, key=lambda n: (-every[n], n))},
    )


def readable(size: float) -> str:
    """Bytes in the largest unit of which there is at least one: 1536 is "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError(size)
