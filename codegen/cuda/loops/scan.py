"""The scan of a linear recurrence: its steps in parts that are computed at the same time.

    h[t] = a[t] · h[t - 1] + b[t]

In: what each part comes to. Out: the states before a part. The steps of part q change the states before it, h, to
A[q] · h + s[q], where A[q] is the product of its coefficients, and s[q] are its states if those before it were 0. Both
are computed for all parts at once; then, again for all parts at once, each thread goes through the parts before its
own, and then through its steps. So every operand is read twice, and the steps that wait for each other are those of two
parts, instead of all (Blelloch, "Prefix Sums and Their Applications", 1990).

The products are in double precision: of single numbers above 1 they would soon be infinite, where the states are not.
An infinite product of a state that is 0 is 0. Where a part drops the states before it (a reset does), or has nothing to
do with one of them, there is `NOTHING` in the place of the product: what such a state is, infinite or NaN, does not
matter. It is -0.0, what sums begin with; products that are 0 are 0.0. An infinite coefficient makes NaN of later parts'
states, also where it would make them infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["NOTHING", "Totals", "is_nothing", "totals_bytes"]

NOTHING = Value("-0.0", "double")

_BYTES = 8
_TOGETHER = 8  # parts whose totals are loaded together


def totals_bytes(states: int, points: int, parts: int) -> int:
    """The memory for what the parts of a recurrence with so many states come to."""
    return _BYTES * (states + 1) * states * points * parts


def is_nothing(f: DeviceFunction, product: Value) -> Value:
    """Whether there is no product."""
    return f.compare("icmp eq", f.convert("bitcast", product, "i64"), i64(-(2**63)))


@dataclass(frozen=True, slots=True)
class Totals:
    """What the parts come to, in memory at `base`: for each part and each of its numbers those of all `points`, of
    which this thread has the one with this `number`."""

    function: DeviceFunction
    states: int
    base: Value
    points: Value
    number: Value

    def put(self, part: Value, states: Sequence[Value], product: Sequence[Sequence[Value]]) -> None:
        """Store what a part comes to."""
        numbers = [*states, *(value for row in product for value in row)]
        for place, value in zip(self._places(part), numbers, strict=True):
            self.function.put(value, place, _BYTES)

    def before(self, part: Value) -> list[Value]:
        """The states before a part that is not the first."""
        f = self.function
        variables = [f.variable("double") for _ in range(self.states)]
        for variable, value in zip(variables, self._get(i64(0))[0], strict=True):
            f.put(value, variable)
        with f.loop(i64(1), part, i64(_TOGETHER), "part", unroll=False) as (first, _):
            last = f.binary("sub nsw", part, i64(1))
            numbers = [f.binary("add nsw", first, i64(k)) for k in range(_TOGETHER)]
            loaded = [self._get(f.intrinsic("smin", number, last)) for number in numbers]
            for number, (states, product) in zip(numbers, loaded, strict=True):
                exists = f.compare("icmp sle", number, last)
                old = [f.get(variable, "double") for variable in variables]
                for i, variable in enumerate(variables):
                    f.put(f.select(exists, self._next(states[i], product[i], old), old[i]), variable)
        return [f.get(variable, "double") for variable in variables]

    def _next(self, state: Value, row: Sequence[Value], old: Sequence[Value]) -> Value:
        """A state after a part, from those before it."""
        f, zero = self.function, Value("0.0", "double")
        for coefficient, before in zip(row, old, strict=True):
            is_zero = f.binary("or", is_nothing(f, coefficient), f.compare("fcmp oeq", before, zero))
            product = f.select(is_zero, zero, f.binary("fmul", coefficient, before))
            state = f.binary("fadd", state, product)
        return state

    def _get(self, part: Value) -> tuple[list[Value], list[list[Value]]]:
        """The states and the product of a part."""
        found = [self.function.get(place, "double", _BYTES) for place in self._places(part)]
        n = self.states
        return found[:n], [found[n * (k + 1) : n * (k + 2)] for k in range(n)]

    def _places(self, part: Value) -> list[Value]:
        f, count = self.function, self.states * (self.states + 1)
        first = f.binary("mul nsw", part, i64(count))
        rows = [f.binary("mul nsw", f.binary("add nsw", first, i64(k)), self.points) for k in range(count)]
        return [f.offset(self.base, "double", f.binary("add nsw", row, self.number)) for row in rows]
