"""jacobian: how one step of a cycle depends on the steps before it, read off the graph.

In: a prepared graph and a cycle of it (a `Component` with an axis). Out: its `Jacobian`, with one `Entry` for each read
of a state by a state, at each delay: which elements depend on which, and whether the step is affine in the states. What
is not listed is zero. The claims hold for every value of params and inputs; a finer structure that only some values
have is not seen.

Elements are followed by number: an op that moves elements is applied to their numbers, one that computes each element
from those at its place keeps them, and any other is dense. An op is affine in the operands that its derivative does not
mention, so that no list of linear ops is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from graphc.checks.causality import Component, Delay, edges_of
from graphc.ir import FLOATS, Axis, Node, dependencies, size, topological
from graphc.language.graph import Graph
from graphc.ops.axis import AS_AXIS, AS_DIM, AT, SHIFT, STACK
from graphc.ops.contraction import CONTRACT, summed_letters
from graphc.ops.elementwise import ELEMENTWISE
from graphc.ops.event import CONCAT, PLACE
from graphc.ops.leaves import COTANGENT, STATE, leaf
from graphc.ops.reduction import MAX, SUM
from graphc.ops.take import TAKE

Elements = npt.NDArray[np.int64]  # for each element, the number of the one that it depends on, from 1; 0: none


class Pattern(Enum):
    """Which elements of a state's event depend on which of another's."""

    DIAGONAL = "diagonal"  # each on the one at its own place
    SELECTED = "selected"  # each on one, at another place
    DENSE = "dense"  # on several


@dataclass(frozen=True, slots=True)
class Entry:
    """State `row` at a point reads state `column`, `delay` away.

    `mixed` are the axes along which it reads all points, rather than one at a fixed distance.
    """

    row: Node
    column: Node
    delay: Delay
    pattern: Pattern
    mixed: tuple[Axis, ...] = ()


@dataclass(frozen=True, slots=True)
class Jacobian:
    """The reads of a cycle's `states` by each other, and those of them whose equations are affine in all of these."""

    states: tuple[Node, ...]
    entries: tuple[Entry, ...]
    affine_states: frozenset[Node]

    @property
    def affine(self) -> bool:
        """Whether a step is A · states + b, where neither A nor b depends on the cycle."""
        return self.affine_states == set(self.states)

    @property
    def diagonal(self) -> bool:
        """Whether every element of a step depends on elements at its own place alone."""
        return all(e.pattern is Pattern.DIAGONAL and not e.mixed for e in self.entries)


@dataclass(frozen=True, slots=True)
class _Dependence:
    """Of a value's event on a state's; None: of every element on every one."""

    elements: Elements | None
    mixed: frozenset[Axis] = frozenset()

    def __or__(self, other: _Dependence) -> _Dependence:
        return _Dependence(_merged(self.elements, other.elements), self.mixed | other.mixed)


_Dependences = dict[tuple[Node, Delay], _Dependence]


def jacobian(graph: Graph, cycle: Component) -> Jacobian:
    inside = set(cycle.nodes)
    states = tuple(node for node in cycle.nodes if node.op is STATE)
    bodies = {state: equation(graph, state) for state in states}
    found: dict[Node, _Dependences] = {}
    curved: set[Node] = set()
    for node in topological(bodies.values()):
        if node not in inside:
            continue
        if node.op is STATE:
            found[node] = {(node, ()): _Dependence(_numbers(node))}
        else:
            found[node] = _dependences(graph, node, found)
            if not _is_affine(node, found) or any(i in curved for i in node.inputs):
                curved.add(node)
    entries = tuple(
        Entry(row, column, delay, _pattern(d, row, column), tuple(sorted(d.mixed, key=lambda a: a.name)))
        for row in states
        for (column, delay), d in found[bodies[row]].items()
        if d.elements is None or d.elements.any()
    )
    return Jacobian(states, entries, frozenset(s for s in states if bodies[s] not in curved))


def equation(graph: Graph, state: Node) -> Node:
    """What a state on a cycle is equal to."""
    body = graph.states[state["name"]].body
    assert body is not None
    return body


def _numbers(node: Node) -> Elements:
    return np.arange(1, size(node.shape) + 1).reshape(node.shape)


def _dependences(graph: Graph, node: Node, found: Mapping[Node, _Dependences]) -> _Dependences:
    """What a value depends on through its operands, with the delays on the way added up."""
    result: _Dependences = {}
    for k, edge in enumerate(edges_of(graph, node)[: len(node.inputs)]):
        mixed = {axis for axis, steps in edge.delay if steps is None}
        for (state, delay), known in found.get(edge.operand, {}).items():
            elements = None if known.elements is None else _moved(node, k, known.elements)
            here = _Dependence(elements, known.mixed | mixed)
            key = (state, _added(delay, edge.delay))
            result[key] = result[key] | here if key in result else here
    return result


def _added(delay: Delay, further: Delay) -> Delay:
    """The sum of two delays; axes read at no fixed distance are left out."""
    total = dict(delay)
    for axis, steps in further:
        if steps is not None:
            total[axis] = (total.get(axis) or 0) + steps
    return tuple(sorted(((a, s) for a, s in total.items() if s), key=lambda item: item[0].name))


def _moved(node: Node, k: int, elements: Elements) -> Elements | None:
    """The numbers of the elements that each element of `node` takes from operand k; None: of several."""
    if node.op in ELEMENTWISE:
        return np.broadcast_to(elements, node.shape)
    if node.op.compute is None:
        return None
    if node.op in (SHIFT, AT, TAKE, STACK):  # the same places at other points
        return np.broadcast_to(elements, node.shape)
    if node.op is AS_DIM:
        return np.broadcast_to(np.expand_dims(elements, node["dim"]), node.shape)
    if node.op is AS_AXIS:  # another element at each point
        return None
    if node.op.view or node.op in (PLACE, CONCAT):
        operands = [np.zeros(i.shape, np.int64) for i in node.inputs]  # what is joined to it, or fills it, is not of it
        operands[k] = elements
        return np.asarray(node.op.compute(node, operands)).astype(np.int64)
    if node.op is CONTRACT and not summed_letters(node):
        operands = [np.ones(i.shape, np.int64) for i in node.inputs]
        operands[k] = elements
        return np.asarray(node.op.compute(node, operands)).astype(np.int64)
    if node.op in (SUM, MAX) and not node["dims"]:
        return elements
    return None


def _merged(a: Elements | None, b: Elements | None) -> Elements | None:
    if a is None or b is None or ((a != b) & (a > 0) & (b > 0)).any():
        return None
    return np.maximum(a, b)


def _pattern(dependence: _Dependence, row: Node, column: Node) -> Pattern:
    elements = dependence.elements
    if elements is None:
        return Pattern.DENSE
    at_its_place = row.shape == column.shape and ((elements == _numbers(row)) | (elements == 0)).all()
    return Pattern.DIAGONAL if at_its_place else Pattern.SELECTED


def _is_affine(node: Node, found: Mapping[Node, _Dependences]) -> bool:
    """Whether a value is affine in those of its operands that depend on the cycle, taken together."""
    moving = {i for i in node.inputs if found.get(i)}
    if not moving:
        return True
    if node.dtype not in FLOATS or node.op.gradient is None or any(i.dtype not in FLOATS for i in moving):
        return False
    adjoint = leaf(COTANGENT, "adjoint", node.axes, node.shape, node.dtype)
    contributions = node.op.gradient(node, adjoint)
    slopes = [c for i, c in zip(node.inputs, contributions, strict=True) if i in moving]
    return all(slope is not None and not _mentions(slope, {node, *moving}, node.inputs) for slope in slopes)


def _mentions(value: Node, wanted: Collection[Node], ends: Collection[Node]) -> bool:
    """Whether a value is made of any of these nodes. What `ends` are made of is not looked at."""
    seen = set(ends) - set(wanted)
    pending = [value]
    while pending:
        node = pending.pop()
        if node in wanted:
            return True
        if node not in seen:
            seen.add(node)
            pending += dependencies(node)
    return False
