"""What every cell has in common: its params, its states, and the step that they were left at.

In: a graph, a vector x over an axis, and the options that all cells take. Out: a `Recurrence`, whose methods let a
cell's function read like its equations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NoReturn, Self, TypedDict

import numpy as np

from graphc.errors import AxisError, DefinitionError, DtypeError, ProtocolError, ShapeError
from graphc.integers import is_whole
from graphc.ir import FLOATS, Axis, merge_axes
from graphc.language.graph import Graph, check_graph
from graphc.language.options import check_options
from graphc.language.value import State, Value, as_value, check_value
from graphc.scalar import computed

Activation = Callable[[Value], Value]

Initial = Any
"""A number, array or value for every state of a cell, or a mapping from the names of its states to such."""


class Options(TypedDict, total=False):
    """The keyword arguments that every cell takes.

    reverse    run against the axis: read the step after instead of the one before
    initial    the states before the first step: a number, array or value for each of them, or a mapping from their
               names, such as {"h": h0, "c": c0}; 0 by default. An input or a param makes it differentiable.
    restart    a bool value: where it is true, the step before is the initial state (a new sequence begins here)
    W_init     the initialiser of the matrices on x: "glorot_uniform"
    U_init     the initialiser of the matrices on states: "orthogonal"
    bias       with False nothing is added to the products: there are no params b_k, nor a GRU's c_n, and so no bias
               that begins at `forget_bias`
    """

    reverse: bool
    initial: Initial
    restart: Value
    W_init: str
    U_init: str
    bias: bool


class Named:
    """What a cell returns: its values by name, and not in any order."""

    def __new__(cls, *values: Any, **named: Any) -> Self:
        known = [value.name for value in fields(cls)]  # type: ignore[arg-type]
        if (values or named) and (len(values) + len(named) != len(known) or not named.keys() <= set(known)):
            here = f"gc.cells.{cls.__name__}"
            raise DefinitionError(
                f"{here} is what a cell returns, with {', '.join(known)}; the cells are functions with small letters: "
                "cell = gc.cells.lstm(g, x, 8, over=t)"
            )
        return super().__new__(cls)

    def __iter__(self) -> NoReturn:
        names = ", ".join(f".{value.name}" for value in fields(self))  # type: ignore[arg-type]
        raise ProtocolError(f"what a cell returns is read by name, {names}: h = gc.cells.lstm(g, x, 8, over=t).h")


@dataclass(frozen=True, eq=False)
class Hidden(Named):
    """A cell of one state: h over x's axes, with event (units,)."""

    h: State


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One cell being added to a graph."""

    graph: Graph
    x: Value
    units: int
    over: Axis
    name: str
    reverse: bool = False
    initial: Initial = 0.0
    restart: Value | None = None
    W_init: str = "glorot_uniform"
    U_init: str = "orthogonal"
    bias: bool = True

    def __new__(cls, *given: Any, **options: Any) -> Recurrence:
        name = given[4] if len(given) > 4 else options.get("name", "")
        check_options(f"cell {name!r}", options, ("name", *Options.__annotations__))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_graph(self.graph)
        if not isinstance(self.over, Axis):
            raise AxisError(f"cell {self.name!r} runs over one axis of the graph, got over={self.over!r}")
        check_value(self.x, f"cell {self.name!r} reads")
        if self.restart is not None:
            check_value(self.restart, f"cell {self.name!r} takes as restart=")
        if len(self.x.shape) != 1:
            hint = "; write x.reshape(-1)" if self.x.shape else "; write x.reshape(1)"
            raise ShapeError(f"cell {self.name!r} reads a vector at a step, got events of shape {self.x.shape}{hint}")
        if self.dtype not in FLOATS:
            raise DtypeError(f"cell {self.name!r} reads floating-point numbers, got {self.x.dtype}; see gc.embedding")
        if not is_whole(self.units) or self.units < 1:
            raise ShapeError(f"cell {self.name!r} has at least one unit, got {self.units!r}")
        for option in ("reverse", "bias"):
            given = getattr(self, option)
            if not isinstance(given, bool | np.bool_):
                raise DefinitionError(f"cell {self.name!r} takes {option}=True or {option}=False, got {given!r}")

    @property
    def dtype(self) -> str:
        """The dtype of the states and the params."""
        return computed(self.x.dtype)

    def check_count(self, option: str, number: object) -> None:
        """Check an option that counts elements of a state."""
        if not is_whole(number) or number < 1:
            raise ShapeError(f"cell {self.name!r} takes as {option}= a whole number of at least 1, got {number!r}")

    def states(self, **shapes: int | tuple[int, ...]) -> list[tuple[State, Value]]:
        """For each state, given its letter and its length or shape: the state to define, and its value at the step
        before."""
        mapping = isinstance(self.initial, Mapping)
        if mapping and not set(self.initial) <= set(shapes):
            unknown = ", ".join(sorted(set(self.initial) - set(shapes)))
            raise DefinitionError(f"cell {self.name!r} has no state {unknown}; its states are {', '.join(shapes)}")
        starts = {k: self.initial.get(k, 0.0) if mapping else self.initial for k in shapes}
        values = {k: as_value(v, self.graph, dtype=self.dtype) for k, v in starts.items()}
        own = self.x.axes if self.over in self.x.axes else (self.over, *self.x.axes)
        given = self.restart.axes if self.restart is not None else ()
        axes = merge_axes(own, given, *(v.axes for v in values.values()))
        step = self.over + 1 if self.reverse else self.over - 1
        states = [
            self.graph.state(f"{self.name}_{k}", shape, axes, values[k], self.restart, dtype=self.dtype)
            for k, shape in ((k, (n,) if isinstance(n, int) else n) for k, n in shapes.items())
        ]
        return [(s, s[step]) for s in states]

    def activated(self, activation: Activation, value: Value, option: str = "activation") -> Value:
        """f(value), with the user's f."""
        if not callable(activation):
            raise DefinitionError(
                f"cell {self.name!r} takes as {option}= a function of values, gc.tanh or, for none, lambda x: x; "
                f"got {activation!r}"
            )
        return activation(value)

    def param(self, letters: str, *shape: int, init: str | float = 0.0) -> Value:
        """The param `{name}_{letters}`."""
        return self.graph.param(f"{self.name}_{letters}", shape, init=init, dtype=self.dtype)

    def W(self, gate: str, size: int | None = None) -> Value:
        """The param W_k (units, inputs), or of another size."""
        return self.param(f"W_{gate}", size or self.units, self.x.shape[0], init=self.W_init)

    def biased(self, value: Value, letters: str, init: float | str = 0.0) -> Value:
        """The vector plus the param `{name}_{letters}`, as `init` has it at first; alone, if there are no biases."""
        return value + self.param(letters, *value.shape, init=init) if self.bias else value

    def of_x(self, gate: str, bias: float = 0.0, size: int | None = None) -> Value:
        """W_k x + b_k, with b_k filled with `bias` at first: (units,), or of another size."""
        return self.biased(self.W(gate, size) @ self.x, f"b_{gate}", bias)

    def of_state(self, gate: str, h: Value) -> Value:
        """U_k h."""
        return self.param(f"U_{gate}", self.units, h.shape[0], init=self.U_init) @ h

    def affine(self, gate: str, h: Value, bias: float = 0.0) -> Value:
        """W_k x + U_k h + b_k, with b_k filled with `bias` at first. What does not pass the cycle is added first."""
        W = self.W(gate)
        U = self.param(f"U_{gate}", self.units, h.shape[0], init=self.U_init)
        return self.biased(W @ self.x, f"b_{gate}", bias) + U @ h


def stateless(g: Graph, x: Value, units: int, over: Axis, name: str, options: Options) -> Recurrence:
    """A cell whose gates read x alone."""
    if "U_init" in options:
        raise DefinitionError(f"cell {name!r} has no matrix on its state, so no U_init")
    return Recurrence(g, x, units, over, name, **options)
