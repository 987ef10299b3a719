"""A graph on a GPU: its code, and what runs it.

In: a graph's stages. Out: a `CompiledCuda` that is called with arrays by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.checks.arguments import call_lengths, check_by_name, check_calls, check_run
from graphc.checks.index_checks import index_checks
from graphc.codegen.cpu.jit import load
from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.cuda.driver.streams import stream_handle
from graphc.codegen.cuda.isa.arch import arch_of_device
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.memory.arena import MemoryUse, memory_use
from graphc.codegen.passes import prologue
from graphc.codegen.program import Program
from graphc.codegen.target import Precision
from graphc.codegen.verify_program import verify
from graphc.errors import no_copy, no_object
from graphc.pipeline.cuda_code import CudaVersions, arranged
from graphc.pipeline.stages import Stages
from graphc.reporting.cuda_profile import CudaProfile, profile_cuda
from graphc.reporting.profile_words import Words
from graphc.runtime.cuda import CudaRunner
from graphc.runtime.cuda_bound import BoundCudaCall
from graphc.runtime.freeze import check_unlimited, fixed_arrays, prologue_results, with_fixed
from graphc.runtime.results import DeviceResults, Results

__all__ = ["CompiledCuda"]


class CompiledCuda:
    """A graph on a GPU. Call it with arrays by name; the lengths of axes may change from call to call.

    Arrays may be numpy's, or lie on the GPU and offer `__cuda_array_interface__` or DLPack, as those of PyTorch, CuPy
    and JAX do: these are not copied. If any lies there, so do the outputs.
    """

    def __init__(
        self,
        made: Stages,
        device: Device,
        precision: Precision = "float32",
        limit: int | None = None,
        fixed: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.stages = made
        self.precision = precision
        self.limit = limit
        self.fixed = dict(fixed or {})
        self._device = device
        self._arch = arch_of_device(device.arch, device.sms, device.clusters)
        self._versions = CudaVersions(made.planned, self._arch, precision, device, limit)
        checks = index_checks(made.graph)
        self.runner = CudaRunner(made.graph, made.lowered, self._versions.choose, checks, device, self._arch)

    def __call__(self, /, *unnamed: Any, **arrays: Any) -> Results | DeviceResults:
        """Run it: the outputs, by name. Params that the graph updates are changed in place.

        Raises `ArgumentError` if the arrays do not fit the graph, and `MemoryError` if they do not fit the GPU.
        """
        check_by_name(self.runner.graph, unnamed)
        return self.run(arrays)

    def run(
        self, arrays: Mapping[str, Any], *, stream: object = None, into: Mapping[str, Any] | None = None
    ) -> Results | DeviceResults:
        """Run it, queued on a stream: an integer handle, or an object with `.cuda_stream` (PyTorch) or `.ptr` (CuPy).

        If all arrays lie on the GPU and neither an axis's length nor an index is read from one of them, the call
        returns without waiting for the work, and the outputs are there for what follows on the stream. The stream waits
        for other streams' work on an array where its library tells of it; what works on one that offers only version 2
        of `__cuda_array_interface__` must be on this stream. The stream must exist as long as the outputs. Without a
        stream the call returns when its work has ended.

        `into` are the caller's arrays on the GPU for outputs, by name: of their shapes and dtypes, and apart from what
        the call reads. What is returned has the others.

        Raises what a call does, and `ArgumentError` for what is not a stream.
        """
        check_run(self.runner.graph, arrays, into)
        return self.runner(with_fixed(self.fixed, arrays), stream=stream, into=into)

    def bind(self, /, *unnamed: Any, **arrays: Any) -> BoundCudaCall:
        """Fix the arrays: the result is called without arguments, makes one call of the driver, and reuses its results.

        It reads the bound arrays as they are at each call. Those on the GPU must stay there; numpy arrays, contiguous
        and of the declared dtypes, are copied to it each time. It has memory of its own on the GPU.
        """
        check_by_name(self.runner.graph, unnamed)
        return self.runner.bind(with_fixed(self.fixed, arrays))

    def freeze(self, /, *unnamed: Any, **arrays: Any) -> CompiledCuda:
        """The same function of the other arrays, with these fixed as they are now: `f.freeze(**params)`.

        They lie on the GPU from then on, and no call copies them there; what a call makes of them alone is made once,
        here. `arrays` are params, or inputs over no axes, that no call updates, and may be the host's or the GPU's.
        """
        graph, lowered = self.stages.graph, self.stages.lowered
        check_by_name(graph, unnamed)
        check_unlimited(self.limit)
        fixed = fixed_arrays(graph, self.runner.fetch(arrays))
        constants = {**lowered.constants, **fixed}
        before, rest = prologue.split(self.stages.planned, frozenset(constants))
        verify(before)
        constants |= prologue_results(load(before), before, constants)
        frozen = replace(self.stages, planned=rest, lowered=replace(lowered, constants=constants))
        return CompiledCuda(frozen, self._device, self.precision, None, {**self.fixed, **fixed})

    __reduce__ = no_copy

    if not TYPE_CHECKING:  # else every attribute would have a type
        __getattr__ = no_object

    def upload(self, arrays: Mapping[str, np.ndarray], *, stream: object = None) -> dict[str, DeviceArray]:
        """Copies of arrays on the GPU, to be given to calls; copied on the device's own stream, or the one given."""
        handle = None if stream is None else stream_handle(stream)
        return {name: DeviceArray.copy_of(array, self._device, handle) for name, array in arrays.items()}

    def memory(self, /, **lengths: int) -> MemoryUse:
        """The bytes that a call takes on the GPU when axes have these lengths: `f.memory(t=128, n=32).peak`.

        Raises `AxisError` unless the length of every axis that the graph leaves open is given, and `ArgumentError` if
        the call would take more than it was compiled for.
        """
        chosen = self._versions.choose(call_lengths(self.stages.graph, lengths))
        return memory_use(chosen.code.program, chosen.sizes)

    def profile(self, calls: int = 20, /, **arrays: Any) -> CudaProfile:
        """Where the time of a call with these arrays goes: `print(f.profile(**arrays))` is a table of its launches,
        with what the cost model counted for each, and how fast its products are.

        The call is made `calls` times and once more, and its launches as often. Nothing of the caller's changes: what a
        call updates are copies.
        """
        check_calls(self.stages.graph, calls)
        measured = self.runner.measured(with_fixed(self.fixed, arrays))
        words = Words(self.stages, arranged(measured.chosen.loaded.planned, self._arch, self.code.precision))
        return profile_cuda(self.stages.graph, words, measured, calls)

    @property
    def code(self) -> CudaCode:
        """The code; with a limit on memory, that in chunks."""
        return self._versions.main

    @property
    def program(self) -> Program:
        """The program that code was made of."""
        return self.code.program

    @property
    def llvm_ir(self) -> str:
        """The LLVM IR, before LLVM's own passes."""
        return self.code.llvm_ir

    @property
    def ptx(self) -> str:
        """The PTX that the driver made machine code of."""
        return self.code.ptx
