"""graphc.jax where XLA computes on a GPU: in the emulator, with calls as XLA makes them, and on one if there is one."""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.language.graph import declared_arrays
from tests.cuda_emulated import EmulatedDevice
from tests.test_jax import network, normal

jax = pytest.importorskip("jax")
custom_call = pytest.importorskip("graphc.jax.custom_call")
ffi = pytest.importorskip("graphc.jax.ffi_structures")
places = pytest.importorskip("graphc.jax.places")
STREAM, ERROR = 4711, 13
NUMBERS = {name: number for number, name in ffi.DTYPES.items()}


class Xla:
    """XLA's side of the interface, on the emulator."""

    def __init__(self) -> None:
        self.device = EmulatedDevice()
        self.said: list[str] = []
        kinds = dict(ffi.Api._fields_)
        error, stream = kinds["error"](self._error), kinds["stream"](self._stream)
        self.api = ffi.Api(error=error, stream=stream)
        self.kept: list[Any] = [error, stream]

    def _error(self, given: Any) -> int:
        self.said.append(given.contents.message.decode())
        return ERROR

    def _stream(self, given: Any) -> int | None:
        given.contents.stream = STREAM
        return None

    def call(self, body: Any, given: list[DeviceArray], results: list[DeviceArray]) -> int | None:
        number = ctypes.c_int64(custom_call.CustomCall(body, repr(body)).number)
        scalar = ctypes.pointer(ffi.Scalar(5, ctypes.pointer(number)))
        attributes = ffi.Attributes(count=1, each=ctypes.pointer(scalar))
        frame = ffi.Frame(
            api=ctypes.pointer(self.api),
            stage=ffi.EXECUTE,
            arguments=self._buffers(given),
            results=self._buffers(results),
            attributes=attributes,
        )
        return custom_call.handlers()["CUDA"](ctypes.byref(frame))

    def _buffers(self, arrays: list[DeviceArray]) -> Any:
        made = []
        for array in arrays:
            dims = (ctypes.c_int64 * len(array.shape))(*array.shape)
            data = array.address if np.prod(array.shape) else None
            buffer = ffi.Buffer(
                dtype=NUMBERS[array.dtype.name], data=data, rank=len(array.shape), dims=ctypes.cast(dims, _INTS)
            )
            made.append(ctypes.pointer(buffer))
            self.kept += [dims, buffer]
        each = (ctypes.POINTER(ffi.Buffer) * len(made))(*made)
        self.kept.append(each)
        return ffi.Buffers(count=len(made), each=ctypes.cast(each, _BUFFERS))


_INTS = ctypes.POINTER(ctypes.c_int64)
_BUFFERS = ctypes.POINTER(ctypes.POINTER(ffi.Buffer))


def run(xla: Xla, g: gc.Graph, arrays: dict[str, np.ndarray], like: dict[str, np.ndarray]) -> Any:
    """A call of a graph; gives its results, or else the error."""
    names = tuple(declared_arrays(g))
    code = places.Code(g, names, places.Settings(device=xla.device))
    given = [DeviceArray.copy_of(np.asarray(arrays[name]), xla.device, STREAM) for name in names]
    results = [DeviceArray(xla.device, a.shape, a.dtype.name, STREAM) for a in like.values()]
    error = xla.call(partial(code.run, {}), given, results)
    return error or {name: result.numpy() for name, result in zip(like, results, strict=True)}


@pytest.mark.parametrize("steps", [4, 0])
def test_a_call_fills_xla_s_memory_on_its_stream(steps: int) -> None:
    """Outputs of all dtypes, two that are one value, and one of no elements."""
    g = gc.Graph("elman")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.elman(g, g.input("x", (2,), over=(t, n)), 3, over=t).h
    for name, value in {"h": h, "again": h, "half": gc.cast(h, "bfloat16"), "at": gc.argmax(h), "up": h > 0}.items():
        g.output(name, value)
    arrays = {"x": normal(steps, 3, 2), **gc.initialize(g)}
    xla, expected = Xla(), gc.interpret(g, **arrays)
    found = run(xla, g, arrays, dict(expected))
    for name, wanted in expected.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_allclose(found[name].astype(float), wanted.astype(float), rtol=1e-2, atol=1e-5)
    assert not xla.said


def test_errors_go_through_xla() -> None:
    g = network(ragged=True)
    arrays = {"x": normal(4, 2, 2), "length": np.array([1, 9], np.int32), **gc.initialize(g)}
    xla = Xla()
    like = dict(gc.interpret(g, **{**arrays, "length": np.array([1, 4], np.int32)}))
    assert run(xla, g, arrays, like) == ERROR
    assert "ArgumentError" in xla.said[0]
    assert "length holds lengths from 1 to 9" in xla.said[0]


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt("by the user")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("inside", [True, False], ids=["in the body", "beside it"])
def test_an_interrupt_is_an_error(inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes: ctypes lets no exception through, and says nothing of what it returns instead."""
    if not inside:
        monkeypatch.setattr(custom_call, "_handled", interrupted)
    xla = Xla()
    assert xla.call(interrupted, [], []) == ERROR
    assert xla.said == ["KeyboardInterrupt: by the user" if inside else "KeyboardInterrupt: graphc was interrupted"]


def test_gradients_on_a_gpu() -> None:
    try:
        gpu = jax.devices("cuda")[0]
    except RuntimeError:
        pytest.skip("no GPU, or a JAX without CUDA")
    g = network()
    f = pytest.importorskip("graphc.jax").Function(g)
    given = {"x": normal(4, 3, 2), **gc.initialize(g)}

    def loss(given: Any) -> Any:
        return jax.numpy.sin(f(**given)["h"]).sum()

    expected = jax.jit(jax.value_and_grad(loss))(jax.device_put(given, jax.devices("cpu")[0]))
    found = jax.jit(jax.value_and_grad(loss))(jax.device_put(given, gpu))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
