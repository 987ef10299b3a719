"""JAX: lax.scan over a step with fused products, compiled ahead of its calls; associative_scan where it applies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarks.peers.peer import Call, Calls, Peer
from benchmarks.problems import Arrays, Linear, Sequence


class Ops:
    """The functions that the cells' steps are written in."""

    sigmoid = staticmethod(jax.nn.sigmoid)
    tanh = staticmethod(jnp.tanh)
    exp = staticmethod(jnp.exp)
    softplus = staticmethod(jax.nn.softplus)
    maximum = staticmethod(jnp.maximum)

    einsum = staticmethod(jnp.einsum)

    @staticmethod
    def split(a: Any, parts: int | tuple[int, ...]) -> Any:
        return jnp.split(a, parts if isinstance(parts, int) else list(itertools.accumulate(parts))[:-1], -1)

    @staticmethod
    def affine(a: Any, h: Any, U: Any) -> Any:
        return a + h @ U.T

    @staticmethod
    def layer_norm(a: Any, gain: Any, bias: Any) -> Any:
        centred = a - a.mean(-1, keepdims=True)
        return gain * centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) + bias


class Jax(Peer):
    name = "JAX"
    version = jax.__version__
    note = "lax.scan under jit; its pool has a thread for each core that the process may use"

    def __init__(self, threads: int) -> None:
        pass  # JAX takes as many threads as the process has cores, whatever it is told

    def forward(self, problem: Sequence) -> Calls:
        weights = problem.kind.pack(problem.params)
        return {self.name: _forward(lambda w, x: _scan(problem, w, x), weights, problem.x)}

    def training(self, problem: Sequence) -> Calls:
        weights = problem.kind.pack(problem.params)
        unpack = problem.kind.unpack
        return {
            self.name: _training(lambda w, x: _loss(problem.asked(_scan(problem, w, x))), weights, unpack, problem.x)
        }

    def step(self, problem: Sequence) -> Calls:
        weights = _device(problem.kind.pack(problem.params))
        zeros = tuple(jnp.asarray(zero) for zero in problem.kind.zeros(problem.batch, problem.units))
        step = _compiled(lambda w, x, states: problem.kind.step(Ops, w, of_x(w, x), states), weights, zeros[0], zeros)
        states, frame = zeros, jnp.asarray(problem.x[0])

        def run() -> None:
            nonlocal states
            states = jax.block_until_ready(step(weights, frame, states))

        def results() -> Arrays:
            own, h = zeros, []
            for x in problem.x:
                own = step(weights, jnp.asarray(x), own)
                h.append(np.asarray(own[0]))
            return {"h": np.stack(h)}

        return {self.name: Call(run, results)}

    def linear_forward(self, problem: Linear) -> Calls:
        return {name: _forward(h, {"a": problem.a, "b": problem.b}) for name, h in _LINEAR.items()}

    def linear_training(self, problem: Linear) -> Calls:
        arrays = {"a": problem.a, "b": problem.b}

        def call(h: Callable[..., Any]) -> Call:
            return _training(lambda w: (h(w) ** 2).mean(), arrays, lambda grads: grads)

        return {name: call(h) for name, h in _LINEAR.items()}


def of_x(weights: Any, x: Any) -> Any:
    """The packed W x + b."""
    return x @ weights["W"].T + weights.get("b", 0.0)


def scan(step: Callable[[Any, Any], Any], zeros: Any, rows: Any) -> Any:
    """The first of the states at every step; `step` makes them of those before and of a row."""

    def body(states: Any, row: Any) -> Any:
        states = step(states, row)
        return states, states[0]

    return lax.scan(body, zeros, rows)[1]


def _scan(problem: Sequence, weights: Any, x: Any) -> Any:
    """h at every step."""
    zeros = tuple(jnp.asarray(zero) for zero in problem.kind.zeros(*x.shape[1:]))
    return scan(lambda states, a: problem.kind.step(Ops, weights, a, states), zeros, of_x(weights, x))


def _loss(h: Any) -> Any:
    return (h * h).sum(-1).mean()


def _linear_scan(w: Any) -> Any:
    def body(h: Any, ab: Any) -> Any:
        h = ab[0] * h + ab[1]
        return h, h

    return lax.scan(body, jnp.zeros_like(w["b"][0]), (w["a"], w["b"]))[1]


def _linear_associative(w: Any) -> Any:
    """(a₁, b₁) then (a₂, b₂) is (a₂ a₁, a₂ b₁ + b₂)."""
    return lax.associative_scan(lambda p, q: (q[0] * p[0], q[0] * p[1] + q[1]), (w["a"], w["b"]))[1]


_LINEAR = {"JAX": _linear_scan, "JAX associative": _linear_associative}


def _device(arrays: Arrays) -> dict[str, Any]:
    return {name: jnp.asarray(a) for name, a in arrays.items()}


def _compiled(function: Callable[..., Any], *arrays: Any) -> Any:
    return jax.jit(function).lower(*arrays).compile()


def _forward(function: Callable[..., Any], weights: Arrays, *inputs: np.ndarray) -> Call:
    given = (_device(weights), *map(jnp.asarray, inputs))
    f = _compiled(function, *given)
    return Call(lambda: jax.block_until_ready(f(*given)), lambda: {"h": np.asarray(f(*given))})


def _training(
    loss: Callable[..., Any], weights: Arrays, unpack: Callable[[Arrays], Arrays], *inputs: np.ndarray
) -> Call:
    given = (_device(weights), *map(jnp.asarray, inputs))
    f = _compiled(jax.value_and_grad(loss), *given)

    def results() -> Arrays:
        value, grads = f(*given)
        named = unpack({k: np.asarray(a) for k, a in grads.items()})
        return {"loss": np.asarray(value)} | {f"grad_{k}": a for k, a in named.items()}

    return Call(lambda: jax.block_until_ready(f(*given)), results)


peer = Jax
