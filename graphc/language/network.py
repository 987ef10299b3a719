"""The graph as a networkx MultiDiGraph, for graph algorithms and for people who think in them.

A node is a value: its key is the name of an input, param or state, and `op_k` for everything else. A state and the
value that defines it are one node, so that the cycles of the equations are cycles of this graph. Node attributes:

    op       what computes the value, such as "tanh"; for a leaf "input", "param", "const", …
    kind     "input", "param", "state", "const" or "value"
    label    what to write on it: the name, or the op
    outputs  the names of the outputs that it is
    axes (names), shape, dtype

An edge leads from an operand to the value that is made of it:

    input    the operand's position
    delay    how many steps back it is read, by axis: {} at the same point, {"t": 1} for h[t - 1], -1 for h[t + 1]
    over     the axes along which it is read at points no fixed distance away: all of them, as by a sum, or one
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx

from graphc.ir import Node, topological
from graphc.ops.leaves import CONST, DECLARED

if TYPE_CHECKING:
    from graphc.language.graph import Graph


def to_networkx(graph: Graph) -> networkx.MultiDiGraph:
    """Every value that an output, an update or a state is made of, and every input and param."""
    network = networkx.MultiDiGraph(name=graph.name)
    bodies = [e.body for e in graph.states.values() if e.body is not None]
    order = topological([*bodies, *graph.outputs.values(), *graph.updates.values()])
    keys = _keys(graph, order)
    for node, key in keys.items():
        if key not in network:
            network.add_node(key, **_attributes(node, key))
    for name, equation in graph.states.items():
        network.nodes[name].update(kind="state", label=name)
        body = equation.body
        if body is not None and keys[body] != name:  # another name for a value that has one
            network.add_edge(keys[body], name, input=0, delay={}, over=())
    for node in order:
        for k, operand in enumerate(node.inputs):
            network.add_edge(keys[operand], keys[node], input=k, **_distance(node, k))
    for name, node in graph.outputs.items():
        network.nodes[keys[node]]["outputs"] += (name,)
    return network


def _keys(graph: Graph, order: list[Node]) -> dict[Node, str]:
    """A key for every node. A state shares it with its body, unless the body is another's or has its own name."""
    keys = {node: name for name, node in graph.inputs.items()}
    keys |= {param.node: name for name, param in graph.params.items()}
    named = {equation.node for equation in graph.states.values()} | set(keys)
    for name, equation in graph.states.items():
        if equation.body is not None and equation.body not in named:
            keys[equation.body] = name
            named.add(equation.body)
        keys[equation.node] = name
    taken = set(keys.values())
    count = 0
    for node in order:
        if node not in keys:
            count += 1
            while f"{node.op.name}_{count}" in taken:
                count += 1
            keys[node] = f"{node.op.name}_{count}"
    return keys


def _attributes(node: Node, key: str) -> dict[str, Any]:
    return {
        "op": node.op.name,
        "kind": node.op.name if node.op in (*DECLARED, CONST) else "value",
        "label": key if node.op in DECLARED else node.op.name,
        "outputs": (),
        "axes": tuple(axis.name for axis in node.axes),
        "shape": node.shape,
        "dtype": node.dtype,
    }


def _distance(node: Node, k: int) -> dict[str, Any]:
    delays = node.op.delays(node, k)
    return {
        "delay": {axis.name: -offset for axis, offset in delays.items() if offset is not None},
        "over": tuple(axis.name for axis, offset in delays.items() if offset is None),
    }
