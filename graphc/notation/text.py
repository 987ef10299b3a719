"""Printing: a graph as text that people read, and that `graphc.notation.parse` reads back into an equal graph.

    graph elman float32
    axis t
    input x: float32[3] over t
    param W: float32[8, 8] init glorot_uniform
    state h: float32[8] over t initial 0.0

    h[t] = tanh(U @ x + W @ h[t - 1] + b)

    output final = h[t.last]

Everything is declared before it is used. A value that is used more than once, or nested too deeply, gets a line and a
name of its own (`v1 = …`). Expressions are written in Python's syntax and with its precedences; an op without a
symbol is a call with its inputs and its attributes. `value[t - 1]` is a shift whose fill is the state's initial
value, or 0 if the value is no state; `value[t.last]` likewise is a boundary read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphc.errors import GraphError
from graphc.ir import Axis, Node, topological
from graphc.notation.declarations import declaration_order
from graphc.notation.literals import print_constant
from graphc.ops import CONST, CONTRACT
from graphc.ops.axis import AT, SHIFT, at, shift
from graphc.ops.contraction import matmul
from graphc.ops.leaves import const
from graphc.ops.take import TAKE, reads_along

if TYPE_CHECKING:
    from graphc.language.graph import Graph

# Python's levels of precedence, of the operators that we use.
COMPARISON, OR, AND, SUM, PRODUCT, UNARY, POWER, ATOM = range(8)
INFIX = {
    "lt": ("<", COMPARISON),
    "le": ("<=", COMPARISON),
    "eq": ("==", COMPARISON),
    "ne": ("!=", COMPARISON),
    "logical_or": ("|", OR),
    "logical_and": ("&", AND),
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "floordiv": ("//", PRODUCT),
    "mod": ("%", PRODUCT),
    "pow": ("**", POWER),
}
PREFIX = {"neg": "-", "logical_not": "~"}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # attributes that a call leaves out
    "sum": {"dims": (), "over": ()},
    "max": {"dims": (), "over": ()},
    "contract": {"over": ()},
    "scatter": {"over": ()},
}

MAX_NESTING = 6  # of operations in one line
MAX_OPERAND = 60  # characters of an operand that is written in place
BARE_INIT = re.compile(r"(?!fixed$|const\()[\w.+-]+(\([\w ,.=+-]*\))?")  # initialisers that need no quotes

Initials = Mapping[Node, Node]


def print_graph(graph: Graph) -> str:
    """The graph's text. Equal graphs whose tables are in the same order have the same text."""
    return _Printer(graph).print()


def implied_fill(value: Node, initials: Initials, axis: Axis | None = None) -> Node:
    """What `value[…]` reads where there is no such point: `initials` gives the initial values of the states.

    At an edge of `axis` an initial value that itself varies over the axis cannot stand in, and it is 0.
    """
    initial = initials.get(value)
    if initial is None or axis in initial.axes:
        return const(0, value.dtype)
    return initial


def is_matmul(node: Node) -> bool:
    """Whether a contraction is what `left @ right` means."""
    try:
        return node.op is CONTRACT and matmul(*node.inputs) is node
    except GraphError:
        return False


def subscript(node: Node, initials: Initials) -> str | None:
    """The subscript by which a shift or a boundary read is written; None where it needs the call form."""
    value = node.inputs[0] if node.inputs else node
    if node.op is SHIFT:
        if shift(value, dict(node["offsets"]), implied_fill(value, initials)) is node:
            return ", ".join(f"{a.name} {'-' if o < 0 else '+'} {abs(o)}" for a, o in node["offsets"])
    elif node.op is AT:
        axis, position = node["axis"], node["position"]
        if at(value, axis, position, implied_fill(value, initials, axis)) is node:
            return f"{axis.name}.{position}" if isinstance(position, str) else f"{axis.name}.at({position})"
    elif node.op is TAKE:
        other = reads_along(node)
        return None if other is None else other.name
    return None


@dataclass(frozen=True, slots=True)
class _Text:
    """An expression's text, the precedence of its outermost operator, and how deeply it is nested."""

    text: str
    level: int = ATOM
    depth: int = 0
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class _Line:
    """A line whose end may be an expression."""

    start: str
    root: Node | None = None


class _Printer:
    """What is known while a graph is printed: the names and texts of nodes, and the lines so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order, self.late = declaration_order(graph)
        self.texts: dict[Node, _Text] = {}
        self.initials = {e.node: e.initial for name, e in graph.states.items() if name not in self.late}
        params = {name: p.node for name, p in graph.params.items()}
        states = {name: e.node for name, e in graph.states.items()}
        self.declared = {node: name for name, node in (graph.inputs | params | states).items()}
        self.taken = {*self.declared.values(), *graph.axes, *graph.outputs}
        self.count = 0
        self.lines: list[str] = []
        self.uses: Counter[Node] = Counter()

    def print(self) -> str:
        sections = [list(self.declarations()), list(self.equations()), list(self.results())]
        roots = [line.root for section in sections for line in section if line.root is not None]
        order = topological(roots)
        self.count_uses(roots, order)
        remaining = iter(order)
        self.lines.append(f"graph {self.graph.name} {self.graph.dtype}")
        for k, section in enumerate(sections):
            if section and k:
                self.lines.append("")
            for line in section:
                end = "" if line.root is None else self.expression(line.root, remaining)
                self.lines.append(line.start + end)
        return "\n".join(self.lines) + "\n"

    # The lines.

    def declarations(self) -> Iterator[_Line]:
        graph = self.graph
        for kind, name in self.order:
            if kind == "axis":
                yield _axis_line(graph.axes[name])
            elif kind == "input":
                yield _Line(f"input {name}: {graph.inputs[name].type}")
            elif kind == "param":
                param = graph.params[name]
                init = self.init(param.init)
                yield _Line(f"param {name}: {param.node.type} init {init}{'' if param.trainable else ' fixed'}")
            elif name in self.late:
                yield _Line(f"state {name}: {graph.states[name].node.type}")
            else:
                yield _Line(f"state {name}: {graph.states[name].node.type} initial ", graph.states[name].initial)
        for name in self.late:
            yield _Line(f"initial {name} = ", graph.states[name].initial)

    def init(self, init: str | Node) -> str:
        if isinstance(init, Node):
            return print_constant(init, self.graph.dtype, explicit=True)
        return init if BARE_INIT.fullmatch(init) else repr(init)

    def equations(self) -> Iterator[_Line]:
        delayed = self.delayed_axes()
        for name, equation in self.graph.states.items():
            if equation.body is not None:
                own = equation.node.axes
                axes = ", ".join([a.name for a in own if a in delayed[equation.node]] or [a.name for a in own[:1]])
                yield _Line(f"{name}[{axes}] = " if axes else f"{name} = ", equation.body)

    def results(self) -> Iterator[_Line]:
        for name, node in self.graph.outputs.items():
            yield _Line(f"output {name} = ", node)
        for name, node in self.graph.updates.items():
            yield _Line(f"update {name} = ", node)

    def delayed_axes(self) -> dict[Node, set[Axis]]:
        """Along which axes each state is delayed: the axes that its equation is written with."""
        graph = self.graph
        bodies = [e.body for e in graph.states.values() if e.body is not None]
        delayed: dict[Node, set[Axis]] = {e.node: set() for e in graph.states.values()}
        for node in topological([*bodies, *graph.outputs.values(), *graph.updates.values()]):
            if node.op is SHIFT and node.inputs[0] in delayed:
                delayed[node.inputs[0]].update(axis for axis, _ in node["offsets"])
        return delayed

    # The expressions.

    def count_uses(self, roots: Sequence[Node], order: Sequence[Node]) -> None:
        """How often each node's text is needed; what only an implied fill or an axis needs is not printed."""
        self.uses.update(roots)
        for node in reversed(order):
            if self.uses[node]:
                self.uses.update(self.operands(node))

    def operands(self, node: Node) -> tuple[Node, ...]:
        if node in self.declared:
            return ()
        return node.inputs[:1] if subscript(node, self.initials) is not None else node.inputs

    def expression(self, root: Node, remaining: Iterator[Node]) -> str:
        """The root's text, after the lines of the named values that it needs."""
        while root not in self.texts:
            node = next(remaining)
            if self.uses[node]:
                self.texts[node] = self.write(node)
                if self.uses[node] > 1 and self.texts[node].depth:
                    self.name(node)
        return self.texts[root].text

    def name(self, node: Node) -> None:
        """Give the node a line of its own, and use its name from now on."""
        self.count += 1
        while f"v{self.count}" in self.taken:
            self.count += 1
        self.lines.append(f"v{self.count} = {self.texts[node].text}")
        self.texts[node] = _Text(f"v{self.count}")

    def write(self, node: Node) -> _Text:
        if node in self.declared:
            return _Text(self.declared[node])
        if node.op is CONST:
            text = print_constant(node, self.graph.dtype)
            return _Text(text, UNARY if text.startswith("-") else ATOM, int(len(text) > 20))
        operands = self.operands(node)
        for operand in operands:
            known = self.texts[operand]
            if known.depth >= MAX_NESTING or len(known.text) > MAX_OPERAND:
                self.name(operand)
        return self.combine(node, [self.texts[o] for o in operands])

    def combine(self, node: Node, parts: Sequence[_Text]) -> _Text:
        depth = 1 + max((p.depth for p in parts), default=0)
        name = node.op.name
        key = subscript(node, self.initials)
        if key is not None:
            return _Text(f"{_within(parts[0], ATOM)}[{key}]", depth=parts[0].depth)
        if name in INFIX or is_matmul(node):
            symbol, level = INFIX.get(name, ("@", PRODUCT))
            return _infix(symbol, level, parts[0], parts[1], depth)
        if name in PREFIX and node.inputs[0].op is not CONST:
            return _Text(f"{PREFIX[name]}{_within(parts[0], UNARY)}", UNARY, depth)
        usual = DEFAULTS.get(name, {})
        attrs = [f"{key}={_attribute(value)}" for key, value in node.attrs if key not in usual or value != usual[key]]
        return _Text(f"{name}({', '.join([*(p.text for p in parts), *attrs])})", depth=depth)


def _axis_line(axis: Axis) -> _Line:
    if axis.like is not None:
        return _Line(f"axis {axis.name} like {axis.like.name}")
    if axis.length is None:
        return _Line(f"axis {axis.name}")
    if isinstance(axis.length, int):
        return _Line(f"axis {axis.name} {axis.length}")
    if axis.length.op is CONST:  # a bare number would be a fixed length
        return _Line(f"axis {axis.name} {print_constant(axis.length, 'float32', explicit=True)}")
    return _Line(f"axis {axis.name} ", axis.length)


def _within(part: _Text, level: int) -> str:
    return part.text if part.level >= level else f"({part.text})"


def _infix(symbol: str, level: int, left: _Text, right: _Text, depth: int) -> _Text:
    """`left symbol right`: as Python groups from the left, except for powers and comparisons, which we bracket."""
    grouped = level in (COMPARISON, POWER)
    mixed = "@" in (symbol, left.symbol) and left.symbol != symbol and level == PRODUCT  # bracketed for readers
    a = _within(left, ATOM if level == POWER else level + (grouped or mixed))
    b = _within(right, ATOM if level == POWER else level + 1)
    return _Text(f"{a} {symbol} {b}", level, depth, symbol)


def _attribute(value: Any) -> str:
    """An attribute: a number, a string, an axis by its name, or a tuple of these."""
    if isinstance(value, Axis):
        return value.name
    if isinstance(value, tuple):
        return f"({', '.join(map(_attribute, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        return f'"{value}"' if value.isidentifier() else repr(value)
    return repr(value)
