"""unroll: a graph without cycles. Every equation is written out at every step of an axis.

In goes a graph, out comes one with the same inputs, params and outputs, in which the unrolled axes have fixed lengths
and only inputs and outputs still vary over them: step k of an input is `at(x, t, k)`, an output is the `stack` of its
steps. A state becomes one state per step (`h_t0`, `h_t1`, …), each defined by its equation at that step, so a delay
is a plain reference. Where the axis had another length for each example, what a length used to say stands in the
graph as masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from graphc.checks.causality import everything, reachable
from graphc.checks.verify import verify
from graphc.errors import AxisError, UnsupportedError
from graphc.integers import is_whole
from graphc.ir import Axis, Node, Op, lengths_within, make, merge_axes, rebuild, topological
from graphc.language.graph import Equation, Graph, unused_name
from graphc.ops.axis import AS_AXIS, AS_DIM, AT, SHIFT, STACK, at, shift, stack
from graphc.ops.contraction import CONTRACT
from graphc.ops.elementwise import balanced_sum, eq, lt, where
from graphc.ops.event import concat, reshape, slice_
from graphc.ops.gradient import CUSTOM_GRADIENT, custom_gradient
from graphc.ops.leaves import COTANGENT, EXTENT, INDEX, INPUT, STATE, const, leaf
from graphc.ops.reduction import BROADCAST, MAX, SUM, broadcast, max_, measured_by, sum_
from graphc.ops.table import SCATTER
from graphc.ops.take import TAKE
from graphc.scalar import lowest
from graphc.simplification.rewrite import rewrite
from graphc.simplification.simplify import simplify


def unroll(graph: Graph, /, **lengths: int) -> Graph:
    """The graph written out along the named axes, each of the given length: `gc.unroll(g, t=4)`.

    The result takes arrays of the same names and shapes and computes the same, for these lengths only. Raises
    `AxisError` for an axis that the graph lacks, or a length that it cannot have.
    """
    verify(graph)
    for name, count in lengths.items():
        _check(graph, name, count, lengths)
    waiting = sorted(lengths, key=lambda name: graph.axes[name].like is None)  # second indices before their axes
    while waiting:
        name = next((a for a in waiting if not _measured_by(graph, a)), waiting[0])
        waiting.remove(name)
        graph = _unroll_axis(graph, graph.axes[name], int(lengths[name]))
    return graph


def _check(graph: Graph, name: str, count: int, lengths: Mapping[str, int]) -> None:
    axis = graph.axes.get(name)
    if axis is None:
        known = ", ".join(graph.axes) or "none"
        raise AxisError(f"graph {graph.name!r} has no axis {name!r} to unroll; it has {known}")
    if not is_whole(count) or count < 1:
        raise AxisError(f"axis {name!r} is unrolled to a number of steps of at least 1, got {count!r}")
    if isinstance(axis.length, int) and axis.length != count:
        raise AxisError(f"axis {name!r} is {axis.length} long and cannot be unrolled to {count} steps")
    if axis.like is not None and lengths.get(axis.like.name, count) != count:
        raise AxisError(f"axis {name!r} is as long as axis {axis.like.name!r}; unroll both to the same number of steps")


def _measured_by(graph: Graph, name: str) -> list[str]:
    """The axes whose lengths vary over this one; they must be unrolled before it."""
    axis = graph.axes[name]
    return [a.name for a in graph.axes.values() if isinstance(a.length, Node) and axis in a.length.axes]


def _unroll_axis(graph: Graph, axis: Axis, count: int) -> Graph:
    second = next((a for node in reachable(graph) for a in node.axes if a.like == axis), None)
    if second is not None:
        raise AxisError(f"axis {second.name!r} is a second index of axis {axis.name!r}; unroll {second.name!r} as well")
    measured = _measured_by(graph, axis.name)
    if measured:
        raise AxisError(
            f"the lengths of axis {measured[0]!r} vary over axis {axis.name!r}; unroll {measured[0]!r} as well"
        )
    graph = rewrite(graph, partial(_without_formulas, axis))
    steps = Steps(graph, axis, count)
    for node in topological(everything(graph)):
        steps.add(node)
    fixed = Axis(axis.name, count, axis.dtype)
    result = replace(
        graph,
        axes={name: fixed if a == axis else a for name, a in graph.axes.items() if a.like != axis},
        inputs={name: steps.input(node) for name, node in graph.inputs.items()},
        states=dict(steps.equations()),
        outputs={name: steps.output(node) for name, node in graph.outputs.items()},
        updates={name: steps.output(node) for name, node in graph.updates.items()},
        locations=steps.locations,
        steps=steps.steps,
        resets=dict(steps.resets()),
    )
    return simplify(result)


def _without_formulas(axis: Axis, node: Node) -> Node:
    """A value that is normalised over the axis becomes the formula that it stands for."""
    while node.op.expand is not None and axis in dict(node.attrs).get("over", ()):
        node = node.op.expand(node)
    return node


class Steps:
    """What each value of a graph becomes when an axis is unrolled.

    A value that varies over the axis has one node per step, in `instances`; any other has one node, in `whole`. Both
    keep the value's other axes and its event. `add` takes values in topological order.
    """

    def __init__(self, graph: Graph, axis: Axis, count: int) -> None:
        self.graph = graph
        self.axis = axis
        self.count = count
        self.fixed = Axis(axis.name, count, axis.dtype)
        self.instances: dict[Node, list[Node]] = {}
        self.whole: dict[Node, Node] = {}
        self.locations = dict(graph.locations)
        self.steps: dict[Node, tuple[int, ...]] = {}
        self._taken = {*graph.inputs, *graph.params, *graph.states}
        self._placed: set[Node] = set()

    def add(self, node: Node) -> None:
        if self.axis not in node.axes:
            self.whole[node] = made = self._make(node, None)
            self._place(made, node, self.graph.steps.get(node))
            return
        made_before = self.instances.setdefault(node, [])
        for k in range(self.count):
            made_before.append(self._make(node, k))
            self._place(made_before[k], node, (*self.graph.steps.get(node, ()), k))

    def input(self, node: Node) -> Node:
        """An input's declaration over the axis of fixed length."""
        return leaf(INPUT, node["name"], self._fixed(node.axes), node.shape, node.dtype)

    def output(self, node: Node) -> Node:
        """An output as an array over the axis again, with zeros at points that do not exist."""
        if self.axis not in node.axes:
            return broadcast(self.whole[node], node.axes, node.shape)
        values = [self._masked(v, k, node.axes) for k, v in enumerate(self.instances[node])]
        return broadcast(stack(values, self.fixed), self._fixed(node.axes), node.shape)

    def equations(self) -> Iterator[tuple[str, Equation]]:
        for equation in self.graph.states.values():
            assert equation.body is not None  # verified
            varies = self.axis in equation.node.axes
            for k in range(self.count) if varies else (None,):
                state = self._operand(equation.node, k)
                yield (
                    state["name"],
                    Equation(state, self._operand(equation.body, k), self._operand(equation.initial, k)),
                )

    def resets(self) -> Iterator[tuple[Node, Node]]:
        """Where states are reset, of the states that still vary over an axis."""
        known = {*self.instances, *self.whole}
        for state, reset in self.graph.resets.items():
            if {state, reset} <= known and set(reset.axes) <= set(state.axes):
                for k in range(self.count) if self.axis in state.axes else (None,):
                    yield self._operand(state, k), self._operand(reset, k)

    # The parts of a step.

    def _operand(self, node: Node, k: int | None) -> Node:
        """A value at step k; or at all steps, if it does not vary over the axis."""
        if self.axis not in node.axes:
            return self.whole[node]
        assert k is not None
        return self.instances[node][k]

    def _fixed(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        return tuple(self.fixed if a == self.axis else a for a in axes)

    def _rest(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        return tuple(a for a in axes if a != self.axis)

    def _exists(self, k: int, axes: Sequence[Axis]) -> Node | None:
        """Whether step k of a value over `axes` exists; None where it does for every example."""
        lengths = lengths_within(self.axis, axes)
        return None if lengths is None else lt(const(k, "int32"), self.whole[lengths])

    def _masked(self, value: Node, k: int, axes: Sequence[Axis], otherwise: Node | None = None) -> Node:
        """A value at the examples for which step k exists, and something else (0) at the others."""
        condition = self._exists(k, axes)
        return value if condition is None else where(condition, value, otherwise or const(0, value.dtype))

    def _place(self, made: Node, node: Node, steps: tuple[int, ...] | None) -> None:
        """Note where the new nodes that make up a value come from."""
        stack = [made]
        while stack:
            new = stack.pop()
            if new in self._placed:
                continue
            self._placed.add(new)
            stack.extend(new.inputs)
            if steps:
                self.steps[new] = steps
            if node in self.graph.locations:
                self.locations.setdefault(new, self.graph.locations[node])

    # A value at step k, by its op.

    def _make(self, node: Node, k: int | None) -> Node:
        rule = RULES.get(node.op)
        made = rule(self, node, k) if rule is not None else None
        if made is None:
            made = rebuild(node, [self._operand(i, k) for i in node.inputs])
        axes = self._rest(node.axes)
        return made if set(made.axes) == set(axes) and made.shape == node.shape else broadcast(made, axes, node.shape)

    def _input(self, node: Node, k: int | None) -> Node | None:
        """Step k of the array. Past an example's length it repeats the step before, so that what is computed there,
        and masked out later, is finite whatever the padding holds: in a gradient, 0 · inf would be NaN."""
        if k is None:
            return None
        before = self.instances[node][k - 1] if k else const(0, node.dtype)
        return self._masked(at(self.input(node), self.fixed, k), k, node.axes, before)

    def _leaf(self, node: Node, k: int | None) -> Node | None:
        """A state, or the placeholder of a custom gradient, of a name of its own at every step."""
        if k is None:
            return None
        name = f"{node['name']}_{self.axis.name}{k}"
        if node.op is STATE:
            name = unused_name(name, self._taken)
        return leaf(node.op, name, self._rest(node.axes), node.shape, node.dtype)

    def _index(self, node: Node, k: int | None) -> Node | None:
        return None if k is None else const(k, "int32")

    def _extent(self, node: Node, k: int | None) -> Node | None:
        return const(self.count, "int32") if node["axis"] == self.axis else None

    def _broadcast(self, node: Node, k: int | None) -> Node | None:
        return broadcast(self._operand(node.inputs[0], k), self._rest(node.axes), node.shape)

    def _shift(self, node: Node, k: int | None) -> Node | None:
        offsets = dict(node["offsets"])
        offset = offsets.pop(self.axis, 0)
        if k is None or offset == 0:
            return None
        value, fill = node.inputs[0], self._operand(node.inputs[1], k)
        if not 0 <= k + offset < self.count:
            return fill
        moved = shift(self.instances[value][k + offset], offsets, fill)
        return self._masked(moved, k + offset, value.axes, fill)

    def _at(self, node: Node, k: int | None) -> Node | None:
        if node["axis"] != self.axis:
            return None
        values, result = self.instances[node.inputs[0]], self._operand(node.inputs[1], k)
        axes = (*node.axes, self.axis)
        if node["position"] == "last":
            for position, value in enumerate(values):  # each later step that exists takes the place of the one before
                result = self._masked(value, position, axes, result)
            return result
        position = 0 if node["position"] == "first" else int(node["position"])
        return self._masked(values[position], position, axes, result) if position < self.count else result

    def _take(self, node: Node, k: int | None) -> Node | None:
        """Each step where the position is its own."""
        if node["axis"] != self.axis:
            return None
        position, result = (self._operand(i, k) for i in node.inputs[1:])
        axes = (*node.axes, self.axis)
        for step, value in enumerate(self.instances[node.inputs[0]]):
            taken = self._masked(value, step, axes, result)
            result = where(eq(position, const(step, "int32")), taken, result)
        return result

    def _stack(self, node: Node, k: int | None) -> Node | None:
        if k is None or node["axis"] != self.axis:
            return None
        return self._operand(node.inputs[k], k)

    def _as_axis(self, node: Node, k: int | None) -> Node | None:
        if k is None or node["axis"] != self.axis:
            return None
        one = slice_(self.whole[node.inputs[0]], node["dim"], k, 1, 1)
        return reshape(one, node.shape)

    def _as_dim(self, node: Node, k: int | None) -> Node | None:
        if node["axis"] != self.axis:
            return None
        dim, (value,) = node["dim"], node.inputs
        shape = (*value.shape[:dim], 1, *value.shape[dim:])
        return concat([reshape(v, shape) for v in self.instances[value]], dim)

    # Reductions over the axis become combinations of steps.

    def _reduced(self, node: Node, k: int | None, otherwise: Node | None = None) -> list[list[Node]] | None:
        """The operands of a reduction at each step that it takes in, masked where it has no such point.

        None if the axis is no concern of the reduction: neither reduced, nor of a length that differs along an axis
        that is.
        """
        axes = merge_axes(*(i.axes for i in node.inputs))
        summed = self.axis in node["over"]
        if not summed and (k is None or self.axis not in measured_by(axes, node["over"])):
            return None
        own = set(self.axis.length.axes) if isinstance(self.axis.length, Node) else set()
        padded = [set(i.axes) >= own for i in node.inputs]  # an operand without the lengths' axes has no padding
        operands = []
        for step in range(self.count) if k is None else (k,):
            values = [self._operand(i, step) for i in node.inputs]
            masked = [v.dtype == node.dtype and (p or not any(padded)) for v, p in zip(values, padded, strict=True)]
            operands.append(
                [self._masked(v, step, axes, otherwise) if m else v for v, m in zip(values, masked, strict=True)]
            )
        return operands

    def _sum(self, node: Node, k: int | None) -> Node | None:
        terms = self._reduced(node, k)
        if terms is None:
            return None
        return sum_(balanced_sum([value for (value,) in terms]), node["dims"], self._rest(node["over"]))

    def _max(self, node: Node, k: int | None) -> Node | None:
        """The steps lie side by side in the event, so that equal ones still share the adjoint in equal parts."""
        terms = self._reduced(node, k, const(lowest(node.dtype).value, node.dtype))
        if terms is None:
            return None
        together = concat([reshape(v, (1, *v.shape)) for (v,) in terms], 0)
        return max_(together, (0, *(d + 1 for d in node["dims"])), self._rest(node["over"]))

    def _product(self, node: Node, k: int | None) -> Node | None:
        """A contraction or a scatter: a sum over steps of the same op."""
        terms = self._reduced(node, k)
        attrs = {**dict(node.attrs), "over": self._rest(node["over"])}
        return None if terms is None else balanced_sum([make(node.op, operands, **attrs) for operands in terms])

    def _custom_gradient(self, node: Node, k: int | None) -> Node:
        """A rule may give several contributions at each step, if the value itself does not vary over the axis."""
        value, cotangent, *rest = node.inputs
        pairs = [
            pair
            for operand, rule in zip(rest[: len(rest) // 2], rest[len(rest) // 2 :], strict=True)
            for pair in self._contributions(operand, rule, k)
        ]
        placeholder = self._operand(cotangent, k)
        own = self.instances.get(cotangent, [placeholder])
        if any(n in own and n is not placeholder for n in topological([rule for _, rule in pairs])):
            raise UnsupportedError(
                f"a custom gradient's rule reads the adjoint at other points of axis {self.axis.name!r}, "
                f"which cannot be unrolled; read the value at other points before the custom gradient instead",
                self.graph.locations.get(node),
            )
        result = broadcast(self._operand(value, k), placeholder.axes, placeholder.shape)
        return custom_gradient(result, placeholder, [o for o, _ in pairs], [r for _, r in pairs])

    def _contributions(self, operand: Node, rule: Node, k: int | None) -> list[tuple[Node, Node]]:
        axes = merge_axes(operand.axes, rule.axes)
        if self.axis not in axes:
            return [(self.whole[operand], self.whole[rule])]
        steps = range(self.count) if k is None else (k,)
        terms = [self._masked(self._operand(rule, step), step, axes) for step in steps]
        if self.axis not in operand.axes:
            return [(self.whole[operand], balanced_sum(terms))]
        return [(self._operand(operand, step), term) for step, term in zip(steps, terms, strict=True)]


Rule = Callable[[Steps, Node, int | None], Node | None]

# What an op becomes at step k (None: where it does not vary over the axis). A rule returns None, and an op without one
# is applied to its operands' steps as it stands, if the axis is no concern of its own.
RULES: Mapping[Op, Rule] = {
    INPUT: Steps._input,
    STATE: Steps._leaf,
    COTANGENT: Steps._leaf,
    INDEX: Steps._index,
    EXTENT: Steps._extent,
    BROADCAST: Steps._broadcast,
    SHIFT: Steps._shift,
    AT: Steps._at,
    TAKE: Steps._take,
    STACK: Steps._stack,
    AS_AXIS: Steps._as_axis,
    AS_DIM: Steps._as_dim,
    SUM: Steps._sum,
    MAX: Steps._max,
    CONTRACT: Steps._product,
    SCATTER: Steps._product,
    CUSTOM_GRADIENT: Steps._custom_gradient,
}
