"""Ops that index by a value: gather (the rows of a table: an embedding) and scatter, its dual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AxisError, DtypeError, ShapeError
from graphc.ir import Node, Op, Type, make, merge_axes
from graphc.ops.reduction import broadcast, over_delays, reads_of_pairs
from graphc.ops.site import Event, Site
from graphc.scalar import Scalar, call, cast, zero
from graphc.scalar import index as at_index


# gather(table, index): row index[…] of the table, for every element of the index.
def _gather_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    table, index = inputs
    if index.dtype != "int32":
        swapped = "; the table comes first" if table.dtype == "int32" else ""
        raise DtypeError(f"rows of a table are named by int32 values, got {index.dtype}{swapped}")
    if not table.shape:
        raise ShapeError("a table has at least one dimension, got a number")
    return Type(merge_axes(table.axes, index.axes), (*index.shape, *table.shape[1:]), table.dtype)


def _gather_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    table, index = arrays
    _check(index, len(table))
    return table[index]


def _check(index: np.ndarray, rows: int) -> None:
    if (index < 0).any() or (index >= rows).any():
        raise ArgumentError(f"an index is outside a table of {rows} rows: found {index.min()} to {index.max()}")


def _gather_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    table, index = node.inputs
    over = tuple(a for a in d.axes if a not in table.axes)
    return make(SCATTER, (d, index), rows=table.shape[0], over=over), None


def _gather_lower(node: Node, site: Site) -> Scalar:
    table, index = node.inputs
    rank = len(index.shape)
    row = cast(site.read(1, event=site.event[:rank]), "index")
    return site.read(0, event=(_clamp(row, table.shape[0]), *site.event[rank:]))


def _clamp(row: Scalar, rows: int) -> Scalar:
    """Calls check the indices they are given; this keeps even a computed one inside the table."""
    return call("max", at_index(0), call("min", row, at_index(rows - 1)))


GATHER = Op("gather", _gather_infer, _gather_compute, _gather_gradient, _gather_lower)


# scatter(values, index; rows, over): a table of zeros to whose row index[…] every value is added.
def _scatter_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    values, index = inputs
    rank = len(index.shape)
    if values.shape[:rank] != index.shape:
        raise ShapeError(f"scatter of an event {values.shape} by an index of shape {index.shape}")
    if index.dtype != "int32" or values.dtype == "bool":
        raise DtypeError(f"scatter adds numbers to rows named by int32 values, got {values.dtype} and {index.dtype}")
    if len(set(attrs["over"])) < len(attrs["over"]):
        raise AxisError(f"scatter over an axis twice: {', '.join(axis.name for axis in attrs['over'])}")
    axes = tuple(a for a in merge_axes(values.axes, index.axes) if a not in attrs["over"])
    return Type(axes, (attrs["rows"], *values.shape[rank:]), values.dtype)


def _scatter_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    table = np.zeros(node.shape, node.dtype)
    for values, index in zip(arrays[::2], arrays[1::2], strict=True):
        _check(index, node["rows"])
        np.add.at(table, index, values)
    return table


def _scatter_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    values, index = node.inputs
    rows = gather(d, index)
    return broadcast(rows, merge_axes(rows.axes, values.axes), rows.shape), None


def _scatter_lower(node: Node, site: Site) -> Scalar:
    _, index = node.inputs
    row, rest = site.event[0], site.event[1:]

    def element(inner: Site, events: Event) -> Scalar:
        here = call("eq", cast(inner.read(1, event=events), "index"), row)
        value = inner.read(0, event=(*events, *rest))
        return call("select", here, value, zero(node.dtype))

    return site.reduce("sum", node["over"], index.shape, element)


SCATTER = Op(
    "scatter",
    _scatter_infer,
    _scatter_compute,
    _scatter_gradient,
    _scatter_lower,
    reads=reads_of_pairs,
    delays=over_delays,
    reduces=True,
    attributes=("rows", "over"),
)


def gather(table: Node, index: Node) -> Node:
    return make(GATHER, (table, index))
