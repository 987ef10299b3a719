"""Handles of streams of other libraries, as a caller, an array or a consumer of an array gives them.

In: a handle, or a library's stream object. Out: the handle as an integer, as the driver takes it. Handles are those of
the CUDA array interface (version 3) and of DLPack: 1 is the legacy default stream, 2 that of the calling thread, and 0
is not allowed, since libraries disagree on which of the two it is.
"""

from __future__ import annotations

from graphc.errors import ArgumentError

__all__ = ["LEGACY", "PER_THREAD", "checked_handle", "stream_handle"]

LEGACY = 1
PER_THREAD = 2


def stream_handle(stream: object) -> int:
    """The handle of a stream: of an integer, of PyTorch's `.cuda_stream`, of CuPy's `.ptr`.

    In these objects 0 is the legacy default stream. Raises `ArgumentError` for anything else.
    """
    for attribute in ("cuda_stream", "ptr"):
        handle = getattr(stream, attribute, None)
        if handle is not None:
            return checked_handle("stream", handle or LEGACY)
    return checked_handle("stream", stream)


def checked_handle(what: str, handle: object) -> int:
    """A handle that an interface gives. Raises `ArgumentError` if it is not one."""
    if isinstance(handle, bool) or not isinstance(handle, int):
        raise ArgumentError(
            f"{what} is {handle!r}, expected a CUDA stream: its handle as an integer, or an object with .cuda_stream "
            "(PyTorch) or .ptr (CuPy)"
        )
    if handle == 0:
        raise ArgumentError(
            f"{what} is 0, which names no stream; expected {LEGACY} for the legacy default stream, {PER_THREAD} for "
            "the thread's default stream, or the handle of another"
        )
    if handle < 0:
        raise ArgumentError(f"{what} is {handle}, expected a stream's handle, which is positive")
    return handle
