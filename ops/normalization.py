"""Normalisation: standardize, which layer and batch normalisation are made of, and batch_norm, which also knows what
the value is normalised by once training is over.

    standardize(x) = (x - μ) / √(σ² + ε)

with the mean μ and the population variance σ² of x over some dimensions and axes. Both are formulas of other ops;
their gradient is the closed form, with as few passes over x as there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError, DtypeError, ShapeError
from graphc.ir import FLOATS, Node, Op, Point, Reads, Type, broadcast_shapes, make
from graphc.ops.elementwise import add, div, mul, sqrt, sub
from graphc.ops.event import reshape
from graphc.ops.leaves import const
from graphc.ops.reduction import count, over_delays, reduced_points, sum_


def _check(x: Node, attrs: Mapping[str, Any]) -> None:
    dims = attrs["dims"]
    if x.dtype not in FLOATS:
        raise DtypeError(f"a floating value is normalised, got {x.dtype}")
    if list(dims) != sorted(set(dims)) or not all(0 <= d < len(x.shape) for d in dims):
        raise ShapeError(f"normalisation over dimensions {dims} of an event of shape {x.shape}")
    if not set(attrs["over"]) <= set(x.axes) or len(set(attrs["over"])) < len(attrs["over"]):
        raise AxisError(f"normalisation over an axis that the value does not vary over, or over one twice: {x.type}")
    if not dims and not attrs["over"]:
        raise ShapeError("normalisation over no dimension and no axis; name them by dim= and over=")


def _epsilon(eps: object) -> float:
    if isinstance(eps, bool) or not isinstance(eps, int | float | np.number):
        raise DtypeError(f"eps= is a number, fixed when the graph is built; got {eps!r}")
    return float(eps)


def _infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (x,) = inputs
    _check(x, attrs)
    return x.type


def _reads(node: Node, point: Point, domain: Any) -> Reads:
    """The point itself, then all that it is normalised by."""
    x = node.inputs[0]
    fixed = {a: p for a, p in point.items() if a not in node["over"]}
    return [(x, point), *((x, p) for p in reduced_points(x, node["over"], fixed, domain))]


def _compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    own, *points = arrays
    every, dims = np.stack(points), (0, *(d + 1 for d in node["dims"]))
    mean, variance = every.mean(dims, keepdims=True)[0], every.var(dims, keepdims=True)[0]
    return (own - mean) / np.sqrt(variance + node["eps"]).astype(node.dtype)


def number(x: Node, node: Node) -> Node:
    """How many elements of a value a node normalises together."""
    elements = const(math.prod(x.shape[d] for d in node["dims"]), x.dtype)
    return mul(elements, count(x, node["over"], x.dtype)) if node["over"] else elements


def mean(x: Node, node: Node) -> Node:
    """The mean of a value over what a node normalises, with the dimensions kept."""
    kept = tuple(1 if d in node["dims"] else s for d, s in enumerate(x.shape))
    return div(reshape(sum_(x, node["dims"], node["over"]), kept), number(x, node))


def variance(x: Node, node: Node) -> Node:
    """The population variance of a value over what a node normalises."""
    centred = sub(x, mean(x, node))
    return mean(mul(centred, centred), node)


def _scale(node: Node) -> Node:
    """1 / √(σ² + ε)"""
    x = node.inputs[0]
    return div(const(1, x.dtype), sqrt(add(variance(x, node), const(node["eps"], x.dtype))))


def _expand(node: Node) -> Node:
    x = node.inputs[0]
    return mul(sub(x, mean(x, node)), _scale(node))


def _gradient(node: Node, d: Node) -> Sequence[Node]:
    """(d - mean(d) - y · mean(d · y)) / √(σ² + ε) (Ioffe & Szegedy 2015)"""
    rest = sub(sub(d, mean(d, node)), mul(node, mean(mul(d, node), node)))
    return (mul(rest, _scale(node)),)


STANDARDIZE = Op(
    "standardize",
    _infer,
    _compute,
    _gradient,
    expand=_expand,
    reads=_reads,
    delays=over_delays,
    reduces=True,
    attributes=("dims", "over", "eps"),
)


def standardize(x: Node, dims: Sequence[int], over: Sequence[Any], eps: float) -> Node:
    return make(STANDARDIZE, (x,), dims=tuple(dims), over=tuple(over), eps=_epsilon(eps))


# batch_norm(x, mean, variance; dims, over, eps): standardize(x), in training; after it, x normalised by the other two.
def _batch_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    x, *running = inputs
    _check(x, attrs)
    for value in running:
        if value.dtype != x.dtype or broadcast_shapes([x.shape, value.shape], "batch_norm") != x.shape:
            raise ShapeError(f"running statistics of type {value.type} do not fit a value of type {x.type}")
        if not set(value.axes) <= set(x.axes):
            raise AxisError(f"running statistics ({value.type}) vary over an axis that the value ({x.type}) does not")
    return x.type


def in_training(node: Node) -> Node:
    """What a batch_norm is before: it reads no running statistics."""
    return standardize(node.inputs[0], node["dims"], node["over"], node["eps"])


BATCH_NORM = Op(
    "batch_norm",
    _batch_infer,
    _compute,
    lambda node, d: (*_gradient(in_training(node), d), None, None),
    expand=in_training,
    reads=_reads,
    delays=lambda node, k: over_delays(node, k) if k == 0 else {},
    reduces=True,
    attributes=("dims", "over", "eps"),
)


def batch_norm(x: Node, mean: Node, variance: Node, dims: Sequence[int], over: Sequence[Any], eps: float) -> Node:
    return make(BATCH_NORM, (x, mean, variance), dims=tuple(dims), over=tuple(over), eps=_epsilon(eps))


def after_training(node: Node) -> Node:
    """What a batch_norm is once its running statistics are known."""
    x, mean, variance = node.inputs
    return div(sub(x, mean), sqrt(add(variance, const(node["eps"], x.dtype))))


NORMALIZATION = (STANDARDIZE, BATCH_NORM)
