"""factor: what is the same for all terms of a sum is multiplied once.

    Σ a · x · y = a · Σ x · y        Σ x / a = (Σ x) / a

where a varies neither over the axes nor over the dimensions that are summed. The gradient of a normalisation asks for
Σ γ d and Σ γ d y, and those of its own scale and shift are Σ d y and Σ d: so factored, they are the same two sums.

A sum of no terms is 0, whatever a is: it may be 1 / 0, as where a mean is written x / length. So the product is chosen
only where there are terms. (Where a is 0 or infinite, terms of both signs may come to an infinity so, and one by one to
NaN.)
"""

from __future__ import annotations

import functools

from graphc.ir import Node, lengths_within
from graphc.ops.elementwise import DIV, MUL, div, lt, mul, where
from graphc.ops.event import reshape
from graphc.ops.leaves import const, length
from graphc.ops.reduction import SUM, measured_by, sum_
from graphc.simplification.rewrite import like

LEVELS = 4  # of products in products; all of a long chain, written out anew for each sum, would be a larger graph


def factor_node(node: Node) -> Node:
    """The node itself, unless it is a sum of products with a factor that can leave it."""
    if node.op is not SUM or not _as_many_everywhere(node):
        return node
    factored = _factored(node)
    return node if factored is node else like(_where_terms(factored, node), node)


def _factored(node: Node) -> Node:
    """A sum without its factors, times these; right where there are terms."""
    (value,) = node.inputs
    if value.op is DIV and _is_same(value.inputs[1], value, node) and _spans(value.inputs[0], value, node):
        return div(_factored(_sum(value.inputs[0], node)), _one(value.inputs[1], value, node))
    rest, outside = _parted(value, value, node)
    if not outside or rest is None or not _spans(rest, value, node):
        return node
    result = _sum(rest, node)
    for factor in outside:
        result = mul(result, _one(factor, value, node))
    return result


def _as_many_everywhere(node: Node) -> bool:
    """Whether each axis that is summed has as many points wherever along the others the terms are."""
    (value,), over = node.inputs, node["over"]
    kept = [a for a in value.axes if a not in over]
    ragged = [a for a in over if lengths_within(a, value.axes) != lengths_within(a, kept)]
    return not ragged and not measured_by(value.axes, over)


def _where_terms(total: Node, node: Node) -> Node:
    """The total where all that is summed over has points, else 0."""
    kept = [a for a in node.inputs[0].axes if a not in node["over"]]
    for axis in node["over"]:
        if not isinstance(axis.length, int):
            total = where(lt(const(0, "int32"), length(axis, kept)), total, const(0, total.dtype))
    return total


def _parted(part: Node, value: Node, node: Node, levels: int = LEVELS) -> tuple[Node | None, list[Node]]:
    """What stays of a part of a value that is summed, if anything does, and the factors that leave it. A product that
    none leaves stays as it is: it may be computed already."""
    if _is_same(part, value, node):
        return None, [part]
    if part.op is not MUL or not levels:
        return part, []
    parted = [_parted(operand, value, node, levels - 1) for operand in part.inputs]
    outside = [factor for _, factors in parted for factor in factors]
    inside = [rest for rest, _ in parted if rest is not None]
    if not outside:
        return part, []
    return functools.reduce(mul, inside) if inside else None, outside


def _is_same(factor: Node, value: Node, node: Node) -> bool:
    """Whether a factor is the same for all terms."""
    lead = len(value.shape) - len(factor.shape)
    along = [factor.shape[d - lead] for d in node["dims"] if d >= lead]
    return set(along) <= {1} and not set(factor.axes) & set(node["over"]) and set(factor.axes) <= set(value.axes)


def _spans(rest: Node, value: Node, node: Node) -> bool:
    """Whether what is left varies over all that is summed, so that the sum still has as many terms."""
    return (
        rest.axes == value.axes
        and len(rest.shape) == len(value.shape)
        and all(rest.shape[d] == value.shape[d] for d in node["dims"])
    )


def _sum(value: Node, node: Node) -> Node:
    return sum_(value, node["dims"], node["over"])


def _one(factor: Node, value: Node, node: Node) -> Node:
    """A factor without the dimensions that are summed."""
    lead = len(value.shape) - len(factor.shape)
    return reshape(factor, tuple(s for d, s in enumerate(factor.shape) if d + lead not in node["dims"]))
