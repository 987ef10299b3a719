"""graphc on the GPU: arrays lie there, calls are bound to them, and return when they have ended."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np

import graphc as gc
from benchmarks.cuda.problems import Problem, Work
from benchmarks.images import Images
from benchmarks.peers.peer import Call
from benchmarks.problems import Arrays
from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.target import Precision


class Own:
    """graphc on a device."""

    name = "graphc"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.about = {"version": metadata.version("graphc-compiler")}

    def prepare(self, problem: Problem, work: Work) -> Call:
        f = gc.compile(problem.graph(work), target="cuda", device=self.device, precision=problem.precision)
        there = f.upload({"x": problem.x, **problem.params})
        bound = f.bind(**there)
        return Call(bound, lambda: _fetched(bound()), lambda calls: f.profile(calls, **there))

    def image_training(self, problem: Images, precision: Precision) -> Call:
        """The step moves the params on; `results` begins at the start."""
        step = problem.training_step
        f = gc.compile(step, target="cuda", device=self.device, precision=precision)
        start = {**gc.initialize(step), **problem.params}
        batch = {"image": problem.photographs, "label": problem.labels}
        there = f.upload({**batch, **start})

        def results() -> Arrays:
            own = f.upload({**batch, **start})
            found = {"loss": np.asarray(float(f(**own)["loss"]))}
            return found | {name: own[name].numpy() for name in start if name.endswith("_mean")}

        return Call(f.bind(**there), results, lambda calls: f.profile(calls, **there))


def _fetched(found: Any) -> Arrays:
    return {name: array.numpy() for name, array in found.items()}
