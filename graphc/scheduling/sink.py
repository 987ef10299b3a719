"""sink: what sums up a large value of a loop, step by step, is computed in the loop.

In: a graph's components, and the values that are computed for themselves. Out: the components, with some of them moved
into loops. Outside every loop a product serves all steps at once, which pays where they share an operand: weights. A
matrix S[t] that a vector q[t] is multiplied with is shared with no other step; outside it would be written to memory
for every t, and read back once. If all that reads a large value sums it up in this way, none of it leaves the loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from graphc.checks.causality import Component, edges_of, in_memory, resolve, roots
from graphc.ir import Axis, Node, size
from graphc.language.graph import Graph
from graphc.ops.axis import STACK

__all__ = ["nodes_in", "sink"]

Reading = tuple[Node, frozenset[Axis]]
"""A value, and the axes along which a task reads it at another point than its own."""

LARGE = 1024  # elements at a point: a state of vectors is smaller, one of matrices larger
LESS = 4  # a value has at least so many times the elements of what sums it up


def sink(graph: Graph, tree: tuple[Component, ...], materialized: Collection[Node]) -> tuple[Component, ...]:
    """The components in order of computation, given the nodes that are materialized: some of them moved into loops."""
    kept = {resolve(graph, node) for node in roots(graph)}
    large = {
        k: {n for n in nodes_in(loop) if n in materialized and n not in kept and _is_large(n, loop.axis)}
        for k, loop in enumerate(tree)
        if loop.axis is not None
    }
    if not any(large.values()):
        return tree
    reads = [list(_reads(graph, nodes_in(component), materialized)) for component in tree]
    moved = {k: [tree[later] for later in _sinking(k, values, tree, reads)] for k, values in large.items() if values}
    gone = {component.nodes for own in moved.values() for component in own}
    return tuple(
        replace(component, body=(*component.body, *moved.get(k, ())))
        for k, component in enumerate(tree)
        if component.axis is not None or component.nodes not in gone
    )


def _sinking(
    loop: int, values: set[Node], tree: Sequence[Component], reads: Sequence[Sequence[Reading]]
) -> Sequence[int]:
    """The components, by their places in `tree`, that move into a loop: all that read one of its large `values`, if
    each of them can move."""
    axis = tree[loop].axis
    place = {node: k for k, component in enumerate(tree) for node in nodes_in(component)}
    readers: dict[Node, set[int]] = {value: set() for value in values}
    for k, found in enumerate(reads):
        for source, _ in found:
            if source in values and k != loop:
                readers[source].add(k)

    def is_there(source: Node, along: frozenset[Axis]) -> bool:
        """Whether a step of the loop has what a component would read in it."""
        return in_memory(source) or place[source] < loop or (place[source] == loop and axis not in along)

    def can_move(reader: int) -> bool:
        summed = values & {source for source, _ in reads[reader]}
        return _sums_up(tree[reader], axis, summed) and all(is_there(*read) for read in reads[reader])

    movable = {reader for own in readers.values() for reader in own if can_move(reader)}
    return sorted({reader for own in readers.values() if own <= movable for reader in own})


def _is_large(node: Node, axis: Axis | None) -> bool:
    return axis in node.axes and size(node.shape) >= LARGE


def _sums_up(component: Component, axis: Axis | None, values: Iterable[Node]) -> bool:
    """Whether this is one reduction at each step, and its result much smaller than the values that it reads."""
    if component.axis is not None:
        return False
    (node,) = component.nodes
    smaller = all(LESS * size(node.shape) <= size(value.shape) for value in values)
    return node.op.reduces and node.op is not STACK and axis in node.axes and smaller


def _reads(graph: Graph, nodes: Iterable[Node], materialized: Collection[Node]) -> Iterator[Reading]:
    """What the tasks among some nodes read."""
    stack: list[Reading] = [(node, frozenset()) for node in nodes if node in materialized]
    seen = set(stack)
    while stack:
        above, along = stack.pop()
        for edge in edges_of(graph, above):
            operand = resolve(graph, edge.operand)
            read = operand, along | {axis for axis, steps in edge.delay if steps != 0}
            if operand in materialized or in_memory(operand):
                yield read
            elif read not in seen:
                seen.add(read)
                stack.append(read)


def nodes_in(component: Component) -> Iterator[Node]:
    """The nodes of a component, and those of the components in it."""
    yield from component.nodes
    for inner in component.body:
        yield from nodes_in(inner)
