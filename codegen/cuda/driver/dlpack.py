"""Arrays on the GPU, exchanged with other libraries without copies.

In: an array of PyTorch, CuPy or JAX, recognised by what it offers: `__cuda_array_interface__`, or DLPack. Out: its
address, shape and dtype, and the stream whose work on it must be waited for (`Foreign`). For the other direction, a
`DeviceArray` owns memory of a device and offers both protocols. Layouts and rules about streams are those of version 3
of the CUDA array interface (https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html) and of DLPack before
1.0 (https://dmlc.github.io/dlpack/latest/python_spec.html).
"""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.cuda.driver.streams import LEGACY, PER_THREAD, checked_handle
from graphc.errors import ArgumentError

__all__ = ["UNKNOWN_STREAM", "DeviceArray", "Foreign", "foreign"]

UNKNOWN_STREAM = -1  # instead of a stream: the array does not say which stream works on it
_NO_WAIT = -1  # DLPack's stream for a consumer that needs no order
_STREAM_VERSION = 3  # the first version of the CUDA array interface in which arrays name a stream

_CUDA = 2  # kDLCUDA
_MANAGED = 13  # kDLCUDAManaged
_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 6: "bool"}  # DLDataTypeCode
_NUMBERS = {"i": 0, "u": 1, "f": 2, "V": 4, "b": 6}  # by numpy's kind; bfloat16 alone is of kind V here


@dataclass(frozen=True, slots=True)
class Foreign:
    """A dense row-major array in a GPU's memory; `owner` keeps it alive.

    `after` is the stream whose work on the array must end before any other work on it begins: None if there is none,
    `UNKNOWN_STREAM` if that is not known.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str
    writeable: bool
    after: int | None
    owner: object

    @property
    def bytes(self) -> int:
        """The size of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def foreign(name: str, array: object, stream: int) -> Foreign | None:
    """The description of an array on a GPU; None for anything else. `stream` is where it will be used; DLPack makes the
    array's library have that stream wait. Raises `ArgumentError` if the array is not dense and row-major, begins inside
    of an element, lies on another GPU than the first, names no valid stream, or does not say what its elements are."""
    if isinstance(array, np.ndarray):
        return None
    if isinstance(array, Foreign):
        return array
    place = getattr(array, "__dlpack_device__", None)
    kind, number = (None, 0) if place is None else place()
    if kind in (_CUDA, _MANAGED) and number:
        raise ArgumentError(f"{name} lies on GPU number {number}, but graphc runs on number 0; pass a copy there")
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None and np.dtype(interface["typestr"]).kind != "V":
        return _from_interface(name, array, interface, stream)
    if kind in (_CUDA, _MANAGED):
        return _from_dlpack(name, array, stream)
    if interface is not None:
        raise ArgumentError(
            f"{name} is an array of {interface['typestr']} by the CUDA array interface, which has no word for "
            "bfloat16; pass one that offers DLPack"
        )
    return None


def _from_interface(name: str, array: object, interface: dict[str, Any], stream: int) -> Foreign:
    """From `__cuda_array_interface__`. Before version 3 it does not name a stream; then DLPack, which PyTorch and JAX
    offer too, is used to make the order."""
    shape, kind = tuple(interface["shape"]), np.dtype(interface["typestr"])
    address, read_only = interface["data"]
    _check_whole(name, int(address), kind.itemsize)
    strides = interface.get("strides")
    if strides is not None:
        _check_dense(name, shape, tuple(strides), kind.itemsize)
    owner, after = array, interface.get("stream")
    if after is not None:
        after = checked_handle(f"the stream of {name}", after)
    elif interface.get("version", 0) < _STREAM_VERSION:
        dlpack = getattr(array, "__dlpack__", None)
        owner, after = (array, UNKNOWN_STREAM) if dlpack is None else ((array, dlpack(stream=stream)), None)
    return Foreign(int(address), shape, kind.name, not read_only, after, owner)


def _check_whole(name: str, address: int, size: int) -> None:
    if address % size:
        raise ArgumentError(
            f"{name} begins at {address:#x}, which is no multiple of its elements' {size} bytes; pass a copy"
        )


def _check_dense(name: str, shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> None:
    """`step`: the distance of neighbouring elements, as strides count it. Of an empty array any strides will do."""
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True) if math.prod(shape) else ():
        if extent > 1 and stride != step:
            raise ArgumentError(f"{name} lies on the GPU with strides {strides}; pass it contiguous, row by row")
        step *= extent


# DLPack.


class _DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _DLManagedTensor(ctypes.Structure):
    _fields_ = (
        ("tensor", _DLTensor),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


_CAPSULE = b"dltensor"
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


def _from_dlpack(name: str, array: Any, stream: int) -> Foreign:
    capsule = array.__dlpack__(stream=stream)  # frees the tensor itself, as nobody renames it
    tensor = ctypes.cast(_pointer_of(capsule, _CAPSULE), ctypes.POINTER(_DLManagedTensor)).contents.tensor
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    if tensor.strides:
        _check_dense(name, shape, tuple(tensor.strides[k] for k in range(tensor.ndim)), 1)
    kind = _CODES.get(tensor.code, "unknown")
    dtype, address = kind if kind == "bool" else f"{kind}{tensor.bits}", (tensor.data or 0) + tensor.byte_offset
    _check_whole(name, address, -(-tensor.bits // 8))
    return Foreign(address, shape, dtype, True, None, (array, capsule))


class DeviceArray:
    """An array on the GPU. `numpy()` copies it; other libraries take it without a copy.

    `stream` is the stream on which the latest work on it was queued; None if that work has ended. Its memory is freed
    on the latest stream, in order with that work; the stream must exist as long as the array.
    """

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str, stream: int | None = None) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._device = device
        stream = device.stream if stream is None else stream
        self.address = device.allocate(math.prod(shape) * self.dtype.itemsize, stream)
        self.queued_on(stream)

    @classmethod
    def copy_of(cls, array: np.ndarray, device: Device, stream: int | None = None) -> DeviceArray:
        """A copy on the device of an array of the host, made on the device's own stream or on the one given."""
        stream = device.stream if stream is None else stream
        made = cls(device, array.shape, array.dtype.name, stream)
        device.write(made.address, np.ascontiguousarray(array), stream)
        made.queued_on(stream)
        return made

    def queued_on(self, stream: int) -> None:
        """Note that work on it was queued on a stream, after all earlier work on it.

        The default stream of a thread differs between threads, and another thread may read or free the array; so the
        device's own stream waits for it and takes its place.
        """
        if stream == PER_THREAD:
            self._device.wait(self._device.stream, self._device.mark(stream))
            stream = self._device.stream
        self.stream: int | None = stream
        self._latest = stream

    def ended(self) -> None:
        """Note that all work on it has ended."""
        self.stream = None

    def _settle(self) -> None:
        """If another library may work on it on a thread's default stream, there is no event to wait for: wait for
        everything."""
        if self._latest == PER_THREAD:
            self._device.synchronize()
            self.stream, self._latest = None, self._device.stream

    def __del__(self) -> None:
        if hasattr(self, "_latest") and not sys.is_finalizing():
            self._settle()
            self._device.free(self.address, self._latest)

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)})"

    def __float__(self) -> float:
        return float(self.numpy())

    def numpy(self) -> np.ndarray:
        """A copy in the memory of the host."""
        self._settle()
        array = np.empty(self.shape, self.dtype)
        self._device.read(array, self.address, self._latest)
        self.ended()
        return array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype.kind == "V":  # as if the attribute did not exist: other libraries then try DLPack
            raise AttributeError("the CUDA array interface has no word for bfloat16; take the array through DLPack")
        self._settle()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that shares the memory, to be used on `stream`, which is made to wait for earlier work on it.

        In DLPack, None is the legacy default stream, and -1 asks for no order. Raises `ArgumentError` for 0, and
        `BufferError` where a copy is asked for, or another device.
        """
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("an array on the GPU is shared there, not copied; .numpy() copies it to the host")
        if stream != _NO_WAIT:
            consumer = LEGACY if stream is None else checked_handle("the stream for __dlpack__", stream)
            self._settle()
            if self.stream not in (None, consumer):
                self._device.wait(consumer, self._device.mark(self._latest))
            self.stream = self._latest = consumer  # the consumer may write to it
        return _new_capsule(_Exported(self).address, _CAPSULE, _UNUSED)


class _Exported:
    """A tensor exported to another library. It keeps the array alive until that library calls its deleter."""

    alive: dict[int, _Exported] = {}  # noqa: RUF012  by address, since C keeps no reference

    def __init__(self, array: DeviceArray) -> None:
        self.array = array
        self.shape = (ctypes.c_int64 * max(1, len(array.shape)))(*array.shape)
        kind = array.dtype.kind
        self.managed = _DLManagedTensor()
        tensor = self.managed.tensor
        tensor.data, tensor.device_type, tensor.device_id = array.address, _CUDA, 0
        tensor.ndim, tensor.shape, tensor.strides = len(array.shape), self.shape, None
        tensor.code, tensor.bits, tensor.lanes = _NUMBERS[kind], 8 * array.dtype.itemsize, 1
        self.managed.deleter = _RELEASE
        self.address = ctypes.addressof(self.managed)
        self.alive[self.address] = self


def _release(address: int) -> None:
    _Exported.alive.pop(address, None)


_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_release)

# Destructors get a capsule that is being destroyed, so they take its bare address: a reference would revive it.
_is_valid = ctypes.pythonapi["PyCapsule_IsValid"]
_is_valid.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_address_in = ctypes.pythonapi["PyCapsule_GetPointer"]
_address_in.restype = ctypes.c_void_p
_address_in.argtypes = (ctypes.c_void_p, ctypes.c_char_p)


def _discard(capsule: int) -> None:
    """The destructor of a capsule: release the tensor if nobody has taken it. A consumer renames the capsule."""
    if _is_valid(capsule, _CAPSULE):
        _release(_address_in(capsule, _CAPSULE))


_UNUSED = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_discard)
