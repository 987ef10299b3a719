"""Names of params, as `gc.cells` makes them: `lstm_W_f` of one cell, `lstm_forward_W_f` of both directions,
`lstm_0_W_f` of a stack, `lstm_0_forward_W_f` of a stack of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from graphc.cells.convert.shapes import Arrays
from graphc.errors import DefinitionError

_PLACE = r"(_(?P<layer>\d+))?(_(?P<direction>forward|backward))?_(?P<param>[WUbcP].*|[pu]_.|gain_.)"


class Place(NamedTuple):
    """Where a param is: the layer of a stack, and the direction where there are both."""

    layer: int | None = None
    direction: str | None = None

    def label(self, name: str) -> str:
        """The name of the cell there."""
        return "_".join(str(part) for part in (name, *self) if part is not None)


def directions(both: bool) -> tuple[str | None, ...]:
    """The directions of a layer, forward first."""
    return ("forward", "backward") if both else (None,)


def places(layers: Iterable[int | None], both: bool) -> list[Place]:
    """Every layer in each of its directions."""
    return [Place(layer, direction) for layer, direction in product(layers, directions(both))]


def by_place(params: Mapping[str, Any], name: str) -> dict[Place, Arrays]:
    """The params of a cell, or of a network of such cells, by the place and their letters; others are left out."""
    if not isinstance(params, Mapping):
        raise DefinitionError(f"params by name were expected, not a {type(params).__name__}")
    found: dict[Place, Arrays] = {}
    for key, value in params.items():
        match = re.fullmatch(re.escape(name) + _PLACE, key)
        if match is not None:
            layer = match["layer"]
            place = Place(None if layer is None else int(layer), match["direction"])
            found.setdefault(place, {})[match["param"]] = np.asarray(value)
    if not found:
        raise DefinitionError(f"no param of a cell {name!r} among {', '.join(params) or 'none'}")
    # a cell of just this name comes before networks of cells whose names begin so
    stacked, both = min((p.layer is not None, p.direction is not None) for p in found)
    own = {p for p in found if (p.layer is not None, p.direction is not None) == (stacked, both)}
    layers = sorted({p.layer for p in own if p.layer is not None})
    if layers != list(range(len(layers))):
        numbers = ", ".join(map(str, layers))
        raise DefinitionError(f"the layers of a stack {name!r} are counted from 0; here are params of {numbers}")
    return {place: found.get(place, {}) for place in places(layers or [None], both)}
