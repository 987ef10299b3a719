"""custom_call: functions of this process that XLA calls, in the middle of what `jax.jit` compiles.

In: functions that read and write memory. Out: calls of them among JAX's operations. XLA's foreign function interface
hands a handler the addresses of its own buffers, so nothing is copied. There is one handler for each platform; an
attribute of a call is the number of its function. The structures are those of `xla/ffi/api/c_api.h`, which JAX ships;
XLA keeps their order and adds at their ends.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

__all__ = ["CustomCall", "Memory"]

_TARGET = "graphc"  # what XLA calls the handlers
_EXECUTE, _METADATA = 3, 1  # a stage, and an extension
_INVALID_ARGUMENT, _INTERNAL = 3, 13  # codes of errors
_FIRST = 0, 1  # the version whose structures these are; later ones only append to them
_DTYPES = {1: "bool", 4: "int32", 10: "float16", 11: "float32", 12: "float64", 16: "bfloat16"}


@dataclass(frozen=True, slots=True)
class Memory:
    """An array in XLA's memory, dense and row-major, on the host or on a GPU."""

    address: int
    shape: tuple[int, ...]
    dtype: str


class _Extension(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("type", c_int), ("next", c_void_p))


class _Version(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("extension", c_void_p), ("major", c_int), ("minor", c_int))


class _Metadata(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("version", _Version), ("traits", ctypes.c_uint32))


class _MetadataExtension(ctypes.Structure):
    _fields_ = (("base", _Extension), ("metadata", POINTER(_Metadata)))


class _Error(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("extension", c_void_p), ("message", c_char_p), ("code", c_int))


class _Stream(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("extension", c_void_p), ("context", c_void_p), ("stream", c_void_p))


class _Api(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("extension", c_void_p),
        ("version", _Version),
        ("internal", c_void_p),
        ("error", CFUNCTYPE(c_void_p, POINTER(_Error))),
        ("error_message", c_void_p),
        ("destroy_error", c_void_p),
        ("register", c_void_p),
        ("stream", CFUNCTYPE(c_void_p, POINTER(_Stream))),
    )


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("extension", c_void_p),
        ("dtype", c_int),
        ("data", c_void_p),
        ("rank", c_int64),
        ("dims", POINTER(c_int64)),
    )


class _Buffers(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("extension", c_void_p),
        ("count", c_int64),
        ("types", c_void_p),
        ("each", POINTER(POINTER(_Buffer))),
    )


class _Scalar(ctypes.Structure):
    _fields_ = (("dtype", c_int), ("value", POINTER(c_int64)))


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("extension", c_void_p),
        ("count", c_int64),
        ("types", c_void_p),
        ("names", c_void_p),
        ("each", POINTER(POINTER(_Scalar))),
    )


class _Frame(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("extension", POINTER(_Extension)),
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    )


Body = Callable[[Sequence[Memory], Sequence[Memory], int | None], None]

_bodies: list[Body] = []  # by number; what JAX has compiled may call them as long as the process lives


class CustomCall:
    """A function that XLA calls: `body(arguments, results, stream)` reads memory and fills other, on the host, or on
    the GPU as work on a stream of the driver's. It runs on any thread, and several calls may run at the same time."""

    def __init__(self, body: Body) -> None:
        _register()
        self._number = len(_bodies)
        _bodies.append(body)

    def __call__(self, arguments: Sequence[jax.Array], results: Sequence[jax.ShapeDtypeStruct]) -> Sequence[jax.Array]:
        """Arrays like `results`, as an operation of JAX; under `vmap` one call for each element."""
        call = jax.ffi.ffi_call(_TARGET, tuple(results), vmap_method="sequential")
        return cast(Sequence[jax.Array], call(*arguments, function=np.int64(self._number)))


@functools.cache
def _register() -> None:
    """Tell XLA of the handlers."""
    for platform, handler in (("cpu", on_host), ("CUDA", on_gpu)):
        jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(handler), platform=platform)


@CFUNCTYPE(c_void_p, POINTER(_Frame))
def on_host(given: Any) -> int | None:
    """What XLA calls where it computes on the host: to learn the version of the interface, then for each call. Gives an
    error, or nothing."""
    return _handled(given.contents, lambda frame: None)


@CFUNCTYPE(c_void_p, POINTER(_Frame))
def on_gpu(given: Any) -> int | None:
    """The same where it computes on a GPU."""
    return _handled(given.contents, _stream)


def _handled(frame: _Frame, stream: Callable[[_Frame], int | None]) -> int | None:
    if frame.extension and frame.extension.contents.type == _METADATA:
        asked = ctypes.cast(frame.extension, POINTER(_MetadataExtension)).contents.metadata.contents.version
        own = frame.api.contents.version if frame.api else asked
        asked.major, asked.minor = (own.major, own.minor) if own.minor else _FIRST
        return None
    if frame.stage != _EXECUTE:
        return None
    try:
        body = _bodies[frame.attributes.each[0].contents.value[0]]
        body(_memory(frame.arguments), _memory(frame.results), stream(frame))
    except BaseException as error:  # it goes to whoever waits for the result, through XLA
        code = _INVALID_ARGUMENT if isinstance(error, ValueError) else _INTERNAL
        made = _Error(ctypes.sizeof(_Error), None, f"{type(error).__name__}: {error}".encode(), code)
        return int(frame.api.contents.error(ctypes.byref(made)))
    return None


def _stream(frame: _Frame) -> int:
    """The handle of the stream that a call is to work on."""
    asked = _Stream(ctypes.sizeof(_Stream), None, frame.context, None)
    if frame.api.contents.stream(ctypes.byref(asked)):
        raise RuntimeError("XLA has no stream for the call")
    return int(asked.stream or 0)


def _memory(buffers: _Buffers) -> list[Memory]:
    found = (buffers.each[k].contents for k in range(buffers.count))
    return [Memory(b.data or 0, tuple(b.dims[: b.rank]), _DTYPES[b.dtype]) for b in found]
