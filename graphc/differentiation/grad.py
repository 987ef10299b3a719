"""grad: reverse-mode differentiation of a system of recurrence equations, which is backpropagation through time.

The adjoint of a system of recurrence equations is again one, with every delay reversed (Wan & Beaufays 1996; Werbos
1990). Each state gets an adjoint state; each equation, read backwards, contributes to the adjoints of what it reads;
the contributions that arrive at a state are the equation of its adjoint. A value that an operand is broadcast to is
summed back, which is where the sums over time and batch in a weight's gradient come from.

jvp, forward mode, is two of these: a vector-Jacobian product is linear in its vector, and its own adjoint with
respect to that vector is the Jacobian-vector product. One set of rules serves both.

The adjoint of a value that is stored as float16 or bfloat16 is a float32: rounding has the derivative 1, sums over time
and batch are as exact as any other, and what is small does not vanish.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import networkx

from graphc.checks.causality import edges_of, reachable
from graphc.checks.verify import verify
from graphc.errors import DefinitionError, DtypeError, ShapeError
from graphc.ir import FLOATING, Node, topological
from graphc.language.graph import Equation, Graph
from graphc.language.value import Value
from graphc.ops.elementwise import add, balanced_sum
from graphc.ops.leaves import INPUT, STATE, const, leaf
from graphc.ops.reduction import broadcast, sum_to
from graphc.scalar import computed
from graphc.simplification.distribute import distribute
from graphc.simplification.simplify import simplify

Wrt = Sequence[str | Value] | str | Value | None


def grad(graph: Graph, of: str, wrt: Wrt = None) -> Graph:
    """The graph with further outputs `grad_NAME`: the derivatives of output `of`, a number, by params and inputs.

    `wrt` gives these, by their names or as values; by default, every trainable param. Each `grad_NAME` has the shape of
    NAME's array, and its dtype, but float32 where that is float16 or bfloat16. The result is a graph like any other and
    can be differentiated again; where it has a `grad_NAME` already, the new derivative is called `grad_OF_NAME`.
    Raises `ShapeError` if the output is no number, `DefinitionError` for a name that the graph lacks, and `DtypeError`
    for integers.
    Source: Werbos 1990, "Backpropagation through time".
    """
    result, found = gradients(graph, of, wrt)
    for name, node in found.items():
        add_gradient(result, of, name, node)
    return simplify(result)


def gradients(graph: Graph, of: str, wrt: Wrt = None) -> tuple[Graph, dict[str, Node]]:
    """A copy of the graph with the adjoint equations, and the derivatives of output `of` by name."""
    verify(graph)
    loss = output_of(graph, of)
    if loss.shape or loss.axes:
        event, axes = "gc.sum(x)" if loss.shape else "x", ", ".join(axis.name for axis in loss.axes)
        axes = f"({axes})" if len(loss.axes) > 1 else axes
        number = f"gc.mean({event}, over={axes})" if axes else event
        raise ShapeError(
            f"grad differentiates a number, but output {of!r} is {loss.type}; reduce it, as by {number}, or use gc.vjp",
            graph.locations.get(loss),
        )
    targets = differentiated(graph, wrt)
    result = distribute(graph).copy()
    loss = result.outputs[of]
    adjoints = adjoint(result, {loss: const(1, computed(loss.dtype))}, list(targets.values()))
    return result, {n: broadcast(adjoints[target], target.axes, target.shape) for n, target in targets.items()}


def vjp(graph: Graph, of: str | Sequence[str], wrt: Wrt = None) -> Graph:
    """The vector-Jacobian product: as `grad`, for an output of any shape, or for several.

    The vector is a further input `cotangent_OF` of the output's type, one for each output; the results are `grad_NAME`.
    Raises what `grad` does, but for outputs that are no numbers.
    """
    verify(graph)
    if not isinstance(of, str | Sequence):
        raise DefinitionError(f"outputs are differentiated, of=['h', 'y'], got {of!r}")
    names = (of,) if isinstance(of, str) else tuple(of)
    for name in names:
        output_of(graph, name)
    targets = differentiated(graph, wrt)
    result = distribute(graph).copy()
    seeds: dict[Node, Node] = {}
    for name in names:
        output = result.outputs[name]
        seed = result.input(f"cotangent_{name}", output.shape, over=output.axes, dtype=computed(output.dtype)).node
        seeds[output] = add(seeds[output], seed) if output in seeds else seed  # a value may have two names
    adjoints = adjoint(result, seeds, list(targets.values()))
    for name, target in targets.items():
        add_output(result, f"grad_{name}", broadcast(adjoints[target], target.axes, target.shape))
    return simplify(result)


def jvp(graph: Graph, of: str, wrt: Wrt = None) -> Graph:
    """The Jacobian-vector product: how output `of` changes when the named params and inputs move.

    Their velocities are further inputs `tangent_NAME`, each like NAME's array; the result is output `tangent_OF`,
    like OF's. By default every trainable param moves.
    """
    verify(graph)
    output = output_of(graph, of)
    targets = differentiated(graph, wrt)
    result = distribute(graph).copy()
    output = result.outputs[of]
    velocities = {
        target: result.input(f"tangent_{name}", target.shape, over=target.axes, dtype=computed(target.dtype)).node
        for name, target in targets.items()
    }
    (tangent,) = tangents(result, [output], velocities)
    add_output(result, f"tangent_{of}", broadcast(tangent, output.axes, output.shape))
    return simplify(result)


def tangents(graph: Graph, of: Sequence[Node], velocities: Mapping[Node, Node]) -> list[Node]:
    """How values change when others move, each with its velocity. New states are added to `graph`."""
    dummies = {
        node: leaf(INPUT, free_name(graph, f"cotangent{k}"), node.axes, node.shape, computed(node.dtype))
        for k, node in enumerate(of)
    }
    adjoints = adjoint(graph, dummies, list(velocities))
    seeds: dict[Node, Node] = {}
    for target, velocity in velocities.items():
        reached = adjoints[target]
        seed = sum_to(velocity, reached)
        seeds[reached] = add(seeds[reached], seed) if reached in seeds else seed  # terms of a sum have one adjoint
    found = adjoint(graph, seeds, list(dummies.values()))
    return [found[dummies[node]] for node in of]


def output_of(graph: Graph, of: str) -> Node:
    if not isinstance(of, str):
        raise DefinitionError(f"one output is differentiated, by its name; got {of!r}. Of several, gc.vjp takes a list")
    if of not in graph.outputs:
        raise DefinitionError(f"graph {graph.name!r} has no output {of!r}; it has {', '.join(graph.outputs) or 'none'}")
    node = graph.outputs[of]
    if node.dtype not in FLOATING:
        raise DtypeError(f"output {of!r} is {node.dtype} and has no derivative", graph.locations.get(node))
    return node


def differentiated(graph: Graph, wrt: Wrt) -> dict[str, Node]:
    if wrt is None:
        return {name: p.node for name, p in graph.params.items() if p.trainable}
    if not isinstance(wrt, str | Value | Iterable):
        raise DefinitionError(f"wrt= names params and inputs, wrt=['W', 'x'], got {wrt!r}")
    found = {}
    for item in (wrt,) if isinstance(wrt, str | Value) else wrt:
        name = item.name if isinstance(item, Value) else item
        if not isinstance(name, str) or (name not in graph.params and name not in graph.inputs):
            known = ", ".join([*graph.params, *graph.inputs])
            raise DefinitionError(f"graph {graph.name!r} has no param or input {name!r}; it has {known}")
        node = graph.params[name].node if name in graph.params else graph.inputs[name]
        if isinstance(item, Value) and item.node is not node:
            raise DefinitionError(f"{item!r} is not {name!r} of graph {graph.name!r}, which is {node.type}")
        if node.dtype not in FLOATING:
            raise DtypeError(f"{name!r} is {node.dtype} and has no derivative")
        found[name] = node
    return found


def add_gradient(graph: Graph, of: str, name: str, node: Node) -> None:
    """A further output `grad_NAME`, or `grad_OF_NAME` if there is one already."""
    add_output(graph, f"grad_{name}" if f"grad_{name}" not in graph.outputs else f"grad_{of}_{name}", node)


def add_output(graph: Graph, name: str, node: Node) -> None:
    if name in graph.outputs:
        raise DefinitionError(f"graph {graph.name!r} already has an output {name!r}; rename it before differentiating")
    graph.outputs[name] = node


def free_name(graph: Graph, name: str) -> str:
    taken = {*graph.inputs, *graph.params, *graph.states, *graph.axes}
    if name not in taken:
        return name
    return next(f"{name}{k}" for k in range(2, len(taken) + 3) if f"{name}{k}" not in taken)


def adjoint(graph: Graph, seeds: Mapping[Node, Node], targets: Sequence[Node]) -> dict[Node, Node]:
    """The adjoints of the targets, when those of some values are given. New adjoint states are added to `graph`."""
    active = _between(graph, seeds, targets)
    states = [n for n in active if n.op is STATE]
    bar: dict[Node, Node] = {}
    for state in states:
        name = free_name(graph, f"adjoint_{state['name']}")
        bar[state] = leaf(STATE, name, state.axes, state.shape, computed(state.dtype))
        graph.states[name] = Equation(bar[state], None, const(0, bar[state].dtype))
    contributions: dict[Node, list[Node]] = {node: [] for node in active}
    for node, seed in seeds.items():
        if node in contributions:
            contributions[node].append(sum_to(seed, node))
    for state in states:
        body = graph.states[state["name"]].body
        if body in contributions:
            contributions[body].append(sum_to(bar[state], body))
    for node in reversed(topological(active)):
        if node in contributions and node.op is not STATE and contributions[node]:
            propagate(graph, node, balanced_sum(contributions[node]), contributions)
    for state in states:
        name = bar[state]["name"]
        body = balanced_sum(contributions[state]) if contributions[state] else zeros(state)
        graph.states[name] = Equation(bar[state], body, const(0, bar[state].dtype))
    return {t: balanced_sum(contributions[t]) if contributions.get(t) else zeros(t) for t in targets}


def propagate(graph: Graph | None, node: Node, total: Node, contributions: dict[Node, list[Node]]) -> None:
    """Pass the adjoint of a node on to its operands."""
    if node.op.gradient is None:
        return
    location = graph.locations.get(node) if graph is not None else None
    for operand, contribution in zip(node.inputs, node.op.gradient(node, total), strict=True):
        if contribution is None or operand not in contributions:
            continue
        made = sum_to(contribution, operand)
        contributions[operand].append(made)
        if graph is not None and location is not None:
            graph.locations.setdefault(made, location)


def _between(graph: Graph, seeds: Iterable[Node], targets: Iterable[Node]) -> list[Node]:
    """The floating values that depend on a target and that a seed depends on: all others have no adjoint to pass on."""
    nodes = reachable(graph, seeds)
    network: networkx.DiGraph[Node] = networkx.DiGraph()
    network.add_nodes_from(nodes)
    for node in nodes:
        if node.op is STATE or node.op.gradient is not None:
            network.add_edges_from((e.operand, node) for e in edges_of(graph, node) if e.operand.dtype in FLOATING)
    reached = set(seeds) & set(nodes)
    for seed in list(reached):
        reached |= networkx.ancestors(network, seed)
    moved = set(targets) & set(nodes)
    for target in list(moved):
        moved |= networkx.descendants(network, target)
    return [n for n in nodes if n in reached and n in moved]


def zeros(node: Node) -> Node:
    """The adjoint of what nothing depends on."""
    return broadcast(const(0, computed(node.dtype)), node.axes, node.shape)
