"""feeds: which cycles read what others make, and how far from their own step.

In: a graph and its components. Out: a `Feed` for every cycle that reads what another makes, with the distances, in
steps of the axis, at which it reads. A read of all points, as of a sum over the axis, makes the reader wait for the end
of the maker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.checks.causality import Component, edges_of
from graphc.ir import Node
from graphc.language.graph import Graph
from graphc.ops.leaves import STATE

Distances = frozenset[int | None]  # None: all points of the axis


@dataclass(frozen=True, slots=True)
class Feed:
    """Cycle `reader` reads what cycle `maker` makes, `distances` steps away along the maker's axis."""

    maker: Component
    reader: Component
    distances: Distances

    @property
    def alike(self) -> bool:
        """Whether both go along one axis in one direction."""
        return (self.maker.axis, self.maker.reverse) == (self.reader.axis, self.reader.reverse)


def feeds(graph: Graph, parts: Sequence[Component]) -> tuple[Feed, ...]:
    """What cycles read of each other, directly or through values that lie on no cycle, in the order of computation."""
    reads: dict[Node, dict[int, Distances]] = {}  # for each value, what it depends on of which cycle
    result = []
    for number, part in enumerate(parts):
        inside = set(part.nodes)
        found: dict[int, Distances] = {}
        for node in part.nodes:
            for edge in edges_of(graph, node):
                for maker, distances in reads.get(edge.operand, {}).items() if edge.operand not in inside else ():
                    axis = parts[maker].axis
                    step = 0 if axis is None else edge.along(axis)
                    moved = frozenset(None if d is None or step is None else d + step for d in distances)
                    found[maker] = found.get(maker, frozenset()) | moved
        if part.axis is not None:
            result += [Feed(parts[maker], part, distances) for maker, distances in found.items()]
            reads |= {node: {number: own} for node, own in _own_distances(graph, part).items()}
        else:
            reads |= dict.fromkeys(part.nodes, found)
    return tuple(result)


def _own_distances(graph: Graph, part: Component) -> dict[Node, Distances]:
    """How far from its own point each value of a cycle reads the cycle's states; a delay may be read from outside."""
    assert part.axis is not None
    bodies = {edge.operand for node in part.nodes if node.op is STATE for edge in edges_of(graph, node)}
    result: dict[Node, Distances] = {}
    for node in part.nodes:  # inputs first, states as leaves
        own: set[int | None] = {0} if node.op is STATE or node in bodies else set()
        if node.op is not STATE:
            for edge in edges_of(graph, node):
                step = edge.along(part.axis)
                own |= {None if d is None or step is None else d + step for d in result.get(edge.operand, ())}
        result[node] = frozenset(own)
    return result
