"""The code of a mirror: where its elements lie in shared memory, what it holds before the first step, stores to it.

In: a `Mirror` (`graphc.codegen.cuda.loops.mirror`), and the group's part of each slicing. Out: code, appended to a
device function.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.place import Part, Place, digits
from graphc.codegen.cuda.kernel.points import moved
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.mirror import STEPS, Mirror
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.llvm.memory import read, write
from graphc.codegen.program import Index, Ring

__all__ = ["Mirrored"]


class Mirrored:
    """The code of one mirror, in the device function of a group of `ctas` CTAs. `parts`: the group's part of each
    slicing. `base`: where the mirror begins in shared memory. `together`: how many mirrors lie side by side in a slot.
    """

    def __init__(
        self, f: DeviceFunction, mirror: Mirror, parts: Sequence[Part], ctas: int, base: Value, together: int = 1
    ) -> None:
        self.function, self.mirror, self.ctas, self.base = f, mirror, ctas, base
        self.starts: dict[int, Value] = {}
        self.lengths: dict[int, Value] = {}
        for k in (*mirror.rows, *mirror.line):
            self.starts[k], self.lengths[k] = i64(0), i64(0)
            if k in mirror.sliced:
                first, end = parts[mirror.sliced[k]]
                self.starts[k], self.lengths[k] = first, f.binary("sub nsw", end, first)
            else:
                self.lengths[k] = i64(mirror.extent(k))
        self.lines = f.product([self.lengths[k] for k in mirror.rows])  # of a step
        self.step_bytes = f.product([self.lines, i64(mirror.line_bytes)])
        self.from_step_to_step = f.product([self.step_bytes, i64(together)])

    # Before the first step.

    def clear(self, place: Place) -> None:
        """Fill it with zeros. Loads whose conditions are false, as in the first step, read elements that nothing has
        stored."""
        f = self.function
        words = f.binary("lshr", self.step_bytes, i64(2))
        for step in range(STEPS):
            start = f.offset(self.base, "i8", f.binary("mul nsw", self.from_step_to_step, i64(step)))
            with f.loop(place.thread, words, i64(place.threads), "clear", unroll=False) as (number, _):
                f.put(i32(0), f.offset(start, "i32", number))

    def fill(self, s: Scalars, place: Place) -> None:
        """After it was cleared: fill the slot of the step before the first from memory, if memory has that step. It has
        in a chunk, which continues the chunk before it, or the one after it if the loop is reversed. Each CTA fills its
        own mirror."""
        f, buffer = self.function, self.mirror.buffer
        f.sync_cta()  # other threads have cleared it
        before = s.value(self.mirror.before)
        count = f.product([self.lines, *(self.lengths[k] for k in self.mirror.line)])
        with (
            f.when(self._exists(s, before)),
            f.loop(place.thread, count, i64(place.threads), "fill", unroll=False) as (number, _),
        ):
            at = self._at(before, number)
            names = tuple(Index(f"filled {k}") for k in range(len(at)))
            with s.scope({name.name: value for name, value in zip(names, at, strict=True)}):
                value = read(f, s.pointer(buffer.name, names), buffer.dtype, 1, None)
            write(f, value, self.pointer(at), self.mirror.dtype, None)

    def _exists(self, s: Scalars, place: Value) -> Value:
        """Whether a subscript along the loop is in the buffer."""
        f, extent = self.function, self.mirror.buffer.dims[self.mirror.place]
        exists = f.compare("icmp sge", place, i64(0))
        if isinstance(extent, Ring):
            return exists
        return f.binary("and", exists, f.compare("icmp slt", place, s.value(extent)))

    def _at(self, place: Value, number: Value) -> list[Value]:
        """The subscripts in the buffer of an element, given that along the loop and the element's number in its
        step."""
        found = digits(self.function, number, list(self.lengths.values()))
        at = dict(zip(self.lengths, moved(self.function, self.starts.values(), found), strict=True))
        return [at.get(k, place) for k in range(len(self.mirror.buffer.dims))]

    # In a step.

    def slot(self, place: Value) -> Value:
        """The address in the CTA's own shared memory where a step's slot begins, given the subscript along the loop."""
        f = self.function
        step = f.binary("and", place, i64(STEPS - 1))
        return f.offset(self.base, "i8", f.binary("mul nsw", step, self.from_step_to_step))

    def pointer(self, at: Sequence[Value]) -> Value:
        """The address of an element in the CTA's own shared memory, given its subscripts in the buffer."""
        f, mirror = self.function, self.mirror
        line = f.binary("mul nsw", self._number(at, mirror.rows), i64(mirror.line_bytes))
        start = f.offset(self.slot(at[mirror.place]), "i8", line)
        return f.offset(start, STORAGE[mirror.dtype][0], self._number(at, mirror.line))

    def _number(self, at: Sequence[Value], dims: Sequence[int]) -> Value:
        """The row-major number of a point among the group's points of some dims."""
        f, number = self.function, i64(0)
        for k in dims:
            own = at[k] if self.starts[k] == i64(0) else f.binary("sub nsw", at[k], self.starts[k])
            number = own if number == i64(0) else f.binary("mul nsw", number, self.lengths[k])
            number = number if number is own else f.binary("add nsw", number, own)
        return number

    def push(self, at: Sequence[Value], value: Value, alone: bool) -> None:
        """Store an element in the CTA's own mirror if `alone`, else in the mirrors of all CTAs of the cluster."""
        f, pointer, dtype = self.function, self.pointer(at), self.mirror.dtype
        if alone or self.ctas == 1:
            write(f, value, pointer, dtype, None)
            return
        for rank in range(self.ctas):
            write(f, value, f.in_cluster(pointer, i32(rank)), dtype, None)
