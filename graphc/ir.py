"""The expression graph: immutable, hash-consed nodes over named axes.

A node is a value that varies over its `axes` and at each point of them holds a small tensor, its event, of
`shape` and `dtype`. Nodes that are built alike are the same object, so `is` compares expressions and a `dict`
keyed by nodes is a memo. A cycle never sits in `inputs`: a state is a leaf, and its equation stands in a table
of the Graph (`graphc.language.graph`), as do the user's source lines; neither is part of a node's identity.
"""

from __future__ import annotations

import math
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from graphc.errors import COMPLEX, ArgumentError, AxisError, DtypeError, ShapeError, UnsupportedError, listed, meant
from graphc.integers import is_whole
from graphc.scalar import STORED, Scalar

Shape = tuple[int, ...]
Attributes = tuple[tuple[str, Any], ...]

FLOATS = ("float32", "float64")  # what floating values are computed in
FLOATING = (*STORED, *FLOATS)  # what has a derivative
DTYPES = ("bool", "int32", *FLOATING)  # in the order of promotion; those of STORED become float32 first
MOST_POINTS = 2**31 - 1  # of an axis, whose positions are int32 values
MOST_ELEMENTS = 2**48  # of an event: more bytes than any machine addresses


def check_dtype(dtype: Any) -> str:
    """The name of a dtype, given as that or as numpy's. Raise `DtypeError` if graphc does not have it."""
    try:
        name = dtype if isinstance(dtype, str) or dtype is None else np.dtype(dtype).name
    except (TypeError, ValueError):
        name = str(dtype)  # another library's, such as torch.float32
    if name not in DTYPES:
        instead = COMPLEX if str(name).startswith("complex") else meant(str(name).rpartition(".")[2], DTYPES)
        raise DtypeError(f"dtype {name!r} is not one of {', '.join(DTYPES)}{instead}")
    return name


def check_shape(shape: Any) -> Shape:
    """The shape of an event, as a tuple of ints. Raise `ShapeError` if it is anything else."""
    if isinstance(shape, int | np.integer):
        raise ShapeError(f"a shape is a tuple: write ({shape},) instead of {shape}")
    try:
        lengths = tuple(shape)
        if any(isinstance(s, Axis) for s in lengths):
            raise ShapeError(f"a shape is that of the event at one point; axes go by over=. Got {shape}")
        result = tuple(operator.index(s) for s in lengths)
    except TypeError:
        raise ShapeError(f"a shape is a tuple of whole numbers, got {shape!r}") from None
    if any(s < 1 for s in result):
        raise ShapeError(f"every length of a shape is at least 1, got {result}")
    return result


_DISTANCE = (
    "a point of axis {0!r} is a whole number of steps from the current one, {0} - 1 or {0} + 2, a number that is fixed "
    "when the graph is built; the position as a value is gc.index({0})"
)


def _steps(axis: Axis, offset: object) -> int:
    """The distance of a point from the current one."""
    if not is_whole(offset):
        raise AxisError(f"{_DISTANCE.format(axis.name)}; got {offset!r}")
    return int(offset)


def _no_number(self: Any, *_: object) -> NoReturn:
    raise AxisError(
        f"a point of axis {_name_of(self)!r} is no number while the graph is built, and no condition; the position is "
        f"gc.index({_name_of(self)}): gc.where(gc.index({_name_of(self)}) == 0, a, b)"
    )


def _no_elements(self: Any, *_: object) -> NoReturn:
    t = _name_of(self)
    raise AxisError(
        f"an axis has no elements; x[{t}.first], x[{t}.last] and x[{t}.at(3)] are values at one of its points"
    )


def _name_of(self: Axis | AxisPoint | AxisEdge) -> str:
    return self.name if isinstance(self, Axis) else self.axis.name


class _AlongAxis:
    """What an axis and its points are not: numbers, conditions, sequences."""

    __slots__ = ()

    __lt__ = __le__ = __gt__ = __ge__ = __float__ = __int__ = __index__ = _no_number
    __getitem__ = _no_elements

    def _differs(self, other: object) -> bool:
        """Whether this differs from something of another kind: always. But comparing it with a number is a mistake, as
        there would be one answer for all points."""
        if isinstance(other, int | float | np.number | np.ndarray) or hasattr(other, "node"):
            _no_number(self)
        return True


def _no_point(self: Axis | AxisPoint, *_: object) -> NoReturn:
    raise AxisError(f"{_DISTANCE.format(_name_of(self))}; no multiple or part of it is a point")


@dataclass(frozen=True, slots=True)
class Axis(_AlongAxis):
    """A named axis: time, batch, image rows.

    `length` is an int (fixed), None (it comes with the data), or an int32 node without this axis (it differs
    per example; points past it do not exist). `t - 1` names a neighbouring point, `t.last` the end. An axis that is
    `like` another is a second index of it, of the same length, so that `q[t]` and `k[s]` meet at all pairs of points.
    `dtype`, that of numbers beside its positions, is its graph's, and no part of its identity.
    """

    name: str
    length: int | Node | None = None
    dtype: str = field(default="float32", compare=False, repr=False)
    like: Axis | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Axis):
            return not self._differs(other)
        return (self.name, self.length, self.like) == (other.name, other.length, other.like)

    @property
    def root(self) -> Axis:
        """The axis that this is an index of: itself, unless it is like another."""
        return self if self.like is None else self.like

    @property
    def is_open(self) -> bool:
        """Whether a call says how long its arrays are: it has no fixed length, and is not like another axis."""
        return not isinstance(self.length, int) and self.like is None

    def __add__(self, offset: int) -> AxisPoint:
        return AxisPoint(self, _steps(self, offset))

    def __sub__(self, offset: int) -> AxisPoint:
        return AxisPoint(self, -_steps(self, offset))

    __radd__ = __add__
    __mul__ = __rmul__ = __truediv__ = __floordiv__ = __mod__ = __neg__ = __rsub__ = _no_point

    @property
    def first(self) -> AxisEdge:
        return AxisEdge(self, "first")

    @property
    def last(self) -> AxisEdge:
        return AxisEdge(self, "last")

    def at(self, position: Any) -> AxisEdge:
        """The point at a position counted from 0: a fixed one, or that which an int32 value says."""
        if isinstance(getattr(position, "node", None), Node):
            return AxisEdge(self, position)
        if not is_whole(position) or position < 0:
            raise AxisError(
                f"{self.name}.at takes a position counted from 0, a whole number or an int32 value, got {position!r}; "
                f"{self.name}.last is the last point, and x[{self.name} - 1][{self.name}.last] reads the one before it"
            )
        return AxisEdge(self, int(position))

    def __repr__(self) -> str:
        return f"<axis {self.name}>"


@dataclass(frozen=True, slots=True)
class AxisPoint(_AlongAxis):
    """The point `offset` steps further along an axis than the current one."""

    axis: Axis
    offset: int

    def __post_init__(self) -> None:
        if abs(self.offset) > MOST_POINTS:
            raise AxisError(
                f"a point of axis {self.axis.name!r} is at most {MOST_POINTS:,} steps away, got {self.offset:,}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AxisPoint):
            return not self._differs(other)
        return (self.axis, self.offset) == (other.axis, other.offset)

    def __add__(self, offset: int) -> AxisPoint:
        return AxisPoint(self.axis, self.offset + _steps(self.axis, offset))

    def __sub__(self, offset: int) -> AxisPoint:
        return AxisPoint(self.axis, self.offset - _steps(self.axis, offset))

    __radd__ = __add__
    __mul__ = __rmul__ = __truediv__ = __floordiv__ = __mod__ = __neg__ = __rsub__ = _no_point


@dataclass(frozen=True, slots=True)
class AxisEdge(_AlongAxis):
    """One point of an axis, whatever the current one: its first, its last, or the one at a position, which may be a
    value."""

    axis: Axis
    position: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AxisEdge):
            return not self._differs(other)
        same = self.position is other.position
        if isinstance(self.position, str | int) and isinstance(other.position, str | int):
            same = self.position == other.position
        return same and self.axis == other.axis

    def __add__(self, offset: int) -> NoReturn:
        t = self.axis.name
        raise AxisError(f"no steps are counted from one point; x[{t} - 1][{t}.last] reads the point before {t}.last")

    __sub__ = __radd__ = __rsub__ = __add__


@dataclass(frozen=True, slots=True)
class Type:
    """The axes that a value varies over, and the shape and dtype of its event."""

    axes: tuple[Axis, ...]
    shape: Shape
    dtype: str

    def __str__(self) -> str:
        over = f" over {', '.join(a.name for a in self.axes)}" if self.axes else ""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]{over}"


Point = Mapping[Axis, int]
Reads = Sequence[tuple["Node", Point]]


def _reads_here(node: Node, point: Point, domain: Any) -> Reads:
    return [(value, point) for value in node.inputs]


def _delays_nothing(node: Node, k: int) -> Mapping[Axis, int | None]:
    return {}


@dataclass(frozen=True, eq=False, slots=True)
class Op:
    """An operation and all its rules.

    infer(inputs, attrs)        the type of the result, or an error
    compute(node, arrays)       the event at a point, from the events that `reads` names: the numpy reference
    reads(node, point, domain)  which points of the inputs a point depends on; by default the same point of each
    gradient(node, adjoint)     one contribution per input, in graph ops, or None where there is none; a
                                contribution may be broadcast more widely than the input: the caller sums
    lower(node, site)           the scalar at a point (see `Site`)
    expand(node)                instead of `lower`: the same value in simpler ops
    delays(node, k)             how far from the point input k is read along each axis; an axis that maps to
                                None is read at points that are not a fixed distance away
    cost                        of computing one element again, in additions; leaves cost one load
    reduces                     whether one element takes a sum over many: never computed twice
    view                        whether it only says where an element comes from
    stored                      whether it takes values of the dtypes that only store (float16, bfloat16) as they
                                are, and gives them on; any other op takes them as float32 (see `make`)
    attributes                  the names of its attributes; each node has all of them
    """

    name: str
    infer: Callable[[tuple[Node, ...], Mapping[str, Any]], Type]
    compute: Callable[[Node, Sequence[np.ndarray]], Any] | None
    gradient: Callable[[Node, Node], Sequence[Node | None]] | None
    lower: Callable[[Node, Any], Scalar] | None = None
    expand: Callable[[Node], Node] | None = None
    reads: Callable[[Node, Point, Any], Reads] = _reads_here
    delays: Callable[[Node, int], Mapping[Axis, int | None]] = _delays_nothing
    cost: int = 1
    reduces: bool = False
    view: bool = False
    stored: bool = False
    attributes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class Node:
    """One value. Made by `make` only, so that equal expressions are one object."""

    __slots__ = ("__weakref__", "attrs", "axes", "dtype", "inputs", "op", "shape")
    op: Op
    inputs: tuple[Node, ...]
    attrs: Attributes
    axes: tuple[Axis, ...]
    shape: Shape
    dtype: str

    @property
    def type(self) -> Type:
        return Type(self.axes, self.shape, self.dtype)

    def __getitem__(self, name: str) -> Any:
        """An attribute of the op, by name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op.name} has no attribute {name!r}")

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: object) -> Node:
        return self  # a copy would be equal to nothing

    def __reduce__(self) -> NoReturn:
        raise UnsupportedError("a value is pickled with its graph: pickle the graph, and look it up by its name there")

    def __repr__(self) -> str:
        attrs = "".join(f" {k}={v!r}" for k, v in self.attrs if k != "data")
        return f"<{self.op.name}{attrs}: {self.type}>"


_interned: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()


def make(op: Op, inputs: Iterable[Node] = (), **attrs: Any) -> Node:
    """The node that applies `op`; its type is inferred, and errors name what did not fit.

    float16 and bfloat16 are for storing: whatever is computed of such a value is computed of the same number in
    float32. This is the one place that sees to it, for every op but those that only carry values on (`Op.stored`).
    """
    inputs = tuple(inputs) if op.stored else tuple(widen(i) for i in inputs)
    items = tuple(sorted(attrs.items()))
    key = (op, inputs, items)
    node = _interned.get(key)
    if node is None:
        if attrs.keys() != set(op.attributes):
            raise _attribute_error(op, attrs)
        inferred = op.infer(inputs, attrs)
        if math.prod(inferred.shape) > MOST_ELEMENTS:
            raise ShapeError(f"an event of shape {inferred.shape} has more than {MOST_ELEMENTS:,} elements")
        node = Node()
        node.op, node.inputs, node.attrs = op, inputs, items
        node.axes, node.shape, node.dtype = inferred.axes, inferred.shape, inferred.dtype
        node = _interned.setdefault(key, node)
    return node


def _attribute_error(op: Op, given: Mapping[str, Any]) -> ArgumentError:
    """The error where an op has other attributes than those given."""
    known = f"its attributes are {', '.join(op.attributes)}" if op.attributes else "it has no attributes"
    unknown = [name for name in given if name not in op.attributes]
    if unknown:
        return ArgumentError(f"{op.name} takes no {unknown[0]}=; {known}{meant(unknown[0], op.attributes)}")
    return ArgumentError(f"{op.name} lacks {listed([f'{n}=' for n in op.attributes if n not in given])}; {known}")


# widen(value): the same number in float32.
def _widen_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,) = inputs
    if value.dtype not in STORED:
        raise DtypeError(f"widen takes a value of dtype {' or '.join(STORED)}, got {value.dtype}")
    return Type(value.axes, value.shape, "float32")


WIDEN = Op(
    "widen",
    _widen_infer,
    lambda node, arrays: arrays[0].astype(np.float32),
    lambda node, d: (d,),
    lambda node, site: site.read(0),  # a load gives a float32 already
    cost=0,
    view=True,
    stored=True,
)


def widen(value: Node) -> Node:
    """The value in a dtype that is computed with."""
    return make(WIDEN, (value,)) if value.dtype in STORED else value


def rebuild(node: Node, inputs: Sequence[Node]) -> Node:
    """The same op on other inputs."""
    if all(a is b for a, b in zip(node.inputs, inputs, strict=True)):
        return node
    return make(node.op, inputs, **dict(node.attrs))


def topological(roots: Iterable[Node]) -> list[Node]:
    """Every node that the roots are made of, inputs first, in an order fixed by the roots' order."""
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        stack: list[tuple[Node, Iterator[Node]]] = []
        if root not in seen:
            seen.add(root)
            stack.append((root, iter(dependencies(root))))
        while stack:
            node, rest = stack[-1]
            for below in rest:
                if below not in seen:
                    seen.add(below)
                    stack.append((below, iter(dependencies(below))))
                    break
            else:
                order.append(node)
                stack.pop()
    return order


def dependencies(node: Node) -> tuple[Node, ...]:
    """The inputs, and the lengths of the node's ragged axes: a value has no meaning without them."""
    lengths = tuple(a.length for a in node.axes if isinstance(a.length, Node))
    return node.inputs + lengths


def size(shape: Shape) -> int:
    return math.prod(shape)


def merge_axes(*axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """The union, in order of first appearance. Two different axes of one name are an error."""
    merged: dict[str, Axis] = {}
    for axis in (a for group in axes for a in group):
        known = merged.setdefault(axis.name, axis)
        if known is not axis and known != axis:
            raise AxisError(f"two different axes are both called {axis.name!r}; values of two graphs do not mix")
    return tuple(merged.values())


def broadcast_shapes(shapes: Sequence[Shape], what: str) -> Shape:
    try:
        return tuple(np.broadcast_shapes(*shapes))
    except ValueError:
        found = " and ".join(str(s) for s in shapes)
        raise ShapeError(f"{what}: event shapes {found} do not broadcast") from None


def lengths_within(axis: Axis, axes: Iterable[Axis]) -> Node | None:
    """The lengths, one for each example, at which a value over `axes` ends along this axis. None if it does not: the
    axis is not ragged, or its lengths vary over an axis that the value lacks."""
    return axis.length if isinstance(axis.length, Node) and set(axis.length.axes) <= set(axes) else None
