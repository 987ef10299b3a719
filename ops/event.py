"""Ops that rearrange the event: reshape, transpose, slice, place, concat. None of them computes anything; a
lowering rule says where an element comes from. So what they are given is carried on in its own dtype."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DtypeError, ShapeError
from graphc.ir import Node, Op, Shape, Type, make, merge_axes, size, widen
from graphc.ops.site import Event, Site
from graphc.scalar import Scalar, call, index, zero


# reshape(value; shape): the same elements in row-major order.
def _reshape_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,) = inputs
    if size(value.shape) != size(attrs["shape"]):
        raise ShapeError(f"cannot reshape event {value.shape} ({size(value.shape)} elements) to {attrs['shape']}")
    return Type(value.axes, attrs["shape"], value.dtype)


def _reshape_lower(node: Node, site: Site) -> Scalar:
    shape = node.inputs[0].shape
    event: list[Scalar] = []
    for own, other in _matching(node.shape, shape):
        if node.shape[own] == shape[other]:
            event += site.event[own]
        else:
            event += unravel(ravel(site.event[own], node.shape[own]), shape[other])
    return site.read(0, event=tuple(event))


def _matching(a: Shape, b: Shape) -> Iterator[tuple[slice, slice]]:
    """Both shapes cut into as many pieces as there are that hold the same number of elements."""
    i = j = 0
    while i < len(a) or j < len(b):
        start, other = i, j
        i, j = min(i + 1, len(a)), min(j + 1, len(b))
        while size(a[start:i]) != size(b[other:j]):
            if size(a[start:i]) < size(b[other:j]):
                i += 1
            else:
                j += 1
        yield slice(start, i), slice(other, j)


def ravel(event: Event, shape: Shape) -> Scalar:
    """The row-major position of an element."""
    position: Scalar = index(0)
    for subscript, extent in zip(event, shape, strict=True):
        position = call("add", call("mul", position, index(extent)), subscript)
    return position


def unravel(position: Scalar, shape: Shape) -> Event:
    """The subscripts of the element at a row-major position."""
    event: list[Scalar] = []
    above, below = 1, size(shape)
    for extent in shape:
        below //= extent
        subscript = call("floordiv", position, index(below)) if extent > 1 else index(0)
        event.append(call("mod", subscript, index(extent)) if above > 1 else subscript)
        above *= extent
    return tuple(event)


RESHAPE = Op(
    "reshape",
    _reshape_infer,
    lambda node, arrays: arrays[0].reshape(node.shape),
    lambda node, d: (reshape(d, node.inputs[0].shape),),
    _reshape_lower,
    cost=0,
    view=True,
    stored=True,
    attributes=("shape",),
)


def reshape(value: Node, shape: Shape) -> Node:
    return value if value.shape == shape else make(RESHAPE, (value,), shape=shape)


# transpose(value; perm): dimension k of the result is dimension perm[k] of the value.
def _transpose_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), perm = inputs, attrs["perm"]
    if sorted(perm) != list(range(len(value.shape))):
        raise ShapeError(f"transpose of an event with {len(value.shape)} dimensions by {perm}")
    return Type(value.axes, tuple(value.shape[p] for p in perm), value.dtype)


def _transpose_lower(node: Node, site: Site) -> Scalar:
    perm: tuple[int, ...] = node["perm"]
    return site.read(0, event=tuple(site.event[perm.index(k)] for k in range(len(perm))))


TRANSPOSE = Op(
    "transpose",
    _transpose_infer,
    lambda node, arrays: arrays[0].transpose(node["perm"]),
    lambda node, d: (transpose(d, tuple(int(p) for p in np.argsort(node["perm"]))),),
    _transpose_lower,
    cost=0,
    view=True,
    stored=True,
    attributes=("perm",),
)


def transpose(value: Node, perm: tuple[int, ...]) -> Node:
    return value if perm == tuple(range(len(perm))) else make(TRANSPOSE, (value,), perm=perm)


# slice(value; dim, start, step, count): the elements start, start + step, … along one dimension.
def _slice_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), dim, start, step, count = inputs, attrs["dim"], attrs["start"], attrs["step"], attrs["count"]
    last = start + step * (count - 1)
    if step == 0:
        raise ShapeError(f"slice {start}:{last}:0 of dimension {dim} does not move")
    if not 0 <= dim < len(value.shape) or not (0 <= start < value.shape[dim] and 0 <= last < value.shape[dim]):
        raise ShapeError(f"slice {start}:{last}:{step} of dimension {dim} is outside an event of shape {value.shape}")
    return Type(value.axes, (*value.shape[:dim], count, *value.shape[dim + 1 :]), value.dtype)


def _slice_gradient(node: Node, d: Node) -> Sequence[Node]:
    extent = node.inputs[0].shape[node["dim"]]
    return (place(d, node["dim"], node["start"], node["step"], extent),)


def _slice_lower(node: Node, site: Site) -> Scalar:
    event = list(site.event)
    k = node["dim"]
    event[k] = call("add", call("mul", event[k], index(node["step"])), index(node["start"]))
    return site.read(0, event=tuple(event))


def _window(node: Node, count: int) -> tuple[slice, ...]:
    positions = range(node["start"], node["start"] + node["step"] * count, node["step"])
    stop = positions.stop if positions.stop >= 0 else None
    return (*(slice(None),) * node["dim"], slice(positions.start, stop, positions.step))


SLICE = Op(
    "slice",
    _slice_infer,
    lambda node, arrays: arrays[0][_window(node, node["count"])],
    _slice_gradient,
    _slice_lower,
    cost=0,
    view=True,
    stored=True,
    attributes=("dim", "start", "step", "count"),
)


def slice_(value: Node, dim: int, start: int, step: int, count: int) -> Node:
    if (start, step, count) == (0, 1, value.shape[dim]):
        return value
    return make(SLICE, (value,), dim=dim, start=start, step=step, count=count)


# place(value; dim, start, step, extent): the adjoint of slice. Zeros, with the value at start, start + step, …
def _place_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), dim = inputs, attrs["dim"]
    last = attrs["start"] + attrs["step"] * (value.shape[dim] - 1)
    if attrs["step"] == 0 or not (0 <= attrs["start"] < attrs["extent"] and 0 <= last < attrs["extent"]):
        raise ShapeError(f"place of an event {value.shape} outside {attrs['extent']} elements of dimension {dim}")
    return Type(value.axes, (*value.shape[:dim], attrs["extent"], *value.shape[dim + 1 :]), value.dtype)


def _place_compute(node: Node, arrays: Sequence[np.ndarray]) -> np.ndarray:
    result = np.zeros(node.shape, node.dtype)
    result[_window(node, arrays[0].shape[node["dim"]])] = arrays[0]
    return result


def _place_gradient(node: Node, d: Node) -> Sequence[Node]:
    dim = node["dim"]
    return (slice_(d, dim, node["start"], node["step"], node.inputs[0].shape[dim]),)


def _place_lower(node: Node, site: Site) -> Scalar:
    dim, step, count = node["dim"], node["step"], node.inputs[0].shape[node["dim"]]
    event = list(site.event)
    distance = call("sub", event[dim], index(node["start"]))
    if step < 0:
        distance, step = call("sub", index(0), distance), -step
    event[dim] = call("floordiv", distance, index(step))
    inside = call("and", call("le", index(0), distance), call("lt", event[dim], index(count)))
    if step > 1:
        inside = call("and", inside, call("eq", call("mod", distance, index(step)), index(0)))
    inside = site.let(inside)
    return call("select", inside, site.read(0, event=tuple(event), when=inside), zero(node.dtype))


PLACE = Op(
    "place",
    _place_infer,
    _place_compute,
    _place_gradient,
    _place_lower,
    cost=3,
    attributes=("dim", "start", "step", "extent"),
)


def place(value: Node, dim: int, start: int, step: int, extent: int) -> Node:
    return make(PLACE, (value,), dim=dim, start=start, step=step, extent=extent)


# concat(values…; dim)
def _concat_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    dim, first = attrs["dim"], inputs[0]
    shapes = [i.shape for i in inputs]
    if not all(len(s) == len(first.shape) for s in shapes) or not 0 <= dim < len(first.shape):
        number = "; the event (1,) of a number x is x[None]" if () in shapes else ""
        raise ShapeError(f"concat along dimension {dim} of events {', '.join(map(str, shapes))}{number}")
    if any(s[:dim] + s[dim + 1 :] != first.shape[:dim] + first.shape[dim + 1 :] for s in shapes):
        raise ShapeError(f"concat along dimension {dim}: events {', '.join(map(str, shapes))} differ elsewhere")
    if any(i.dtype != first.dtype for i in inputs):
        raise DtypeError(f"concat takes values of one dtype, got {', '.join(i.dtype for i in inputs)}")
    shape = (*first.shape[:dim], sum(s[dim] for s in shapes), *first.shape[dim + 1 :])
    return Type(merge_axes(*(i.axes for i in inputs)), shape, first.dtype)


def concat_starts(node: Node) -> list[int]:
    """Where each input of a concat begins along its dimension."""
    return list(itertools.accumulate((value.shape[node["dim"]] for value in node.inputs[:-1]), initial=0))


def _concat_gradient(node: Node, d: Node) -> Sequence[Node]:
    dim = node["dim"]
    return [
        slice_(d, dim, start, 1, value.shape[dim])
        for value, start in zip(node.inputs, concat_starts(node), strict=True)
    ]


def _concat_lower(node: Node, site: Site) -> Scalar:
    dim = node["dim"]
    starts = concat_starts(node)

    def before(end: int) -> Scalar:
        return site.let(call("lt", site.event[dim], index(end)))

    def part(k: int) -> Scalar:
        event = list(site.event)
        event[dim] = call("sub", site.event[dim], index(starts[k]))
        here = before(starts[k] + node.inputs[k].shape[dim])
        inside = site.let(call("and", call("le", index(starts[k]), site.event[dim]), here))
        return site.read(k, event=tuple(event), when=inside)

    def chosen(first: int, last: int) -> Scalar:
        """The element, if it is in the parts first ≤ k < last: which half they are in, and so on."""
        if last - first == 1:
            return part(first)
        middle = (first + last) // 2
        left = chosen(first, middle)
        return call("select", before(starts[middle]), left, chosen(middle, last))

    return chosen(0, len(starts))


CONCAT = Op(
    "concat",
    _concat_infer,
    lambda node, arrays: np.concatenate(arrays, axis=node["dim"]),
    _concat_gradient,
    _concat_lower,
    cost=2,
    stored=True,
    attributes=("dim",),
)


def concat(values: Sequence[Node], dim: int) -> Node:
    if len({value.dtype for value in values}) > 1:
        values = [widen(value) for value in values]
    return values[0] if len(values) == 1 else make(CONCAT, values, dim=dim)


EVENT = (RESHAPE, TRANSPOSE, SLICE, PLACE, CONCAT)
