"""distribute: a product with a concatenation becomes a sum of products with its parts.

    A · concat(x, y) = A₁ · x + A₂ · y

so that each part can be computed where it belongs: in W @ concat([h[t - 1], x]) the product with x leaves the loop,
and so does its share of the gradient.
"""

from __future__ import annotations

import functools

from graphc.ir import Node
from graphc.language.graph import Graph
from graphc.ops.contraction import CONTRACT, contract
from graphc.ops.elementwise import add
from graphc.ops.event import CONCAT, concat_starts, slice_
from graphc.simplification.rewrite import like, rewrite
from graphc.simplification.simplify import simplify_node


def distribute(graph: Graph) -> Graph:
    return rewrite(graph, distribute_node)


def distribute_node(node: Node) -> Node:
    """The node itself, unless it is a product that sums over the joined dimension of a concatenation."""
    if node.op is not CONTRACT:
        return node
    for k, operand in enumerate(node.inputs):
        letters = (node["a"], node["b"])[k]
        if operand.op is CONCAT and letters[operand["dim"]] not in node["out"]:
            terms = _terms(node, k)
            if terms:
                return like(functools.reduce(add, terms), node)
    return node


def _terms(node: Node, k: int) -> list[Node]:
    """The products with each part of operand k; none, where a part lacks an axis that the product sums over."""
    operand, other = node.inputs[k], node.inputs[1 - k]
    letter = (node["a"], node["b"])[k][operand["dim"]]
    dim = (node["b"], node["a"])[k].index(letter)
    if not all(set(node["over"]) <= set(part.axes) for part in operand.inputs):
        return []
    terms = []
    for part, start in zip(operand.inputs, concat_starts(operand), strict=True):
        piece = simplify_node(slice_(other, dim, start, 1, part.shape[operand["dim"]]))
        left, right = (part, piece) if k == 0 else (piece, part)
        product = contract(left, right, node["a"], node["b"], node["out"], node["over"])
        terms.append(distribute_node(product))
    return terms
