"""The cells, each twice: as `gc.cells` adds it to a graph, and as one step over packed weights for array libraries.

The step is what a careful user of PyTorch or JAX writes: the products with x are outside of the loop, all gates that
read h′ are one product, and the library's own functions are used (`Ops`). ′ marks the step before; `a` holds the
packed W x + b of a step, (N, gates · units).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

import graphc as gc

Array = Any  # a library's own
Weights = Mapping[str, Array]
States = tuple[Array, ...]


class Ops(Protocol):
    """The functions of an array library that the steps below are written in."""

    def sigmoid(self, a: Array) -> Array: ...
    def tanh(self, a: Array) -> Array: ...
    def exp(self, a: Array) -> Array: ...
    def softplus(self, a: Array) -> Array: ...
    def maximum(self, a: Array, b: Array) -> Array: ...
    def einsum(self, formula: str, a: Array, b: Array) -> Array: ...
    def split(self, a: Array, parts: int | tuple[int, ...]) -> Any:
        """So many equal parts of the last dimension, or parts of these sizes."""

    def affine(self, a: Array, h: Array, U: Array) -> Array:
        """a + h Uᵀ."""

    def layer_norm(self, a: Array, gain: Array, bias: Array) -> Array:
        """Over the last dimension, with ε = 1e-5."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    build      the function of `gc.cells`, with the options that the step below implements
    states     how many vectors of the units it hands on; the first is h
    gates      the gates whose W and b are packed, in this order
    recurrent  the gates whose U are packed: those that read h′
    step       (ops, weights, a, states) → states
    biased     whether b is a part of a; if not, the step adds it
    memory     the shapes of further states, given the units
    heads      the gates that are numbers of a head, not of a unit, and how many heads there are
    linear     (ops, a) → the coefficients p and q of h = p h′ + q at all steps, if the cell is a linear recurrence
    """

    build: Callable[..., Any]
    states: int
    gates: str
    recurrent: str
    step: Callable[[Ops, Weights, Array, States], States]
    biased: bool = True
    memory: Callable[[int], tuple[tuple[int, ...], ...]] = lambda units: ()
    heads: tuple[str, int] = ("", 0)
    linear: Callable[[Ops, Array], tuple[Array, Array]] | None = None

    def add(self, g: gc.Graph, x: Any, units: int, over: Any) -> Any:
        """Add the cell to a graph, under the name "cell"; its state h."""
        return self.build(g, x, units, over=over, name="cell").h

    def pack(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Params by graphc's names to the weights of the step: "W", "b" and "U" packed, the rest as they are."""
        packed = self._packed()
        alone = {name: a for name, a in params.items() if all(name not in names for names in packed.values())}
        return {key: np.concatenate([params[name] for name in names]) for key, names in packed.items()} | alone

    def unpack(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inverse of `pack`."""
        packed = self._packed()
        rows = {
            name: part
            for key, names in packed.items()
            for name, part in zip(names, np.split(weights[key], self._ends(names, len(weights[key]))), strict=True)
        }
        return rows | {key: a for key, a in weights.items() if key not in packed}

    def zeros(self, batch: int, units: int) -> list[np.ndarray]:
        """The states before the first step."""
        shapes = [(units,)] * self.states + list(self.memory(units))
        return [np.zeros((batch, *shape), np.float32) for shape in shapes]

    def _ends(self, names: Sequence[str], rows: int) -> list[int]:
        """Where the rows of each but the last of some packed params end."""
        letters, heads = self.heads
        few = [name[-1] in letters for name in names]
        of_units = (rows - heads * sum(few)) // max(1, few.count(False))
        return list(itertools.accumulate(heads if own else of_units for own in few))[:-1]

    def _packed(self) -> dict[str, list[str]]:
        gates = {"W": self.gates, "b": self.gates if self.biased else "", "U": self.recurrent}
        return {key: [f"{key}_{k}" for k in letters] for key, letters in gates.items() if letters}


def lstm(m: Ops, w: Weights, a: Array, states: States) -> States:
    return lstm_of_gates(m, m.split(m.affine(a, states[0], w["U"]), 4), states)


def lstm_of_gates(m: Ops, gates: Sequence[Array], states: States) -> States:
    i, f, g, o = gates
    c = m.sigmoid(f) * states[1] + m.sigmoid(i) * m.tanh(g)
    return m.sigmoid(o) * m.tanh(c), c


def gru(m: Ops, w: Weights, a: Array, states: States) -> States:
    (h,) = states
    r, z, n = m.split(a, 3)
    U_r, U_z, U_n = m.split(h @ w["U"].T, 3)
    r, z = m.sigmoid(r + U_r), m.sigmoid(z + U_z)
    n = m.tanh(n + r * (U_n + w["c_n"]))
    return (n + z * (h - n),)


def peephole_lstm(m: Ops, w: Weights, a: Array, states: States) -> States:
    h, c = states
    i, f, g, o = m.split(m.affine(a, h, w["U"]), 4)
    c = m.sigmoid(f + w["p_f"] * c) * c + m.sigmoid(i + w["p_i"] * c) * m.tanh(g)
    return m.sigmoid(o + w["p_o"] * c) * m.tanh(c), c


def layer_norm_lstm(m: Ops, w: Weights, a: Array, states: States) -> States:
    h, c = states
    parts = m.split(m.affine(a, h, w["U"]), 4)
    i, f, g, o = (m.layer_norm(v, w[f"gain_{k}"], w[f"b_{k}"]) for k, v in zip("ifgo", parts, strict=True))
    c = m.sigmoid(f) * c + m.sigmoid(i) * m.tanh(g)
    return m.sigmoid(o) * m.tanh(m.layer_norm(c, w["gain_c"], w["b_c"])), c


def slstm(m: Ops, w: Weights, a: Array, states: States) -> States:
    return slstm_of_gates(m, m.split(m.affine(a, states[0], w["U"]), 4), states)


def slstm_of_gates(m: Ops, gates: Sequence[Array], states: States) -> States:
    i, f, g, o = gates
    _, c, n, before = states
    keep = before - m.softplus(-f)
    most = m.maximum(keep, i)
    forget, write = m.exp(keep - most), m.exp(i - most)
    c = forget * c + write * m.tanh(g)
    n = forget * n + write
    return m.sigmoid(o) * c / n, c, n, most


def lem(m: Ops, w: Weights, a: Array, states: States) -> States:
    h, z = states
    x_a, x_b, x_z, x_h = m.split(a, 4)
    U_a, U_b, U_z = m.split(h @ w["U"].T, 3)
    a, b = m.sigmoid(x_a + U_a), m.sigmoid(x_b + U_b)
    z = z + a * (m.tanh(x_z + U_z) - z)
    return h + b * (m.tanh(m.affine(x_h, z, w["U_h"])) - h), z


def min_gru(m: Ops, w: Weights, a: Array, states: States) -> States:
    (h,) = states
    z, n = m.split(a, 2)
    return (h + m.sigmoid(z) * (n - h),)


def min_gru_linear(m: Ops, a: Array) -> tuple[Array, Array]:
    z, n = m.split(a, 2)
    z = m.sigmoid(z)
    return 1 - z, z * n


def mlstm(m: Ops, w: Weights, a: Array, states: States) -> States:
    h, C, n, before = states
    heads, d = n.shape[1:]
    units = heads * d
    sizes = (units, units, units, units, heads, heads)
    q, k, v, o, i, f = m.split(a, sizes)
    bias = m.split(w["b"], sizes)[1]
    q, k, v = (part.reshape(-1, heads, d) for part in (q, (k - bias) * d**-0.5 + bias, v))
    keep = before - m.softplus(-f)
    most = m.maximum(keep, i)
    forget, write = m.exp(keep - most), m.exp(i - most)
    C = forget[..., None, None] * C + (write[..., None] * v)[..., None] * k[..., None, :]
    n = forget[..., None] * n + write[..., None] * k
    norm = m.maximum(abs((n * q).sum(-1)), m.exp(-most))
    read = m.einsum("nhij,nhj->nhi", C, q) / norm[..., None]
    return m.sigmoid(o) * read.reshape(h.shape), C, n, most


def _heads(units: int) -> tuple[tuple[int, ...], ...]:
    return (HEADS, units // HEADS, units // HEADS), (HEADS, units // HEADS), (HEADS,)


HEADS = 4
CELLS = {
    "LSTM": Cell(gc.cells.lstm, 2, "ifgo", "ifgo", lstm),
    "GRU": Cell(partial(gc.cells.gru, reset="after", update="old"), 1, "rzn", "rzn", gru),
    "peephole LSTM": Cell(gc.cells.peephole_lstm, 2, "ifgo", "ifgo", peephole_lstm),
    "LayerNorm LSTM": Cell(gc.cells.layer_norm_lstm, 2, "ifgo", "ifgo", layer_norm_lstm, biased=False),
    "sLSTM": Cell(gc.cells.slstm, 4, "ifgo", "ifgo", slstm),
    "LEM": Cell(gc.cells.lem, 2, "abzh", "abz", lem),
    "mLSTM": Cell(partial(gc.cells.mlstm, heads=HEADS), 1, "qkvoif", "", mlstm, memory=_heads, heads=("if", HEADS)),
    "minGRU": Cell(gc.cells.min_gru, 1, "zn", "", min_gru, linear=min_gru_linear),
}
