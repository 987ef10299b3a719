"""From a Program to machine code: optimise, assemble, and load into this process.

`emit` makes code for any target, on any machine. `load` makes it for this one and gives a callable. LLVM's own
vectorisers stay off: kernels arrive as explicit vectors.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

from graphc.codegen.cpu.machine import machine_of
from graphc.codegen.cpu.module import llvm_ir, shared_name
from graphc.codegen.disk_cache import code
from graphc.codegen.parallel.partition import Partition, partition
from graphc.codegen.program import Program
from graphc.codegen.target import Target
from graphc.errors import no_ptx

__all__ = ["Emitted", "Loaded", "emit", "load", "native"]


@dataclass(frozen=True)
class Emitted:
    """Code for one target: LLVM IR; and on request, optimised, assembly and an object file. `partition` says how
    threads may share it out."""

    llvm_ir: str
    target: Target
    partition: Partition

    def __repr__(self) -> str:
        """Not the code, which would fill a screen."""
        return f"<code for {' '.join(filter(None, (self.target.triple, self.target.cpu)))}>"

    if not TYPE_CHECKING:  # else every attribute would have a type
        __getattr__ = no_ptx

    @functools.cached_property
    def assembly(self) -> str:
        """The assembly, after LLVM's own passes."""
        machine = machine_of(self.target)
        return str(machine.emit_assembly(self.module(machine)))

    @functools.cached_property
    def object(self) -> bytes:
        """A relocatable object file."""
        machine = machine_of(self.target)
        return bytes(machine.emit_object(self.module(machine)))

    def module(self, machine: llvm.TargetMachine) -> llvm.ModuleRef:
        """The optimised module. It is a new one each time, as LLVM takes it apart when it makes code of it."""
        module = _parse(self.llvm_ir, machine)
        _optimize(module, machine)
        return module


class Loaded:
    """A program in this process. Calling it runs it on one thread; Python's lock is released meanwhile.

    `shared_address` is that of the function that runs one thread's share (`graphc.codegen.cpu.module`); `partition`
    says how threads may share it out. Where an earlier process has made the code, `emitted` is made on request.
    """

    def __init__(self, program: Program, target: Target) -> None:
        self._program, self._target = program, target
        self.partition = partition(program, target)
        made = code(("object", repr(program), repr(target)), lambda: self.emitted.object)
        self._code = _link(made, target, program.name, shared_name(program))
        self.shared_address: int = self._code[shared_name(program)]
        signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
        self._function = signature(self._code[program.name])

    @functools.cached_property
    def emitted(self) -> Emitted:
        """The code as text, and as an object file."""
        return Emitted(llvm_ir(self._program, self._target, self.partition), self._target, self.partition)

    def __call__(self, args: ctypes.Array[ctypes.c_void_p], sizes: ctypes.Array[ctypes.c_int64]) -> None:
        """Run the program. `args` has the address of each of its buffers, in order, `sizes` has each size. Nothing is
        checked."""
        self._function(ctypes.addressof(args), ctypes.addressof(sizes))


def emit(program: Program, target: Target) -> Emitted:
    """Code of a program for a target."""
    made = partition(program, target)
    return Emitted(llvm_ir(program, target, made), target, made)


def load(program: Program, target: Target | None = None) -> Loaded:
    """Compile for this machine; a `target` may ask for fewer features than it has."""
    return Loaded(program, target or Target.host())


def native(text: str, target: Target, *functions: str, optimized: bool = False) -> llvm.ResourceTracker:
    """LLVM IR as machine code in this process: the addresses of its `functions`, by name. They are valid as long as the
    result lives."""
    machine = machine_of(target)
    module = _parse(text, machine)
    if optimized:
        _optimize(module, machine)
    return _link(bytes(machine.emit_object(module)), target, *functions)


def _link(made: bytes, target: Target, *functions: str) -> llvm.ResourceTracker:
    # JITLink, not MCJIT: that one maps each section by itself, wherever the process has room, and code may come to lie
    # more than 2 GiB from the constants that it reads relative to itself.
    linker = llvm.create_lljit_compiler(machine_of(target), use_jit_link=True)
    library = llvm.JITLibraryBuilder().add_object_img(made).add_current_process()
    for name in functions:
        library.export_symbol(name)
    return library.link(linker, "code")


def _optimize(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    """Run the few passes that this code still needs. Kernels come with values hoisted, vectors explicit and loops in
    final form, so LLVM's full pipeline would find little more, in four times the time."""
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_dead_code_elimination_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2)))


def _parse(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """A module for a machine. Without its data layout, pointers would have 64 bits on every machine."""
    module = llvm.parse_assembly(text)
    module.data_layout = str(machine.target_data)
    module.verify()
    return module
