"""Where the elements lie that a kernel loads and stores, as addresses that stand outside of the loops of reductions.

In: a buffer and subscripts, or a scalar that can be read through one address. Out: the address of lane 0, or of every
lane. An address is a base, made before the loops of the running reduction, and for each of their indices the elements
to move by. For W[e.0, r.0] with W of 256 × 256, in a loop over r.0, that is &W[e.0, 0], and 1 element for each r.0.

A recurrence reads its previous state as select(t ≥ 1, h[t - 1], h0). Here too there is one address: it is chosen
between those of h[t - 1] and h0 before the loop over the state's elements, and that loop stays a plain product.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from graphc.codegen.access import Access, coefficient, substitute
from graphc.codegen.cpu.nest import Cell, Nest, known, lane_offsets
from graphc.codegen.llvm.builder import Value, i64, quoted
from graphc.codegen.llvm.functions import STORAGE, constant
from graphc.codegen.program import Call, Const, Load, Scalar
from graphc.scalar import holds, index

__all__ = ["Addresses"]

_VECTOR = 16  # elements: no vector has more
_MOST_PLACES = 2048  # of a constant in memory
_ANY_STEP = -1  # of a constant, which may stand in memory any number of times


class Compute(Protocol):
    """What makes a scalar a value (`graphc.codegen.cpu.values.Values.value`)."""

    def __call__(self, scalar: Scalar, cell: Cell = ..., vector: bool = ...) -> Value: ...


@dataclass(frozen=True, slots=True)
class Address:
    """The address of lane 0: a base, and elements to move for each index of the running reduction. That of a constant
    says which, since it can be had in as many places as another address moves over."""

    base: Value
    strides: tuple[tuple[str, Value], ...]
    dependence: frozenset[str]
    constant: Value | None = None


class Addresses:
    """The addresses of one kernel, in the loops of its function. Subscripts are computed by `value`."""

    def __init__(self, nest: Nest, access: Access, value: Compute) -> None:
        self.nest = nest
        self.function = nest.function
        self.access = access
        self.value = value
        self.constants: dict[str, str] = {}  # module-level definitions by name
        self._parts: dict[Hashable, tuple[Scalar, dict[str, Scalar]]] = {}  # of offsets, by where they are of

    # Of an element

    def lane_step(self, buffer: str, at: tuple[Scalar, ...]) -> int | None:
        """Elements between neighbouring lanes; None where that varies."""
        lanes = self.nest.lanes
        if lanes is None or lanes.count == 1:
            return 0
        return self.access.lane_step(buffer, at, lanes.index, lanes.count)

    def first_lane(self, buffer: str, at: tuple[Scalar, ...], cell: Cell) -> Value:
        """The address of lane 0."""
        return self._move(self._base(buffer, at, cell), self._element(buffer), cell)

    def every_lane(self, buffer: str, at: tuple[Scalar, ...], step: int | None, cell: Cell) -> Value:
        """The address of every lane, given the elements between neighbours; None where that varies."""
        f, element, lanes = self.function, self._element(buffer), self.nest.lanes
        if step is None or lanes is None:
            offsets = self.nest.splat(self.value(self.access.offset(buffer, at), cell))
            return f.offset(_start(buffer), element, offsets)
        return f.offset(self.first_lane(buffer, at, cell), element, lane_offsets(lanes.count, step))

    def _element(self, buffer: str) -> str:
        return STORAGE[self.dtype_of(buffer)][0]

    def dtype_of(self, buffer: str) -> str:
        """The dtype of a buffer's elements."""
        return self.access.buffers[buffer].dtype

    # Of a scalar

    def step(self, scalar: Scalar, size: int = 1) -> int | None:
        """The lane step of a scalar that can be read through one address: a load, or a selection between loads of one
        step and constants, by a condition that is the same in all lanes. None if it cannot. What is read is `size`
        elements in each lane, or the same for all."""
        match self.access.resolve(scalar):
            case Const(_, dtype) if dtype != "bool":
                return _ANY_STEP
            case Load(buffer, at, _, when) if when is None or not self.in_lanes(when):
                step = self.lane_step(buffer, at)
                return step if step in (0, size) else None
            case Call("select", (condition, a, b), dtype) if dtype != "bool" and not self.in_lanes(condition):
                steps = {self.step(a, size), self.step(b, size)}
                fixed = steps - {_ANY_STEP}
                one = None not in steps and len(fixed) == 1 and self.dtype(scalar) is not None
                return fixed.pop() if one else None
        return None

    def in_lanes(self, scalar: Scalar) -> bool:
        """Whether a scalar may differ between lanes."""
        lanes = self.nest.lanes
        return lanes is not None and lanes.count > 1 and lanes.index in self.access.dependence(scalar)

    def dtype(self, scalar: Scalar) -> str | None:
        """As what a load, or a choice between loads and constants, lies in memory; None if that is not one dtype."""
        parts = list(self._choices(scalar))
        dtypes = {self.dtype_of(part.buffer) for part in parts if isinstance(part, Load)}
        if len(dtypes) != 1:
            return None
        (dtype,) = dtypes
        return dtype if all(holds(dtype, part.value) for part in parts if isinstance(part, Const)) else None

    def _choices(self, scalar: Scalar) -> Iterator[Scalar]:
        match self.access.resolve(scalar):
            case Call("select", (_, a, b)):
                yield from self._choices(a)
                yield from self._choices(b)
            case part:
                yield part

    def of(self, scalar: Scalar, dtype: str, cell: Cell) -> Value:
        """The address of lane 0 of a scalar that has a `step`, and that lies in memory as this dtype."""
        return self._move(self._address(scalar, dtype, cell), STORAGE[dtype][0], cell)

    def nowhere(self) -> Value:
        """Zeros to read where a load must not touch its buffer."""
        self.constants["@zeros"] = "@zeros = internal constant [256 x i8] zeroinitializer, align 64"
        return Value("@zeros", "ptr")

    def _address(self, scalar: Scalar, dtype: str, cell: Cell) -> Address:
        match self.access.resolve(scalar):
            case Const(value):
                return self._constant(constant(value, dtype), _VECTOR)
            case Load(buffer, at, _, when):
                if when is None or self.in_lanes(when):
                    return self._base(buffer, at, cell)
                nothing = self._constant(constant(0, dtype), _VECTOR)
                return self._choose(when, self._base(buffer, at, cell), nothing, cell)
            case Call(_, (condition, a, b)):
                chosen = self.access.resolve(a)
                if isinstance(chosen, Load) and chosen.when == condition:
                    chosen = replace(chosen, when=None)
                return self._choose(condition, self._address(chosen, dtype, cell), self._address(b, dtype, cell), cell)
        raise AssertionError(f"no address: {scalar}")

    # Bases, choices and moves

    def _base(self, buffer: str, at: tuple[Scalar, ...], cell: Cell) -> Address:
        """The address where all indices of the running reduction that the offset is affine in are 0, and its strides
        along these."""
        key = buffer, at, tuple(self.nest.moving)
        if key not in self._parts:
            self._parts[key] = self._parted(self.access.offset(buffer, at))
        rest, moving = self._parts[key]
        dependence = self.access.dependence(rest)
        base = self.nest.place(
            ("address", buffer, rest),
            dependence,
            cell,
            lambda: self.function.offset(_start(buffer), self._element(buffer), self.value(rest, cell, vector=False)),
        )
        strides = tuple((name, self.value(stride, cell)) for name, stride in moving.items())
        inner = frozenset().union(*(self.access.dependence(stride) for stride in moving.values()))
        return Address(base, strides, dependence | inner)

    def _parted(self, offset: Scalar) -> tuple[Scalar, dict[str, Scalar]]:
        """An offset where those indices are 0, and its strides along them."""
        moving = {}
        for name in self.nest.moving:
            stride = coefficient(offset, name, self.access)
            if stride is None or name not in self.access.dependence(offset):
                continue
            if self.access.dependence(stride).isdisjoint(self.nest.moving):
                moving[name] = stride
        return substitute(offset, {name: index(0) for name in moving}, self.access), moving

    def _choose(self, condition: Scalar, a: Address, b: Address, cell: Cell) -> Address:
        dependence = a.dependence | b.dependence | self.access.dependence(condition)
        if isinstance(condition, Const):
            return a if condition.value else b

        def select(x: Value, y: Value) -> Value:
            if x == y:
                return x
            make = lambda: self.function.select(self.value(condition, cell), x, y)  # noqa: E731
            return self.nest.place(("choose", condition, x, y), dependence, cell, make)

        a, b = self._alike(a, b), self._alike(b, a)
        left, right = dict(a.strides), dict(b.strides)
        names = [name for name in self.nest.moving if name in left or name in right]
        strides = tuple((n, select(left.get(n, i64(0)), right.get(n, i64(0)))) for n in names)
        return Address(select(a.base, b.base), strides, dependence)

    def _alike(self, address: Address, other: Address) -> Address:
        """A constant, in all places that the other address moves over, if they are few: then both move by the same
        steps, and the loop need not ask which it is."""
        if address.constant is None or not other.strides:
            return address
        last = 0
        for name, stride in other.strides:
            extent = self.nest.moving[name]
            if not isinstance(extent, Const) or not known(stride):
                return address
            last += int(stride.text) * max(0, int(extent.value) - 1)
        if last + _VECTOR > _MOST_PLACES:
            return address
        return replace(self._constant(address.constant, last + _VECTOR), strides=other.strides)

    def _move(self, address: Address, element: str, cell: Cell) -> Value:
        """From the base of an address to where the running reduction stands."""
        nest, pointer, dependence = self.nest, address.base, address.dependence
        for name, stride in address.strides:
            dependence |= {name}
            start = pointer

            def make(start: Value = start, name: str = name, stride: Value = stride) -> Value:
                f, index = self.function, nest.index_at(name, cell)
                before = nest.level(address.dependence) < nest.level(frozenset({name}))  # the stride, before the loop
                step = f.multiple(index, stride) if before else f.binary("mul nsw", index, stride)
                return f.offset(start, element, step)

            pointer = nest.place(("move", start, name, stride), dependence, cell, make)
        return pointer

    def _constant(self, value: Value, places: int) -> Address:
        """The address of a constant that stands in memory so many times."""
        size = 1 << (places - 1).bit_length()
        name = f"@splat.{value.type}.{value.text.replace('-', 'm')}.{size}"
        type = f"[{size} x {value.type}]"
        self.constants[name] = f"{name} = internal constant {type} [{', '.join([str(value)] * size)}], align 64"
        if value == constant(0, "float32"):
            self.constants[name] = f"{name} = internal constant {type} zeroinitializer, align 64"
        return Address(Value(name, "ptr"), (), frozenset(), value)


def _start(buffer: str) -> Value:
    return Value(quoted("%", f"buffer.{buffer}"), "ptr")
