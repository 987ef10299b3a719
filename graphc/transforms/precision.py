"""precision: the same equations in another floating dtype."""

from __future__ import annotations

from dataclasses import replace

from graphc.checks.causality import everything
from graphc.errors import DtypeError
from graphc.ir import FLOATING, FLOATS, WIDEN, Node, rebuild, topological
from graphc.language.graph import Graph, Param
from graphc.ops.elementwise import CAST, cast
from graphc.ops.leaves import CONST, LEAVES, array_of, const, leaf


def to_dtype(graph: Graph, dtype: str) -> Graph:
    """The graph with every floating input, param, state and constant in `dtype`; integers stay as they are. Nothing is
    rounded to float16 or bfloat16 any more."""
    if dtype not in FLOATS:
        raise DtypeError(f"a graph computes in float32 or float64, not in {dtype}")
    declared = [*graph.inputs.values(), *(p.node for p in graph.params.values())]
    declared += [e.node for e in graph.states.values()]
    made: dict[Node, Node] = {}
    for node in topological([*declared, *graph.resets.values(), *everything(graph)]):
        made[node] = _converted(node, [made[i] for i in node.inputs], dtype)
    return replace(
        graph.copy(),
        dtype=dtype,
        inputs={name: made[node] for name, node in graph.inputs.items()},
        params={name: _param(p, made[p.node], dtype) for name, p in graph.params.items()},
        states={name: equation.mapped(made) for name, equation in graph.states.items()},
        outputs={name: made[node] for name, node in graph.outputs.items()},
        updates={name: made[node] for name, node in graph.updates.items()},
        locations={made[node]: line for node, line in graph.locations.items() if node in made},
        steps={made[node]: step for node, step in graph.steps.items() if node in made},
        resets={made[state]: made[reset] for state, reset in graph.resets.items() if state in made},
    )


def _param(param: Param, node: Node, dtype: str) -> Param:
    init = param.init if isinstance(param.init, str) else _converted(param.init, [], dtype)
    return replace(param, node=node, init=init)


def _converted(node: Node, inputs: list[Node], dtype: str) -> Node:
    if node.op is WIDEN:
        return inputs[0]
    if node.dtype in FLOATING and node.op in LEAVES:
        return leaf(node.op, node["name"], node.axes, node.shape, dtype)
    if node.dtype in FLOATING and node.op is CONST:
        return const(array_of(node), dtype)
    if node.dtype in FLOATING and node.op is CAST:
        return cast(inputs[0], dtype)
    return rebuild(node, inputs)
