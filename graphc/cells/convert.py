"""Weights to and from PyTorch's LSTM, GRU and RNN: pure numpy, and exact or refused.

PyTorch packs the gates of a layer as row blocks of `weight_ih_l0` (gates · units, inputs) and `weight_hh_l0`
(gates · units, units), with two biases that are added; `_reverse` marks the backward direction. Here every gate has
arrays of its own, named as `gc.cells` names them: `{name}_W_f` for one layer, `{name}_0_W_f` for a stack,
`{name}_forward_W_f` for both directions, `{name}_0_forward_W_f` for a stack of both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graphc.errors import DefinitionError

GATES = {"elman": "h", "lstm": "ifgo", "gru": "rzn"}
"""The gates of each cell in PyTorch's order."""

Arrays = dict[str, np.ndarray]


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
    prefix, gates = _checked(cell, name, update)
    if not isinstance(state_dict, Mapping):
        raise DefinitionError(f"a module's state_dict() was expected, not a {type(state_dict).__name__}")
    arrays = {key: np.asarray(value).copy() for key, value in state_dict.items()}
    found = {key: match for key in arrays if (match := _TORCH.fullmatch(key))}
    if not found or len(found) < len(arrays):
        raise DefinitionError(
            f"these are not the weights of an LSTM, GRU or RNN of PyTorch: {', '.join(arrays) or 'none'}; "
            "of a larger model, give the layer's own, such as model.rnn.state_dict()"
        )
    if not bias and any(match["kind"].startswith("bias") for match in found.values()):
        raise DefinitionError("these weights have biases, which a cell with bias=False has not; leave bias=False out")
    layers = {int(match["layer"] or 0) for match in found.values()}
    both = any(match["reverse"] for match in found.values())
    params: Arrays = {}
    for layer in sorted(layers):
        for direction in ("forward", "backward")[: 1 + both]:
            place = layer, direction == "backward"
            own = {
                m["kind"]: arrays[key]
                for key, m in found.items()
                if (int(m["layer"] or 0), bool(m["reverse"])) == place
            }
            label = prefix + (f"_{layer}" if len(layers) > 1 else "") + (f"_{direction}" if both else "")
            params |= {f"{label}_{k}": a for k, a in _unpack(own, cell, gates, update, bias)}
    return params


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
    prefix, gates = _checked(cell, name, update)
    if not isinstance(params, Mapping):
        raise DefinitionError(f"params by name were expected, not a {type(params).__name__}")
    parts: dict[str, Arrays] = {}
    for key, value in params.items():
        match = re.fullmatch(prefix + _OURS, key)
        if match is not None:
            suffix = f"_l{match['layer'] or 0}" + ("_reverse" if match["direction"] == "backward" else "")
            parts.setdefault(suffix, {})[match["param"]] = np.asarray(value).copy()
    if not parts:
        raise DefinitionError(f"no param of a cell {prefix!r} among {', '.join(params) or 'none'}")
    return {
        f"{key}{suffix}": a for suffix, own in sorted(parts.items()) for key, a in _pack(own, cell, gates, update, bias)
    }


_TORCH = re.compile(r"(?P<kind>weight_[ih]h|bias_[ih]h|weight_hr)(_l(?P<layer>\d+)(?P<reverse>_reverse)?)?")
_OURS = r"(_(?P<layer>\d+))?(_(?P<direction>forward|backward))?_(?P<param>[WUbcP].*|p_.|gain_.)"


def _checked(cell: str, name: str | None, update: str) -> tuple[str, str]:
    if not isinstance(cell, str) or cell not in GATES:
        raise DefinitionError(f"PyTorch has the cells {', '.join(GATES)}, not {cell!r}")
    if update not in ("old", "new"):
        raise DefinitionError(f'the update gate of a GRU lets through the "new" or the "old", got {update!r}')
    return name or cell, GATES[cell]


def _unpack(own: Arrays, cell: str, gates: str, update: str, bias: bool) -> Iterator[tuple[str, np.ndarray]]:
    """One layer and direction: PyTorch's arrays to ours."""
    W, U = own["weight_ih"], own["weight_hh"]
    units = own["weight_hr"].shape[1] if "weight_hr" in own else U.shape[1]
    if not len(W) == len(U) == units * len(gates):
        raise DefinitionError(f"{len(W)} and {len(U)} rows of weights are not {len(gates)} gates of {units} units")
    none = np.zeros(len(W), W.dtype)
    of_x, of_h = own.get("bias_ih", none), own.get("bias_hh", none)
    for k, rows in zip(gates, np.split(np.arange(len(W)), len(gates)), strict=True):
        sign = -1 if (cell, k, update) == ("gru", "z", "new") else 1
        yield f"W_{k}", sign * W[rows]
        yield f"U_{k}", sign * U[rows]
        if not bias:
            continue
        if (cell, k) == ("gru", "n"):  # the two stand on different sides of the reset gate
            yield f"b_{k}", of_x[rows]
            yield f"c_{k}", of_h[rows]
        else:
            yield f"b_{k}", sign * (of_x[rows] + of_h[rows])
    if "weight_hr" in own:
        yield "P", own["weight_hr"]


def _pack(own: Arrays, cell: str, gates: str, update: str, bias: bool) -> Iterator[tuple[str, np.ndarray]]:
    """One layer and direction: our arrays to PyTorch's."""
    biases = {f"b_{k}" for k in gates} | ({"c_n"} if cell == "gru" else set())
    expected = {f"{letter}_{k}" for k in gates for letter in "WU"} | (biases if bias else set())
    missing, extra = sorted(expected - set(own)), sorted(set(own) - expected - ({"P"} if cell == "lstm" else set()))
    if missing == ["c_n"]:
        raise DefinitionError("PyTorch's GRU resets after the product; one that resets before it is another function")
    if missing or extra:
        differences = (("missing", missing), ("extra", extra))
        found = "; ".join(f"{what}: {', '.join(names)}" for what, names in differences if names)
        hint = "; for a cell without biases give bias=False" if biases == set(missing) else ""
        raise DefinitionError(f"PyTorch's {cell} has the params {', '.join(sorted(expected))}; here {found}{hint}")
    signs = {k: -1 if (cell, k, update) == ("gru", "z", "new") else 1 for k in gates}
    yield "weight_ih", np.concatenate([signs[k] * own[f"W_{k}"] for k in gates])
    yield "weight_hh", np.concatenate([signs[k] * own[f"U_{k}"] for k in gates])
    if bias:
        yield "bias_ih", np.concatenate([signs[k] * own[f"b_{k}"] for k in gates])
        yield "bias_hh", np.concatenate([own.get(f"c_{k}", np.zeros_like(own[f"b_{k}"])) for k in gates])
    if "P" in own:
        yield "weight_hr", own["P"]
