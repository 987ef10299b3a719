"""The code of a graph for a GPU: the passes of this back end, in one piece and in chunks.

In: the planned Program of a graph. Out: PTX (`cuda_code`); and `CudaVersions`, which has code for every call.

    … → plan → [chunk] → merge_stored_sums → merge_sums → split → cast_operands → split_reductions
        → reorder → share_buffers → LLVM → PTX

Of the passes for the CPU those stay that shorten sums and save memory; those that lay out memory for vectors do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.codegen.cuda.cast_operands import cast_operands
from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.isa.mma import fragments
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.ptx import emit as emit_ptx
from graphc.codegen.cuda.split_reduction import split_reductions
from graphc.codegen.memory.budget import choose
from graphc.codegen.memory.buffer_sharing import share_buffers
from graphc.codegen.memory.chunk import Chunked, chunk, loop_axes
from graphc.codegen.memory.reorder import reorder
from graphc.codegen.passes.merge_stored_sums import merge_stored_sums
from graphc.codegen.passes.merge_sums import merge_sums
from graphc.codegen.passes.split import split
from graphc.codegen.program import Program
from graphc.codegen.target import Precision
from graphc.codegen.verify_program import verify
from graphc.runtime.cuda_layout import Chosen, LoadedCode

__all__ = ["CudaVersions", "arranged", "code_within", "cuda_code"]


def cuda_code(planned: Program, arch: Arch, precision: Precision = "float32") -> CudaCode:
    """The code of a program. `precision` is the dtype that operands of products are rounded to."""
    return emit_ptx(_placed(planned, arch, precision), arch, precision)


def code_within(
    limit: int, lengths: Mapping[str, int], planned: Program, arch: Arch, precision: Precision = "float32"
) -> tuple[CudaCode, Mapping[str, int]]:
    """The code of a call with these lengths and a limit on its memory; and its sizes: the lengths, and those of chunks
    if it has them. Raises `ArgumentError` if the call cannot keep to the limit."""
    versions = [replace(part, program=_placed(part.program, arch, precision)) for part in _in_chunks(planned)]
    choice = choose(_placed(planned, arch, precision), versions, limit, lengths, cache=None)
    return emit_ptx(choice.program, arch, precision), choice.sizes


def _in_chunks(planned: Program) -> tuple[Chunked, ...]:
    """The program in chunks of each axis that it loops over."""
    return tuple(chunk(planned, axis) for axis in loop_axes(planned))


def _placed(planned: Program, arch: Arch, precision: Precision) -> Program:
    program = share_buffers(arranged(planned, arch, precision))
    verify(program)
    return program


def arranged(planned: Program, arch: Arch, precision: Precision) -> Program:
    """The program with the kernels that code is made of; each value still has a place of its own."""
    rounding = fragments(precision)
    return reorder(
        split_reductions(cast_operands(split(merge_sums(merge_stored_sums(planned))), rounding), arch, rounding)
    )


class CudaVersions:
    """The code of a program in one piece; and if memory is limited, in chunks of each axis that it loops over."""

    def __init__(self, planned: Program, arch: Arch, precision: Precision, device: Device, limit: int | None) -> None:
        self.limit = limit
        chunked = () if limit is None else _in_chunks(planned)
        self.whole, *parts = (
            LoadedCode(program, cuda_code(program, arch, precision), device)
            for program in (planned, *(version.program for version in chunked))
        )
        self.chunked = {
            loaded: replace(version, program=loaded.code.program)
            for loaded, version in zip(parts, chunked, strict=True)
        }
        if limit is None:  # no length leads to another code
            self.whole.begin()

    @property
    def main(self) -> CudaCode:
        """The code in one piece; with a limit, the first version in chunks, if there is one."""
        return next(iter(self.chunked), self.whole).code

    def choose(self, lengths: Mapping[str, int]) -> Chosen:
        """What a call with these lengths runs. Raises `ArgumentError` if it cannot keep to the limit."""
        if self.limit is None:
            return Chosen(self.whole, lengths)
        choice = choose(self.whole.code.program, tuple(self.chunked.values()), self.limit, lengths, cache=None)
        loaded = (loaded for loaded, version in self.chunked.items() if version.program is choice.program)
        return Chosen(next(loaded, self.whole), choice.sizes)
