"""initialize: an array for every param of a graph, by the initialiser that each names.

In: a graph and a seed. Out: a dict of new arrays by param name, ready to be passed to a call. Each array depends on
the seed, the param's name, shape and initialiser alone, so adding a param to a graph leaves all others as they were,
and a float32 graph starts where its float64 twin does.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from graphc.errors import DefinitionError, DtypeError
from graphc.graph import Graph, Param, check_graph
from graphc.ir import FLOATING, Node, Shape
from graphc.ops.leaves import array_of

Draw = Callable[[np.random.Generator, Shape], np.ndarray]
"""A random array of a shape, in float64."""


def initialize(g: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """A new array for every param, filled as its `init` says.

    | init | fills with |
    |---|---|
    | a number, "zeros", "ones" | that constant |
    | an array | its elements |
    | "normal(std)" | N(0, std²); std is 1 by default |
    | "uniform(low, high)" | U(low, high); "uniform(a)" is U(-a, a) |
    | "glorot_uniform", "glorot_normal" | variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010) |
    | "kaiming_uniform", "kaiming_normal" (also "he_…", "kaiming") | variance 2 / fan_in (He et al. 2015) |
    | "lecun_uniform", "lecun_normal" | variance 1 / fan_in (LeCun et al. 1998) |
    | "orthogonal(gain)" | gain · a random matrix with orthonormal rows or columns (Saxe et al. 2014) |
    | "identity(gain)" | gain · the identity (Le et al. 2015) |

    A matrix of shape (out, in) has these fans; further dimensions are a convolution's window and multiply both. A
    vector has its length for both fans.
    """
    check_graph(g)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise DtypeError(f"a seed is an int of at least 0, got {seed!r}")
    return {name: _array(g, name, param, int(seed)) for name, param in g.params.items()}


def _array(g: Graph, name: str, param: Param, seed: int) -> np.ndarray:
    node = param.node
    location = g.locations.get(node)
    if isinstance(param.init, Node):
        return array_of(param.init).copy()
    try:
        constant = float(param.init)
    except ValueError:
        pass
    else:
        return np.full(node.shape, constant, node.dtype)
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", param.init)
    if match is None or match[1] not in INITIALISERS:
        known = ", ".join(INITIALISERS)
        message = f"param {name!r} names the initialiser {param.init!r}; it is a number or one of {known}"
        raise DefinitionError(message, location)
    if node.dtype not in FLOATING and match[1] not in ("zeros", "ones"):
        message = f"param {name!r} is {node.dtype}; only a number can initialise it, not {param.init!r}"
        raise DtypeError(message, location)
    digest = hashlib.sha256(name.encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    try:
        draw = INITIALISERS[match[1]](*(float(a) for a in (match[2] or "").split(",") if a.strip()))
        return np.array(draw(generator, node.shape), node.dtype, order="C")
    except (TypeError, ValueError) as error:
        message = f"param {name!r} of shape {node.shape}: initialiser {param.init!r} does not work: {error}"
        raise DefinitionError(message, location) from None


def _fans(shape: Shape) -> tuple[int, int]:
    """How many elements one output is made of, and how many one input reaches."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def _normal(std: float = 1.0) -> Draw:
    if not std >= 0:
        raise ValueError(f"the standard deviation is {std}")
    return lambda generator, shape: generator.normal(0.0, std, shape)


def _uniform(low: float, high: float | None = None) -> Draw:
    a, b = (-low, low) if high is None else (low, high)
    if not a <= b:
        raise ValueError(f"the interval from {a} to {b} is empty")
    return lambda generator, shape: generator.uniform(a, b, shape)


def _scaled(variance: Callable[[int, int], float], uniform: bool) -> Callable[[], Draw]:
    """Zero mean and a variance that follows from (fan_in, fan_out)."""

    def draw(generator: np.random.Generator, shape: Shape) -> np.ndarray:
        std = math.sqrt(variance(*_fans(shape)))
        if uniform:
            return generator.uniform(-math.sqrt(3) * std, math.sqrt(3) * std, shape)
        return generator.normal(0.0, std, shape)

    return lambda: draw


def _orthogonal(gain: float = 1.0) -> Draw:
    def draw(generator: np.random.Generator, shape: Shape) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError("an orthogonal param is a matrix")
        rows, columns = shape[0], math.prod(shape[1:])
        q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return draw


def _identity(gain: float = 1.0) -> Draw:
    def draw(_: np.random.Generator, shape: Shape) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError("an identity is a matrix")
        return gain * np.eye(*shape)

    return draw


def _glorot(fan_in: int, fan_out: int) -> float:
    return 2 / (fan_in + fan_out)


def _kaiming(fan_in: int, _: int) -> float:
    return 2 / fan_in


def _lecun(fan_in: int, _: int) -> float:
    return 1 / fan_in


INITIALISERS: Mapping[str, Callable[..., Draw]] = {
    "zeros": lambda: lambda _, shape: np.zeros(shape),
    "ones": lambda: lambda _, shape: np.ones(shape),
    "normal": _normal,
    "uniform": _uniform,
    "glorot_uniform": _scaled(_glorot, uniform=True),
    "glorot_normal": _scaled(_glorot, uniform=False),
    "kaiming": _scaled(_kaiming, uniform=False),
    "kaiming_uniform": _scaled(_kaiming, uniform=True),
    "kaiming_normal": _scaled(_kaiming, uniform=False),
    "he_uniform": _scaled(_kaiming, uniform=True),
    "he_normal": _scaled(_kaiming, uniform=False),
    "lecun_uniform": _scaled(_lecun, uniform=True),
    "lecun_normal": _scaled(_lecun, uniform=False),
    "orthogonal": _orthogonal,
    "identity": _identity,
}
