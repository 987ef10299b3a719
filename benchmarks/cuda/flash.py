"""FlashRNN (Pöppel, Beck & Hochreiter 2024): LSTM and sLSTM in heads, its fused kernels."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib import import_module, metadata
from typing import Any

import numpy as np
import torch
from flashrnn import flashrnn

from benchmarks.cuda.problems import GATES, Heads, Problem, Work
from benchmarks.cuda.torch_cudnn import DTYPES
from benchmarks.peers.peer import Call
from benchmarks.problems import Arrays

_NAMES = {"float32": "float32", "f16": "float16", "bf16": "bfloat16"}
_PROPERTIES = {  # all that FlashRNN asks of a device, to tile by: CUDA's names and PyTorch's
    "maxThreadsPerBlock": "max_threads_per_block",
    "regsPerMultiprocessor": "regs_per_multiprocessor",
    "multiProcessorCount": "multi_processor_count",
    "sharedMemPerBlockOptin": "shared_memory_per_block_optin",
}


def _properties(device_id: int) -> dict[str, int]:
    found = torch.cuda.get_device_properties(device_id)
    return {asked: getattr(found, known) for asked, known in _PROPERTIES.items()}


def _make_compilable() -> None:
    """FlashRNN compiles itself when it is called. Its kernels do so with CUDA 13, but an extension that reads every
    property of the device does not (1.0.8), as some no longer exist. PyTorch gives it those that it uses instead.
    """
    if int((torch.version.cuda or "0").split(".")[0]) >= 13:
        import_module("flashrnn.flashrnn.flashrnn").get_gpu_info = _properties
    if not shutil.which("ninja"):  # PyTorch asks for it by name; pip puts it beside Python, which may be on no PATH
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")])


class Flash:
    """FlashRNN on a device, by one of its back ends ("vanilla" is PyTorch's own operations, for any device)."""

    name = "FlashRNN"

    def __init__(self, device: str = "cuda", backend: str = "cuda_fused") -> None:
        self.device = device
        self.backend = backend
        self.about = {"version": metadata.version("flashrnn"), "backend": backend}
        if device == "cuda":
            _make_compilable()

    def prepare(self, problem: Problem, work: Work) -> Call | None:
        if not isinstance(problem, Heads) or problem.precision not in _NAMES:
            return None
        training, dtype = work == "training", DTYPES[problem.precision]
        x = torch.from_numpy(problem.x.swapaxes(0, 1)).to(self.device, dtype)  # N, T, gate, head, unit
        R = torch.from_numpy(np.stack([problem.params[f"R_{k}"] for k in GATES])).to(self.device, dtype)
        bias = torch.zeros(R.shape[:3], dtype=dtype, device=self.device)
        R.requires_grad_(training)

        def states() -> Any:
            """(N, T, heads, units)."""
            options = {"function": problem.cell.lower(), "backend": self.backend, "dtype": _NAMES[problem.precision]}
            return flashrnn(x, R, bias, **options)[0][0]

        def run() -> Any:
            R.grad = None
            h = states()
            if not training:
                return h
            loss = (h.float() ** 2).sum((2, 3)).mean()
            loss.backward()
            return loss.detach()

        def ended() -> None:
            with torch.set_grad_enabled(training):
                run()
            if self.device == "cuda":
                torch.cuda.synchronize()

        def results() -> Arrays:
            found = run().detach().float().cpu().numpy()
            if not training:
                return {"h": found.swapaxes(0, 1)}
            grads = zip(GATES, R.grad.float().cpu().numpy(), strict=True)
            return {"loss": found} | {f"grad_R_{k}": a for k, a in grads}

        return Call(ended, results)
