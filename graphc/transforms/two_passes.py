"""two_passes: a graph and its vector-Jacobian product as two graphs, for callers who learn the cotangents later.

In: a graph, and what to differentiate by. Out: its forward pass, which has further outputs, the residuals; and its
backward pass, a graph without the forward one's states that takes these, cotangents of the outputs, and as few inputs
and params as it needs. Also the derivative, both passes in one graph, for who differentiates it again.

Residuals are the fewest bytes of which the backward pass can make all that it reads of the forward one by operations
that neither reduce nor wait for a step before: of an LSTM its four gates and two states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import networkx
import numpy as np

from graphc.checks.causality import edges_of, reachable
from graphc.differentiation.grad import vjp
from graphc.ir import FLOATING, Node, rebuild, topological
from graphc.language.graph import Graph, unused_name
from graphc.ops.leaves import INPUT, STATE, leaf
from graphc.ops.normalization import BATCH_NORM, in_training
from graphc.simplification.rewrite import like, rewrite
from graphc.transforms.select import without_unused, without_unused_params

__all__ = ["Passes", "two_passes"]

_OPEN = 64  # points, to compare sizes with


@dataclass(frozen=True, slots=True)
class Passes:
    """Two graphs. `residuals` are outputs of `forward` and inputs of `backward`, which also takes the cotangents of
    floating-point outputs, by the names that `cotangents` says, and gives `grad_NAME`. `derivative` gives the same, but
    takes no residuals: it computes them again, and so is what to differentiate once more."""

    forward: Graph
    backward: Graph
    derivative: Graph
    residuals: tuple[str, ...]
    cotangents: Mapping[str, str]


def two_passes(graph: Graph, wrt: Sequence[str]) -> Passes:
    """The passes of a graph whose outputs all may have cotangents, but for those that are no floating-point numbers."""
    called = _renamed(graph, wrt)
    outputs = [name for name, node in graph.outputs.items() if node.dtype in FLOATING]
    cotangents = {name: f"cotangent_{called[name]}" for name in outputs}
    plain = replace(graph.copy(), outputs={called[name]: node for name, node in graph.outputs.items()})
    whole = vjp(plain, [called[name] for name in outputs], wrt)
    values = {name: whole.outputs[called[name]] for name in graph.outputs}
    grads = {f"grad_{name}": whole.outputs[f"grad_{name}"] for name in wrt}
    following = _following(whole, [whole.inputs[name] for name in cotangents.values()])
    same = _same(whole, following)
    # What the backward pass takes of the forward one: its outputs, by names that are free there, and residuals.
    taken = {*whole.inputs, *whole.params, *(node["name"] for node in following if node.op is STATE)}
    named = {same.get(node, node): name for name, node in values.items() if name not in taken}
    taken |= {*whole.states, *whole.axes, *values}
    for node in _kept(whole, following, same):
        if node not in named:
            named[node] = unused_name(f"residual_{len(named)}", taken)
    forward = replace(whole.copy(), outputs=values | {name: node for node, name in named.items()})
    named |= {body: named[state] for body, state in same.items() if state in named}
    backward = _backward(whole, named, grads, following)
    residuals = tuple(name for name in dict.fromkeys(named.values()) if name in backward.inputs)
    derivative = rewrite(replace(whole.copy(), outputs=grads, updates={}), _in_training)
    return Passes(without_unused(forward), backward, without_unused_params(derivative), residuals, cotangents)


def _renamed(graph: Graph, wrt: Sequence[str]) -> dict[str, str]:
    """What outputs are called while the graph is differentiated: it may be a derivative itself, with the very names
    that its own derivative needs."""
    taken = {*graph.inputs, *graph.params, *graph.states, *graph.axes}
    others = {f"grad_{name}" for name in wrt}
    called: dict[str, str] = {}
    for name in graph.outputs:
        free = name
        while f"cotangent_{free}" in taken or free in others:
            free += "_"
        called[name] = free
        others.add(free)
    return called


def _following(whole: Graph, cotangents: Sequence[Node]) -> set[Node]:
    """What depends on a cotangent."""
    uses = networkx.DiGraph()
    uses.add_nodes_from(cotangents)
    for node in reachable(whole):
        uses.add_edges_from((edge.operand, node) for edge in edges_of(whole, node))
    return set(cotangents).union(*(networkx.descendants(uses, cotangent) for cotangent in cotangents))


def _same(whole: Graph, following: Set[Node]) -> dict[Node, Node]:
    """Of values that define states: the state, which is the same value."""
    alive = set(reachable(whole))
    equations = [e for e in whole.states.values() if e.node in alive and e.node not in following]
    return {
        e.body: e.node
        for e in equations
        if e.body is not None and (e.body.axes, e.body.shape, e.body.dtype) == (e.node.axes, e.node.shape, e.node.dtype)
    }


def _kept(whole: Graph, following: Set[Node], same: Mapping[Node, Node]) -> list[Node]:
    """The values to keep for what follows the cotangents: a least cut, by bytes, between what is never made again and
    what reads it."""
    flow = networkx.DiGraph()
    flow.add_nodes_from(("source", "sink"))
    cheap: dict[Node, bool] = {}
    order = [node for node in topological(reachable(whole)) if node not in same]
    for node in order:
        made_once = node.op is STATE or node.op.reduces
        operands = [same.get(operand, operand) for operand in node.inputs]
        cheap[node] = not made_once and all(cheap.get(operand, False) for operand in operands)
        if node in following or cheap[node]:
            continue
        before, behind = (node, "before"), (node, "behind")
        if node.op.view:  # where elements come from, never elements of its own
            flow.add_edge(before, behind)
        else:
            flow.add_edge(before, behind, capacity=_bytes(node))
        if made_once:
            flow.add_edge("source", before)
        else:
            flow.add_edges_from(((operand, "behind"), before) for operand in operands if not cheap.get(operand, False))
    for node in order:
        read = [edge.operand for edge in edges_of(whole, node)] if node in following else []
        operands = [same.get(operand, operand) for operand in read]
        flow.add_edges_from(((o, "behind"), "sink") for o in operands if o not in following and not cheap[o])
    _, (kept_from, _) = networkx.minimum_cut(flow, "source", "sink")
    return [node for node in order if (node, "before") in kept_from and (node, "behind") not in kept_from]


def _bytes(node: Node) -> int:
    """How much a value takes, where every axis whose length the graph leaves open is as long as any other."""
    lengths = (axis.length if isinstance(axis.length, int) else _OPEN for axis in node.axes)
    return math.prod((*node.shape, *lengths)) * np.dtype(node.dtype).itemsize


def _backward(whole: Graph, named: Mapping[Node, str], grads: Mapping[str, Node], following: Set[Node]) -> Graph:
    """The graph of the derivatives, with the values that have names as inputs."""
    kept = {node: leaf(INPUT, name, node.axes, node.shape, node.dtype) for node, name in named.items()}
    own = [equation for equation in whole.states.values() if equation.node in following]
    bodies = [equation.body for equation in own if equation.body is not None]
    made: dict[Node, Node] = {}
    for node in topological([*grads.values(), *bodies, *(equation.initial for equation in own)]):
        made[node] = kept.get(node) or rebuild(node, [made[operand] for operand in node.inputs])
    states = {equation.node["name"]: equation.mapped(made) for equation in own}
    graph = replace(
        whole.copy(f"{whole.name}_backward"),
        inputs={**whole.inputs, **{node["name"]: node for node in kept.values()}},
        states=states,
        outputs={name: made[node] for name, node in grads.items()},
        updates={},
        locations={made[node]: line for node, line in whole.locations.items() if node in made},
        steps={},
    )
    return without_unused_params(graph)


def _in_training(node: Node) -> Node:
    return like(in_training(node), node) if node.op is BATCH_NORM else node
