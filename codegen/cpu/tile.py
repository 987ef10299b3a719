"""Tiled reductions on the CPU: the accumulators of several rows and vectors side by side in registers.

In: a `Reduce` and a block of rows and of columns. Out: its results for every cell of the block, on the stack.
A long reduction runs in pieces, each for all tiles of the block before the next: what the tiles share of a piece
stays in the first two levels of cache, and what the pieces came to waits on the stack (the loops around the
micro-kernel of Goto & van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). Each piece is added up
by itself, so that the error of a sum grows with the number of pieces and not with that of terms (blocked summation:
Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from graphc.codegen import halves
from graphc.codegen.cpu.nest import Cell, Nest
from graphc.codegen.cpu.reduce import (
    Accumulator,
    Accumulators,
    add_group,
    bind,
    combine,
    identity,
    points,
    start,
    terms,
)
from graphc.codegen.cpu.values import Result, Values
from graphc.codegen.lengths import length_of
from graphc.codegen.llvm.builder import Value, i64, lane_count, vector_type
from graphc.codegen.llvm.functions import REGISTER
from graphc.codegen.program import Accumulate, Dim, Reduce, Scalar
from graphc.codegen.tiling.tiling import Tiling, length
from graphc.scalar import call, index

__all__ = ["Block", "places", "tiled"]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows first ≤ row < last, at most `rows` of them, and columns left ≤ column < right, in at most `strips` strips of
    the tiles' width; and that at each of the points of `inside`, which are dims with where their points begin and end.
    """

    first: Value
    last: Value
    rows: int
    left: Value
    right: Value
    strips: int
    inside: tuple[tuple[Dim, Value, Value], ...] = ()

    @property
    def points(self) -> int:
        """How many points `inside` has."""
        return length_of(dim for dim, _, _ in self.inside)


@contextmanager
def places(nest: Nest, block: Block) -> Iterator[Value]:
    """The loops over the points inside a block: where the rows of the current point begin among the block's results."""
    f, at = nest.function, i64(0)
    with ExitStack() as stack:
        for dim, begin, end in block.inside:
            stack.enter_context(nest.loop(dim.index, begin, end, 1))
            step = nest.index(dim.index)
            at = step if at == i64(0) else f.binary("add nsw", f.binary("mul nsw", at, i64(length_of((dim,)))), step)
        yield at if at == i64(0) else f.binary("mul nsw", at, i64(block.rows))


def tiled(values: Values, reduce: Reduce, block: Block, tiling: Tiling) -> None:
    """Compute a reduction for all cells of a block, and bind its results."""
    nest = values.nest
    in_pieces = length(reduce) > tiling.depth
    results = {total.name: _space(values, total, _varies(values, reduce, total), block) for total in reduce.sums}
    if in_pieces:
        _clear(values, reduce, block, results)
    with (
        _pieces(values, reduce, tiling.depth if in_pieces else None) as ranges,
        places(nest, block) as place,
        _strips(nest, block, tiling) as vector,
    ):
        for first, last, rows in nest.steps(block.first, block.last, tiling.heights if block.rows > 1 else (1,)):
            with nest.loop(tiling.row or "(row)", first, last, rows):
                row = nest.index(tiling.row) if tiling.row is not None else first
                with nest.at_cell(nest.sum(place, nest.difference(row, block.first)), vector):
                    _tile(values, reduce, rows, results, ranges, in_pieces, tiling.by_vector)
    for total in reduce.sums:
        bind(values, total, results[total.name])


@contextmanager
def _strips(nest: Nest, block: Block, tiling: Tiling) -> Iterator[Value]:
    """The loop over a block's strips, if it has several: which of the block's vectors is the first of the current."""
    assert tiling.vector is not None
    if block.strips == 1:
        yield i64(0)
        return
    with nest.loop(tiling.vector, block.left, block.right, tiling.lanes * nest.vectors):
        columns = nest.difference(nest.index(tiling.vector), block.left)
        yield nest.function.binary("udiv exact", columns, i64(tiling.lanes))


def _varies(values: Values, reduce: Reduce, total: Accumulate) -> frozenset[str]:
    varies = values.access.dependence(total.value)
    return varies if reduce.when is None else varies | values.access.dependence(reduce.when)


def _space(values: Values, total: Accumulate, varies: frozenset[str], block: Block) -> Result:
    """Room on the stack for one result, for every cell of a block."""
    lanes = values.nest.lanes
    assert lanes is not None
    type = vector_type(REGISTER[total.value.dtype], lanes.count if lanes.index in varies else 1)
    vectors = block.strips * values.nest.vectors
    return Result(values.function.variable(type, block.points * block.rows * vectors), type, vectors)


def _clear(values: Values, reduce: Reduce, block: Block, results: Mapping[str, Result]) -> None:
    """Begin all results of a block."""
    f, nest = values.function, values.nest
    cells = i64(block.points * block.rows * block.strips * nest.vectors)
    if block.points == 1:
        cells = f.binary("mul nsw", nest.difference(block.last, block.first), i64(block.strips * nest.vectors))
    with nest.loop("(cell)", i64(0), cells, 1):
        for total in reduce.sums:
            result = results[total.name]
            place = f.offset(result.space, result.type, nest.index("(cell)"))
            f.put(identity(values, total, lane_count(result.type)), place)


@contextmanager
def _pieces(values: Values, reduce: Reduce, depth: int | None) -> Iterator[dict[str, tuple[Value, Value]]]:
    """Loops over pieces of about `depth` points, as near to a cube's side as the inner dims leave: the range of each
    index in the current piece. Without a depth, the whole is one piece."""
    steps: list[tuple[str, Scalar, Scalar]] = []
    room: Scalar = index(depth or 0)
    for dim in reversed(reduce.dims):
        steps.append((dim.index, dim.extent, room))
        room = call("max", index(1), call("floordiv", room, call("max", index(1), dim.extent)))
    ranges: dict[str, tuple[Value, Value]] = {}
    with ExitStack() as stack:
        for name, extent, step in reversed(steps):
            whole = values.value(extent)
            if depth is None:
                ranges[name] = i64(0), whole
            else:
                piece = values.nest.pieces(f"({name} piece)", i64(0), whole, values.value(step))
                ranges[name] = stack.enter_context(piece)
        yield ranges


def _tile(
    values: Values,
    reduce: Reduce,
    rows: int,
    results: Mapping[str, Result],
    ranges: Mapping[str, tuple[Value, Value]],
    in_pieces: bool,
    by_vector: bool,
) -> None:
    """Compute a reduction for the current tile; in pieces, one of them, and combine it with what there is."""
    f, nest, lanes = values.function, values.nest, values.nest.lanes
    assert lanes is not None
    cells = [(i, j) for i in range(rows) for j in range(nest.vectors)]
    accumulators: Accumulators = {}
    for total in reduce.sums:
        varies, result = _varies(values, reduce, total), results[total.name]
        for i, j in cells:
            same: Cell = (i if nest.row in varies else 0, j if lanes.index in varies else 0)
            if (total.name, same) not in accumulators:
                accumulators[total.name, same] = start(values, total, lane_count(result.type))
            accumulators[total.name, (i, j)] = accumulators[total.name, same]
    distinct = {a.variable: (cell, a) for (_, cell), a in reversed(accumulators.items())}
    every = {total.name: halves.groups(terms(values, total), values.access) for total in reduce.sums}

    def order(item: tuple[Cell, Accumulator]) -> tuple[int, ...]:
        (row, vector), accumulator = item
        return (vector, list(every).index(accumulator.total.name), row) if by_vector else (row, vector)

    with points(values, reduce, reduce.dims, ranges):
        # Group by group of terms, and row by row: what a row broadcasts is used up before the next is loaded, and takes
        # one register; or else what all rows broadcast is held, and a vector is used up before the next is loaded.
        guarded = nest.lanes is not None and nest.lanes.guarded
        for k in range(max(map(len, every.values()))):
            for cell, accumulator in sorted(distinct.values(), key=order):
                for group in every[accumulator.total.name][k : k + 1]:
                    add_group(values, accumulator, group, cell, guarded)
    for (name, cell), accumulator in accumulators.items():
        place, sum = values.place_of(results[name], cell), f.get(accumulator.variable, accumulator.type)
        if in_pieces:
            sum = combine(values, accumulator.total, f.get(place, accumulator.type), sum)
        f.put(sum, place)
