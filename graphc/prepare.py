"""prepare: the graph in the few ops that kernels are made of.

Composite ops are replaced by their formulas, and a product with a concatenation by a sum of products with its parts,
so that each part can be computed where it belongs: in W @ concat([h[t - 1], x]) the product with x leaves the loop.
"""

from __future__ import annotations

from graphc.graph import Graph
from graphc.ir import Node
from graphc.ops.contraction import CONTRACT, contract
from graphc.ops.elementwise import add
from graphc.ops.event import CONCAT, concat_starts, slice_
from graphc.rewrite import map_nodes, rewrite
from graphc.simplify import like, simplify_node


def prepare(graph: Graph) -> Graph:
    return rewrite(graph, _prepare_node)


def _prepare_node(node: Node) -> Node:
    node = simplify_node(node)
    if node.op.expand is not None:
        formula = node.op.expand(node)
        return like(map_nodes([formula], _prepare_node)[formula], node)
    if node.op is CONTRACT:
        return like(_distribute(node), node)
    return node


def _distribute(node: Node) -> Node:
    """A · concat(x, y) = A₁ · x + A₂ · y, where the product sums over the joined dimension."""
    for k, operand in enumerate(node.inputs):
        letters = (node["a"], node["b"])[k]
        if operand.op is not CONCAT or letters[operand["dim"]] in node["out"]:
            continue
        letter = letters[operand["dim"]]
        other, dim = node.inputs[1 - k], (node["b"], node["a"])[k].index(letter)
        total: Node | None = None
        for part, start in zip(operand.inputs, concat_starts(operand), strict=True):
            piece = simplify_node(slice_(other, dim, start, 1, part.shape[operand["dim"]]))
            pair = (part, piece) if k == 0 else (piece, part)
            if not all(set(node["over"]) <= set(i.axes) for i in pair):
                return node
            term = _distribute(contract(*pair, node["a"], node["b"], node["out"], node["over"]))
            total = term if total is None else add(total, term)
        assert total is not None
        return total
    return node
