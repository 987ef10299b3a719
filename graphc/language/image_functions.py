"""Functions of images: convolution, pooling and normalisation.

An image is an event (C, H, W): channels, rows, columns. Convolution and pooling take one to three dimensions after the
channels, so a signal (C, T) or a volume (C, D, H, W) will do as well. A number for a stride, padding, dilation or size
stands for the same along each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.ir import Node
from graphc.language import functions
from graphc.language.functions import Dims, Over
from graphc.language.geometry import Sizes, after, check_groups, check_kernel, pooling, sliding, spatial_rank, spreading
from graphc.language.habits import by_dim
from graphc.language.value import Value, home, promote
from graphc.ops import normalization
from graphc.ops.contraction import contract
from graphc.ops.event import reshape
from graphc.ops.leaves import const
from graphc.ops.reduction import max_, of_each_length, sum_
from graphc.ops.window import fold, window
from graphc.scalar import lowest

_SPATIAL = "uvwxyz"  # the letters of places; those of the window's elements are the same, one place further on


def conv(x: Any, weight: Any, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1) -> Value:
    """The cross-correlation that networks call convolution: x (C, H, W) with weight (F, C / groups, kh, kw) is
    (F, H', W'), where H' = ⌊(H + 2 padding - dilation (kh - 1) - 1) / stride⌋ + 1.

        y[f, u, v] = Σ_c Σ_k Σ_l weight[f, c, k, l] · x[c, u · stride + k · dilation - padding, v · … + l · … - padding]

    with zeros around the image. With `groups`, the channels and the filters are cut into so many parts, and each part
    of the filters sees its own part of the channels. There is no bias; add one of shape (F, 1, 1).
    """
    image, kernel = promote(x, weight, floating=True)
    rank = spatial_rank(image.shape, "a convolution")
    check_kernel(image.shape, kernel.shape, "a convolution")
    groups = check_groups(groups, image.shape[0], "a convolution")
    if image.shape[0] != groups * kernel.shape[1] or kernel.shape[0] % groups:
        raise ShapeError(
            f"a convolution in {groups} groups of {image.shape[0]} channels takes a weight (filters, "
            f"{image.shape[0] // groups}, …) with filters a multiple of {groups}; got {kernel.shape}"
        )
    frames = sliding(image.shape, kernel.shape[2:], stride, padding, dilation, "a convolution")
    places, elements = _letters(rank)
    g = "g" if groups > 1 else ""
    seen, weights = window(_grouped(image.node, groups), after(frames, len(g))), _grouped(kernel.node, groups)
    result = contract(seen, weights, f"{g}c{places}{elements}", f"{g}fc{elements}", f"{g}f{places}")
    return Value(home(image, kernel), reshape(result, (kernel.shape[0], *result.shape[-rank:])))


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
    rank = spatial_rank(image.shape, "a transposed convolution")
    check_kernel(image.shape, kernel.shape, "a transposed convolution")
    groups = check_groups(groups, image.shape[0], "a transposed convolution")
    if image.shape[0] != kernel.shape[0]:
        raise ShapeError(
            f"a transposed convolution of {image.shape[0]} channels takes a weight ({image.shape[0]}, "
            f"filters / groups, …), got {kernel.shape}"
        )
    frames, extents = spreading(image.shape, kernel.shape[2:], stride, padding, dilation, output_padding)
    places, elements = _letters(rank)
    g = "g" if groups > 1 else ""
    left, right = _grouped(image.node, groups), _grouped(kernel.node, groups)
    product = contract(left, right, f"{g}c{places}", f"{g}cf{elements}", f"{g}f{places}{elements}")
    seen = (groups, kernel.shape[1], *extents) if g else (kernel.shape[1], *extents)
    result = fold(product, after(frames, len(g)), seen)
    return Value(home(image, kernel), reshape(result, (kernel.shape[1] * groups, *extents)))


def max_pool(x: Any, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1) -> Value:
    """The largest element under each place of a window; padding does not count. Equal ones share the gradient.

    `stride` is the size where it is not given. The output is as large as that of `conv`.
    """
    (image,) = promote(x)
    frames = pooling(image.shape, size, stride, padding, dilation)
    seen = window(image.node, frames, const(lowest(image.dtype).value, image.dtype))
    return Value(image.graph, max_(seen, _elements(image)))


def avg_pool(x: Any, size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1) -> Value:
    """The mean of the elements under each place of a window; padding does not count.

    `stride` is the size where it is not given. PyTorch's default counts padding as zeros; its
    `count_include_pad=False` is this.
    """
    (image,) = promote(x, floating=True)
    frames = pooling(image.shape, size, stride, padding, dilation)
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
    dims, axes = functions.reduced_dims(value, dim, over), functions.reduced_axes(over)
    each = of_each_length(value.node, axes)
    node = normalization.batch_norm(each, running[0].node, running[1].node, dims, axes, eps)
    return Value(value.graph, node)


def standardize(x: Any, over: Over = None, dim: Dims = None, eps: float = 1e-5) -> Value:
    """(x - μ) / √(σ² + ε), with the mean and the population variance of x over axes and event dimensions; by default
    over the whole event, which is layer normalisation (Ba et al. 2016)."""
    (value,) = promote(x, floating=True)
    dims, axes = functions.reduced_dims(value, dim, over), functions.reduced_axes(over)
    each = of_each_length(value.node, axes)
    return Value(value.graph, normalization.standardize(each, dims, axes, eps))


@by_dim
def rms_norm(x: Any, dim: Dims = -1, eps: float | None = None) -> Value:
    """x / √(mean(x²) + ε), with the mean over event dimensions (Zhang & Sennrich 2019).

    ε is by default, as in PyTorch, the distance from 1 to the next number of the dtype: 1.2 · 10⁻⁷ in float32.
    """
    (value,) = promote(x, floating=True)
    least = float(np.finfo(value.dtype).eps) if eps is None else eps
    return value / functions.sqrt(functions.mean(functions.square(value), dim=dim, keepdims=True) + least)


def _elements(image: Value) -> tuple[int, ...]:
    """The dimensions of a window's elements."""
    return tuple(range(len(image.shape), 2 * len(image.shape) - 1))


def _letters(rank: int) -> tuple[str, str]:
    return _SPATIAL[:rank], _SPATIAL[rank : 2 * rank]


def _grouped(node: Node, groups: int) -> Node:
    """The first dimension cut into groups, if there are several."""
    return node if groups == 1 else reshape(node, (groups, node.shape[0] // groups, *node.shape[1:]))
