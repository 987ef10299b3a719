"""Which program a call runs so that its memory stays within a limit.

In: a graph's program, its versions in chunks (`graphc.codegen.memory.chunk`), a limit in bytes and the lengths of a
call. Out: the program to run and all of its sizes. It is the one that is not in chunks, if that fits. Short chunks
compute no more than long ones, and stay in the cache between the kernel that makes a value and the one that reads it;
but sums over the axis are taken up and put down with every chunk. So chunks are as long as the cache allows, if the
limit does; where no cache is named, as on a GPU, whose every chunk takes launches of its own, they are as long as the
limit allows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.memory.arena import MemoryUse, buffer_bytes, memory_use, readable
from graphc.codegen.memory.chunk import Chunked
from graphc.codegen.program import Buffer, Program
from graphc.errors import ArgumentError, GraphError

CACHE = 8 << 20  # bytes of a chunk's values, for a chunk to be called short
_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


@dataclass(frozen=True, slots=True)
class Choice:
    """A program and the sizes of a call: the lengths of the axes, and of chunks if it has them."""

    program: Program
    sizes: Mapping[str, int]
    use: MemoryUse


def parse_bytes(memory: str | int) -> int:
    """A number of bytes, or a text such as "64 MiB", "1.5 GB", "4096"."""
    if isinstance(memory, int) and not isinstance(memory, bool):
        size = memory
    else:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", memory if isinstance(memory, str) else "")
        unit = _UNITS.get((found[2] or "B").upper()) if found else None
        if found is None or unit is None:
            raise GraphError(f'memory is a number of bytes or a text such as "64 MiB" or "1.5 GB", got {memory!r}')
        size = int(float(found[1]) * unit)
    if size <= 0:
        raise GraphError(f"memory is at least one byte, got {memory!r}")
    return size


def choose(
    program: Program, chunked: Sequence[Chunked], limit: int, lengths: Mapping[str, int], cache: int | None = CACHE
) -> Choice:
    """What a call runs within a limit. Raises `ArgumentError`, which says what the call takes, if nothing fits."""
    whole = Choice(program, lengths, memory_use(program, lengths))
    if whole.use.peak <= limit:
        return whole
    least = whole
    for version in chunked:
        choices = list(_choices(version, lengths))
        fitting = [c for c in choices if c.use.peak <= limit]
        if fitting:
            short = [c for c in fitting if cache is None or _of_a_chunk(c) <= cache]
            return (short or fitting[-1:])[0]
        least = min([least, *choices], key=lambda c: c.use.peak)
    raise ArgumentError(_complaint(least, whole, chunked, limit))


def _choices(version: Chunked, lengths: Mapping[str, int]) -> Iterator[Choice]:
    """The ways to run a version, with ever shorter chunks: each about 1/√2 as long as the one before."""
    length = lengths[version.axis]
    seen, wanted = set(), 1.0
    while True:
        own = version.sizes(length, round(wanted))
        steps = own[f"{version.axis}.chunk"]
        if steps not in seen:
            seen.add(steps)
            sizes = {**lengths, **own}
            yield Choice(version.program, sizes, memory_use(version.program, sizes))
        if steps <= version.least:
            return
        wanted *= 2**0.5


def _of_a_chunk(choice: Choice) -> int:
    """The bytes of all values of which one chunk at a time is kept."""
    return sum(buffer_bytes(b, choice.sizes) for b in choice.program.buffers if _mentions(b, ".chunk"))


def _mentions(buffer: Buffer, size: str) -> bool:
    return any(name.endswith(size) for name in buffer.sizes)


def _complaint(least: Choice, whole: Choice, chunked: Sequence[Chunked], limit: int) -> str:
    text = f"a call of these lengths takes at least {readable(least.use.peak)}, and memory is limited to "
    text += f"{readable(limit)}; the arrays that are given come beside that."
    if not chunked:
        return f"{text} The graph has no state, so there is no axis to go through in chunks."
    full = [b.name for b in least.program.buffers if not any(_mentions(b, size) for size in (".chunk", ".chunks"))]
    large = [(n, size) for n, size in least.use.buffers.items() if n in full and 20 * size > least.use.peak]
    if least is not whole:
        text += f" It would go through axis {chunked[0].axis} in chunks"
        largest = ", ".join(f"{name} ({readable(size)})" for name, size in large[:4])
        text += f", but needs all at once of {largest}." if large else "."
    return f"{text} Give it memory={_enough(least.use.peak)!r} or more."


def _enough(size: int) -> str:
    """The smallest text with one digit behind the point that means at least so many bytes."""
    unit = next((u for u in ("GiB", "MiB", "KiB") if size >= _UNITS[u.upper()]), "")
    if not unit:
        return f"{size} B"
    return f"{math.ceil(10 * size / _UNITS[unit.upper()]) / 10:.1f} {unit}"
