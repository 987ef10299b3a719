"""What the emulator reports: one class for each kind of mistake a kernel can make."""

from __future__ import annotations

__all__ = [
    "BarrierDivergence",
    "Deadlock",
    "InvalidLaunch",
    "MisalignedAccess",
    "OutOfBounds",
    "PtxError",
    "Race",
    "SyntaxMistake",
    "Trap",
    "UndefinedResult",
    "UninitialisedRead",
    "UnknownInstruction",
]


class PtxError(Exception):
    """Any mistake found in a PTX text or while it runs."""


class SyntaxMistake(PtxError):
    """The text is no PTX that this emulator reads."""


class UnknownInstruction(PtxError):
    """An instruction, a modifier or a type that the emulator does not know."""


class InvalidLaunch(PtxError):
    """A launch whose grid, block, cluster or arguments do not fit the kernel."""


class OutOfBounds(PtxError):
    """An access to bytes that belong to no allocation."""


class MisalignedAccess(PtxError):
    """An address that is no multiple of the access's size."""


class UninitialisedRead(PtxError):
    """A read of bytes that nothing has written yet, or that an asynchronous copy is still writing."""


class Race(PtxError):
    """Two threads touch the same byte, one of them writes, and nothing orders them."""


class BarrierDivergence(PtxError):
    """A barrier, or an instruction of a whole warp, that some of its threads do not reach."""


class Deadlock(PtxError):
    """No thread can go on, or threads spin while nobody is left to change what they wait for."""


class UndefinedResult(PtxError):
    """An instruction whose result PTX leaves undefined, such as a shuffle from a lane that takes no part."""


class Trap(PtxError):
    """The kernel executed `trap`."""
