"""sLSTM: an LSTM with exponential gates, a normaliser and a stabiliser (Beck et al. 2024, "xLSTM")."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

from graphc.cells.recurrence import Named, Options, Recurrence
from graphc.ir import Axis
from graphc.language.functions import exp, log_sigmoid, maximum, sigmoid, tanh
from graphc.language.graph import Graph
from graphc.language.value import State, Value


@dataclass(frozen=True, eq=False)
class SLSTM(Named):
    """The output h; the memory c and its normaliser n, both scaled by e^-m; the stabiliser m. Events (units,)."""

    h: State
    c: State
    n: State
    m: State


def slstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "slstm",
    forget_bias: float = 1.0,
    **options: Unpack[Options],
) -> SLSTM:
    """With ã_k = W_k x + U_k h′ + b_k for the gates f i g o (g is the paper's z):

        m = max(log σ(ã_f) + m′, ã_i)            so that no exponent is positive
        f, i = exp(log σ(ã_f) + m′ − m), exp(ã_i − m)
        c = f ⊙ c′ + i ⊙ tanh ã_g
        n = f ⊙ n′ + i
        h = σ(ã_o) ⊙ c / n

    Params: `{name}_W_k` (units, inputs), `{name}_U_k` (units, units), `{name}_b_k` (units,). The forget gate is the
    sigmoid of the two that the paper allows; U is full, which is the paper's case of one head. Without `initial`, m
    begins at -∞, the logarithm of nothing, and the other states at 0.
    """
    options.setdefault("initial", {"m": -math.inf})
    cell = Recurrence(g, x, units, over, name, **options)
    (h, h_before), (c, c_before), (n, n_before), (m, m_before) = cell.states(h=units, c=units, n=units, m=units)
    log_forget = m_before + log_sigmoid(cell.affine("f", h_before, bias=forget_bias))
    log_write = cell.affine("i", h_before)
    content = tanh(cell.affine("g", h_before))
    read = sigmoid(cell.affine("o", h_before))
    m[over] = maximum(log_forget, log_write)
    forget, write = exp(log_forget - m), exp(log_write - m)
    c[over] = forget * c_before + write * content
    n[over] = forget * n_before + write
    h[over] = read * c / n
    return SLSTM(h, c, n, m)
