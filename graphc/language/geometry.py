"""The geometry of convolution and pooling: from the sizes, strides, paddings and dilations that a user gives to the
frames of a window over the dimensions that follow the channels.

In: an event (channels, …) and numbers. Out: a frame for every further dimension; every number is checked, and every
window has a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.errors import ShapeError
from graphc.integers import is_whole
from graphc.ir import Shape
from graphc.ops.window import Frame

Sizes = int | Sequence[int]
"""A whole number, the same along each dimension, or one for each."""


def each(value: Any, rank: int, what: str, least: int = 0) -> tuple[int, ...]:
    """A number for each dimension. `what` names the argument in the message."""
    several = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    items = tuple(value) if several else (value,) * rank
    if len(items) != rank or any(not is_whole(v) or v < least for v in items):
        raise ShapeError(
            f"{what} is one whole number of at least {least}, or one for each of {rank} dimensions; got {value!r}"
        )
    return tuple(int(v) for v in items)


def check_groups(groups: Any, channels: int, what: str) -> int:
    """A number of groups that the channels split into."""
    if not is_whole(groups) or groups < 1 or channels % groups:
        raise ShapeError(f"{what} of {channels} channels is in groups of equal size; got groups={groups!r}")
    return int(groups)


def spatial_rank(shape: Shape, what: str) -> int:
    """How many dimensions follow the channels: 1 to 3."""
    if not 2 <= len(shape) <= 4:
        raise ShapeError(f"{what} takes an event (channels, …) with 1 to 3 further dimensions, got {shape}")
    return len(shape) - 1


def check_kernel(shape: Shape, kernel: Shape, what: str) -> None:
    """A weight has two dimensions for channels, and the further ones of the event that it goes over."""
    if len(kernel) != len(shape) + 1:
        sizes = ", ".join("k" * (len(shape) - 1))
        raise ShapeError(f"{what} of an event {shape} takes a weight of two channel dimensions and ({sizes}): {kernel}")


def sliding(shape: Shape, size: Any, stride: Any, padding: Any, dilation: Any, what: str) -> list[Frame]:
    """The places of a window that slides over an event and its padding."""
    rank = spatial_rank(shape, what)
    sizes = each(size, rank, f"the size of {what}", 1)
    strides = each(stride, rank, f"the stride of {what}", 1)
    pads = each(padding, rank, f"the padding of {what}")
    dilations = each(dilation, rank, f"the dilation of {what}", 1)
    frames = []
    for k, extent in enumerate(shape[1:]):
        reach = dilations[k] * (sizes[k] - 1) + 1
        room = extent + 2 * pads[k] - reach
        if room < 0:
            raise ShapeError(
                f"{what} of an event {shape}: a window of size {sizes} and dilation {dilations} spans {reach} elements "
                f"of dimension {k + 1}, which has {extent + 2 * pads[k]} with its padding; pad it by more"
            )
        frames.append(Frame(k + 1, sizes[k], room // strides[k] + 1, strides[k], dilations[k], -pads[k]))
    return frames


def pooling(shape: Shape, size: Any, stride: Any, padding: Any, dilation: Any) -> list[Frame]:
    """The places of a window each of which sees an element of the event; the stride is the size by default."""
    frames = sliding(shape, size, size if stride is None else stride, padding, dilation, "pooling")
    if any(not f.positions(shape[f.dim])[1].any(1).all() for f in frames):
        raise ShapeError(
            f"pooling of an event {shape}: a window of size {size} and padding {padding} sees nothing but padding"
        )
    return frames


def spreading(
    shape: Shape, sizes: Shape, stride: Any, padding: Any, dilation: Any, more: Any
) -> tuple[list[Frame], Shape]:
    """The frames by which a transposed convolution spreads each element of an event, and the extents that they fill."""
    what, rank = "a transposed convolution", len(shape) - 1
    strides = each(stride, rank, f"the stride of {what}", 1)
    pads = each(padding, rank, f"the padding of {what}")
    dilations = each(dilation, rank, f"the dilation of {what}", 1)
    further = each(more, rank, f"the output_padding of {what}")
    frames, extents = [], []
    for k, count in enumerate(shape[1:]):
        if further[k] >= max(strides[k], dilations[k]):
            raise ShapeError(
                f"the output_padding of {what} is smaller than its stride or its dilation; got {further} with stride "
                f"{strides} and dilation {dilations}"
            )
        extent = (count - 1) * strides[k] + dilations[k] * (sizes[k] - 1) + 1 + further[k]
        if extent <= 2 * pads[k]:
            raise ShapeError(
                f"{what} of an event {shape} by a weight of size {sizes} fills {extent} elements of dimension {k + 1}, "
                f"of which a padding of {pads[k]} takes away {2 * pads[k]}"
            )
        frames.append(Frame(k + 1, sizes[k], count, strides[k], dilations[k], -pads[k]))
        extents.append(extent - 2 * pads[k])
    return frames, tuple(extents)


def after(frames: Sequence[Frame], dims: int) -> list[Frame]:
    """The frames of an event with so many more dimensions in front."""
    return [Frame(f.dim + dims, f.size, f.count, f.stride, f.dilation, f.start) for f in frames]
