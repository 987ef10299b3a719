"""Ops that move along axes: shift (the delay), at (one point of an axis), stack (points into an axis); and as_axis and
as_dim, by which a dimension of the event becomes an axis and an axis a dimension."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DtypeError, ShapeError
from graphc.ir import MOST_POINTS, Axis, Node, Op, Point, Reads, Type, broadcast_shapes, make, merge_axes
from graphc.ops.elementwise import eq, logical_and, logical_not, lt, sub, where
from graphc.ops.leaves import const, index, length
from graphc.ops.reduction import measured_by, sum_to
from graphc.ops.site import Site
from graphc.scalar import Scalar, call, conjunction
from graphc.scalar import index as at_index


def _spread(node: Node, arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.broadcast_to(arrays[0], node.shape)  # a fill may be smaller than the value


def check_lengths(value: Node, axis: Axis) -> None:
    for ragged in measured_by(value.axes, (axis,)):
        raise AxisError(
            f"a point of axis {axis.name!r} of a value over {ragged.name!r}, whose length differs along "
            f"{axis.name!r}: the point may not exist there; reduce the value over {ragged.name!r} first"
        )


# shift(value, fill; offsets): the value at a neighbouring point, or the fill, here, where there is none.
def _shift_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value, fill), offsets = inputs, attrs["offsets"]
    if len(dict(offsets)) != len(offsets):
        raise AxisError(f"a shift along an axis twice: {', '.join(axis.name for axis, _ in offsets)}")
    for axis, offset in offsets:
        if axis not in value.axes:
            raise AxisError(f"a shift along {axis.name!r} of a value that does not vary over it ({value.type})")
        if offset == 0:
            raise AxisError(f"a shift along {axis.name!r} by 0")
        if abs(offset) > MOST_POINTS:
            raise AxisError(f"a shift along {axis.name!r} by {offset}, more steps than any axis has")
        check_lengths(value, axis)
    if value.dtype != fill.dtype:
        raise DtypeError(f"a shift fills a value of dtype {value.dtype} with one of dtype {fill.dtype}")
    if broadcast_shapes([value.shape, fill.shape], "the fill of a shift") != value.shape:
        raise ShapeError(f"a fill of shape {fill.shape} does not broadcast to the value's {value.shape}")
    return Type(merge_axes(value.axes, fill.axes), value.shape, value.dtype)


def _shift_reads(node: Node, point: Point, domain: Any) -> Reads:
    value, fill = node.inputs
    moved = dict(point)
    for axis, offset in node["offsets"]:
        moved[axis] += offset
    inside = all(0 <= moved[a] < domain.length(a, value.axes, point) for a, _ in node["offsets"])
    return ((value, moved),) if inside else ((fill, point),)


def _shift_inside(node: Node) -> Node:
    """Whether the shifted point exists, as a bool value."""
    value = node.inputs[0]
    conditions = []
    for axis, offset in node["offsets"]:
        if offset < 0:
            conditions.append(lt(const(-offset - 1, "int32"), index(axis)))
        else:
            end = length(axis, value.axes)
            conditions.append(lt(index(axis), sub(end, const(offset, "int32"))))
    return functools.reduce(logical_and, conditions)


def _shift_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    value = node.inputs[0]
    zero = const(0, d.dtype)
    back = tuple((axis, -offset) for axis, offset in node["offsets"])
    to_value = shift(sum_to(d, value), dict(back), zero)
    return to_value, where(_shift_inside(node), zero, d)


def _shift_lower(node: Node, site: Site) -> Scalar:
    value = node.inputs[0]
    moved = dict(site.point)
    conditions = []
    for axis, offset in node["offsets"]:
        moved[axis] = call("add", site.point[axis], at_index(offset))
        if offset < 0:
            conditions.append(call("le", at_index(0), moved[axis]))
        else:
            conditions.append(call("lt", moved[axis], site.length(axis, value.axes)))
    inside = conjunction(conditions)
    assert inside is not None
    inside = site.let(inside)
    outside = site.let(call("not", inside))
    return call("select", inside, site.read(0, point=moved, when=inside), site.read(1, when=outside))


def _shift_delays(node: Node, k: int) -> Mapping[Axis, int | None]:
    return dict(node["offsets"]) if k == 0 else {}


SHIFT = Op(
    "shift",
    _shift_infer,
    _spread,
    _shift_gradient,
    _shift_lower,
    reads=_shift_reads,
    delays=_shift_delays,
    view=True,
    stored=True,
    attributes=("offsets",),
)


def shift(value: Node, offsets: Mapping[Axis, int], fill: Node) -> Node:
    """`value` at the point that lies `offsets` further along each axis; `fill` where that does not exist."""
    nonzero = sorted(((a, o) for a, o in offsets.items() if o != 0), key=lambda item: item[0].name)
    return make(SHIFT, (value, fill), offsets=tuple(nonzero)) if nonzero else value


# at(value, fill; axis, position): the value at one point of an axis, or the fill where the axis has no such point.
def _at_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value, fill), axis, position = inputs, attrs["axis"], attrs["position"]
    if axis not in value.axes:
        raise AxisError(f"a point of axis {axis.name!r} of a value that does not vary over it ({value.type})")
    check_lengths(value, axis)
    if value.dtype != fill.dtype or broadcast_shapes([value.shape, fill.shape], "at") != value.shape:
        raise ShapeError(f"a fill of type {fill.type} does not fit a value of type {value.type}")
    longest = axis.length if isinstance(axis.length, int) else MOST_POINTS
    if position not in ("first", "last") and not (isinstance(position, int) and 0 <= position < longest):
        raise AxisError(f"position {position} is outside axis {axis.name!r}, whose points are 0 to {longest - 1}")
    rest = tuple(a for a in value.axes if a != axis)
    own = axis.length.axes if position == "last" and isinstance(axis.length, Node) else ()
    return Type(merge_axes(rest, own, fill.axes), value.shape, value.dtype)


def _at_reads(node: Node, point: Point, domain: Any) -> Reads:
    value, fill = node.inputs
    axis = node["axis"]
    count = domain.length(axis, (*node.axes, axis), point)
    position = {"first": 0, "last": count - 1}.get(node["position"], node["position"])
    return ((value, {**point, axis: position}),) if 0 <= position < count else ((fill, point),)


def position_node(node: Node) -> Node:
    """The position that an `at` reads, as an int32 value."""
    axis, position = node["axis"], node["position"]
    if position == "last":
        return sub(length(axis, node.axes), const(1, "int32"))
    return const(0 if position == "first" else position, "int32")


def _at_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    zero = const(0, d.dtype)
    axis, position = node["axis"], position_node(node)
    here = eq(index(axis), position)
    exists = lt(position, length(axis, node.axes))
    if node["position"] == "last":
        exists = lt(const(0, "int32"), length(axis, node.axes))
    return where(here, d, zero), where(logical_not(exists), d, zero)


def _at_lower(node: Node, site: Site) -> Scalar:
    axis = node["axis"]
    count = site.length(axis, (*node.axes, axis))
    if node["position"] == "last":
        position = call("sub", count, at_index(1))
    else:
        position = at_index(0 if node["position"] == "first" else node["position"])
    exists = call("le", at_index(0), position)
    if node["position"] != "last":
        exists = call("lt", position, count)
    exists = site.let(exists)
    value = site.read(0, point={axis: position}, when=exists)
    return call("select", exists, value, site.read(1, when=call("not", exists)))


def _at_delays(node: Node, k: int) -> Mapping[Axis, int | None]:
    return {node["axis"]: None} if k == 0 else {}


AT = Op(
    "at",
    _at_infer,
    _spread,
    _at_gradient,
    _at_lower,
    reads=_at_reads,
    delays=_at_delays,
    view=True,
    stored=True,
    attributes=("axis", "position"),
)


def at(value: Node, axis: Axis, position: str | int, fill: Node | None = None) -> Node:
    """`value` at one point of an axis; `fill` (0) where the axis has no such point."""
    return make(AT, (value, fill or const(0, value.dtype)), axis=axis, position=position)


# stack(values…; axis): value k at point k of an axis of that length.
def _stack_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    axis, first = attrs["axis"], inputs[0]
    if axis.length != len(inputs):
        raise AxisError(f"stack of {len(inputs)} values into axis {axis.name!r} of length {axis.length}")
    if any((i.shape, i.dtype) != (first.shape, first.dtype) for i in inputs):
        raise ShapeError(f"stack takes values of one shape and dtype, got {', '.join(str(i.type) for i in inputs)}")
    if any(axis in i.axes for i in inputs):
        raise AxisError(f"stack of values that vary over {axis.name!r} already")
    return Type(merge_axes((axis,), *(i.axes for i in inputs)), first.shape, first.dtype)


def _stack_lower(node: Node, site: Site) -> Scalar:
    position = site.point[node["axis"]]
    result = None
    for k in reversed(range(len(node.inputs))):
        here = site.let(call("eq", position, at_index(k)))
        value = site.read(k, when=here)
        result = value if result is None else call("select", here, value, result)
    assert result is not None
    return result


STACK = Op(
    "stack",
    _stack_infer,
    lambda node, arrays: arrays[0],
    lambda node, d: [at(d, node["axis"], k) for k in range(len(node.inputs))],
    _stack_lower,
    reads=lambda node, point, domain: ((node.inputs[point[node["axis"]]], point),),
    stored=True,
    attributes=("axis",),
)


def stack(values: Sequence[Node], axis: Axis) -> Node:
    return make(STACK, values, axis=axis)


# as_axis(value, position; dim, axis): dimension `dim` of the event as an axis of its length; `position` is the index
# of that axis, which says where a point stands.
def _as_axis_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value, position), dim, axis = inputs, attrs["dim"], attrs["axis"]
    if axis in value.axes:
        raise AxisError(f"as_axis of a value that varies over axis {axis.name!r} already")
    if not 0 <= dim < len(value.shape) or value.shape[dim] != axis.length:
        raise ShapeError(
            f"axis {axis.name!r} of length {axis.length} cannot be dimension {dim} of an event of shape {value.shape}"
        )
    if position is not index(axis):
        raise AxisError(f"as_axis takes the index of axis {axis.name!r} for the position of a point")
    return Type(merge_axes((axis,), value.axes), (*value.shape[:dim], *value.shape[dim + 1 :]), value.dtype)


def _as_axis_lower(node: Node, site: Site) -> Scalar:
    dim = node["dim"]
    return site.read(0, event=(*site.event[:dim], site.point[node["axis"]], *site.event[dim:]))


AS_AXIS = Op(
    "as_axis",
    _as_axis_infer,
    lambda node, arrays: np.take(arrays[0], int(arrays[1]), axis=node["dim"]),
    lambda node, d: (as_dim(d, node["axis"], node["dim"]), None),
    _as_axis_lower,
    cost=0,
    view=True,
    attributes=("axis", "dim"),
)


def as_axis(value: Node, dim: int, axis: Axis) -> Node:
    return make(AS_AXIS, (value, index(axis)), dim=dim, axis=axis)


# as_dim(value; axis, dim): an axis of fixed length as dimension `dim` of the event.
def _as_dim_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), axis, dim = inputs, attrs["axis"], attrs["dim"]
    if axis not in value.axes:
        raise AxisError(f"as_dim along axis {axis.name!r} of a value that does not vary over it ({value.type})")
    if not isinstance(axis.length, int):
        raise AxisError(f"axis {axis.name!r} has no fixed length, and an event has one; give it: g.axis(…, 8)")
    check_lengths(value, axis)
    if not 0 <= dim <= len(value.shape):
        raise ShapeError(f"an event of shape {value.shape} cannot get a further dimension {dim}")
    rest = tuple(a for a in value.axes if a != axis)
    return Type(rest, (*value.shape[:dim], axis.length, *value.shape[dim:]), value.dtype)


def _as_dim_lower(node: Node, site: Site) -> Scalar:
    dim = node["dim"]
    rest = (*site.event[:dim], *site.event[dim + 1 :])
    return site.read(0, event=rest, point={node["axis"]: site.event[dim]})


AS_DIM = Op(
    "as_dim",
    _as_dim_infer,
    lambda node, arrays: np.stack(arrays, axis=node["dim"]),
    lambda node, d: (as_axis(d, node["dim"], node["axis"]),),
    _as_dim_lower,
    reads=lambda node, point, domain: [
        (node.inputs[0], {**point, node["axis"]: k}) for k in range(node.shape[node["dim"]])
    ],
    delays=lambda node, k: {node["axis"]: None},
    cost=0,
    view=True,
    attributes=("axis", "dim"),
)


def as_dim(value: Node, axis: Axis, dim: int) -> Node:
    return make(AS_DIM, (value,), axis=axis, dim=dim)


AXIS = (SHIFT, AT, STACK, AS_AXIS, AS_DIM)
