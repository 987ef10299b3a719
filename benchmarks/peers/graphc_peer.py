"""graphc itself: a compiled graph with its arrays bound, so that a run is compiled code and little else.

In inference the params are frozen, as ONNX Runtime freezes them; in training they are read at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata

import numpy as np

import graphc as gc
from benchmarks.images import Images
from benchmarks.peers.peer import Call, Calls, Peer
from benchmarks.problems import Arrays, Linear, Sequence
from graphc.codegen.target import ON_CPU
from graphc.compiling.compile import Compiled
from graphc.runtime.cpu import BoundCall


class Graphc(Peer):
    name = "graphc"
    note = "params frozen in inference; arrays bound"
    version = metadata.version("graphc-compiler")
    precisions = ON_CPU

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def forward(self, problem: Sequence) -> Calls:
        compiled = gc.compile(problem.graph("h"), threads=self.threads, precision=problem.precision)
        made = self._bound(compiled.freeze(**problem.named), {"x": problem.x})
        return made | self._exact(problem, self.forward)

    def training(self, problem: Sequence) -> Calls:
        graph = gc.grad(problem.graph("loss"), "loss")
        compiled = gc.compile(graph, threads=self.threads, precision=problem.precision)
        made = self._bound(compiled, {"x": problem.x, **problem.named})
        return made | self._exact(problem, self.training)

    def _exact(self, problem: Sequence, prepare: Callable[[Sequence], Calls]) -> Calls:
        """The same without rounding, beside what rounds."""
        if problem.precision == "float32":
            return {}
        (call,) = prepare(replace(problem, precision="float32")).values()
        return {f"{self.name}, float32": call}

    def linear_forward(self, problem: Linear) -> Calls:
        return self._bound(gc.compile(problem.graph("h"), threads=self.threads), {"a": problem.a, "b": problem.b})

    def linear_training(self, problem: Linear) -> Calls:
        graph = gc.grad(problem.graph("loss"), "loss", wrt=["a", "b"])
        return self._bound(gc.compile(graph, threads=self.threads), {"a": problem.a, "b": problem.b})

    def step(self, problem: Sequence) -> Calls:
        graph = problem.graph("h")
        compiled = gc.compile(gc.step(graph, over="t"), threads=self.threads).freeze(**problem.named)
        frame = problem.x[0].copy()

        def started() -> BoundCall:
            return compiled.bind(x=frame, **gc.initial_carry(graph, over="t", n=problem.batch))

        def results() -> Arrays:
            call, h = started(), []
            for x in problem.x:
                frame[...] = x
                h.append(call()["h"].copy())
            return {"h": np.stack(h)}

        return {self.name: Call(started(), results)}

    def image_forward(self, problem: Images) -> Calls:
        graph = gc.select(gc.inference(problem.model), "probabilities")
        params = {name: problem.params[name] for name in graph.params}
        compiled = gc.compile(graph, threads=self.threads).freeze(**params)
        return self._bound(compiled, {"image": problem.photographs})

    def image_training(self, problem: Images) -> Calls:
        step = problem.training_step
        start = {**gc.initialize(step), **problem.params}
        state = {name: a.copy() for name, a in start.items()}
        compiled = gc.compile(step, threads=self.threads)
        call = compiled.bind(image=problem.photographs, label=problem.labels, **state)

        def results() -> Arrays:
            for name, a in start.items():
                state[name][...] = a
            kept = [name for name in state if name.startswith("momentum_") or name.endswith("_mean")]
            return {"loss": call()["loss"].copy()} | {name: state[name].copy() for name in kept}

        return {self.name: Call(call, results)}

    def _bound(self, compiled: Compiled, arrays: Arrays) -> Calls:
        call = compiled.bind(**arrays)
        return {self.name: Call(call, lambda: {k.replace("grad_cell_", "grad_"): a for k, a in call().items()})}


peer = Graphc
