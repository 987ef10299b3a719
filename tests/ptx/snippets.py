"""Kernels for the emulator's tests: PTX around a few instructions, or from LLVM's NVPTX back end."""

from __future__ import annotations

from collections.abc import Sequence

import llvmlite.binding as llvm

HEADER = ".version 8.6\n.target sm_100\n.address_size 64\n"  # what the newest of the instructions tested needs
_LETTERS = "abcd"
_BITS = {"8": 1, "6": 2, "2": 4, "4": 8}


def size_of(kind: str) -> int:
    """The bytes of a PTX type."""
    return _BITS[kind[-1]]


def _register(kind: str) -> str:
    return f".b{max(size_of(kind), 2) * 8}"


def elementwise(name: str, body: str, inputs: Sequence[str], output: str) -> str:
    """A kernel in which each thread i computes %d from %a, %b, %c: out[i] = body(a[i], b[i], c[i])."""
    letters = _LETTERS[: len(inputs)].replace("d", "")
    parameters = ", ".join(f".param .u64 in_{letter}" for letter in letters)
    loads = "\n".join(
        f"ld.param.u64 %p, [in_{letter}]; mad.wide.u32 %p, %i, {size_of(kind)}, %p;"
        f" ld.global.b{size_of(kind) * 8} %{letter}, [%p];"
        for letter, kind in zip(letters, inputs, strict=True)
    )
    registers = " ".join(f".reg {_register(kind)} %{letter};" for letter, kind in zip(letters, inputs, strict=True))
    return f"""
.visible .entry {name}({parameters}, .param .u64 out)
{{
    .reg .b32 %i, %n, %c0; .reg .b64 %p; .reg .pred %q, %t; .reg {_register(output)} %d; {registers}
    mov.u32 %i, %ctaid.x; mov.u32 %n, %ntid.x; mov.u32 %c0, %tid.x; mad.lo.u32 %i, %i, %n, %c0;
    {loads}
    {body}
    ld.param.u64 %p, [out]; mad.wide.u32 %p, %i, {size_of(output)}, %p;
    st.global.b{size_of(output) * 8} [%p], %d;
    ret;
}}
"""


def kernel(body: str, parameters: str = "x", shared: int = 0, name: str = "k") -> str:
    """A whole text with one kernel: 64-bit parameters, registers %r, %h, %rd, %f and %p, %rd1… holding the parameters.

    %r0 is the thread within its CTA, %r1 the CTA, %r2 the thread within the grid.
    """
    names = parameters.split()
    listed = ", ".join(f".param .u64 {n}" for n in names)
    loads = "\n".join(f"ld.param.u64 %rd{k}, [{n}];" for k, n in enumerate(names, 1))
    memory = f".shared .align 16 .b8 buffer[{shared}];" if shared else ""
    return f"""{HEADER}
.visible .entry {name}({listed})
{{
    .reg .b32 %r<64>; .reg .b16 %h<16>; .reg .b64 %rd<64>; .reg .f32 %f<64>; .reg .pred %p<16>; {memory}
    {loads}
    mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r2, %r1, %r2, %r0;
    {body}
    ret;
}}
"""


def compiled(ir: str, arch: str = "sm_90") -> str:
    """LLVM IR through the NVPTX back end."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly('target triple = "nvptx64-nvidia-cuda"\n' + ir)
    module.verify()
    machine = llvm.Target.from_triple("nvptx64-nvidia-cuda").create_target_machine(cpu=arch, opt=3)
    return str(machine.emit_assembly(module))
