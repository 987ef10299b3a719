"""rows: values of which each element depends on one row of another alone.

Of `h = f(h′) + W @ x`, with a diagonal f, element i depends on row i of W and on no other. So all rows of W can move at
once, and each element of h shows the derivative by its own: columns of a Jacobian that meet no row together need one
product (Curtis, Powell & Reid 1974). Read off the ops on the way, for every value of what else they read.

Rows may be a part of a dimension, as in heads and in weights that are packed: of 4 heads of 8 units the rows i with one
i // 8, or those with one i % 8. Several parts, each of which can move at once, can do so together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir import Node, topological
from graphc.ops.axis import AS_AXIS, AS_DIM, AT, SHIFT, STACK
from graphc.ops.contraction import CONTRACT
from graphc.ops.elementwise import ELEMENTWISE
from graphc.ops.event import CONCAT, PLACE, RESHAPE, SLICE, TRANSPOSE, concat_starts
from graphc.ops.leaves import STATE
from graphc.ops.reduction import BROADCAST, SUM
from graphc.ops.table import GATHER
from graphc.ops.take import TAKE
from graphc.ops.window import FOLD, WINDOW


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that index i of a dimension is of: number `(i + start) // stride % count`."""

    dim: int
    count: int
    stride: int = 1
    start: int = 0

    @property
    def period(self) -> int:
        return self.count * self.stride


Places = Mapping[Node, Rows]
"""For each value of which an element depends on one row alone, which row that is."""


def independent_rows(roots: Sequence[Node], equations: Mapping[Node, Node], of: Node) -> dict[Rows, Places]:
    """Rows of `of` that can move at once, all of them together, and where they are in the values that depend on it:
    parts that do not overlap, the largest first. `equations` are those of states. Rows that meet in some values can
    move at once in the others, if these have them as whole dimensions, and states are among them."""
    order = topological([*roots, *equations.values()])
    found: dict[Rows, Places] = {}
    for rows in _candidates(order, of):
        if not any(_overlap(rows, other) for other in found):
            places = _places(order, equations, of, rows)
            if any(state in places for state in equations) and all(_whole(root, places) for root in roots):
                found[rows] = places
    return found


def _candidates(values: Sequence[Node], of: Node) -> list[Rows]:
    """Parts of dimensions that are as large as a dimension of a value."""
    sizes = {size for value in values for size in value.shape}
    strides = {math.prod(value.shape[k + 1 :]) for value in values for k in range(len(value.shape))}
    found = [
        Rows(dim, count, stride)
        for dim, size in enumerate(of.shape)
        for count in {size, *sizes}
        for stride in {1, *strides}
        if count > 1 and size % (count * stride) == 0
    ]
    return sorted(found, key=lambda rows: (-rows.count, rows.dim, rows.stride))


def _overlap(a: Rows, b: Rows) -> bool:
    return a.dim == b.dim and a.stride % b.period != 0 and b.stride % a.period != 0


def _whole(value: Node, places: Places) -> bool:
    """Whether the rows are a part of a dimension, with all of its elements."""
    rows = places.get(value)
    return rows is None or (rows.start == 0 and value.shape[rows.dim] % rows.period == 0)


def _places(order: Sequence[Node], equations: Mapping[Node, Node], of: Node, rows: Rows) -> Places:
    """Where the rows are in all values that depend on `of` and in which they do not meet. Nothing, if they would have
    to be told apart in a value that has a part of them."""
    found: dict[Node, Rows | None] = {of: rows}  # None: they meet
    changed = True
    while changed:  # states on cycles learn of each other
        changed = False
        for node in order:
            read = [equations[node]] if node in equations else node.inputs
            seen = {k: found[operand] for k, operand in enumerate(read) if operand in found}
            here = {next(_moved(node, k, read[k], r), None) if r is not None else None for k, r in seen.items()}
            if seen and (node not in found or found[node] is not None):
                now = next(iter(here)) if len(here) == 1 else None
                now = now if found.get(node, now) == now else None
                changed = changed or found.get(node, node) != now
                found[node] = now
    for node in order:
        read = [equations[node]] if node in equations else node.inputs
        if node in found and found[node] is None and any(_is_part(operand, found.get(operand)) for operand in read):
            return {}
    return {node: place for node, place in found.items() if place is not None}


def _is_part(value: Node, rows: Rows | None) -> bool:
    return rows is not None and (rows.stride, rows.start, rows.count) != (1, 0, value.shape[rows.dim])


def _moved(node: Node, k: int, operand: Node, rows: Rows) -> Iterator[Rows]:
    """Where the rows of operand k are in the node's event; nothing if they meet, or change their places."""
    dim, shape = rows.dim, operand.shape
    if node.op is RESHAPE:
        yield from _reshaped(shape, node.shape, rows)
    elif node.op in (SLICE, PLACE, CONCAT) and dim == node["dim"]:
        start = concat_starts(node)[k] if node.op is CONCAT else node["start"]
        moved = rows.start + (start if node.op is SLICE else -start)
        if node.op is CONCAT or node["step"] == 1:
            yield replace(rows, start=moved % rows.period)
    else:
        there = _dim(node, k, dim, len(shape))
        if there is not None and node.shape[there] == shape[dim]:
            yield replace(rows, dim=there)


def _reshaped(before: Sequence[int], after: Sequence[int], rows: Rows) -> Iterator[Rows]:
    """The rows of a dimension that is the same after it, or a part of another whose elements lie as far apart."""
    above, below = math.prod(before[: rows.dim]), math.prod(before[rows.dim + 1 :])
    split = rows.start == 0 and (above == 1 or before[rows.dim] % rows.period == 0)
    for dim, size in enumerate(after):
        outer, inner = math.prod(after[:dim]), math.prod(after[dim + 1 :])
        if (outer, size) == (above, before[rows.dim]):
            yield replace(rows, dim=dim)
        elif split and rows.stride * below % inner == 0 and size > 1:
            there = Rows(dim, rows.count, rows.stride * below // inner)
            if outer == 1 or size % there.period == 0:
                yield there


def _dim(node: Node, k: int, dim: int, rank: int) -> int | None:
    """Which dimension of the node's event a dimension of operand k is; None if its elements meet."""
    if node.op in ELEMENTWISE or node.op in (STATE, BROADCAST, SHIFT, AT, TAKE, STACK):
        return dim + len(node.shape) - rank
    if node.op is CONTRACT:
        letter, out = str(node["ab"[k]])[dim], str(node["out"])
        return out.index(letter) if letter in out else None
    if node.op is SUM:
        return None if dim in node["dims"] else dim - sum(d < dim for d in node["dims"])
    if node.op is TRANSPOSE:
        return int(node["perm"].index(dim))
    if node.op is GATHER:
        return dim + len(node.shape) - rank if dim > 0 else None
    if node.op is AS_DIM:
        return dim + int(node["dim"] <= dim)
    if node.op is AS_AXIS:
        return None if dim == node["dim"] else dim - (node["dim"] < dim)
    if node.op in (WINDOW, FOLD):
        return None if dim in node["dims"] or dim >= len(node.shape) else dim
    return dim if node.op in (SLICE, PLACE, CONCAT) else None
