"""step: a graph of one step along an axis, for data that comes a step at a time.

In: a graph and one of its axes, t. Out: a graph without t, whose call computes one step. Inputs and outputs over
(t, n) become arrays over (n,). What a delay reads, `h[t - 1]` or `x[t - 2]`, is a carry: an input `h_back1`,
`x_back2` that the call itself overwrites with what the next step will read there (`Graph.update`). A carry begins with
the delay's fill, the state's initial value, so that no step need ask whether it is the first; only a fill that itself
is unknown before the first step is chosen by a flag, which is the carry of a value that is always true.

The invariant: the results of a step are those that the whole graph has for the sequence up to and including it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from graphc.checks.arguments import SHOWN
from graphc.checks.causality import reachable
from graphc.checks.verify import verify
from graphc.errors import ArgumentError, AxisError, CausalityError, UnsupportedError, listed, meant
from graphc.interpreter import interpret
from graphc.ir import Axis, Node, Op, rebuild
from graphc.language.graph import Equation, Graph, unused_name
from graphc.ops.axis import AT, SHIFT, STACK, shift
from graphc.ops.elementwise import add, where
from graphc.ops.gradient import CUSTOM_GRADIENT
from graphc.ops.leaves import DECLARED, EXTENT, INDEX, INPUT, STATE, const, leaf
from graphc.ops.reduction import BROADCAST, broadcast
from graphc.simplification.rewrite import rewrite
from graphc.transforms.select import without_unused, without_unused_params


def step(graph: Graph, over: Axis | str) -> Graph:
    """The graph of one step along an axis: `gc.step(g, over=t)`.

    It has the outputs of `graph`, without the axis: a value at each step keeps its name, and `h[t.last]` is the
    current value. Beside the inputs of `graph`, without the axis, it takes the arrays of `initial_carry`, which each
    call overwrites:

        call = gc.compile(gc.step(g, over=t)).bind(x=frame, **params, **gc.initial_carry(g, over=t, n=1))
        for frame[...] in source:
            play(call()["y"])

    Where the axis has another length for each example, the step takes no lengths: every example goes on for as long as
    it is called. Raises `CausalityError` if an output needs later steps, as a sum over the axis does; `gc.select`
    leaves outputs out.
    """
    return _Stepper(graph, over).step()


def initial_carry(graph: Graph, /, over: Axis | str, **arrays: Any) -> dict[str, np.ndarray]:
    """New arrays for all that `step(graph, over)` keeps between calls, as they are before the first step.

    `arrays` are the inputs and params that initial values are made of, and lengths of axes that none of these shows:
    `gc.initial_carry(g, over=t, n=4, h0=h0)`. Others of the graph's may be among them. Copy a carry's arrays to fork
    a sequence, or write these into them to start another.
    """
    start = _Stepper(graph, over).start()
    known = [*graph.axes, *graph.inputs, *graph.params]
    unknown = [name for name in arrays if name not in known]
    if unknown:
        raise ArgumentError(
            f"graph {graph.name!r} has no input, param or axis {unknown[0]!r}; it has {listed(known, SHOWN)}"
            + meant(unknown[0], known)
        )
    used = {*start.inputs, *start.params, *start.axes}
    return interpret(start, **{name: a for name, a in arrays.items() if name in used}) if start.outputs else {}


@dataclass(frozen=True, slots=True)
class _Carry:
    """An array kept between calls: the input that reads it, its value before the first step, and the next one."""

    node: Node
    start: Node
    following: Node


class _Stepper:
    """What each value of a graph becomes at the current step of an axis: `made` keeps its other axes and its event."""

    def __init__(self, graph: Graph, over: Axis | str) -> None:
        verify(graph)
        self.axis = _axis(graph, over)
        self.graph = rewrite(graph, _without_custom_gradient)
        self.order = reachable(self.graph)
        self.names = {node: name for name, node in self.graph.outputs.items()}
        self.taken = {*graph.inputs, *graph.params, *graph.states, *graph.outputs, *graph.axes}
        self.carries: dict[str, _Carry] = {}
        self._chains: dict[tuple[Node, Node], list[Node]] = {}
        self.made: dict[Node, Node] = {}
        self._check()
        for node in self.order:
            self.made[node] = self._at_this_step(node)

    def step(self) -> Graph:
        """The graph of one step."""
        graph, made = self.graph, self.made
        result = Graph(
            f"{graph.name}_step",
            graph.dtype,
            axes={name: axis for name, axis in graph.axes.items() if axis != self.axis},
            inputs={name: made[node] for name, node in graph.inputs.items() if node in made}
            | {name: carry.node for name, carry in self.carries.items()},
            params=dict(graph.params),
            states={e.node["name"]: self._equation(e) for e in graph.states.values() if e.node in made},
            outputs={name: made[node] for name, node in graph.outputs.items()},
            updates={name: carry.following for name, carry in self.carries.items()},
            locations={made[node]: line for node, line in graph.locations.items() if node in made},
            resets={made[state]: made[reset] for state, reset in graph.resets.items() if {state, reset} <= made.keys()},
        )
        alive = set(reachable(result))
        for name, e in result.states.items():  # a state that no delay reads any more has no use for an initial value
            if e.initial not in alive:
                result.states[name] = replace(e, initial=const(0, e.node.dtype))
        return without_unused(result)

    def start(self) -> Graph:
        """The graph whose outputs are the carries before the first step."""
        graph = replace(
            self.graph.copy(f"{self.graph.name}_start"),
            axes={name: axis for name, axis in self.graph.axes.items() if axis != self.axis},
            outputs={name: carry.start for name, carry in self.carries.items()},
        )
        return without_unused_params(graph)

    def _equation(self, equation: Equation) -> Equation:
        assert equation.body is not None  # verified
        initial = self.made.get(equation.initial, equation.initial)
        return Equation(self.made[equation.node], self.made[equation.body], initial)

    # What cannot be stepped.

    def _check(self) -> None:
        axis = self.axis
        for node in self.order:
            if node.op is EXTENT and node["axis"] == axis:
                self._refuse(node, f"needs the length of axis {axis.name!r}")
            for k, operand in enumerate(node.inputs):
                delay = node.op.delays(node, k).get(axis, 0)
                if delay is None and node.op is not AT:
                    self._refuse(node, f"takes in all of axis {axis.name!r} ({node.op.name})")
                if delay is not None and delay > 0:
                    self._refuse(node, f"reads {self._name(operand)}[{axis.name} + {delay}], a later step")
        for node in reachable(self.graph, [n for n in self.order if axis in n.axes]):
            if node.op is AT and node["axis"] == axis and node["position"] not in ("first", 0):
                point = node["position"] if node["position"] == "last" else f"at({node['position']})"
                read = f"{self._name(node.inputs[0])}[{axis.name}.{point}]"
                self._refuse(node, f"reads {read} at every step, also at those before it")

    def _refuse(self, node: Node, problem: str) -> NoReturn:
        graph = self.graph
        needing = [name for name, root in graph.outputs.items() if node in reachable(graph, [root])]
        rest = [name for name in graph.outputs if name not in needing]
        advice = f"; step the others: gc.step(gc.select(g, {', '.join(map(repr, rest))}), …)" if rest else ""
        message = f"output {needing[0]!r} {problem}, so it cannot be computed step by step{advice}"
        raise CausalityError(message, graph.locations.get(node))

    def _name(self, node: Node) -> str:
        """What to call a value."""
        return str(node["name"]) if node.op in DECLARED else self.names.get(node, node.op.name)

    # A value at the current step, by its op.

    def _at_this_step(self, node: Node) -> Node:
        rule = RULES.get(node.op)
        made = rule(self, node, [self.made[i] for i in node.inputs]) if rule is not None else None
        if made is None:
            made = rebuild(node, [self.made[i] for i in node.inputs])
        return broadcast(made, self._rest(node.axes), node.shape)

    def _rest(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        return tuple(a for a in axes if a != self.axis)

    def _leaf(self, node: Node, _: Sequence[Node]) -> Node:
        return leaf(node.op, node["name"], self._rest(node.axes), node.shape, node.dtype)

    def _broadcast(self, node: Node, operands: Sequence[Node]) -> Node:
        return broadcast(operands[0], self._rest(node.axes), node.shape)

    def _shift(self, node: Node, operands: Sequence[Node]) -> Node | None:
        offsets = dict(node["offsets"])
        back = -offsets.pop(self.axis, 0)
        if not back:
            return None
        (value, fill), name = operands, self._name(node.inputs[0])
        if self._known_before(node.inputs[1]):
            moved = broadcast(shift(value, offsets, fill), self._rest(node.axes), node.shape)
            return self._kept(moved, node.inputs[1], back, name)
        past = self._kept(value, const(0, value.dtype), back, name)
        return where(self._exists(back), shift(past, offsets, fill), fill)

    def _at(self, node: Node, operands: Sequence[Node]) -> Node | None:
        if node["axis"] != self.axis:
            return None
        value, fill = operands
        if node["position"] == "last":
            return value
        position = 0 if node["position"] == "first" else int(node["position"])
        now = where(self._exists(position), value, fill) if position else value
        now = broadcast(now, self._rest(node.axes), node.shape)
        name = unused_name(f"{self._name(node.inputs[0])}_at{position}", self.taken)
        kept = leaf(INPUT, name, now.axes, now.shape, now.dtype)
        result = where(self._exists(position + 1), kept, now)
        self.carries[name] = _Carry(kept, broadcast(const(0, now.dtype), now.axes, now.shape), result)
        return result

    def _index(self, node: Node, _: Sequence[Node]) -> Node | None:
        """The position is counted, as a carry."""
        if node["axis"] != self.axis:
            return None
        name = unused_name(f"{self.axis.name}_index", self.taken)
        position = leaf(INPUT, name, (), (), "int32")
        self.carries[name] = _Carry(position, const(0, "int32"), add(position, const(1, "int32")))
        return position

    def _stack(self, node: Node, operands: Sequence[Node]) -> Node | None:
        if node["axis"] != self.axis:
            return None
        result = operands[-1]
        for k in range(len(operands) - 1, 0, -1):  # value k - 1 until step k is there
            result = where(self._exists(k), result, operands[k - 1])
        return result

    # Carries.

    def _kept(self, value: Node, start: Node, back: int, name: str) -> Node:
        """The value `back` steps ago; before the first step, `start`."""
        chain = self._chains.setdefault((value, start), [])
        while len(chain) < back:
            free = unused_name(f"{name}_back{len(chain) + 1}", self.taken)
            node = leaf(INPUT, free, value.axes, value.shape, value.dtype)
            first = broadcast(start, value.axes, value.shape)
            self.carries[free] = _Carry(node, first, chain[-1] if chain else value)
            chain.append(node)
        return chain[back - 1]

    def _exists(self, back: int) -> Node:
        """Whether there was a step that long ago."""
        return self._kept(const(True, "bool"), const(False, "bool"), back, self.axis.name)

    def _known_before(self, fill: Node) -> bool:
        """Whether a value can be computed before the first step."""
        return not any(self.axis in node.axes for node in reachable(self.graph, [fill]))


Rule = Callable[[_Stepper, Node, Sequence[Node]], Node | None]

# What an op becomes, given its operands at the current step. A rule returns None, and an op without one is applied to
# its operands as it stands, if the axis is no concern of its own.
RULES: Mapping[Op, Rule] = {
    INPUT: _Stepper._leaf,
    STATE: _Stepper._leaf,
    INDEX: _Stepper._index,
    BROADCAST: _Stepper._broadcast,
    SHIFT: _Stepper._shift,
    AT: _Stepper._at,
    STACK: _Stepper._stack,
}


def _axis(graph: Graph, over: Axis | str) -> Axis:
    name = over.name if isinstance(over, Axis) else over
    axis = graph.axes.get(name) if isinstance(name, str) else None
    if axis is None or (isinstance(over, Axis) and over != axis):
        raise AxisError(f"graph {graph.name!r} has no axis {name!r}; it has {', '.join(graph.axes) or 'none'}")
    for other in graph.axes.values():
        if other.like == axis:
            raise UnsupportedError(
                f"axis {other.name!r} is a second index of axis {name!r}: at each step it would be as long as the "
                "steps so far; gc.select outputs without it, or keep what is looked back at in a state"
            )
        if isinstance(other.length, Node) and axis in other.length.axes:
            raise UnsupportedError(
                f"the lengths of axis {other.name!r} differ from step to step along {name!r}, which one step "
                f"cannot follow; declare axis {other.name!r} without lengths",
                graph.locations.get(other.length),
            )
    if graph.updates:
        raise UnsupportedError(
            f"graph {graph.name!r} updates {', '.join(graph.updates)} once a call, and a step is no whole call; "
            "step its outputs alone: gc.step(gc.select(g, …), …)"
        )
    return axis


def _without_custom_gradient(node: Node) -> Node:
    """A step computes values, not gradients."""
    return node.inputs[0] if node.op is CUSTOM_GRADIENT else node
