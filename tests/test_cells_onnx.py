"""The cells against ONNX's LSTM, GRU and RNN, as ONNX Runtime computes them: outputs, and weights there and back.

Skipped, visibly, where ONNX and its runtime are not installed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import graphc as gc

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

Arrays = dict[str, np.ndarray]
T, N, I, H = 6, 2, 3, 4
NODES = {"lstm": ("LSTM", 4), "peephole_lstm": ("LSTM", 4), "gru": ("GRU", 3), "elman": ("RNN", 1)}
KINDS = [("lstm", "before"), ("peephole_lstm", "before"), ("elman", "before"), ("gru", "before"), ("gru", "after")]


def weights(cell: str, both: bool, bias: bool) -> Arrays:
    rng = np.random.default_rng(0)
    D, rows = 1 + both, NODES[cell][1] * H
    shapes: dict[str, tuple[int, ...]] = {"W": (D, rows, I), "R": (D, rows, H)}
    shapes |= {"B": (D, 2 * rows)} if bias else {}
    shapes |= {"P": (D, 3 * H)} if cell == "peephole_lstm" else {}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def outputs(cell: str, reset: str, direction: str, arrays: Arrays, x: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes: (T, N, directions · H)."""
    names = ["x", *(name if name in arrays else "" for name in ("W", "R", "B")), "", "", "", "P"]
    inputs = names if "P" in arrays else names[:4]
    attributes: dict[str, Any] = {"hidden_size": H, "direction": direction}
    if cell == "gru":
        attributes["linear_before_reset"] = int(reset == "after")
    node = onnx.helper.make_node(NODES[cell][0], inputs, ["h"], **attributes)
    tensor = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [node],
        "layer",
        [tensor("x", shape=[T, N, I])],
        [tensor("h", shape=[None] * 4)],
        [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (h,) = session.run(None, {"x": x})
    return h.swapaxes(1, 2).reshape(T, N, -1)


def graph(cell: str, reset: str, direction: str, update: str, **options: Any) -> gc.Graph:
    g = gc.Graph("layer")
    t, n = g.axis("t"), g.axis("n")
    own = functools.partial(gc.cells.gru, reset=reset, update=update) if cell == "gru" else getattr(gc.cells, cell)
    if direction == "bidirectional":
        own = functools.partial(gc.cells.bidirectional, cell=own)
    elif direction == "reverse":
        options["reverse"] = True
    g.output("h", own(g, g.input("x", (I,), over=(t, n)), units=H, over=t, name=cell, **options).h)
    return g


@pytest.mark.parametrize("update", ["old", "new"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("cell", "reset"), KINDS)
def test_a_node_and_a_cell_are_the_same_function(
    cell: str, reset: str, direction: str, bias: bool, update: str
) -> None:
    arrays = weights(cell, direction == "bidirectional", bias)
    x = np.random.default_rng(1).normal(size=(T, N, I)).astype(np.float32)
    expected = outputs(cell, reset, direction, arrays, x)
    options: dict[str, Any] = {"update": update, "reset": reset}
    params = gc.cells.from_onnx(arrays, cell, bias=bias, **options)
    g = graph(cell, reset, direction, update, bias=bias)
    np.testing.assert_allclose(gc.interpret(g, x=x, **params)["h"], expected, rtol=2e-5, atol=2e-6)
    again = gc.cells.to_onnx(params, cell, bias=bias, **options)
    assert {name: a.shape for name, a in again.items()} == {name: a.shape for name, a in arrays.items()}
    np.testing.assert_allclose(outputs(cell, reset, direction, again, x), expected, rtol=2e-5, atol=2e-6)
    if not bias:  # biases of 0
        with_biases = gc.cells.from_onnx(arrays, cell, **options)
        g = graph(cell, reset, direction, update)
        np.testing.assert_allclose(gc.interpret(g, x=x, **with_biases)["h"], expected, rtol=2e-5, atol=2e-6)


def test_the_weights_of_a_file_are_found_by_the_places_of_the_inputs() -> None:
    """As the docstring says it: names of tensors are the exporter's own."""
    arrays = weights("peephole_lstm", False, True)
    own = ["x", "onnx::LSTM_84", "onnx::LSTM_85", "onnx::LSTM_86", "", "", "", "onnx::LSTM_87"]
    node = onnx.helper.make_node("LSTM", own, ["h"], hidden_size=H)
    stored = [
        onnx.numpy_helper.from_array(a, tensor)
        for a, tensor in zip(arrays.values(), filter(None, own[1:]), strict=True)
    ]
    graph = onnx.helper.make_graph([node], "layer", [], [], stored)
    named = dict(zip(("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"), node.input, strict=False))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {name: tensors[tensor] for name, tensor in named.items() if tensor in tensors}
    params = gc.cells.from_onnx(found, "peephole_lstm")
    expected = gc.cells.from_onnx(arrays, "peephole_lstm")
    assert params.keys() == expected.keys()
    assert all(np.array_equal(params[name], expected[name]) for name in expected)
