"""Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate of Gers et al. 2000) and its variants.

Every gate k has `{name}_W_k` (units, inputs), `{name}_U_k` (units, units) and `{name}_b_k` (units,), for k in
f (forget), i (input), g (new content, the C̃ of many texts), o (output). The states are h and c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from graphc.cells.recurrence import Named, Options, Recurrence
from graphc.ir import Axis
from graphc.language.functions import sigmoid, tanh
from graphc.language.graph import Graph
from graphc.language.image_functions import standardize
from graphc.language.value import State, Value


@dataclass(frozen=True, eq=False)
class LSTM(Named):
    """The output h and the memory c, over x's axes, each with event (units,)."""

    h: State
    c: State


def lstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "lstm",
    forget_bias: float = 1.0,
    **options: Unpack[Options],
) -> LSTM:
    """The LSTM, as in PyTorch, Keras and cuDNN (Hochreiter & Schmidhuber 1997; Gers et al. 2000):

        f, i, o = σ(W_k x + U_k h′ + b_k)
        g = tanh(W_g x + U_g h′ + b_g)
        c = f ⊙ c′ + i ⊙ g
        h = o ⊙ tanh c

    `b_f` begins at `forget_bias`, so that the cell remembers at first (Jozefowicz et al. 2015).
    """
    cell = Recurrence(g, x, units, over, name, **options)
    (h, h_before), (c, c_before) = cell.states(h=units, c=units)
    forget = sigmoid(cell.affine("f", h_before, bias=forget_bias))
    write = sigmoid(cell.affine("i", h_before))
    content = tanh(cell.affine("g", h_before))
    read = sigmoid(cell.affine("o", h_before))
    c[over] = forget * c_before + write * content
    h[over] = read * tanh(c)
    return LSTM(h, c)


def peephole_lstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "peephole_lstm",
    forget_bias: float = 1.0,
    **options: Unpack[Options],
) -> LSTM:
    """The gates see the memory, f and i the one before, o the new (Gers & Schmidhuber 2000; Greff et al. 2017):

        f, i = σ(W_k x + U_k h′ + p_k ⊙ c′ + b_k)
        g = tanh(W_g x + U_g h′ + b_g)
        c = f ⊙ c′ + i ⊙ g
        o = σ(W_o x + U_o h′ + p_o ⊙ c + b_o)
        h = o ⊙ tanh c

    Further params: `{name}_p_f`, `{name}_p_i`, `{name}_p_o` (units,), 0 at first; ONNX's P.
    """
    cell = Recurrence(g, x, units, over, name, **options)
    (h, h_before), (c, c_before) = cell.states(h=units, c=units)
    forget = sigmoid(cell.affine("f", h_before, bias=forget_bias) + cell.param("p_f", units) * c_before)
    write = sigmoid(cell.affine("i", h_before) + cell.param("p_i", units) * c_before)
    content = tanh(cell.affine("g", h_before))
    c[over] = forget * c_before + write * content
    read = sigmoid(cell.affine("o", h_before) + cell.param("p_o", units) * c)
    h[over] = read * tanh(c)
    return LSTM(h, c)


def projected_lstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "projected_lstm",
    outputs: int | None = None,
    forget_bias: float = 1.0,
    **options: Unpack[Options],
) -> LSTM:
    """An LSTM whose output is a projection, h = P (o ⊙ tanh c) (Sak et al. 2014; PyTorch's proj_size).

    h has event (outputs,) and c (units,); `{name}_U_k` is (units, outputs), `{name}_P` (outputs, units). By default as
    many outputs as units.
    """
    cell = Recurrence(g, x, units, over, name, **options)
    outputs = units if outputs is None else outputs
    cell.check_count("outputs", outputs)
    (h, h_before), (c, c_before) = cell.states(h=outputs, c=units)
    forget = sigmoid(cell.affine("f", h_before, bias=forget_bias))
    write = sigmoid(cell.affine("i", h_before))
    content = tanh(cell.affine("g", h_before))
    read = sigmoid(cell.affine("o", h_before))
    c[over] = forget * c_before + write * content
    h[over] = cell.param("P", outputs, units, init=cell.W_init) @ (read * tanh(c))
    return LSTM(h, c)


def layer_norm_lstm(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "layer_norm_lstm",
    forget_bias: float = 1.0,
    epsilon: float = 1e-5,
    **options: Unpack[Options],
) -> LSTM:
    """An LSTM whose gates and memory are normalised over the units (Ba et al. 2016), each gate by itself:

        N_k(a) = γ_k ⊙ (a − mean a) / √(var a + ε)
        f, i, o = σ(N_k(W_k x + U_k h′) + b_k)
        g = tanh(N_g(W_g x + U_g h′) + b_g)
        c = f ⊙ c′ + i ⊙ g
        h = o ⊙ tanh(N_c(c) + b_c)

    Further params: `{name}_gain_k` (units,) for f, i, g, o and c, which are γ_k and 1 at first, and `{name}_b_c`.
    The paper normalises W x and U h′ apart and all gates together; this is the form with one gain a gate.
    """
    cell = Recurrence(g, x, units, over, name, **options)
    (h, h_before), (c, c_before) = cell.states(h=units, c=units)

    def normalised(gate: str, a: Value, bias: float = 0.0) -> Value:
        scaled = cell.param(f"gain_{gate}", units, init=1.0) * standardize(a, eps=epsilon)
        return cell.biased(scaled, f"b_{gate}", bias)

    def gate(letter: str, bias: float = 0.0) -> Value:
        return normalised(letter, cell.W(letter) @ x + cell.of_state(letter, h_before), bias)

    forget, write = sigmoid(gate("f", forget_bias)), sigmoid(gate("i"))
    content, read = tanh(gate("g")), sigmoid(gate("o"))
    c[over] = forget * c_before + write * content
    h[over] = read * tanh(normalised("c", c))
    return LSTM(h, c)
