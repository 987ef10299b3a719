"""select: the part of a graph that some of its outputs need.

In: a graph and names of outputs. Out: a graph that computes these as before and nothing else: a trained network
without its loss, for use.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.checks.causality import reachable
from graphc.errors import DefinitionError
from graphc.ir import Axis, Node
from graphc.language.graph import Graph, check_graph
from graphc.simplification.rewrite import without_dead_states


def select(graph: Graph, *outputs: str) -> Graph:
    """The graph with the named outputs only.

    Inputs, states and axes that they do not need are gone, and so are updates. Params all stay, so that the arrays of
    the whole graph's serve this one too.
    """
    check_graph(graph)
    for name in outputs:
        if not isinstance(name, str):
            raise DefinitionError(f"outputs are named one by one, as gc.select(g, 'p', 'loss'), not as {name!r}")
        if name not in graph.outputs:
            raise DefinitionError(
                f"graph {graph.name!r} has no output {name!r}; it has {', '.join(graph.outputs) or 'none'}"
            )
    if not outputs:
        raise DefinitionError(f"select at least one output of graph {graph.name!r}: {', '.join(graph.outputs)}")
    return without_unused(replace(graph.copy(), outputs={name: graph.outputs[name] for name in outputs}, updates={}))


def without_unused(graph: Graph) -> Graph:
    """The graph without the inputs, states and axes that no output and no update needs."""
    alive = set(reachable(graph))
    inputs = {name: node for name, node in graph.inputs.items() if node in alive or name in graph.updates}
    axes = {a for node in {*alive, *inputs.values()} for axis in _axes_of(node) for a in (axis, axis.root)}
    return replace(
        without_dead_states(graph),
        inputs=inputs,
        axes={name: axis for name, axis in graph.axes.items() if axis in axes},
    )


def without_unused_params(graph: Graph) -> Graph:
    """The graph without the params, inputs, states and axes that no output and no update needs."""
    alive = set(reachable(graph))
    params = {name: param for name, param in graph.params.items() if param.node in alive}
    return replace(without_unused(graph), params=params)


def _axes_of(node: Node) -> list[Axis]:
    return [*node.axes, *(value for _, value in node.attrs if isinstance(value, Axis))]
