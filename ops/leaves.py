"""Leaves: values that no op computes. Inputs, params, states, constants, and the positions along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import AxisError
from graphc.ir import Axis, Node, Op, Type, check_dtype, lengths_within, make
from graphc.ops.site import Site
from graphc.scalar import Const as ScalarConst
from graphc.scalar import Scalar, cast, computed


def _declared(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    return Type(attrs["axes"], attrs["shape"], attrs["dtype"])


# The caller's arrays, and the values on cycles. Their names and types are all there is to them.
_DECLARATION = ("name", "axes", "shape", "dtype")
INPUT = Op("input", _declared, compute=None, gradient=None, attributes=_DECLARATION)
PARAM = Op("param", _declared, compute=None, gradient=None, attributes=_DECLARATION)
STATE = Op("state", _declared, compute=None, gradient=None, attributes=_DECLARATION)
# The adjoint that a custom gradient's rule is written in (see `graphc.ops.gradient`).
COTANGENT = Op("cotangent", _declared, compute=None, gradient=None, attributes=_DECLARATION)

DECLARED = (INPUT, PARAM, STATE)  # what a graph has by name
LEAVES = (*DECLARED, COTANGENT)


def leaf(op: Op, name: str, axes: Sequence[Axis], shape: tuple[int, ...], dtype: str) -> Node:
    return make(op, (), name=name, axes=tuple(axes), shape=shape, dtype=dtype)


# const: an array written into the graph.
def _const_lower(node: Node, site: Site) -> Scalar:
    array = array_of(node)
    first = array.reshape(-1)[0]
    if array.ndim == 0 or (array == first).all():
        return ScalarConst(first.item(), computed(node.dtype))
    return site.constant(array)


CONST = Op(
    "const",
    lambda inputs, attrs: Type((), attrs["shape"], attrs["dtype"]),
    compute=lambda node, arrays: array_of(node),
    gradient=None,
    lower=_const_lower,
    cost=0,
    attributes=("data", "shape", "dtype"),
)


def const(value: Any, dtype: str) -> Node:
    array = np.ascontiguousarray(np.asarray(value), dtype=np.dtype(check_dtype(dtype)))
    if np.ndim(value) == 0:
        array = array.reshape(())
    return make(CONST, (), data=array.tobytes(), shape=array.shape, dtype=dtype)


def array_of(node: Node) -> np.ndarray:
    """The array of a constant, read-only."""
    return np.frombuffer(node["data"], dtype=node.dtype).reshape(node.shape)


def is_const(node: Node, value: float) -> bool:
    return node.op is CONST and bool((array_of(node) == value).all())


# index: the position along an axis, from 0.
INDEX = Op(
    "index",
    lambda inputs, attrs: Type((attrs["axis"],), (), "int32"),
    compute=None,
    gradient=None,
    lower=lambda node, site: cast(site.point[node["axis"]], "int32"),
    cost=0,
    attributes=("axis",),
)


# extent: how long the arrays are along an axis; for a ragged axis, the longest that fits.
def _extent_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    if not isinstance(attrs["axis"], Axis):
        raise AxisError(f"the extent of an axis, not of {attrs['axis']!r}")
    return Type((), (), "int32")


EXTENT = Op(
    "extent",
    _extent_infer,
    compute=None,
    gradient=None,
    lower=lambda node, site: cast(site.extent(node["axis"]), "int32"),
    cost=0,
    attributes=("axis",),
)


def index(axis: Axis) -> Node:
    return make(INDEX, (), axis=axis)


def length(axis: Axis, axes: Sequence[Axis] | None = None) -> Node:
    """How many points a value over `axes` has along `axis`: each example's own number where that is known."""
    if isinstance(axis.length, int):
        return const(axis.length, "int32")
    lengths = axis.length if axes is None else lengths_within(axis, axes)
    return lengths or make(EXTENT, (), axis=axis)
