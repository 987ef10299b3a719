"""Keras's LSTM, GRU and SimpleRNN.

The gates of a layer are blocks of columns: a matrix is transposed, (inputs, gates · units). There is one bias, but a
GRU that resets after the product has two, as rows of one array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.cells.convert.forms import Form
from graphc.cells.convert.framework import Framework
from graphc.cells.convert.gates import join, one_bias, split, two_biases
from graphc.cells.convert.names import places
from graphc.cells.convert.shapes import Arrays, Shapes, times
from graphc.errors import DefinitionError

_GATES = {"elman": "h", "lstm": "ifgo", "gru": "zrn"}
_NAMES = ("kernel", "recurrent_kernel", "bias")


def from_keras(
    weights: Sequence[Any],
    cell: str,
    name: str | None = None,
    update: str = "old",
    bias: bool = True,
    reset: str = "after",
) -> Arrays:
    """The params of `cell` ("lstm", "gru" or "elman") that compute what Keras's LSTM, GRU or SimpleRNN does.

    `weights` is what `layer.get_weights()` gives: of I inputs and H units a kernel (I, 4H), a recurrent kernel
    (H, 4H) and a bias (4H), with 3H for a GRU and H for a SimpleRNN; of `Bidirectional` twice as many arrays, for
    `gc.cells.bidirectional`. Each layer of a model is converted by itself: a stack's have the names `{name}_0`,
    `{name}_1`, …

    Keras's GRU is `gru(reset="after", update="old")`, with a bias (2, 3H); one with reset_after=False is converted with
    `reset="before"`, and has a bias (3H). With update="new" the weights of z are negated, which is the same function. A
    layer with use_bias=False gives biases of 0, or none with `bias=False`, for a cell that was made so; of a GRU the
    arrays then do not show where it resets. They never show activations, nor what `Bidirectional` does with both
    outputs. The arrays are new ones. Read from Keras 3.15, whose layers the tests compare with.
    """
    form = _KERAS.form(cell, bias, reset)
    if isinstance(weights, str | Mapping) or not hasattr(weights, "__len__") or getattr(weights, "ndim", None) == 0:
        raise DefinitionError(f"the list that layer.get_weights() gives was expected, not a {type(weights).__name__}")
    arrays = [np.asarray(a) for a in weights]
    if len(arrays) not in (2, 3, 4, 6):
        raise DefinitionError(
            f"a layer of Keras has {', '.join(_NAMES)}, or the first two, and Bidirectional twice as many; found "
            f"{len(arrays)} arrays, {', '.join(str(a.shape) for a in arrays)}; of a model, give one layer's"
        )
    both = len(arrays) > 3
    half = len(arrays) // (1 + both)
    parts = {
        place: dict(zip(_NAMES, arrays[k * half : (k + 1) * half], strict=False))
        for k, place in enumerate(places((None,), both))
    }
    return _KERAS.read(parts, form, name, update)


def to_keras(
    params: Mapping[str, Any],
    cell: str,
    name: str | None = None,
    update: str = "old",
    bias: bool = True,
    reset: str = "after",
) -> list[np.ndarray]:
    """The weights for `layer.set_weights(…)` of the layer of Keras that computes what the cell does; see `from_keras`.

    `params` may hold other params too; those of both directions give the weights of `Bidirectional`. With `bias=False`
    they are those of a layer with use_bias=False. Refused, because Keras has no such cell: peepholes, projections and
    layer normalisation.
    """
    form = _KERAS.form(cell, bias, reset)
    return [array for own in _KERAS.write(params, form, name, update).values() for array in own.values()]


def _arrays(form: Form) -> Shapes:
    columns = times(len(_GATES[form.cell]), "H")
    shapes = {"kernel": f"I, {columns}", "recurrent_kernel": f"H, {columns}"}
    return shapes | ({"bias": f"2, {columns}" if form.inner else columns} if form.bias else {})


def _unpack(form: Form, own: Arrays) -> Arrays:
    gates = _GATES[form.cell]
    params = split("W", own["kernel"].T, gates) | split("U", own["recurrent_kernel"].T, gates)
    if not form.bias:
        return params
    return params | (one_bias(form, own["bias"], gates) if form.inner else split("b", own["bias"], gates))


def _pack(form: Form, own: Arrays) -> Arrays:
    gates = _GATES[form.cell]
    arrays = {"kernel": join("W", own, gates).T, "recurrent_kernel": join("U", own, gates).T}
    if form.bias:
        arrays["bias"] = np.stack(two_biases(own, gates)) if form.inner else join("b", own, gates)
    return arrays


_KERAS = Framework("Keras", _GATES, _arrays, _unpack, _pack, resets=("after", "before"))
