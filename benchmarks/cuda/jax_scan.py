"""JAX: lax.scan over a step with fused products, in the problem's precision, compiled ahead of its calls; and of linear
recurrences lax.associative_scan, which computes all steps in logarithmically many rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarks.cells import lstm_of_gates, slstm_of_gates
from benchmarks.cuda.problems import GATES, Heads, Layer, Problem, Work
from benchmarks.peers.jax_peer import Ops, of_x, scan
from benchmarks.peers.peer import Call
from benchmarks.problems import Arrays

DTYPES = {"float32": jnp.float32, "tf32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}


class Scan:
    """JAX on its default device."""

    name = "JAX scan"

    def __init__(self) -> None:
        self.about = {"version": jax.__version__, "device": jax.default_backend()}

    def prepare(self, problem: Problem, work: Work) -> Call | None:
        """A compiled scan; None where there is none."""
        made = self.of(problem)
        if made is None:
            return None
        h, weights, unpack = made
        dtype = DTYPES[problem.precision]
        given = jax.tree.map(lambda a: jnp.asarray(a, dtype), (weights, problem.x))
        function = h if work == "forward" else jax.value_and_grad(lambda w, x: _loss(h(w, x)))
        with jax.default_matmul_precision("highest" if problem.precision == "float32" else "default"):
            f = jax.jit(function).lower(*given).compile()

        def results() -> Arrays:
            found = jax.tree.map(lambda a: np.asarray(a, np.float32), f(*given))
            if work == "forward":
                return {"h": found}
            return {"loss": found[0]} | {f"grad_{name}": a for name, a in unpack(found[1]).items()}

        return Call(lambda: jax.block_until_ready(f(*given)), results)

    def of(self, problem: Problem) -> Made | None:
        """The scan of a problem; None for stacks, which other peers have layers for."""
        if isinstance(problem, Heads):
            return _heads(problem)
        return _layer(problem) if problem.layers == 1 else None


class AssociativeScan(Scan):
    """JAX on its default device, for linear recurrences."""

    name = "JAX associative scan"

    def of(self, problem: Problem) -> Made | None:
        is_one = isinstance(problem, Layer) and problem.layers == 1 and problem.kind.linear is not None
        return _linear(problem) if is_one else None


Made = tuple[Callable[[Any, Any], Any], Arrays, Callable[[Arrays], Arrays]]
"""h at every step by weights and x; the weights; and those, or their gradients, by graphc's names."""


def _layer(problem: Any) -> Made:
    kind = problem.kind
    weights = kind.pack({name.removeprefix("cell_0_"): a for name, a in problem.params.items()})

    def h(w: Any, x: Any) -> Any:
        zeros = tuple(jnp.zeros(x.shape[1:], x.dtype) for _ in range(kind.states))
        return scan(lambda states, row: kind.step(Ops, w, row, states), zeros, of_x(w, x))

    return h, weights, lambda found: {f"cell_0_{name}": a for name, a in kind.unpack(found).items()}


def _linear(problem: Any) -> Made:
    _, weights, unpack = _layer(problem)

    def after(one: Any, other: Any) -> Any:
        return one[0] * other[0], one[1] * other[0] + other[1]

    def h(w: Any, x: Any) -> Any:
        return lax.associative_scan(after, problem.kind.linear(Ops, of_x(w, x)))[1]

    return h, weights, unpack


def _heads(problem: Heads) -> Made:
    weights = {"R": np.stack([problem.params[f"R_{k}"] for k in GATES])}

    def h(w: Any, x: Any) -> Any:
        def step(states: Any, row: Any) -> Any:
            gates = jnp.moveaxis(row + jnp.einsum("ghmk,nhk->nghm", w["R"], states[0]), 1, 0)
            return (lstm_of_gates if problem.cell == "LSTM" else slstm_of_gates)(Ops, gates, states)

        zeros = (jnp.zeros((*x.shape[1:2], *x.shape[3:]), x.dtype),) * (2 if problem.cell == "LSTM" else 4)
        return scan(step, zeros, x)

    return h, weights, lambda found: {f"R_{k}": a for k, a in zip(GATES, found["R"], strict=True)}


def _loss(h: Any) -> Any:
    h = h.astype(jnp.float32)
    return (h * h).reshape(*h.shape[:2], -1).sum(-1).mean()
