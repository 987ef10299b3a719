"""Cycles: which loops, in which direction, compute a system of recurrence equations.

Edges go from a value to what it is made of, and carry the delay: how many steps away along each axis the operand is
read (None: at points that are no fixed distance away, as in a sum over the axis). A cycle is sound when it passes a
delay (Karp, Miller & Winograd 1967). A strongly connected component is computed by a loop over an axis along which
all of its delays point the same way; the delays that the loop satisfies drop out, and what still has a cycle is
computed by a loop inside it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import networkx

from graphc.errors import CausalityError, Location
from graphc.ir import Axis, Node, dependencies, topological
from graphc.language.graph import Graph
from graphc.ops.leaves import CONST, INPUT, PARAM, STATE
from graphc.ops.take import TAKE

Delay = tuple[tuple[Axis, int | None], ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """`node` reads `operand`, `delay` away."""

    node: Node
    operand: Node
    delay: Delay

    def along(self, axis: Axis) -> int | None:
        return dict(self.delay).get(axis, 0)


@dataclass(frozen=True, slots=True)
class Component:
    """Nodes that are computed together: one node without a cycle, or a loop over `axis`, `reverse` if from its end.

    `body` are the components of one step of the loop, in an order in which each follows what it reads.
    """

    nodes: tuple[Node, ...]
    axis: Axis | None = None
    reverse: bool = False
    body: tuple[Component, ...] = ()

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states among its nodes."""
        return tuple(node["name"] for node in self.nodes if node.op is STATE)


def roots(graph: Graph) -> list[Node]:
    """Everything that a call must compute."""
    return [*graph.outputs.values(), *graph.updates.values()]


def everything(graph: Graph) -> list[Node]:
    """The roots, and the equations and initial values of all states, whether a root needs them or not."""
    bodies = [e.body for e in graph.states.values() if e.body is not None]
    return [*roots(graph), *bodies, *(e.initial for e in graph.states.values())]


def reachable(graph: Graph, start: Iterable[Node] | None = None) -> list[Node]:
    """The nodes that the roots need, through the states' equations, inputs first where there is no cycle."""
    order = topological(roots(graph) if start is None else start)
    seen = set(order)
    position = 0
    while position < len(order):
        node = order[position]
        position += 1
        equation = graph.states.get(node["name"]) if node.op is STATE else None
        body = None if equation is None else equation.body
        if body is not None and body not in seen:
            new = [n for n in topological([body]) if n not in seen]
            order += new
            seen.update(new)
    return order


def edges_of(graph: Graph, node: Node) -> list[Edge]:
    """What a node reads; a state reads its equation, at the same point."""
    if node.op is STATE:
        body = graph.states[node["name"]].body
        return [Edge(node, body, ())] if body is not None else []
    operands = [Edge(node, operand, tuple(node.op.delays(node, k).items())) for k, operand in enumerate(node.inputs)]
    return operands + [Edge(node, lengths, ()) for lengths in dependencies(node)[len(node.inputs) :]]


def resolve(graph: Graph, node: Node) -> Node:
    """A state is its equation: the node that computes a value."""
    while node.op is STATE:
        body = graph.states[node["name"]].body
        assert body is not None
        node = body
    return node


def in_memory(node: Node) -> bool:
    """Whether a value lies in an array of the caller's, or is a constant."""
    return node.op in (INPUT, PARAM, CONST)


def components(graph: Graph) -> tuple[Component, ...]:
    """The graph as components in order of computation. Raises `CausalityError` if a cycle has no sound loop."""
    nodes = reachable(graph)
    edges = [e for node in nodes for e in edges_of(graph, node)]
    return _condense(graph, nodes, edges)


def _condense(graph: Graph, nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[Component, ...]:
    """The strongly connected components of these nodes and edges, in order of computation: as near to the order of the
    nodes as it can be."""
    rank = {node: k for k, node in enumerate(nodes)}
    if all(rank[edge.operand] < rank[edge.node] for edge in edges):
        return tuple(Component((node,)) for node in nodes)
    network: networkx.DiGraph[Node] = networkx.DiGraph()
    network.add_nodes_from(nodes)
    network.add_edges_from((e.operand, e.node) for e in edges)
    groups = [sorted(rank[n] for n in group) for group in networkx.strongly_connected_components(network)]
    strong = [tuple(nodes[k] for k in group) for group in sorted(groups)]
    number = {node: k for k, group in enumerate(strong) for node in group}
    inside: list[list[Edge]] = [[] for _ in strong]
    followers: list[set[int]] = [set() for _ in strong]
    for edge in edges:
        operand, reader = number[edge.operand], number[edge.node]
        if operand == reader:
            inside[reader].append(edge)
        else:
            followers[operand].add(reader)
    return tuple(
        _loop(graph, strong[k], inside[k]) if inside[k] else Component(strong[k]) for k in _smallest_first(followers)
    )


def _smallest_first(followers: Sequence[Collection[int]]) -> Iterator[int]:
    """The numbers of `followers` in an order in which each comes before those that follow it, and of all that can come
    next the smallest does."""
    missing = Counter(number for own in followers for number in own)
    ready = [number for number in range(len(followers)) if not missing[number]]  # in order, and so a heap
    while ready:
        number = heapq.heappop(ready)
        yield number
        for follower in followers[number]:
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(ready, follower)


def _loop(graph: Graph, nodes: tuple[Node, ...], edges: list[Edge]) -> Component:
    """The loop that computes a strongly connected component."""
    candidates = [a for a in graph.axes.values() if all(a in n.axes for n in nodes)]
    for axis in candidates:
        steps = [edge.along(axis) for edge in edges]
        known = [s for s in steps if s is not None]
        if len(known) < len(steps) or not any(known) or min(known) < 0 < max(known):
            continue
        rest = [e for e, s in zip(edges, steps, strict=True) if s == 0]
        return Component(nodes, axis, reverse=max(known) > 0, body=_condense(graph, nodes, rest))
    raise CausalityError(_explain(graph, edges), _where(graph, nodes))


def _where(graph: Graph, nodes: Iterable[Node]) -> Location | None:
    return next((graph.locations[n] for n in nodes if n in graph.locations), None)


def _explain(graph: Graph, edges: Sequence[Edge]) -> str:
    """A cycle, edge by edge, and the place where a delay would make it sound."""
    delayed = [e for e in edges if any(e.along(a) for a, _ in e.delay)]
    instant = [e for e in edges if e not in delayed]
    network: networkx.DiGraph[Node] = networkx.DiGraph((e.node, e.operand) for e in instant)
    try:
        cycle = [(u, v) for u, v in networkx.find_cycle(network)]
        problem = "a cycle passes no delay, so the value depends on itself at the same point:"
    except networkx.NetworkXNoCycle:
        cycle = _opposed(edges)
        problem = "the delays of a cycle point against each other, so no order of steps computes it:"
    table = {(e.node, e.operand): e for e in edges}
    lines = [f"  {_describe(graph, u)} reads {_describe(graph, v)}{_delay_text(table[u, v])}" for u, v in cycle]
    return "\n".join([problem, *lines, _advice([table[step] for step in cycle])])


def _opposed(edges: Sequence[Edge]) -> list[tuple[Node, Node]]:
    """A closed walk through one delay of each direction, or through the reads at no fixed distance."""
    network: networkx.DiGraph[Node] = networkx.DiGraph((e.node, e.operand) for e in edges)
    marked: dict[tuple[Axis, bool], Edge] = {}
    for edge in edges:
        for axis, _ in edge.delay:
            step = edge.along(axis)
            if step != 0:
                marked.setdefault((axis, step is None or step > 0), edge)
    walk: list[tuple[Node, Node]] = []
    both = [axis for axis, ahead in marked if ahead and (axis, False) in marked]
    chosen = [marked[both[0], False], marked[both[0], True]] if both else list(marked.values())[:2]
    for edge, following in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        path = networkx.shortest_path(network, edge.operand, following.node)
        walk += [(edge.node, edge.operand), *itertools.pairwise(path)]
    return walk


def _describe(graph: Graph, node: Node) -> str:
    name = f"state {node['name']}" if node.op is STATE else node.op.name
    location = graph.locations.get(node)
    return f"{name} ({location.file}:{location.line})" if location else name


def _delay_text(edge: Edge) -> str:
    parts = [f"{a.name}{d:+d}" if d is not None else f"all of {a.name}" for a, d in edge.delay if d != 0]
    return f" at {', '.join(parts)}" if parts else ""


def _advice(cycle: Sequence[Edge]) -> str:
    for edge in cycle:
        if edge.node.op is TAKE and edge.operand.op is STATE and any(step is None for _, step in edge.delay):
            t, h = edge.node["axis"].name, edge.operand["name"]
            return (
                f"While a step of {t} is computed, only those before it are known. Keep them as rows of a state, for "
                f"8 steps made[{t}] = made[{t} - 1] + gc.outer(gc.one_hot(gc.index({t}), 8), {h}[{t}]), and read "
                f'made[{t} - 1]: docs/guide.md, "Steps that name earlier ones".'
            )
    for along in {axis: None for edge in cycle for axis, _ in edge.delay}:
        behind, ahead = (next((e for e in cycle if sign * (e.along(along) or 0) > 0), None) for sign in (-1, 1))
        if behind is not None and ahead is not None:
            either = f"{_turned(ahead, along)}, or {_turned(behind, along)}"
            return f"Let all of the cycle read one way along {along.name}: {either}."
    state = next((e.node for e in cycle if e.node.op is STATE), None)
    if state is None or not state.axes:
        return "Let the cycle pass a state that is read at an earlier point, as in h[t - 1]."
    axis = state.axes[0].name
    return (
        f"Read state {state['name']} at an earlier point: {state['name']}[{axis} - 1] in place of {state['name']}"
        f"[{axis}], or at a later one everywhere: {state['name']}[{axis} + 1]."
    )


def _turned(edge: Edge, axis: Axis) -> str:
    """A read along the axis the other way round, in place of what it is."""
    name = edge.operand["name"] if edge.operand.op is STATE else "…"
    step = edge.along(axis) or 0
    there, back = (f"{name}[{axis.name} {'-' if k < 0 else '+'} {abs(k)}]" for k in (step, -step))
    return f"{back} in place of {there}"
