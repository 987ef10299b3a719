"""From a Program to PTX, through LLVM's NVPTX back end; on any machine.

In: a Program and an architecture. Out: `CudaCode`: the units, the LLVM IR, and the PTX that the driver, or `ptxas`,
turns into machine code.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

from graphc.codegen.cuda.isa.arch import TRIPLE, Arch
from graphc.codegen.cuda.isa.mma import fragments
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.module import ALIGNMENT, Module, module
from graphc.codegen.cuda.units import Unit, units
from graphc.codegen.disk_cache import code
from graphc.codegen.program import Program
from graphc.codegen.target import Precision
from graphc.errors import no_object

__all__ = ["ALIGNMENT", "CudaCode", "emit"]


@dataclass(frozen=True)
class CudaCode:
    """A program's code for one architecture. Its arguments must begin at multiples of `ALIGNMENT` bytes."""

    program: Program
    arch: Arch
    precision: Precision
    units: tuple[Unit, ...]
    module: Module

    def __repr__(self) -> str:
        """Not the code, which would fill a screen."""
        return f"<code for {self.arch.name}: {self.program.name}>"

    if not TYPE_CHECKING:  # else every attribute would have a type
        __getattr__ = no_object

    @functools.cached_property
    def llvm_ir(self) -> str:
        """The LLVM IR of all functions, before LLVM's own passes."""
        return self.module.llvm_ir(self.module.pieces.keys())

    @functools.cached_property
    def ptx(self) -> str:
        """The PTX of all functions."""
        return _ptx(self.llvm_ir, self.arch)

    def function(self, symbol: str) -> str:
        """The function to launch for this symbol: its own, or an equal one."""
        return self.module.shared.get(symbol, symbol)

    def together(self, function: str) -> frozenset[str]:
        """The functions that are compiled when this one is first needed. A version of a loop is compiled alone, since
        the lengths of a call choose one version; all other functions are compiled together."""
        return frozenset({function}) if function in self._versions else self.always

    @functools.cached_property
    def _versions(self) -> frozenset[str]:
        loops = (unit for unit in self.units if isinstance(unit, LoopUnit) and len(unit.versions) > 1)
        return frozenset(self.function(unit.symbol_of(version)) for unit in loops for version in unit.versions)

    @functools.cached_property
    def always(self) -> frozenset[str]:
        """The functions that every call needs, whatever its lengths."""
        return frozenset(self.module.pieces) - self._versions

    def ptx_of(self, functions: frozenset[str]) -> str:
        """PTX of these functions only."""
        return _ptx(self.module.llvm_ir(functions), self.arch)

    @functools.cached_property
    def unaligned(self) -> CudaCode:
        """The same code for arguments that begin at any element; it loads their elements one by one."""
        return replace(self, module=module(self.program, self.units, self.arch, aligned=False))


def _ptx(llvm_ir: str, arch: Arch) -> str:
    return code(("ptx", arch.name, arch.ptx, llvm_ir), lambda: _compiled(llvm_ir, arch).encode()).decode()


def _compiled(llvm_ir: str, arch: Arch) -> str:
    machine = _machine(arch)
    parsed = llvm.parse_assembly(llvm_ir)
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return str(machine.emit_assembly(parsed))


def emit(program: Program, arch: Arch, precision: Precision = "float32") -> CudaCode:
    """The code of a program. Operands of products are rounded to `precision`; sums and all else are as the program
    says."""
    made = units(program, arch, fragments(precision))
    return CudaCode(program, arch, precision, made, module(program, made, arch, aligned=True))


@functools.cache
def _machine(arch: Arch) -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=arch.name, features=f"+{arch.ptx}", opt=3)
