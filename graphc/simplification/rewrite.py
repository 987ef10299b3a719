"""Rebuilding a graph with some of its values replaced: what every pass that changes expressions is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from graphc.checks.causality import everything, reachable
from graphc.ir import Node, rebuild, topological
from graphc.language.graph import Graph
from graphc.ops.reduction import broadcast

Rule = Callable[[Node], Node]


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Apply `rule` to every node, inputs first, and drop the states that nothing reads any more.

    The rule sees a node whose inputs are rewritten already and returns it, or a node of the same axes (in any
    order), shape and dtype to use in its place. It leaves leaves alone.
    """
    made = map_nodes(everything(graph), rule)
    result = replace(
        graph.copy(),
        states={name: equation.mapped(made) for name, equation in graph.states.items()},
        outputs={name: made[node] for name, node in graph.outputs.items()},
        updates={name: made[node] for name, node in graph.updates.items()},
        resets={state: made.get(reset, reset) for state, reset in graph.resets.items()},
    )
    for old, new in made.items():  # what a value became stands on the same line of the user's
        if old in graph.locations:
            result.locations.setdefault(new, graph.locations[old])
        if old in graph.steps:
            result.steps.setdefault(new, graph.steps[old])
    return without_dead_states(result)


def like(value: Node, node: Node) -> Node:
    """A value over the axes of a node that it is to replace, with its shape: it may vary less."""
    return broadcast(value, node.axes, node.shape)


def map_nodes(start: Sequence[Node], rule: Rule) -> dict[Node, Node]:
    """Every node that `start` is made of, with what it becomes."""
    made: dict[Node, Node] = {}
    for node in topological(start):
        made[node] = rule(rebuild(node, [made[i] for i in node.inputs]))
    return made


def without_dead_states(graph: Graph) -> Graph:
    alive = set(reachable(graph))
    states = {name: e for name, e in graph.states.items() if e.node in alive or e.body is None}
    return replace(graph, states=states)
