"""Random numbers that are functions of a seed and of where they are, and dropout, which is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc.errors import DtypeError
from graphc.integers import is_whole
from graphc.ir import Axis, Node, check_shape
from graphc.language.functions import Over, reduced_axes
from graphc.language.value import Positions, Value, as_value, home, promote
from graphc.ops import composite, leaves
from graphc.ops import elementwise as ew
from graphc.ops.random import hash_


def random(seed: Any, axes: Over = (), shape: tuple[int, ...] = (), salt: int = 0, dtype: str = "") -> Value:
    """Uniform numbers in [0, 1), independent at every point of the axes and every element of the event: multiples of
    2⁻²⁴, by default of the graph's dtype.

    They are a function of `seed` (an int or an int32 value) and `salt` alone: the same for the interpreter, for
    compiled code and for an unrolled graph. Draws within one graph are told apart by their salts.
    """
    key, axes = as_value(seed, None, dtype="int32"), reduced_axes(axes, "axes")
    if not is_whole(salt) or not 0 <= salt < 1 << 32:
        raise DtypeError(f"a salt is a whole number from 0 to 2³² - 1, fixed when the graph is built; got {salt!r}")
    node = random_bits(key.node, axes, check_shape(shape), int(salt))
    dtype = dtype or (key.graph.dtype if key.graph is not None else axes[0].dtype if axes else "float32")
    mantissa = ew.cast(ew.floordiv(node, leaves.const(1 << 8, "int32")), dtype)  # 24 bits, from -2²³ to 2²³ - 1
    scale = leaves.const(2.0**-24, dtype)
    place = key.graph if key.graph is not None else Positions(dtype)
    return Value(place, ew.add(ew.mul(mantissa, scale), leaves.const(0.5, dtype)))


def random_bits(key: Node, axes: tuple[Axis, ...], shape: tuple[int, ...], salt: int) -> Node:
    """A hash of the key, of the position along each axis in turn, and of the position in the event."""
    for axis in axes:
        key = hash_(key, leaves.index(axis), salt)
    positions = np.arange(math.prod(shape)).reshape(shape)
    return hash_(key, leaves.const(positions, "int32"), salt)


def dropout(x: Any, rate: float, seed: Any, salt: int = 0) -> Value:
    """Zero each element with probability `rate`, and scale the others by 1 / (1 - rate) (Srivastava et al. 2014).

    After training (`gc.inference`) it is the value itself. `seed` is an int or an int32 value without axes, such as an
    input that counts the training steps. Two dropouts of one graph that should be independent get different salts.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise DtypeError(f"a dropout rate is a number, fixed when the graph is built; got {rate!r}")
    (value,) = promote(x, floating=True)
    draw = random(seed, value.axes, value.shape, salt, value.dtype)
    return Value(home(value, draw), composite.dropout(value.node, draw.node, rate))
