"""prepare: the graph in the few ops that kernels are made of. Composite ops are replaced by their formulas, products
with concatenations are distributed (`graphc.simplification.distribute`), factors leave sums
(`graphc.simplification.factor`), divisors that many points share are inverted (`graphc.simplification.reciprocal`),
what that leaves is simplified, and outer products become elementwise (`graphc.simplification.outer_products`)."""

from __future__ import annotations

from dataclasses import replace

from graphc.ir import Node
from graphc.language.graph import Graph
from graphc.simplification.distribute import distribute_node
from graphc.simplification.factor import factor_node
from graphc.simplification.outer_products import without_outer
from graphc.simplification.reciprocal import reciprocal_node
from graphc.simplification.rewrite import like, map_nodes, rewrite
from graphc.simplification.simplify import simplify_node


def prepare(graph: Graph) -> Graph:
    """The graph in ops that can be scheduled, with its equations over the axes of their states."""
    prepared = without_outer(rewrite(graph, _prepare_node))
    for name, equation in prepared.states.items():
        if equation.body is not None:  # over the axes of its state, in their order: it is stored as the state's array
            prepared.states[name] = replace(equation, body=like(equation.body, equation.node))
    return prepared


def _prepare_node(node: Node) -> Node:
    node = reciprocal_node(factor_node(distribute_node(simplify_node(node))))
    if node.op.expand is None:
        return node
    formula = node.op.expand(node)
    return like(map_nodes([formula], _prepare_node)[formula], node)
