"""rtrl: real-time recurrent learning, the gradient of each step's loss, carried forward with the states.

Backpropagation through time waits for the last step and keeps all before it. Real-time recurrent learning (Williams &
Zipser 1989) keeps instead how each state depends on each param, its influence; for `h[t] = f(h[t - 1], W)`

    influence[t] = ∂f/∂h · influence[t - 1] + ∂f/∂W        gradient[t] = ∂ℓ/∂h · influence[t] + ∂ℓ/∂W

which needs no later step, so that `gc.step` takes the graph. An influence is a tangent of the state (`tangents`) for
each element of the param, all of them side by side: the param's event becomes axes, along which one element after the
other moves. From the values that a step reads from cycles, and that alone have influences, to its loss the sweep goes
backwards, within the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx

from graphc.checks.causality import edges_of, reachable
from graphc.checks.verify import verify
from graphc.differentiation.grad import Wrt, add_gradient, differentiated, output_of
from graphc.differentiation.gradient import adjoints_of
from graphc.differentiation.influence import influences
from graphc.differentiation.one_by_one import widened
from graphc.errors import DefinitionError, ShapeError
from graphc.ir import FLOATING, Axis, Node, merge_axes, topological
from graphc.language.graph import Graph
from graphc.ops.elementwise import balanced_sum, cast
from graphc.ops.gradient import substitute
from graphc.ops.leaves import COTANGENT, STATE, leaf
from graphc.ops.reduction import broadcast
from graphc.scalar import computed
from graphc.simplification.simplify import simplify


def rtrl(graph: Graph, of: str, wrt: Wrt = None) -> Graph:
    """The graph with further outputs `grad_NAME`: at each step, the derivatives of output `of` at that step by params.

    The output is a number at each step, such as `gc.mean(gc.cross_entropy(o, y), over=n)`; `wrt` names the params, by
    default every trainable one. `grad_NAME` is over the output's axis, with events like NAME's array; the sum over the
    steps is what `gc.grad` of the sum gives, to rounding. Where there is a `grad_NAME` already, it is `grad_OF_NAME`.
    It is computed forwards in time, so that `gc.step` takes the graph, and a network learns while it runs. While params
    move from step to step an influence is that of the params as they were, as always in online learning.

    The price: each state carries an array of its own size times the param's for each example, and a step multiplies all
    of them: O(units⁴) where a step of the network is O(units²). It is less where units, or heads, do not see each
    other. Raises `ShapeError` if the output is no number at each step of one axis, and `DefinitionError` for names that
    are no params.
    Source: Williams & Zipser 1989, "A learning algorithm for continually running fully recurrent neural networks".
    """
    verify(graph)
    loss = output_of(graph, of)
    if loss.shape or len(loss.axes) != 1:
        raise ShapeError(
            f"rtrl differentiates a number at each step of one axis, but output {of!r} is {loss.type}; reduce it, as "
            "by gc.mean(gc.sum(x), over=n), or use gc.grad, which differentiates one number",
            graph.locations.get(loss),
        )
    targets = differentiated(graph, wrt)
    for name in targets:
        if name not in graph.params:
            raise DefinitionError(f"rtrl differentiates by params, and {name!r} is an input of graph {graph.name!r}")
    result = graph.copy()
    (axis,) = loss.axes
    now = _without_definitions(graph, loss)
    ends = _read_from_cycles(graph, now, axis)
    by_ends, direct = _within_step(graph, now, axis, ends, targets)
    for name, target in targets.items():
        terms = [found.gradient(by_ends[end], axis) for end, found in influences(result, ends, name).items()]
        same = [cast(term, computed(target.dtype)) for term in (direct[name], *terms)]
        add_gradient(result, of, name, broadcast(balanced_sum(same), (axis,), target.shape))
    return simplify(result)


def _without_definitions(graph: Graph, value: Node) -> Node:
    """A value made of other values, with the equations of states that are on no cycle in their places."""
    uses = networkx.DiGraph(
        (edge.operand, node) for node in reachable(graph, [value]) for edge in edges_of(graph, node)
    )
    recurrent = {node for group in networkx.strongly_connected_components(uses) if len(group) > 1 for node in group}
    while definitions := [n for n in topological([value]) if n.op is STATE and n not in recurrent]:
        bodies = {node: broadcast(_equation(graph, node), node.axes, node.shape) for node in definitions}
        (value,) = substitute([value], bodies)
    return value


def _equation(graph: Graph, state: Node) -> Node:
    body = graph.states[state["name"]].body
    assert body is not None  # verified
    return body


def _read_from_cycles(graph: Graph, value: Node, axis: Axis) -> list[Node]:
    """The values that `value` is made of at which the current step ends: states, and what is read of other steps."""
    ends, seen, pending = [], set(), [value]
    while pending:
        node = pending.pop()
        if node in seen or node.dtype not in FLOATING:
            continue
        seen.add(node)
        if node.op is STATE or any(edge.along(axis) != 0 for edge in edges_of(graph, node)):
            ends.append(node)
        else:
            pending += node.inputs
    return ends


def _within_step(
    graph: Graph, loss: Node, axis: Axis, ends: Sequence[Node], targets: Mapping[str, Node]
) -> tuple[dict[Node, Node], dict[str, Node]]:
    """The derivatives of a step's loss by the ends of the step and, where it reads them itself, by the targets: each
    over the axis, too."""
    there = {e: leaf(COTANGENT, f"end{k}", merge_axes((axis,), e.axes), e.shape, e.dtype) for k, e in enumerate(ends)}
    here = {p: leaf(COTANGENT, f"param_{name}", (axis,), p.shape, p.dtype) for name, p in targets.items()}
    leaves = {**there, **here}
    found = adjoints_of(graph, widened([loss], leaves)[loss], list(leaves.values()))
    back = {stand_in: broadcast(node, stand_in.axes, node.shape) for node, stand_in in leaves.items()}
    slopes = dict(zip(leaves, substitute(found, back), strict=True))
    return {end: slopes[end] for end in ends}, {name: slopes[target] for name, target in targets.items()}
