"""emit: code for any machine, made on any other; and the printed form of each stage on the way to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

from graphc.codegen.cpu.jit import Emitted
from graphc.codegen.cpu.jit import emit as emit_program
from graphc.codegen.cpu.machine import target_named
from graphc.codegen.cuda.isa.arch import DEFAULT_ARCH, arch_named
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.target import Precision
from graphc.differentiation.grad import grad
from graphc.errors import GraphError
from graphc.language.graph import Graph
from graphc.pipeline.cuda_code import cuda_code
from graphc.pipeline.options import check_options
from graphc.pipeline.stages import stages


@overload
def emit(
    graph: Graph,
    target: Literal["cpu"] = ...,
    triple: str | None = ...,
    arch: str = ...,
    features: str = ...,
    precision: Precision = ...,
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
    names; without any of them, code is made for this machine, without a triple for another of its kind. For "cuda"
    `arch` is a compute capability, "sm_80" to "sm_120", and "sm_90" if none is named; `precision` is as in
    `gc.compile`. Raises `ArgumentError` for names that LLVM does not know.
    """
    check_options(
        target,
        for_cpu={"triple": triple, "features": features or None},
        for_cuda={},
        precision=precision,
    )
    if target == "cuda":
        return cuda_code(stages(graph, ahead=False).planned, arch_named(arch or DEFAULT_ARCH), precision)
    return emit_program(stages(graph, precision).program, target_named(triple, arch, features))


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
