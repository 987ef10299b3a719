"""Computes the scalars of a kernel in LLVM registers, each as far out of the loops as it can stand.

In: scalars, asked for at a cell of the current tile. Out: LLVM values, one lane wide where a scalar does not vary
with the vector dimension. Invariant: a value is computed once for each setting of the loop indices it depends on.
It stands in the innermost scope that binds one of them, and is remembered there; so an operand shared by the rows
or the vectors of a tile is loaded once, and addresses leave the loops that do not move them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from graphc.codegen.access import Access, coefficient, substitute
from graphc.codegen.llvm.builder import Block, Function, Value, i64, lane_count, quoted, vector_type
from graphc.codegen.llvm.functions import STORAGE, Functions, constant
from graphc.codegen.llvm.half_precision import half_of_pair
from graphc.codegen.llvm.memory import PAIR, gather, read
from graphc.codegen.program import Call, Const, Dim, Index, Load, Ref, Scalar, Size
from graphc.scalar import holds

__all__ = ["Cell", "Lanes", "Result", "Values", "lane_offsets"]

_VECTOR = 16  # elements: no vector has more
_MOST_PLACES = 2048  # of a constant in memory

# The row and the vector of a tile, counted from the tile's first.
Cell = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Lanes:
    """The dimension that runs in lanes. Lanes whose mask is false exist but must not touch memory; `masks` has one
    mask for each vector of the tile, or is empty. `guarded` says that all lanes may be masked off at once."""

    index: str
    count: int
    masks: tuple[Value, ...] = ()
    guarded: bool = False

    def mask(self, cell: Cell) -> Value | None:
        """The mask of the vector at a cell; None if all its lanes count."""
        return self.masks[cell[1]] if self.masks else None


@dataclass(slots=True)
class Scope:
    """A level of the loop nest: the indices it binds, the block before it, and the values computed so far, in the
    scope itself and, for the scope around it, in the block before."""

    names: set[str]
    before: Block
    bindings: dict[str, Value] = field(default_factory=dict)
    values: dict[Hashable, Value] = field(default_factory=dict)
    hoisted: dict[Hashable, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a reduction computed: stack space for every cell of a block of rows, `vectors` to a row, or (0) for one."""

    space: Value
    type: str
    vectors: int


@dataclass(frozen=True, slots=True)
class Address:
    """The address of lane 0: a base, and elements to move for each index of the running reduction. That of a constant
    says which, since it can be had in as many places as another address moves over."""

    base: Value
    strides: tuple[tuple[str, Value], ...]
    dependence: frozenset[str]
    constant: Value | None = None


class Values:
    """The scalars of one kernel as values of one LLVM function, and where in its loops each of them stands."""

    def __init__(self, function: Function, functions: Functions, access: Access, row: str | None = None) -> None:
        self.function = function
        self.functions = functions
        self.access = access
        self.row = row
        self.lanes: Lanes | None = None
        self.moving: dict[str, Scalar] = {}  # the indices of the reduction being computed, and their extents
        self.results: dict[str, Result] = {}  # of reductions
        self.vectors = 1  # in a row of the tile
        self.cell = (i64(0), i64(0))  # the row and the vector, in its block, of the current tile's first cell
        self.constants: dict[str, str] = {}  # module-level definitions by name
        self.scopes = [Scope(set(), function.entry)]
        self._parts: dict[Hashable, tuple[Scalar, dict[str, Scalar]]] = {}  # of offsets

    # Scopes

    @contextmanager
    def scope(self, before: Block, bindings: dict[str, Value], *names: str) -> Iterator[None]:
        """Enter a level that binds indices; further names mark what else may vary inside."""
        self.scopes.append(Scope({*bindings, *names}, before, bindings))
        yield
        self.scopes.pop()

    @contextmanager
    def loop(self, index: str, start: Value, stop: Value, step: int | Value) -> Iterator[None]:
        """for (index = start; index < stop; index += step), or just the body where that is known to run once."""
        step = i64(step) if isinstance(step, int) else step
        once = _known(start, stop, step) and 0 < int(stop.text) - int(start.text) <= int(step.text)
        if once:
            with self.scope(self.function.block, {index: start}):
                yield
            return
        label = "".join(c for c in index if c.isascii() and c.isalnum()) or "i"
        with (
            self.function.loop(start, stop, step, label) as (value, preheader),
            self.scope(preheader, {index: value}),
        ):
            yield

    @contextmanager
    def pieces(self, index: str, begin: Value, end: Value, step: Value) -> Iterator[tuple[Value, Value]]:
        """Cut begin ≤ index < end into pieces of `step`, the last perhaps shorter: inside, where the current one is."""
        f, extent = self.function, self.difference(end, begin)
        with self.loop(index, begin, end, step):
            first = self.index(index)
            if _known(extent, step) and int(extent.text) <= int(step.text):
                yield first, end
                return
            last = f.binary("add nsw", first, step)
            if not _known(extent, step) or int(extent.text) % int(step.text):
                last = f.intrinsic("smin", last, end)
            yield first, last

    def steps(self, start: Value, end: Value, sizes: tuple[int, ...]) -> Iterator[tuple[Value, Value, int]]:
        """Cover start ≤ index < end with steps of each size in turn, as many as fit: their start, their end, the size.
        What is known to be empty is left out."""
        f = self.function
        for size in sizes:
            left = self.difference(end, start)
            if _known(start, left):
                stop = i64(int(start.text) + int(left.text) // size * size)
            elif size == 1 or (_known(left) and int(left.text) % size == 0):
                stop = end
            else:
                stop = f.binary("sub", end, f.binary("srem", left, i64(size)))
            if stop != start:
                yield start, stop, size
            start = stop

    def difference(self, a: Value, b: Value) -> Value:
        """a - b; a constant where both are constants."""
        if _known(a, b):
            return i64(int(a.text) - int(b.text))
        return a if b == i64(0) else self.function.binary("sub nsw", a, b)

    @contextmanager
    def moving_along(self, dim: Dim) -> Iterator[None]:
        """Inside the loop of a reduction: addresses move along with its index."""
        before, self.moving = self.moving, {**self.moving, dim.index: dim.extent}
        yield
        self.moving = before

    @contextmanager
    def at_cell(self, row: Value, vector: Value) -> Iterator[None]:
        """Inside, the current tile begins at this row and vector of its block."""
        before, self.cell = self.cell, (row, vector)
        yield
        self.cell = before

    @contextmanager
    def running(self, lanes: Lanes | None) -> Iterator[None]:
        """Inside, these lanes run."""
        previous, self.lanes = self.lanes, lanes
        yield
        self.lanes = previous

    def index(self, name: str) -> Value:
        """The current value of a loop index, at the first cell of the tile."""
        return next(s.bindings[name] for s in reversed(self.scopes) if name in s.bindings)

    def place(self, key: Hashable, dependence: frozenset[str], cell: Cell, make: Callable[[], Value]) -> Value:
        """Make a value in the innermost scope that it varies with, unless it stands there already."""
        i = cell[0] if self.row in dependence else 0
        j = cell[1] if self.lanes is not None and self.lanes.index in dependence else 0
        home = self._home(dependence)
        innermost = home == len(self.scopes) - 1
        inner = self.scopes[home if innermost else home + 1]
        for known in (self.scopes[home].values, inner.hoisted):
            if (key, i, j) in known:
                return known[key, i, j]
        if innermost:
            made = inner.values[key, i, j] = make()
        else:
            with self.function.at(inner.before):
                made = inner.hoisted[key, i, j] = make()
        return made

    def _home(self, dependence: frozenset[str]) -> int:
        """The level of the innermost scope that a value of this dependence varies with."""
        for level in range(len(self.scopes) - 1, 0, -1):
            if not self.scopes[level].names.isdisjoint(dependence):
                return level
        return 0

    # Scalars

    def value(self, scalar: Scalar, cell: Cell = (0, 0), vector: bool = True) -> Value:
        """A scalar at a cell of the tile: in all lanes, or (`vector` false) in lane 0."""
        scalar = self.access.resolve(scalar)
        match scalar:
            case Const(value, dtype):
                return constant(value, dtype)
            case Size(name):
                return Value(quoted("%", f"size.{name}"), "i64")
        dependence = self.access.dependence(scalar)
        vector = vector and self.lanes is not None and self.lanes.index in dependence
        return self.place((scalar, vector), dependence, cell, lambda: self._compute(scalar, cell, vector))

    def splat(self, value: Value) -> Value:
        """The value in every lane that runs."""
        return self.function.splat(value, self.lanes.count if self.lanes else 1)

    def _compute(self, scalar: Scalar, cell: Cell, vector: bool) -> Value:
        match scalar:
            case Index(name):
                return self._index(name, cell, vector)
            case Ref(name):
                result, rows = self.results[name], self.row in self.access.dependence(scalar)
                return self.function.get(self.place_of(result, cell, rows), result.type)
            case Load():
                return self._load(scalar, cell, vector)
            case Call("select") if self.moving and self._pointed(scalar) in (0, 1):
                return self._read(scalar, self._pointed(scalar) == 1 and vector, cell)
            case Call("select") if self.moving and vector and (half := self._half(scalar, cell)) is not None:
                return half
            case Call():
                return self._call(scalar, cell, vector)
        raise AssertionError(f"not a scalar: {scalar}")

    def _index(self, name: str, cell: Cell, vector: bool) -> Value:
        f, base = self.function, self.index(name)
        if name == self.row and cell[0]:
            base = f.emit("i64", f"add nsw {base}, {cell[0]}")
        if self.lanes is None or name != self.lanes.index:
            return base
        if cell[1]:
            base = f.emit("i64", f"add nsw {base}, {cell[1] * self.lanes.count}")
        return f.binary("add nsw", self.splat(base), lane_offsets(self.lanes.count, 1)) if vector else base

    def place_of(self, result: Result, cell: Cell, rows: bool = True) -> Value:
        """Where the result for a cell of the tile lies, or (`rows` false) one that all rows of its block share. LLVM
        makes it a register where that is a fixed place."""
        f, at = self.function, i64(0)
        if result.vectors:
            row, vector = self.cell if rows else (i64(0), self.cell[1])
            if result.vectors > 1:
                row = self._product(row, result.vectors)
            at = self.sum(self.sum(row, vector), i64(cell[0] * result.vectors + cell[1]))
        return f.offset(result.space, result.type, at)

    def _product(self, a: Value, b: int) -> Value:
        return i64(int(a.text) * b) if _known(a) else self.function.binary("mul nsw", a, i64(b))

    def sum(self, a: Value, b: Value) -> Value:
        """a + b; a constant where both are constants."""
        if _known(a, b):
            return i64(int(a.text) + int(b.text))
        return b if a == i64(0) else a if b == i64(0) else self.function.binary("add nsw", a, b)

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

    def lane_step(self, buffer: str, at: tuple[Scalar, ...]) -> int | None:
        """Elements between neighbouring lanes; None where that varies."""
        if self.lanes is None or self.lanes.count == 1:
            return 0
        return self.access.lane_step(buffer, at, self.lanes.index, self.lanes.count)

    def _load(self, load: Load, cell: Cell, vector: bool) -> Value:
        step = self.lane_step(load.buffer, load.at) if vector else 0
        if step in (0, 1):
            return self._read(load, step == 1, cell)
        half = self._half(load, cell)
        if half is not None:
            return half
        assert self.lanes is not None
        mask = self.lanes.mask(cell)
        if load.when is not None:
            mask = self._both(mask, self.value(load.when, cell))
        return gather(self.function, self.pointers(load.buffer, load.at, step, cell), self._stored(load.buffer), mask)

    def pair(self, first: Scalar, cell: Cell) -> Value | None:
        """Pairs of neighbours in bfloat16, in each lane or one for all, as words, given what loads the first ones; None
        if they have no address. What reads both halves shares them."""
        step = self._pointed(first, size=2)
        if step in (0, 2):
            make = lambda: self._read(first, step == 2, cell, PAIR)  # noqa: E731
        elif isinstance(first, Load) and first.when is None and self.lanes is not None:
            buffer, at, mask = first.buffer, first.at, self.lanes.mask(cell)
            make = lambda: gather(self.function, self.pointers(buffer, at, step, cell), PAIR, mask)  # noqa: E731
        else:
            return None
        return self.place((PAIR, first), self.access.dependence(first), cell, make)

    def _half(self, scalar: Scalar, cell: Cell) -> Value | None:
        """What a scalar loads, if that is a half of a pair in each lane."""
        half = self.access.half(scalar)
        if half is None or self._pointed(half[0], size=2) != 2:
            return None
        pair = self.pair(half[0], cell)
        return None if pair is None else half_of_pair(self.function, pair, half[1])

    def pointers(self, buffer: str, at: tuple[Scalar, ...], step: int | None, cell: Cell) -> Value:
        """The address of every lane."""
        f, element = self.function, STORAGE[self._stored(buffer)][0]
        if step is None or self.lanes is None:
            offsets = self.splat(self.value(self.access.offset(buffer, at), cell))
            return f.offset(self._buffer(buffer), element, offsets)
        first = self._move(self._base(buffer, at, cell), element, cell)
        return f.offset(first, element, lane_offsets(self.lanes.count, step))

    def pointer(self, buffer: str, at: tuple[Scalar, ...], cell: Cell) -> Value:
        """The address of lane 0."""
        element = STORAGE[self._stored(buffer)][0]
        return self._move(self._base(buffer, at, cell), element, cell)

    def _read(self, scalar: Scalar, vector: bool, cell: Cell, unit: str | None = None) -> Value:
        """A load, or a choice between loads, of one element or of neighbouring ones; or of such a `unit`."""
        f, dtype = self.function, self._dtype(scalar)
        assert dtype is not None
        pointer = self._move(self._address(scalar, dtype, cell), STORAGE[dtype][0], cell)
        dtype = unit or dtype
        lanes, when = self.lanes, scalar.when if isinstance(scalar, Load) else None
        if lanes is None:
            return read(f, pointer, dtype, 1, None)
        mask = lanes.mask(cell)
        varying = when is not None and self._in_lanes(when)
        if when is not None and varying:
            mask = self._both(mask, self.value(when, cell))
        if vector:
            return read(f, pointer, dtype, lanes.count, mask)
        if mask is not None and (varying or lanes.guarded):
            # One element for many lanes, and if no condition varies, for all vectors of the tile.
            mask = mask if varying else functools.reduce(lambda a, b: f.binary("or", a, b), lanes.masks)
            any_lane = f.call("i1", f"llvm.vector.reduce.or.v{lanes.count}i1", mask)
            pointer = f.select(any_lane, pointer, self._nowhere())
        return read(f, pointer, dtype, 1, None)

    def _both(self, mask: Value | None, condition: Value) -> Value:
        condition = self.splat(condition)
        return condition if mask is None else self.function.binary("and", mask, condition)

    def _in_lanes(self, scalar: Scalar) -> bool:
        lanes = self.lanes
        return lanes is not None and lanes.count > 1 and lanes.index in self.access.dependence(scalar)

    # Addresses

    def _pointed(self, scalar: Scalar, size: int = 1) -> int | None:
        """The lane step of a scalar that can be read through one address: a load, or a selection, by a condition
        that is the same in all lanes, between loads of one step and constants. -1 for a constant, None if it cannot.
        What is read is `size` elements in each lane, or the same for all.

        A recurrence reads its previous state so: select(t ≥ 1, h[t-1], h0). Choosing the address, once, outside
        the loop over the state's elements, leaves that loop a plain product."""
        match self.access.resolve(scalar):
            case Const(_, dtype) if dtype != "bool":
                return -1
            case Load(buffer, at, _, when) if when is None or not self._in_lanes(when):
                step = self.lane_step(buffer, at)
                return step if step in (0, size) else None
            case Call("select", (condition, a, b), dtype) if dtype != "bool" and not self._in_lanes(condition):
                steps = {self._pointed(a, size), self._pointed(b, size)}
                known = steps - {-1}
                one = None not in steps and len(known) == 1 and self._dtype(scalar) is not None
                return known.pop() if one else None
        return None

    def _stored(self, buffer: str) -> str:
        return self.access.buffers[buffer].dtype

    def _dtype(self, scalar: Scalar) -> str | None:
        """As what a load, or a choice between loads and constants, lies in memory; None if that is not one dtype."""
        parts = list(self._choices(scalar))
        dtypes = {self._stored(part.buffer) for part in parts if isinstance(part, Load)}
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

    def _address(self, scalar: Scalar, dtype: str, cell: Cell) -> Address:
        """The address of what `_pointed` accepts, and which lies in memory as this dtype."""
        match self.access.resolve(scalar):
            case Const(value):
                return self._constant(constant(value, dtype), _VECTOR)
            case Load(buffer, at, _, when):
                if when is None or self._in_lanes(when):
                    return self._base(buffer, at, cell)
                nothing = self._constant(constant(0, dtype), _VECTOR)
                return self._choose(when, self._base(buffer, at, cell), nothing, cell)
            case Call(_, (condition, a, b)):
                chosen = self.access.resolve(a)
                if isinstance(chosen, Load) and chosen.when == condition:
                    chosen = replace(chosen, when=None)
                return self._choose(condition, self._address(chosen, dtype, cell), self._address(b, dtype, cell), cell)
        raise AssertionError(f"no address: {scalar}")

    def _base(self, buffer: str, at: tuple[Scalar, ...], cell: Cell) -> Address:
        key = (buffer, at, tuple(self.moving))
        if key not in self._parts:
            self._parts[key] = self._parted(self.access.offset(buffer, at))
        rest, moving = self._parts[key]
        dependence = self.access.dependence(rest)
        element = STORAGE[self._stored(buffer)][0]
        base = self.place(
            ("address", buffer, rest),
            dependence,
            cell,
            lambda: self.function.offset(self._buffer(buffer), element, self.value(rest, cell, vector=False)),
        )
        strides = tuple((name, self.value(stride, cell)) for name, stride in moving.items())
        inner = frozenset().union(*(self.access.dependence(stride) for stride in moving.values()))
        return Address(base, strides, dependence | inner)

    def _parted(self, offset: Scalar) -> tuple[Scalar, dict[str, Scalar]]:
        """An offset at the first point of the running reduction; and the strides of the reduction's indices in it."""
        moving = {}
        for name in self.moving:
            stride = coefficient(offset, name, self.access)
            if stride is None or name not in self.access.dependence(offset):
                continue
            if self.access.dependence(stride).isdisjoint(self.moving):
                moving[name] = stride
        return substitute(offset, {name: Const(0, "index") for name in moving}, self.access), moving

    def _choose(self, condition: Scalar, a: Address, b: Address, cell: Cell) -> Address:
        dependence = a.dependence | b.dependence | self.access.dependence(condition)
        if isinstance(condition, Const):
            return a if condition.value else b

        def select(x: Value, y: Value) -> Value:
            if x == y:
                return x
            make = lambda: self.function.select(self.value(condition, cell), x, y)  # noqa: E731
            return self.place(("choose", condition, x, y), dependence, cell, make)

        a, b = self._alike(a, b), self._alike(b, a)
        left, right = dict(a.strides), dict(b.strides)
        names = [name for name in self.moving if name in left or name in right]
        strides = tuple((n, select(left.get(n, i64(0)), right.get(n, i64(0)))) for n in names)
        return Address(select(a.base, b.base), strides, dependence)

    def _alike(self, address: Address, other: Address) -> Address:
        """A constant, in all places that the other address moves over, if they are few: then both move by the same
        steps, and the loop need not ask which it is."""
        if address.constant is None or not other.strides:
            return address
        last = 0
        for name, stride in other.strides:
            extent = self.moving[name]
            if not isinstance(extent, Const) or not _known(stride):
                return address
            last += int(stride.text) * max(0, int(extent.value) - 1)
        if last + _VECTOR > _MOST_PLACES:
            return address
        return replace(self._constant(address.constant, last + _VECTOR), strides=other.strides)

    def _move(self, address: Address, element: str, cell: Cell) -> Value:
        """From the base of an address to where the running reduction stands."""
        pointer, dependence = address.base, address.dependence
        for name, stride in address.strides:
            dependence |= {name}
            start = pointer

            def make(start: Value = start, name: str = name, stride: Value = stride) -> Value:
                f, index = self.function, self._index(name, cell, vector=False)
                known = self._home(address.dependence) < self._home(frozenset({name}))  # the stride, before the loop
                step = f.multiple(index, stride) if known else f.binary("mul nsw", index, stride)
                return f.offset(start, element, step)

            pointer = self.place(("move", start, name, stride), dependence, cell, make)
        return pointer

    def _buffer(self, name: str) -> Value:
        return Value(quoted("%", f"buffer.{name}"), "ptr")

    def _nowhere(self) -> Value:
        """Zeros to read where a load must not touch its buffer."""
        self.constants["@zeros"] = "@zeros = internal constant [256 x i8] zeroinitializer, align 64"
        return Value("@zeros", "ptr")

    def _constant(self, value: Value, places: int) -> Address:
        """The address of a constant that stands in memory so many times."""
        size = 1 << (places - 1).bit_length()
        name = f"@splat.{value.type}.{value.text.replace('-', 'm')}.{size}"
        type = f"[{size} x {value.type}]"
        self.constants[name] = f"{name} = internal constant {type} [{', '.join([str(value)] * size)}], align 64"
        if value == constant(0, "float32"):
            self.constants[name] = f"{name} = internal constant {type} zeroinitializer, align 64"
        return Address(Value(name, "ptr"), (), frozenset(), value)


def _known(*values: Value) -> bool:
    """Whether all are constants."""
    return all(value.text.isdigit() for value in values)


def lane_offsets(lanes: int, step: int) -> Value:
    """The constant vector 0, step, 2·step …"""
    if lanes == 1:
        return i64(0)
    return Value(f"<{', '.join(f'i64 {lane * step}' for lane in range(lanes))}>", vector_type("i64", lanes))
