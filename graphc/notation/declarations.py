"""The order in which a graph's names are declared: everything before its use, each table in its own order.

Axes need the inputs that hold their lengths, inputs need their axes, and states what their initial values are made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from graphc.ir import Axis, Node, topological
from graphc.ops.leaves import DECLARED

if TYPE_CHECKING:
    from graphc.language.graph import Graph

Item = tuple[str, str]  # "axis", "input", "param" or "state", and the name


def declaration_order(graph: Graph) -> tuple[list[Item], list[str]]:
    """All declarations in order, and the states whose initial values can only follow them all.

    The latter are states whose initial values are made of each other.
    """
    tables: dict[str, Iterable[str]] = {
        "axis": graph.axes,
        "input": graph.inputs,
        "param": graph.params,
        "state": graph.states,
    }
    queues: list[list[Item]] = [[(kind, name) for name in table] for kind, table in tables.items()]
    known = {item for queue in queues for item in queue}
    needs = {item: _needs(graph, item) & known for item in known}
    order: list[Item] = []
    done: set[Item] = set()
    late: list[str] = []

    def declare(queue: list[Item], item: Item) -> None:
        queue.remove(item)
        order.append(item)
        done.add(item)

    while any(queues):
        before = len(order)
        for queue in queues:
            while queue and needs[queue[0]] <= done:
                declare(queue, queue[0])
        if len(order) == before and any(queues):  # the tables' orders disagree, or states begin with each other
            ready = [item for queue in queues for item in queue if needs[item] <= done]
            item = ready[0] if ready else next(queue[0] for queue in reversed(queues) if queue)
            if not ready and item[0] == "state":
                late.append(item[1])
            declare(next(queue for queue in queues if item in queue), item)
    return order, late


def _needs(graph: Graph, item: Item) -> set[Item]:
    kind, name = item
    if kind == "axis":
        axis = graph.axes[name]
        if axis.like is not None:
            return _of_axes((axis.like,))
        return _made_of([axis.length]) if isinstance(axis.length, Node) else set()
    if kind == "state":
        return _made_of([graph.states[name].initial]) | _of_axes(graph.states[name].node.axes)
    node = graph.inputs[name] if kind == "input" else graph.params[name].node
    return _of_axes(node.axes)


def _of_axes(axes: tuple[Axis, ...]) -> set[Item]:
    return {("axis", axis.name) for axis in axes}


def _made_of(roots: list[Node]) -> set[Item]:
    """The axes and leaves that an expression names."""
    found: set[Item] = set()
    for node in topological(roots):
        found |= _of_axes(node.axes)
        found |= {("axis", axis.name) for _, axis in node.attrs if isinstance(axis, Axis)}
        if node.op in DECLARED:
            found.add((node.op.name, node["name"]))
    return found
