"""Linear recurrences: pointwise loops whose step is affine in the states.

    u[t] = a[t] · u[t - 1] + b[t] · v[t - 1] + c[t]
    v[t] = d[t] · v[t - 1] + e[t]

In: a pointwise loop of one kernel. Out: its `Linear`: which of its stores are states, and the coefficients by which a
state depends on those of the step before, as scalars of the kernel: the derivatives of what is stored by what is read.
Where a `select` drops a state, it has no coefficient: 0 times an infinite state or NaN would be NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.loops.prefetch import Prefetch
from graphc.codegen.program import Call, Const, Kernel, Load, Loop, Program, Scalar
from graphc.codegen.uses import loads, stored
from graphc.scalar import FLOATS, call, zero

__all__ = ["Coefficient", "Linear", "linear"]

_MOST = 2  # states: of more, the products of coefficients take longer than the steps


@dataclass(frozen=True, slots=True)
class Coefficient:
    """The coefficient of a state in a value. `when` it does not hold, the value does not depend on the state; None: it
    always does."""

    value: Scalar
    when: Scalar | None = None


Row = tuple[Coefficient | None, ...]
"""The coefficients of the states in a value; None: it does not depend on that state."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`states`: the numbers of the kernel's stores that the next step reads. `rows`: the coefficients of each."""

    states: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def is_full(self) -> bool:
        """Whether in every step each state depends on all."""
        return all(a is not None and a.when is None for row in self.rows for a in row)


def linear(loop: Loop, found: Sequence[Prefetch], program: Program) -> Linear | None:
    """The linear recurrence that a pointwise loop is; None if it is none. `found`: the loop's prefetches."""
    if len(loop.body) != 1 or not isinstance(loop.body[0], Kernel):
        return None
    kernel, made = loop.body[0], stored((loop,))
    by_load = {x.load: x for x in found}
    read: dict[Load, int] = {}
    for load in (load for load in loads(kernel) if load.buffer in made):
        x = by_load.get(load)
        if x is None or (x.made_by is None and x.wait is None):
            return None
        if x.made_by is not None:
            read[load] = x.made_by[1]
    states = tuple(sorted(set(read.values())))
    access, numbers = Access(kernel, program), {load: states.index(store) for load, store in read.items()}
    values = [access.stored(kernel.stores[store]) for store in states]
    if not 1 <= len(states) <= _MOST or any(value.dtype not in FLOATS for value in values):
        return None
    derivatives = _Derivatives(access, numbers, len(states))
    rows = [derivatives.of(value) for value in values]
    return Linear(states, tuple(row for row in rows if row is not None)) if None not in rows else None


class _Derivatives:
    """Derivatives of a kernel's scalars by its states. `states`: the number of the state that each load reads."""

    def __init__(self, access: Access, states: Mapping[Load, int], count: int) -> None:
        self.access, self.states = access, states
        self.none: Row = (None,) * count
        self.known: dict[Scalar, Row | None] = {}

    def of(self, scalar: Scalar) -> Row | None:
        """The derivatives by all states; None if one of them would depend on a state."""
        if scalar not in self.known:
            self.known[scalar] = self._of(self.access.resolve(scalar))
        return self.known[scalar]

    def _of(self, scalar: Scalar) -> Row | None:
        match scalar:
            case Load() if scalar in self.states:
                one = Coefficient(Const(1.0, scalar.dtype))
                return tuple(one if k == self.states[scalar] else None for k in range(len(self.none)))
            case Load(_, at, _, when):
                parts = at if when is None else (*at, when)
                return self.none if all(self.of(part) == self.none for part in parts) else None
            case Call(fn, args):
                rows = [self.of(a) for a in args]
                known = [row for row in rows if row is not None]
                if len(known) < len(rows):
                    return None
                return self.none if all(row == self.none for row in known) else self._call(fn, args, known)
        return self.none

    def _call(self, fn: str, args: Sequence[Scalar], rows: Sequence[Row]) -> Row | None:
        """The derivatives of a function of which some argument depends on a state."""
        constant = [row == self.none for row in rows]
        match fn:
            case "add" | "sub":
                return tuple(_combined(fn, a, b) for a, b in zip(*rows, strict=True))
            case "neg":
                return tuple(None if a is None else replace(a, value=call("neg", a.value)) for a in rows[0])
            case "mul" if any(constant):
                factor, row = (args[0], rows[1]) if constant[0] else (args[1], rows[0])
                return tuple(None if a is None else replace(a, value=_product(factor, a.value)) for a in row)
            case "div" if constant[1]:
                return tuple(None if a is None else replace(a, value=call("div", a.value, args[1])) for a in rows[0])
            case "select" if constant[0]:
                return tuple(_chosen(args[0], a, b) for a, b in zip(rows[1], rows[2], strict=True))
        return None


def _combined(fn: str, a: Coefficient | None, b: Coefficient | None) -> Coefficient | None:
    if b is None:
        return a
    if a is None:
        return replace(b, value=call("neg", b.value)) if fn == "sub" else b
    when = None if a.when is None or b.when is None else call("or", a.when, b.when)
    return Coefficient(call(fn, _or_zero(a), _or_zero(b)), when)


def _or_zero(a: Coefficient) -> Scalar:
    return a.value if a.when is None else call("select", a.when, a.value, zero(a.value.dtype))


def _product(factor: Scalar, a: Scalar) -> Scalar:
    return factor if a == Const(1.0, a.dtype) else call("mul", factor, a)


def _chosen(condition: Scalar, a: Coefficient | None, b: Coefficient | None) -> Coefficient | None:
    if a is not None and b is not None:
        value = call("select", condition, a.value, b.value)
        if a.when is None and b.when is None:
            return Coefficient(value)
        always = Const(True, "bool")
        return Coefficient(value, call("select", condition, a.when or always, b.when or always))
    if a is not None:
        return replace(a, when=condition if a.when is None else call("and", condition, a.when))
    if b is not None:
        other = call("not", condition)
        return replace(b, when=other if b.when is None else call("and", other, b.when))
    return None
