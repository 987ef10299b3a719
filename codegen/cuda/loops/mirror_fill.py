"""Fills mirrors with what the first step of a loop reads and was stored before the loop.

In: a `Mirrored` that has been cleared. Out: the code that fills one of its slots from memory, if memory has the step
before the first. It has in a chunk, which continues the chunk before it, or the one after it if the loop is reversed.
"""

from __future__ import annotations

from graphc.codegen.cuda.isa.place import Place
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.mirror import Mirrored
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.memory import read, write
from graphc.codegen.program import Index, Ring

__all__ = ["fill"]


def fill(scalars: Scalars, mirrored: Mirrored, place: Place) -> None:
    """Fill a mirror; each CTA fills its own."""
    f, mirror = scalars.function, mirrored.mirror
    f.sync_cta()  # other threads have cleared it
    before = scalars.value(mirror.before)
    with (
        f.when(_exists(scalars, mirrored, before)),
        f.loop(place.thread, mirrored.count, i64(place.threads), "fill", unroll=False) as (number, _),
    ):
        at = mirrored.at(before, number)
        names = tuple(Index(f"filled {k}") for k in range(len(at)))
        with scalars.scope({name.name: value for name, value in zip(names, at, strict=True)}):
            value = read(f, scalars.pointer(mirror.buffer.name, names), mirror.buffer.dtype, 1, None)
        write(f, value, mirrored.pointer(at), mirror.dtype, None)


def _exists(scalars: Scalars, mirrored: Mirrored, place: Value) -> Value:
    """Whether a subscript along the loop is in the buffer."""
    f, extent = scalars.function, mirrored.mirror.buffer.dims[mirrored.mirror.place]
    exists = f.compare("icmp sge", place, i64(0))
    if isinstance(extent, Ring):
        return exists
    return f.binary("and", exists, f.compare("icmp slt", place, scalars.value(extent)))
