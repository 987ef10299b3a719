"""Networks made of cells: both directions of one, and several layers on each other.

A cell here is any function that is called as `cell(g, x, units=…, over=…, name=…, **options)` and returns an object
with the output in its attribute `h`: the library's, or the user's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from graphc.cells.recurrence import Initial, Named
from graphc.errors import DefinitionError
from graphc.integers import is_whole
from graphc.ir import Axis
from graphc.language import functions, randomness
from graphc.language.graph import Graph
from graphc.language.value import Value, check_value


class States(Protocol):
    """What a cell returns: its output, and whatever other states it has."""

    @property
    def h(self) -> Value: ...


# A function that adds a cell to a graph: cell(g, x, units=…, over=…, name=…, **options).
Cell = Callable[..., States]


def _checked(made: States, cell: Cell) -> States:
    if not isinstance(getattr(made, "h", None), Value):
        raise DefinitionError(
            f"a cell returns its states by name, and .h is its output, but {_called(cell)} returned "
            f"{type(made).__name__}: types.SimpleNamespace(h=h) is such a return value"
        )
    return made


def _check_cell(cell: object) -> None:
    if not callable(cell):
        raise DefinitionError(f"cell= is a function that adds a cell to a graph, such as gc.cells.gru, got {cell!r}")


def _check_reverse(cell: Cell) -> None:
    takes = inspect.signature(cell).parameters
    if "reverse" not in takes and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        raise DefinitionError(
            f"a cell of both directions takes reverse=, which {_called(cell)} does not: where it is true, the cell "
            "reads h[t + 1] in place of h[t - 1]"
        )


def _check_initial(initial: object, count: int, what: str) -> None:
    if initial is None or (isinstance(initial, Sequence) and not isinstance(initial, str) and len(initial) == count):
        return
    found = f"{len(initial)} items" if isinstance(initial, Sequence) else repr(initial)
    raise DefinitionError(f"initial= {what}; got {found}")


def _called(cell: Cell) -> str:
    return str(getattr(cell, "__name__", cell))


@dataclass(frozen=True, eq=False)
class Bidirectional(Named):
    """The two cells, and their outputs joined: h has event (2 · units,), forward first."""

    h: Value
    forward: Any
    backward: Any


def bidirectional(
    g: Graph,
    x: Value,
    cell: Cell,
    units: int,
    over: Axis,
    name: str = "bidirectional",
    initial: Sequence[Initial] | None = None,
    restart: Value | None = None,
    **options: Any,
) -> Bidirectional:
    """One cell along the axis and one against it, concatenated (Schuster & Paliwal 1997).

    The cells are called `{name}_forward` and `{name}_backward`. `initial` is a pair, one for each. `restart` is true
    where a new sequence begins; the backward cell restarts where the sequence before it ended. Further options go to
    both cells.
    """
    _check_initial(initial, 2, "of both directions is a pair (forward, backward)")
    _check_cell(cell)
    _check_reverse(cell)
    if restart is not None:
        check_value(restart, f"cell {name!r} takes as restart=")
    directions = []
    for k, direction in enumerate(("forward", "backward")):
        own = dict(options)
        if initial is not None:
            own["initial"] = initial[k]
        if restart is not None:
            own["restart"] = restart[over + 1] if k else restart
        label = f"{name}_{direction}"
        made = cell(g, x, units=units, over=over, name=label, reverse=bool(k), **own)
        directions.append(_checked(made, cell))
    forward, backward = directions
    return Bidirectional(functions.concat([forward.h, backward.h]), forward, backward)


@dataclass(frozen=True, eq=False)
class Stack(Named):
    """The last layer's output, and the layers from the input up."""

    h: Value
    layers: tuple[Any, ...]


def stack(
    g: Graph,
    x: Value,
    cell: Cell,
    units: int,
    layers: int,
    over: Axis,
    name: str = "stack",
    initial: Sequence[Initial] | None = None,
    dropout: float = 0.0,
    seed: Any = 0,
    salt: int = 0,
    **options: Any,
) -> Stack:
    """Layers of one cell, each on the outputs of the layer below: h_l(t) from h_l(t − 1) and h_{l−1}(t).

    The cells are called `{name}_0`, `{name}_1`, …; `initial` has one item for each. With `dropout`, the outputs of
    all layers but the last lose this share of their elements, drawn from `seed` (an int or an int32 value) and `salt`
    + the layer. For layers in both directions, `cell=functools.partial(bidirectional, cell=lstm)`. Further options go
    to every cell.
    """
    if not is_whole(layers) or layers < 1:
        raise DefinitionError(f"a stack has at least one layer, a whole number of them, got {layers!r}")
    _check_initial(initial, layers, f"of a stack has one item a layer, {layers}")
    _check_cell(cell)
    made: list[States] = []
    for k in range(layers):
        own = dict(options) if initial is None else {**options, "initial": initial[k]}
        made.append(_checked(cell(g, x, units=units, over=over, name=f"{name}_{k}", **own), cell))
        x = made[-1].h
        if dropout and k < layers - 1:
            x = randomness.dropout(x, dropout, seed, salt + k)
    return Stack(made[-1].h, tuple(made))
