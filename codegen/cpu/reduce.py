"""Reductions on the CPU: loops around accumulators that stay in registers.

In: a `Reduce`. Out: its results, bound in the current scope. Two forms: a tiled reduction (`graphc.codegen.cpu.tile`)
keeps an accumulator for each cell of the kernel's tile, and its own loops are plain; a horizontal one belongs to a
single point, runs its own dimension in lanes, and folds the lanes at the end, halves onto halves, in an order that
depends on nothing but the lane count. Here is what both are made of, and the horizontal one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from graphc.codegen import halves
from graphc.codegen.access import MEMORY
from graphc.codegen.cpu.nest import Cell, Lanes, Nest, lane_offsets
from graphc.codegen.cpu.values import Result, Values
from graphc.codegen.llvm.builder import Value, i64, lane_count, vector_type
from graphc.codegen.llvm.functions import REGISTER, constant
from graphc.codegen.program import Accumulate, Call, Dim, Reduce, Scalar
from graphc.codegen.tiling.vectorize import horizontal_index
from graphc.scalar import conjuncts

__all__ = [
    "Accumulator",
    "Accumulators",
    "add",
    "add_group",
    "bind",
    "combine",
    "horizontal",
    "identity",
    "points",
    "start",
    "strips",
    "tail_mask",
    "terms",
]

_MOST_CHAINS = 4  # accumulators of a horizontal reduction, to overlap the latency of an addition


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A variable that holds what a reduction comes to so far, in the lanes of one cell."""

    total: Accumulate
    variable: Value
    type: str


Accumulators = dict[tuple[str, Cell], Accumulator]


def horizontal(values: Values, reduce: Reduce, count: int) -> None:
    """Compute a reduction for one point, its own dimension in `count` lanes."""
    f, nest, own = values.function, values.nest, horizontal_index(reduce)
    chains = _MOST_CHAINS if count > 1 else 1
    if own.length is not None:
        count = min(count, 1 << max(0, own.length - 1).bit_length())
        chains = max(1, min(chains, own.length // count))
    accumulators: Accumulators = {
        (total.name, (0, j)): start(values, total, count) for total in reduce.sums for j in range(chains)
    }
    others = tuple(dim for dim in reduce.dims if dim is not own)
    with nest.running(Lanes(own.index, count)), points(values, reduce, others, {}):
        for first, last, vectors, partial in strips(
            nest, own, i64(0), values.value(own.extent), count, tuple(dict.fromkeys((chains, 1)))
        ):
            with nest.loop(own.index, first, last, count * vectors):
                _strip(values, reduce, accumulators, own, vectors, partial)
    for total in reduce.sums:
        type = REGISTER[total.value.dtype]
        parts = [f.get(accumulators[total.name, (0, j)].variable, vector_type(type, count)) for j in range(chains)]
        space = f.variable(type)
        f.put(_fold(values, total, parts), space)
        bind(values, total, Result(space, type, 0))


def _strip(values: Values, reduce: Reduce, accumulators: Accumulators, own: Dim, vectors: int, partial: bool) -> None:
    """Add one strip of a horizontal reduction to its accumulators."""
    nest, lanes = values.nest, values.nest.lanes
    assert lanes is not None
    if partial:
        lanes = replace(lanes, masks=(tail_mask(nest, own.index, values.value(own.extent)),))
    with nest.running(lanes), nest.moving_along(own), _guard(values, reduce.when, vectors, own.index):
        for (_, cell), accumulator in accumulators.items():
            if cell[1] < vectors:
                masked = nest.lanes is not None and bool(nest.lanes.masks)
                for term in terms(values, accumulator.total):
                    add(values, accumulator, term, cell, masked)


def strips(
    nest: Nest, dim: Dim, begin: Value, end: Value, lanes: int, widths: tuple[int, ...]
) -> Iterator[tuple[Value, Value, int, bool]]:
    """Cover a part of a dim that begins at a whole vector with strips of so many vectors, then one in part: start,
    end, the vectors of a step, and whether it is the part. Strips that are known to be empty are left out."""
    done = begin
    for first, last, size in nest.steps(begin, end, tuple(lanes * width for width in widths)):
        yield first, last, size // lanes, False
        done = last
    if lanes > 1 and done != end and not dim.is_multiple(lanes):
        yield done, end, 1, True


def tail_mask(nest: Nest, index: str, end: Value) -> Value:
    """The lanes of the current vector that lie before the end."""
    f, lanes = nest.function, nest.lanes
    assert lanes is not None
    left = f.binary("sub", end, nest.index(index))
    steps = lane_offsets(lanes.count, 1)
    narrow = Value(steps.text.replace("i64", "i32"), vector_type("i32", lanes.count))
    return f.compare("icmp slt", narrow, f.splat(f.convert("trunc", left, "i32"), lanes.count))


@contextmanager
def points(
    values: Values, reduce: Reduce, dims: tuple[Dim, ...], ranges: Mapping[str, tuple[Value, Value]]
) -> Iterator[None]:
    """The loops over some dims of a reduction, whole or in their `ranges`, with each part of its condition tested as
    early as it is known."""
    nest, own = values.nest, {dim.index for dim in reduce.dims}
    with ExitStack() as stack:
        waiting = list(conjuncts(reduce.when))
        for position in range(len(dims) + 1):
            pending = own - {dim.index for dim in dims[:position]}
            for condition in [c for c in waiting if values.access.dependence(c).isdisjoint(pending)]:
                stack.enter_context(_guard(values, condition, nest.vectors, None))
                waiting.remove(condition)
            if position < len(dims):
                dim = dims[position]
                first, last = ranges.get(dim.index) or (i64(0), values.value(dim.extent))
                stack.enter_context(nest.loop(dim.index, first, last, 1))
                stack.enter_context(nest.moving_along(dim))
        yield


@contextmanager
def _guard(values: Values, when: Scalar | None, vectors: int, own: str | None) -> Iterator[None]:
    """Inside, `when` holds: by a branch, or, where it differs between lanes, by masks. With `own` given, conditions
    that do not depend on that index have been tested already."""
    f, nest, lanes = values.function, values.nest, values.nest.lanes
    if when is None or (own is not None and own not in values.access.dependence(when)):
        yield
    elif lanes is not None and lanes.count > 1 and lanes.index in values.access.dependence(when):
        masks = []
        for j in range(vectors):
            condition = nest.splat(values.value(when, (0, j)))
            outer = lanes.mask((0, j))
            masks.append(condition if outer is None else f.binary("and", outer, condition))
        with nest.running(replace(lanes, masks=tuple(masks), guarded=True)), nest.scope(f.block, {}, MEMORY):
            yield
    else:
        with f.when(values.value(when)) as before, nest.scope(before, {}, MEMORY):
            yield


def identity(values: Values, total: Accumulate, lanes: int) -> Value:
    """What a reduction over no points gives, in every lane."""
    return values.function.splat(constant(total.identity.value, total.value.dtype), lanes)


def start(values: Values, total: Accumulate, lanes: int) -> Accumulator:
    """An accumulator that begins at the identity."""
    type = vector_type(REGISTER[total.value.dtype], lanes)
    variable = values.function.variable(type)
    values.function.put(identity(values, total, lanes), variable)
    return Accumulator(total, variable, type)


def terms(values: Values, total: Accumulate) -> list[Scalar]:
    """What a reduction takes in at each point, one after another."""
    several = total.op == "sum" and total.value.dtype.startswith("float")
    return list(values.access.terms(total.value)) if several else [total.value]


def add(values: Values, accumulator: Accumulator, term: Scalar, cell: Cell, masked: bool) -> None:
    """Take a term at one cell into its accumulator, in the lanes that count."""
    f, total, lanes = values.function, accumulator.total, lane_count(accumulator.type)
    old = f.get(accumulator.variable, accumulator.type)
    if total.op == "sum":
        new = _plus(values, old, term, cell)
    else:
        new = combine(values, total, old, f.splat(values.value(term, cell), lanes))
    _keep(values, accumulator, old, new, cell, masked)


def _keep(values: Values, accumulator: Accumulator, old: Value, new: Value, cell: Cell, masked: bool) -> None:
    """Put a new value into an accumulator, in the lanes that count."""
    lanes = values.nest.lanes
    mask = lanes.mask(cell) if masked and lanes is not None else None
    chosen = new if mask is None or lane_count(new.type) == 1 else values.function.select(mask, new, old)
    values.function.put(chosen, accumulator.variable)


def add_group(values: Values, accumulator: Accumulator, group: Sequence[Scalar], cell: Cell, masked: bool) -> None:
    """Take several terms at one cell into its accumulator: by one instruction, if they are two products of pairs in
    bfloat16 and the machine has it."""
    target, lanes = values.functions.target, lane_count(accumulator.type)
    paired = len(group) == 2 and target.has_dot and lanes == target.lanes(4)
    factors = halves.factors(group, values.access) if paired else None
    words = [word for factor in factors or () if (word := values.pair(factor, cell)) is not None]
    if len(words) != 2:
        for term in group:
            add(values, accumulator, term, cell, masked)
        return
    f = values.function
    old = f.get(accumulator.variable, accumulator.type)
    a, b = (f.splat(word, lanes) for word in words)
    _keep(values, accumulator, old, values.functions.dot(a, b, old), cell, masked)


def _plus(values: Values, sum: Value, scalar: Scalar, cell: Cell) -> Value:
    """The sum with one more term; a product is multiplied and added at once."""
    scalar, lanes = values.access.resolve(scalar), lane_count(sum.type)
    match scalar:
        case Call("mul", (a, b), dtype) if dtype.startswith("float"):
            x, y = (values.function.splat(values.value(factor, cell), lanes) for factor in (a, b))
            return values.functions.multiply_add(x, y, sum)
    term = values.function.splat(values.value(scalar, cell), lanes)
    return values.functions.apply("add", [sum, term], scalar.dtype, scalar.dtype)


def combine(values: Values, total: Accumulate, a: Value, b: Value) -> Value:
    """What two parts of a reduction come to."""
    dtype = total.value.dtype
    return values.functions.apply("add" if total.op == "sum" else "max", [a, b], dtype, dtype)


def _fold(values: Values, total: Accumulate, parts: list[Value]) -> Value:
    """Combine vectors pairwise, then the halves of the last one, down to a scalar."""
    f = values.function
    while len(parts) > 1:
        half = (len(parts) + 1) // 2
        pairs = [combine(values, total, a, b) for a, b in zip(parts[:half], parts[half:], strict=False)]
        parts = pairs + parts[len(pairs) : half]
    vector = parts[0]
    element = REGISTER[total.value.dtype]
    while lane_count(vector.type) > 1:
        half = lane_count(vector.type) // 2
        if half == 1:
            low, high = (f.emit(element, f"extractelement {vector}, i64 {k}") for k in (0, 1))
        else:
            low, high = (_part(values, vector, start, half, element) for start in (0, half))
        vector = combine(values, total, low, high)
    return vector


def _part(values: Values, vector: Value, start: int, count: int, element: str) -> Value:
    """Some neighbouring lanes."""
    picks = ", ".join(f"i32 {start + k}" for k in range(count))
    shuffle = f"shufflevector {vector}, {vector.type} poison, <{count} x i32> <{picks}>"
    return values.function.emit(vector_type(element, count), shuffle)


def bind(values: Values, total: Accumulate, result: Result) -> None:
    """Make a result known from here on, in the current scope."""
    values.results[total.name] = result
    values.nest.scopes[-1].names.add(total.name)
