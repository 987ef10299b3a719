"""The indices of a point whose number moves on by the same amount again and again, without divisions on the way.

In: the lengths of dims, a first number, an amount. Out: code that keeps the indices as the digits of an odometer does:
each runs from 0 to its length, and what passes its length carries into the one before. Digits fit in 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.place import digits
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["Odometer"]


class Odometer:
    """Past the last point the leading digit goes on counting, and says so."""

    def __init__(self, f: DeviceFunction, lengths: Sequence[Value], first: Value, step: int) -> None:
        self.f = f
        self.lengths = lengths
        self._lengths = [f.narrow(length) for length in lengths]
        self._step = [f.narrow(digit) for digit in digits(f, i64(step), lengths)]
        self._digits = [f.variable("i32") for _ in lengths]
        for variable, digit in zip(self._digits, digits(f, first, lengths), strict=True):
            f.put(f.narrow(digit), variable)

    def read(self) -> Iterator[list[Value]]:
        """The indices of this point, and of those that follow it, one after another."""
        one = [i32(0)] * (len(self.lengths) - 1) + [i32(1)]
        point = self._current()
        while True:
            yield [self.f.wide(digit) for digit in point]
            point = self._moved(point, one)

    def inside(self, point: Sequence[Value]) -> Value:
        """Whether a point is one of those that the lengths count."""
        if not self.lengths:
            return Value("true", "i1")
        return self.f.compare("icmp slt", point[0], self.lengths[0])

    def advance(self) -> None:
        for digit, variable in zip(self._moved(self._current(), self._step), self._digits, strict=True):
            self.f.put(digit, variable)

    def _current(self) -> list[Value]:
        return [self.f.get(variable, "i32") for variable in self._digits]

    def _moved(self, point: Sequence[Value], step: Sequence[Value]) -> list[Value]:
        """A point and a step, added digit by digit."""
        f = self.f
        result: list[Value] = []
        carry = i32(0)
        for place in reversed(range(len(self.lengths))):
            moved = f.binary("add nsw", point[place], f.binary("add nsw", step[place], carry))
            if place:
                over = f.compare("icmp sge", moved, self._lengths[place])
                moved = f.select(over, f.binary("sub nsw", moved, self._lengths[place]), moved)
                carry = f.emit("i32", f"zext {over} to i32")
            result.insert(0, moved)
        return result
