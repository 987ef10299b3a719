"""Recurrent layers as other libraries document them, in plain numpy: the arrays of each, and what they compute.

Nothing here is graphc's. A layer in one direction is a dict of its arrays; x is (T, inputs), and so is h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
COUNTS = {"elman": 1, "lstm": 4, "peephole_lstm": 4, "projected_lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Library:
    """A library's cells and where its GRU may reset; the shapes of a layer's arrays, given the cell, inputs, units,
    whether it has biases, and the reset; what it computes; and all directions as users have them, and back."""

    cells: tuple[str, ...]
    resets: tuple[str, ...]
    shapes: Callable[[str, int, int, bool, str], Shapes]
    run: Callable[[str, str, Arrays, np.ndarray], np.ndarray]
    given: Callable[[Sequence[Arrays]], Any]
    taken: Callable[[Any, int], list[Arrays]]
    biasless: bool = True


def sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def over(x: np.ndarray, units: int, step: Callable[..., Any], memory: int = 0) -> np.ndarray:
    """h at every step: h = step(x, h), or h, c = step(x, h, c) with a memory c of that size."""
    h, c, found = np.zeros(units), np.zeros(memory), []
    for point in x:
        if memory:
            h, c = step(point, h, c)
        else:
            h = step(point, h)
        found.append(h)
    return np.array(found)


# PyTorch: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html, and GRU, RNN


def torch_shapes(cell: str, inputs: int, units: int, bias: bool, reset: str) -> Shapes:
    rows = COUNTS[cell] * units
    outputs = 2 if cell == "projected_lstm" else units
    shapes: Shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    return shapes | ({"weight_hr": (outputs, units)} if cell == "projected_lstm" else {})


def torch_run(cell: str, reset: str, p: Arrays, x: np.ndarray) -> np.ndarray:
    on_x, on_h = p.get("bias_ih", 0.0), p.get("bias_hh", 0.0)

    def rnn(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.tanh(p["weight_ih"] @ x + on_x + p["weight_hh"] @ h + on_h)

    def gru(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        (xr, xz, xn), (hr, hz, hn) = (np.split(a, 3) for a in (p["weight_ih"] @ x + on_x, p["weight_hh"] @ h + on_h))
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        return (1 - z) * np.tanh(xn + r * hn) + z * h

    def lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, f, g, o = np.split(p["weight_ih"] @ x + on_x + p["weight_hh"] @ h + on_h, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (p["weight_hr"] @ h if "weight_hr" in p else h), c

    outputs, rows = p["weight_hh"].shape[1], len(p["weight_hh"])
    step = {"elman": rnn, "gru": gru}.get(cell, lstm)
    return over(x, outputs, step, memory=rows // 4 if step is lstm else 0)


def torch_given(layers: Sequence[Arrays]) -> Arrays:
    suffixes = ("_l0", "_l0_reverse")
    return {name + end: a for own, end in zip(layers, suffixes, strict=False) for name, a in own.items()}


def torch_taken(state: Arrays, directions: int) -> list[Arrays]:
    suffixes = ("_l0", "_l0_reverse")[:directions]
    assert all(name.endswith(suffixes) for name in state)
    return [{k.removesuffix(end): a for k, a in state.items() if k.endswith(end)} for end in suffixes]


# Keras: keras/src/layers/rnn/lstm.py, gru.py, simple_rnn.py


def keras_shapes(cell: str, inputs: int, units: int, bias: bool, reset: str) -> Shapes:
    columns = COUNTS[cell] * units
    shapes: Shapes = {"kernel": (inputs, columns), "recurrent_kernel": (units, columns)}
    two = cell == "gru" and reset == "after"
    return shapes | ({"bias": (2, columns) if two else (columns,)} if bias else {})


def keras_run(cell: str, reset: str, p: Arrays, x: np.ndarray) -> np.ndarray:
    kernel, recurrent = p["kernel"], p["recurrent_kernel"]
    units = len(recurrent)
    bias = p.get("bias", np.zeros(kernel.shape[1]))

    def simple(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.tanh(x @ kernel + bias + h @ recurrent)

    def lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z0, z1, z2, z3 = np.split(x @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(z1) * c + sigmoid(z0) * np.tanh(z2)
        return sigmoid(z3) * np.tanh(c), c

    def gru(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        input_bias, recurrent_bias = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        x_z, x_r, x_h = np.split(x @ kernel + input_bias, 3)
        inner = h @ recurrent + recurrent_bias
        z, r = sigmoid(x_z + inner[:units]), sigmoid(x_r + inner[units : 2 * units])
        past = r * inner[2 * units :] if reset == "after" else (r * h) @ recurrent[:, 2 * units :]
        return z * h + (1 - z) * np.tanh(x_h + past)

    return over(x, units, {"elman": simple, "lstm": lstm, "gru": gru}[cell], memory=units * (cell == "lstm"))


def keras_given(layers: Sequence[Arrays]) -> list[np.ndarray]:
    return [a for own in layers for a in own.values()]


def keras_taken(weights: list[np.ndarray], directions: int) -> list[Arrays]:
    size = len(weights) // directions
    names = ("kernel", "recurrent_kernel", "bias")
    return [dict(zip(names, weights[k * size : (k + 1) * size], strict=False)) for k in range(directions)]


# ONNX: https://onnx.ai/onnx/operators/onnx__LSTM.html, and GRU, RNN


def onnx_shapes(cell: str, inputs: int, units: int, bias: bool, reset: str) -> Shapes:
    rows = COUNTS[cell] * units
    shapes: Shapes = {"W": (rows, inputs), "R": (rows, units)}
    if bias:
        shapes["B"] = (2 * rows,)
    return shapes | ({"P": (3 * units,)} if cell == "peephole_lstm" else {})


def onnx_run(cell: str, reset: str, p: Arrays, x: np.ndarray) -> np.ndarray:
    W, R, count = p["W"], p["R"], COUNTS[cell]
    units = R.shape[1]
    Wb, Rb = np.split(p.get("B", np.zeros(2 * len(W))), 2)

    def rnn(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.tanh(x @ W.T + h @ R.T + Wb + Rb)

    def lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Pi, Po, Pf = np.split(p.get("P", np.zeros(3 * units)), 3)
        i, o, f, g = np.split(x @ W.T + h @ R.T + Wb + Rb, 4)
        after = sigmoid(f + Pf * c) * c + sigmoid(i + Pi * c) * np.tanh(g)
        return sigmoid(o + Po * after) * np.tanh(after), after

    def gru(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        (Wz, Wr, Wh), (Rz, Rr, Rh) = np.split(W, count), np.split(R, count)
        (Wbz, Wbr, Wbh), (Rbz, Rbr, Rbh) = np.split(Wb, count), np.split(Rb, count)
        z, r = sigmoid(x @ Wz.T + h @ Rz.T + Wbz + Rbz), sigmoid(x @ Wr.T + h @ Rr.T + Wbr + Rbr)
        if reset == "before":  # linear_before_reset=0
            new = np.tanh(x @ Wh.T + (r * h) @ Rh.T + Rbh + Wbh)
        else:
            new = np.tanh(x @ Wh.T + r * (h @ Rh.T + Rbh) + Wbh)
        return (1 - z) * new + z * h

    step = {"elman": rnn, "gru": gru}.get(cell, lstm)
    return over(x, units, step, memory=units * (step is lstm))


def onnx_given(layers: Sequence[Arrays]) -> Arrays:
    return {name: np.stack([own[name] for own in layers]) for name in layers[0]}


def onnx_taken(arrays: Arrays, directions: int) -> list[Arrays]:
    assert all(len(a) == directions for a in arrays.values())
    return [{name: a[k] for name, a in arrays.items()} for k in range(directions)]


# Flax: flax/linen/recurrent.py


def flax_shapes(cell: str, inputs: int, units: int, bias: bool, reset: str) -> Shapes:
    letters = {"elman": ("",), "lstm": tuple("ifgo"), "gru": tuple("rzn")}[cell]
    shapes: Shapes = {}
    for k in letters:
        shapes |= {f"i{k}/kernel": (inputs, units), f"h{k}/kernel": (units, units)}
        shapes["hi"[cell != "lstm"] + f"{k}/bias"] = (units,)
    return shapes | ({"hn/bias": (units,)} if cell == "gru" else {})


def flax_run(cell: str, reset: str, p: Arrays, x: np.ndarray) -> np.ndarray:
    def dense(name: str, a: np.ndarray) -> np.ndarray:
        return a @ p[f"{name}/kernel"] + p.get(f"{name}/bias", 0.0)

    def simple(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        return np.tanh(dense("i", x) + dense("h", h))

    def lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, f, o = (sigmoid(dense(f"i{k}", x) + dense(f"h{k}", h)) for k in "ifo")
        c = f * c + i * np.tanh(dense("ig", x) + dense("hg", h))
        return o * np.tanh(c), c

    def gru(x: np.ndarray, h: np.ndarray) -> np.ndarray:
        r, z = (sigmoid(dense(f"i{k}", x) + dense(f"h{k}", h)) for k in "rz")
        n = np.tanh(dense("in", x) + r * dense("hn", h))
        return (1 - z) * n + z * h

    units = len(next(a for name, a in p.items() if name.startswith("h") and name.endswith("kernel")))
    return over(x, units, {"elman": simple, "lstm": lstm, "gru": gru}[cell], memory=units * (cell == "lstm"))


def flax_given(layers: Sequence[Arrays]) -> dict[str, Any]:
    nested = []
    for own in layers:
        gates: dict[str, Any] = {}
        for path, a in own.items():
            gate, leaf = path.split("/")
            gates.setdefault(gate, {})[leaf] = a
        nested.append(gates)
    if len(nested) == 1:
        return nested[0]
    return {"forward_rnn": {"cell": nested[0]}, "backward_rnn": {"cell": nested[1]}}


def flax_taken(params: dict[str, Any], directions: int) -> list[Arrays]:
    cells = [params] if directions == 1 else [params[f"{k}_rnn"]["cell"] for k in ("forward", "backward")]
    return [{f"{gate}/{leaf}": a for gate, own in cell.items() for leaf, a in own.items()} for cell in cells]


LIBRARIES = {
    "torch": Library(
        ("elman", "lstm", "projected_lstm", "gru"), ("after",), torch_shapes, torch_run, torch_given, torch_taken
    ),
    "keras": Library(("elman", "lstm", "gru"), ("after", "before"), keras_shapes, keras_run, keras_given, keras_taken),
    "onnx": Library(
        ("elman", "lstm", "peephole_lstm", "gru"), ("before", "after"), onnx_shapes, onnx_run, onnx_given, onnx_taken
    ),
    "flax": Library(
        ("elman", "lstm", "gru"), ("after",), flax_shapes, flax_run, flax_given, flax_taken, biasless=False
    ),
}
