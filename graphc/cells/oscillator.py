"""Cells that are differential equations, discretised: gradients neither vanish nor explode by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from graphc.cells.recurrence import Named, Options, Recurrence
from graphc.ir import Axis
from graphc.language.functions import sigmoid, tanh
from graphc.language.graph import Graph
from graphc.language.value import State, Value


@dataclass(frozen=True, eq=False)
class Oscillator(Named):
    """The output h and the second state z, over x's axes, each with event (units,)."""

    h: State
    z: State


def lem(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "lem",
    dt: float = 1.0,
    **options: Unpack[Options],
) -> Oscillator:
    """Long expressive memory: two learned time scales a and b (Rusch et al. 2022; h is the paper's y):

        a, b = Δt σ(W_k x + U_k h′ + b_k)
        z = (1 − a) ⊙ z′ + a ⊙ tanh(W_z x + U_z h′ + b_z)
        h = (1 − b) ⊙ h′ + b ⊙ tanh(W_h x + U_h z + b_h)

    Params, for k in a b z h: `{name}_W_k` (units, inputs), `{name}_U_k` (units, units), `{name}_b_k` (units,).
    """
    cell = Recurrence(g, x, units, over, name, **options)
    (h, h_before), (z, z_before) = cell.states(h=units, z=units)
    a = dt * sigmoid(cell.affine("a", h_before))
    b = dt * sigmoid(cell.affine("b", h_before))
    z[over] = (1 - a) * z_before + a * tanh(cell.affine("z", h_before))
    h[over] = (1 - b) * h_before + b * tanh(cell.affine("h", z))
    return Oscillator(h, z)


def cornn(
    g: Graph,
    x: Value,
    units: int,
    over: Axis,
    name: str = "cornn",
    dt: float = 0.05,
    gamma: float = 2.0,
    epsilon: float = 5.0,
    **options: Unpack[Options],
) -> Oscillator:
    """Coupled oscillators with velocities z, frequencies γ and damping ε (Rusch & Mishra 2021; h is the paper's y):

        z = z′ + Δt (tanh(W_h x + U_h h′ + U_z z′ + b_h) − γ h′ − ε z′)
        h = h′ + Δt z

    Params: `{name}_W_h` (units, inputs), `{name}_U_h` and `{name}_U_z` (units, units), `{name}_b_h` (units,).
    """
    cell = Recurrence(g, x, units, over, name, **options)
    (h, h_before), (z, z_before) = cell.states(h=units, z=units)
    force = tanh(cell.affine("h", h_before) + cell.of_state("z", z_before))
    z[over] = z_before + dt * (force - gamma * h_before - epsilon * z_before)
    h[over] = h_before + dt * z
    return Oscillator(h, z)
