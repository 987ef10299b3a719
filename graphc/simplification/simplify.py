"""simplify: algebra that keeps every value (up to rounding, and the sign of zero) and makes the graph smaller.

Rules are a table from an op to functions of a node; each returns a simpler node, or None. They obey four laws: the
result has the node's axes, shape and dtype; it is no larger; it holds for every value of the operands, infinities and
NaN included; and it needs nothing but the node to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.ir import FLOATS, Node, Op, rebuild, size
from graphc.language.graph import Graph
from graphc.ops.axis import AT, STACK, at
from graphc.ops.contraction import CONTRACT, contract, sum_over
from graphc.ops.elementwise import (
    ADD,
    CAST,
    DIV,
    ELEMENTWISE,
    EQ,
    MUL,
    NEG,
    POW,
    SUB,
    WHERE,
    div,
    mul,
    sqrt,
    sub,
)
from graphc.ops.event import CONCAT, PLACE, RESHAPE, SLICE, TRANSPOSE, concat_starts, reshape, slice_, transpose
from graphc.ops.leaves import CONST, INDEX, array_of, const, is_const, length
from graphc.ops.reduction import BROADCAST, SUM, broadcast, measured_by, sum_
from graphc.ops.take import TAKE, second_index
from graphc.simplification.rewrite import like, rewrite

Simplification = Callable[[Node], Node | None]

MOST_RULES = 20  # applied to one node one after another; more would be rules that undo each other
LARGEST_FOLD = 4096  # elements: constants are folded while they stay small enough to print


def simplify(graph: Graph) -> Graph:
    """The same graph, smaller."""
    return rewrite(graph, simplify_node)


def simplify_node(node: Node) -> Node:
    """Apply the rules to one node until none does."""
    for _ in range(MOST_RULES):
        simpler = _step(node)
        if simpler is node:
            break
        node = simpler
    return node


def _step(node: Node) -> Node:
    for rule in (_fold, _without_broadcasts, *RULES.get(node.op, ())):
        simpler = rule(node)
        if simpler is not None and simpler is not node:
            return like(simpler, node)
    return node


_POINTWISE = frozenset(ELEMENTWISE)  # to ask it quickly


def _fold(node: Node) -> Node | None:
    """f(constants) = constant"""
    constant = node.op in _POINTWISE and all(i.op is CONST for i in node.inputs)
    if not constant or size(node.shape) > LARGEST_FOLD:
        return None
    assert node.op.compute is not None
    with np.errstate(all="ignore"):
        return const(node.op.compute(node, [array_of(i) for i in node.inputs]), node.dtype)


def _without_broadcasts(node: Node) -> Node | None:
    """f(broadcast(x), y) = f(x, y), broadcast where y varies less far"""
    for k, operand in enumerate(node.inputs):
        if operand.op is BROADCAST and node.op in _POINTWISE:
            return simplify_node(rebuild(node, [*node.inputs[:k], operand.inputs[0], *node.inputs[k + 1 :]]))
    return None


def _sum_of_zero(node: Node) -> Node | None:
    """x + 0 = x, 0 + x = x"""
    a, b = node.inputs
    return a if is_const(b, 0) else b if is_const(a, 0) else None


def _sum_with_negative(node: Node) -> Node | None:
    """x + (-y) = x - y"""
    a, b = node.inputs
    if b.op is NEG:
        return sub(a, b.inputs[0])
    return sub(b, a.inputs[0]) if a.op is NEG else None


def _difference_with_zero(node: Node) -> Node | None:
    """x - 0 = x"""
    return node.inputs[0] if is_const(node.inputs[1], 0) else None


def _product_with_one(node: Node) -> Node | None:
    """x · 1 = x, 1 · x = x"""
    a, b = node.inputs
    return a if is_const(b, 1) else b if is_const(a, 1) else None


def _quotient_by_one(node: Node) -> Node | None:
    """x / 1 = x"""
    return node.inputs[0] if is_const(node.inputs[1], 1) else None


def _double_negative(node: Node) -> Node | None:
    """-(-x) = x"""
    return node.inputs[0].inputs[0] if node.inputs[0].op is NEG else None


def _power(node: Node) -> Node | None:
    """x⁰ = 1, x¹ = x, x² = x · x, x³ = x · x · x, x⁻¹ = 1 / x, x^½ = √x"""
    x, exponent = node.inputs
    if exponent.op is not CONST or exponent.shape:
        return None
    match float(array_of(exponent)):
        case 0.0:
            return const(1, node.dtype)
        case 1.0:
            return x
        case 2.0:
            return mul(x, x)
        case 3.0:
            return mul(x, mul(x, x))
        case -1.0:
            return div(const(1, x.dtype), x)
        case 0.5:
            return sqrt(x)
    return None


def _choice_of_equals(node: Node) -> Node | None:
    """where(c, x, x) = x; where(True, x, y) = x"""
    condition, then, otherwise = node.inputs
    if then is otherwise or is_const(condition, True):
        return then
    return otherwise if is_const(condition, False) else None


def _cast_to_same(node: Node) -> Node | None:
    """cast(x) = x, where it changes nothing; cast(constant) = constant"""
    (x,) = node.inputs
    if x.op is CONST and x.dtype not in FLOATS:
        return const(array_of(x).astype(node.dtype), node.dtype)
    return x if x.dtype == node.dtype else None


def _reshape_of_reshape(node: Node) -> Node | None:
    """A reshape of a reshape is one reshape; a reshape of one number repeated is that number repeated"""
    (x,) = node.inputs
    if x.op is BROADCAST and not x.inputs[0].shape:
        return broadcast(x.inputs[0], node.axes, node.shape)
    if x.shape == node.shape:
        return x
    return reshape(x.inputs[0], node.shape) if x.op is RESHAPE else None


def _transpose_of_transpose(node: Node) -> Node | None:
    (x,) = node.inputs
    if node["perm"] == tuple(range(len(x.shape))):
        return x
    if x.op is TRANSPOSE:
        return transpose(x.inputs[0], tuple(x["perm"][p] for p in node["perm"]))
    return None


def _slice_of_parts(node: Node) -> Node | None:
    """A slice of a concat that is one of its parts; a slice of a place that undoes it"""
    (x,) = node.inputs
    here = (node["dim"], node["start"], node["step"], node.shape[node["dim"]])
    if x.op is CONCAT and x["dim"] == node["dim"] and node["step"] == 1:
        for part, start in zip(x.inputs, concat_starts(x), strict=True):
            if start <= node["start"] and node["start"] + here[3] <= start + part.shape[node["dim"]]:
                return slice_(part, node["dim"], node["start"] - start, 1, here[3])
    if x.op is PLACE and here == (x["dim"], x["start"], x["step"], x.inputs[0].shape[x["dim"]]):
        return x.inputs[0]
    return None


def _broadcast_of_broadcast(node: Node) -> Node | None:
    (x,) = node.inputs
    if x.axes == node.axes and x.shape == node.shape:
        return x
    return broadcast(x.inputs[0], node.axes, node.shape) if x.op is BROADCAST else None


def _sum_of_sum(node: Node) -> Node | None:
    """A sum over axes of a product is a larger product; a sum over dimensions of length 1 is a reshape"""
    (x,) = node.inputs
    if not node["dims"] and not node["over"]:
        return x
    if x.op is CONTRACT and not node["dims"] and any(all(a in i.axes for i in x.inputs) for a in node["over"]):
        return sum_over(x, node["over"])
    if node["dims"] and all(x.shape[d] == 1 for d in node["dims"]):
        return sum_(reshape(x, node.shape), over=node["over"])
    return None


def _sum_of_one_point(node: Node) -> Node | None:
    """Σₜ where(t = k, x, 0) = x at point k"""
    (x,) = node.inputs
    if x.op is not WHERE or not is_const(x.inputs[2], 0) or x.inputs[0].op is not EQ:
        return None
    value, (here, position) = x.inputs[1], x.inputs[0].inputs
    if here.op is not INDEX or here["axis"] not in node["over"] or measured_by(x.axes, (here["axis"],)):
        return None
    axis = here["axis"]
    last = sub(length(axis, x.axes), const(1, "int32"))
    fixed = int(array_of(position)) if position.op is CONST and not position.shape else -1
    if position is not last and fixed < 0:
        return None
    point = at(broadcast(value, x.axes, x.shape), axis, "last" if position is last else fixed)
    return sum_(point, node["dims"], [a for a in node["over"] if a != axis])


def _product_of_transposed(node: Node) -> Node | None:
    """A transposed operand of a product is the operand, with its dimensions named in another order"""
    a, b = node.inputs
    if a.op is TRANSPOSE:
        return contract(a.inputs[0], b, _untransposed(node["a"], a), node["b"], node["out"], node["over"])
    if b.op is TRANSPOSE:
        return contract(a, b.inputs[0], node["a"], _untransposed(node["b"], b), node["out"], node["over"])
    return None


def _untransposed(letters: str, operand: Node) -> str:
    return "".join(letters[operand["perm"].index(k)] for k in range(len(letters)))


def _point_of_stack(node: Node) -> Node | None:
    """Point k of a stack is its value k"""
    stacked = node.inputs[0]
    if stacked.op is not STACK or stacked["axis"] != node["axis"]:
        return None
    count = len(stacked.inputs)
    position = {"first": 0, "last": count - 1}.get(node["position"], node["position"])
    return stacked.inputs[int(position)]


def _take_at_constant(node: Node) -> Node | None:
    """At a constant position it is an `at`; what was read by a second index, read by the first again, is the value"""
    value, position, fill = node.inputs
    if position.op is CONST:
        place, length = int(array_of(position)), node["axis"].length
        outside = place < 0 or (isinstance(length, int) and place >= length)
        return fill if outside else at(value, node["axis"], place, fill)
    other = second_index(node)
    if other is None or value.op is not TAKE or second_index(value) != node["axis"]:
        return None
    return value.inputs[0] if value["axis"] == other and other in value.inputs[0].axes else None


RULES: Mapping[Op, tuple[Simplification, ...]] = {
    ADD: (_sum_of_zero, _sum_with_negative),
    SUB: (_difference_with_zero,),
    MUL: (_product_with_one,),
    DIV: (_quotient_by_one,),
    NEG: (_double_negative,),
    POW: (_power,),
    WHERE: (_choice_of_equals,),
    CAST: (_cast_to_same,),
    RESHAPE: (_reshape_of_reshape,),
    TRANSPOSE: (_transpose_of_transpose,),
    SLICE: (_slice_of_parts,),
    BROADCAST: (_broadcast_of_broadcast,),
    SUM: (_sum_of_sum, _sum_of_one_point),
    CONTRACT: (_product_of_transposed,),
    AT: (_point_of_stack,),
    TAKE: (_take_at_constant,),
}
