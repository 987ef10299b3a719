"""Flax's LSTMCell, GRUCell and SimpleCell, of flax.linen.

Every gate has arrays of its own, in nested dicts: `ii` for gate i on the inputs, `hi` on the state, each with a kernel,
transposed, and one of the two with a bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphc.cells.convert.forms import Form
from graphc.cells.convert.framework import Framework
from graphc.cells.convert.names import places
from graphc.cells.convert.shapes import Arrays, Shapes
from graphc.errors import DefinitionError

_GATES = {"elman": "h", "lstm": "ifgo", "gru": "rzn"}
_DIRECTIONS = {"forward": "forward_rnn", "backward": "backward_rnn"}


def from_flax(params: Mapping[str, Any], cell: str, name: str | None = None, update: str = "old") -> Arrays:
    """The params of `cell` ("lstm", "gru" or "elman") that compute what flax.linen's LSTMCell, GRUCell or SimpleCell
    does.

    `params` are the cell's or its `RNN`'s, `variables["params"]`: for each gate a kernel (I, H) on the inputs, a kernel
    (H, H) on the state, and a bias (H). OptimizedLSTMCell has the same. Those of `Bidirectional`, with forward_rnn and
    backward_rnn, are for `gc.cells.bidirectional`.

    Flax's GRU is `gru(reset="after", update="old")`; with update="new" the weights of z are negated, which is the same
    function. The params do not show activations, nor residual=True of a SimpleCell, which a cell does not have. The
    arrays are new ones. Read from Flax 0.12, whose cells the tests compare with.
    """
    form = _FLAX.form(cell, bias=True)
    if not isinstance(params, Mapping):
        raise DefinitionError(f"params in nested dicts were expected, not a {type(params).__name__}")
    params = _inside(params)
    both = params.keys() == set(_DIRECTIONS.values())
    parts = {
        place: dict(_flat(_inside(params[_DIRECTIONS[place.direction]]) if place.direction else params))
        for place in places((None,), both)
    }
    return _FLAX.read(parts, form, name, update)


def to_flax(
    params: Mapping[str, Any], cell: str, name: str | None = None, update: str = "old", bias: bool = True
) -> dict[str, Any]:
    """The params of the cell of flax.linen that computes what the cell does; see `from_flax`.

    `params` may hold other params too; those of both directions give `{"forward_rnn": {"cell": …}, "backward_rnn":
    {"cell": …}}`, as of a `Bidirectional` of two `RNN`. A cell made with `bias=False`, which is to be said, has biases
    of 0 there. Refused, because Flax has no such cell: peepholes, projections, layer normalisation, and a GRU that
    resets before the product; of one without biases the params do not show it.
    """
    parts = _FLAX.write(params, _FLAX.form(cell, bias), name, update)
    nested = {place.direction: _nested(own) for place, own in parts.items()}
    return nested[None] if None in nested else {_DIRECTIONS[str(k)]: {"cell": own} for k, own in nested.items()}


def _inside(params: Any) -> Any:
    """The params of the cell in an RNN, of the variables of a module."""
    while isinstance(params, Mapping) and len(params) == 1 and (key := next(iter(params))) in ("params", "cell"):
        params = params[key]
    return params


def _flat(params: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of nested dicts, named by their paths."""
    if not isinstance(params, Mapping):
        yield prefix, np.asarray(params)
        return
    for key, value in params.items():
        yield from _flat(value, f"{prefix}/{key}" if prefix else str(key))


def _nested(own: Arrays) -> dict[str, dict[str, np.ndarray]]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for path, array in own.items():
        layer, leaf = path.split("/")
        found.setdefault(layer, {})[leaf] = array
    return found


def _paths(form: Form) -> dict[str, str]:
    """For each of our params, the path of Flax's array."""
    found: dict[str, str] = {}
    for k in _GATES[form.cell]:
        gate = "" if form.cell == "elman" else k
        found |= {f"W_{k}": f"i{gate}/kernel", f"U_{k}": f"h{gate}/kernel"}
        found[f"b_{k}"] = f"h{gate}/bias" if form.cell == "lstm" else f"i{gate}/bias"
        if k in form.inner:
            found[f"c_{k}"] = f"h{gate}/bias"
    return found


def _arrays(form: Form) -> Shapes:
    shapes = {"W": "I, H", "U": "H, H", "b": "H", "c": "H"}
    return {path: shapes[param[0]] for param, path in _paths(form).items()}


def _unpack(form: Form, own: Arrays) -> Arrays:
    return {param: own[path].T for param, path in _paths(form).items()}


def _pack(form: Form, own: Arrays) -> Arrays:
    return {path: own[param].T for param, path in _paths(form).items()}


_FLAX = Framework("Flax", _GATES, _arrays, _unpack, _pack, biasless=False)
