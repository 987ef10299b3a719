"""take: the value at a computed point of an axis, `x[t.at(k)]`; and its special case, an axis read by another index.

Where the position is the index of a second axis of the same length (`Axis.like`), every point of the one is read at
the same point of the other: `k[s]`. Nothing is computed then, and the gradient goes back the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DtypeError, ShapeError
from graphc.ir import Axis, Node, Op, Point, Reads, Type, broadcast_shapes, make, merge_axes
from graphc.ops.axis import check_lengths
from graphc.ops.elementwise import eq, le, logical_and, logical_not, lt, where
from graphc.ops.leaves import INDEX, INPUT, const, index, length
from graphc.ops.site import Site
from graphc.scalar import Scalar, call, cast
from graphc.scalar import index as at_index


# take(value, position, fill; axis): the value at that position of an axis, or the fill where there is no such point.
def _infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value, position, fill), axis = inputs, attrs["axis"]
    if axis not in value.axes:
        raise AxisError(f"a point of axis {axis.name!r} of a value that does not vary over it ({value.type})")
    if position.dtype != "int32" or position.shape:
        raise DtypeError(f"a position along axis {axis.name!r} is one int32, got {position.type}")
    for other in (position, fill):
        if axis in other.axes:
            t = axis.name
            table = f". In a state's own equation keep a table of its steps: gc.embedding(made[{t} - 1], position)"
            hint = table if value.op.name == "state" else ""
            raise AxisError(
                f"which point of axis {t!r} is read varies over {t!r} itself ({other.type}); let it vary over a second "
                f"index of it, s = g.axis('s', {t}), and read the result at {t}{hint}"
            )
    if value.dtype != fill.dtype or broadcast_shapes([value.shape, fill.shape], "take") != value.shape:
        raise ShapeError(f"a fill of type {fill.type} does not fit a value of type {value.type}")
    check_lengths(value, axis)
    place = value.axes.index(axis)
    axes = merge_axes(value.axes[:place], position.axes, value.axes[place + 1 :], fill.axes)
    return Type(axes, value.shape, value.dtype)


def second_index(node: Node) -> Axis | None:
    """The second axis of the same length by which an axis is read, at every point."""
    position = node.inputs[1]
    if position.op is INDEX and position["axis"].root == node["axis"].root:
        return position["axis"]  # type: ignore[no-any-return]
    return None


def _reads(node: Node, point: Point, domain: Any) -> Reads:
    value, position, fill = node.inputs
    axis, other = node["axis"], second_index(node)
    if other is not None:
        return ((value, {**point, axis: point[other]}),)
    every = [(value, {**point, axis: k}) for k in range(domain.length(axis, (*node.axes, axis), point))]
    return ((position, point), (fill, point), *every)


def _compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    if second_index(node) is not None:
        return arrays[0]
    position, fill, *every = arrays
    return every[int(position)] if 0 <= position < len(every) else np.broadcast_to(fill, node.shape)


def _gradient(node: Node, d: Node) -> Sequence[Node | None]:
    value, position, _ = node.inputs
    axis, other, zero = node["axis"], second_index(node), const(0, d.dtype)
    if other is not None and other not in value.axes:
        return take(d, index(axis), other), None, None
    inside = logical_and(le(const(0, "int32"), position), lt(position, length(axis, node.axes)))
    return where(eq(index(axis), position), d, zero), None, where(logical_not(inside), d, zero)


def _lower(node: Node, site: Site) -> Scalar:
    axis, other = node["axis"], second_index(node)
    if other is not None:
        return site.read(0, point={axis: site.point[other]})
    count = site.length(axis, (*node.axes, axis))
    position = cast(site.read(1, event=()), "index")
    inside = site.let(call("and", call("le", at_index(0), position), call("lt", position, count)))
    clamped = call("max", at_index(0), call("min", position, call("sub", count, at_index(1))))
    value = site.read(0, point={axis: clamped}, when=inside)
    return call("select", inside, value, site.read(2, when=site.let(call("not", inside))))


TAKE = Op(
    "take",
    _infer,
    _compute,
    _gradient,
    _lower,
    reads=_reads,
    delays=lambda node, k: {node["axis"]: None} if k == 0 else {},
    view=True,
    stored=True,
    attributes=("axis",),
)


def take(value: Node, position: Node, axis: Axis, fill: Node | None = None) -> Node:
    """`value` at a position along an axis; `fill` (0) where the axis has no such point."""
    return make(TAKE, (value, position, fill or const(0, value.dtype)), axis=axis)


def along(value: Node, axis: Axis) -> Node:
    """The value read by `axis`, a second index of an axis that it varies over; itself if it varies over `axis`."""
    if axis in value.axes:
        return value
    alike = _alike(value, axis)
    if len(alike) != 1:
        several = f", but over several indices of it: {', '.join(a.name for a in alike)}" if alike else ""
        hint = f"; declare it with over={axis.name}" if value.op is INPUT and not several else ""
        raise AxisError(
            f"a value indexed by axis {axis.name!r} that does not vary over it{several}: {value.type}{hint}"
        )
    return take(value, index(axis), alike[0])


def reads_along(node: Node) -> Axis | None:
    """The axis by which its value is read, if that is what `along` makes."""
    other, value = second_index(node), node.inputs[0]
    if other is None or other in value.axes or len(_alike(value, other)) != 1:
        return None
    return other if along(value, other) is node else None


def _alike(value: Node, axis: Axis) -> list[Axis]:
    return [a for a in value.axes if a.root == axis.root]
