"""Indices that a call is given: the elements of its arrays that name rows of a table, or classes, must name some.

An index is checked where it is an input, or is read from one: at another step (`word[t + 1]`), at one step, or as a
part of its event. What is computed is not; it is kept within bounds where it is used, so that no other memory is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.checks.arguments import Arguments
from graphc.checks.causality import reachable
from graphc.errors import ArgumentError
from graphc.ir import Axis, Node, lengths_within
from graphc.language.graph import Graph
from graphc.ops.axis import AT, SHIFT, STACK
from graphc.ops.composite import CROSS_ENTROPY
from graphc.ops.event import CONCAT, RESHAPE, SLICE, TRANSPOSE
from graphc.ops.leaves import INPUT
from graphc.ops.table import GATHER
from graphc.ops.take import TAKE

__all__ = ["IndexCheck", "check_indices", "index_checks"]


@dataclass(frozen=True, slots=True)
class IndexCheck:
    """A check that what is read of an input, through `views`, lies in 0 … bound - 1."""

    input: Node
    views: tuple[Node, ...]
    bound: int

    @property
    def name(self) -> str:
        return str(self.input["name"])


def index_checks(graph: Graph) -> tuple[IndexCheck, ...]:
    """The checks for all indices of a graph that name rows or classes."""
    checks: dict[IndexCheck, None] = {}
    for node in reachable(graph):
        if node.op in (GATHER, CROSS_ENTROPY):
            bound = node.inputs[0].shape[0 if node.op is GATHER else -1]
            checks |= dict.fromkeys(IndexCheck(given, views, bound) for given, views in _sources(node.inputs[1]))
    return tuple(checks)


def _sources(index: Node) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """The inputs that an index is read from, each with the views on the way from it."""
    if index.op is INPUT:
        yield index, ()
    elif index.op in (STACK, CONCAT):
        for part in index.inputs:
            yield from _sources(part)
    elif index.op in (SHIFT, AT, TAKE, SLICE, RESHAPE, TRANSPOSE):
        for given, views in _sources(index.inputs[0]):
            yield given, (*views, index)


def check_indices(checks: tuple[IndexCheck, ...], arguments: Arguments) -> None:
    """Raise `ArgumentError` if an array that names rows or classes holds others than there are, where they are read."""
    for check in checks:
        array = arguments.arrays[check.name]
        if _within(array, check.bound):
            continue
        exists = np.broadcast_to(_existing(check.input, arguments), array.shape)
        for view in check.views:
            array, exists = _seen(view, check.input.axes, array, exists)
        if not _within(array[exists], check.bound):
            found = array[exists]
            raise ArgumentError(
                f"{check.name} names rows or classes 0 to {check.bound - 1}, "
                f"but holds values from {found.min()} to {found.max()}"
            )


def _within(array: np.ndarray, bound: int) -> bool:
    return not array.size or bool(array.min() >= 0 and array.max() < bound)


def _seen(view: Node, axes: Sequence[Axis], array: np.ndarray, exists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The elements that a view reads, and whether they exist. Axes of which one point is read keep their place. Which
    point a position names is known inside the call only, so it may be any."""
    rank = len(axes)
    if view.op is TAKE:
        return array, exists
    if view.op is SHIFT:
        for axis, offset in view["offsets"]:
            chosen = slice(offset, None) if offset > 0 else slice(None, offset)
            array, exists = (a[(*[slice(None)] * _place(axes, axis), chosen)] for a in (array, exists))
    elif view.op is AT and view["position"] == "last":
        axis = _place(axes, view["axis"])
        last = np.maximum(exists.sum(axis, keepdims=True) - 1, 0)  # points exist from the first on
        array, exists = (np.take_along_axis(a, last, axis) for a in (array, exists))
    elif view.op is AT:
        axis, position = _place(axes, view["axis"]), 0 if view["position"] == "first" else view["position"]
        chosen = slice(position, position + 1)
        array, exists = (a[(*[slice(None)] * axis, chosen)] for a in (array, exists))
    elif view.op is SLICE:
        places = view["start"] + view["step"] * np.arange(view["count"])
        array, exists = (np.take(a, places, rank + view["dim"]) for a in (array, exists))
    elif view.op is RESHAPE:
        array, exists = (a.reshape((*a.shape[:rank], *view.shape)) for a in (array, exists))
    else:
        order = (*range(rank), *(rank + dim for dim in view["perm"]))
        array, exists = array.transpose(order), exists.transpose(order)
    return array, exists


def _place(axes: Sequence[Axis], axis: Axis) -> int:
    """Which dimension of an array an axis is, or the axis that it is a second index of."""
    return axes.index(axis) if axis in axes else [a.root for a in axes].index(axis.root)


def _existing(node: Node, arguments: Arguments) -> np.ndarray:
    """Which points of an input exist; with a dimension of 1 for each of the event's."""
    extents = [arguments.sizes[a] for a in node.axes]
    exists = np.ones(extents, bool)
    for k, axis in enumerate(node.axes):
        lengths = lengths_within(axis, node.axes)
        if lengths is not None:
            order = [node.axes.index(a) for a in lengths.axes]
            shape = [1] * len(extents)
            for position in order:
                shape[position] = extents[position]
            spread = arguments.arrays[lengths["name"]].transpose(np.argsort(order)).reshape(shape)
            steps = np.arange(extents[k]).reshape([-1 if j == k else 1 for j in range(len(extents))])
            exists &= steps < spread
    return exists.reshape([*extents, *[1] * len(node.shape)])
