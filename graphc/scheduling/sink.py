"""sink: what sums up a large value of a loop, step by step, is computed in the loop.

In: a graph's components, and the values that are computed for themselves. Out: the components, with some of them moved
into loops. Outside every loop a product serves all steps at once, which pays where they share an operand: weights. A
matrix S[t] that a vector q[t] is multiplied with is shared with no other step; outside it would be written to memory
for every t, and read back once. If all that reads a large value sums it up in this way, none of it leaves the loop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from graphc.checks.causality import Component, edges_of, in_memory, resolve, roots
from graphc.ir import Axis, Node, size
from graphc.language.graph import Graph
from graphc.ops.axis import STACK

__all__ = ["nodes_in", "sink"]

LARGE = 1024  # elements at a point: a state of vectors is smaller, one of matrices larger
LESS = 4  # times as large is a value as what sums it up


def sink(graph: Graph, tree: tuple[Component, ...], materialized: Collection[Node]) -> tuple[Component, ...]:
    """The components in order of computation, given the nodes that are materialized: some of them moved into loops."""
    place = {node: k for k, component in enumerate(tree) for node in nodes_in(component)}
    kept = {resolve(graph, node) for node in roots(graph)}
    large = {
        k: {n for n in nodes_in(loop) if n in materialized and n not in kept and _is_large(n, loop.axis)}
        for k, loop in enumerate(tree)
        if loop.axis is not None
    }
    if not any(large.values()):
        return tree
    reads = [list(_reads(graph, nodes_in(component), materialized)) for component in tree]
    readers: dict[Node, set[int]] = {}  # the components that read each value
    for k, found in enumerate(reads):
        for source, _ in found:
            readers.setdefault(source, set()).add(k)
    moved: dict[int, list[Component]] = {}
    for k, values in large.items():
        axis = tree[k].axis
        outside = {value: readers.get(value, set()) - {k} for value in values}
        fitting = {
            later
            for later in set().union(*outside.values())
            if _sums_up(tree[later], axis, values & {source for source, _ in reads[later]})
            and all(in_memory(s) or place[s] < k or (place[s] == k and axis not in along) for s, along in reads[later])
        }
        chosen = {later for own in outside.values() if own <= fitting for later in own}
        moved[k] = [tree[later] for later in sorted(chosen)]
    gone = {component.nodes for own in moved.values() for component in own}
    return tuple(
        replace(component, body=(*component.body, *moved.get(k, ())))
        for k, component in enumerate(tree)
        if component.axis is not None or component.nodes not in gone
    )


def _is_large(node: Node, axis: Axis | None) -> bool:
    return axis in node.axes and size(node.shape) >= LARGE


def _sums_up(component: Component, axis: Axis | None, values: Iterable[Node]) -> bool:
    """Whether this is one reduction at each step, and its result much smaller than the values that it reads."""
    if component.axis is not None:
        return False
    (node,) = component.nodes
    smaller = all(LESS * size(node.shape) <= size(value.shape) for value in values)
    return node.op.reduces and node.op is not STACK and axis in node.axes and smaller


def _reads(
    graph: Graph, nodes: Iterable[Node], materialized: Collection[Node]
) -> Iterator[tuple[Node, frozenset[Axis]]]:
    """What the tasks among some nodes read, each value with the axes along which it is read at another point than the
    task's own."""
    stack: list[tuple[Node, frozenset[Axis]]] = [(node, frozenset()) for node in nodes if node in materialized]
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
