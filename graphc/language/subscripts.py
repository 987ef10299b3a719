"""Subscripts of a value: points of axes, and numpy's indexing of its event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import DtypeError, ShapeError
from graphc.integers import is_whole
from graphc.ir import Axis, AxisEdge, AxisPoint, Node
from graphc.language.habits import Symbolic
from graphc.ops import elementwise as ew
from graphc.ops import event as event_ops
from graphc.ops import table
from graphc.ops.leaves import const

_NAMED_BY_A_VALUE = (
    "; gc.embedding(table, x) is the row of a table that a value names, and v[t.at(x)] the point of an axis"
)

_ANY = type(None) | type(Ellipsis)  # beside slices, what reads everything


def split_key(key: Any) -> tuple[list[AxisPoint], list[AxisEdge], list[Any]]:
    """The parts of a subscript: points of axes, first and last ones, and what indexes the event."""
    points: list[AxisPoint] = []
    edges: list[AxisEdge] = []
    events: list[Any] = []
    for item in key if isinstance(key, tuple) else (key,):
        if isinstance(item, Axis):
            points.append(AxisPoint(item, 0))
        elif isinstance(item, AxisPoint):
            points.append(item)
        elif isinstance(item, AxisEdge):
            edges.append(item)
        elif isinstance(item, slice) and not all(
            k is None or isinstance(k, int | np.integer) for k in (item.start, item.stop, item.step)
        ):
            raise DtypeError(f"a slice is of the event and made of ints, x[0:8]; an axis has no slices, got {item!r}")
        elif isinstance(item, int | np.integer | np.bool_ | slice) or item is Ellipsis or item is None:
            events.append(item)
        elif isinstance(item, list | np.ndarray):
            events.append(_positions(item))
        else:
            row = _NAMED_BY_A_VALUE if isinstance(item, Symbolic) else ""
            raise DtypeError(
                "a subscript is a point of an axis (t - 1), an int, a slice, or a list or an array of ints, not "
                f"{item!r}{row}"
            )
    return points, edges, events


def _positions(item: Any) -> Any:
    """An array of positions, or of bools; an array without a dimension is a number."""
    try:
        array = np.asarray(item) if isinstance(item, np.ndarray) or _is_constant(item) else np.empty(1)
    except ValueError:  # rows of unequal lengths
        array = np.empty(1)
    if array.size and array.dtype.kind not in "iub":
        raise DtypeError(f"a list or an array in a subscript holds ints, the positions that are read, got {item!r}")
    return array if array.ndim else array[()]


def _is_constant(item: list[Any]) -> bool:
    """Whether a list holds ints or bools only, or lists of them: numpy would ask a value for its numbers."""
    return all(_is_constant(k) if isinstance(k, list) else is_whole(k) or isinstance(k, bool | np.bool_) for k in item)


def index_event(value: Node, keys: Sequence[Any]) -> Node:
    """Numpy's indexing of the event: ints, slices, one `...`, None for a new dimension, and one array of positions."""
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > len(value.shape) or sum(k is Ellipsis for k in keys) > 1:
        raise ShapeError(f"{used} subscripts on an event of shape {value.shape}{_points_of(value)}")
    if any(isinstance(k, np.ndarray) for k in keys) and sum(not isinstance(k, slice | _ANY) for k in keys) > 1:
        raise ShapeError(
            "a list or an array of positions stands beside slices only; one after another, x[0][:, [2, 1]]"
        )
    fill = [slice(None)] * (len(value.shape) - used)
    position = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    node, dim, shape = value, 0, []
    for key in [*keys[:position], *fill, *keys[position + 1 :]]:
        if key is None:
            shape.append(1)
            continue
        extent = node.shape[dim]
        if isinstance(key, slice):
            positions = range(*key.indices(extent))
            if not len(positions):
                raise ShapeError(f"slice {key} of dimension {dim} of an event of shape {value.shape} is empty")
            node = event_ops.slice_(node, dim, positions.start, positions.step, len(positions))
            shape.append(len(positions))
        elif isinstance(key, np.ndarray):
            rows = _rows(key, extent, f"dimension {dim} of an event of shape {value.shape}")
            node = _gathered(node, dim, rows)
            shape += rows.shape
            dim += rows.ndim - 1
        else:
            if isinstance(key, bool | np.bool_):
                raise ShapeError(f"{key} is no subscript; gc.where(condition, x, 0) chooses among values")
            if not -extent <= key < extent:
                raise ShapeError(
                    f"index {key} is outside dimension {dim} of an event of shape {value.shape}{_points_of(value)}"
                )
            node = event_ops.slice_(node, dim, int(key) % extent, 1, 1)
        dim += 1
    return event_ops.reshape(node, tuple(shape))


def _points_of(value: Node) -> str:
    """How the axes of a value are subscripted, which its event's ints and slices do not see."""
    return f"; a point of an axis is x[{value.axes[0].name}.at(0)]" if value.axes else ""


def _rows(key: np.ndarray, extent: int, where: str) -> np.ndarray:
    """Which elements of a dimension an array names, each counted from the first; bools name those that are true."""
    if key.dtype.kind == "b":
        if key.shape != (extent,):
            raise ShapeError(f"bools in a subscript say of each element whether it is read: {key.shape} for {where}")
        key = np.flatnonzero(key)
    if not key.size:
        raise ShapeError(f"a subscript without positions, for {where}")
    wrong = key[(key < -extent) | (key >= extent)]
    if wrong.size:
        raise ShapeError(f"index {wrong[0]} is outside {where}")
    return np.where(key < 0, key + extent, key).astype(np.int32)


def _gathered(node: Node, dim: int, rows: np.ndarray) -> Node:
    """The event with a dimension replaced by those of the array: the elements that it names."""
    others = [k for k in range(len(node.shape)) if k != dim]
    found = table.gather(event_ops.transpose(node, (dim, *others)), const(rows, "int32"))
    kept = [k + rows.ndim for k in range(len(others))]
    placed = event_ops.transpose(found, (*kept[:dim], *range(rows.ndim), *kept[dim:]))
    return ew.cast(placed, node.dtype)  # of float16 and bfloat16 the table is widened
