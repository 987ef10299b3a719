"""Functions of images: convolution, pooling, batch normalisation, and the way from an image to a sequence and back.

An image is an event (C, H, W): channels, rows, columns. Convolution and pooling take any number of dimensions after
the channels, so a signal (C, T) or a volume (C, D, H, W) will do as well. A number for a stride, padding, dilation or
size stands for the same along each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import functions
from graphc.errors import DefinitionError, ShapeError
from graphc.functions import Dims, Over
from graphc.ir import Axis, Node
from graphc.ops import normalization
from graphc.ops.axis import as_axis, as_dim
from graphc.ops.contraction import contract
from graphc.ops.event import reshape, transpose
from graphc.ops.leaves import const
from graphc.ops.reduction import lowest, max_, sum_
from graphc.ops.window import Frame, fold, window
from graphc.value import Value, promote

Sizes = int | Sequence[int]
_SPATIAL = "uvwxyz"  # the letters of places; those of the window's elements are the same, one place further on


def conv(x: Any, weight: Any, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1) -> Value:
    """The cross-correlation that networks call convolution: x (C, H, W) with weight (F, C / groups, kh, kw) is
    (F, H', W'), where H' = ⌊(H + 2 padding - dilation (kh - 1) - 1) / stride⌋ + 1.

        y[f, u, v] = Σ_c Σ_k Σ_l weight[f, c, k, l] · x[c, u · stride + k · dilation - padding, v · … + l · … - padding]

    with zeros around the image. With `groups`, the channels and the filters are cut into so many parts, and each part
    of the filters sees its own part of the channels. There is no bias; add one of shape (F, 1, 1).
    """
    image, kernel = promote(x, weight, floating=True)
    rank = _rank(image, kernel, "a convolution")
    if image.shape[0] != groups * kernel.shape[1] or kernel.shape[0] % groups or groups < 1:
        raise ShapeError(
            f"a convolution in {groups} groups of {image.shape[0]} channels takes a weight (filters, "
            f"{image.shape[0] // max(groups, 1)}, …) with filters a multiple of {groups}; got {kernel.shape}"
        )
    frames = _frames(image.shape, kernel.shape[2:], stride, padding, dilation, "a convolution")
    places, elements = _letters(rank)
    g = "g" if groups > 1 else ""
    seen, weights = window(_grouped(image.node, groups), _after(frames, len(g))), _grouped(kernel.node, groups)
    result = contract(seen, weights, f"{g}c{places}{elements}", f"{g}fc{elements}", f"{g}f{places}")
    return Value(image.graph or kernel.graph, reshape(result, (kernel.shape[0], *result.shape[-rank:])))


def conv_transpose(
    x: Any,
    weight: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    output_padding: Sizes = 0,
) -> Value:
    """The adjoint of `conv`, with which networks make images larger: x (C, H, W) with weight (C, F / groups, kh, kw) is
    (F, H', W'), where H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1."""
    image, kernel = promote(x, weight, floating=True)
    rank = _rank(image, kernel, "a transposed convolution")
    if image.shape[0] != kernel.shape[0] or image.shape[0] % groups:
        raise ShapeError(
            f"a transposed convolution in {groups} groups of {image.shape[0]} channels takes a weight "
            f"({image.shape[0]}, filters, …), got {kernel.shape}"
        )
    sizes = kernel.shape[2:]
    steps, pads, dilations, more = (_each(v, rank) for v in (stride, padding, dilation, output_padding))
    frames, shape = [], [kernel.shape[1] * groups]
    for k, size in enumerate(sizes):
        extent = (image.shape[k + 1] - 1) * steps[k] - 2 * pads[k] + dilations[k] * (size - 1) + more[k] + 1
        if extent < 1 or not 0 <= more[k] < max(steps[k], dilations[k]):
            raise ShapeError(f"a transposed convolution of {image.shape} by {kernel.shape} has no such output")
        frames.append(Frame(k + 1, size, image.shape[k + 1], steps[k], dilations[k], -pads[k]))
        shape.append(extent)
    places, elements = _letters(rank)
    g = "g" if groups > 1 else ""
    left, right = _grouped(image.node, groups), _grouped(kernel.node, groups)
    product = contract(left, right, f"{g}c{places}", f"{g}cf{elements}", f"{g}f{places}{elements}")
    seen = (groups, kernel.shape[1], *shape[1:]) if g else tuple(shape)
    result = fold(product, _after(frames, len(g)), seen)
    return Value(image.graph or kernel.graph, reshape(result, tuple(shape)))


def max_pool(x: Any, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1) -> Value:
    """The largest element under each place of a window; padding does not count. Equal ones share the gradient.

    `stride` is the size where it is not given. The output is as large as that of `conv`.
    """
    (image,) = promote(x)
    frames = _pooling(image, size, stride, padding, dilation)
    seen = window(image.node, frames, const(lowest(image.dtype), image.dtype))
    return Value(image.graph, max_(seen, _elements(image)))


def avg_pool(x: Any, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1) -> Value:
    """The mean of the elements under each place of a window; padding does not count.

    `stride` is the size where it is not given. PyTorch's default counts padding as zeros; its
    `count_include_pad=False` is this.
    """
    (image,) = promote(x, floating=True)
    frames = _pooling(image, size, stride, padding, dilation)
    counts = np.ones(())
    for frame in frames:
        counts = np.multiply.outer(counts, frame.positions(image.shape[frame.dim])[1].sum(1))
    total = Value(image.graph, sum_(window(image.node, frames), _elements(image)))
    return total / float(counts.flat[0]) if (counts == counts.flat[0]).all() else total / counts


def batch_norm(x: Any, mean: Any, variance: Any, over: Over, dim: Dims = (1, 2), eps: float = 1e-5) -> Value:
    """x normalised to mean 0 and variance 1 over axes and event dimensions (Ioffe & Szegedy 2015).

    In training by its own mean and population variance, as in `standardize`; after it (`gc.inference`) by `mean` and
    `variance`, which broadcast to x. `gc.layers.batch_norm` makes params of these and keeps them up to date.
    """
    value, *running = promote(x, mean, variance, floating=True)
    dims, axes = functions._dims(value, dim, over), functions._axes(over)
    node = normalization.batch_norm(value.node, running[0].node, running[1].node, dims, axes, eps)
    return Value(value.graph, node)


def standardize(x: Any, over: Over = None, dim: Dims = None, eps: float = 1e-5) -> Value:
    """(x - μ) / √(σ² + ε), with the mean and the population variance of x over axes and event dimensions; by default
    over the whole event, which is layer normalisation (Ba et al. 2016)."""
    (value,) = promote(x, floating=True)
    dims, axes = functions._dims(value, dim, over), functions._axes(over)
    return Value(value.graph, normalization.standardize(value.node, dims, axes, eps))


# Images as sequences.

BLOCK_ORDERS = {"chw": (0, 1, 2), "hwc": (1, 2, 0)}


def blocks(x: Any, size: Sizes, axes: tuple[Axis, Axis] | None = None, order: str = "chw") -> Value:
    """An image (C, H, W) cut into blocks of (h, w) pixels: axes i, j of lengths H / h and W / w, and events (C·h·w,).

    `axes` names the two; without it the graph gets new ones, called i and j, and the result's `.axes` begins with
    them. `order` says how a block is flattened: "chw" runs through its columns fastest, "hwc" through its channels.
    """
    (image,) = promote(x)
    height, width = _each(size, 2)
    if len(image.shape) != 3 or min(height, width) < 1 or image.shape[1] % height or image.shape[2] % width:
        raise ShapeError(
            f"an event (C, H, W) is cut into blocks that fill it; {image.shape} by {(height, width)} is not"
        )
    _check_order(order)
    channels, rows, columns = image.shape[0], image.shape[1] // height, image.shape[2] // width
    i, j = axes if axes is not None else _new_axes(image, (rows, columns))
    cut = reshape(image.node, (channels, rows, height, columns, width))
    along = as_axis(as_axis(cut, 3, j), 1, i)
    flat = reshape(transpose(along, BLOCK_ORDERS[order]), (channels * height * width,))
    return Value(image.graph, flat)


def image(v: Any, axes: tuple[Axis, Axis], size: Sizes = 1, order: str = "chw") -> Value:
    """The inverse of `blocks`: a value over axes i, j with events (C·h·w,) as an image (C, I·h, J·w).

    With the default size, blocks of one pixel, events (C,) become the image's channels.
    """
    (value,) = promote(v)
    height, width = _each(size, 2)
    _check_order(order)
    if len(value.shape) != 1 or value.shape[0] % (height * width):
        raise ShapeError(f"blocks of {(height, width)} pixels are events (C·{height * width},), got {value.shape}")
    i, j = axes
    together = as_dim(as_dim(value.node, j, 0), i, 0)
    rows, columns, channels = *together.shape[:2], value.shape[0] // (height * width)
    sizes = (channels, height, width)
    perm = BLOCK_ORDERS[order]
    split = reshape(together, (rows, columns, *(sizes[p] for p in perm)))
    back = {dim: 2 + place for place, dim in enumerate(perm)}
    upright = transpose(split, (back[0], 0, back[1], 1, back[2]))
    return Value(value.graph, reshape(upright, (channels, rows * height, columns * width)))


def _check_order(order: str) -> None:
    if order not in BLOCK_ORDERS:
        raise ShapeError(f"the order of a block is one of {', '.join(BLOCK_ORDERS)}, got {order!r}")


def _new_axes(value: Value, lengths: tuple[int, int]) -> tuple[Axis, ...]:
    if value.graph is None:
        raise DefinitionError("blocks of a constant: name the axes by axes=")
    found = []
    for letter, extent in zip("ij", lengths, strict=True):
        names = (letter, *(f"{letter}{k}" for k in range(1, len(value.graph.axes) + 2)))
        found.append(value.graph.axis(next(name for name in names if name not in value.graph.axes), extent))
    return tuple(found)


# Geometry.


def _each(value: Sizes, rank: int) -> tuple[int, ...]:
    """A number for every dimension."""
    items = (value,) * rank if isinstance(value, int | np.integer) else tuple(value)
    if len(items) != rank or any(isinstance(v, bool) or int(v) != v or v < 0 for v in items):
        raise ShapeError(f"one number, or one for each of {rank} dimensions, was expected; got {value!r}")
    return tuple(int(v) for v in items)


def _rank(image: Value, kernel: Value, what: str) -> int:
    """How many dimensions follow the channels."""
    rank = len(image.shape) - 1
    if not 1 <= rank <= 3 or len(kernel.shape) != rank + 2:
        raise ShapeError(
            f"{what} takes an event (channels, …) with 1 to 3 further dimensions and a weight with one more; got "
            f"{image.shape} and {kernel.shape}"
        )
    return rank


def _frames(
    shape: Sequence[int], sizes: Sequence[int], stride: Sizes, padding: Sizes, dilation: Sizes, what: str
) -> list[Frame]:
    rank = len(shape) - 1
    steps, pads, dilations = (_each(v, rank) for v in (stride, padding, dilation))
    frames = []
    for k, size in enumerate(sizes):
        room = shape[k + 1] + 2 * pads[k] - dilations[k] * (size - 1) - 1
        if room < 0 or not (size and steps[k] and dilations[k]):
            raise ShapeError(
                f"{what} of an event {tuple(shape)} with a window of {tuple(sizes)}, stride {steps}, padding {pads}, "
                f"dilation {dilations} has no output: the window, with its dilation, fits nowhere"
            )
        frames.append(Frame(k + 1, size, room // steps[k] + 1, steps[k], dilations[k], -pads[k]))
    return frames


def _pooling(image: Value, size: Sizes, stride: Sizes | None, padding: Sizes, dilation: Sizes) -> list[Frame]:
    rank = len(image.shape) - 1
    if rank < 1:
        raise ShapeError(f"pooling takes an event (channels, …), got {image.shape}")
    frames = _frames(image.shape, _each(size, rank), size if stride is None else stride, padding, dilation, "pooling")
    if any(not f.positions(image.shape[f.dim])[1].any(1).all() for f in frames):
        raise ShapeError(f"a window of pooling sees nothing but padding: {image.shape}, size {size}, padding {padding}")
    return frames


def _after(frames: Sequence[Frame], dims: int) -> list[Frame]:
    """The frames of an event with so many more dimensions in front."""
    return [Frame(f.dim + dims, f.size, f.count, f.stride, f.dilation, f.start) for f in frames]


def _elements(image: Value) -> tuple[int, ...]:
    """The dimensions of a window's elements."""
    return tuple(range(len(image.shape), 2 * len(image.shape) - 1))


def _letters(rank: int) -> tuple[str, str]:
    return _SPATIAL[:rank], _SPATIAL[rank : 2 * rank]


def _grouped(node: Node, groups: int) -> Node:
    """The first dimension cut into groups, if there are several."""
    return node if groups == 1 else reshape(node, (groups, node.shape[0] // groups, *node.shape[1:]))
