"""The loops of one function while it is being written: what each binds, and where in them a value stands.

In: loops, from the outermost inwards; then values, each with the names that it varies with. Out: the LLVM value of a
name, and of whatever was made before. Invariant: a value is made once for each setting of the names that it varies
with. It stands in the innermost scope that binds one of them, or, if others lie inside that one, in the block before
the next:

    >>> f = Function("example", ["i64 %n"])
    >>> nest, n = Nest(f), Value("%n", "i64")
    >>> def block(*names: str) -> str:
    ...     return nest.place(names, frozenset(names), (0, 0), lambda: Value(f.block.name, "label")).text
    >>> with nest.loop("i", i64(0), n, 1), nest.loop("j", i64(0), n, 1):
    ...     print(block(), block("i"), block("i", "j"))
    i.enter.1 j.enter.3 j.loop.3

So an operand that the rows or the vectors of a tile share is loaded once, and addresses leave the loops that do not
move them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from graphc.codegen.llvm.builder import Block, Function, Value, i64, vector_type
from graphc.codegen.program import Dim, Scalar

__all__ = ["Cell", "Lanes", "Nest", "known", "lane_offsets"]

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
    """A level of the nest: the names that vary in it, the block before it, and the values of the indices that it binds.
    `inside` is what was made in the scope itself; `hoisted`, what was made for it in the block before."""

    names: set[str]
    before: Block
    bindings: dict[str, Value] = field(default_factory=dict)
    inside: dict[Hashable, Value] = field(default_factory=dict)
    hoisted: dict[Hashable, Value] = field(default_factory=dict)


class Nest:
    """The scopes that are open, the outermost first; and the tile that is being written: its `row` dim, its `lanes`,
    how many `vectors` a row of it has, and the `cell` of its block at which it begins."""

    def __init__(self, function: Function, row: str | None = None) -> None:
        self.function = function
        self.row = row
        self.lanes: Lanes | None = None
        self.vectors = 1
        self.cell = (i64(0), i64(0))
        self.moving: dict[str, Scalar] = {}  # the indices of the reduction being computed, and their extents
        self.scopes = [Scope(set(), function.entry)]

    # Levels

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
        once = known(start, stop, step) and 0 < int(stop.text) - int(start.text) <= int(step.text)
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
            if known(extent, step) and int(extent.text) <= int(step.text):
                yield first, end
                return
            last = f.binary("add nsw", first, step)
            if not known(extent, step) or int(extent.text) % int(step.text):
                last = f.intrinsic("smin", last, end)
            yield first, last

    def steps(self, start: Value, end: Value, sizes: tuple[int, ...]) -> Iterator[tuple[Value, Value, int]]:
        """Cover start ≤ index < end with steps of each size in turn, as many as fit: their start, their end, the size.
        What is known to be empty is left out: 0 ≤ index < 23 in sizes (6, 2, 1) is 0–18, 18–22 and 22–23."""
        f = self.function
        for size in sizes:
            left = self.difference(end, start)
            if known(start, left):
                stop = i64(int(start.text) + int(left.text) // size * size)
            elif size == 1 or (known(left) and int(left.text) % size == 0):
                stop = end
            else:
                stop = f.binary("sub", end, f.binary("srem", left, i64(size)))
            if stop != start:
                yield start, stop, size
            start = stop

    # What is being computed

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

    # Values

    def index(self, name: str) -> Value:
        """The current value of a loop index, at the first cell of the tile."""
        return next(s.bindings[name] for s in reversed(self.scopes) if name in s.bindings)

    def index_at(self, name: str, cell: Cell, vector: bool = False) -> Value:
        """The value of a loop index at a cell of the tile: in lane 0 or, with `vector`, in every lane."""
        f, value, lanes = self.function, self.index(name), self.lanes
        if name == self.row and cell[0]:
            value = f.emit("i64", f"add nsw {value}, {cell[0]}")
        if lanes is None or name != lanes.index:
            return value
        if cell[1]:
            value = f.emit("i64", f"add nsw {value}, {cell[1] * lanes.count}")
        return f.binary("add nsw", self.splat(value), lane_offsets(lanes.count, 1)) if vector else value

    def splat(self, value: Value) -> Value:
        """The value in every lane that runs."""
        return self.function.splat(value, self.lanes.count if self.lanes else 1)

    def place(self, key: Hashable, dependence: frozenset[str], cell: Cell, make: Callable[[], Value]) -> Value:
        """Make a value where it stands for these names that it varies with, unless it was made there before."""
        i = cell[0] if self.row in dependence else 0
        j = cell[1] if self.lanes is not None and self.lanes.index in dependence else 0
        home = self.level(dependence)
        innermost = home == len(self.scopes) - 1
        inner = self.scopes[home if innermost else home + 1]
        for made in (self.scopes[home].inside, inner.hoisted):
            if (key, i, j) in made:
                return made[key, i, j]
        if innermost:
            value = inner.inside[key, i, j] = make()
        else:
            with self.function.at(inner.before):
                value = inner.hoisted[key, i, j] = make()
        return value

    def level(self, dependence: frozenset[str]) -> int:
        """The level of the innermost scope that a value of this dependence varies with."""
        for level in range(len(self.scopes) - 1, 0, -1):
            if not self.scopes[level].names.isdisjoint(dependence):
                return level
        return 0

    # Arithmetic of indices, folded where all is known

    def sum(self, a: Value, b: Value) -> Value:
        """a + b."""
        if known(a, b):
            return i64(int(a.text) + int(b.text))
        return b if a == i64(0) else a if b == i64(0) else self.function.binary("add nsw", a, b)

    def difference(self, a: Value, b: Value) -> Value:
        """a - b."""
        if known(a, b):
            return i64(int(a.text) - int(b.text))
        return a if b == i64(0) else self.function.binary("sub nsw", a, b)

    def product(self, a: Value, b: int) -> Value:
        """a · b."""
        return i64(int(a.text) * b) if known(a) else self.function.binary("mul nsw", a, i64(b))


def known(*values: Value) -> bool:
    """Whether all are constants."""
    return all(value.text.isdigit() for value in values)


def lane_offsets(lanes: int, step: int) -> Value:
    """The constant vector 0, step, 2·step …"""
    if lanes == 1:
        return i64(0)
    return Value(f"<{', '.join(f'i64 {lane * step}' for lane in range(lanes))}>", vector_type("i64", lanes))
