"""Probabilities and their logarithms: softmax and its kin along event dimensions and over axes; the loss of a class.

Along an event dimension softmax is an op of its own, which drawings and texts show by its name. Over an axis it is made
of a max and a sum, which skip the points that an example does not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.errors import DtypeError
from graphc.integers import is_whole
from graphc.ir import Node
from graphc.language.functions import (
    Dims,
    Over,
    abs,
    event_dim,
    exp,
    log,
    max,
    reduced_axes,
    reduced_dims,
    softplus,
    stop_gradient,
    sum,
    where,
)
from graphc.language.habits import by_dim
from graphc.language.value import Value, as_value, home, promote
from graphc.ops import composite
from graphc.ops import event as event_ops


@by_dim
def softmax(x: Any, dim: int | None = None, over: Over = None) -> Value:
    """eˣ / Σ eˣ along an event dimension, the last by default; or over axes: `gc.softmax(scores, over=t)`.

    Over axes each element of the event is normalised by itself, and points past an example's length do not count.
    """
    if over is None:
        return _along(composite.softmax, x, -1 if dim is None else dim)
    e = exp(_below_largest(x, dim, over))
    return e / sum(e, over, dim, keepdims=True)


@by_dim
def log_softmax(x: Any, dim: int | None = None, over: Over = None) -> Value:
    """log softmax(x), without overflow."""
    if over is None:
        return _along(composite.log_softmax, x, -1 if dim is None else dim)
    z = _below_largest(x, dim, over)
    return z - log(sum(exp(z), over, dim, keepdims=True))


@by_dim
def logsumexp(x: Any, over: Over = None, dim: Dims = None, keepdims: bool = False) -> Value:
    """log Σ eˣ over axes or event dimensions, without overflow.

    Where all elements are -inf it is -inf, and the gradient is 0; so it is over no points at all.
    """
    (value,) = promote(x, floating=True)
    reduced_axes(over)
    largest = stop_gradient(max(value, over, dim, keepdims=True))
    nothing = largest == -math.inf
    finite = abs(largest) < math.inf
    shift = where(finite, largest, 0.0)  # an infinite one would make NaN of itself
    total = sum(exp(value - shift), over, dim, keepdims=True)
    result = where(nothing, -math.inf, log(where(nothing, 1.0, total)) + shift)  # log's derivative at 0 is infinite
    dims = reduced_dims(value, dim, over)
    return result if keepdims else result.reshape(*(s for d, s in enumerate(value.shape) if d not in dims))


def logaddexp(a: Any, b: Any) -> Value:
    """log(eᵃ + eᵇ), without overflow; that of -inf and -inf is -inf."""
    a, b = promote(a, b, floating=True)
    ordered = b < a  # not by maximum and abs: their derivatives at a tie are a convention, and this one is smooth there
    high, low = where(ordered, a, b), where(ordered, b, a)
    both_infinite = (low == high) & (abs(high) == math.inf)  # then their difference is NaN
    return high + softplus(where(both_infinite, 0.0, low - high))


@by_dim
def cross_entropy(logits: Any, label: Any, dim: int = -1, ignore_index: int | None = None) -> Value:
    """-log softmax(logits)[label]: logits of event (…, classes) and an int32 label of event (…).

    `dim` is the dimension of the classes: 0 for scores of pixels (classes, H, W) and their label (H, W). Where the
    label is `ignore_index` the loss and its gradient are 0. A mean counts these all the same: to leave them out, divide
    the sum by that of `label != ignore_index`. Labels are then computed, and not checked to be classes.
    """
    a, b = as_value(logits, None), as_value(label, None)
    classes = event_dim(dim, a.shape)
    order = [d for d in range(len(a.shape)) if d != classes]
    last = event_ops.transpose(a.node, (*order, classes))
    graph = home(a, b)
    if ignore_index is None:
        return Value(graph, composite.cross_entropy(last, b.node))
    if not is_whole(ignore_index):
        raise DtypeError(f"ignore_index is the number of a class or None, got {ignore_index!r}")
    counts = b != int(ignore_index)
    return where(counts, Value(graph, composite.cross_entropy(last, where(counts, b, 0).node)), 0.0)


def _along(op: Callable[[Node], Node], x: Any, dim: int) -> Value:
    """An op along the last event dimension, along another one."""
    (value,) = promote(x, floating=True)
    perm, d = list(range(len(value.shape))), event_dim(dim, value.shape)
    perm[d], perm[-1] = perm[-1], perm[d]
    swapped = event_ops.transpose(value.node, tuple(perm))
    return Value(value.graph, event_ops.transpose(op(swapped), tuple(perm)))


def _below_largest(x: Any, dim: int | None, over: Over) -> Value:
    """x less the largest of those that it is compared with: constant for all of them, so softmax is the same."""
    (value,) = promote(x, floating=True)
    return value - stop_gradient(max(value, over, dim, keepdims=True))
