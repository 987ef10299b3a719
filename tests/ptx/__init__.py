"""A PTX emulator: runs the kernels that LLVM's NVPTX back end or a person writes, on numpy, and finds their mistakes.

    module = load(ptx)
    module.launch("axpy", grid=(4,), block=(256,), args=[2.0, x, y, len(x)])   # y is changed in place

Threads run together: one numpy operation executes an instruction for all threads of the grid that stand at it.
`module.memory` is the device's memory (`alloc`, `copy_in`, `copy_out`, `free`), whose addresses may be passed as
arguments, so that a driver can be put on top. Every mistake of a kernel raises a `PtxError` of its own kind.
"""

from __future__ import annotations

from tests.ptx.errors import (
    BarrierDivergence,
    Deadlock,
    InvalidLaunch,
    MisalignedAccess,
    OutOfBounds,
    PtxError,
    Race,
    SyntaxMistake,
    Trap,
    UndefinedResult,
    UninitialisedRead,
    UnknownInstruction,
)
from tests.ptx.launch import Module, load
from tests.ptx.memory import Memory

__all__ = [
    "BarrierDivergence",
    "Deadlock",
    "InvalidLaunch",
    "Memory",
    "MisalignedAccess",
    "Module",
    "OutOfBounds",
    "PtxError",
    "Race",
    "SyntaxMistake",
    "Trap",
    "UndefinedResult",
    "UninitialisedRead",
    "UnknownInstruction",
    "load",
]
