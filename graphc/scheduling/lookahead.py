"""lookahead: two steps of a linear recurrence at once, where single steps leave the machine waiting.

    h[t] = a[t] · h[t - 1] + b[t]    becomes    h[t] = (a[t] · a[t - 1]) · h[t - 2] + (a[t] · b[t - 1] + b[t])

In: a prepared graph. Out: a graph of the same values, up to rounding, in which the cycles for which this pays are
rewritten so. (A product of two factors must be finite: with |a| above 1e19 in float32 it is not, and 0 times it is
NaN.) Both brackets lie outside the cycle and are computed for all steps at once; what remains is two chains that do not
wait for each other. It is the first round of a scan by recursive doubling (Kogge & Stone, "A parallel algorithm for the
efficient solution of a general class of recurrence equations", IEEE Trans. Computers C-22, 1973).

It pays where a step is only a wait: a state is back from memory after some ten cycles, however small it is. So a and b
must be at hand, and the state so small that combining them fits into the wait. Measured on one core with AVX-512,
against single steps, float32, 5,000 to 60,000 steps: 1.7 to 1.9 times as fast for 1 element, 1.2 to 1.3 for 4, 1.0 to
1.2 for 8, nothing for 16. A second round, or a scan in chunks of the axis, is slower than single steps from 2 on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphc.checks.causality import Component, components, in_memory
from graphc.differentiation.jacobian import equation, jacobian
from graphc.ir import Axis, Node, rebuild, size
from graphc.language.graph import Equation, Graph, unused_name
from graphc.ops.axis import SHIFT, shift
from graphc.ops.elementwise import DIV, ELEMENTWISE, MUL, NEG, add, mul
from graphc.ops.leaves import STATE, const, leaf
from graphc.ops.reduction import BROADCAST, broadcast
from graphc.scheduling.schedule import CHEAP
from graphc.simplification.rewrite import map_nodes, rewrite
from graphc.simplification.simplify import simplify_node

MOST_BYTES = 32  # of a state at one step: more take longer to combine than to wait for
FEWEST_LANES = 4  # 2 or 3 elements fill no vector, neither along the event nor along the axis


@dataclass(frozen=True, slots=True)
class Linear:
    """A cycle w[t] = a[t] · w[t + delay] + b[t].

    `read` is the one node that reads w at another step. `steps` are the nodes of the cycle that make w of it, in order.
    """

    axis: Axis
    delay: int
    read: Node
    steps: tuple[Node, ...]

    @property
    def value(self) -> Node:
        """w."""
        return self.read.inputs[0]

    @property
    def state(self) -> str:
        """The name of the first state on the cycle."""
        return next(str(node["name"]) for node in self.steps if node.op is STATE)


@dataclass(frozen=True, slots=True)
class Ahead:
    """The graph and its components; and `carriers`, the states that now carry a cycle two steps at once, each with a
    state that carried it before."""

    graph: Graph
    components: tuple[Component, ...]
    carriers: Mapping[str, str]


def lookahead(graph: Graph) -> Ahead:
    """The graph with two steps at once in all cycles for which that pays."""
    carriers: dict[str, str] = {}
    while True:
        tree = components(graph)
        parts = [part for part in tree if not any(name in carriers for name in part.states)]
        found = [linear for part in parts if (linear := linear_cycle(graph, part)) is not None]
        chosen = next((linear for linear in found if pays(graph, linear)), None)
        if chosen is None:
            return Ahead(graph, tree, carriers)
        graph, carrier = _combined(graph, chosen)
        carriers[carrier] = chosen.state


def linear_cycle(graph: Graph, part: Component) -> Linear | None:
    """The cycle as a linear recurrence whose elements do not see each other; None if it is not one."""
    if part.axis is None or any(inner.axis is not None for inner in part.body):
        return None
    order = [node for inner in part.body for node in inner.nodes]
    reads = [node for node in order if node.op is SHIFT]
    steps = tuple(node for node in order if node.op is not SHIFT)
    if len(reads) != 1 or [axis for axis, _ in reads[0]["offsets"]] != [part.axis]:
        return None
    linear = Linear(part.axis, dict(reads[0]["offsets"])[part.axis], reads[0], steps)
    if not all(node.op in (STATE, BROADCAST, *ELEMENTWISE) for node in steps):
        return None
    if any((node.shape, node.dtype) != (linear.value.shape, linear.value.dtype) for node in steps):
        return None
    return linear if jacobian(graph, part).affine and part.axis not in linear.read.inputs[1].axes else None


def pays(graph: Graph, linear: Linear) -> bool:
    """Whether a step is mostly a wait: its value is small, and made of what is at hand."""
    elements = known_elements(linear)
    inner = size(linear.value.shape) if size(linear.value.shape) > 1 else elements
    if elements is None or inner is None or 1 < inner < FEWEST_LANES:
        return False
    if elements * np.dtype(linear.value.dtype).itemsize > MOST_BYTES:
        return False
    rest = _rest(graph, linear)
    return all(_work(node, linear.axis) <= CHEAP for node in (_slope(graph, linear), rest) if node is not None)


def known_elements(linear: Linear) -> int | None:
    """How many elements the value has at one step; None if that comes with the data, as with the length of a batch."""
    others = [axis.length for axis in linear.value.axes if axis != linear.axis]
    points = [length for length in others if isinstance(length, int)]
    return math.prod(points) * size(linear.value.shape) if len(points) == len(others) else None


def _work(node: Node, axis: Axis) -> int:
    """The cost of a value at one step. What lies in memory costs nothing: arrays, states, sums, and what is the same at
    each step."""
    work, stack, seen = 0, [node], {node}
    while stack and work <= CHEAP:
        node = stack.pop()
        if axis in node.axes and node.op is not STATE and not in_memory(node) and not node.op.reduces:
            work += 0 if node.op.view else node.op.cost
            new = [i for i in node.inputs if i not in seen]
            stack += new
            seen.update(new)
    return work


def _combined(graph: Graph, linear: Linear) -> tuple[Graph, str]:
    """The graph in which the value is read at twice the distance, and the name of the state that the value is."""
    value, axis, delay, initial = linear.value, linear.axis, linear.delay, linear.read.inputs[1]
    if value.op is STATE:  # its equation is new
        state, old, new = value, equation(graph, value), value
    else:  # it becomes a state, and the states that were made of it are computed after the loop
        name = unused_name(f"{linear.state}_ahead", {*graph.inputs, *graph.params, *graph.states})
        state, old = leaf(STATE, name, value.axes, value.shape, value.dtype), linear.read
        new = shift(state, {axis: delay}, initial)
    before = shift(state, {axis: 2 * delay}, initial)
    a = broadcast(_slope(graph, linear), state.axes, state.shape)
    body = mul(mul(a, shift(a, {axis: delay}, const(1, state.dtype))), before)
    rest = _rest(graph, linear)
    if rest is not None:
        b = broadcast(rest, state.axes, state.shape)
        body = add(body, add(mul(a, shift(b, {axis: delay}, const(0, state.dtype))), b))
    equation_ahead = Equation(state, broadcast(body, state.axes, state.shape), initial)
    made = replace(graph.copy(), states={**graph.states, state["name"]: equation_ahead})
    if linear.read in graph.locations:
        made.locations |= dict.fromkeys((before, body), graph.locations[linear.read])
    return rewrite(made, lambda node: new if node is old else node), str(state["name"])


def _slope(graph: Graph, linear: Linear) -> Node:
    """a: the derivative of the value by the read, element for element.

    The gradient of an elementwise op multiplies by its slope, whichever way the factor is passed.
    """
    slopes = {linear.read: const(1, linear.value.dtype)}
    for node in linear.steps:
        if node.op is STATE:
            slopes[node] = slopes[equation(graph, node)]
            continue
        assert node.op.gradient is not None
        terms = [node.op.gradient(node, slopes[i])[k] for k, i in enumerate(node.inputs) if i in slopes]
        total = functools.reduce(add, [term for term in terms if term is not None])
        slopes[node] = map_nodes([total], simplify_node)[total]
    return slopes[linear.value]


def _rest(graph: Graph, linear: Linear) -> Node | None:
    """b: the value where the read is 0; None if that is 0."""
    rests: dict[Node, Node | None] = {linear.read: None}
    zero = const(0, linear.value.dtype)
    for node in linear.steps:
        if node.op is STATE:
            rests[node] = rests[equation(graph, node)]
            continue
        moving = [i in rests for i in node.inputs]
        nothing = all(rests.get(i) is None for i, moves in zip(node.inputs, moving, strict=True) if moves)
        if nothing and node.op in (MUL, DIV, NEG, BROADCAST):
            rests[node] = None
        else:
            inputs = [(rests[i] or zero) if moves else i for i, moves in zip(node.inputs, moving, strict=True)]
            rests[node] = simplify_node(_rebuilt(node, inputs))
    return rests[linear.value]


def _rebuilt(node: Node, inputs: list[Node]) -> Node:
    """The same op on inputs that may vary over fewer axes."""
    return broadcast(inputs[0], node.axes, node.shape) if node.op is BROADCAST else rebuild(node, inputs)
