"""Arrays on the GPU, exchanged with other libraries without copies.

In: an array of PyTorch, CuPy or JAX, recognised by what it offers: `__cuda_array_interface__`, or DLPack. Out: where it
lies and what it is (`Foreign`). The other way, a `DeviceArray` owns memory of a device and offers both protocols. The
layouts are those of version 3 of the CUDA array interface and of DLPack before 1.0.
"""

from __future__ import annotations

import ctypes
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.cuda.driver import Device
from graphc.errors import ArgumentError

__all__ = ["DeviceArray", "Foreign", "foreign"]

_CUDA = 2  # kDLCUDA
_MANAGED = 13  # kDLCUDAManaged
_CODES = {0: "int", 1: "uint", 2: "float", 6: "bool"}  # DLDataTypeCode
_NUMBERS = {"i": 0, "u": 1, "f": 2, "b": 6}


@dataclass(frozen=True, slots=True)
class Foreign:
    """A dense row-major array in a GPU's memory; `owner` keeps it alive."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    writeable: bool
    owner: object


def foreign(name: str, array: object) -> Foreign | None:
    """What an array on a GPU is; None for anything else. Raises `ArgumentError` if it is not dense and row-major."""
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is not None:
        return _from_interface(name, array, interface)
    place = getattr(array, "__dlpack_device__", None)
    if place is not None and not isinstance(array, np.ndarray) and place()[0] in (_CUDA, _MANAGED):
        return _from_dlpack(name, array)
    return None


def _from_interface(name: str, array: object, interface: dict[str, Any]) -> Foreign:
    shape, kind = tuple(interface["shape"]), np.dtype(interface["typestr"])
    address, read_only = interface["data"]
    strides = interface.get("strides")
    if strides is not None:
        _check_dense(name, shape, tuple(s // kind.itemsize for s in strides))
    return Foreign(int(address), shape, kind.name, not read_only, array)


def _check_dense(name: str, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
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


def _from_dlpack(name: str, array: Any) -> Foreign:
    capsule = array.__dlpack__()  # unused, it frees itself
    tensor = ctypes.cast(_pointer_of(capsule, _CAPSULE), ctypes.POINTER(_DLManagedTensor)).contents.tensor
    shape = tuple(tensor.shape[k] for k in range(tensor.ndim))
    if tensor.strides:
        _check_dense(name, shape, tuple(tensor.strides[k] for k in range(tensor.ndim)))
    kind = _CODES.get(tensor.code, "unknown")
    dtype = kind if kind == "bool" else f"{kind}{tensor.bits}"
    return Foreign((tensor.data or 0) + tensor.byte_offset, shape, dtype, True, (array, capsule))


class DeviceArray:
    """An array that a call left on the GPU. `numpy()` copies it; other libraries take it without a copy."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._device = device
        self.address = device.allocate(math.prod(shape) * self.dtype.itemsize)

    @classmethod
    def copy_of(cls, array: np.ndarray, device: Device) -> DeviceArray:
        """An array of the host's memory, on the device."""
        made = cls(device, array.shape, array.dtype.name)
        device.write(made.address, np.ascontiguousarray(array))
        return made

    def __del__(self) -> None:
        if hasattr(self, "address") and not sys.is_finalizing():
            self._device.free(self.address)

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype}{list(self.shape)})"

    def __float__(self) -> float:
        return float(self.numpy())

    def numpy(self) -> np.ndarray:
        """A copy in the memory of the host."""
        array = np.empty(self.shape, self.dtype)
        self._device.read(array, self.address)
        return array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = (self.address, False)
        return {"shape": self.shape, "typestr": self.dtype.str, "data": data, "version": 3, "strides": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, 0

    def __dlpack__(self, **_: Any) -> Any:
        """A capsule that shares the memory. All work on it has ended, so no stream is waited for."""
        held = _Held(self)
        return _new_capsule(held.address, _CAPSULE, None)


class _Held:
    """A tensor handed to another library, with what keeps its memory; it goes when that library says so."""

    alive: dict[int, _Held] = {}  # noqa: RUF012  by address, since C keeps no reference

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
    _Held.alive.pop(address, None)


_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_release)
