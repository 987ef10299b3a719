"""Initialisers: what the `init` of a param names, and how its elements are drawn."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from graphc.errors import DefinitionError, DtypeError, meant
from graphc.ir import FLOATING, Node, Shape

Draw = Callable[[np.random.Generator], np.ndarray]
"""A random array."""

Initialiser = Callable[[Shape], Draw]
"""How arrays of any shape are drawn."""


def initialiser(name: str, init: str, node: Node) -> Draw:
    """What draws the array of a param: a number is that constant, a name one of `INITIALISERS` with its arguments.

    Raises `DefinitionError` or `DtypeError` if there is none for the param's shape and dtype.
    """
    try:
        constant = float(init)
    except ValueError:
        pass
    else:
        return lambda _: np.full(node.shape, constant, node.dtype)
    match = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", init)
    if match is None or match[1] not in INITIALISERS:
        known, hint = ", ".join(INITIALISERS), meant(match[1] if match else init, INITIALISERS)
        raise DefinitionError(f"param {name!r} names the initialiser {init!r}; it is a number or one of {known}{hint}")
    if node.dtype not in FLOATING and match[1] not in ("zeros", "ones"):
        raise DtypeError(f"param {name!r} is {node.dtype}; only a number can initialise it, not {init!r}")
    try:
        return _with_arguments(match[1], match[2] or "")(node.shape)
    except (TypeError, ValueError) as error:
        message = f"param {name!r} of shape {node.shape}: initialiser {init!r} does not work: {error}"
        raise DefinitionError(message) from None


def _with_arguments(name: str, text: str) -> Initialiser:
    """An initialiser with the numbers that a text lists."""
    given = [float(a) for a in text.split(",") if a.strip()]
    signature = inspect.signature(INITIALISERS[name])
    try:
        signature.bind(*given)
    except TypeError:
        arguments = ", ".join(signature.parameters)
        raise TypeError(f"write {name}({arguments})" if arguments else f"{name} takes no arguments") from None
    return INITIALISERS[name](*given)


def _fans(shape: Shape) -> tuple[int, int]:
    """How many elements one output is made of, and how many one input reaches."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def _normal(std: float = 1.0) -> Initialiser:
    if not std >= 0:
        raise ValueError(f"the standard deviation is {std}")
    return lambda shape: lambda generator: generator.normal(0.0, std, shape)


def _uniform(low: float, high: float | None = None) -> Initialiser:
    a, b = (-low, low) if high is None else (low, high)
    if not a <= b:
        raise ValueError(f"the interval from {a} to {b} is empty")
    return lambda shape: lambda generator: generator.uniform(a, b, shape)


def _scaled(variance: Callable[[int, int], float], uniform: bool) -> Callable[[], Initialiser]:
    """Zero mean and a variance that follows from (fan_in, fan_out)."""

    def of_shape(shape: Shape) -> Draw:
        std = math.sqrt(variance(*_fans(shape)))
        return (_uniform(math.sqrt(3) * std) if uniform else _normal(std))(shape)

    return lambda: of_shape


def _orthogonal(gain: float = 1.0) -> Initialiser:
    def of_shape(shape: Shape) -> Draw:
        if len(shape) < 2:
            raise ValueError("an orthogonal param is a matrix")
        rows, columns = shape[0], math.prod(shape[1:])

        def draw(generator: np.random.Generator) -> np.ndarray:
            q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
            q = q * np.sign(np.diag(r))  # makes the distribution uniform (Mezzadri 2007)
            return gain * (q if rows >= columns else q.T).reshape(shape)

        return draw

    return of_shape


def _identity(gain: float = 1.0) -> Initialiser:
    def of_shape(shape: Shape) -> Draw:
        if len(shape) != 2:
            raise ValueError("an identity is a matrix")
        return lambda _: gain * np.eye(*shape)

    return of_shape


def _glorot(fan_in: int, fan_out: int) -> float:
    return 2 / (fan_in + fan_out)


def _kaiming(fan_in: int, _: int) -> float:
    return 2 / fan_in


def _lecun(fan_in: int, _: int) -> float:
    return 1 / fan_in


INITIALISERS: Mapping[str, Callable[..., Initialiser]] = {
    "zeros": lambda: lambda shape: lambda _: np.zeros(shape),
    "ones": lambda: lambda shape: lambda _: np.ones(shape),
    "normal": _normal,
    "uniform": _uniform,
    "glorot_uniform": _scaled(_glorot, uniform=True),
    "glorot_normal": _scaled(_glorot, uniform=False),
    "xavier_uniform": _scaled(_glorot, uniform=True),
    "xavier_normal": _scaled(_glorot, uniform=False),
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
