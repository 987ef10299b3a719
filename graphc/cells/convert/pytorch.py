"""PyTorch's LSTM, GRU and RNN.

The gates of a layer are row blocks of `weight_ih_l0` and `weight_hh_l0`, with two biases that are added; `_reverse`
marks the backward direction. A stack is one module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.cells.convert.forms import Form
from graphc.cells.convert.framework import Framework
from graphc.cells.convert.gates import join, one_bias, split, two_biases
from graphc.cells.convert.names import places
from graphc.cells.convert.shapes import Arrays, Shapes, times
from graphc.errors import DefinitionError

_GATES = {"elman": "h", "lstm": "ifgo", "gru": "rzn", "projected_lstm": "ifgo"}
_KEY = re.compile(r"(?P<kind>weight_[ih]h|bias_[ih]h|weight_hr)(_l(?P<layer>\d+)(?P<reverse>_reverse)?)?")


def from_torch(
    state_dict: Mapping[str, Any], cell: str, name: str | None = None, update: str = "old", bias: bool = True
) -> Arrays:
    """The params of `cell` ("lstm", "gru" or "elman") that compute what PyTorch's module does.

    `state_dict` is the module's, of arrays or of tensors on the CPU, or that of an LSTMCell, GRUCell or RNNCell. Its
    GRU is `gru(reset="after", update="old")`; with update="new" the weights of z are negated, which is the same
    function. `name` is the cell's by default. An LSTM with proj_size is `projected_lstm`. A module without biases gives
    biases of 0, or none with `bias=False`, for a cell that was made so. The arrays are new ones; a
    `graphc.torch.Module` loads them as `{name: torch.from_numpy(array) for name, array in params.items()}`.
    """
    form = _TORCH.form(cell, bias)
    if not isinstance(state_dict, Mapping):
        raise DefinitionError(f"a module's state_dict() was expected, not a {type(state_dict).__name__}")
    arrays = {key: np.asarray(value) for key, value in state_dict.items()}
    found = {key: match for key in arrays if (match := _KEY.fullmatch(key))}
    if not found or len(found) < len(arrays):
        raise DefinitionError(
            f"these are not the weights of an LSTM, GRU or RNN of PyTorch: {', '.join(arrays) or 'none'}; "
            "of a larger model, give the layer's own, such as model.rnn.state_dict()"
        )
    layers = sorted({int(match["layer"] or 0) for match in found.values()})
    both = any(match["reverse"] for match in found.values())
    own: dict[tuple[int, bool], Arrays] = {}
    for key, match in found.items():
        own.setdefault((int(match["layer"] or 0), bool(match["reverse"])), {})[match["kind"]] = arrays[key]
    kept = places(layers if len(layers) > 1 else [None], both)
    parts = {p: own.get((layers[0] if p.layer is None else p.layer, p.direction == "backward"), {}) for p in kept}
    return _TORCH.read(parts, form, name, update)


def to_torch(
    params: Mapping[str, Any], cell: str, name: str | None = None, update: str = "old", bias: bool = True
) -> Arrays:
    """The `state_dict` of PyTorch's module that computes what the cell does; see `from_torch`.

    It holds arrays, which PyTorch loads as `{key: torch.from_numpy(array) for key, array in found.items()}`. `params`
    may hold other params too. The first of PyTorch's two biases takes ours, the second is 0 but for a GRU's
    n; with `bias=False`, for a module and a cell that were made so, there is none. Refused, because PyTorch has no such
    cell: peepholes, layer normalisation, and a GRU that resets before the product; of one without biases the params do
    not show it.
    """
    form = _TORCH.form(cell, bias)
    return {
        f"{key}_l{place.layer or 0}" + ("_reverse" if place.direction == "backward" else ""): array
        for place, own in _TORCH.write(params, form, name, update).items()
        for key, array in own.items()
    }


def _projected(form: Form, own: Arrays) -> Form:
    """An LSTM with a projection is the same module."""
    return replace(form, cell="projected_lstm") if form.cell == "lstm" and {"weight_hr", "P"} & own.keys() else form


def _arrays(form: Form) -> Shapes:
    rows = times(len(_GATES[form.cell]), "H")
    projected = form.cell == "projected_lstm"
    shapes = {"weight_ih": f"{rows}, I", "weight_hh": f"{rows}, {'O' if projected else 'H'}"}
    if form.bias:
        shapes |= {"bias_ih": rows, "bias_hh": rows}
    return shapes | ({"weight_hr": "O, H"} if projected else {})


def _unpack(form: Form, own: Arrays) -> Arrays:
    gates = _GATES[form.cell]
    params = split("W", own["weight_ih"], gates) | split("U", own["weight_hh"], gates)
    if form.bias:
        params |= one_bias(form, (own["bias_ih"], own["bias_hh"]), gates)
    return params | ({"P": own["weight_hr"]} if "weight_hr" in own else {})


def _pack(form: Form, own: Arrays) -> Arrays:
    gates = _GATES[form.cell]
    arrays = {"weight_ih": join("W", own, gates), "weight_hh": join("U", own, gates)}
    if form.bias:
        arrays["bias_ih"], arrays["bias_hh"] = two_biases(own, gates)
    return arrays | ({"weight_hr": own["P"]} if "P" in own else {})


_TORCH = Framework("PyTorch", _GATES, _arrays, _unpack, _pack, variant=_projected, stacks=True)
