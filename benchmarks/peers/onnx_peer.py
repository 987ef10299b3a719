"""ONNX Runtime: models of one LSTM or GRU node, inference only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

import graphc as gc
from benchmarks.peers.peer import Call, Calls, Peer
from benchmarks.problems import Arrays, Sequence


class OnnxRuntime(Peer):
    name = "ONNX Runtime"
    version = ort.__version__
    note = "its LSTM and GRU operators, inputs and outputs bound"

    def __init__(self, threads: int) -> None:
        self.options = ort.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        # Its threads look for more work after a run, on cores that the next peer is timed on.
        self.options.add_session_config_entry("session.force_spinning_stop", "1")

    def forward(self, problem: Sequence) -> Calls:
        if problem.cell not in NODES:
            return {}
        session = self._session(problem, states=False)
        h = np.empty((problem.steps, 1, problem.batch, problem.units), np.float32)
        run = _bound(session, {"x": problem.x}, {"h": h})

        def results() -> Arrays:
            run()
            return {"h": h[:, 0]}

        return {self.name: Call(run, results)}

    def step(self, problem: Sequence) -> Calls:
        if problem.cell not in NODES:
            return {}
        session = self._session(problem, states=True)
        frame = problem.x[:1].copy()
        names = _states(problem)
        shape = (1, problem.batch, problem.units)
        # What one step writes, the next reads: two sets of arrays take turns.
        ping, pong = ({k: np.zeros(shape, np.float32) for k in names} for _ in range(2))
        there = _bound(session, {"x": frame, **ping}, _after(pong))
        back = _bound(session, {"x": frame, **pong}, _after(ping))
        turn = False

        def run() -> None:
            nonlocal turn
            (back if turn else there)()
            turn = not turn

        def results() -> Arrays:
            for k in names:
                ping[k][...] = 0
            h = []
            for t, x in enumerate(problem.x):
                frame[...] = x
                (back if t % 2 else there)()
                h.append((ping if t % 2 else pong)["h"][0].copy())
            return {"h": np.stack(h)}

        return {self.name: Call(run, results)}

    def _session(self, problem: Sequence, states: bool) -> Any:
        return ort.InferenceSession(
            model(problem, states).SerializeToString(), self.options, providers=["CPUExecutionProvider"]
        )


# For each cell that is a node: its operator, its name in gc.cells, and attributes.
NODES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "LSTM": ("LSTM", "lstm", {}),
    "peephole LSTM": ("LSTM", "peephole_lstm", {}),
    "GRU": ("GRU", "gru", {"linear_before_reset": 1}),
}


def _states(problem: Sequence) -> tuple[str, ...]:
    return ("h", "c")[: problem.kind.states]


def _after(states: Arrays) -> Arrays:
    return {f"{k}_after": a for k, a in states.items()}


def model(problem: Sequence, states: bool) -> onnx.ModelProto:
    """One node from x to h at every step; or, with `states`, from x and h, c to h_after, c_after."""
    op, cell, attributes = NODES[problem.cell]
    initializers = gc.cells.to_onnx(problem.named, cell, name="cell", reset="after")
    own = _states(problem) if states else ()
    inputs = ["x", "W", "R", "B", "", *([*own] if own else [""] * problem.kind.states)]
    if "P" in initializers:
        inputs += [""] * (7 - len(inputs)) + ["P"]
    outputs = ["", *(f"{k}_after" for k in own)] if own else ["h"]
    node = helper.make_node(op, inputs, outputs, hidden_size=problem.units, **attributes)
    graph = helper.make_graph(
        [node],
        "benchmark",
        [_tensor("x", 3), *(_tensor(k, 3) for k in own)],
        [_tensor(k, 3) for k in outputs if k] if own else [_tensor("h", 4)],
        [onnx.numpy_helper.from_array(a, name) for name, a in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _tensor(name: str, rank: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank)


def _bound(session: Any, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
    """A run that reads and writes these arrays where they lie."""
    binding = session.io_binding()
    for bind, arrays in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, a in arrays.items():
            bind(name, "cpu", 0, np.float32, a.shape, a.ctypes.data)
    kept = (inputs, outputs)

    def run(_kept: object = kept) -> None:
        session.run_with_iobinding(binding)

    return run


peer = OnnxRuntime
