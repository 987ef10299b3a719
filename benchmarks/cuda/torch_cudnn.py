"""PyTorch on the GPU: cuDNN's LSTM and GRU, and the image model in channels-last memory under bfloat16's autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import graphc as gc
from benchmarks.cuda.problems import Layer, Problem, Work
from benchmarks.images import Images
from benchmarks.peers.peer import Call
from benchmarks.peers.torch_peer import by_gate
from benchmarks.peers.torch_reseg import statistics, training, with_params
from benchmarks.problems import Arrays
from graphc.codegen.target import Precision

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_SHOWN = 3  # kernels


class Cudnn:
    """PyTorch on a device of its own. `about` has cuDNN's version."""

    name = "PyTorch"

    def __init__(self, device: str = "cuda") -> None:
        self.device = device
        self.about = {"version": torch.__version__, "cuDNN": torch.backends.cudnn.version()}

    def prepare(self, problem: Problem, work: Work) -> Call | None:
        """A call of torch.nn's layer; None for cells that it does not have."""
        if not isinstance(problem, Layer) or problem.cell not in ("LSTM", "GRU"):
            return None
        dtype = DTYPES[problem.precision]
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = problem.precision == "tf32"
        module = getattr(torch.nn, problem.cell)(problem.units, problem.units, problem.layers)
        weights = gc.cells.to_torch(problem.params, problem.cell.lower(), name="cell")
        module.load_state_dict({k: torch.from_numpy(a) for k, a in weights.items()})
        module.to(self.device, dtype)
        module.flatten_parameters()
        x = torch.from_numpy(problem.x).to(self.device, dtype)
        if work == "forward":
            run = torch.inference_mode()(lambda: module(x)[0])
            return Call(self._ended(run), lambda: {"h": _numpy(run())})

        def step() -> Any:
            module.zero_grad(set_to_none=True)
            h = module(x)[0].float()
            loss = (h * h).sum(-1).mean()
            loss.backward()
            return loss.detach()

        def results() -> Arrays:
            loss = _numpy(step())
            return {"loss": loss} | _gradients(problem, {k: _numpy(p.grad) for k, p in module.named_parameters()})

        return Call(self._ended(step), results)

    def image_training(self, problem: Images, precision: Precision) -> Call:
        """Params stay float32; a new model for `results`."""
        x = torch.from_numpy(problem.photographs).to(self.device, memory_format=torch.channels_last)
        labels = torch.from_numpy(problem.labels).long().to(self.device)

        def started() -> tuple[Any, Callable[[], Any]]:
            model = with_params(problem.params).to(self.device, memory_format=torch.channels_last)
            return model, training(model, x, labels, DTYPES[precision])[1]

        def results() -> Arrays:
            model, step = started()
            loss = _numpy(step())
            return {"loss": loss} | {k: a for k, a in statistics(model.cpu()).items() if k.endswith("_mean")}

        return Call(self._ended(started()[1]), results)

    def path(self, call: Call) -> list[str]:
        """The kernels that took most of a call, by the profiler; none on a CPU.

        "persist" in a name is cuDNN's persistent path.
        """
        if self.device != "cuda":
            return []
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call.run()
        kernels = [e for e in profile.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
        kernels.sort(key=lambda e: -e.self_device_time_total)
        return [e.key for e in kernels[:_SHOWN]]

    def _ended(self, run: Callable[[], Any]) -> Callable[[], None]:
        def call() -> None:
            run()
            if self.device == "cuda":
                torch.cuda.synchronize()

        return call


def _numpy(a: Any) -> np.ndarray:
    found: np.ndarray = a.detach().float().cpu().numpy()
    return found


def _gradients(problem: Layer, grads: Arrays) -> Arrays:
    """By graphc's names."""
    layers = (by_gate(grads, problem.cell, problem.units, k, f"cell_{k}") for k in range(problem.layers))
    return {f"grad_{name}": a for layer in layers for name, a in layer.items()}
