"""Value: what the user's expressions are made of. A node of the graph with Python's operators on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from graphc.errors import COMPLEX, AxisError, DefinitionError, DtypeError, GraphError, ProtocolError, ShapeError
from graphc.integers import is_whole
from graphc.ir import DTYPES, FLOATING, FLOATS, Axis, AxisEdge, AxisPoint, Node, Shape, check_shape, size
from graphc.language.habits import NO_ARRAY, Symbolic
from graphc.language.subscripts import index_event, split_key
from graphc.ops import axis as axis_ops
from graphc.ops import elementwise as ew
from graphc.ops import event as event_ops
from graphc.ops.contraction import matmul
from graphc.ops.leaves import DECLARED, const
from graphc.ops.take import along, take
from graphc.scalar import STORED, computed

if TYPE_CHECKING:
    from graphc.language.graph import Graph


_MOST_FACTORS = 64  # of a power of integers that is written as a product
_REFLECTED = {  # numpy's function for `array op value`: the method by which the value takes the array
    np.add: "__radd__",
    np.subtract: "__rsub__",
    np.multiply: "__rmul__",
    np.true_divide: "__rtruediv__",
    np.floor_divide: "__rfloordiv__",
    np.remainder: "__rmod__",
    np.matmul: "__rmatmul__",
    np.power: "__rpow__",
    np.less: "__gt__",
    np.less_equal: "__ge__",
    np.greater: "__lt__",
    np.greater_equal: "__le__",
    np.equal: "__eq__",
    np.not_equal: "__ne__",
    np.bitwise_and: "__and__",
    np.bitwise_or: "__or__",
}


class Positions:
    """Stands for the graph of values that are made of axes alone, such as `gc.index(t)`: they fit any graph that has
    these axes. Numbers beside them have its `dtype`."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def remember(self, node: Node) -> None:
        """Nothing is noted: their lines are those of what they become part of."""


Home = Union["Graph", Positions, None]  # what a value belongs to; a constant belongs to nothing


class Value(Symbolic):
    """A value of a graph: it varies over `axes` and holds an event of `shape` at each point.

    `v[t - 1]` is the value one step back (0 before the start), `v[t.last]` its last point, `v[0:8]` a slice of the
    event. Operators work as in numpy on events, and axes broadcast by name.
    """

    __slots__ = ("graph", "node")

    def __init__(self, graph: Home, node: Node) -> None:
        self.graph = graph
        self.node = node
        if graph is not None:
            graph.remember(node)

    @property
    def owner(self) -> Graph | None:
        """The graph that the value is one of; None for a constant, and for what is made of axes alone."""
        return None if isinstance(self.graph, Positions) else self.graph

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.node.axes

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> str:
        return self.node.dtype

    @property
    def name(self) -> str:
        """The name that an input, a param or a state was declared by."""
        try:
            return str(self.node["name"])
        except KeyError:
            raise DefinitionError(f"this value is not an input, a param or a state, but {self.node!r}") from None

    def __repr__(self) -> str:
        kind = self.node.op.name
        what = f"{kind} {self.name}" if self.node.op in DECLARED else f"value {kind}"
        return f"<{what}: {self.node.type}>"

    def __add__(self, other: Any) -> Value:
        return binary(ew.add, self, other)

    def __radd__(self, other: Any) -> Value:
        return binary(ew.add, other, self)

    def __sub__(self, other: Any) -> Value:
        return binary(ew.sub, self, other)

    def __rsub__(self, other: Any) -> Value:
        return binary(ew.sub, other, self)

    def __mul__(self, other: Any) -> Value:
        return binary(ew.mul, self, other)

    def __rmul__(self, other: Any) -> Value:
        return binary(ew.mul, other, self)

    def __truediv__(self, other: Any) -> Value:
        return binary(ew.div, self, other, floating=True)

    def __rtruediv__(self, other: Any) -> Value:
        return binary(ew.div, other, self, floating=True)

    def __floordiv__(self, other: Any) -> Value:
        return _floordiv(*promote(self, other))

    def __rfloordiv__(self, other: Any) -> Value:
        return _floordiv(*promote(other, self))

    def __mod__(self, other: Any) -> Value:
        return _mod(*promote(self, other))

    def __rmod__(self, other: Any) -> Value:
        return _mod(*promote(other, self))

    def __pow__(self, other: Any) -> Value:
        if self.dtype == "int32" and is_whole(other) and 0 <= other < _MOST_FACTORS:
            return self._times_itself(int(other))
        return binary(ew.pow, self, other, floating=True)

    def _times_itself(self, factors: int) -> Value:
        """A power of whole numbers is a whole number."""
        if factors < 2:
            return self if factors else self * 0 + 1
        half = self._times_itself(factors // 2)
        return half * half * self if factors % 2 else half * half

    def __rpow__(self, other: Any) -> Value:
        return binary(ew.pow, other, self, floating=True)

    def __matmul__(self, other: Any) -> Value:
        return binary(matmul, self, other, floating=True)

    def __rmatmul__(self, other: Any) -> Value:
        return binary(matmul, other, self, floating=True)

    def __pos__(self) -> Value:
        return self

    def __neg__(self) -> Value:
        return Value(self.graph, ew.neg(self.node))

    def __abs__(self) -> Value:
        return Value(self.graph, ew.abs(self.node))

    def __lt__(self, other: Any) -> Value:
        return binary(ew.lt, self, other)

    def __le__(self, other: Any) -> Value:
        return binary(ew.le, self, other)

    def __gt__(self, other: Any) -> Value:
        return binary(ew.lt, other, self)

    def __ge__(self, other: Any) -> Value:
        return binary(ew.le, other, self)

    def __eq__(self, other: Any) -> Value:  # type: ignore[override]
        return binary(ew.eq, self, other)

    def __ne__(self, other: Any) -> Value:  # type: ignore[override]
        return binary(ew.ne, self, other)

    def __and__(self, other: Any) -> Value:
        return binary(ew.logical_and, self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Value:
        return binary(ew.logical_or, self, other)

    __ror__ = __or__

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **options: Any) -> Value:
        """`array * value`; numpy's functions do not take values."""
        operator = _REFLECTED.get(function)
        if operator is None or method != "__call__" or options or inputs[-1] is not self:
            raise GraphError(f"np.{function.__name__} {NO_ARRAY}")
        result: Value = getattr(self, operator)(inputs[0])
        return result

    def __invert__(self) -> Value:
        return Value(self.graph, ew.logical_not(self.node))

    __hash__ = object.__hash__

    @property
    def T(self) -> Value:
        """The event with its dimensions in reverse order: the transpose of a matrix. Vectors and numbers have none."""
        if len(self.shape) < 2:
            kind = "vector" if self.shape else "number"
            raise ShapeError(
                f"x.T of a {kind}, {self.node.type}, would be the {kind} itself: of vectors v and k, write "
                "gc.outer(v, k) for the matrix v kᵀ, and v @ k for the number vᵀ k"
            )
        return Value(self.graph, event_ops.transpose(self.node, tuple(reversed(range(len(self.shape))))))

    def reshape(self, *shape: Any) -> Value:
        """The event's elements, in row-major order, in another shape; one length may be -1."""
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if not all(is_whole(s) for s in given):
            raise ShapeError(f"reshape takes whole numbers, x.reshape(2, -1), got {', '.join(map(repr, given))}")
        wanted = tuple(int(s) for s in given)
        if -1 in wanted:
            rest, total = math.prod(s for s in wanted if s != -1), size(self.shape)
            if wanted.count(-1) > 1 or rest == 0 or total % rest:
                raise ShapeError(f"cannot reshape event {self.shape} to {wanted}")
            wanted = tuple(total // rest if s == -1 else s for s in wanted)
        return Value(self.graph, event_ops.reshape(self.node, check_shape(wanted)))

    def shift(self, axis: Axis, offset: int, fill: Any = 0.0) -> Value:
        """The value `offset` points further along an axis, and `fill` (a number or a value) where there is none."""
        if not isinstance(axis, Axis):
            raise AxisError(f"x.shift takes an axis and a number of steps, x.shift(t, -1), got {axis!r}")
        other, point = assigned(fill, self.graph, self.dtype), axis + offset
        return Value(home(self, other), axis_ops.shift(self.node, {axis: point.offset}, other.node))

    def __getitem__(self, key: Any) -> Value:
        points, edges, events = split_key(key)
        value: Value = self
        if points:
            value = value._delayed(points)
        for edge in edges:
            value = value._at(edge)
        return Value(value.graph, index_event(value.node, events)) if events else value

    def __setitem__(self, key: Any, value: Any) -> None:
        raise ProtocolError(
            "a value has no elements to write to: gc.concat and gc.stack join parts, and gc.where(condition, a, b) "
            "chooses among them; h[t] = … defines what g.state declares"
        )

    def __iter__(self) -> Iterator[Value]:
        if not self.shape:
            raise ProtocolError(
                "a value whose event is a number cannot be iterated over; its steps are not known before a call: an "
                "equation, as h[t] = f(h[t - 1], x), holds at each of them"
            )
        return (self[k] for k in range(self.shape[0]))

    def _delayed(self, points: Sequence[AxisPoint]) -> Value:
        offsets = {p.axis: p.offset for p in points}
        return Value(self.graph, axis_ops.shift(_along(self.node, points), offsets, const(0, self.dtype)))

    def _at(self, edge: AxisEdge, fill: Node | None = None) -> Value:
        if isinstance(edge.position, Value):
            return Value(home(self, edge.position), take(self.node, edge.position.node, edge.axis, fill))
        return Value(self.graph, axis_ops.at(self.node, edge.axis, edge.position, fill))


class State(Value):
    """A value on a cycle: `h[t] = …` defines it, `h[t - 1]` reads it one step before, `h` means the current point."""

    __slots__ = ("initial", "reset")

    def __init__(self, graph: Graph, node: Node, initial: Node, reset: Node | None = None) -> None:
        super().__init__(graph, node)
        self.initial = initial
        self.reset = reset

    def __setitem__(self, key: Any, value: Any) -> None:
        points, edges, events = split_key(key)
        if edges or events or not points or any(p.offset for p in points):
            axes = ", ".join(a.name for a in self.axes)
            raise DefinitionError(
                f"the left side of an equation is the current point: {self.name}[{axes}] = …; what delays read before "
                "the first is initial= of g.state"
            )
        for point in points:
            if point.axis not in self.axes:
                raise AxisError(f"state {self.name!r} does not vary over axis {point.axis.name!r}")
        graph = self.owner
        assert graph is not None
        graph.define(self.name, as_value(value, graph, dtype=self.dtype))

    def _delayed(self, points: Sequence[AxisPoint]) -> Value:
        offsets = {p.axis: p.offset for p in points if p.offset}
        for axis in offsets:
            if axis in self.initial.axes:
                raise AxisError(
                    f"state {self.name!r} is delayed along {axis.name!r}, so its initial value cannot vary over it; "
                    f"use h.shift({axis.name}, {offsets[axis]}, fill=…) if you mean that"
                )
        delayed = Value(self.graph, axis_ops.shift(_along(self.node, points), offsets, self.initial))
        if self.reset is None or not offsets:
            return delayed
        reset = _along(self.reset, [p for p in points if p.axis.root in {a.root for a in self.reset.axes}])
        return Value(self.graph, ew.where(_crossed(reset, offsets), self.initial, delayed.node))

    def _at(self, edge: AxisEdge, fill: Node | None = None) -> Value:
        return super()._at(edge, fill or (None if edge.axis in self.initial.axes else self.initial))


def _along(value: Node, points: Sequence[AxisPoint]) -> Node:
    """The value read by the axes of these points, where they are second indices of its own."""
    for point in points:
        value = along(value, point.axis)
    return value


def _crossed(reset: Node, offsets: dict[Axis, int]) -> Node:
    """Whether a delay from the current point passes a reset: at this point, or at one between here and there."""
    flag = reset
    for axis, offset in offsets.items():
        if axis in reset.axes:
            for k in range(1, abs(offset)):
                step = -k if offset < 0 else k
                flag = ew.logical_or(flag, axis_ops.shift(reset, {axis: step}, const(False, "bool")))
    return flag


def several(given: Any) -> tuple[Any, ...]:
    """What an option lists: one thing alone needs no tuple."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, Value) else (given,)


def check_value(item: Any, what: str) -> None:
    """Check that a function of values was given one. `what` says, in the message, what it takes."""
    if not isinstance(item, Value):
        hint = ""
        if is_dataclass(item):
            hint = f"; of its states, {', '.join(f.name for f in fields(item))}, one is a value"
        elif hasattr(item, "__array__"):
            hint = '; an array is given with the call, in place of an input: g.input("x", …)'
        raise DefinitionError(f"{what} a value of the graph, got {type(item).__name__}{hint}")


def as_value(item: Any, graph: Home, dtype: str | None = None) -> Value:
    """A value, or a constant made of a number or an array; `dtype` is the constant's, by default its own kind's."""
    if isinstance(item, Value):
        return item
    if isinstance(item, Node):
        return Value(graph, item)
    if isinstance(item, np.ndarray | np.generic | int | float | complex | list | tuple):
        array = _computed(item)
        if array.dtype.kind not in "biuf":
            instead = COMPLEX if array.dtype.kind == "c" else ""
            raise DtypeError(f"a constant is made of numbers, got {item!r}{instead}")
        default = graph.dtype if graph is not None else "float32"
        own = {"b": "bool", "f": default}.get(array.dtype.kind, "int32")
        wanted = dtype or own
        if wanted not in FLOATING and array.dtype.kind == "f" and not (array == np.floor(array)).all():
            raise DtypeError(f"expected {wanted}, got {item!r}")
        if wanted == "int32" and array.size and not _is_int32(array):
            raise DtypeError(f"integers are int32 here, -2147483648 to 2147483647; got {item!r}")
        return Value(None, const(array, wanted))
    instead = f"; the position along it is gc.index({item.name})" if isinstance(item, Axis) else ""
    if hasattr(item, "__array__"):  # a tensor of PyTorch's, for one
        instead = "; np.asarray makes an array of it, which is a constant"
    if isinstance(getattr(item, "h", None), Value):  # a cell's
        instead = "; a cell has several values, and .h is its output"
    raise DtypeError(f"expected a value or a number, got {type(item).__name__}: {item!r}{instead}")


def assigned(item: Any, graph: Home, dtype: str) -> Value:
    """A value for a place of this dtype, such as a state: to float16 and bfloat16 it is rounded, and from there to
    float32 it is widened. No other dtype is converted: the caller refuses it."""
    value = as_value(item, graph, dtype=dtype)
    if (dtype in STORED and value.dtype in FLOATING) or (dtype == "float32" and value.dtype in STORED):
        return Value(value.graph, ew.cast(value.node, dtype))
    return value


def _computed(item: Any) -> np.ndarray:
    """A number or an array, of a dtype of numpy's own."""
    array = np.asarray(item)
    return array.astype(computed(array.dtype.name)) if array.dtype.name in STORED else array


def _is_int32(numbers: np.ndarray) -> bool:
    limits = np.iinfo(np.int32)
    return bool(limits.min <= numbers.min() and numbers.max() <= limits.max)


def home(*values: Value) -> Home:
    """Where what is made of values belongs: to the graph of any, or wherever their axes are."""
    owners = [value.owner for value in values if value.owner is not None]
    for owner in owners:
        if owner is not owners[0]:
            raise DefinitionError(f"values of two graphs do not mix: {owners[0].name!r} and {owner.name!r}")
    found = [value.graph for value in values if value.graph is not None]
    return next((graph for graph in found if not isinstance(graph, Positions)), next(iter(found), None))


def _floordiv(a: Value, b: Value) -> Value:
    if a.dtype == "int32":
        return binary(ew.floordiv, a, b)
    return Value(a.graph, ew.floor(ew.div(a.node, b.node)))


def _mod(a: Value, b: Value) -> Value:
    return binary(ew.mod, a, b) if a.dtype == "int32" else a - b * _floordiv(a, b)


def promote(*items: Any, floating: bool = False, beside: Home = None) -> list[Value]:
    """The operands as values of one dtype. Values promote bool → int32 → float32 → float64; constants adapt to them.
    float16 and bfloat16 count as float32, also among themselves. Constants alone are of the dtype of the graph that
    they stand `beside`."""
    given = [i for i in items if isinstance(i, Value)]
    graph = home(*given) or beside
    default = graph.dtype if graph is not None else "float32"
    ranks = [DTYPES.index(computed(i.dtype)) for i in given]
    constants = [_computed(i).dtype.kind for i in items if not isinstance(i, Value)]
    dtype = DTYPES[max(ranks)] if ranks else "bool"
    if dtype not in FLOATS and (floating or "f" in constants):
        dtype = default
    if dtype == "bool" and any(k in "iu" for k in constants):
        dtype = "int32"
    values = [as_value(i, graph, dtype=dtype) for i in items]
    return [Value(graph or v.graph, ew.cast(v.node, dtype)) for v in values]


def alike(*items: Any) -> list[Value]:
    """The same for what only rearranges elements: values of one dtype keep it, float16 and bfloat16 too."""
    values, dtypes = promote(*items), {item.dtype if isinstance(item, Value) else "" for item in items}
    if len(dtypes) > 1 or not dtypes <= set(STORED):
        return values
    return [Value(value.graph, item.node) for value, item in zip(values, items, strict=True)]


def binary(op: Any, left: Any, right: Any, floating: bool = False) -> Value:
    a, b = promote(left, right, floating=floating)
    return Value(a.graph, op(a.node, b.node))
