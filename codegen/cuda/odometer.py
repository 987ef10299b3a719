"""The indices of a point whose number moves on by the same amount again and again, without divisions on the way.

In: the lengths of dims, a first number, an amount. Out: code that keeps the indices as the digits of an odometer does:
each runs from 0 to its length, and what passes its length carries into the one before.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cuda.device import DeviceFunction
from graphc.codegen.cuda.place import digits
from graphc.codegen.llvm import Value, i64

__all__ = ["Odometer"]


class Odometer:
    """Past the last point the leading digit goes on counting, and says so."""

    def __init__(self, f: DeviceFunction, lengths: Sequence[Value], first: Value, step: int) -> None:
        self.f = f
        self.lengths = lengths
        self._step = digits(f, i64(step), lengths)
        self._digits = [f.variable("i64") for _ in lengths]
        for variable, digit in zip(self._digits, digits(f, first, lengths), strict=True):
            f.put(digit, variable)

    def read(self) -> list[Value]:
        return [self.f.get(variable, "i64") for variable in self._digits]

    def inside(self) -> Value:
        """Whether the point is one of those that the lengths count."""
        if not self.lengths:
            return Value("true", "i1")
        return self.f.compare("icmp slt", self.read()[0], self.lengths[0])

    def advance(self) -> None:
        f = self.f
        carry = i64(0)
        for place in reversed(range(len(self.lengths))):
            variable, length = self._digits[place], self.lengths[place]
            moved = f.binary("add nsw", f.get(variable, "i64"), f.binary("add nsw", self._step[place], carry))
            if place:
                over = f.compare("icmp sge", moved, length)
                moved = f.select(over, f.binary("sub nsw", moved, length), moved)
                carry = f.emit("i64", f"zext {over} to i64")
            f.put(moved, variable)
