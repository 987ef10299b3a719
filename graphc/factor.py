"""factor: what is the same for all terms of a sum is multiplied once.

    Σ a · x · y = a · Σ x · y        Σ x / a = (Σ x) / a

where a varies neither over the axes nor over the dimensions that are summed. The gradient of a normalisation asks for
Σ γ d and Σ γ d y, and those of its own scale and shift are Σ d y and Σ d: so factored, they are the same two sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from graphc.ir import Node
from graphc.ops.elementwise import DIV, MUL, div, mul
from graphc.ops.event import reshape
from graphc.ops.reduction import SUM, broadcast, sum_

LEVELS = 4  # of products in products; all of a long chain, written out anew for each sum, would be a larger graph


def factor_node(node: Node) -> Node:
    """The node itself, unless it is a sum of products with a factor that can leave it."""
    if node.op is not SUM:
        return node
    (value,) = node.inputs
    if value.op is DIV and _is_same(value.inputs[1], value, node) and _spans(value.inputs[0], value, node):
        return _like(div(factor_node(_sum(value.inputs[0], node)), _one(value.inputs[1], value, node)), node)
    factors = list(_factors(value))
    outside = [f for f in factors if _is_same(f, value, node)]
    inside = [f for f in factors if f not in outside]
    if not outside or not inside or not _spans(_product(inside), value, node):
        return node
    result = _sum(_product(inside), node)
    for factor in outside:
        result = mul(result, _one(factor, value, node))
    return _like(result, node)


def _factors(value: Node, levels: int = LEVELS) -> Iterator[Node]:
    if value.op is MUL and levels:
        for operand in value.inputs:
            yield from _factors(operand, levels - 1)
    else:
        yield value


def _product(factors: Sequence[Node]) -> Node:
    result = factors[0]
    for factor in factors[1:]:
        result = mul(result, factor)
    return result


def _is_same(factor: Node, value: Node, node: Node) -> bool:
    """Whether a factor is the same for all terms."""
    lead = len(value.shape) - len(factor.shape)
    along = [factor.shape[d - lead] for d in node["dims"] if d >= lead]
    return set(along) <= {1} and not set(factor.axes) & set(node["over"]) and set(factor.axes) <= set(value.axes)


def _spans(rest: Node, value: Node, node: Node) -> bool:
    """Whether what is left varies over all that is summed, so that there are as many terms as before."""
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


def _like(value: Node, node: Node) -> Node:
    return value if value.type == node.type else broadcast(value, node.axes, node.shape)
