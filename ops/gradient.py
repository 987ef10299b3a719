"""custom_gradient: a value whose derivative is what the user says it is.

    custom_gradient(value, cotangent, x₁, …, xₖ, g₁, …, gₖ)    is `value`;
    the contribution to xᵢ is gᵢ with `cotangent` replaced by the adjoint.

The rule is evaluated once, on a placeholder leaf, and lies in the graph like everything else: it prints, it can be
drawn, and it can itself be differentiated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.errors import ShapeError
from graphc.ir import Node, Op, Type, make, rebuild, topological
from graphc.ops.leaves import COTANGENT
from graphc.ops.reduction import sum_to


def _infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    value, cotangent = inputs[:2]
    if cotangent.op is not COTANGENT or cotangent.type != value.type or len(inputs) % 2:
        raise ShapeError("custom_gradient takes a value, its cotangent, and as many contributions as operands")
    return value.type


def _reads(node: Node, point: Any, domain: Any) -> Sequence[tuple[Node, Any]]:
    return ((node.inputs[0], point),)


def _gradient(node: Node, d: Node) -> Sequence[Node | None]:
    _, cotangent, *rest = node.inputs
    operands, rules = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    replaced = substitute(rules, {cotangent: sum_to(d, cotangent)})
    return (None, None, *replaced, *(None for _ in operands))


def substitute(roots: Sequence[Node], replacement: Mapping[Node, Node]) -> list[Node]:
    """The roots, with some of the nodes that they are made of replaced."""
    made: dict[Node, Node] = dict(replacement)
    for node in topological(roots):
        if node not in made:
            made[node] = rebuild(node, [made[i] for i in node.inputs])
    return [made[root] for root in roots]


CUSTOM_GRADIENT = Op(
    "custom_gradient",
    _infer,
    lambda node, arrays: arrays[0],
    _gradient,
    expand=lambda node: node.inputs[0],
    reads=_reads,
    cost=0,
)


def custom_gradient(value: Node, cotangent: Node, operands: Sequence[Node], rules: Sequence[Node]) -> Node:
    return make(CUSTOM_GRADIENT, (value, cotangent, *operands, *rules))
