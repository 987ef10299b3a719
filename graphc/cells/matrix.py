"""Cells that remember in matrices: what a key k is answered with, v, is kept as v kᵀ, and read with a query q.

The units are shared out among heads, each with a matrix of its own (d, d), where d = units / heads. Nothing here reads
h′: what comes of x is computed for all steps at once. For k in q, k and v there are `{name}_W_k` (units, inputs); gates
are numbers of a head, with `{name}_W_g` (heads, inputs) and `{name}_b_g` (heads,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from graphc.cells.recurrence import Named, Options, Recurrence, stateless
from graphc.errors import DefinitionError, ShapeError
from graphc.integers import is_whole
from graphc.ir import Axis
from graphc.language.einsum import einsum
from graphc.language.functions import abs as absolute
from graphc.language.functions import exp, log_sigmoid, maximum, sigmoid, softplus, sqrt, where
from graphc.language.functions import sum as total
from graphc.language.graph import Graph
from graphc.language.value import State, Value


@dataclass(frozen=True, eq=False)
class MLSTM(Named):
    """The output h (units,); the memory C (heads, d, d) and its normaliser n (heads, d), both scaled by e^-m; the
    stabiliser m (heads,)."""

    h: Value
    C: State
    n: State
    m: State


@dataclass(frozen=True, eq=False)
class GLA(Named):
    """The output h (units,), and the memory S (heads, d, d)."""

    h: Value
    S: State


@dataclass(frozen=True, eq=False)
class DeltaNet(Named):
    """The output h (units,), and the memory S (heads, d, d)."""

    h: Value
    S: State


@dataclass(frozen=True, eq=False)
class RWKV7(Named):
    """The output h (units,), and the memory S (heads, d, d)."""

    h: Value
    S: State


def mlstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "mlstm",
    heads: int = 1,
    forget_bias: float = 3.0,
    **options: Unpack[Options],
) -> MLSTM:
    """An LSTM with a matrix memory and exponential gates (Beck et al. 2024, "xLSTM", section 2.3). Of each head:

        q, v = W_k x + b_k      k = W_k x / √d + b_k
        ĩ, f̃ = W_g x + b_g
        m = max(log σ(f̃) + m′, ĩ)                    so that no exponent is positive
        f, i = exp(log σ(f̃) + m′ − m), exp(ĩ − m)
        C = f C′ + i v kᵀ
        n = f n′ + i k
        h = σ(W_o x + b_o) ⊙ C q / max(|nᵀ q|, e^-m)

    Params besides: `{name}_b_k` (units,) for k in q, k, v and o, and `{name}_W_o` (units, inputs). The forget gate is
    the sigmoid of the two that the paper allows. Without `initial`, m begins at -∞, the logarithm of nothing, and the
    other states at 0.
    """
    options.setdefault("initial", {"m": -math.inf})
    cell = stateless(g, x, units, over, name, options)
    d = _of_head(cell, heads)
    (C, C_before), (n, n_before), (m, m_before) = cell.states(C=(heads, d, d), n=(heads, d), m=heads)
    q, v = (cell.of_x(k).reshape(heads, d) for k in "qv")
    k = cell.biased(cell.W("k") @ x / math.sqrt(d), "b_k").reshape(heads, d)
    log_write = cell.of_x("i", size=heads)
    log_forget = m_before + log_sigmoid(cell.of_x("f", forget_bias, heads))
    m[over] = maximum(log_forget, log_write)
    forget, write = exp(log_forget - m), exp(log_write - m)
    C[over] = forget[:, None, None] * C_before + einsum("hi,hj->hij", write[:, None] * v, k)
    n[over] = forget[:, None] * n_before + write[:, None] * k
    small = exp(where(m < 0, m, -m))  # both sides of the fraction are multiplied by e^m where e^-m would be large
    scale, least = where(m < 0, small, 1.0), where(m < 0, 1.0, small)
    norm = maximum(scale * absolute(total(n * q, dim=-1)), least)
    read = einsum("hij,hj->hi", C, q) * (scale / norm)[:, None]
    return MLSTM(sigmoid(cell.of_x("o")) * read.reshape(units), C, n, m)


def delta_net(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "delta_net",
    heads: int = 1,
    gated: bool = True,
    **options: Unpack[Options],
) -> DeltaNet:
    """A memory that is corrected by what it would have answered, and forgets (Yang et al. 2024, "Gated delta networks";
    Schlag et al. 2021). Of each head:

        q, k = W_k x / |W_k x|      v = W_v x
        β = σ(W_β x + b_β)
        α = exp(−e^a softplus(W_α x + b_α))
        S = α S′ + β (v − α S′ k) kᵀ
        h = S q

    Params besides: `{name}_a` (heads,). The letters of the gates are `beta` and `alpha`; where it is not `gated`, α
    is 1, and has no params.
    """
    cell = stateless(g, x, units, over, name, options)
    d = _of_head(cell, heads)
    ((S, S_before),) = cell.states(S=(heads, d, d))
    q, k, v = ((cell.W(letter) @ x).reshape(heads, d) for letter in "qkv")
    q, k = (a / sqrt(total(a * a, dim=-1) + 1e-6)[:, None] for a in (q, k))
    rate = sigmoid(cell.of_x("beta", size=heads))
    if gated:
        decay = exp(-exp(cell.param("a", heads)) * softplus(cell.of_x("alpha", size=heads)))
        S_before = decay[:, None, None] * S_before
    change = rate[:, None] * (v - einsum("hij,hj->hi", S_before, k))
    S[over] = S_before + einsum("hi,hj->hij", change, k)
    return DeltaNet(einsum("hij,hj->hi", S, q).reshape(units), S)


def gla(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "gla",
    heads: int = 1,
    temperature: float = 16.0,
    **options: Unpack[Options],
) -> GLA:
    """Gated linear attention: a memory that forgets each element of a key at a rate of its own (Yang et al. 2024). Of
    each head, of d units, with τ the `temperature`:

        q, k, v = W_k x
        α = σ(W_α x + b_α)^(1/τ)
        S = S′ ⊙ (1 αᵀ) + v kᵀ
        h = S q / √d

    Params: `{name}_W_k` (units, inputs) for k in q k v alpha, `{name}_b_alpha` (units,). The paper's W_α is a product
    of two matrices of rank 16.
    """
    if not isinstance(temperature, int | float | np.number) or not temperature > 0:
        raise DefinitionError(f"the temperature of cell {name!r} is a number above 0, got {temperature!r}")
    cell = stateless(g, x, units, over, name, options)
    d = _of_head(cell, heads)
    ((S, S_before),) = cell.states(S=(heads, d, d))
    q, k, v = ((cell.W(letter) @ x).reshape(heads, d) for letter in "qkv")
    keep = exp(log_sigmoid(cell.of_x("alpha")) / temperature).reshape(heads, 1, d)
    S[over] = keep * S_before + einsum("hi,hj->hij", v, k)
    return GLA(einsum("hij,hj->hi", S, q / math.sqrt(d)).reshape(units), S)


def rwkv7(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "rwkv7",
    heads: int = 1,
    decay_bias: float = -3.0,
    **options: Unpack[Options],
) -> RWKV7:
    """The generalised delta rule of RWKV-7: a memory that forgets each element of a key at a rate of its own, and takes
    out what one key had written while another writes (Peng et al. 2025). Of each head:

        r, k, v = W_k x
        w = exp(−σ(W_w x + b_w) / √e)
        a = σ(W_a x + b_a)
        κ = ξ ⊙ k / |ξ ⊙ k|
        S = S′ ⊙ (1 wᵀ) − S′ κ (a ⊙ κ)ᵀ + v (k ⊙ (1 + α ⊙ (a − 1)))ᵀ
        h = S r

    Params: `{name}_W_k` (units, inputs) for k in r k v w a, `{name}_b_w` and `{name}_b_a` (units,), `{name}_xi` and
    `{name}_alpha` (units,), 1 at first. `b_w` begins at `decay_bias`, so that the memory lasts at first. The paper's
    W_w and W_a are two small matrices each, with tanh between those of w; it reads x mixed with the x before, and
    normalises h, adds a share of v and gates it.
    """
    cell = stateless(g, x, units, over, name, options)
    d = _of_head(cell, heads)
    ((S, S_before),) = cell.states(S=(heads, d, d))
    r, k, v = (cell.W(letter) @ x for letter in "rkv")
    keep = exp(sigmoid(cell.of_x("w", decay_bias)) * -math.exp(-0.5)).reshape(heads, 1, d)
    rate = sigmoid(cell.of_x("a"))
    removed = (cell.param("xi", units, init=1.0) * k).reshape(heads, d)
    removed = removed / sqrt(total(removed * removed, dim=-1) + 1e-12)[:, None]
    written = (k * (1 + cell.param("alpha", units, init=1.0) * (rate - 1))).reshape(heads, d)
    answer = einsum("hij,hj->hi", S_before, removed)
    change = einsum("hi,hj->hij", v.reshape(heads, d), written)
    S[over] = keep * S_before - einsum("hi,hj->hij", answer, rate.reshape(heads, d) * removed) + change
    return RWKV7(einsum("hij,hj->hi", S, r.reshape(heads, d)).reshape(units), S)


def _of_head(cell: Recurrence, heads: int) -> int:
    """The units of a head."""
    if not is_whole(heads) or heads < 1 or cell.units % heads:
        raise ShapeError(f"cell {cell.name!r} shares out {cell.units} units evenly among its heads, got {heads!r}")
    return cell.units // heads
