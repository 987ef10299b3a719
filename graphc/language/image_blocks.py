"""Images as sequences in two dimensions: blocks of pixels along two axes, and back.

blocks(image, (h, w))[i, j] = the pixels (C, h, w) from row i·h and column j·w on, as one vector
"""

from __future__ import annotations

from typing import Any

from graphc.errors import AxisError, DefinitionError, ShapeError
from graphc.ir import Axis, Shape
from graphc.language.geometry import Sizes, each
from graphc.language.value import Value, promote, several
from graphc.ops.axis import as_axis, as_dim
from graphc.ops.event import reshape, transpose

BLOCK_ORDERS = {"chw": (0, 1, 2), "hwc": (1, 2, 0)}


def blocks(x: Any, size: Sizes, axes: tuple[Axis, Axis] | None = None, order: str = "chw") -> Value:
    """An image (C, H, W) cut into blocks of (h, w) pixels: axes i, j of lengths H / h and W / w, and events (C·h·w,).

    `axes` names the two; without it the graph gets new ones, called i and j, and the result's `.axes` begins with
    them. `order` says how a block is flattened: "chw" runs through its columns fastest, "hwc" through its channels.
    """
    (image,) = promote(x)
    rows, columns = grid(image.shape, size)
    _check_order(order)
    i, j = _pair(axes, "blocks") if axes is not None else _new_axes(image, (rows, columns))
    for axis, what, extent in ((i, "rows", rows), (j, "columns", columns)):
        if axis.length != extent:
            raise AxisError(f"axis {axis.name!r} has length {axis.length}, but there are {extent} {what} of blocks")
    channels, height, width = image.shape[0], image.shape[1] // rows, image.shape[2] // columns
    cut = reshape(image.node, (channels, rows, height, columns, width))
    along = as_axis(as_axis(cut, 3, j), 1, i)
    flat = reshape(transpose(along, BLOCK_ORDERS[order]), (channels * height * width,))
    return Value(image.graph, flat)


def grid(shape: Shape, size: Sizes) -> tuple[int, int]:
    """How many rows and columns of blocks an image (C, H, W) is cut into."""
    height, width = each(size, 2, "the size of a block", 1)
    if len(shape) != 3:
        raise ShapeError(f"an event (channels, rows, columns) is cut into blocks, got {shape}")
    if shape[1] % height or shape[2] % width:
        raise ShapeError(f"blocks of {(height, width)} pixels do not fill an image of {shape[1:]}; pad it or crop it")
    return shape[1] // height, shape[2] // width


def image(v: Any, axes: tuple[Axis, Axis], size: Sizes = 1, order: str = "chw") -> Value:
    """The inverse of `blocks`: a value over axes i, j with events (C·h·w,) as an image (C, I·h, J·w).

    With the default size, blocks of one pixel, events (C,) become the image's channels.
    """
    (value,) = promote(v)
    height, width = each(size, 2, "the size of a block", 1)
    _check_order(order)
    if len(value.shape) != 1 or value.shape[0] % (height * width):
        raise ShapeError(f"blocks of {(height, width)} pixels are events (C·{height * width},), got {value.shape}")
    i, j = _pair(axes, "an image")
    for axis in (i, j):
        if axis not in value.axes:
            raise AxisError(f"an image of a value that does not vary over axis {axis.name!r}, but is {value.node.type}")
    together = as_dim(as_dim(value.node, j, 0), i, 0)
    rows, columns, channels = *together.shape[:2], value.shape[0] // (height * width)
    sizes = (channels, height, width)
    perm = BLOCK_ORDERS[order]
    split = reshape(together, (rows, columns, *(sizes[p] for p in perm)))
    back = {dim: 2 + place for place, dim in enumerate(perm)}
    upright = transpose(split, (back[0], 0, back[1], 1, back[2]))
    return Value(value.graph, reshape(upright, (channels, rows * height, columns * width)))


def _pair(axes: Any, what: str) -> tuple[Axis, Axis]:
    """Two different axes of fixed lengths: of rows, and of columns."""
    pair = several(axes)
    if len(pair) != 2 or not all(isinstance(a, Axis) for a in pair) or pair[0] == pair[1]:
        raise AxisError(f"{what} takes two axes of the graph, one along rows of blocks and one along columns: {axes!r}")
    for axis in pair:
        if not isinstance(axis.length, int):
            raise AxisError(f"axis {axis.name!r} has no fixed length, and an image has one; give it: g.axis(…, 8)")
    return pair[0], pair[1]


def _check_order(order: str) -> None:
    if not isinstance(order, str) or order not in BLOCK_ORDERS:
        raise ShapeError(f"the order of a block is one of {', '.join(BLOCK_ORDERS)}, got {order!r}")


def _new_axes(value: Value, lengths: tuple[int, int]) -> tuple[Axis, ...]:
    graph = value.owner
    if graph is None:
        raise DefinitionError("blocks of a constant: name the axes by axes=")
    found = []
    for letter, extent in zip("ij", lengths, strict=True):
        names = (letter, *(f"{letter}{k}" for k in range(1, len(graph.axes) + 2)))
        found.append(graph.axis(next(name for name in names if name not in graph.axes), extent))
    return tuple(found)
