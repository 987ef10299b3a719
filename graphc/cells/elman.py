"""Cells of one equation: Elman's, Jordan's, and the independently recurrent one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from graphc.cells.recurrence import Activation, Hidden, Named, Options, Recurrence
from graphc.errors import ShapeError
from graphc.ir import Axis
from graphc.language.functions import relu, sigmoid, tanh
from graphc.language.graph import Graph
from graphc.language.value import State, Value


def elman(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "elman",
    activation: Activation = tanh,
    **options: Unpack[Options],
) -> Hidden:
    """h = f(W_h x + U_h h′ + b_h), the simple recurrent network (Elman 1990); PyTorch's RNN.

    Params: `{name}_W_h` (units, inputs), `{name}_U_h` (units, units), `{name}_b_h` (units,). State: h (units,).
    """
    cell = Recurrence(g, x, units, over, name, **options)
    ((h, h_before),) = cell.states(h=units)
    h[over] = cell.activated(activation, cell.affine("h", h_before))
    return Hidden(h)


@dataclass(frozen=True, eq=False)
class Jordan(Named):
    """h with event (units,), y with event (outputs,)."""

    h: Value
    y: State


def jordan(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "jordan",
    outputs: int | None = None,
    activation: Activation = tanh,
    output_activation: Activation = sigmoid,
    **options: Unpack[Options],
) -> Jordan:
    """The output is fed back, not the hidden units (Jordan 1986):

        h = f(W_h x + U_h y′ + b_h)
        y = g(W_y h + b_y)

    Params: `{name}_W_h` (units, inputs), `{name}_U_h` (units, outputs), `{name}_b_h` (units,), `{name}_W_y`
    (outputs, units), `{name}_b_y` (outputs,). State: y (outputs,); by default as many outputs as units.
    """
    cell = Recurrence(g, x, units, over, name, **options)
    outputs = units if outputs is None else outputs
    cell.check_count("outputs", outputs)
    ((y, y_before),) = cell.states(y=outputs)
    h = cell.activated(activation, cell.affine("h", y_before))
    V = cell.param("W_y", outputs, units, init=cell.W_init)
    y[over] = cell.activated(output_activation, cell.biased(V @ h, "b_y"), "output_activation")
    return Jordan(h, y)


def indrnn(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "indrnn",
    activation: Activation = relu,
    **options: Unpack[Options],
) -> Hidden:
    """h = f(W_h x + u_h ⊙ h′ + b_h): each unit sees only itself (Li et al. 2018, "Independently recurrent").

    Params: `{name}_W_h` (units, inputs), `{name}_u_h` (units,), `{name}_b_h` (units,). State: h (units,).
    """
    if "U_init" in options:
        raise ShapeError(f"cell {name!r} has no matrix on its state, so no U_init; {name}_u_h is drawn from U(0, 1)")
    cell = Recurrence(g, x, units, over, name, **options)
    ((h, h_before),) = cell.states(h=units)
    own = cell.param("u_h", units, init="uniform(0, 1)") * h_before
    h[over] = cell.activated(activation, cell.of_x("h") + own)
    return Hidden(h)
