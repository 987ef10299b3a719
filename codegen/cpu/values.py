"""Computes the scalars of a kernel in LLVM registers.

In: scalars, asked for at a cell of the current tile. Out: LLVM values, one lane wide where a scalar does not vary with
the vector dimension. Where in the loops each of them stands is the business of `graphc.codegen.cpu.nest`; where what
they load lies, of `graphc.codegen.cpu.addresses`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from graphc.codegen import halves
from graphc.codegen.access import Access
from graphc.codegen.cpu.addresses import Addresses
from graphc.codegen.cpu.nest import Cell, Nest
from graphc.codegen.llvm.builder import Value, i64, lane_count, quoted
from graphc.codegen.llvm.functions import Functions, constant
from graphc.codegen.llvm.half_precision import half_of_pair
from graphc.codegen.llvm.memory import PAIR, gather, read
from graphc.codegen.program import Call, Const, Index, Load, Ref, Scalar, Size

__all__ = ["Result", "Values"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a reduction computed: stack space for every cell of a block of rows, `vectors` to a row, or (0) for one."""

    space: Value
    type: str
    vectors: int


class Values:
    """The scalars of one kernel as values of one LLVM function, in the loops of a nest."""

    def __init__(self, nest: Nest, functions: Functions, access: Access) -> None:
        self.nest = nest
        self.function = nest.function
        self.functions = functions
        self.access = access
        self.addresses = Addresses(nest, access, self.value)
        self.results: dict[str, Result] = {}  # of reductions

    def value(self, scalar: Scalar, cell: Cell = (0, 0), vector: bool = True) -> Value:
        """A scalar at a cell of the tile: in all lanes, or (`vector` false) in lane 0."""
        scalar = self.access.resolve(scalar)
        match scalar:
            case Const(value, dtype):
                return constant(value, dtype)
            case Size(name):
                return Value(quoted("%", f"size.{name}"), "i64")
        dependence, lanes = self.access.dependence(scalar), self.nest.lanes
        vector = vector and lanes is not None and lanes.index in dependence
        return self.nest.place((scalar, vector), dependence, cell, lambda: self._compute(scalar, cell, vector))

    def _compute(self, scalar: Scalar, cell: Cell, vector: bool) -> Value:
        match scalar:
            case Index(name):
                return self.nest.index_at(name, cell, vector)
            case Ref(name):
                result, rows = self.results[name], self.nest.row in self.access.dependence(scalar)
                return self.function.get(self.place_of(result, cell, rows), result.type)
            case Load():
                return self._load(scalar, cell, vector)
            case Call("select") if self.nest.moving and self.addresses.step(scalar) in (0, 1):
                return self._read(scalar, self.addresses.step(scalar) == 1 and vector, cell)
            case Call("select") if self.nest.moving and vector and (half := self._half(scalar, cell)) is not None:
                return half
            case Call():
                return self._call(scalar, cell, vector)
        raise AssertionError(f"not a scalar: {scalar}")

    def place_of(self, result: Result, cell: Cell, rows: bool = True) -> Value:
        """Where the result for a cell of the tile lies, or (`rows` false) one that all rows of its block share. LLVM
        makes it a register where that is a fixed place."""
        nest, at = self.nest, i64(0)
        if result.vectors:
            row, vector = nest.cell if rows else (i64(0), nest.cell[1])
            if result.vectors > 1:
                row = nest.product(row, result.vectors)
            at = nest.sum(nest.sum(row, vector), i64(cell[0] * result.vectors + cell[1]))
        return self.function.offset(result.space, result.type, at)

    def _call(self, call: Call, cell: Cell, vector: bool) -> Value:
        args = [self.value(a, cell, vector) for a in call.args]
        lanes = max(lane_count(a.type) for a in args)
        if call.fn == "select" and lane_count(args[0].type) == 1:
            lanes = max(lane_count(a.type) for a in args[1:])
            args = [args[0], *(self.function.splat(a, lanes) for a in args[1:])]
        else:
            args = [self.function.splat(a, lanes) for a in args]
        return self.functions.apply(call.fn, args, call.args[-1].dtype, call.dtype)

    # Loads

    def _load(self, load: Load, cell: Cell, vector: bool) -> Value:
        """One element, neighbouring ones, halves of neighbouring pairs, or else one element from anywhere per lane."""
        addresses, lanes = self.addresses, self.nest.lanes
        step = addresses.lane_step(load.buffer, load.at) if vector else 0
        if step in (0, 1):
            return self._read(load, step == 1, cell)
        half = self._half(load, cell)
        if half is not None:
            return half
        assert lanes is not None
        mask = lanes.mask(cell)
        if load.when is not None:
            mask = self._both(mask, self.value(load.when, cell))
        pointers = addresses.every_lane(load.buffer, load.at, step, cell)
        return gather(self.function, pointers, addresses.dtype_of(load.buffer), mask)

    def _read(self, scalar: Scalar, vector: bool, cell: Cell, unit: str | None = None) -> Value:
        """A load, or a choice between loads, of one element or of neighbouring ones; or of such a `unit`."""
        f, addresses, lanes = self.function, self.addresses, self.nest.lanes
        dtype, when = addresses.dtype(scalar), scalar.when if isinstance(scalar, Load) else None
        assert dtype is not None
        pointer = addresses.of(scalar, dtype, cell)
        dtype = unit or dtype
        if lanes is None:
            return read(f, pointer, dtype, 1, None)
        mask = lanes.mask(cell)
        varying = when is not None and addresses.in_lanes(when)
        if when is not None and varying:
            mask = self._both(mask, self.value(when, cell))
        if vector:
            return read(f, pointer, dtype, lanes.count, mask)
        if mask is not None and (varying or lanes.guarded):
            # One element for many lanes, and if no condition varies, for all vectors of the tile.
            mask = mask if varying else functools.reduce(lambda a, b: f.binary("or", a, b), lanes.masks)
            any_lane = f.call("i1", f"llvm.vector.reduce.or.v{lanes.count}i1", mask)
            pointer = f.select(any_lane, pointer, addresses.nowhere())
        return read(f, pointer, dtype, 1, None)

    def _both(self, mask: Value | None, condition: Value) -> Value:
        condition = self.nest.splat(condition)
        return condition if mask is None else self.function.binary("and", mask, condition)

    # Pairs of bfloat16

    def pair(self, first: Scalar, cell: Cell) -> Value | None:
        """Pairs of neighbours in bfloat16, in each lane or one for all, as words, given what loads the first ones; None
        if they have no address. What reads both halves shares them."""
        step, lanes = self.addresses.step(first, size=2), self.nest.lanes
        if step in (0, 2):
            make = lambda: self._read(first, step == 2, cell, PAIR)  # noqa: E731
        elif isinstance(first, Load) and first.when is None and lanes is not None:
            buffer, at, mask = first.buffer, first.at, lanes.mask(cell)
            make = lambda: gather(  # noqa: E731
                self.function, self.addresses.every_lane(buffer, at, step, cell), PAIR, mask
            )
        else:
            return None
        return self.nest.place((PAIR, first), self.access.dependence(first), cell, make)

    def _half(self, scalar: Scalar, cell: Cell) -> Value | None:
        """What a scalar loads, if that is a half of a pair in each lane."""
        half = halves.half(scalar, self.access)
        if half is None or self.addresses.step(half[0], size=2) != 2:
            return None
        pair = self.pair(half[0], cell)
        return None if pair is None else half_of_pair(self.function, pair, half[1])
