"""A state space whose steps depend on the input: Mamba's recurrence, without the block that is built around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

from graphc.cells.recurrence import Named, Options, stateless
from graphc.ir import Axis
from graphc.language.functions import exp, silu, softplus
from graphc.language.graph import Graph
from graphc.language.value import State, Value


@dataclass(frozen=True, eq=False)
class SelectiveSSM(Named):
    """The output h (units,), and the memory S (units, states)."""

    h: Value
    S: State


def selective_ssm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "selective_ssm",
    states: int = 16,
    rank: int | None = None,
    **options: Unpack[Options],
) -> SelectiveSSM:
    """A state space for each unit, whose step Δ, input B and output C are computed from x (Gu & Dao 2023, "Mamba"):

        u = silu(W_u x + b_u)
        B, C = W_k u
        Δ = softplus(W_Δ W_r u + b_Δ)
        S = exp(−Δ eᵃ) ⊙ S′ + (Δ ⊙ u) Bᵀ
        h = S C + d ⊙ u

    Params: `{name}_W_u` (units, inputs), `{name}_b_u` (units,), `{name}_W_k` (states, units) for k in B C, `{name}_W_r`
    (rank, units), `{name}_W_delta` (units, rank), `{name}_b_delta` (units,), `{name}_a` (units, states), `{name}_d`
    (units,). The rank is units / 16, rounded up, by default. Mamba has a convolution along time within silu.
    """
    cell = stateless(g, x, units, over, name, options)
    rank = -(-units // 16) if rank is None else rank
    cell.check_count("states", states)
    cell.check_count("rank", rank)
    ((S, S_before),) = cell.states(S=(units, states))
    u = silu(cell.of_x("u"))
    B, C = (cell.param(f"W_{k}", states, units, init=cell.W_init) @ u for k in "BC")
    narrow = cell.param("W_r", rank, units, init=cell.W_init) @ u
    steps = cell.param("W_delta", units, rank, init=cell.W_init) @ narrow
    delta = softplus(cell.biased(steps, "b_delta", "uniform(-6.9, -2.25)"))  # at first from 0.001 to 0.1
    rates = exp(cell.param("a", units, states, init=f"uniform(0, {math.log(max(states, 2)):.4f})"))
    S[over] = exp(-delta[:, None] * rates) * S_before + (delta * u)[:, None] * B
    return SelectiveSSM(S @ C + cell.param("d", units, init=1.0) * u, S)
