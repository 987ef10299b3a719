"""The gated recurrent unit (Cho et al. 2014; Chung et al. 2014) and its smaller relatives.

Every gate k has `{name}_W_k` (units, inputs), `{name}_U_k` (units, units) and `{name}_b_k` (units,). The state is h.
"""

from __future__ import annotations

from typing import Unpack

from graphc.cells.recurrence import Hidden, Options, Recurrence
from graphc.errors import DefinitionError
from graphc.ir import Axis
from graphc.language.functions import sigmoid, tanh
from graphc.language.graph import Graph
from graphc.language.value import Value


def gru(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "gru",
    reset: str = "before",
    update: str = "new",
    **options: Unpack[Options],
) -> Hidden:
    """The gated recurrent unit (Cho et al. 2014), with gates r (reset) and z (update), and n, the new content:

        r, z = σ(W_k x + U_k h′ + b_k)
        n = tanh(W_n x + U_n (r ⊙ h′) + b_n)          reset="before": Chung et al. 2014, neon
        n = tanh(W_n x + b_n + r ⊙ (U_n h′ + c_n))    reset="after": PyTorch, cuDNN
        h = (1 − z) ⊙ h′ + z ⊙ n                      update="new": Chung et al. 2014, neon
        h = (1 − z) ⊙ n + z ⊙ h′                      update="old": PyTorch, ONNX, Keras

    Params, for k in r z n: `{name}_W_k` (units, inputs), `{name}_U_k` (units, units), `{name}_b_k` (units,), and with
    reset="after" `{name}_c_n` (units,).
    """
    if not isinstance(reset, str) or reset not in ("before", "after"):
        raise DefinitionError(f'a GRU resets "before" or "after" the product, got reset={reset!r}; see also restart=')
    if update not in ("new", "old"):
        raise DefinitionError(f'the update gate of a GRU lets through the "new" or the "old", got {update!r}')
    cell = Recurrence(g, x, units, over, name, **options)
    ((h, h_before),) = cell.states(h=units)
    r = sigmoid(cell.affine("r", h_before))
    z = sigmoid(cell.affine("z", h_before))
    if reset == "before":
        n = tanh(cell.affine("n", r * h_before))
    else:
        n = tanh(cell.of_x("n") + r * cell.biased(cell.of_state("n", h_before), "c_n"))
    h[over] = _mix(z, h_before, n) if update == "new" else _mix(z, n, h_before)
    return Hidden(h)


def mgu(g: Graph, x: Value, units: int, over: Axis, name: str = "mgu", **options: Unpack[Options]) -> Hidden:
    """The minimal gated unit: one gate f does what r and z do (Zhou et al. 2016):

        f = σ(W_f x + U_f h′ + b_f)
        n = tanh(W_n x + U_n (f ⊙ h′) + b_n)
        h = (1 − f) ⊙ h′ + f ⊙ n

    Params, for k in f n: `{name}_W_k` (units, inputs), `{name}_U_k` (units, units), `{name}_b_k` (units,).
    """
    cell = Recurrence(g, x, units, over, name, **options)
    ((h, h_before),) = cell.states(h=units)
    f = sigmoid(cell.affine("f", h_before))
    n = tanh(cell.affine("n", f * h_before))
    h[over] = _mix(f, h_before, n)
    return Hidden(h)


def ugrnn(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "ugrnn",
    update_bias: float = 1.0,
    **options: Unpack[Options],
) -> Hidden:
    """The update-gate network: an Elman cell behind one gate g (Collins et al. 2017):

        g = σ(W_g x + U_g h′ + b_g)
        n = tanh(W_n x + U_n h′ + b_n)
        h = g ⊙ h′ + (1 − g) ⊙ n

    `b_g` begins at `update_bias`, so that the cell remembers at first.
    """
    cell = Recurrence(g, x, units, over, name, **options)
    ((h, h_before),) = cell.states(h=units)
    keep = sigmoid(cell.affine("g", h_before, bias=update_bias))
    n = tanh(cell.affine("n", h_before))
    h[over] = _mix(keep, n, h_before)
    return Hidden(h)


def _mix(share: Value, a: Value, b: Value) -> Value:
    """(1 − share) ⊙ a + share ⊙ b."""
    return (1 - share) * a + share * b
