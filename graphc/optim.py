"""Optimisers: how a param moves, given its gradient. Each is a few equations in graph ops, so that the compiler fuses
them with the gradient; a learning rate may be a number, a value of the graph such as an input, or a schedule, a
function of the step.

θ is a param, g its gradient, k the number of steps made before, η the learning rate.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NoReturn, Protocol, Self, TypeGuard

import numpy as np

from graphc.errors import DefinitionError
from graphc.language.functions import cos, expm1, maximum, minimum, sqrt, where
from graphc.language.habits import missing_in
from graphc.language.options import check_options
from graphc.language.value import Value

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Momentum",
    "Move",
    "Optimizer",
    "RMSprop",
    "Rate",
    "Schedule",
    "constant",
    "cosine",
    "exponential_decay",
    "rate_at",
    "step_decay",
    "warmup",
]

Schedule = Callable[[Value], Value]
Rate = float | Value | Schedule


@dataclass(frozen=True, slots=True)
class Move:
    """The new value of a param, and of what the optimiser remembers of it."""

    param: Value
    slots: Mapping[str, Value]


class Optimizer(Protocol):
    """`slots` names the arrays, like the param's and at first 0, that the optimiser keeps for each param."""

    slots: ClassVar[tuple[str, ...]]

    @property
    def lr(self) -> Rate: ...

    @property
    def clip(self) -> float | None: ...

    def move(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        """One step; `step` counts those made before, as a floating value."""


def _is_number(x: object) -> TypeGuard[float]:
    return isinstance(x, int | float | np.number) and not isinstance(x, bool) and math.isfinite(x)


_Range = tuple[str, Callable[[float], bool]]
_AVERAGED: _Range = ("a number of at least 0 and below 1", lambda x: 0 <= x < 1)
_SIZE: _Range = ("a number of at least 0", lambda x: x >= 0)
_ABOVE: _Range = ("a number above 0", lambda x: x > 0)
_WITHIN: Mapping[str, _Range] = {
    "beta": _AVERAGED,
    "beta1": _AVERAGED,
    "beta2": _AVERAGED,
    "momentum": ("a number from 0 to 1", lambda x: 0 <= x <= 1),
    "eps": _SIZE,
    "weight_decay": _SIZE,
    "lr": _SIZE,
    "final": _SIZE,
    "warmup": _SIZE,
    "rate": _ABOVE,
    "factor": _ABOVE,
    "steps": _SIZE,
    "every": _ABOVE,
}


def _check_numbers(here: str, given: Mapping[str, object], **others: _Range) -> None:
    """Check options that are numbers, or values of a graph, by what `_WITHIN` says of them, or `others`."""
    for name, value in given.items():
        what, within = others.get(name) or _WITHIN[name]
        if not (isinstance(value, Value) or (_is_number(value) and within(value))):
            raise DefinitionError(f"gc.optim.{here} takes as {name}= {what}, got {value!r}")


class _Rule:
    """An optimiser of this module, whose keyword arguments are checked."""

    def __new__(cls, *given: Any, **options: Any) -> Self:
        check_options(f"gc.optim.{cls.__name__}", options, [x.name for x in fields(cls)])  # type: ignore[arg-type]
        return super().__new__(cls)

    lr: Rate
    clip: float | None

    def __post_init__(self) -> None:
        here = f"gc.optim.{type(self).__name__}"
        if not (isinstance(self.lr, Value) or callable(self.lr) or (_is_number(self.lr) and self.lr >= 0)):
            raise DefinitionError(
                f"{here} takes as lr= a number of at least 0, a value of the graph or a schedule, got {self.lr!r}"
            )
        if self.clip is not None and not (_is_number(self.clip) and self.clip > 0):
            raise DefinitionError(f"{here} takes as clip= a number above 0 or None, got {self.clip!r}")
        numbers = [x.name for x in fields(self) if x.name in _WITHIN and x.name != "lr"]  # type: ignore[arg-type]
        _check_numbers(type(self).__name__, {name: getattr(self, name) for name in numbers})


@dataclass(frozen=True)
class SGD(_Rule):
    """θ ← θ - η (g + λθ).

    `clip` bounds the norm of all gradients together, before anything else is done with them (Pascanu et al. 2013);
    here and below, `weight_decay` is λ.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    lr: Rate
    weight_decay: float = 0.0
    clip: float | None = None

    def move(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        return Move(param - lr * _decayed(gradient, param, self.weight_decay), {})


@dataclass(frozen=True)
class Momentum(_Rule):
    """v ← μv - η (g + λθ); θ ← θ + v (Polyak 1964), with neon's convention that η enters the velocity.

    PyTorch keeps v ← μv + g and moves by -ηv: the same while η is constant. Every param decays, biases too. With
    `nesterov`, θ ← θ + μv - η (g + λθ), with the new v (Sutskever et al. 2013).
    """

    slots: ClassVar[tuple[str, ...]] = ("momentum",)
    lr: Rate
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    nesterov: bool = False

    def move(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        pull = lr * _decayed(gradient, param, self.weight_decay)
        velocity = self.momentum * slots["momentum"] - pull
        moved = param + (self.momentum * velocity - pull if self.nesterov else velocity)
        return Move(moved, {"momentum": velocity})


@dataclass(frozen=True)
class RMSprop(_Rule):
    """v ← βv + (1-β) g²; θ ← θ - η g / (√v + ε), with g + λθ for g (Tieleman & Hinton 2012); v begins at 0."""

    slots: ClassVar[tuple[str, ...]] = ("square",)
    lr: Rate = 1e-2
    beta: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def move(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        gradient = _decayed(gradient, param, self.weight_decay)
        square = self.beta * slots["square"] + (1 - self.beta) * gradient * gradient
        return Move(param - lr * gradient / (sqrt(square) + self.eps), {"square": square})


@dataclass(frozen=True)
class Adam(_Rule):
    """m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²; θ ← θ - η m̂ / (√v̂ + ε), with the biases of m and v corrected
    (Kingma & Ba 2015). Weight decay is added to the gradient; `AdamW` decays the param itself."""

    slots: ClassVar[tuple[str, ...]] = ("mean", "square")
    lr: Rate = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def move(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        return self._moved(param, _decayed(gradient, param, self.weight_decay), slots, lr, step)

    def _moved(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        mean = self.beta1 * slots["mean"] + (1 - self.beta1) * gradient
        square = self.beta2 * slots["square"] + (1 - self.beta2) * gradient * gradient
        unbiased_mean = mean / _weight(self.beta1, step)
        unbiased_square = square / _weight(self.beta2, step)
        moved = param - lr * unbiased_mean / (sqrt(unbiased_square) + self.eps)
        return Move(moved, {"mean": mean, "square": square})


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, θ ← θ - ηλθ before the step (Loshchilov & Hutter 2019)."""

    weight_decay: float = 0.01

    def move(self, param: Value, gradient: Value, slots: Mapping[str, Value], lr: Value | float, step: Value) -> Move:
        decayed = param - lr * self.weight_decay * param if self.weight_decay else param
        return self._moved(decayed, gradient, slots, lr, step)


def _decayed(gradient: Value, param: Value, weight_decay: float) -> Value:
    return gradient + weight_decay * param if weight_decay else gradient


def _weight(beta: float, step: Value) -> Value | float:
    """1 - β^(k+1), the weight of all gradients in a running mean; written so that float32 keeps its digits at first."""
    return -expm1((step + 1) * math.log(beta)) if beta else 1.0


# Schedules: from the number of steps made before, as a floating value, to the learning rate.


def constant(lr: float) -> Schedule:
    """η = lr."""
    _check_numbers("constant", {"lr": lr})
    return lambda step: lr + 0 * step


def exponential_decay(lr: float, rate: float, steps: int) -> Schedule:
    """η = lr · rate^(k / steps)."""
    _check_numbers("exponential_decay", {"lr": lr, "rate": rate, "steps": steps}, steps=_ABOVE)
    return lambda step: lr * rate ** (step / steps)


def step_decay(lr: float, factor: float, every: int) -> Schedule:
    """η = lr · factor^⌊k / every⌋."""
    _check_numbers("step_decay", {"lr": lr, "factor": factor, "every": every})
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Half a cosine from lr to `final` over `steps`, after a linear rise over `warmup` (Loshchilov & Hutter 2017)."""
    _check_numbers("cosine", {"lr": lr, "steps": steps, "warmup": warmup, "final": final})

    def rate(step: Value) -> Value:
        progress = minimum(maximum((step - warmup) / max(steps - warmup, 1), 0.0), 1.0)
        falling = final + 0.5 * (lr - final) * (1 + cos(math.pi * progress))
        return where(step < warmup, lr * (step + 1) / max(warmup, 1), falling)

    return rate


def warmup(schedule: Rate, steps: int) -> Schedule:
    """A linear rise to a schedule's own value over `steps`."""
    _check_numbers("warmup", {"steps": steps})
    if not (isinstance(schedule, Value) or callable(schedule)):
        _check_numbers("warmup", {"lr": schedule})

    def rate(step: Value) -> Value:
        return minimum((step + 1) / steps, 1.0) * rate_at(schedule, step)

    return rate


def rate_at(lr: Rate, step: Value) -> Value | float:
    """The learning rate of a step, in the step's graph."""
    if isinstance(lr, Value):
        return Value(step.graph, lr.node)
    return lr(step) if callable(lr) else lr


def __getattr__(name: str) -> NoReturn:
    raise missing_in(sys.modules[__name__], name)
