"""compile: a graph to machine code, stage by stage.

    verify → prepare → lookahead → schedule → fuse → lower → plan → [chunk]
        → scatter → join → regroup → split → layout → halo → guard → subtotal → part → pack → collapse → early
        → reuse → LLVM → machine code

Each stage is a pure function of the one before, each has a printed form (`emit_stage`), and the Program is checked
before code is made of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np

from graphc.arena import MemoryUse, memory_use
from graphc.arguments import call_lengths, check_by_name, check_calls
from graphc.budget import choose, parse_bytes
from graphc.chunk import Chunked, chunk, loop_axes
from graphc.codegen import prologue
from graphc.codegen.collapse import collapse
from graphc.codegen.cuda.arch import arch_named
from graphc.codegen.cuda.driver import Device, nvidia_device
from graphc.codegen.cuda.mma import Precision
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.guard import guard
from graphc.codegen.halo import halo
from graphc.codegen.jit import Emitted, Loaded
from graphc.codegen.jit import emit as emit_program
from graphc.codegen.jit import load as load_program
from graphc.codegen.join import join
from graphc.codegen.layout import layout
from graphc.codegen.pack import pack
from graphc.codegen.part import part
from graphc.codegen.program import Program
from graphc.codegen.regroup import regroup
from graphc.codegen.scatter import scatter
from graphc.codegen.shares import Shares
from graphc.codegen.split import split
from graphc.codegen.subtotal import subtotal
from graphc.codegen.target import Target
from graphc.codegen.verify_program import verify as verify_program
from graphc.cuda_code import cuda_code
from graphc.cuda_compile import CompiledCuda
from graphc.early import early
from graphc.errors import GraphError, UnsupportedError, no_copy
from graphc.freeze import check_unlimited, fixed_arrays, prologue_results, with_fixed
from graphc.grad import grad
from graphc.graph import Graph
from graphc.index_checks import index_checks
from graphc.lookahead import lookahead
from graphc.lower import Lowered, lower
from graphc.plan import plan
from graphc.prepare import prepare
from graphc.profile import Profile, profile
from graphc.results import Results
from graphc.reuse import reuse
from graphc.runtime import BoundCall, Code, Runner
from graphc.schedule import Schedule, schedule
from graphc.verify import verify
from graphc.whole import is_whole

MOST_THREADS = 1024
DEFAULT_ARCH = "sm_90"  # of GPUs

_loaded: dict[tuple[str, Target], Loaded] = {}


@dataclass(frozen=True)
class Stages:
    """What a graph becomes on its way to a back end."""

    graph: Graph
    prepared: Graph
    scheduled: Schedule
    lowered: Lowered
    planned: Program
    arranged: Program  # what each kernel stores still has a place of its own
    program: Program


def stages(graph: Graph) -> Stages:
    """Everything up to the Program."""
    verify(graph)
    prepared = prepare(graph)
    scheduled = schedule(lookahead(prepared).graph)
    lowered = lower(scheduled)
    planned = plan(lowered.program)
    arranged = _arranged(planned)
    return Stages(graph, prepared, scheduled, lowered, planned, arranged, _placed(arranged))


def in_chunks(made: Stages) -> tuple[Chunked, ...]:
    """The program in chunks of each axis that it loops over."""
    versions = (chunk(made.planned, axis) for axis in loop_axes(made.planned))
    return tuple(replace(version, program=_placed(_arranged(version.program))) for version in versions)


ARRANGING: tuple[Callable[[Program], Program], ...] = (
    scatter,  # terms go to the rows they name: before all that makes each sum fast
    join,  # sums that are only added up are one: all that follows sees each contraction once
    regroup,  # copies of blocks: before split, which would make many dims of what is left
    split,  # positions become indices of their own: layout needs dims that stand alone in their subscripts
    layout,  # what runs in lanes lies last: before halo, which fixes addresses
    halo,  # borders lie in memory
    guard,  # sums skip what adds nothing: the questions that halo has left
    subtotal,  # sums with few results get points that threads can share
    part,  # kernels are what their tiles can hold: before pack, which lays operands out for the tiles
    pack,  # operands lie in panels
    collapse,  # dims that are walked together are one: once all addresses are known
    early,  # statements in the order that needs the least memory
)


def _arranged(program: Program) -> Program:
    for change in ARRANGING:
        program = change(program)
    return program


def _placed(program: Program) -> Program:
    program = reuse(program)
    verify_program(program)
    return program


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
        self._emitted = load(self._chunked[0].program if self._chunked else made.program).emitted
        self._runner = Runner(made.graph, made.lowered, self._code, index_checks(made.graph), threads)

    def _code(self, lengths: Mapping[str, int]) -> Code:
        if self.limit is None:
            return Code(self.stages.program, load(self.stages.program), lengths, beside=True)
        choice = choose(self.stages.program, self._chunked, self.limit, lengths)
        return Code(choice.program, load(choice.program), choice.sizes, beside=False)

    def __call__(self, *unnamed: Any, **arrays: Any) -> Results:
        """Run it: the outputs, by name. Params that the graph updates are changed in place.

        Raises `ArgumentError` if the arrays do not fit the graph; nothing has been computed then.
        """
        if unnamed:
            check_by_name(self.stages.graph, unnamed)
        return self._runner(with_fixed(self.fixed, arrays))

    def bind(self, *unnamed: Any, **arrays: Any) -> BoundCall:
        """Fix the arrays: the result is called without arguments, runs compiled code at once, and reuses its results.

        It reads the bound arrays as they are at each call; so they must be numpy arrays, contiguous and of the declared
        dtypes. Its memory and its results are its own, and one: bind a call for each Python thread.
        """
        check_by_name(self.stages.graph, unnamed)
        return self._runner.bind(with_fixed(self.fixed, arrays))

    def freeze(self, *unnamed: Any, **arrays: Any) -> Compiled:
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

    def memory(self, **lengths: int) -> MemoryUse:
        """The bytes that a call takes when axes have these lengths: `f.memory(t=128, n=32).peak`.

        Raises `AxisError` unless the length of every axis that the graph leaves open is given, and `ArgumentError` if
        the call would take more than it was compiled for.
        """
        code = self._code(call_lengths(self.stages.graph, lengths))
        return memory_use(code.program, code.sizes, code.shares(self._runner.threads).moments)

    def shares(self, **arrays: Any) -> Shares:
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
    graph: Graph, target: Literal["cpu"] = ..., threads: int | None = ..., memory: str | int | None = ...
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

    `precision`, on a GPU, is what float32 operands of products are rounded to, so that its tensor cores make them:
    "bf16", "f16" or "tf32". Params, sums and everything else stay float32.
    """
    _check_target(target)
    limit = None if memory is None else parse_bytes(memory)
    if target == "cuda":
        if threads is not None:
            raise UnsupportedError("threads= is for target='cpu'")
        return CompiledCuda(stages(graph), device or nvidia_device(), precision, limit)
    _check_exact(precision)
    if threads is not None and not (is_whole(threads) and 1 <= threads <= MOST_THREADS):
        raise GraphError(f"threads is a whole number from 1 to {MOST_THREADS}, or None for one a core; got {threads!r}")
    return Compiled(stages(graph), threads, limit)


def load(program: Program) -> Loaded:
    """A program in this process. Nothing is made into machine code twice."""
    key = (str(program), Target.host())
    if key not in _loaded:
        _loaded[key] = load_program(program, key[1])
    return _loaded[key]


@overload
def emit(
    graph: Graph, target: Literal["cpu"] = ..., triple: str | None = ..., arch: str = ..., features: str = ...
) -> Emitted: ...


@overload
def emit(graph: Graph, target: Literal["cuda"], *, arch: str = ..., precision: Precision = ...) -> CudaCode: ...


def emit(
    graph: Graph,
    target: str = "cpu",
    triple: str | None = None,
    arch: str = "",
    features: str = "",
    precision: Precision = "float32",
) -> Emitted | CudaCode:
    """Make code without loading or running it, for any machine: `.llvm_ir`, `.assembly`, `.object`; for "cuda", `.ptx`.

    `triple` ("aarch64-linux-gnu"), `arch` (the processor: "skylake-avx512") and `features` ("+avx2,+fma") are LLVM's
    names; without a triple, code is made for this machine. For "cuda" `arch` is a compute capability, "sm_80" to
    "sm_120", and "sm_90" if none is named; `precision` is as in `gc.compile`.
    """
    _check_target(target)
    if target == "cuda":
        return cuda_code(stages(graph).planned, arch_named(arch or DEFAULT_ARCH), precision)
    _check_exact(precision)
    machine = Target.host() if triple is None else Target(triple=triple, cpu=arch, features=features)
    return emit_program(stages(graph).program, machine)


def _check_target(target: str) -> None:
    if target not in ("cpu", "cuda"):
        raise UnsupportedError(f"no target {target!r}; use target='cpu' or target='cuda'")


def _check_exact(precision: Precision) -> None:
    if precision != "float32":
        raise UnsupportedError(f"precision={precision!r} is for target='cuda'")


STAGES: dict[str, Callable[[Graph], str]] = {
    "graph": str,
    "grad": lambda graph: str(grad(graph, "loss")),
    "schedule": lambda graph: str(stages(graph).scheduled),
    "program": lambda graph: str(stages(graph).program),
    "llvm": lambda graph: emit(graph).llvm_ir,
    "asm": lambda graph: emit(graph).assembly,
    "ptx": lambda graph: emit(graph, target="cuda").ptx,
}


def emit_stage(graph: Graph, stage: str) -> str:
    """The printed form of a stage: one of `STAGES`."""
    if stage not in STAGES:
        raise GraphError(f"no stage {stage!r}; the stages are {', '.join(STAGES)}")
    return STAGES[stage](graph)
