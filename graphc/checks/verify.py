"""verify: nothing computes on a graph that did not pass here.

Types are checked as nodes are made; what only the whole graph shows is checked now:

1. every input, param and state that is reached is the graph's own, and every state is defined;
2. every cycle passes a delay, and the delays of a component agree on a direction (`graphc.checks.causality`);
3. no value varies over an axis that the graph does not have;
4. no argument of a function that `gc.gradient` has differentiated is left;
5. there is something to compute.
"""

from __future__ import annotations

from graphc.checks.causality import components, reachable, roots
from graphc.errors import AxisError, DefinitionError
from graphc.language.graph import Graph, check_graph, declared_arrays
from graphc.ops.gradient import CUSTOM_GRADIENT
from graphc.ops.leaves import COTANGENT, DECLARED


def verify(graph: Graph) -> Graph:
    """The graph itself, if it is sound; otherwise a `GraphError` that names the user's line."""
    check_graph(graph)
    if not roots(graph):
        raise DefinitionError(f"graph {graph.name!r} has no outputs; name one with g.output(name, value)")
    for name, equation in graph.states.items():
        if equation.body is None:
            location = graph.locations.get(equation.node)
            axes = ", ".join(a.name for a in equation.node.axes)
            raise DefinitionError(f"state {name!r} is never defined; write {name}[{axes}] = …", location)
    nodes = reachable(graph)
    own = {
        *declared_arrays(graph).values(),
        *(equation.node for equation in graph.states.values()),
    }
    replaced = {node.inputs[1] for node in nodes if node.op is CUSTOM_GRADIENT}
    for node in nodes:
        location = graph.locations.get(node)
        if node.op in DECLARED and node not in own:
            raise DefinitionError(
                f"graph {graph.name!r} has no {node.op.name} {node['name']!r}, which is read; gc.select drops what no "
                "output needs: read it before",
                location,
            )
        if node in replaced:
            continue
        if node.op is COTANGENT:
            raise DefinitionError(
                "an argument of a function that gc.gradient differentiates is read outside of it; nothing may keep "
                "what it computes: call the function again, on values of the graph",
                location,
            )
        for axis in (a for own in node.axes for a in (own, own.root)):
            if graph.axes.get(axis.name) != axis:
                raise AxisError(f"a value varies over axis {axis.name!r}, which graph {graph.name!r} lacks", location)
    components(graph)
    return graph
