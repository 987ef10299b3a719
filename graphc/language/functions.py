"""The functions of expressions, named as in numpy and PyTorch.

They take values, Python numbers and numpy arrays. Elementwise functions work on events of any shape and broadcast as
numpy does. Reductions take `over=` axes, or `dim=` event dimensions; with neither they reduce the whole event.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DefinitionError, DtypeError, ProtocolError, ShapeError
from graphc.integers import is_whole
from graphc.ir import FLOATS, Axis, Node, Shape, check_dtype, topological
from graphc.language.habits import by_dim
from graphc.language.value import Positions, Value, alike, as_value, binary, home, promote, several
from graphc.ops import axis as axis_ops
from graphc.ops import composite, gradient, leaves, reduction, table
from graphc.ops import elementwise as ew
from graphc.ops import event as event_ops
from graphc.scalar import computed

Dims = int | Sequence[int] | None
Over = Axis | Iterable[Axis] | None


def _unary(op: Callable[[Node], Node], doc: str, floating: bool = True) -> Callable[[Any], Value]:
    def function(x: Any) -> Value:
        (value,) = promote(x, floating=floating)
        return Value(value.graph, op(value.node))

    function.__doc__ = doc
    function.__name__ = op.__name__
    return function


tanh = _unary(ew.tanh, "Hyperbolic tangent.")
sigmoid = _unary(ew.sigmoid, "The logistic function 1 / (1 + e^-x).")
relu = _unary(ew.relu, "max(x, 0); its derivative at 0 is 0.", floating=False)
exp = _unary(ew.exp, "eˣ.")
expm1 = _unary(ew.expm1, "eˣ - 1, accurate near 0.")
log = _unary(ew.log, "Natural logarithm.")
log1p = _unary(ew.log1p, "log(1 + x), accurate near 0.")
sqrt = _unary(ew.sqrt, "Square root.")
abs = _unary(ew.abs, "Absolute value; its derivative at 0 is 0.", floating=False)
sign = _unary(ew.sign, "-1, 0 or 1; its derivative is 0.", floating=False)
floor = _unary(ew.floor, "The largest integer that is not larger; its derivative is 0.")
sin = _unary(ew.sin, "Sine of an angle in radians.")
cos = _unary(ew.cos, "Cosine of an angle in radians.")
erf = _unary(ew.erf, "The error function.")
softplus = _unary(ew.softplus, "log(1 + eˣ), without overflow.")
stop_gradient = _unary(ew.stop_gradient, "The value, held constant by differentiation.", floating=False)


def maximum(a: Any, b: Any) -> Value:
    """The larger, element by element; at a tie each operand gets half of the gradient."""
    return binary(ew.maximum, a, b)


def minimum(a: Any, b: Any) -> Value:
    """The smaller, element by element; at a tie each operand gets half of the gradient."""
    return binary(ew.minimum, a, b)


def where(condition: Any, then: Any, otherwise: Any) -> Value:
    """`then` where the bool condition holds, else `otherwise`."""
    if isinstance(condition, bool):
        raise DtypeError(
            "the condition of gc.where is a value or an array; one that is known while the graph is built is an if"
        )
    c = as_value(condition, None)
    a, b = promote(then, otherwise, beside=c.graph)
    return Value(home(c, a, b), ew.where(c.node, a.node, b.node))


def clip(x: Any, low: Any, high: Any) -> Value:
    """The nearest value between `low` and `high`. At a bound itself half of the gradient passes."""
    return minimum(maximum(x, low), high)


def square(x: Any) -> Value:
    """x · x."""
    return binary(ew.mul, x, x)


def silu(x: Any) -> Value:
    """x σ(x), also called swish (Elfwing et al. 2018)."""
    return binary(ew.mul, x, sigmoid(x))


def gelu(x: Any) -> Value:
    """x Φ(x), with the normal distribution's Φ (Hendrycks & Gimpel 2016); exact, by the error function."""
    return binary(ew.mul, x, 0.5 * (1.0 + erf(binary(ew.mul, x, 1 / math.sqrt(2)))))


def log_sigmoid(x: Any) -> Value:
    """log σ(x) = -log(1 + e^-x), without overflow."""
    return -softplus(-promote(x, floating=True)[0])


def elu(x: Any, alpha: float = 1.0) -> Value:
    """x where it is positive, else α (eˣ - 1) (Clevert et al. 2016)."""
    positive = binary(ew.lt, 0, x)
    return where(positive, x, alpha * expm1(where(positive, 0, x)))  # no overflow where it is not chosen


def leaky_relu(x: Any, slope: float = 0.01) -> Value:
    """x where it is positive, else slope · x."""
    return where(binary(ew.lt, 0, x), x, binary(ew.mul, x, slope))


def hard_sigmoid(x: Any) -> Value:
    """min(max(x / 6 + 1/2, 0), 1), PyTorch's and Keras 3's."""
    return clip(binary(ew.mul, x, 1 / 6) + 0.5, 0.0, 1.0)


def cast(x: Any, dtype: str) -> Value:
    """The value in another dtype. To integers, floats are truncated towards zero, to the nearest there is beyond the
    ends, and NaN is 0; to "float16" and "bfloat16" they are rounded to the nearest number, by way of float32. Only
    between floats has it a gradient."""
    value = as_value(x, None)
    return Value(value.graph, ew.cast(value.node, check_dtype(dtype)))


# Reductions.


def reduced_axes(over: Over, option: str = "over") -> tuple[Axis, ...]:
    """The axes that an option names; one alone needs no tuple."""
    if over is None:
        return ()
    axes = several(over)
    for axis in axes:
        if not isinstance(axis, Axis):
            hint = "; event dimensions are named by dim=" if option == "over" else ""
            raise AxisError(f"{option}= takes axes, such as {option}=t{hint}. Got {axis!r}")
    return axes


def reduced_dims(value: Value, dim: Dims, over: Over) -> tuple[int, ...]:
    rank = len(value.shape)
    if dim is None:
        return tuple(range(rank)) if over is None else ()
    dims = several(dim)
    for d in dims:
        if not is_whole(d):
            raise ShapeError(f"dim= takes event dimensions, such as dim=0; axes are named by over=. Got {d!r}")
    named = {event_dim(d, value.shape) for d in dims}
    if len(named) < len(dims):
        raise ShapeError(f"dim= names a dimension of an event of shape {value.shape} twice, got {dims!r}")
    return tuple(sorted(named))


def event_dim(dim: Any, shape: Shape, *, new: bool = False) -> int:
    """An event dimension counted from 0, where a negative one counts from the end; `new`: one to insert there."""
    rank = len(shape) + new
    if not is_whole(dim):
        raise ShapeError(f"dim= takes an event dimension, such as dim=0. Got {dim!r}")
    if not -rank <= dim < rank:
        where = "no place for a new dimension in" if new else "outside"
        raise ShapeError(f"dim={dim} is {where} an event of shape {shape}")
    return int(dim) % rank


def _reduce(op: Any, x: Any, over: Over, dim: Dims, keepdims: bool, floating: bool) -> Value:
    (value,) = promote(x, floating=floating)
    if value.dtype == "bool":
        value = cast(value, "int32")
    dims, axes = reduced_dims(value, dim, over), reduced_axes(over)
    of_each = reduction.of_each_length(value.node, axes)
    for axis in axes:
        if axis not in of_each.axes:
            raise AxisError(f"the value does not vary over axis {axis.name!r}: {value.node.type}")
    node = op(of_each, dims, axes)
    if keepdims:
        node = event_ops.reshape(node, tuple(1 if d in dims else s for d, s in enumerate(value.shape)))
    return Value(value.graph, node)


@by_dim
def sum(x: Any, over: Over = None, dim: Dims = None, keepdims: bool = False) -> Value:
    """The sum over axes or event dimensions. Points past an example's length do not count: over an axis whose length
    differs per example, there is a sum for each, even of a value that is the same for all."""
    return _reduce(reduction.sum_, x, over, dim, keepdims, floating=False)


@by_dim
def max(x: Any, over: Over = None, dim: Dims = None, keepdims: bool = False) -> Value:
    """The largest element over axes or event dimensions; equal ones share the gradient."""
    _check_no_operand(over, "the larger of two values is gc.maximum(x, y)")
    return _reduce(reduction.max_, x, over, dim, keepdims, floating=False)


@by_dim
def min(x: Any, over: Over = None, dim: Dims = None, keepdims: bool = False) -> Value:
    """The smallest element over axes or event dimensions; equal ones share the gradient."""
    _check_no_operand(over, "the smaller of two values is gc.minimum(x, y)")
    (value,) = promote(x)
    if value.dtype in FLOATS:
        return -max(-value, over, dim, keepdims)
    return -1 - max(-1 - value, over, dim, keepdims)  # the lowest int32 has no negative


def _check_no_operand(over: Over, meant: str) -> None:
    """Check that the second argument of a reduction is not a second operand, as Python's max and min take."""
    try:
        reduced_axes(over)
    except AxisError as error:
        raise AxisError(f"{error.reason}; {meant}") from None


@by_dim
def mean(x: Any, over: Over = None, dim: Dims = None, keepdims: bool = False) -> Value:
    """The mean over axes or event dimensions, of the points that exist."""
    (value,) = promote(x, floating=True)
    total = sum(value, over, dim, keepdims)
    number = float(math.prod(value.shape[d] for d in reduced_dims(value, dim, over)))
    result = total / number if number != 1 else total
    axes = reduced_axes(over)
    if not axes:
        return result
    points = reduction.count(reduction.of_each_length(value.node, axes), axes, value.dtype)
    return Value(result.graph, ew.div(result.node, points))


@by_dim
def var(x: Any, over: Over = None, dim: Dims = None, keepdims: bool = False) -> Value:
    """The population variance over axes or event dimensions."""
    centre = mean(x, over, dim, keepdims=True)
    return mean(square(promote(x)[0] - centre), over, dim, keepdims)


@by_dim
def argmax(x: Any, over: Axis | None = None, dim: int | None = None) -> Value:
    """The int32 position of the largest element over an axis, or along an event dimension, by default the last.

    If several are largest, the first; over an axis, 0 for an example without points. As in numpy, a NaN counts as the
    largest.
    """
    return _position(max, x, over, dim)


@by_dim
def argmin(x: Any, over: Axis | None = None, dim: int | None = None) -> Value:
    """The int32 position of the smallest element over an axis, or along an event dimension: as `argmax`."""
    return _position(min, x, over, dim)


def _position(extreme: Callable[..., Value], x: Any, over: Axis | None, dim: int | None) -> Value:
    (value,) = promote(x)
    reduced_axes(over)
    if over is not None:
        if dim is not None:
            raise ShapeError("argmax and argmin take over=, an axis, or dim=, not both")
        found = where(_found(value, extreme(value, over=over)), index(over), length(over))
        return maximum(_first(found, over=over), 0)  # over no points the first is negative
    if not value.shape:
        raise ShapeError("argmax and argmin of an event that is a number; over an axis, they take over=")
    d = event_dim(-1 if dim is None else dim, value.shape)
    extent = value.shape[d]
    positions = np.arange(extent).reshape(-1, *[1] * (len(value.shape) - 1 - d))
    return _first(where(_found(value, extreme(value, dim=d, keepdims=True)), positions, extent), dim=d)


def _first(positions: Value, **where: Any) -> Value:
    """The smallest of positions, which all have a negative."""
    return -max(-positions, **where)


def _found(value: Value, wanted: Value) -> Value:
    """Where a value is the wanted one, or NaN."""
    found = value == wanted
    return found | (value != value) if value.dtype in FLOATS else found


@by_dim
def prod(x: Any, dim: Dims = None) -> Value:
    """The product over event dimensions, of the whole event by default; its gradient is right at zeros, too."""
    (value,) = promote(x)
    if value.dtype == "bool":
        value = cast(value, "int32")
    dims = reduced_dims(value, dim, None)
    if not dims:
        return value
    kept = [d for d in range(len(value.shape)) if d not in dims]
    result = transpose(value, *dims, *kept).reshape(-1, *(value.shape[d] for d in kept))
    while result.shape[0] > 1:  # by halves: as few operations as the logarithm of the length
        half = result.shape[0] // 2
        pairs = result[:half] * result[half : 2 * half]
        result = pairs if result.shape[0] == 2 * half else concat([pairs, result[2 * half :]], dim=0)
    return result[0]


# Classification.


def one_hot(label: Any, classes: int, dtype: str = "") -> Value:
    """1 at the label's position of a new last event dimension, 0 elsewhere.

    An int32 label of event (…) gives (…, classes), of `dtype`, by default the graph's; where the label is no class, it
    gives zeros.
    """
    value = as_value(label, None)
    if value.dtype != "int32":
        raise DtypeError(f"the label of one_hot is an int32 value, got {value.dtype}")
    if not is_whole(classes) or classes < 1:
        raise ShapeError(f"one_hot takes how many classes there are, a whole number from 1 on, got {classes!r}")
    default = value.graph.dtype if value.graph is not None else "float32"
    return Value(value.graph, composite.one_hot(value.node, int(classes), dtype or default))


def embedding(table_: Any, index: Any) -> Value:
    """Row `index` of a table with event (rows, …), for every element of the int32 index.

    A table (rows, d…) and an index (i…) give an event (i…, d…), over the axes of both. A call refuses an input that
    names other rows, by `ArgumentError`; where the index is computed, it is the nearest row.
    """
    rows, which = as_value(table_, None), as_value(index, None)
    return Value(home(rows, which), table.gather(rows.node, which.node))


# Events.


@by_dim
def concat(values: Sequence[Any], dim: int = -1) -> Value:
    """The events joined along a dimension. Their other dimensions are equal; axes broadcast."""
    parts = _listed(concat, values)
    return Value(parts[0].graph, event_ops.concat([p.node for p in parts], event_dim(dim, parts[0].shape)))


@by_dim
def stack(values: Sequence[Any], dim: int = 0) -> Value:
    """The events of equal shape joined along a new dimension."""
    parts = _listed(stack, values)
    at = event_dim(dim, parts[0].shape, new=True)
    return concat([p.reshape(*p.shape[:at], 1, *p.shape[at:]) for p in parts], at)


def _listed(function: Callable[..., Value], values: Sequence[Any]) -> list[Value]:
    """The values of a list, of which there is at least one."""
    name = function.__name__
    if isinstance(values, Value) or not isinstance(values, Iterable):
        raise ProtocolError(f"gc.{name} takes its values in a list: gc.{name}([x, y])")
    found = alike(*values)
    if not found:
        raise ShapeError(f"{name} of no values")
    return found


@by_dim
def split(x: Any, parts: int | Sequence[int], dim: int = -1) -> tuple[Value, ...]:
    """The event cut along a dimension into equal parts, or into parts of the given lengths.

    `split(x, 4)` makes four parts, `split(x, (3, 5))` two, of 3 and 5 elements. Raises `ShapeError` if they do not make
    up the dimension.
    """
    (value,) = alike(x)
    at = event_dim(dim, value.shape)
    lengths = _part_lengths(parts, value.shape[at])
    starts = [0, *itertools.accumulate(lengths)]
    nodes = [event_ops.slice_(value.node, at, start, 1, n) for start, n in zip(starts, lengths, strict=False)]
    return tuple(Value(value.graph, node) for node in nodes)


def _part_lengths(parts: Any, extent: int) -> list[int]:
    """The lengths of the parts that `split` cuts a dimension into."""
    if is_whole(parts):
        if parts < 1 or extent % parts:
            raise ShapeError(f"an event dimension of {extent} does not split into {parts} equal parts")
        return [extent // int(parts)] * int(parts)
    lengths = [] if isinstance(parts, Value) or not isinstance(parts, Iterable) else list(parts)
    if not lengths or not all(is_whole(n) and n >= 1 for n in lengths):
        raise ShapeError(f"split takes a number of equal parts or a list of their lengths, got {parts!r}")
    if np.sum(lengths) != extent:
        raise ShapeError(f"parts of {lengths} do not make up an event dimension of {extent}")
    return [int(n) for n in lengths]


@by_dim
def flip(x: Any, dim: Dims = None) -> Value:
    """The event with the elements along dimensions, all by default, in reverse order. Sequences run backwards by
    `h[t + 1]`, not by this."""
    (value,) = alike(x)
    dims = reduced_dims(value, dim, None)
    return value[tuple(slice(None, None, -1 if d in dims else 1) for d in range(len(value.shape)))]


@by_dim
def roll(x: Any, shift: int, dim: int = -1) -> Value:
    """The event with its elements `shift` places further along a dimension; those beyond its end come back at its
    beginning. Along an axis, and without a way back, `x.shift(t, -1)` moves values."""
    (value,) = alike(x)
    if not is_whole(shift):
        raise ShapeError(f"roll takes a whole number of places, fixed when the graph is built, got {shift!r}")
    d = event_dim(dim, value.shape)
    extent = value.shape[d]
    if shift % extent == 0:
        return value
    before, after = split(value, [extent - shift % extent, shift % extent], d)
    return concat([after, before], d)


def transpose(x: Any, *perm: Any) -> Value:
    """The event with its dimensions in another order, by default the reverse."""
    (value,) = alike(x)
    order = tuple(perm[0]) if len(perm) == 1 and isinstance(perm[0], tuple | list) else perm
    if not all(isinstance(d, int | np.integer) for d in order):
        raise ShapeError(f"transpose takes event dimensions in their new order, gc.transpose(x, 1, 0), got {order}")
    return Value(value.graph, event_ops.transpose(value.node, tuple(map(int, order)))) if order else value.T


# Axes.


def index(axis: Axis) -> Value:
    """The position along an axis, from 0, as an int32 value."""
    _check_axis(axis, "index")
    return Value(Positions(axis.dtype), leaves.index(axis))


def length(axis: Axis) -> Value:
    """The number of points along an axis, as an int32 value; for a ragged axis, each example's own."""
    _check_axis(axis, "length")
    return Value(Positions(axis.dtype), leaves.length(axis))


def _check_axis(axis: Any, function: str) -> None:
    if not isinstance(axis, Axis):
        raise AxisError(f'gc.{function} takes an axis, as t = g.axis("t") gives it, got {axis!r}')


def as_axis(x: Any, dim: int, axis: Axis) -> Value:
    """Dimension `dim` of the event as an axis, whose fixed length is the dimension's. Raises `ShapeError` if it is not.

    With `i = g.axis("i", 4)`, an event (4, 3) over n becomes, by `as_axis(x, 0, i)`, an event (3,) over i and n.
    """
    _check_axis(axis, "as_axis")
    (value,) = promote(x)
    return Value(value.graph, axis_ops.as_axis(value.node, event_dim(dim, value.shape), axis))


def as_dim(x: Any, axis: Axis, dim: int = 0) -> Value:
    """An axis of fixed length as a further dimension of the event, in place `dim`: the inverse of `as_axis`."""
    _check_axis(axis, "as_dim")
    (value,) = promote(x)
    return Value(value.graph, axis_ops.as_dim(value.node, axis, event_dim(dim, value.shape, new=True)))


# Gradients.


def custom_gradient(function: Callable[..., tuple[Value, Callable[[Value], Any]]]) -> Callable[..., Value]:
    """A function of values whose gradient is given by hand, as a decorator.

    The function returns its value and a rule: from the adjoint of the value to one contribution per argument (None
    where there is none). A surrogate gradient for a spike:

        @gc.custom_gradient
        def spike(v):
            return gc.where(v > 0, 1.0, 0.0), lambda d: d / (1 + gc.abs(v)) ** 2
    """

    def wrapped(*arguments: Any) -> Value:
        values = promote(*arguments)
        result, rule = function(*values)
        graph = result.graph
        name = f"cotangent{len(_cotangents(result.node))}"
        placeholder = leaves.leaf(leaves.COTANGENT, name, result.axes, result.shape, computed(result.dtype))
        given = rule(Value(graph, placeholder))
        contributions = given if isinstance(given, tuple | list) else (given,)
        if len(contributions) != len(values):
            raise DefinitionError(f"the rule gives {len(contributions)} contributions to {len(values)} arguments")
        pairs = [
            (value.node, _adjoint_of(value, as_value(c, graph, dtype=value.dtype)))
            for value, c in zip(values, contributions, strict=True)
            if c is not None
        ]
        operands, rules = [p[0] for p in pairs], [p[1] for p in pairs]
        return Value(graph, gradient.custom_gradient(result.node, placeholder, operands, rules))

    return wrapped


def _adjoint_of(value: Value, contribution: Value) -> Node:
    """The contribution to a value's adjoint in the dtype that the adjoint has."""
    dtype = computed(value.dtype)
    return ew.cast(contribution.node, dtype) if {dtype, contribution.dtype} <= {*FLOATS} else contribution.node


def _cotangents(node: Node) -> list[Node]:
    return [n for n in topological([node]) if n.op is leaves.COTANGENT]
