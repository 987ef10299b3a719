"""Layers of images: functions that add params to a graph and apply them, as cells do for sequences.

x = gc.layers.conv(g, image, filters=32, size=3, padding=1, name="conv1")
x = gc.layers.batch_norm(g, gc.relu(x), over=n, name="norm1")
"""

from __future__ import annotations

import sys
from typing import Literal, NoReturn

from graphc.errors import DefinitionError, ShapeError
from graphc.language import functions, image_functions
from graphc.language.functions import Over
from graphc.language.geometry import Sizes, check_groups, each, spatial_rank
from graphc.language.graph import Graph, check_graph
from graphc.language.habits import missing_in
from graphc.language.value import Value, check_value
from graphc.ops import normalization
from graphc.scalar import computed

__all__ = ["batch_norm", "conv", "conv_transpose"]

Convention = Literal["neon", "pytorch"]


def conv(
    g: Graph,
    x: Value,
    filters: int,
    size: Sizes,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
    name: str = "conv",
    init: str = "kaiming",
) -> Value:
    """`gc.conv` of x (channels, …) with a weight of its own: (filters, …).

    Params: `{name}_W` (filters, channels / groups, *size), filled as `init` says, and `{name}_b` (filters,), 0 at
    first.
    """
    _check(g, x, name)
    rank = spatial_rank(x.shape, f"layer {name!r}")
    sizes = each(size, rank, f"the size of layer {name!r}", 1)
    groups = check_groups(groups, x.shape[0], f"layer {name!r}")
    W = g.param(f"{name}_W", (filters, x.shape[0] // groups, *sizes), init=init, dtype=computed(x.dtype))
    y = image_functions.conv(x, W, stride, padding, dilation, groups)
    return y + _bias(g, x, filters, rank, name) if bias else y


def conv_transpose(
    g: Graph,
    x: Value,
    filters: int,
    size: Sizes,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    output_padding: Sizes = 0,
    bias: bool = True,
    name: str = "conv_transpose",
    init: str = "kaiming",
) -> Value:
    """`gc.conv_transpose` of x (channels, …) with a weight of its own: (filters, …).

    Params: `{name}_W` (channels, filters / groups, *size), filled as `init` says, and `{name}_b` (filters,), 0 at
    first.
    """
    _check(g, x, name)
    rank = spatial_rank(x.shape, f"layer {name!r}")
    sizes = each(size, rank, f"the size of layer {name!r}", 1)
    (filters,) = each(filters, 1, f"filters= of layer {name!r}", 1)
    groups = check_groups(groups, filters, f"the output of layer {name!r}")
    W = g.param(f"{name}_W", (x.shape[0], filters // groups, *sizes), init=init, dtype=computed(x.dtype))
    y = image_functions.conv_transpose(x, W, stride, padding, dilation, groups, output_padding)
    return y + _bias(g, x, filters, rank, name) if bias else y


def _check(g: Graph, x: Value, name: str) -> None:
    check_graph(g)
    check_value(x, f"layer {name!r} takes")


def _bias(g: Graph, x: Value, filters: int, rank: int, name: str) -> Value:
    return g.param(f"{name}_b", (filters,), dtype=computed(x.dtype)).reshape(filters, *(1,) * rank)


def batch_norm(
    g: Graph,
    x: Value,
    over: Over,
    name: str = "norm",
    convention: Convention = "pytorch",
    eps: float | None = None,
    momentum: float | None = None,
) -> Value:
    """γ ⊙ (x - μ) / √(σ² + ε) + β for each channel of x (channels, …), with the mean and the variance over all further
    dimensions and the axes `over` (Ioffe & Szegedy 2015).

    Params: `{name}_gamma` (channels,), 1 at first, and `{name}_beta` (channels,), 0; and the running statistics
    `{name}_mean` and `{name}_var`, which each call moves towards the batch's, and by which `gc.inference` normalises:

        running ← (1 - momentum) · running + momentum · batch

    | convention | ε | momentum | running variance | at first |
    |---|---|---|---|---|
    | "pytorch" | 1e-5 | 0.1 | of the sample (÷ (count - 1)) | mean 0, variance 1 |
    | "neon" | 1e-3 | 0.1 | of the population (÷ count) | mean 0, variance 0 |
    """
    _check(g, x, name)
    if convention not in ("pytorch", "neon"):
        raise DefinitionError(f"layer {name!r}: a convention of batch_norm is 'pytorch' or 'neon', got {convention!r}")
    if not x.shape:
        raise ShapeError(f"layer {name!r} normalises each channel of an event (channels, …), got a single number")
    neon, dtype = convention == "neon", computed(x.dtype)
    eps = (1e-3 if neon else 1e-5) if eps is None else eps
    momentum = 0.1 if momentum is None else momentum
    channels, dims = x.shape[0], tuple(range(1, len(x.shape)))
    wide = (channels, *(1 for _ in dims))
    gamma = g.param(f"{name}_gamma", (channels,), init=1.0, dtype=dtype)
    beta = g.param(f"{name}_beta", (channels,), init=0.0, dtype=dtype)
    mean = g.param(f"{name}_mean", (channels,), init=0.0, dtype=dtype, trainable=False)
    variance = g.param(f"{name}_var", (channels,), init=0.0 if neon else 1.0, dtype=dtype, trainable=False)
    y = image_functions.batch_norm(x, mean.reshape(*wide), variance.reshape(*wide), over, dims, eps)
    batch_mean = Value(g, normalization.mean(x.node, y.node)).reshape(channels)
    batch_variance = Value(g, normalization.variance(x.node, y.node)).reshape(channels)
    if not neon:
        number = Value(g, normalization.number(x.node, y.node))
        batch_variance = batch_variance * (number / functions.maximum(number - 1, 1))
    g.update(mean, (1 - momentum) * mean + momentum * batch_mean)
    g.update(variance, (1 - momentum) * variance + momentum * batch_variance)
    return gamma.reshape(*wide) * y + beta.reshape(*wide)


def __getattr__(name: str) -> NoReturn:
    raise missing_in(sys.modules[__name__], name)
