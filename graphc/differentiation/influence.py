"""influences: how values that a recurrence makes depend on each element of a param, carried forward with the states.

An influence is a tangent (`graphc.differentiation.grad.tangents`) for each element of the param, all of them side by
side: the dimensions of the param's event become axes, along which one element after the other moves. Where rows of the
param can move at once, there is no axis for them (`graphc.differentiation.rows`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.checks.causality import reachable
from graphc.differentiation.grad import free_name, tangents, zeros
from graphc.differentiation.rows import row_dims
from graphc.ir import Axis, Node, merge_axes, rebuild, topological
from graphc.language.graph import Equation, Graph
from graphc.ops.axis import as_axis, as_dim
from graphc.ops.composite import one_hot
from graphc.ops.contraction import CONTRACT, contract, sum_over
from graphc.ops.elementwise import mul
from graphc.ops.event import reshape, transpose
from graphc.ops.leaves import COTANGENT, STATE, const, index, leaf
from graphc.ops.reduction import BROADCAST, broadcast
from graphc.scalar import computed
from graphc.simplification.simplify import simplify

Dims = Sequence[Axis | None]
"""For each dimension of a param's event the axis along which its elements move one after the other; None: at once."""


@dataclass(frozen=True, slots=True)
class Influence:
    """Of a param on a value: over the value's axes and those of `dims`. Where these leave out the param's rows,
    dimension `row` of the event is them."""

    value: Node
    dims: Dims
    row: int | None

    def gradient(self, slope: Node, axis: Axis) -> Node:
        """The derivative by the param, over `axis`, of what has this slope by the value: the product of both, summed
        over the value's event and all other axes of the slope."""
        over = tuple(a for a in slope.axes if a != axis)
        value = broadcast(self.value, merge_axes(slope.axes, self.value.axes), self.value.shape)
        letters = "abcdefghijklm"[: len(slope.shape)]
        out = "" if self.row is None else letters[self.row]
        summed = len(out) < len(letters) or over
        result = contract(slope, value, letters, letters, out, over) if summed else mul(slope, value)
        rows = len(self.dims) if self.row is None else self.dims.index(None)
        for k, dim in reversed(list(enumerate(self.dims))):
            result = as_dim(result, dim, int(k > rows)) if dim is not None else result
        return result


def influences(graph: Graph, on: Sequence[Node], name: str) -> dict[Node, Influence]:
    """The influences of a param on those of some values that depend on it. Those of states, and the axes, are added
    to `graph`."""
    param = graph.params[name].node
    on = [value for value in on if param in set(reachable(graph, [value]))]
    velocity = leaf(COTANGENT, f"velocity_{name}", (), param.shape, computed(param.dtype))
    scratch = graph.copy()
    found = tangents(scratch, on, {param: velocity})
    outputs = {str(k): node for k, node in enumerate(found) if node is not zeros(on[k])}
    scratch = simplify(replace(scratch, outputs=outputs, updates={}))
    bodies = {e.node: e.body for key, e in scratch.states.items() if key not in graph.states and e.body is not None}
    moved = {on[int(k)]: node for k, node in scratch.outputs.items()}
    if not moved:
        return {}
    rows, dims = _dims(graph, name, [*moved.values()], bodies, velocity)
    varying = [dim for dim in dims if dim is not None]
    graph.axes.update({dim.name: dim for dim in varying})
    states: dict[Node, Node] = {}
    for state in bodies:
        free = free_name(graph, f"influence_{state['name'].removeprefix('adjoint_adjoint_')}_{name}")
        states[state] = leaf(STATE, free, merge_axes(state.axes, varying), state.shape, state.dtype)
        graph.states[free] = Equation(states[state], None, const(0, state.dtype))
    made = one_by_one([*moved.values(), *bodies.values()], states, velocity, dims)
    for state, body in bodies.items():
        influence = states[state]
        body = broadcast(made[body], influence.axes, influence.shape)
        graph.states[influence["name"]] = Equation(influence, body, const(0, state.dtype))
    return {value: Influence(made[node], dims, rows.get(node)) for value, node in moved.items()}


def _dims(
    graph: Graph, name: str, roots: Sequence[Node], equations: Mapping[Node, Node], velocity: Node
) -> tuple[Mapping[Node, int], Dims]:
    """The dimensions of values that are rows of the param, where its rows can move at once; and axes for the others."""
    found = ((k, row_dims(roots, equations, velocity, k)) for k in range(len(velocity.shape)))
    at_once, rows = next(((k, rows) for k, rows in found if rows is not None), (None, {}))
    sizes = enumerate(velocity.shape)
    return rows, [None if k == at_once else Axis(free_name(graph, f"{name}_{k}"), size) for k, size in sizes]


def one_by_one(roots: Sequence[Node], states: Mapping[Node, Node], velocity: Node, dims: Dims) -> dict[Node, Node]:
    """What tangents become where the velocity is 1 for one element of the param, or one of each row, and 0 for the
    others."""
    products = [node for node in topological(roots) if node.op is CONTRACT and velocity in node.inputs]
    chosen = {node: _chosen(node, velocity, dims) for node in products}
    return widened(roots, {**states, **chosen, velocity: _one_element(velocity, dims)})


def widened(roots: Sequence[Node], replaced: Mapping[Node, Node]) -> dict[Node, Node]:
    """What values become where some that they are made of are replaced by others, which may vary over further axes."""
    made = dict(replaced)
    for node in topological(roots):
        if node not in made and node.op is BROADCAST:
            (value,) = (made[operand] for operand in node.inputs)
            made[node] = broadcast(value, merge_axes(node.axes, value.axes), node.shape)
        elif node not in made:
            made[node] = rebuild(node, [made[operand] for operand in node.inputs])
    return made


def _one_element(velocity: Node, dims: Dims) -> Node:
    """1 for the elements that the axes name, 0 for all others."""
    result = const(1, velocity.dtype)
    for k, dim in enumerate(dims):
        if dim is not None:
            result = mul(result, _at(dim, k, velocity))
    return broadcast(result, [dim for dim in dims if dim is not None], velocity.shape)


def _at(dim: Axis, k: int, like: Node) -> Node:
    """1 where dimension k of an event is where the axis is, 0 elsewhere."""
    shape = tuple(s if d == k else 1 for d, s in enumerate(like.shape))
    return reshape(one_hot(index(dim), like.shape[k], like.dtype), shape)


def _chosen(node: Node, velocity: Node, dims: Dims) -> Node:
    """A product with the velocity: of the sum over a dimension one term is left, the other operand's element at the
    point of the axis."""
    k = node.inputs.index(velocity)
    own, letters, other, out = node["ab"[k]], node["ba"[k]], node.inputs[1 - k], node["out"]
    for letter, dim in zip(own, dims, strict=True):
        if letter not in out and dim is not None:
            other = as_axis(other, letters.index(letter), dim)
            letters = letters.replace(letter, "")
    kept = [letter for letter in out if letter in letters]
    shape = dict(zip(letters, other.shape, strict=True))
    result = transpose(other, tuple(letters.index(letter) for letter in kept))
    result = reshape(result, tuple(shape.get(letter, 1) for letter in out))
    for letter, dim in zip(own, dims, strict=True):
        if letter in out and dim is not None:
            result = mul(result, _at(dim, out.index(letter), node))
    return sum_over(broadcast(result, result.axes, node.shape), node["over"])
