"""Reading an expression: Python's syntax in, a node out.

The text is parsed by Python's own parser into a syntax tree, of which a few forms are known; nothing is evaluated.
Operators stand for one op each and promote nothing: what the text says is exactly what is built.
"""

from __future__ import annotations

import ast
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphc.errors import GraphError, ParseError, meant
from graphc.ir import Axis, AxisEdge, AxisPoint, Node, Op, check_dtype, check_shape, make
from graphc.notation.literals import read_constant, read_number
from graphc.notation.text import DEFAULTS, implied_fill
from graphc.ops import CONST, TABLE
from graphc.ops.axis import at, shift
from graphc.ops.contraction import matmul
from graphc.ops.take import along

LONGEST_INT = 64  # bits of a whole number: Python refuses to print one of thousands of digits
FRACTIONS = {"eps", "rate"}  # attributes that need not be whole numbers
MAX_DEPTH = 100
BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.BitAnd: "logical_and",
    ast.BitOr: "logical_or",
}
UNARY: Mapping[type[ast.unaryop], str] = {ast.USub: "neg", ast.Invert: "logical_not"}
COMPARISON: Mapping[type[ast.cmpop], tuple[str, bool]] = {  # the op, and whether its operands are swapped
    ast.Lt: ("lt", False),
    ast.LtE: ("le", False),
    ast.Gt: ("lt", True),
    ast.GtE: ("le", True),
    ast.Eq: ("eq", False),
    ast.NotEq: ("ne", False),
}


def normal(name: str) -> str:
    """A name as Python's parser gives it back: in Unicode's normal form KC."""
    return unicodedata.normalize("NFKC", name)


@dataclass(slots=True)
class Scope:
    """What names mean, so far: values, axes, and the initial values of states; all by their normal names."""

    dtype: str
    values: dict[str, Node] = field(default_factory=dict)
    axes: dict[str, Axis] = field(default_factory=dict)
    initials: dict[Node, Node] = field(default_factory=dict)


def read_expression(source: str, scope: Scope) -> Node:
    """The node that an expression stands for; a `ParseError` says what was found and what was expected."""
    return _Reader(source, scope).read(syntax(source))


def syntax(source: str) -> ast.expr:
    """The syntax tree of one expression."""
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except SyntaxError as error:
        raise ParseError(f"expected an expression, found {_short(source)}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ParseError(f"an expression that is nested too deeply or holds a null byte: {_short(source)}") from None
    for part in ast.walk(tree):
        if isinstance(part, ast.Constant) and isinstance(part.value, int) and part.value.bit_length() > LONGEST_INT:
            raise ParseError(f"a whole number that is too large in {_short(source)}")
    return tree


def _short(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


class _Reader:
    """Walks one expression's syntax tree."""

    def __init__(self, source: str, scope: Scope) -> None:
        self.source = source.strip()
        self.scope = scope

    def error(self, tree: ast.AST, expected: str, hint: str = "") -> ParseError:
        found = ast.get_source_segment(self.source, tree) or type(tree).__name__
        return ParseError(f"expected {expected}, found {_short(found)}{hint}")

    def read(self, tree: ast.expr, depth: int = 0) -> Node:
        if depth > MAX_DEPTH:
            raise ParseError(f"an expression nested more than {MAX_DEPTH} deep; name its parts on lines of their own")
        below = depth + 1
        match tree:
            case ast.Constant(value=bool() | int() | float() as value):
                return read_number(value, self.scope.dtype)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return read_number(-value, self.scope.dtype)
            case ast.Name(id=name):
                return self.value(tree, name)
            case ast.UnaryOp(op=operator, operand=operand) if type(operator) in UNARY:
                return build(TABLE[UNARY[type(operator)]], [self.read(operand, below)])
            case ast.BinOp(left=left, op=ast.MatMult(), right=right):
                return matmul(self.read(left, below), self.read(right, below))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in BINARY:
                return build(TABLE[BINARY[type(operator)]], [self.read(left, below), self.read(right, below)])
            case ast.Compare(left=left, ops=[relation], comparators=[right]) if type(relation) in COMPARISON:
                name, swapped = COMPARISON[type(relation)]
                operands = [self.read(left, below), self.read(right, below)]
                return build(TABLE[name], operands[::-1] if swapped else operands)
            case ast.Subscript(value=value, slice=key):
                return self.subscript(self.read(value, below), key)
            case ast.Call(func=ast.Name(id=name)):
                return self.call(tree, name, below)
        raise self.error(tree, "a number, a name, an operator, a call of an op or a subscript such as h[t - 1]")

    def value(self, tree: ast.AST, name: str) -> Node:
        if name not in self.scope.values:
            raise self.error(
                tree, "the name of an input, param, state or earlier value", meant(name, self.scope.values)
            )
        return self.scope.values[name]

    def axis(self, tree: ast.expr) -> Axis:
        if not isinstance(tree, ast.Name) or tree.id not in self.scope.axes:
            raise self.error(tree, f"an axis ({', '.join(self.scope.axes) or 'none is declared'})")
        return self.scope.axes[tree.id]

    # Calls.

    def call(self, tree: ast.Call, name: str, depth: int) -> Node:
        if name not in TABLE:
            raise self.error(tree.func, "the name of an op", meant(name, TABLE))
        attributes: dict[str, Any] = {}
        for keyword in tree.keywords:
            if keyword.arg is None or keyword.arg in attributes:
                raise self.error(keyword.value, "attributes by their names, each once")
            attributes[keyword.arg] = self.attribute(keyword.value)
        if TABLE[name] is CONST:
            if len(tree.args) != 1:
                raise self.error(tree, "const(value)")
            return self.constant(tree, attributes)
        return build(
            TABLE[name], [self.read(arg, depth) for arg in tree.args], {**DEFAULTS.get(name, {}), **attributes}
        )

    def constant(self, tree: ast.Call, attributes: Mapping[str, Any]) -> Node:
        try:
            return read_constant(tree.args[0], attributes, self.scope.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, GraphError):
                raise
            raise self.error(tree, f"a constant ({error})") from None

    def attribute(self, tree: ast.expr, depth: int = 0) -> Any:
        match tree:
            case ast.Constant(value=bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return -value
            case ast.Tuple(elts=elements) if depth < MAX_DEPTH:
                return tuple(self.attribute(e, depth + 1) for e in elements)
            case ast.Name():
                return self.axis(tree)
        raise self.error(tree, "an attribute: a number, a string, an axis or a tuple of these")

    # Subscripts.

    def subscript(self, value: Node, tree: ast.expr) -> Node:
        keys = [self.point(t) for t in (tree.elts if isinstance(tree, ast.Tuple) else [tree])]
        offsets: dict[Axis, int] = {}
        for key in keys:
            if isinstance(key, AxisPoint) and key.axis not in offsets:
                offsets[key.axis] = key.offset
            elif len(keys) > 1:
                raise self.error(tree, "points of different axes, such as t - 1, or one edge, such as t.last")
        if keys and isinstance(keys[0], AxisEdge):
            axis, position = keys[0].axis, keys[0].position
            return at(value, axis, position, implied_fill(value, self.scope.initials, axis))
        fill = implied_fill(value, self.scope.initials)
        for axis in offsets:
            value = along(value, axis)
        return shift(value, offsets, fill)

    def point(self, tree: ast.expr) -> AxisPoint | AxisEdge:
        match tree:
            case ast.Name():
                return AxisPoint(self.axis(tree), 0)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=ast.Constant(value=int(offset))):
                axis = self.axis(left)
                return axis + offset if isinstance(sign, ast.Add) else axis - offset
            case ast.Attribute(value=value, attr="first" | "last" as position):
                return AxisEdge(self.axis(value), position)
            case ast.Call(
                func=ast.Attribute(value=value, attr="at"), args=[ast.Constant(value=int(place))], keywords=[]
            ):
                return AxisEdge(self.axis(value), int(place))
        raise self.error(tree, "a point of an axis: t, t - 1, t.first, t.last or t.at(3)")


def build(op: Op, inputs: Sequence[Node], attributes: Mapping[str, Any] | None = None) -> Node:
    """The node, or a `ParseError` where the op cannot be applied like this."""
    attributes = attributes or {}
    for name, value in attributes.items():
        if name not in FRACTIONS and not _is_whole(value):  # 1, 1.0 and True are equal, but only 1 is a dimension
            raise ParseError(f"{op.name} takes whole numbers for {name}=, got {value!r}")
    try:
        node = make(op, inputs, **attributes)
        check_dtype(node.dtype)
        sound = check_shape(node.shape) == node.shape and all(isinstance(a, Axis) for a in node.axes)
    except GraphError:
        raise
    except Exception as error:  # an op trusts its callers to give it the attributes that it has
        reason = f"{type(error).__name__}: {error}"
        raise ParseError(f"{op.name} cannot be applied to {_given(inputs, attributes)}: {reason}") from None
    if not sound:
        raise ParseError(f"{op.name} with these attributes is no value: {_given(inputs, attributes)}")
    return node


def _is_whole(value: Any) -> bool:
    """Whether there is no other number in an attribute."""
    return all(map(_is_whole, value)) if isinstance(value, tuple) else not isinstance(value, bool | float)


def _given(inputs: Sequence[Node], attributes: Mapping[str, Any]) -> str:
    """What an op was to be applied to, for a message."""
    given = ", ".join([*(str(i.type) for i in inputs), *(f"{k}={v!r}" for k, v in attributes.items())])
    return f"({given:.200})"
