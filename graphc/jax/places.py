"""places: where XLA keeps arrays, as what compiled graphs take and give, on the CPU or on a GPU.

In: a graph, and XLA's memory. Out: the graph's results, in memory of XLA's too; nothing is copied. On a GPU a call is
queued on XLA's stream, and nobody waits for it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from graphc.codegen.cuda.driver.dlpack import Foreign
from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.target import Precision
from graphc.compiling.compile import Compiled, compile
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.jax.custom_call import Memory
from graphc.language.graph import Graph

__all__ = ["Code", "Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How graphs are compiled: as in `gc.compile`. The `device` is graphc's own view of the GPU; None: the first."""

    threads: int | None = None
    precision: Precision = "float32"
    device: Device | None = None


class Code:
    """A graph's code, made where it is first needed. `names` are those of the arguments, in order."""

    def __init__(self, graph: Graph, names: Sequence[str], settings: Settings) -> None:
        self.graph, self.names, self.settings = graph, tuple(names), settings

    def __str__(self) -> str:
        return f"{self.graph}\n{self.names}\n{self.settings}"

    @cached_property
    def _host(self) -> Compiled:
        return compile(self.graph, threads=self.settings.threads, precision=self.settings.precision)

    @cached_property
    def _gpu(self) -> CompiledCuda:
        return compile(self.graph, target="cuda", device=self.settings.device, precision=self.settings.precision)

    def prepare(self) -> None:
        """Make the code for the host, if that is where JAX computes, so that errors show before XLA calls it."""
        if jax.default_backend() == "cpu":
            self._host  # noqa: B018

    def run(
        self, lengths: Mapping[str, int], given: Sequence[Memory], results: Sequence[Memory], stream: int | None
    ) -> None:
        """Fill the results, on the host or on a stream of the GPU. What else is given is only waited for."""
        given = given[: len(self.names)]
        if stream is None:
            arrays = dict(zip(self.names, map(_array, given), strict=True))
            into = dict(zip(self.graph.outputs, map(_array, results), strict=True))
            self._host.run({**arrays, **lengths}, into=into)
        else:
            there = dict(zip(self.names, map(_foreign, given), strict=True))
            targets = dict(zip(self.graph.outputs, map(_foreign, results), strict=True))
            self._gpu.run({**there, **lengths}, stream=stream, into=targets)


def _array(memory: Memory) -> np.ndarray:
    dtype = np.dtype(memory.dtype)
    size = math.prod(memory.shape) * dtype.itemsize
    if not size:
        return np.empty(memory.shape, dtype)
    there: Any = (ctypes.c_char * size).from_address(memory.address)
    return np.ndarray(memory.shape, dtype, there)


def _foreign(memory: Memory) -> Foreign:
    """XLA's own work on it comes before the call's, on the same stream."""
    return Foreign(memory.address, memory.shape, memory.dtype, True, None, None)
