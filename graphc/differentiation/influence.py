"""influences: how values that a recurrence makes depend on each element of a param, carried forward with the states.

An influence is a tangent (`graphc.differentiation.grad.tangents`) for each element of the param, all of them side by
side: the dimensions of the param's event become axes, along which one element after the other moves. Values in which
rows of the param can move at once (`graphc.differentiation.rows`) have no axis for them; where such rows meet, as in a
layer above or a readout, they are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.checks.causality import reachable
from graphc.differentiation.grad import free_name, tangents, zeros
from graphc.differentiation.one_by_one import Along, Made, Sparse, one_by_one
from graphc.differentiation.rows import Places, Rows, independent_rows
from graphc.ir import Axis, Node, Shape, merge_axes
from graphc.language.graph import Equation, Graph
from graphc.ops.axis import as_dim
from graphc.ops.contraction import contract
from graphc.ops.elementwise import mul
from graphc.ops.event import reshape, transpose
from graphc.ops.leaves import COTANGENT, STATE, const, leaf
from graphc.ops.reduction import broadcast
from graphc.scalar import computed
from graphc.simplification.simplify import simplify


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a dimension of a param's event, as long as the whole or not. Its elements move one after the other
    along an axis; in values that have `rows`, at once."""

    dim: int
    axis: Axis
    rows: Rows | None
    places: Places


@dataclass(frozen=True, slots=True)
class Influence:
    """Of a param on a value: over the value's axes and those of the parts whose elements do not move at once."""

    value: Node
    shape: Shape
    parts: Sequence[Part]
    rows: Sequence[Rows | None]

    def gradient(self, slope: Node, axis: Axis) -> Node:
        """The derivative by the param, over `axis`, of what has this slope by the value: the product of both, summed
        over the value's event and all other axes of the slope."""
        over = tuple(a for a in slope.axes if a != axis)
        varying = [part.axis for part, rows in zip(self.parts, self.rows, strict=True) if rows is None]
        value = broadcast(self.value, merge_axes(slope.axes, self.value.axes, varying), self.value.shape)
        shape, dims = _cut(slope.shape, [rows for rows in self.rows if rows is not None])
        letters = "abcdefghijklmnopqrstuvwxyz"[: len(shape)]
        out = "".join(letters[dim] for dim in dims)
        slope, value = reshape(slope, shape), reshape(value, shape)
        summed = len(out) < len(letters) or over
        result = contract(slope, value, letters, letters, out, over) if summed else transpose(mul(slope, value), dims)
        for k, (part, rows) in enumerate(zip(self.parts, self.rows, strict=True)):
            result = as_dim(result, part.axis, k) if rows is None else result
        return reshape(result, self.shape)


def _cut(shape: Shape, parts: Sequence[Rows]) -> tuple[Shape, tuple[int, ...]]:
    """An event with each part as a dimension of its own, and which dimensions these are."""
    sizes: list[int] = []
    places: dict[Rows, int] = {}
    for dim, size in enumerate(shape):
        below = size
        for part in sorted((p for p in parts if p.dim == dim), key=lambda p: -p.stride):
            if below > part.period:
                sizes.append(below // part.period)
            places[part] = len(sizes)
            sizes.append(part.count)
            below = part.stride
        if below > 1:
            sizes.append(below)
    return tuple(sizes), tuple(places[part] for part in parts)


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
    parts = _parts(graph, name, velocity.shape, independent_rows([*moved.values()], bodies, velocity))

    def apart(node: Node) -> list[Axis]:
        return [part.axis for part in parts if node not in part.places]

    states: dict[Node, Node] = {}
    for state in bodies:
        free = free_name(graph, f"influence_{state['name'].removeprefix('adjoint_adjoint_')}_{name}")
        states[state] = leaf(STATE, free, merge_axes(state.axes, apart(state)), state.shape, state.dtype)
        graph.states[free] = Equation(states[state], None, const(0, state.dtype))
    known: dict[Node, Made] = {**states, velocity: _element(velocity, parts)}
    made, equations = one_by_one([*moved.values()], bodies, known, [(part.axis, part.places) for part in parts])
    for state, influence in states.items():
        body = broadcast(equations[state], influence.axes, influence.shape)
        graph.states[influence["name"]] = Equation(influence, body, const(0, state.dtype))
    used = {axis for node in (*states, *moved.values()) for axis in apart(node)}
    graph.axes = {key: axis for key, axis in graph.axes.items() if axis in used or axis not in [p.axis for p in parts]}
    return {
        value: Influence(made[node], param.shape, parts, [part.places.get(node) for part in parts])
        for value, node in moved.items()
    }


def _parts(graph: Graph, name: str, shape: Shape, at_once: Mapping[Rows, Places]) -> list[Part]:
    """The event of a param, cut into parts, each with a new axis: those that move at once, and what else there is."""
    found: list[Part] = []
    for dim, size in enumerate(shape):
        own = [rows for rows in at_once if rows.dim == dim]
        sizes, places = _cut((size,), [replace(rows, dim=0) for rows in own])
        by_place = dict(zip(places, own, strict=True))
        for k, length in enumerate(sizes):
            axis = Axis(free_name(graph, f"{name}_{dim}"), length)
            graph.axes[axis.name] = axis
            rows = by_place.get(k)
            found.append(Part(dim, axis, rows, at_once[rows] if rows is not None else {}))
    return found


def _element(velocity: Node, parts: Sequence[Part]) -> Sparse:
    """A velocity of 1 for the elements that the axes name, and 0 for all others."""
    factor = const(1, velocity.dtype)
    along = {}
    for dim, size in enumerate(velocity.shape):
        own = [part for part in parts if part.dim == dim]
        if len(own) == 1 and own[0].rows is None:
            along[dim] = Along(own[0].axis)
            factor = reshape(factor, (*factor.shape, 1))
            continue
        mask = const(1, velocity.dtype)
        sizes = tuple(_length(part) for part in own)
        for k, part in enumerate(own):
            if part.rows is None:
                shape = tuple(length if k == other else 1 for other, length in enumerate(sizes))
                mask = mul(mask, reshape(Along(part.axis).mask(sizes[k], velocity.dtype), shape))
        mask = reshape(broadcast(mask, mask.axes, sizes), (size,))
        factor = mul(reshape(factor, (*factor.shape, 1)), mask)
    return Sparse(velocity.shape, factor, along)


def _length(part: Part) -> int:
    assert isinstance(part.axis.length, int)
    return part.axis.length
