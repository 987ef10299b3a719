"""Ops that are formulas of others, kept whole so that graphs, drawings and texts stay readable: softmax and its kin,
which work along the last event dimension, and dropout.

`expand` gives the formula, which is what the compiler fuses; the gradient and the numpy reference are the closed
forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DtypeError, ShapeError
from graphc.ir import FLOATS, Node, Op, Type, make, merge_axes
from graphc.ops.elementwise import cast, div, eq, exp, le, log, mul, sub, where
from graphc.ops.event import reshape
from graphc.ops.leaves import const
from graphc.ops.reduction import max_, sum_


def _infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (x,) = inputs
    if not x.shape or x.dtype not in FLOATS:
        raise ShapeError(f"softmax takes a floating event with at least one dimension, got {x.type}")
    return x.type


def _last(reduced: Node) -> Node:
    """A reduction of the last dimension, with that dimension kept at length 1."""
    return reshape(reduced, (*reduced.shape, 1))


def _sum_last(x: Node) -> Node:
    return _last(sum_(x, dims=(len(x.shape) - 1,)))


def _max_last(x: Node) -> Node:
    return _last(max_(x, dims=(len(x.shape) - 1,)))


# softmax(x) = eˣ / Σ eˣ
def _softmax_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    e = np.exp(arrays[0] - arrays[0].max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softmax_expand(node: Node) -> Node:
    (x,) = node.inputs
    e = exp(sub(x, _max_last(x)))
    return div(e, _sum_last(e))


SOFTMAX = Op(
    "softmax",
    _infer,
    _softmax_compute,
    lambda node, d: (mul(node, sub(d, _sum_last(mul(d, node)))),),
    expand=_softmax_expand,
)


# log_softmax(x) = x − log Σ eˣ
def _log_softmax_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    z = arrays[0] - arrays[0].max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def _log_softmax_expand(node: Node) -> Node:
    (x,) = node.inputs
    below = sub(x, _max_last(x))  # first: next to large logits the logarithm would be rounded away
    return sub(below, _log_sum(below))


def _log_sum(below: Node) -> Node:
    """log Σ exp of logits that are at most 0."""
    return log(_sum_last(exp(below)))


LOG_SOFTMAX = Op(
    "log_softmax",
    _infer,
    _log_softmax_compute,
    lambda node, d: (sub(d, mul(softmax(node.inputs[0]), _sum_last(d))),),
    expand=_log_softmax_expand,
)


# cross_entropy(logits, label) = −log softmax(logits)[label]
def _cross_entropy_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    logits, label = inputs
    if label.dtype != "int32":
        raise DtypeError(f"the label of cross_entropy is the int32 number of a class, got {label.dtype}")
    if not logits.shape or logits.dtype not in FLOATS or label.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy takes floating logits (…, classes) and a label (…), got {logits.type} and {label.type}"
        )
    return Type(merge_axes(logits.axes, label.axes), label.shape, logits.dtype)


def _cross_entropy_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    logits, label = arrays
    if (label < 0).any() or (label >= logits.shape[-1]).any():
        raise ArgumentError(f"a label is outside the {logits.shape[-1]} classes: found {label.min()} to {label.max()}")
    z = logits - logits.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(z, label[..., None], axis=-1)[..., 0]
    return np.log(np.exp(z).sum(axis=-1)) - picked


def one_hot(label: Node, classes: int, dtype: str) -> Node:
    """1 at the label's position of a new last dimension, 0 elsewhere."""
    positions = const(np.arange(classes), "int32")
    return cast(eq(reshape(label, (*label.shape, 1)), positions), dtype)


def _cross_entropy_expand(node: Node) -> Node:
    logits, label = node.inputs
    below = sub(logits, _max_last(logits))
    at_label = one_hot(label, logits.shape[-1], "bool")
    picked = sum_(where(at_label, below, const(0.0, logits.dtype)), dims=(len(logits.shape) - 1,))
    return sub(reshape(_log_sum(below), label.shape), picked)


def _cross_entropy_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    logits, label = node.inputs
    return mul(_last(d), sub(softmax(logits), one_hot(label, logits.shape[-1], logits.dtype))), None


CROSS_ENTROPY = Op(
    "cross_entropy",
    _cross_entropy_infer,
    _cross_entropy_compute,
    _cross_entropy_gradient,
    expand=_cross_entropy_expand,
)


# dropout(x, draw; rate) = x / (1 - rate) where draw ≥ rate, else 0: `draw` is uniform in [0, 1).
def _dropout_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    x, draw = inputs
    if x.dtype not in FLOATS or draw.dtype != x.dtype or draw.shape != x.shape or not set(draw.axes) <= set(x.axes):
        raise ShapeError(f"dropout of a value of type {x.type} by draws of type {draw.type}")
    if not 0 <= attrs["rate"] < 1:
        raise ShapeError(f"a dropout rate is at least 0 and below 1, got {attrs['rate']}")
    return x.type


def _dropout_expand(node: Node) -> Node:
    x, draw = node.inputs
    rate = node["rate"]
    kept = le(const(rate, x.dtype), draw)
    return where(kept, mul(x, const(1 / (1 - rate), x.dtype)), const(0, x.dtype))


def _dropout_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    x, draw = arrays
    rate = node["rate"]
    return np.where(draw >= np.asarray(rate, x.dtype), x * np.asarray(1 / (1 - rate), x.dtype), np.asarray(0, x.dtype))


DROPOUT = Op(
    "dropout",
    _dropout_infer,
    _dropout_compute,
    lambda node, d: (dropout(d, node.inputs[1], node["rate"]), None),
    expand=_dropout_expand,
    attributes=("rate",),
)


def dropout(x: Node, draw: Node, rate: float) -> Node:
    return make(DROPOUT, (x, draw), rate=float(rate))


def softmax(x: Node) -> Node:
    return make(SOFTMAX, (x,))


def log_softmax(x: Node) -> Node:
    return make(LOG_SOFTMAX, (x,))


def cross_entropy(logits: Node, label: Node) -> Node:
    return make(CROSS_ENTROPY, (logits, label))
