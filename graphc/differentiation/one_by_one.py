"""one_by_one: what a linear function makes of a value that is 1 at one element and 0 at all others, for each element.

Along a dimension whose elements move one after the other, the value is not 0 at the point of an axis alone. Such a
dimension is not written out while ops can do without: a product with it picks an element of the other operand, and a
slice counts from another start. Written out, W[0:8] @ x would be a sum over zeros, for the square of W's elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.differentiation.rows import Places
from graphc.ir import Axis, Node, Op, Shape, merge_axes, rebuild, topological
from graphc.ops.axis import AT, SHIFT, as_axis
from graphc.ops.composite import one_hot
from graphc.ops.contraction import CONTRACT, contract
from graphc.ops.elementwise import ADD, CAST, DIV, MUL, NEG, SUB, WHERE, add, cast, eq, mul
from graphc.ops.event import PLACE, RESHAPE, SLICE, TRANSPOSE, place, reshape, slice_, transpose
from graphc.ops.leaves import const, index, is_const
from graphc.ops.reduction import BROADCAST, SUM, broadcast
from graphc.ops.table import GATHER, gather


@dataclass(frozen=True, slots=True)
class Along:
    """Element i of a dimension is the one that moves where the axis is at i + start."""

    axis: Axis
    start: int = 0

    def covered(self, size: int) -> bool:
        """Whether a dimension of this size has an element for every point of the axis."""
        return self.start <= 0 and self.start + size >= self._length

    def pick(self, value: Node, dim: int) -> Node:
        """The element of a value that is where the one that moves is, or 0; dimension `dim` is 1 long."""
        size, shape = value.shape[dim], _with(value.shape, {dim: 1})
        first, end = max(0, -self.start), min(size, self._length - self.start)
        if first >= end:
            return broadcast(const(0, value.dtype), value.axes, shape)
        value = slice_(value, dim, first, 1, end - first)
        if end - first < self._length:
            value = place(value, dim, first + self.start, 1, self._length)
        return reshape(as_axis(value, dim, self.axis), shape)

    def mask(self, size: int, dtype: str) -> Node:
        """1 where the element that moves is, 0 elsewhere."""
        at = index(self.axis)
        at = add(at, const(-self.start, "int32")) if self.start else at
        return one_hot(at, size, dtype)

    @property
    def _length(self) -> int:
        assert isinstance(self.axis.length, int)
        return self.axis.length


@dataclass(frozen=True, slots=True)
class Sparse:
    """`factor` where all of the dimensions `along` are at the element that moves, 0 elsewhere; it is 1 long there."""

    shape: Shape
    factor: Node
    along: Mapping[int, Along]

    def write(self, dims: Iterable[int]) -> Sparse:
        """With some dimensions written out."""
        factor, along = self.factor, dict(self.along)
        for dim in dims:
            shape = tuple(s if d == dim else 1 for d, s in enumerate(self.shape))
            factor = mul(factor, reshape(along.pop(dim).mask(self.shape[dim], factor.dtype), shape))
        return Sparse(self.shape, factor, along)

    def written(self) -> Node:
        factor = self.write(self.along).factor
        return broadcast(factor, factor.axes, self.shape)


Made = Node | Sparse
AtOnce = tuple[Axis, Places]
"""An axis, and the values in which what would move along it moves at once."""


def one_by_one(
    roots: Sequence[Node], equations: Mapping[Node, Node], known: Mapping[Node, Made], at_once: Sequence[AtOnce]
) -> tuple[dict[Node, Node], dict[Node, Node]]:
    """The roots, and the equations of states: linear functions of values of which some are known."""
    made = dict(known)

    def read(operand: Node, by: Node) -> Made:
        """An operand, with what moves at once in it told apart where it meets."""
        value = made[operand]
        for axis, places in at_once:
            if operand in places and by not in places:
                value = _apart(value, places[operand].dim, axis)
        return value

    for node in topological([*roots, *equations.values()]):
        if node not in made:
            operands = [read(operand, node) for operand in node.inputs]
            made[node] = _product(node, operands, read) if node.op is CONTRACT else _applied(node, operands)
    bodies = {state: _written(read(body, state)) for state, body in equations.items()}
    return {root: _written(made[root]) for root in roots}, bodies


def widened(roots: Sequence[Node], replaced: Mapping[Node, Node]) -> dict[Node, Node]:
    """What values become where some that they are made of are replaced by others, which may vary over further axes."""
    made = dict(replaced)
    for node in topological(roots):
        if node not in made:
            made[node] = _rebuilt(node, [made[operand] for operand in node.inputs])
    return made


def _rebuilt(node: Node, operands: Sequence[Node]) -> Node:
    """The same op on operands that may vary over further axes."""
    if node.op is BROADCAST:
        return broadcast(operands[0], merge_axes(node.axes, operands[0].axes), node.shape)
    return rebuild(node, operands)


def _apart(value: Made, dim: int, axis: Axis) -> Sparse:
    """A value whose elements along a dimension move at once, one by one."""
    along = Along(axis)
    factor = value.factor if isinstance(value, Sparse) else value
    return Sparse(
        value.shape, along.pick(factor, dim), {**(value.along if isinstance(value, Sparse) else {}), dim: along}
    )


def _written(value: Made) -> Node:
    return value.written() if isinstance(value, Sparse) else value


def _applied(node: Node, operands: Sequence[Made]) -> Made:
    sparse = {k: operand for k, operand in enumerate(operands) if isinstance(operand, Sparse)}
    result = None
    if len(sparse) == 1 and node.op in _RULES:
        ((k, value),) = sparse.items()
        result = _RULES[node.op](node, k, value, operands)
    elif len(sparse) == 2 and node.op in (ADD, SUB):
        result = _sum(node, *sparse.values())
    return result if result is not None else _rebuilt(node, [_written(operand) for operand in operands])


def _with(shape: Shape, sizes: Mapping[int, int]) -> Shape:
    """A shape with other sizes of some dimensions."""
    return tuple(sizes.get(dim, size) for dim, size in enumerate(shape))


def _sparse(node: Node, factor: Node, along: Mapping[int, Along]) -> Sparse:
    """The node, with these dimensions not written out, but for those that are 1 long."""
    axes = merge_axes(node.axes, factor.axes)
    result = Sparse(node.shape, broadcast(factor, axes, _with(node.shape, dict.fromkeys(along, 1))), along)
    return result.write([dim for dim in along if node.shape[dim] == 1])


# What ops make of one sparse operand k; None: as it is written out.


def _sum(node: Node, a: Sparse, b: Sparse) -> Sparse | None:
    """A sum of two, if they are 0 at the same places."""
    alike = (a.shape, a.along) == (b.shape, b.along)
    return _sparse(node, rebuild(node, [a.factor, b.factor]), a.along) if alike else None


def _elementwise(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse | None:
    """A product with what else there is at the element."""
    if node.op is WHERE and not (k > 0 and is_const(node.inputs[3 - k], 0)):
        return None
    along = _moved(node, value)
    if along is None or (node.op is DIV and k > 0):
        return None
    picked = [o.factor if isinstance(o, Sparse) else _picked(o, along, len(node.shape)) for o in operands]
    return _sparse(node, rebuild(node, picked), along)


def _moved(node: Node, value: Sparse) -> dict[int, Along] | None:
    """The dimensions in an event that the value is broadcast to; None if it is repeated along one of them."""
    along = {dim + len(node.shape) - len(value.shape): a for dim, a in value.along.items()}
    same = all(node.shape[there] == value.shape[dim] for there, dim in zip(along, value.along, strict=True))
    return along if same else None


def _picked(value: Node, along: Mapping[int, Along], rank: int) -> Node:
    for dim, a in along.items():
        own = dim - rank + len(value.shape)
        if own >= 0 and value.shape[own] > 1:
            value = a.pick(value, own)
    return value


def _broadcast(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse | None:
    along = _moved(node, value)
    return _sparse(node, value.factor, along) if along is not None else None


def _reshape(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse:
    def places(shape: Shape) -> list[tuple[int, int]]:
        return [(math.prod(shape[:dim]), size) for dim, size in enumerate(shape)]

    before, after = places(value.shape), places(node.shape)
    value = value.write([dim for dim in value.along if before[dim] not in after])
    along = {after.index(before[dim]): a for dim, a in value.along.items()}
    return _sparse(node, reshape(value.factor, _with(node.shape, dict.fromkeys(along, 1))), along)


def _transpose(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse:
    along = {node["perm"].index(dim): a for dim, a in value.along.items()}
    return _sparse(node, transpose(value.factor, node["perm"]), along)


def _part(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse | None:
    """A slice, or what it was a slice of."""
    dim, start = node["dim"], node["start"]
    if dim not in value.along:
        return _sparse(node, rebuild(node, [value.factor]), value.along)
    a = value.along[dim]
    if node["step"] != 1 or (node.op is PLACE and not a.covered(value.shape[dim])):
        return None
    moved = Along(a.axis, a.start + (start if node.op is SLICE else -start))
    return _sparse(node, value.factor, {**value.along, dim: moved})


def _reduced(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse | None:
    if not all(a.covered(value.shape[dim]) for dim, a in value.along.items() if dim in node["dims"]):
        return None
    along = {d - sum(x < d for x in node["dims"]): a for d, a in value.along.items() if d not in node["dims"]}
    return _sparse(node, rebuild(node, [value.factor]), along)


def _elsewhere(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse | None:
    """At another point of an axis."""
    if k > 0 or not is_const(node.inputs[1], 0):
        return None
    return _sparse(node, rebuild(node, [value.factor, const(0, node.dtype)]), value.along)


def _gathered(node: Node, k: int, value: Sparse, operands: Sequence[Made]) -> Sparse | None:
    """Rows of a table: the one that moves, where it is named."""
    rows = node.inputs[1]
    lead = len(rows.shape)
    along = {dim + lead - 1: a for dim, a in value.along.items() if dim > 0}
    if 0 not in value.along:
        return _sparse(node, gather(value.factor, rows), along)
    a = value.along[0]
    here = cast(eq(add(rows, const(a.start, "int32")) if a.start else rows, index(a.axis)), node.dtype)
    factor = reshape(value.factor, (*(1,) * lead, *value.factor.shape[1:]))
    return _sparse(node, mul(factor, reshape(here, (*rows.shape, *(1,) * (len(node.shape) - lead)))), along)


_Rule = Callable[[Node, int, Sparse, Sequence[Made]], Sparse | None]
_RULES: Mapping[Op, _Rule] = {
    **dict.fromkeys((MUL, DIV, NEG, CAST, WHERE), _elementwise),
    **dict.fromkeys((SLICE, PLACE), _part),
    **dict.fromkeys((SHIFT, AT), _elsewhere),
    BROADCAST: _broadcast,
    RESHAPE: _reshape,
    TRANSPOSE: _transpose,
    SUM: _reduced,
    GATHER: _gathered,
}


def _product(node: Node, operands: Sequence[Made], read: Callable[[Node, Node], Made]) -> Made:
    """A product; of a sum with a term that has zeros, the sum of products with each term."""
    for k in sorted(range(2), key=lambda k: isinstance(operands[k], Node)):
        operand = node.inputs[k]
        if _has_zeros(operands[k]):
            return _times(node, k, operands[k], operands[1 - k])
        if operand.op in (ADD, SUB):
            terms = [read(term, node) for term in operand.inputs]
            alike = all(term.shape == operand.shape and set(node["over"]) <= set(_axes(term)) for term in terms)
            if alike and any(_has_zeros(term) for term in terms):
                return rebuild(operand, [_written(_times(node, k, term, operands[1 - k])) for term in terms])
    return _times(node, 0, operands[0], operands[1])


def _axes(value: Made) -> tuple[Axis, ...]:
    return value.factor.axes if isinstance(value, Sparse) else value.axes


def _has_zeros(value: Made) -> bool:
    return isinstance(value, Sparse) or value.op is PLACE


def _times(node: Node, k: int, value: Made, by: Made) -> Made:
    """The product, where operand k is this value. Dimensions that are not written out pick elements of the other
    operand, and so are those of the result or are gone."""
    own, letters, out = str(node["ab"[k]]), str(node["ba"[k]]), str(node["out"])
    other = _written(by)
    if isinstance(value, Node):
        if value.op is PLACE and own[value["dim"]] not in out:
            count = value.inputs[0].shape[value["dim"]]
            other = slice_(other, letters.index(own[value["dim"]]), value["start"], value["step"], count)
            value = value.inputs[0]
        return contract(value, other, own, letters, out, node["over"])
    named = {own[dim]: a for dim, a in value.along.items()}
    for letter, a in named.items():
        if letter in letters:
            other = a.pick(other, letters.index(letter))
    left, right = (_without(v, names, named) for v, names in ((value.factor, own), (other, letters)))
    own, letters, rest = ("".join(x for x in names if x not in named) for names in (own, letters, out))
    if node["over"] or not set(own + letters) <= set(rest):
        product = contract(left, right, own, letters, rest, node["over"])
    else:
        product = mul(_aligned(left, own, rest), _aligned(right, letters, rest))
    along = {out.index(letter): a for letter, a in named.items() if letter in out}
    sizes = dict(zip(rest, product.shape, strict=True)) if len(product.shape) == len(rest) else {}
    return _sparse(node, reshape(product, tuple(sizes.get(letter, 1) for letter in out)), along)


def _without(value: Node, names: str, dropped: Mapping[str, Along]) -> Node:
    return reshape(value, tuple(s for letter, s in zip(names, value.shape, strict=True) if letter not in dropped))


def _aligned(value: Node, names: str, out: str) -> Node:
    """The value with its dimensions in the order of the result's, 1 long where it has none."""
    order = [letter for letter in out if letter in names]
    sizes = dict(zip(names, value.shape, strict=True))
    value = transpose(value, tuple(names.index(letter) for letter in order))
    return reshape(value, tuple(sizes.get(letter, 1) for letter in out))
