"""Denormal numbers count as zero while a program runs.

Numbers below the smallest normal one (1.2e-38 in float32) take a processor a hundred cycles and more each, and a
gradient that vanishes goes through them on its way to zero: with the loss at the last step, backpropagation through a
few hundred steps would take 3 to 40 times as long. Neither the cell nor who calls it should have to know. The mode of
the caller's thread is put back before the call returns, so that numpy goes on as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphc.codegen.llvm.builder import Function, Value, i64
from graphc.codegen.target import Target

__all__ = ["flushed"]

_X86 = 1 << 15 | 1 << 6  # of the register MXCSR: flush results to zero, and take operands for zero
_ARM = 1 << 24  # of the register FPCR: both


@contextmanager
def flushed(f: Function, target: Target) -> Iterator[None]:
    """What is emitted inside takes denormal operands for zero, and gives zero for a denormal result."""
    if target.is_x86:
        before, inside = f.variable("i32"), f.variable("i32")
        f.run("llvm.x86.sse.stmxcsr", before)
        f.put(f.binary("or", f.get(before, "i32"), Value(str(_X86), "i32")), inside)
        f.run("llvm.x86.sse.ldmxcsr", inside)
        yield
        f.run("llvm.x86.sse.ldmxcsr", before)
    elif target.is_arm64:
        mode = f.call("i64", "llvm.aarch64.get.fpcr")
        f.run("llvm.aarch64.set.fpcr", f.binary("or", mode, i64(_ARM)))
        yield
        f.run("llvm.aarch64.set.fpcr", mode)
    else:
        yield
