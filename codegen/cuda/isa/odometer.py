"""The indices of a point whose number grows by a fixed step, without a division for each step.

In: the lengths of dims, a first number, a step. Out: code that keeps the indices like the digits of an odometer: each
runs from 0 to its length, and an overflow carries into the digit before. Digits fit in 32 bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.codegen.cuda.isa.device import DeviceFunction, i32
from graphc.codegen.cuda.isa.place import digits
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["Odometer"]


class Odometer:
    """The digits are variables. Past the last point the leading digit exceeds its length; `inside` checks that."""

    def __init__(self, f: DeviceFunction, lengths: Sequence[Value], first: Value, step: int) -> None:
        self.f = f
        self.lengths = lengths
        self._lengths = [f.narrow(length) for length in lengths]
        self._step = [f.narrow(digit) for digit in digits(f, i64(step), lengths)]
        self._digits = [f.variable("i32") for _ in lengths]
        for variable, digit in zip(self._digits, digits(f, first, lengths), strict=True):
            f.put(f.narrow(digit), variable)

    def read(self) -> Iterator[list[Value]]:
        """The indices of the current point, then of the next, and so on."""
        one = [i32(0)] * (len(self.lengths) - 1) + [i32(1)]
        point = self._current()
        while True:
            yield [self.f.wide(digit) for digit in point]
            point = self._moved(point, one)

    def inside(self, point: Sequence[Value]) -> Value:
        """Whether a point lies before the end."""
        if not self.lengths:
            return Value("true", "i1")
        return self.f.compare("icmp slt", point[0], self.lengths[0])

    def advance(self) -> None:
        """Move the current point on by the step."""
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
