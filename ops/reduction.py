"""Ops that change how far a value extends: sum and max over axes and event dimensions, and broadcast, their dual."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DtypeError, ShapeError
from graphc.ir import (
    Axis,
    Node,
    Op,
    Point,
    Reads,
    Shape,
    Type,
    broadcast_shapes,
    lengths_within,
    make,
    merge_axes,
    size,
)
from graphc.ops.elementwise import cast, div, eq, maximum, mul, where
from graphc.ops.event import reshape
from graphc.ops.leaves import const, length
from graphc.ops.site import Event, Reduction, Site
from graphc.scalar import Scalar, lowest


# broadcast(value; axes, shape): the same element wherever the value does not vary.
def _broadcast_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), axes, shape = inputs, attrs["axes"], attrs["shape"]
    if not set(value.axes) <= set(axes) or len(set(axes)) < len(axes):
        raise AxisError(f"broadcast of a value over {value.axes} to fewer axes, or to one twice: {axes}")
    if broadcast_shapes([value.shape, shape], "broadcast") != shape:
        raise ShapeError(f"an event of shape {value.shape} does not broadcast to {shape}")
    return Type(axes, shape, value.dtype)


BROADCAST = Op(
    "broadcast",
    _broadcast_infer,
    lambda node, arrays: np.broadcast_to(arrays[0], node.shape),
    lambda node, d: (d,),
    lambda node, site: site.read(0),
    cost=0,
    view=True,
    stored=True,
    attributes=("axes", "shape"),
)


def broadcast(value: Node, axes: Sequence[Axis], shape: Shape) -> Node:
    """The value over exactly these axes, in this order."""
    if value.axes == tuple(axes) and value.shape == shape:
        return value
    return make(BROADCAST, (value,), axes=tuple(axes), shape=shape)


# sum(value; dims, over) and max(value; dims, over): over event dimensions and over all existing points of axes.
def _reduce_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), dims, over = inputs, attrs["dims"], attrs["over"]
    if len(set(over)) < len(over) or len(set(dims)) < len(dims):
        raise AxisError(f"a reduction over {', '.join([*(a.name for a in over), *map(str, dims)])}, one of them twice")
    for axis in over:
        if axis not in value.axes:
            raise AxisError(f"a reduction over axis {axis.name!r} of a value that does not vary over it ({value.type})")
    if any(not 0 <= d < len(value.shape) for d in dims):
        raise ShapeError(f"a reduction over event dimensions {dims} of an event of shape {value.shape}")
    if value.dtype == "bool":
        raise DtypeError("a sum or maximum of bools; cast them to int32 first")
    shape = tuple(s for d, s in enumerate(value.shape) if d not in dims)
    return Type(tuple(a for a in value.axes if a not in over), shape, value.dtype)


def reduced_points(value: Node, over: Sequence[Axis], point: Point, domain: Any) -> list[Point]:
    """The existing points of `value` that agree with `point` outside the axes `over`."""
    points: list[Point] = [point]
    for axis in sorted(over, key=_nesting):  # an axis can be walked at a point of those that its length varies over
        points = [{**p, axis: k} for p in points for k in range(domain.length(axis, value.axes, p))]
    kept = [a for a in measured_by(value.axes, over) if a not in over]
    return [p for p in points if all(p[a] < domain.length(a, value.axes, p) for a in kept)]


def reads_of_pairs(node: Node, point: Point, domain: Any) -> Reads:
    """What a sum of something made of two operands reads: both of them at each of its points."""
    left, right = node.inputs
    everywhere = broadcast(left, merge_axes(left.axes, right.axes), left.shape)
    points = reduced_points(everywhere, node["over"], point, domain)
    return [pair for p in points for pair in ((left, p), (right, p))]


def _nesting(axis: Axis) -> int:
    """How many axes, one measured by the other, come before it: sentences by texts, words by sentences."""
    return 1 + max(map(_nesting, axis.length.axes), default=0) if isinstance(axis.length, Node) else 0


def measured_by(axes: Sequence[Axis], varying: Sequence[Axis]) -> list[Axis]:
    """Those of `axes` whose lengths differ along one of the axes `varying`."""
    lengths = {axis: lengths_within(axis, axes) for axis in axes}
    return [axis for axis, own in lengths.items() if own is not None and set(own.axes) & set(varying)]


def _reduce_reads(node: Node, point: Point, domain: Any) -> Reads:
    (value,) = node.inputs
    return [(value, p) for p in reduced_points(value, node["over"], point, domain)]


def over_delays(node: Node, k: int) -> Mapping[Axis, int | None]:
    return dict.fromkeys(node["over"])


def _reduce_lower(op: Reduction) -> Callable[[Node, Site], Scalar]:
    def lower(node: Node, site: Site) -> Scalar:
        (value,) = node.inputs

        def element(inner: Site, events: Event) -> Scalar:
            kept, summed = iter(site.event), iter(events)
            event = tuple(next(summed if d in node["dims"] else kept) for d in range(len(value.shape)))
            return inner.read(0, event=event)

        return site.reduce(op, node["over"], [value.shape[d] for d in node["dims"]], element)

    return lower


def _sum_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    if not arrays:
        return np.zeros(node.shape, node.dtype)
    return np.stack(arrays).sum(axis=(0, *(d + 1 for d in node["dims"])), dtype=node.dtype)


def _max_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    if not arrays:
        return np.full(node.shape, lowest(node.dtype).value, node.dtype)
    return np.stack(arrays).max(axis=(0, *(d + 1 for d in node["dims"])))


def _spread_back(value: Node, node: Node, d: Node) -> Node:
    """Something shaped like the reduction, repeated over all that was reduced."""
    kept = tuple(1 if k in node["dims"] else s for k, s in enumerate(value.shape))
    return broadcast(reshape(d, kept), value.axes, value.shape)


def _sum_gradient(node: Node, d: Node) -> Sequence[Node]:
    return (_spread_back(node.inputs[0], node, d),)


def _max_gradient(node: Node, d: Node) -> Sequence[Node]:
    """The adjoint goes to the largest elements, in equal parts. Where there is no element there is one part, which goes
    nowhere: forward mode divides by that number, too. (No element is NaN's equal, so the gradient of a NaN is NaN.)"""
    (value,) = node.inputs
    winners = cast(eq(value, _spread_back(value, node, node)), d.dtype)
    parts = make(SUM, (winners,), dims=node["dims"], over=node["over"])
    if any(not isinstance(axis.length, int) for axis in node["over"]):
        least = const(lowest(node.dtype).value, node.dtype)
        parts = where(eq(node, least), maximum(parts, const(1, d.dtype)), parts)
    return (mul(winners, _spread_back(value, node, div(d, parts))),)


SUM = Op(
    "sum",
    _reduce_infer,
    _sum_compute,
    _sum_gradient,
    _reduce_lower("sum"),
    reads=_reduce_reads,
    delays=over_delays,
    reduces=True,
    attributes=("dims", "over"),
)
MAX = Op(
    "max",
    _reduce_infer,
    _max_compute,
    _max_gradient,
    _reduce_lower("max"),
    reads=_reduce_reads,
    delays=over_delays,
    reduces=True,
    attributes=("dims", "over"),
)


def of_each_length(value: Node, over: Sequence[Axis]) -> Node:
    """The value over what the lengths of the axes `over` vary over, too: so that each example has its own points."""
    lengths = [axis.length for axis in over if axis in value.axes and isinstance(axis.length, Node)]
    return broadcast(value, merge_axes(value.axes, *(length.axes for length in lengths)), value.shape)


def sum_(value: Node, dims: Sequence[int] = (), over: Sequence[Axis] = ()) -> Node:
    return make(SUM, (value,), dims=tuple(dims), over=tuple(over)) if dims or over else value


def max_(value: Node, dims: Sequence[int] = (), over: Sequence[Axis] = ()) -> Node:
    return make(MAX, (value,), dims=tuple(dims), over=tuple(over)) if dims or over else value


def count(value: Node, over: Sequence[Axis], dtype: str) -> Node:
    """How many points of the axes `over` exist, at each point of the value's other axes."""
    if any(lengths_within(a, value.axes) for a in over) or measured_by(value.axes, over):
        return sum_(broadcast(const(1, dtype), value.axes, ()), over=over)
    first, *rest = [cast(length(axis, ()), dtype) for axis in over]
    return functools.reduce(mul, rest, first)


def sum_to(value: Node, target: Node) -> Node:
    """A contribution to the adjoint of `target`, summed or broadcast to exactly the target's axes and event."""
    over = tuple(a for a in value.axes if a not in target.axes)
    lead = len(value.shape) - len(target.shape)
    dims = [k for k in range(len(value.shape)) if k < lead or (target.shape[k - lead] == 1 and value.shape[k] != 1)]
    summed = sum_(value, dims, over)
    if size(summed.shape) == size(target.shape):
        summed = reshape(summed, target.shape)  # with the dimensions of length 1 that the sum removed
    return broadcast(summed, merge_axes(summed.axes, target.axes), target.shape)


REDUCTION = (BROADCAST, SUM, MAX)
