"""Parsing: the text that `graphc.notation.text` prints in, an equal graph out.

One line is one declaration or one equation. Blank lines and lines that begin with `#` are skipped. The errors name
the line of the text, and so do the errors of the graph later on: its `locations` are lines of the text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from graphc.errors import GraphError, Location, ParseError
from graphc.ir import FLOATING, MOST_POINTS, Axis, Node, Op, check_dtype, check_shape, dependencies
from graphc.language.graph import Equation, Graph, Param, declared_arrays
from graphc.language.initialisers import initialiser
from graphc.notation.expression import Scope, normal, read_expression, syntax
from graphc.ops.leaves import CONST, INPUT, PARAM, STATE, leaf

MAX_TEXT = 1 << 27  # characters
_NAME = r"[^\W\d]\w{0,399}"  # twice what a user's may have: gradients and steps put words before and after
_SHAPE = r" *(?:\d{1,10} *(?:, *\d{1,10} *)*(?:, *)?)?"
_TYPE = rf"(?P<dtype>\w+)\[(?P<shape>{_SHAPE})\](?: over (?P<over>{_NAME}(?:, *{_NAME})*))?"
_DECLARATION = re.compile(rf"(?P<keyword>axis|input|param|state|initial|output|update)\s+(?P<name>{_NAME})(?P<rest>.*)")
_EQUATION = re.compile(rf"(?P<name>{_NAME})(?:\s*\[(?P<axes>[^\]=]*)\])?\s*=(?!=)(?P<rest>.*)")
_LIKE = re.compile(r"like\s+(\S+)")
_DEFINED = re.compile(r"\s*=(?!=)(.*)")
_INPUT = re.compile(rf":\s*{_TYPE}")
_PARAM = re.compile(rf":\s*{_TYPE}(?: init (?P<init>.+?))?(?P<fixed> fixed)?")
_STATE = re.compile(rf":\s*{_TYPE}(?: initial (?P<initial>.+))?")
_HEADER = re.compile(rf"graph\s+(?P<name>{_NAME})\s+(?P<dtype>\w+)")


def parse(text: str) -> Graph:
    """The graph that a text describes. A `ParseError` names the line, what was found and what was expected."""
    if not isinstance(text, str):
        raise ParseError(f"a text was expected, such as str(graph) or a file's read_text(), got {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise ParseError(f"a text of {len(text)} characters; the largest that is read has {MAX_TEXT}")
    parser: _Parser | None = None
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            if parser is None:
                parser = _Parser(_header(stripped))
            else:
                parser.line(stripped, number)
        except GraphError as error:
            shown = stripped if len(stripped) <= 120 else f"{stripped[:117]}..."
            raise ParseError(f"line {number} of the text: {error.reason}\n    {shown}") from None
    if parser is None:
        raise ParseError("an empty text; a graph begins with a line such as: graph elman float32")
    return parser.finish()


def _header(line: str) -> Graph:
    found = _HEADER.fullmatch(line)
    if found is None:
        raise ParseError(f"expected the first line to be like 'graph elman float32', found {line[:60]!r}")
    return Graph(found["name"], found["dtype"])


class _Parser:
    """The graph so far, and what its names mean."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.scope = Scope(graph.dtype)
        self.number = 0
        self.declarations: dict[str, Callable[[str, str], None]] = {
            "axis": self.axis,
            "input": self.input,
            "param": self.param,
            "state": self.state,
            "initial": self.initial,
            "output": self.output,
            "update": self.update,
        }

    def line(self, line: str, number: int) -> None:
        self.number = number
        declaration, equation = _DECLARATION.fullmatch(line), _EQUATION.fullmatch(line)
        if declaration is not None:
            self.declarations[declaration["keyword"]](declaration["name"], declaration["rest"])
        elif equation is None:
            raise ParseError(f"expected a declaration ({', '.join(self.declarations)}) or an equation")
        elif equation["axes"] is None and equation["name"] not in self.graph.states:
            self.declare(equation["name"], self.expression(equation["rest"]))
        else:
            self.equation(equation["name"], equation["axes"] or "", equation["rest"])

    def finish(self) -> Graph:
        for name, equation in self.graph.states.items():
            if equation.initial is equation.node:
                raise ParseError(f"state {name!r} has no initial value; write: initial {name} = 0.0")
        return self.graph

    # Declarations.

    def axis(self, name: str, rest: str) -> None:
        key, rest = normal(name), rest.strip()
        if key in self.scope.axes:
            raise ParseError(f"axis {name!r} is declared twice")
        like = _LIKE.fullmatch(rest)
        if like is not None:
            (other,) = self.over(like[1])
            made = Axis(name, other.length, self.graph.dtype, other.root)
        else:
            made = Axis(name, self.length(rest) if rest else None, self.graph.dtype)
        self.graph.axes[name] = self.scope.axes[key] = made

    def length(self, source: str) -> int | Node:
        """The length of an axis: a number, or an expression for that of each example."""
        if re.fullmatch(r"\d{1,10}", source):
            if not 1 <= int(source) <= MOST_POINTS:
                raise ParseError(f"expected a length of at least 1 and at most {MOST_POINTS:,}, found {int(source)}")
            return int(source)
        node = self.expression(source)
        if node.dtype != "int32" or node.shape:
            raise ParseError(f"expected the axis's length to be one int32 per example, found {node.type}")
        return node

    def input(self, name: str, rest: str) -> None:
        node, _ = self.leaf(INPUT, name, rest, _INPUT, "input x: float32[3] over t")
        self.graph.inputs[name] = node

    def param(self, name: str, rest: str) -> None:
        node, found = self.leaf(PARAM, name, rest, _PARAM, "param W: float32[8, 8] init glorot_uniform")
        if node.axes:
            raise ParseError(f"a param varies over no axis, found {node.type}")
        init = self.init(found["init"] or "zeros", node)
        self.graph.params[name] = Param(node, init, found["fixed"] is None and node.dtype in FLOATING)

    def init(self, source: str, param: Node) -> str | Node:
        """What a param is at first: the name of an initialiser, a number, or a constant of the param's type."""
        if source.startswith("const("):
            constant = read_expression(source, self.scope)
            if constant.op is not CONST or constant.type != param.type:
                raise ParseError(f"expected a constant of type {param.type}, found one of type {constant.type}")
            return constant
        name = _string(source) if source[0] in "'\"" else source
        initialiser(str(param["name"]), name, param)  # raises if there is none
        return name

    def state(self, name: str, rest: str) -> None:
        node, found = self.leaf(STATE, name, rest, _STATE, "state h: float32[8] over t initial 0.0")
        self.graph.states[name] = Equation(node, None, node)
        if found["initial"] is not None:
            self.scope.initials[node] = self.begin(name, found["initial"])

    def initial(self, name: str, rest: str) -> None:
        equation = self.graph.states.get(name)
        if equation is None or equation.initial is not equation.node:
            raise ParseError(f"expected a state without an initial value, found {name!r}")
        self.begin(name, self.defined(rest))

    def begin(self, name: str, source: str) -> Node:
        """Give a state its initial value."""
        node = self.graph.states[name].node
        initial = self.expression(source)
        if initial.dtype != node.dtype:
            raise ParseError(f"the initial value of a {node.dtype} state is {initial.dtype}")
        self.graph.states[name] = Equation(node, None, initial)
        return initial

    def output(self, name: str, rest: str) -> None:
        if name in self.graph.outputs:
            raise ParseError(f"output {name!r} is declared twice")
        self.graph.outputs[name] = self.expression(self.defined(rest))

    def update(self, name: str, rest: str) -> None:
        graph = self.graph
        targets = declared_arrays(graph)
        if name not in targets or name in graph.updates:
            raise ParseError(f"expected a param or an input that has no update yet, found {name!r}")
        if any(axis.length is targets[name] for axis in graph.axes.values()):
            raise ParseError(f"expected an array that may change, found the lengths of an axis, {name!r}")
        node = self.expression(self.defined(rest))
        if node.type != targets[name].type:
            raise ParseError(f"{name!r} is {targets[name].type}, its update is {node.type}")
        graph.updates[name] = node

    def equation(self, name: str, axes: str, rest: str) -> None:
        known = self.graph.states.get(name)
        if known is None or known.body is not None:
            raise ParseError(f"expected a declared state that has no equation yet, found {name!r}")
        for axis in self.over(axes):
            if axis not in known.node.axes:
                raise ParseError(f"state {name!r} does not vary over axis {axis.name!r}")
        body = self.expression(rest)
        if (body.shape, body.dtype) != (known.node.shape, known.node.dtype):
            raise ParseError(f"state {name!r} is {known.node.type}, but is defined by {body.type}")
        self.graph.states[name] = Equation(known.node, body, known.initial)

    # Parts of lines.

    def leaf(self, op: Op, name: str, rest: str, pattern: re.Pattern[str], example: str) -> tuple[Node, re.Match[str]]:
        found = pattern.fullmatch(rest)
        if found is None:
            raise ParseError(f"expected a declaration like '{example}', found {rest[:60]!r}")
        shape = check_shape(map(int, re.findall(r"\d+", found["shape"])))
        node = leaf(op, name, self.over(found["over"] or ""), shape, check_dtype(found["dtype"]))
        self.declare(name, node)
        return node, found

    def over(self, names: str) -> list[Axis]:
        axes = []
        for name in (n.strip() for n in names.split(",") if n.strip()):
            if normal(name) not in self.scope.axes:
                known = ", ".join(self.graph.axes) or "none is declared"
                raise ParseError(f"expected an axis ({known}), found {name!r}")
            axes.append(self.scope.axes[normal(name)])
        if len(set(axes)) != len(axes):
            raise ParseError(f"an axis is named twice: {names}")
        return axes

    def declare(self, name: str, node: Node) -> None:
        if normal(name) in self.scope.values:
            raise ParseError(f"the name {name!r} is taken already")
        self.scope.values[normal(name)] = node
        self.locate(node)

    def defined(self, rest: str) -> str:
        found = _DEFINED.fullmatch(rest)
        if found is None:
            raise ParseError(f"expected '=' and an expression, found {rest[:60]!r}")
        return found[1]

    def expression(self, source: str) -> Node:
        node = read_expression(source, self.scope)
        self.locate(node)
        return node

    def locate(self, node: Node) -> None:
        """Note this line for the node and for what was made on the way to it."""
        stack = [node]
        while stack:
            node = stack.pop()
            if node not in self.graph.locations:
                self.graph.locations[node] = Location("<text>", self.number)
                stack.extend(dependencies(node))


def _string(source: str) -> str:
    tree = syntax(source)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        return tree.value
    raise ParseError(f"expected a string, found {source[:60]!r}")
