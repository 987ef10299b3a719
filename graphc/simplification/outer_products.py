"""outer products: a product that sums over nothing is elementwise.

    v kᵀ = v[:, None] * k[None, :]

One multiplication a point: it is computed where it is read, rather than for all points beforehand, and stored.
"""

from __future__ import annotations

from graphc.ir import Node
from graphc.language.graph import Graph
from graphc.ops.contraction import CONTRACT, summed_letters
from graphc.ops.elementwise import mul
from graphc.ops.event import reshape, transpose
from graphc.simplification.rewrite import like, rewrite


def without_outer(graph: Graph) -> Graph:
    """The graph with outer products written as multiplications. It comes after all other rules for products, as a sum
    of outer products is a product that sums."""
    return rewrite(graph, outer_node)


def outer_node(node: Node) -> Node:
    """The node itself, unless it is a product that sums over nothing."""
    if node.op is not CONTRACT or summed_letters(node) or node["over"]:
        return node
    left, right = (_spread(i, node[k], node["out"]) for i, k in zip(node.inputs, "ab", strict=True))
    return like(mul(left, right), node)


def _spread(operand: Node, letters: str, out: str) -> Node:
    """An operand with the dimensions of the product, those that it lacks of length 1."""
    own = [letter for letter in out if letter in letters]
    extents = dict(zip(letters, operand.shape, strict=True))
    turned = transpose(operand, tuple(letters.index(letter) for letter in own))
    return reshape(turned, tuple(extents.get(letter, 1) for letter in out))
