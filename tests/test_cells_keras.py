"""The cells against Keras's LSTM, GRU and SimpleRNN: outputs, and weights there and back.

Skipped, visibly, where Keras or what it computes with is not installed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import numpy as np
import pytest

import graphc as gc

BACKENDS = [name for name in ("torch", "jax", "tensorflow") if importlib.util.find_spec(name)]
if not BACKENDS:
    pytest.skip("Keras computes with PyTorch, JAX or TensorFlow", allow_module_level=True)
os.environ.setdefault("KERAS_BACKEND", BACKENDS[0])
keras = pytest.importorskip("keras")

T, N, I, H = 6, 2, 3, 4
LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "elman": keras.layers.SimpleRNN}
KINDS = [("lstm", "after"), ("elman", "after"), ("gru", "after"), ("gru", "before")]  # cells, and where a GRU resets


def layer(cell: str, reset: str, both: bool = False, bias: bool = True) -> Any:
    """A layer with weights, biases among them, that are not 0."""
    options: dict[str, Any] = {"reset_after": reset == "after"} if cell == "gru" else {}
    made = LAYERS[cell](H, return_sequences=True, use_bias=bias, **options)
    made = keras.layers.Bidirectional(made) if both else made
    made.build((N, T, I))
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(size=a.shape) for a in made.get_weights()])
    return made


def outputs(made: Any, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(made(x.swapaxes(0, 1))).swapaxes(0, 1)


def graph(cell: str, reset: str, both: bool, update: str, **options: Any) -> gc.Graph:
    g = gc.Graph("layer")
    t, n = g.axis("t"), g.axis("n")
    own = functools.partial(gc.cells.gru, reset=reset, update=update) if cell == "gru" else getattr(gc.cells, cell)
    add = functools.partial(gc.cells.bidirectional, cell=own) if both else own
    g.output("h", add(g, g.input("x", (I,), over=(t, n)), units=H, over=t, name=cell, **options).h)
    return g


@pytest.mark.parametrize("update", ["old", "new"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("cell", "reset"), KINDS)
def test_a_layer_and_a_cell_are_the_same_function(cell: str, reset: str, both: bool, bias: bool, update: str) -> None:
    made = layer(cell, reset, both, bias)
    x = np.random.default_rng(1).normal(size=(T, N, I)).astype(np.float32)
    expected = outputs(made, x)
    options: dict[str, Any] = {"update": update, "reset": reset}
    params = gc.cells.from_keras(made.get_weights(), cell, bias=bias, **options)
    g = graph(cell, reset, both, update, bias=bias)
    np.testing.assert_allclose(gc.interpret(g, x=x, **params)["h"], expected, rtol=2e-5, atol=2e-6)
    again = gc.cells.to_keras(params, cell, bias=bias, **options)
    made.set_weights([np.zeros_like(a) for a in again])
    made.set_weights(again)
    np.testing.assert_allclose(outputs(made, x), expected, rtol=2e-5, atol=2e-6)
    if not bias:  # biases of 0
        with_biases = gc.cells.from_keras(made.get_weights(), cell, **options)
        g = graph(cell, reset, both, update)
        np.testing.assert_allclose(gc.interpret(g, x=x, **with_biases)["h"], expected, rtol=2e-5, atol=2e-6)


def test_a_model_is_converted_layer_by_layer() -> None:
    """As a stack of both directions; and variables in place of arrays."""
    model = keras.Sequential([keras.Input((T, I)), layer("lstm", "after", both=True)])
    model.add(keras.layers.Bidirectional(keras.layers.LSTM(H, return_sequences=True)))
    g = gc.Graph("model")
    t, n = g.axis("t"), g.axis("n")
    both = functools.partial(gc.cells.bidirectional, cell=gc.cells.lstm)
    g.output("h", gc.cells.stack(g, g.input("x", (I,), over=(t, n)), both, H, 2, over=t, name="lstm").h)
    params = {}
    for k, made in enumerate(model.layers):
        params |= gc.cells.from_keras(made.weights if k else made.get_weights(), "lstm", f"lstm_{k}")
    assert params.keys() == g.params.keys()
    x = np.random.default_rng(1).normal(size=(T, N, I)).astype(np.float32)
    np.testing.assert_allclose(gc.interpret(g, x=x, **params)["h"], outputs(model, x), rtol=2e-5, atol=2e-6)
