"""schedule: which values get computed for themselves, and in which loops.

In goes a prepared graph, out comes a tree: loops over the axes of cycles, with tasks inside. A task computes one
value, or one part of a value that is put together, at all points of the axes that no loop around it walks. What lies
outside every cycle is outside every loop, over its whole domain at once: input products and weight gradients leave
the loop by this alone. Only what sums up large values of a loop goes back to it (`graphc.scheduling.sink`).

Values without a task are computed inside those that use them. A value gets a task of its own when it is

- a result;
- a sum over many elements, or an operand of a product that is not simply somewhere in memory;
- read by a later step of its loop: that is stored, rather than what it is made of;
- used in several places, or over a larger domain, if only through views, and not cheap to compute again. What a later
  loop can compute by one operation from values that are stored anyway is cheap enough: that takes no longer than to
  store it at every step;
- the end of a long chain of operations: kernels are walked by recursion, which must not go as deep as a graph can be;
- where very many ways through views meet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.checks.causality import Component, in_memory, resolve, roots
from graphc.ir import Axis, Node, Shape, dependencies, size, topological
from graphc.language.graph import Graph
from graphc.ops.axis import SHIFT, STACK
from graphc.ops.contraction import CONTRACT
from graphc.ops.event import CONCAT
from graphc.ops.leaves import STATE
from graphc.scheduling.sink import nodes_in, sink

Home = tuple[Node, ...]
"""Where a value is computed: inside the task of the first node, of which the others are views on the way to it."""

CHEAP = 4  # additions and loads: what costs no more is computed again rather than stored
DEEPEST = 48  # operations one on the other in a kernel; those of cells, unrolled ones too, have up to 28
MOST_PATHS = 256  # through views, from a value to what its kernel loads
RECOMPUTED = 20  # the cost up to which one operation on stored values is made again: storing its result costs more


@dataclass(frozen=True, slots=True)
class Task:
    """Computes `node`, or only the input `part` of a node that is put together from parts. Or writes it `into` an array
    of the caller's: a param or an input that the graph updates."""

    node: Node
    part: int | None = None
    into: str | None = None

    @property
    def value(self) -> Node:
        """What is computed: the node itself, or a part of it."""
        return self.node if self.part is None else self.node.inputs[self.part]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes over which it is computed."""
        if self.part is not None and self.node.op is STACK:
            return tuple(a for a in self.node.axes if a != self.node["axis"])
        return self.node.axes

    @property
    def shape(self) -> Shape:
        """The shape of what is computed."""
        return self.value.shape


@dataclass(frozen=True, slots=True)
class LoopNest:
    """A loop over an axis; `body` is one step."""

    axis: Axis
    reverse: bool
    body: tuple[Task | LoopNest, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The tasks in their loops, in an order in which each follows what it reads, and the graph that they compute."""

    graph: Graph
    body: tuple[Task | LoopNest, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self.body, "")) + "\n"


def schedule(graph: Graph, tree: tuple[Component, ...]) -> Schedule:
    """The tasks that compute a graph of these components, in their loops."""
    materialized = _materialized(graph, tree)
    body = [*_tasks(sink(graph, tree, materialized), materialized)]
    body += [Task(resolve(graph, node), into=name) for name, node in graph.updates.items()]
    return Schedule(graph, tuple(body))


def _tasks(tree: Iterable[Component], materialized: set[Node]) -> Iterator[Task | LoopNest]:
    for component in tree:
        if component.axis is not None:
            inner = tuple(_tasks(component.body, materialized))
            if inner:
                yield LoopNest(component.axis, component.reverse, inner)
            continue
        (node,) = component.nodes
        if node in materialized:
            if node.op in (STACK, CONCAT):
                yield from (Task(node, part) for part in range(len(node.inputs)))
            else:
                yield Task(node)


def _materialized(graph: Graph, tree: tuple[Component, ...]) -> set[Node]:
    """The values that get memory, and so tasks of their own."""
    nodes = _all_nodes(graph)
    materialized = _required(graph, tree, nodes)
    materialized |= _meeting(graph, tree, materialized)
    costly, homes = _used_apart(graph, nodes, materialized)
    materialized |= set(costly)
    materialized -= _recomputed(graph, tree, costly, materialized, homes)
    return materialized | _ends(graph, tree, materialized)


def _required(graph: Graph, tree: Iterable[Component], nodes: Iterable[Node]) -> set[Node]:
    """The values that get memory whatever they cost: results, what later steps read, sums, stacks, and what products
    multiply."""
    results = {resolve(graph, node) for node in roots(graph)}
    found = {*results, *_carried(graph, tree)}
    for node in nodes:
        if node.op.reduces or node.op is STACK:
            found.add(node)
        if node.op is CONTRACT:
            found.update(source for operand in node.inputs for source in _sources(graph, operand))
    return {node for node in found if not in_memory(node) or node in results}


def _used_apart(
    graph: Graph, nodes: Sequence[Node], materialized: Collection[Node]
) -> tuple[list[Node], dict[Node, set[Home]]]:
    """The values to store because they are not cheap to compute again, and are used in several places or over a larger
    domain; and the homes of all that is not materialized already. `nodes`, and these values, come inputs first."""
    users = _users(graph, nodes)
    cost = _costs(graph, nodes, users, materialized)
    stored = set(materialized)
    homes: dict[Node, set[Home]] = {}
    spread: dict[Node, tuple[int, int]] = {}  # of a view, the most elements and axes of what uses it
    costly: list[Node] = []
    for node in reversed(nodes):
        if node in stored or node.op is STATE or in_memory(node):
            continue
        homes[node] = {h for user in users.get(node, ()) for h in _homes_through(user, stored, homes)}
        elements, axes = size(node.shape), len(node.axes)
        reach = [spread.get(user, (size(user.shape), len(user.axes))) for user in users[node]]
        wider = any(k > elements for k, _ in reach) or any(k > axes for _, k in reach)
        if node.op.view:
            spread[node] = max(elements, *(k for k, _ in reach)), max(axes, *(k for _, k in reach))
        elif cost[node] > CHEAP and (len(homes[node]) > 1 or wider):
            stored.add(node)
            costly.append(node)
    return costly[::-1], homes


def _costs(
    graph: Graph, nodes: Iterable[Node], users: Mapping[Node, Sequence[Node]], materialized: Collection[Node]
) -> dict[Node, int]:
    """What it costs to compute an element of each value: its op, and what is computed for it alone. What lies in
    memory, or serves others too, counts as one load."""
    cost: dict[Node, int] = {}
    for node in nodes:
        operands = [resolve(graph, i) for i in node.inputs]
        own = (1 if i in materialized or len(users.get(i, ())) > 1 else cost.get(i, 1) for i in operands)
        cost[node] = node.op.cost + sum(own)
    return cost


def _recomputed(
    graph: Graph,
    tree: tuple[Component, ...],
    costly: Iterable[Node],
    materialized: set[Node],
    homes: Mapping[Node, set[Home]],
) -> set[Node]:
    """Of the `costly` values, which would be stored only because they are used in several places: those that another
    loop computes again instead, by one operation, from what lies in memory anyway. Such is tanh(c), from a cell's
    states."""
    where = {node: k for k, component in enumerate(tree) for node in nodes_in(component)}
    recomputed: set[Node] = set()
    for node in costly:
        users = {home[0] for home in homes[node]}
        stored = all(in_memory(o) or o in materialized - recomputed for o in (resolve(graph, i) for i in node.inputs))
        alike = all(user.axes == node.axes and size(user.shape) == size(node.shape) for user in users)
        if node.op.cost <= RECOMPUTED and stored and alike and len({where[user] for user in users}) > 1:
            recomputed.add(node)
    return recomputed


def _meeting(graph: Graph, tree: Iterable[Component], materialized: set[Node]) -> set[Node]:
    """Values at which very many ways through views meet. On each way an operand is another element, so what stands
    below would be computed as often as there are ways, unless the value is stored."""
    found: set[Node] = set()
    paths: dict[Node, int] = {}  # with a view on them, to what lies in memory
    for node in _in_order(tree):
        if node not in materialized and node.op is not STATE and not in_memory(node):
            below = [paths.get(resolve(graph, i), 0) for i in dict.fromkeys(dependencies(node))]
            paths[node] = sum(max(1, k) for k in below) if node.op.view else sum(below)
            if paths[node] > MOST_PATHS:
                found.add(node)
                paths[node] = 0
    return found


def _ends(graph: Graph, tree: Iterable[Component], materialized: set[Node]) -> set[Node]:
    """Where chains of operations are cut. They are cut at views only if nothing else comes, as views do little work for
    the memory that they take."""
    ends: set[Node] = set()
    depth: dict[Node, int] = {}  # of what is computed on the spot
    for node in _in_order(tree):
        if node not in materialized and node.op is not STATE and not in_memory(node):
            depth[node] = 1 + max((depth.get(resolve(graph, i), 0) for i in dependencies(node)), default=0)
            if depth[node] >= (2 * DEEPEST if node.op.view else DEEPEST):
                ends.add(node)
                depth[node] = 0
    return ends


def _in_order(tree: Iterable[Component]) -> Iterator[Node]:
    """The nodes in the order of computation; inside loops, in the order of one step."""
    for component in tree:
        yield from component.nodes if component.axis is None else _in_order(component.body)


def _homes_through(user: Node, materialized: set[Node], homes: Mapping[Node, set[Home]]) -> set[Home]:
    """The homes that a value has because of a user."""
    if user in materialized or user not in homes:
        return {(user,)}
    return {(*h, user) for h in homes[user]} if user.op.view else homes[user]


def _all_nodes(graph: Graph) -> list[Node]:
    """Every node, inputs first, with states as leaves."""
    bodies = [e.body for e in graph.states.values() if e.body is not None]
    return topological([*roots(graph), *bodies])


def _users(graph: Graph, nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    users: dict[Node, list[Node]] = {}
    for node in nodes:
        for operand in dict.fromkeys(resolve(graph, i) for i in dependencies(node)):
            users.setdefault(operand, []).append(node)
    return users


def _carried(graph: Graph, tree: Iterable[Component]) -> Iterator[Node]:
    """What later steps of a loop read. Every cycle passes a delay, so every cycle passes one of these."""
    for component in tree:
        if component.axis is not None:
            inside = set(component.nodes)
            for node in component.nodes:
                if node.op is SHIFT:
                    yield from (n for n in _sources(graph, node.inputs[0]) if n in inside)


def _sources(graph: Graph, node: Node) -> Iterator[Node]:
    """What a value is a view of, unless that lies in memory. The value itself, if it is a view of its own earlier
    step."""
    start = resolve(graph, node)
    stack, seen = [start], {start}
    while stack:
        node = stack.pop()
        if node.op.view:
            below = [resolve(graph, i) for i in node.inputs]
            if start in below:
                yield start
            stack += [n for n in below if n not in seen]
            seen.update(below)
        elif not in_memory(node):
            yield node


def _lines(body: Iterable[Task | LoopNest], indent: str) -> Iterator[str]:
    for item in body:
        if isinstance(item, LoopNest):
            yield f"{indent}loop {item.axis.name} {'down' if item.reverse else 'up'}"
            yield from _lines(item.body, indent + "  ")
        else:
            part = "" if item.part is None else f" part {item.part}"
            into = "" if item.into is None else f" into {item.into}"
            yield f"{indent}{item.node.op.name}: {item.node.type}{part}{into}"
