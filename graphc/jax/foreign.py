"""foreign: functions of this process that XLA calls, in the middle of what `jax.jit` compiles.

In: functions that read arrays and write arrays. Out: calls of them among JAX's operations. XLA's foreign function
interface hands a handler the addresses of its own buffers, so nothing is copied. There is one handler for all of them;
an attribute of a call is the number of its function. The structures are those of `xla/ffi/api/c_api.h`, which JAX
ships; XLA keeps their order and adds at their ends.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_void_p
from typing import Any, cast

import jax
import ml_dtypes
import numpy as np

__all__ = ["Foreign"]

Array = np.ndarray
Body = Callable[[Sequence[Array], Sequence[Array]], None]

_TARGET = "graphc"  # what XLA calls the handler
_EXECUTE, _METADATA = 3, 1  # a stage, and an extension
_INVALID_ARGUMENT, _INTERNAL = 3, 13  # codes of errors
_FIRST = 0, 1  # the version whose structures these are; later ones only append to them
_DTYPES: dict[int, Any] = {
    1: np.bool_,
    2: np.int8,
    3: np.int16,
    4: np.int32,
    5: np.int64,
    6: np.uint8,
    10: np.float16,
    11: np.float32,
    12: np.float64,
    16: ml_dtypes.bfloat16,
}


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


class _Api(ctypes.Structure):
    _fields_ = (
        ("size", c_size_t),
        ("extension", c_void_p),
        ("version", _Version),
        ("internal", c_void_p),
        ("error", ctypes.CFUNCTYPE(c_void_p, POINTER(_Error))),
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


_bodies: list[Body] = []  # by number; what JAX has compiled may call them as long as the process lives


class Foreign:
    """A function that XLA calls: `body(arguments, results)` reads arrays and fills others, both in XLA's memory. It
    runs on any thread, and several calls may run at the same time."""

    def __init__(self, body: Body) -> None:
        _register()
        self._number = len(_bodies)
        _bodies.append(body)

    def __call__(self, arguments: Sequence[jax.Array], results: Sequence[jax.ShapeDtypeStruct]) -> Sequence[jax.Array]:
        """Arrays like `results`, as an operation of JAX; under `vmap` one call for each element."""
        call = jax.ffi.ffi_call(_TARGET, tuple(results), vmap_method="sequential")
        return cast(Sequence[jax.Array], call(*arguments, function=np.int64(self._number)))


@ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))
def _handler(given: Any) -> int | None:
    """What XLA calls: to learn the version of the interface, then for each call. Gives an error, or nothing."""
    frame = given.contents
    if frame.extension and frame.extension.contents.type == _METADATA:
        asked = ctypes.cast(frame.extension, POINTER(_MetadataExtension)).contents.metadata.contents.version
        own = frame.api.contents.version if frame.api else asked
        asked.major, asked.minor = (own.major, own.minor) if own.minor else _FIRST
        return None
    if frame.stage != _EXECUTE:
        return None
    try:
        body = _bodies[frame.attributes.each[0].contents.value[0]]
        body(_arrays(frame.arguments), _arrays(frame.results))
    except BaseException as error:  # it goes to whoever waits for the result, through XLA
        code = _INVALID_ARGUMENT if isinstance(error, ValueError) else _INTERNAL
        made = _Error(ctypes.sizeof(_Error), None, f"{type(error).__name__}: {error}".encode(), code)
        return int(frame.api.contents.error(ctypes.byref(made)))
    return None


def _arrays(buffers: _Buffers) -> list[Array]:
    return [_array(buffers.each[k].contents) for k in range(buffers.count)]


def _array(buffer: _Buffer) -> Array:
    """XLA's memory as an array."""
    shape, dtype = tuple(buffer.dims[: buffer.rank]), np.dtype(_DTYPES[buffer.dtype])
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, (c_char * size).from_address(buffer.data))


def _register() -> None:
    """Tell XLA of the handler, before the first function."""
    if not _bodies:
        jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_handler), platform="cpu")
