"""Cells whose gates do not see the state, so that h is a linear function of h′.

Every gate k has `{name}_W_k` (units, inputs) and `{name}_b_k` (units,), and no `U_k`. The state is h. Sources: Feng et
al. 2024, "Were RNNs all we needed?"; De et al. 2024, "Griffin".
"""

from __future__ import annotations

from typing import Unpack

from graphc.cells.recurrence import Hidden, Options, stateless
from graphc.ir import Axis
from graphc.language.functions import exp, expm1, log_sigmoid, maximum, sigmoid, sqrt, stop_gradient
from graphc.language.graph import Graph
from graphc.language.value import Value


def min_gru(g: Graph, x: Value, units: int, over: Axis, name: str = "min_gru", **options: Unpack[Options]) -> Hidden:
    """A GRU whose gates do not see the state (Feng et al. 2024), with z (update) and n (new content):

        z = σ(W_z x + b_z)
        n = W_n x + b_n
        h = (1 − z) ⊙ h′ + z ⊙ n

    Params, for k in z n: `{name}_W_k` (units, inputs), `{name}_b_k` (units,).
    """
    cell = stateless(g, x, units, over, name, options)
    ((h, h_before),) = cell.states(h=units)
    z = sigmoid(cell.of_x("z"))
    h[over] = (1 - z) * h_before + z * cell.of_x("n")
    return Hidden(h)


def min_lstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "min_lstm",
    forget_bias: float = 1.0,
    **options: Unpack[Options],
) -> Hidden:
    """An LSTM whose gates do not see the state (Feng et al. 2024). f (forget) and i (input) are made to add up to 1:

        f, i = σ(W_k x + b_k)
        n = W_n x + b_n
        h = (f ⊙ h′ + i ⊙ n) / (f + i)

    Params, for k in f i n: `{name}_W_k` (units, inputs), `{name}_b_k` (units,).
    """
    cell = stateless(g, x, units, over, name, options)
    ((h, h_before),) = cell.states(h=units)
    forget, write = cell.of_x("f", bias=forget_bias), cell.of_x("i")
    # f / (f + i) = (eᶠ + eᶠ⁺ⁱ) / (eᶠ + eⁱ + 2 eᶠ⁺ⁱ) of the gates' exponents; divided by the largest, none is 0 / 0
    largest = stop_gradient(maximum(maximum(forget, write), forget + write))
    of_f, of_i, of_both = exp(forget - largest), exp(write - largest), exp(forget + write - largest)
    total = of_f + of_i + 2 * of_both
    h[over] = (of_f + of_both) / total * h_before + (of_i + of_both) / total * cell.of_x("n")
    return Hidden(h)


def rg_lru(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "rg_lru",
    power: float = 8.0,
    **options: Unpack[Options],
) -> Hidden:
    """The real-gated linear recurrent unit of Griffin and RecurrentGemma (De et al. 2024), with c the `power`:

        r, i = σ(W_k x + b_k)
        n = W_n x + b_n
        log α = c r ⊙ log σ(a)
        h = α ⊙ h′ + √(1 − α²) ⊙ (i ⊙ n)

    Params, for k in r i n: `{name}_W_k` (units, inputs), `{name}_b_k` (units,); besides `{name}_a` (units,).
    """
    cell = stateless(g, x, units, over, name, options)
    ((h, h_before),) = cell.states(h=units)
    slowest = cell.param("a", units, init="uniform(4.3, 9)")  # σ(a)⁸ from 0.9 to 0.999
    log_keep = power * sigmoid(cell.of_x("r")) * log_sigmoid(slowest)
    write = sqrt(maximum(-expm1(2 * log_keep), 1e-12))  # the root of 0 has no derivative
    h[over] = exp(log_keep) * h_before + write * (sigmoid(cell.of_x("i")) * cell.of_x("n"))
    return Hidden(h)
