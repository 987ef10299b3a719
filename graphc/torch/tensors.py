"""tensors: those of PyTorch as what compiled graphs take and give, on the CPU or on a GPU.

In: graphs and tensors. Out: compiled graphs, and tensors of their results. Tensors and arrays share memory; nothing is
copied but what is not contiguous. On a GPU a call is queued on PyTorch's current stream and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import ml_dtypes
import numpy as np
import torch

from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.target import Precision
from graphc.compiling.compile import Compiled, compile
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import UnsupportedError
from graphc.language.graph import Graph
from graphc.machine import cores

__all__ = ["Cpu", "Gpu", "Place", "place_on", "tensor_of"]

A = TypeVar("A")


class Place(Protocol):
    """Where graphs are compiled for, and run on tensors that lie there."""

    def compile(self, graph: Graph) -> Any:
        """The graph's code."""

    def run(
        self, compiled: Any, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        """The outputs of a call by name, as tensors each with memory of its own. Tensors that it updates are changed in
        place."""


@dataclass(frozen=True)
class Cpu:
    """This machine's processor, on so many threads."""

    threads: int | None = None
    precision: Precision = "float32"

    def compile(self, graph: Graph) -> Compiled:
        return compile(graph, threads=self.threads, precision=self.precision)

    def run(
        self, compiled: Compiled, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        found = compiled(**_each(_array_of, tensors), **lengths)
        return _apart({name: tensor_of(array) for name, array in found.items()})


@dataclass(frozen=True)
class Gpu:
    """PyTorch's current GPU; the `device` is graphc's own view of it."""

    precision: Precision = "float32"
    device: Device | None = None

    def compile(self, graph: Graph) -> CompiledCuda:
        return compile(graph, target="cuda", device=self.device, precision=self.precision)

    def run(
        self, compiled: CompiledCuda, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        updated = compiled.runner.graph.updates
        plain = _each(_plain, tensors)
        given = {name: tensor if name in updated else tensor.contiguous() for name, tensor in plain.items()}
        found = compiled.run({**self.shown(given), **lengths}, stream=self.stream())
        return _apart({name: self.tensor(array) for name, array in found.items()})

    def shown(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
        """The tensors as arrays on the GPU, which they are."""
        return tensors

    def tensor(self, array: DeviceArray | np.ndarray) -> torch.Tensor:
        """What a call gave; it is the host's if nothing that the call took was on the GPU."""
        if isinstance(array, DeviceArray):
            return torch.from_dlpack(array)
        return tensor_of(array).to(torch.device("cuda"))

    def stream(self) -> object:
        return torch.cuda.current_stream()


def place_on(device: torch.device, threads: int | None, precision: Precision) -> Place:
    """The place where tensors of a device are computed with. Raises `UnsupportedError` if there is none."""
    if device.type == "cpu":
        return Cpu(min(torch.get_num_threads(), cores()) if threads is None else threads, precision)
    if device.type == "cuda" and torch.version.cuda:
        return Gpu(precision)
    raise UnsupportedError(f"graphs run on the CPU and on NVIDIA's GPUs; there is no code for tensors on {device}")


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """An array's memory as a tensor."""
    if array.dtype == ml_dtypes.bfloat16:  # which numpy has from another package
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array_of(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory as an array."""
    _check_there(tensor)
    if tensor.dtype is torch.bfloat16:
        return np.asarray(tensor.view(torch.int16).numpy(force=True)).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy(force=True))  # without its history, and with signs that PyTorch has put off


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without its history, and with signs that PyTorch has put off."""
    _check_there(tensor)
    return tensor.detach().resolve_neg()


def _check_there(tensor: torch.Tensor) -> None:
    """Raise `RuntimeError` for a tensor that is longer than its memory: of that, PyTorch may have taken some away."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed, held = (tensor.storage_offset() + reach + 1) * tensor.itemsize, tensor.untyped_storage().nbytes()
    if needed > held:
        raise RuntimeError(f"its elements take {needed} bytes, but its storage holds {held}")


def _each(made_of: Callable[[torch.Tensor], A], tensors: Mapping[str, torch.Tensor]) -> dict[str, A]:
    """What is made of each tensor. Raises `UnsupportedError` for one that is not dense, or not in memory."""
    made = {}
    for name, tensor in tensors.items():
        try:
            made[name] = made_of(tensor)
        except (RuntimeError, TypeError) as error:
            raise UnsupportedError(
                f"{name} is no dense tensor in memory, which compiled code reads; torch.export and batched gradients "
                f"do not go through a graphc.torch.Module ({error})"
            ) from error
    return made


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Equal results of a call are one array, but tensors are changed in place: each gets memory of its own."""
    seen: set[int] = set()
    made = {}
    for name, tensor in tensors.items():
        address = tensor.data_ptr()
        made[name] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return made
