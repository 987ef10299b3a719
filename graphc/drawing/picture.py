"""What a drawing shows: a graph as labelled vertices and arrows.

This is where a graph becomes readable. Delays and boundary reads become labels of arrows, constants become part of
the label of what they go into, chains of sums become one sum, and ops that only rearrange a value are left out. A
state and the value that defines it are one vertex, so the cycles of the equations are cycles of the picture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from graphc.drawing.labels import WINDOWED, constant_label, delay_label, is_constant, op_label
from graphc.ir import Axis, Node, Shape, topological
from graphc.language.graph import Graph
from graphc.notation.text import subscript
from graphc.ops import CONST, INPUT, PARAM, STATE
from graphc.ops.axis import AS_AXIS, AS_DIM, AT, SHIFT, STACK
from graphc.ops.elementwise import ADD, CAST
from graphc.ops.event import RESHAPE
from graphc.ops.gradient import CUSTOM_GRADIENT
from graphc.ops.reduction import BROADCAST
from graphc.ops.take import TAKE
from graphc.ops.window import WINDOW

Step = tuple[int, ...]
TRANSPARENT = (RESHAPE, BROADCAST, CAST, CUSTOM_GRADIENT)  # only their first operand is shown
DERIVED = ("grad_", "tangent_")  # how the further outputs of a differentiated graph begin


@dataclass(frozen=True, slots=True)
class Vertex:
    """A value. `kind` is "input", "param", "state", "output", "op" or "group"; `step` is its column when unrolled.

    Vertices of one `row` stand side by side. `event` is an op's shape at a point. `reduces`: it takes a sum over many
    elements; `turns`: it makes axes of dimensions, or the other way round. `target`: what an update writes.
    """

    key: str
    kind: str
    lines: tuple[str, ...]
    tooltip: str = ""
    step: Step | None = None
    backward: bool = False
    row: str = ""
    event: Shape = ()
    reduces: bool = False
    turns: bool = False
    target: str = ""


@dataclass(frozen=True, slots=True)
class Arrow:
    """A value goes into another. `kind` is "flow", "delay" or "initial" (the value before the first step)."""

    tail: str
    head: str
    kind: str = "flow"
    label: str = ""
    tooltip: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """`steps` is the name of the axis whose steps are columns; "" if there are no columns, or of several axes."""

    name: str
    vertices: tuple[Vertex, ...]
    arrows: tuple[Arrow, ...]
    steps: str = ""


def picture(graph: Graph) -> Picture:
    """The picture of a graph, folded or unrolled, with or without gradients."""
    return _Builder(graph).build()


@dataclass(frozen=True, slots=True)
class _Source:
    """The value that has the vertex which an operand comes from, and how it is read on the way."""

    node: Node
    delays: tuple[tuple[Axis, int], ...] = ()
    edges: tuple[str, ...] = ()


class _Builder:
    """The vertices and arrows so far, and the key of each value's vertex."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.initials = {e.node: e.initial for e in graph.states.values()}
        self.bodies = {name: e.body for name, e in graph.states.items() if e.body is not None}
        self.roots = [*self.bodies.values(), *graph.outputs.values(), *graph.updates.values()]
        self.order = self.shown()
        self.summed = self.inner_sums()
        self.windows = self.inner_windows()
        self.columns = self.steps_of_inputs()
        self.unrolled_axes = max(map(len, graph.steps.values()), default=0)
        self.forward = self.forward_values()
        self.split = {
            n for node in graph.outputs.values() if graph.steps for n, _ in self.steps_of(node) if n.op is STACK
        }
        self.several_axes = len({axis for n in self.order if n.op is SHIFT for axis, _ in n["offsets"]}) > 1
        self.keys: dict[Node, str] = {}
        self.vertices: list[Vertex] = []
        self.arrows: list[Arrow] = []

    def build(self) -> Picture:
        by_step = {leaf for leaf, _ in self.columns.values()}
        whole = {i for n in self.order if n not in self.graph.steps or n.op is not AT for i in n.inputs}.union(
            self.roots
        )
        drawn = [n for n in self.order if self.visible(n) and (n in whole or n not in by_step)]
        states = self.add_states()
        for k, node in enumerate(drawn):
            if node not in self.keys:
                self.add_value(node, f"n{k}")
        for node in drawn:
            if node not in self.columns:
                for operand in self.operands(node):
                    self.connect(operand, self.keys[node])
        for name, body in states.items():  # bodies that belong to another vertex
            self.connect(body, _state_key(name))
        for name, equation in self.graph.states.items():
            if equation.initial.op is not CONST and not self.graph.steps:
                self.connect(equation.initial, _state_key(name), "initial")
        self.add_results()
        return Picture(self.graph.name, tuple(self.vertices), tuple(self.arrows), self.column_axis())

    # Which values are shown.

    def shown(self) -> list[Node]:
        """The values that take part in the picture, inputs first. Counts how often each is used in it."""
        initials = [e.initial for e in self.graph.states.values()]
        order = topological([*self.roots, *initials])
        self.uses: Counter[Node] = Counter([*self.roots, *initials])
        for node in reversed(order):
            if self.uses[node]:
                folded = node.op in (*TRANSPARENT, AS_AXIS, WINDOW) or subscript(node, self.initials) is not None
                self.uses.update(node.inputs[:1] if folded else node.inputs)
        return [node for node in order if self.uses[node]]

    def inner_sums(self) -> set[Node]:
        """The sums that are shown as part of the sum which alone uses them."""
        named = set(self.roots)
        sums = (node for node in self.order if node.op is ADD)
        operands = (operand for node in sums for operand in node.inputs)
        return {o for o in operands if o.op is ADD and self.uses[o] == 1 and o not in named}

    def inner_windows(self) -> set[Node]:
        """The windows that are shown as part of the product or the maximum over them."""
        users = (n for n in self.order if n.op in WINDOWED)
        return {i for n in users for i in n.inputs if i.op is WINDOW and self.uses[i] == 1} - set(self.roots)

    def steps_of_inputs(self) -> dict[Node, tuple[Node, Step]]:
        """What the columns of an unrolled graph read of the inputs: which input, and at which position."""
        found: dict[Node, tuple[Node, Step]] = {}
        for node in self.order:
            if node.op is AT and node in self.graph.steps and isinstance(node["position"], int):
                (value, _), position = node.inputs, node["position"]
                if value in found:  # along several axes: the last read is along the axis that was unrolled first
                    found[node] = (found[value][0], (position, *found[value][1]))
                elif value.op is INPUT:
                    found[node] = (value, (position,))
        users = {i for n in self.order if n not in found for i in n.inputs}.union(self.roots)
        return {node: read for node, read in found.items() if node in users}

    def forward_values(self) -> set[Node]:
        """What the outputs are made of that are no derivatives."""
        bodies = {e.node: e.body for e in self.graph.states.values() if e.body is not None}
        derived = any(name.startswith(DERIVED) for name in self.graph.outputs)
        stack = [n for name, n in self.graph.outputs.items() if not name.startswith(DERIVED)]
        stack += self.graph.updates.values()
        stack = stack if derived else [*self.order]
        found: set[Node] = set()
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack.extend(node.inputs)
                if node in bodies:
                    stack.append(bodies[node])
        return found

    def visible(self, node: Node) -> bool:
        """Whether a value has a vertex of its own."""
        if (
            node.op in (STATE, *TRANSPARENT)
            or is_constant(node)
            or any(node in s for s in (self.summed, self.windows, self.split))
        ):
            return False
        return node in self.columns or subscript(node, self.initials) is None

    def operands(self, node: Node) -> list[Node]:
        """The operands of a vertex, those of the sums inside it among them."""
        found: list[Node] = []
        stack = [*reversed(node.inputs[:1] if node.op in (AS_AXIS, WINDOW) else node.inputs)]
        while stack:
            operand = stack.pop()
            if operand in self.summed and node.op is ADD:
                stack.extend(reversed(operand.inputs))
            else:
                found.append(operand)
        return found

    def label(self, node: Node) -> str:
        """What is written on an op; constants are among its operands even where they are broadcast."""
        sources = [(operand, self.source(operand).node) for operand in self.operands(node)]
        return op_label(node, [source if is_constant(source) else operand for operand, source in sources])

    def source(self, node: Node) -> _Source:
        delays: list[tuple[Axis, int]] = []
        edges: list[str] = []
        while not (self.visible(node) or is_constant(node)) and node.inputs:
            key = subscript(node, self.initials)
            if node.op is SHIFT and key is not None:
                delays += node["offsets"]
            elif node.op in (AT, TAKE) and key is not None:
                edges.append(key)
            node = node.inputs[0]
        return _Source(node, tuple(delays), tuple(edges))

    # Vertices.

    def add(self, vertex: Vertex) -> None:
        self.vertices.append(vertex)

    def add_states(self) -> dict[str, Node]:
        """A vertex for each state. Returns the bodies that have a vertex of their own beside it."""
        apart: dict[str, Node] = {}
        for name, equation in self.graph.states.items():
            body, step = equation.body, self.step_of(equation.node)
            base = name if step is None else self.base_name(name)
            lines = [name if step is None else f"{base}{list(step)}"]
            self.keys[equation.node] = _state_key(name)
            if body is not None and self.visible(body) and body.op not in (INPUT, PARAM) and body not in self.keys:
                self.keys[body] = _state_key(name)
                lines.append(self.label(body))
            elif body is not None:
                apart[name] = body
            tooltip = f"{name}: {equation.node.type}"
            backward = equation.node not in self.forward
            self.add(Vertex(_state_key(name), "state", tuple(lines), tooltip, step, backward, base))
        return apart

    def step_of(self, node: Node) -> Step | None:
        """The column of a value; one that several steps along a further axis share has none."""
        step = self.graph.steps.get(node)
        return step if step is not None and len(step) == self.unrolled_axes else None

    def base_name(self, name: str) -> str:
        """What a state was called before it was unrolled: `h` of `h_t3`."""
        axes = "|".join(map(re.escape, self.graph.axes))
        return re.sub(rf"(_({axes})\d+_*)+$", "", name) or name

    def add_value(self, node: Node, key: str) -> None:
        self.keys[node] = key
        step = self.step_of(node)
        backward = node not in self.forward
        if node.op in (INPUT, PARAM):
            shape = (f"[{', '.join(map(str, node.shape))}]",) if node.shape else ()
            kind = "input" if node.op is INPUT else "param"
            self.add(Vertex(key, kind, (node["name"], *shape), f"{node['name']}: {node.type}", step, backward))
        elif node in self.columns:
            leaf, position = self.columns[node]
            line = f"{leaf['name']}{list(position)}"
            self.add(Vertex(key, "input", (line,), f"{line}: {node.type}", step, backward))
        else:
            tooltip, roles = f"{node.op.name}: {node.type}", (node.op.reduces, node.op in (AS_AXIS, AS_DIM))
            self.add(Vertex(key, "op", (self.label(node),), tooltip, step, backward, "", node.shape, *roles))

    def add_results(self) -> None:
        for name, node in self.graph.outputs.items():
            backward = name.startswith(DERIVED)
            parts = [(part, path) for part, path in self.steps_of(node) if part not in self.split]
            for part, path in parts or [(node, ())]:
                lines = (f"{name}{list(path)}" if path else name,)
                step = self.step_of(self.source(part).node) if path else None
                self.result("_".join(["o", name, *map(str, path)]), lines, part, step, backward)
        for name, node in self.graph.updates.items():
            self.result(f"u_{name}", (f"{name} ←",), node, None, False, name)

    def result(
        self, key: str, lines: tuple[str, ...], node: Node, step: Step | None, backward: bool, target: str = ""
    ) -> None:
        source = self.source(node).node
        if is_constant(source):
            lines = (*lines, constant_label(source))
        self.add(Vertex(key, "output", lines, f"{lines[0]}: {node.type}", step, backward, "outputs", target=target))
        self.connect(node, key)

    def steps_of(self, node: Node) -> Iterator[tuple[Node, Step]]:
        """The values of an unrolled output at its steps, with their positions, and the stacks that join them.

        The outermost stack is along the axis that was unrolled last.
        """
        path: list[tuple[Node, Step]] = [(node, ())]
        while path:
            node, position = path.pop()
            inner = node
            while inner.op in TRANSPARENT:
                inner = inner.inputs[0]
            if inner.op is STACK:
                yield inner, position
                path += reversed([(value, (k, *position)) for k, value in enumerate(inner.inputs)])
            elif position:
                yield node, position

    def column_axis(self) -> str:
        """The name of the axis that was unrolled, if it is one."""
        names = {n["axis"].name for n in (*self.columns, *self.split)}
        return names.pop() if len(names) == 1 and self.unrolled_axes == 1 else ""

    # Arrows.

    def connect(self, operand: Node, head: str, kind: str = "flow") -> None:
        source = self.source(operand)
        if source.node not in self.keys:
            return  # a constant: it is written on the vertex
        label = " ".join([*source.edges, *([delay_label(source.delays, self.several_axes)] if source.delays else [])])
        if kind == "initial":
            label = " ".join(filter(None, ["initial", label]))
        elif source.delays:
            kind = "delay"
        self.arrows.append(Arrow(self.keys[source.node], head, kind, label, str(operand.type)))


def _state_key(name: str) -> str:
    return f"s_{name}"
