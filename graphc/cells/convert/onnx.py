"""ONNX's operators LSTM, GRU and RNN.

The inputs of a node: W (directions, gates · units, inputs), R (directions, gates · units, units), B (directions,
2 · gates · units), which is two biases that are added, and an LSTM's peepholes P (directions, 3 · units).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.cells.convert.forms import Form
from graphc.cells.convert.framework import Framework
from graphc.cells.convert.gates import join, one_bias, split, two_biases
from graphc.cells.convert.names import places
from graphc.cells.convert.shapes import Arrays, Shapes, times
from graphc.errors import DefinitionError

_GATES = {"elman": "h", "lstm": "iofg", "gru": "zrn", "peephole_lstm": "iofg"}
_PEEPHOLES = "iof"
_NAMES = ("W", "R", "B", "P")


def from_onnx(
    arrays: Mapping[str, Any],
    cell: str,
    name: str | None = None,
    update: str = "old",
    bias: bool = True,
    reset: str = "before",
) -> Arrays:
    """The params of `cell` ("lstm", "peephole_lstm", "gru" or "elman") that compute what a node LSTM, GRU or RNN does.

    `arrays` has the node's inputs W (D, 4H, I), R (D, 4H, H) and, if it has them, B (D, 8H) and P (D, 3H), by these
    names, for D directions, I inputs and H units; 3H and 6H for a GRU, H and 2H for an RNN. A node's inputs are X, W,
    R, B, sequence_lens, initial_h, initial_c and P, in this order. Two directions are `gc.cells.bidirectional`; a node
    of direction "reverse" is a cell with `reverse=True`.

    A GRU with linear_before_reset=0, the default, is `gru(reset="before", update="old")`; one with 1 is converted with
    `reset="after"`. With update="new" the weights of z are negated, which is the same function. A node without B gives
    biases of 0, or none with `bias=False`, for a cell that was made so. The arrays do not show linear_before_reset, nor
    the attributes activations, clip and input_forget, which a cell does not have: the last two are to be 0. The arrays
    are new ones. Read from operator set 14, with which the tests compare as ONNX Runtime computes it.
    """
    form = _ONNX.form(cell, bias, reset)
    if not isinstance(arrays, Mapping):
        raise DefinitionError(f"arrays by the names W, R, B and P were expected, not a {type(arrays).__name__}")
    found = {key: np.asarray(value) for key, value in arrays.items()}
    unknown = [str(key) for key in found if key not in _NAMES]
    if unknown:
        raise DefinitionError(
            f"the weights of a node are its inputs W, R, B and P; here are {', '.join(unknown)}; initial states and "
            "lengths are given to the cell"
        )
    counts = {a.shape[0] if a.ndim else 0 for a in found.values()}
    if counts not in ({1}, {2}):
        shapes = ", ".join(f"{key} {a.shape}" for key, a in found.items())
        raise DefinitionError(
            f"the first dimension of W, R, B and P counts directions, 1 or 2; found {shapes or 'none'}"
        )
    parts = {place: {key: a[k] for key, a in found.items()} for k, place in enumerate(places((None,), counts == {2}))}
    return _ONNX.read(parts, form, name, update)


def to_onnx(
    params: Mapping[str, Any],
    cell: str,
    name: str | None = None,
    update: str = "old",
    bias: bool = True,
    reset: str = "before",
) -> Arrays:
    """The inputs W, R, B and P of the node that computes what the cell does; see `from_onnx`.

    `params` may hold other params too; those of both directions give a node with direction="bidirectional". A GRU with
    `reset="after"` is a node with linear_before_reset=1. The first half of B is our bias, the second 0 but for such a
    GRU's n; with `bias=False`, for a cell that was made so, there is no B. Refused, because ONNX has no such cell:
    projections and layer normalisation.
    """
    form = _ONNX.form(cell, bias, reset)
    parts = _ONNX.write(params, form, name, update)
    return {key: np.stack([own[key] for own in parts.values()]) for key in _arrays(form)}


def _arrays(form: Form) -> Shapes:
    gates = len(_GATES[form.cell])
    shapes = {"W": f"{times(gates, 'H')}, I", "R": f"{times(gates, 'H')}, H"}
    if form.bias:
        shapes["B"] = times(2 * gates, "H")
    return shapes | ({"P": times(len(_PEEPHOLES), "H")} if form.cell == "peephole_lstm" else {})


def _unpack(form: Form, own: Arrays) -> Arrays:
    gates = _GATES[form.cell]
    params = split("W", own["W"], gates) | split("U", own["R"], gates)
    if form.bias:
        params |= one_bias(form, np.split(own["B"], 2), gates)
    return params | (split("p", own["P"], _PEEPHOLES) if "P" in own else {})


def _pack(form: Form, own: Arrays) -> Arrays:
    gates = _GATES[form.cell]
    arrays = {"W": join("W", own, gates), "R": join("U", own, gates)}
    if form.bias:
        arrays["B"] = np.concatenate(two_biases(own, gates))
    return arrays | ({"P": join("p", own, _PEEPHOLES)} if form.cell == "peephole_lstm" else {})


_ONNX = Framework("ONNX", _GATES, _arrays, _unpack, _pack, resets=("before", "after"))
