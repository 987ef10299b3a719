"""compile: a graph as a function in this process, for the CPU (`Compiled`) or a GPU.

What happens on the way is in `graphc.pipeline`; what code does when it is called, in `graphc.runtime`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np

from graphc.checks.arguments import call_lengths, check_by_name, check_calls, check_run
from graphc.checks.index_checks import index_checks
from graphc.codegen.cpu.jit import Loaded
from graphc.codegen.cpu.jit import load as load_program
from graphc.codegen.cuda.driver.driver import Device, nvidia_device
from graphc.codegen.memory.arena import MemoryUse, memory_use
from graphc.codegen.memory.budget import choose, parse_bytes
from graphc.codegen.parallel.work_sharing import Shares
from graphc.codegen.passes import prologue
from graphc.codegen.program import Program
from graphc.codegen.target import Precision, Target
from graphc.codegen.verify_program import verify as verify_program
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import GraphError, listed, no_copy
from graphc.integers import is_whole
from graphc.language.graph import Graph
from graphc.language.habits import by_known_names
from graphc.pipeline.options import check_options
from graphc.pipeline.stages import Stages, in_chunks, stages
from graphc.recent import Recent
from graphc.reporting.profile import Profile, profile
from graphc.runtime.cpu import BoundCall, Code, Runner
from graphc.runtime.freeze import check_unlimited, fixed_arrays, prologue_results, with_fixed
from graphc.runtime.results import Results

MOST_THREADS = 1024

_loaded: Recent[Loaded] = Recent(256)


class Compiled:
    """Native code of a graph. Call it with arrays by name; the lengths of axes may change from call to call."""

    def __init__(
        self,
        made: Stages,
        threads: int | None,
        limit: int | None,
        fixed: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.stages = made
        self.threads = threads
        self.limit = limit
        self.fixed = dict(fixed or {})
        self._chunked = () if limit is None else in_chunks(made)
        self._emitted = load(self.program).emitted
        self._runner = Runner(made.graph, made.lowered, self._code, index_checks(made.graph), threads)

    def __repr__(self) -> str:
        graph = self.stages.graph
        taken = [name for name in (*graph.inputs, *graph.params) if name not in self.fixed]
        return f"<compiled {graph.name}: {listed(taken)} → {listed(graph.outputs)}>"

    def _code(self, lengths: Mapping[str, int]) -> Code:
        if self.limit is None:
            return Code(self.stages.program, load(self.stages.program), lengths, concurrent=True)
        choice = choose(self.stages.program, self._chunked, self.limit, lengths)
        return Code(choice.program, load(choice.program), choice.sizes, concurrent=False)

    def __call__(self, /, *unnamed: Any, **arrays: Any) -> Results:
        """Run it: the outputs, by name. Params that the graph updates are changed in place.

        Raises `ArgumentError` if the arrays do not fit the graph; nothing has been computed then.
        """
        if unnamed:
            check_by_name(self.stages.graph, unnamed)
        return self._runner(with_fixed(self.fixed, arrays))

    def run(self, arrays: Mapping[str, Any], *, into: Mapping[str, np.ndarray] | None = None) -> Results:
        """Run it with a dict of arrays. `into` are arrays of the caller's for outputs, by name: of their shapes and
        dtypes, contiguous, and apart from what the call reads. What is returned has the others. Compiled code writes to
        arrays that begin at a multiple of 64 bytes; to others results are copied.

        Raises `ArgumentError` if the arrays do not fit the graph; nothing has been computed then.
        """
        check_run(self.stages.graph, arrays, into)
        return self._runner(with_fixed(self.fixed, arrays), into)

    def bind(self, /, *unnamed: Any, **arrays: Any) -> BoundCall:
        """Fix the arrays: the result is called without arguments, runs compiled code at once, and reuses its results.

        It reads the bound arrays as they are at each call; so they must be numpy arrays, contiguous and of the declared
        dtypes. Its memory and its results are its own, and one: bind a call for each Python thread.
        """
        check_by_name(self.stages.graph, unnamed)
        return self._runner.bind(with_fixed(self.fixed, arrays))

    def freeze(self, /, *unnamed: Any, **arrays: Any) -> Compiled:
        """The same function of the other arrays, with these fixed as they are now: `f.freeze(**params)`.

        What a call makes of them alone is made once, here: weights are laid out for the vector units, for example,
        which takes longer than one step with them. `arrays` are params, or inputs over no axes, that no call updates.
        """
        check_by_name(self.stages.graph, unnamed)
        check_unlimited(self.limit)
        fixed = fixed_arrays(self.stages.graph, arrays)
        constants = self.stages.lowered.constants
        before, rest = prologue.split(self.program, frozenset({*fixed, *self.fixed, *constants}))
        verify_program(before)
        verify_program(rest)
        made = prologue_results(load(before), before, {**constants, **self.fixed, **fixed})
        lowered = replace(self.stages.lowered, constants={**constants, **made})
        frozen = replace(self.stages, lowered=lowered, program=rest)
        return Compiled(frozen, self.threads, None, {**self.fixed, **fixed})

    __reduce__ = no_copy

    def memory(self, /, **lengths: int) -> MemoryUse:
        """The bytes that a call takes when axes have these lengths: `f.memory(t=128, n=32).peak`.

        Raises `AxisError` unless the length of every axis that the graph leaves open is given, and `ArgumentError` if
        the call would take more than it was compiled for.
        """
        code = self._code(call_lengths(self.stages.graph, lengths))
        return memory_use(code.program, code.sizes, code.shares(self._runner.threads).time_slots)

    def shares(self, /, **arrays: Any) -> Shares:
        """How a call with these arrays is shared out among threads."""
        return self._runner.layout(with_fixed(self.fixed, arrays)).shares

    def profile(self, calls: int = 20, /, **arrays: Any) -> Profile:
        """Where the time of a call with these arrays goes: `print(f.profile(**arrays))` is a table of its loops and
        kernels, with how fast their products are beside what the machine can do.

        The call is made `calls` times and once more. Nothing of the caller's changes: what a call updates are copies.
        """
        check_calls(self.stages.graph, calls)
        return profile(self.stages, self._runner, with_fixed(self.fixed, arrays), calls)

    @property
    def program(self) -> Program:
        """The program; with a limit on memory, the one in chunks."""
        return self._chunked[0].program if self._chunked else self.stages.program

    @property
    def llvm_ir(self) -> str:
        """The LLVM IR, before LLVM's own passes."""
        return self._emitted.llvm_ir

    @property
    def assembly(self) -> str:
        """The assembly of this machine."""
        return self._emitted.assembly

    @property
    def object(self) -> bytes:
        """A relocatable object file."""
        return self._emitted.object


@overload
def compile(
    graph: Graph,
    target: Literal["cpu"] = ...,
    threads: int | None = ...,
    memory: str | int | None = ...,
    *,
    precision: Precision = ...,
) -> Compiled: ...


@overload
def compile(
    graph: Graph,
    target: Literal["cuda"],
    *,
    memory: str | int | None = ...,
    device: Device | None = ...,
    precision: Precision = ...,
) -> CompiledCuda: ...


@by_known_names
def compile(
    graph: Graph,
    target: str = "cpu",
    threads: int | None = None,
    memory: str | int | None = None,
    device: Device | None = None,
    precision: Precision = "float32",
) -> Compiled | CompiledCuda:
    """Compile a graph for this machine.

    `target` is "cpu", or "cuda" for an NVIDIA GPU: the first one, or the `device` given. On the CPU a call runs on as
    many threads as pay for its sizes, at most `threads` (None: one for each core that the process may use); its results
    are the same to the last bit for any number. One compilation serves every length of the axes, and its time does not
    depend on them.

    Python threads may call the function at the same time, unless it updates arrays that they share: each call has
    memory and results of its own, and runs without Python's lock. After a fork the child may call it, too, with threads
    of its own.

    `memory` limits what a call takes beside the arrays that it is given, of the GPU's memory on one: "64 MiB", or a
    number of bytes. A call that would take more goes through a recurrent axis in chunks (of about √T steps, on a GPU as
    long as the limit allows), keeps the states between them, and computes a chunk's values again when the gradient
    comes to it. Gradients are those of the call in one piece, up to the order in which they are summed. A call that
    cannot keep to the limit says so before it takes any memory.

    `precision` is what float32 operands of products are rounded to: "bf16", and on a GPU, whose tensor cores make
    products of these, also "f16" or "tf32". Params, sums and everything else stay float32. A CPU with instructions for
    bfloat16 (AVX-512 BF16) makes twice as many such products in a time; any other reads half of the memory for them.
    """
    check_options(
        target,
        for_cpu={"threads": threads},
        for_cuda={"device": device},
        precision=precision,
    )
    limit = None if memory is None else parse_bytes(memory)
    if target == "cuda":
        return CompiledCuda(stages(graph, ahead=False), device or nvidia_device(), precision, limit)
    if threads is not None and not (is_whole(threads) and 1 <= threads <= MOST_THREADS):
        raise GraphError(f"threads is a whole number from 1 to {MOST_THREADS}, or None for one a core; got {threads!r}")
    return Compiled(stages(graph, precision), threads, limit)


def load(program: Program) -> Loaded:
    """A program in this process. One that was loaded lately is not made into machine code again."""
    key = (str(program), Target.host())
    return _loaded.get_or_make(key, lambda: load_program(program, key[1]))
