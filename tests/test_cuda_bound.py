"""Calls on the GPU whose memory is fixed: what they read, what they overwrite, and what they wait for."""

from __future__ import annotations

import gc as garbage

import numpy as np
import pytest

from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import ArgumentError
from graphc.runtime.results import DeviceResults
from tests.cuda_emulated import EmulatedDevice, arrays_of, compiled, recurrent
from tests.test_cuda_driver import counted
from tests.test_cuda_streams import Theirs

OWN, A, B = EmulatedDevice.stream, 7, 8
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def f() -> CompiledCuda:
    return compiled(counted())


def device_of(f: CompiledCuda) -> EmulatedDevice:
    device = f.runner.device
    assert isinstance(device, EmulatedDevice)
    return device


def test_arrays_of_the_host_are_read_and_updated_at_each_call(f: CompiledCuda) -> None:
    x, total = X.copy(), np.zeros(3, np.float32)
    call = f.bind(x=x, total=total)
    first = call()
    assert isinstance(first["twice"], np.ndarray)
    np.testing.assert_array_equal(first["twice"], 2 * X)
    x += 1
    assert call() is first
    np.testing.assert_array_equal(first["twice"], 2 * (X + 1))
    np.testing.assert_array_equal(total, X.sum(0) + (X + 1).sum(0))


def test_arrays_on_the_gpu_stay_there(f: CompiledCuda) -> None:
    there = f.upload({"x": X, "total": np.zeros(3, np.float32)})
    call = f.bind(**there)
    found = [call()["twice"] for _ in range(3)]
    assert isinstance(call.results, DeviceResults)
    assert found[0] is found[2]
    np.testing.assert_array_equal(found[0].numpy(), 2 * X)
    np.testing.assert_array_equal(there["total"].numpy(), 3 * X.sum(0))


def test_some_here_and_some_there(f: CompiledCuda) -> None:
    x, total = X.copy(), f.upload({"total": np.zeros(3, np.float32)})["total"]
    call = f.bind(x=x, total=total)
    call()
    x[...] = 1
    np.testing.assert_array_equal(call()["twice"].numpy(), 2)
    np.testing.assert_array_equal(total.numpy(), X.sum(0) + 2)


def test_other_calls_do_not_touch_its_memory(f: CompiledCuda) -> None:
    """A longer call moves the memory that calls share."""
    call = f.bind(x=X, total=np.zeros(3, np.float32))
    f(x=np.ones((5000, 3), np.float32), total=np.zeros(3, np.float32))
    np.testing.assert_array_equal(call()["twice"], 2 * X)


def test_its_memory_is_given_back() -> None:
    f = compiled(recurrent("gru", 8))
    arrays = arrays_of(f.runner.graph, t=3, n=2)
    f(**arrays)
    before = device_of(f)._free
    call = f.bind(**arrays)
    call()
    assert device_of(f)._free < before
    del call
    garbage.collect()
    assert device_of(f)._free == before


def test_on_a_stream_nothing_waits(f: CompiledCuda) -> None:
    device = device_of(f)
    total = DeviceArray.copy_of(np.zeros(3, np.float32), device, A)
    call = f.bind(x=Theirs(device, A), total=total)
    call(stream=A)
    device.order.log.clear()
    for _ in range(3):
        call(stream=A)
    assert device.order.log == []
    assert total.__cuda_array_interface__["stream"] == A
    np.testing.assert_array_equal(total.numpy(), 4 * X.sum(0))


def test_streams_may_change_between_calls(f: CompiledCuda) -> None:
    device = device_of(f)
    call = f.bind(**f.upload({"x": X, "total": np.zeros(3, np.float32)}))
    call(stream=A)
    device.order.log.clear()
    call(stream=B)
    assert device.order.log == [("wait", B)]
    call()
    assert device.order.log[1:] == [("synchronize",), ("wait", OWN), ("finish", OWN)]


def test_a_cell_bound_and_not(f: CompiledCuda) -> None:
    g = recurrent("lstm", 16)
    arrays = arrays_of(g, t=5, n=3)
    f = compiled(g)
    expected, call = f(**arrays), f.bind(**f.upload(arrays))
    for _ in range(2):
        for name, value in call().items():
            np.testing.assert_array_equal(value.numpy(), expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.tolist(), r"np\.ascontiguousarray\(x, np\.float32\)"),
        (np.ones((3, 2), np.float32).T, r"np\.ascontiguousarray\(x, np\.float32\)"),
        (np.ones((2, 4), np.float32), r"shape \(2, 4\)"),
    ],
)
def test_arrays_that_would_be_copies(f: CompiledCuda, x: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        f.bind(x=x, total=np.zeros(3, np.float32))
