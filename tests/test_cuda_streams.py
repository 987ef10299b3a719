"""Streams: what waits for what, at every call, and that nothing waits without need.

The emulated device knows which of its streams could access the same memory at the same time (`tests/cuda_order.py`) and
keeps a log of waits.
"""

from __future__ import annotations

import gc as memory
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cuda.driver.dlpack import DeviceArray, Foreign, _Exported
from graphc.codegen.cuda.driver.driver import NvidiaDevice
from graphc.codegen.cuda.driver.streams import stream_handle
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import ArgumentError
from tests.cuda_emulated import EmulatedDevice
from tests.test_cuda_driver import Driver, counted

OWN, A, B = EmulatedDevice.stream, 7, 8
X = np.arange(6, dtype=np.float32).reshape(2, 3)


class Theirs:
    """Another library's array, which its stream has begun to write."""

    def __init__(self, device: EmulatedDevice, stream: int | None, version: int = 3, array: np.ndarray = X) -> None:
        self.device = device
        self.writer = stream or 9
        self.address = device.allocate(array.nbytes, self.writer)
        device.write(self.address, array, self.writer)
        if stream is None and version == 3:
            device.order.finish(self.writer)  # as None promises
        named = {"stream": stream} if version == 3 else {}
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.address, False),
            "version": version,
            **named,
        }


class Silent(Theirs):
    """An array whose interface says nothing of streams, with DLPack beside it: PyTorch's and JAX's kind."""

    def __init__(self, device: EmulatedDevice, stream: int) -> None:
        super().__init__(device, stream, version=2)
        self.asked: list[int] = []

    def __dlpack__(self, *, stream: int) -> object:
        self.asked.append(stream)
        self.device.wait(stream, self.device.mark(self.writer))
        return object()


@pytest.fixture(scope="module")
def made() -> CompiledCuda:
    return gc.compile(counted(), target="cuda", device=EmulatedDevice())


@pytest.fixture
def f(made: CompiledCuda) -> CompiledCuda:
    """The compiled graph with nothing under way, on its device."""
    made.runner._before = None
    device_of(made).synchronize()
    device_of(made).order.log.clear()
    return made


def device_of(f: CompiledCuda) -> EmulatedDevice:
    device = f.runner.device
    assert isinstance(device, EmulatedDevice)
    return device


def zeros(f: CompiledCuda, stream: int) -> DeviceArray:
    return DeviceArray.copy_of(np.zeros(3, np.float32), device_of(f), stream)


def test_on_the_callers_stream_nothing_waits(f: CompiledCuda) -> None:
    """Arrays of this stream and those that are settled; again and again."""
    device, total = device_of(f), zeros(f, A)
    arrays = [Theirs(device, A), Theirs(device, None), Theirs(device, A)]
    device.order.log.clear()
    for x in arrays:
        found = f.run({"x": x, "total": total}, stream=A)
    assert device.order.log == []
    assert found["twice"].__cuda_array_interface__["stream"] == A
    assert total.__cuda_array_interface__["stream"] == A
    np.testing.assert_array_equal(total.numpy(), 3 * X.sum(0))
    assert device.order.log == [("finish", A)]


def test_other_streams_are_waited_for_once(f: CompiledCuda) -> None:
    device, total = device_of(f), zeros(f, B)
    f.run({"x": Theirs(device, B), "total": total}, stream=A)
    assert device.order.log == [("wait", A)]
    f.run({"x": Theirs(device, None), "total": total}, stream=B)
    assert device.order.log[2:] == [("wait", B)]  # for the params and for the memory that calls share


def test_calls_share_memory(f: CompiledCuda) -> None:
    """So a call on another stream waits for the one before, also where the arrays are settled."""
    device = device_of(f)
    first, second = (Theirs(device, None, array=np.zeros(3, np.float32)) for _ in "ab")
    x = Theirs(device, None)
    device.order.log.clear()
    for total, stream in ((first, A), (second, B), (second, B)):
        f.run({"x": x, "total": total}, stream=stream)
        if stream == A:
            x = Theirs(device, None)
            device.order.log.clear()
    assert device.order.log == [("wait", B)]


def test_a_call_that_fails_is_waited_for() -> None:
    """It has begun to copy an array of the host to where the next call copies its own."""
    device = EmulatedDevice(size=1 << 16)
    f = gc.compile(counted(), target="cuda", device=device)
    total = zeros(f, A)
    f.run({"x": X, "total": total}, stream=A)
    device.finish(A)
    held = device.allocate(device._free - 20, A)
    with pytest.raises(MemoryError):
        f.run({"x": X, "total": total}, stream=A)
    device.free(held, A)
    found = f.run({"x": X, "total": zeros(f, B)}, stream=B)
    np.testing.assert_array_equal(found["twice"].numpy(), 2 * X)  # type: ignore[union-attr]


def test_the_thread_s_stream_is_another_in_every_thread(f: CompiledCuda) -> None:
    device = device_of(f)
    x, total = Theirs(device, None), Theirs(device, None, array=np.zeros(3, np.float32))
    device.order.log.clear()
    f.run({"x": x, "total": total}, stream=2)
    f.run({"x": x, "total": total}, stream=2)
    assert device.order.log.count(("wait", 2)) == 1


def test_a_result_of_a_thread_s_stream_is_used_in_another_thread(f: CompiledCuda) -> None:
    """It is read, given away and given back behind the work of the thread that made it."""
    device = device_of(f)
    x, total, done = DeviceArray.copy_of(0 * X, device, 2), zeros(f, 2), []

    def elsewhere(found: list[DeviceArray]) -> None:
        np.testing.assert_array_equal(found[0].numpy(), np.zeros((2, 3)))
        found[1].__dlpack__(stream=2)
        device.order.work(2, [found[1].address])
        found.clear()
        memory.collect()
        done.append(True)

    found = [f.run({"x": x, "total": total}, stream=2)["twice"] for _ in range(2)]
    thread = threading.Thread(target=elsewhere, args=(found,))
    thread.start()
    thread.join()
    assert done


def test_without_a_stream_the_call_ends(f: CompiledCuda) -> None:
    device = device_of(f)
    x, total = Theirs(device, B), zeros(f, OWN)
    found = f(x=x, total=total)
    assert device.order.log == [("wait", OWN), ("finish", OWN)]
    assert found["twice"].__cuda_array_interface__["stream"] is None
    assert total.__cuda_array_interface__["stream"] is None


def test_silence_means_all_streams_unless_one_is_given(f: CompiledCuda) -> None:
    device, total = device_of(f), zeros(f, OWN)
    f(x=Theirs(device, B, version=2), total=total)
    assert device.order.log == [("synchronize",), ("finish", OWN)]
    device.order.log.clear()
    f.run({"x": Theirs(device, A, version=2), "total": total}, stream=A)
    assert device.order.log == []


def test_dlpack_makes_the_order_where_the_interface_is_silent(f: CompiledCuda) -> None:
    device, total = device_of(f), zeros(f, OWN)
    x = Silent(device, B)
    f(x=x, total=total)
    f.run({"x": x, "total": total}, stream=A)
    assert x.asked == [OWN, A]
    assert device.order.log == [("wait", OWN), ("finish", OWN), ("wait", A)]


def test_arrays_of_the_host_are_waited_for_on_the_stream(f: CompiledCuda) -> None:
    total = np.zeros(3, np.float32)
    found = f.run({"x": X, "total": total}, stream=A)
    assert set(device_of(f).order.log) == {("finish", A)}
    np.testing.assert_array_equal(total, X.sum(0))
    np.testing.assert_array_equal(found["twice"], 2 * X)


def test_consumers_of_dlpack_say_where_they_work(f: CompiledCuda) -> None:
    device, array = device_of(f), zeros(f, A)
    for stream, waits in ((A, []), (-1, []), (B, [B]), (None, [1]), (1, [])):
        device.order.log.clear()
        array.__dlpack__(stream=stream)
        assert device.order.log == [("wait", s) for s in waits]
        device.order.work(array.stream or 0, [array.address])
    with pytest.raises(ArgumentError, match=r"__dlpack__ is 0.*legacy"):
        array.__dlpack__(stream=0)


def test_a_capsule_that_nobody_takes_frees_itself(f: CompiledCuda) -> None:
    array = zeros(f, A)
    before = len(_Exported.alive)
    capsule = array.__dlpack__(stream=A)
    assert len(_Exported.alive) == before + 1
    del capsule
    assert len(_Exported.alive) == before


@pytest.mark.parametrize(
    ("stream", "handle"),
    [(1, 1), (2, 2), (A, A), *((SimpleNamespace(**{k: v}), v or 1) for k in ("cuda_stream", "ptr") for v in (0, A))],
)
def test_handles(stream: object, handle: int) -> None:
    assert stream_handle(stream) == handle


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (0, "names no stream"),
        (-1, "positive"),
        (True, "True, expected a CUDA stream"),
        ("s", r"\.cuda_stream.*\.ptr"),
        (SimpleNamespace(ptr="s"), "'s', expected"),
    ],
)
def test_bad_streams(f: CompiledCuda, stream: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        f.run({"x": X, "total": np.zeros(3, np.float32)}, stream=stream)


@pytest.mark.parametrize("stream", [0, "7"])
def test_arrays_with_bad_streams(f: CompiledCuda, stream: Any) -> None:
    x = Theirs(device_of(f), None)
    x.__cuda_array_interface__["stream"] = stream
    with pytest.raises(ArgumentError, match="the stream of x is"):
        f(x=x, total=np.zeros(3, np.float32))


STREAMS = st.sampled_from([None, A, B])


@given(st.lists(st.tuples(st.sampled_from(["call", "host", "theirs", "give", "read", "drop"]), STREAMS), max_size=12))
def test_any_use_is_in_order(made: CompiledCuda, uses: list[tuple[str, int | None]]) -> None:
    """Calls, copies, other libraries' work and the end of arrays, on any streams: results are right, nothing accesses
    memory at the same time, and the host waits for nothing that lies on the GPU."""
    device, f = device_of(made), made
    total, expected = zeros(f, A), 0
    x: Any = DeviceArray.copy_of(X, device)
    for use, stream in uses:
        device.order.log.clear()
        match use:
            case "call" | "host":
                f.run({"x": X if use == "host" else x, "total": total}, stream=stream)
                waits = {entry[0] for entry in device.order.log}
                assert stream is None or waits <= {"wait"}
                expected += 1
            case "theirs":
                x = Theirs(device, stream)
            case "give":
                total.__dlpack__(stream=stream)
                device.order.work(stream or 1, [total.address])
            case "read":
                np.testing.assert_array_equal(total.numpy(), expected * X.sum(0))
            case "drop":
                x = DeviceArray.copy_of(X, device, stream)
                memory.collect(0)
    np.testing.assert_array_equal(total.numpy(), expected * X.sum(0))


def test_the_driver_is_told() -> None:
    """A mark is an event without timing; it goes when nobody knows it."""
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    driver.called.clear()
    device.wait(B, device.mark(A))
    device.finish(A)
    assert driver.calls() == [
        ("cuEventCreate", 2),
        ("cuEventRecord", "cuEventCreate result", A),
        ("cuStreamWaitEvent", B, "cuEventCreate result", 0),
        ("cuEventDestroy", "cuEventCreate result"),
        ("cuStreamSynchronize", A),
    ]


@pytest.mark.parametrize("offset", [0, 4], ids=["aligned", "not"])
def test_results_in_arrays_of_others(offset: int) -> None:
    """Aligned, so that kernels write to them, and not; two outputs that are one value, of which one is given."""
    device = EmulatedDevice()
    g = gc.Graph("g")
    x = g.input("x", (3,), over=g.axis("n"))
    g.output("y", 2 * x)
    g.output("same", 2 * x)
    g.output("more", x + 1)
    f = gc.compile(g, target="cuda", device=device)
    there = [Theirs(device, B, array=np.zeros(8, np.float32)) for _ in range(3)]
    targets = {}
    for name, array in zip(("y", "same", "more"), there, strict=True):
        address = array.address + offset
        targets[name] = Foreign(address, (2, 3), "float32", True, B, array)
    for names in (["y", "more"], ["y", "same", "more"], ["same"]):
        found = f.run({"x": Theirs(device, A)}, stream=A, into={name: targets[name] for name in names})
        assert set(found) == {"y", "same", "more"} - set(names)
        results = {name: array.numpy() for name, array in found.items()}
        for name in names:
            results[name] = np.empty((2, 3), np.float32)
            device.read(results[name], targets[name].address, A)
        for name, expected in {"y": 2 * X, "same": 2 * X, "more": X + 1}.items():
            np.testing.assert_array_equal(results[name], expected)


def test_arrays_of_others_that_results_do_not_fit_in(f: CompiledCuda) -> None:
    device, x = device_of(f), Theirs(device_of(f), A)
    given = {"x": x, "total": zeros(f, A)}
    wrong = [
        np.zeros((2, 3), np.float32),
        Theirs(device, A, array=np.zeros((3, 2), np.float32)),
        Theirs(device, A, array=np.zeros((2, 3), np.int32)),
        Foreign(Theirs(device, A).address, (2, 3), "float32", False, None, None),
    ]
    for array in wrong:
        with pytest.raises(ArgumentError, match="twice is written to, so it must be a writeable array on the GPU of"):
            f.run(given, stream=A, into={"twice": array})
    with pytest.raises(ArgumentError, match="twice is written to, but shares memory with x"):
        f.run(given, stream=A, into={"twice": x})
    with pytest.raises(ArgumentError, match="has no output 'thrice'; did you mean 'twice'"):
        f.run(given, stream=A, into={"thrice": x})
