"""custom_call: functions of this process that XLA calls, in the middle of what `jax.jit` compiles.

In: functions that read and write memory. Out: calls of them among JAX's operations. XLA's foreign function interface
hands a handler the addresses of its own buffers, so nothing is copied. There is one handler for each platform; an
attribute of a call is the number of its function, which is the same in every process: JAX may keep what it compiled.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, POINTER, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, cast

import jax
import numpy as np

from graphc.codegen.cpu.jit import native
from graphc.codegen.target import Target
from graphc.jax import ffi_structures as ffi

__all__ = ["CustomCall", "Memory", "handlers"]

_TARGET = "graphc"  # what XLA calls the handlers


@dataclass(frozen=True, slots=True)
class Memory:
    """An array in XLA's memory, dense and row-major, on the host or on a GPU."""

    address: int
    shape: tuple[int, ...]
    dtype: str


Body = Callable[[Sequence[Memory], Sequence[Memory], int | None], None]

_bodies: dict[int, Body] = {}  # by number; what JAX has compiled may call them as long as the process lives


class CustomCall:
    """A function that XLA calls: `body(arguments, results, stream)` reads memory and fills other, on the host, or on
    the GPU as work on a stream of the driver's. It runs on any thread, and several calls may run at the same time.
    `text` says all that it computes."""

    def __init__(self, body: Body, text: str) -> None:
        _register()
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self.number = int.from_bytes(digest, "little", signed=True)
        _bodies[self.number] = body

    def __call__(self, arguments: Sequence[jax.Array], results: Sequence[jax.ShapeDtypeStruct]) -> Sequence[jax.Array]:
        """Arrays like `results`, as an operation of JAX; under `vmap` one call for each element."""
        call = jax.ffi.ffi_call(_TARGET, tuple(results), vmap_method="sequential")
        return cast(Sequence[jax.Array], call(*arguments, function=np.int64(self.number)))


@functools.cache
def _register() -> None:
    for platform, handler in handlers().items():
        jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(handler), platform=platform)


@functools.cache
def handlers() -> dict[str, Any]:
    """What XLA calls, by platform: to learn the version of the interface, then for each call. Gives an error, or
    nothing."""
    return {"cpu": _handler(lambda frame: None), "CUDA": _handler(_stream)}


# Python may be interrupted before a function's first statement, and behind its last; what ctypes returns then is
# whatever lies there. So XLA calls native code, and that calls Python, which says last of all what came of it. If it
# has not, the call has failed.
_NATIVE = """
@interrupted = private constant [44 x i8] c"KeyboardInterrupt: graphc was interrupted\\00\\00\\00"

define ptr @handler(ptr %frame) {{
  %outcome = alloca i64
  store i64 -1, ptr %outcome
  call void inttoptr (i64 {called} to ptr)(ptr %frame, ptr %outcome)
  %said = load i64, ptr %outcome
  %ended = icmp ne i64 %said, -1
  %error = inttoptr i64 %said to ptr
  br i1 %ended, label %end, label %failed
failed:
  %api.place = getelementptr i8, ptr %frame, i64 {api}
  %api = load ptr, ptr %api.place
  %create.place = getelementptr i8, ptr %api, i64 {create}
  %create = load ptr, ptr %create.place
  %what = alloca {{ i64, ptr, ptr, i32 }}
  store {{ i64, ptr, ptr, i32 }} {{ i64 {size}, ptr null, ptr @interrupted, i32 {code} }}, ptr %what
  %made = call ptr %create(ptr %what)
  ret ptr %made
end:
  ret ptr %error
}}
"""


def _handler(stream: Callable[[ffi.Frame], int | None]) -> Any:
    @CFUNCTYPE(None, POINTER(ffi.Frame), POINTER(c_int64))
    def called(frame: Any, outcome: Any) -> None:
        outcome[0] = _handled(frame.contents, stream)

    text = _NATIVE.format(
        called=ctypes.cast(called, c_void_p).value,
        api=ffi.Frame.api.offset,
        create=ffi.Api.error.offset,
        size=ctypes.sizeof(ffi.Error),
        code=ffi.CANCELLED,
    )
    code = native(text, Target.host(), "handler")
    handler = CFUNCTYPE(c_void_p, POINTER(ffi.Frame))(code["handler"])
    handler.kept = called, code  # type: ignore[attr-defined]
    return handler


def _handled(frame: ffi.Frame, stream: Callable[[ffi.Frame], int | None]) -> int:
    """What came of it: the address of an error, or 0."""
    if frame.extension and frame.extension.contents.type == ffi.METADATA:
        asked = ctypes.cast(frame.extension, POINTER(ffi.MetadataExtension)).contents.metadata.contents.version
        own = frame.api.contents.version if frame.api else asked
        asked.major, asked.minor = (own.major, own.minor) if own.minor else ffi.FIRST_VERSION
        return 0
    if frame.stage != ffi.EXECUTE:
        return 0
    try:
        body = _body(frame.attributes.each[0].contents.value[0])
        body(_memory(frame.arguments), _memory(frame.results), stream(frame))
    except BaseException as error:  # it goes to whoever waits for the result, through XLA
        codes = {KeyboardInterrupt: ffi.CANCELLED, ValueError: ffi.INVALID_ARGUMENT, BaseException: ffi.INTERNAL}
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        made = ffi.Error(ctypes.sizeof(ffi.Error), None, f"{type(error).__name__}: {error}".encode(), code)
        return int(frame.api.contents.error(ctypes.byref(made)))
    return 0


def _body(number: int) -> Body:
    if number not in _bodies:
        raise RuntimeError(
            "JAX compiled this in another process, with a graph that this one does not know yet; trace the same "
            "function here first, as jax.jit(f).lower(…) does"
        )
    return _bodies[number]


def _stream(frame: ffi.Frame) -> int:
    """The handle of the stream that a call is to work on."""
    asked = ffi.Stream(ctypes.sizeof(ffi.Stream), None, frame.context, None)
    if frame.api.contents.stream(ctypes.byref(asked)):
        raise RuntimeError("XLA has no stream for the call")
    return int(asked.stream or 0)


def _memory(buffers: ffi.Buffers) -> list[Memory]:
    found = (buffers.each[k].contents for k in range(buffers.count))
    return [Memory(b.data or 0, tuple(b.dims[: b.rank]), ffi.DTYPES[b.dtype]) for b in found]
