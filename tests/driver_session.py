"""A process in which cuda-bindings calls the emulated driver, started by `tests/test_cuda_bindings.py`.

    python -m tests.driver_session FOLDER

builds the driver in the folder, does what users do on a GPU, and fails where something is not as on the CPU.
"""

from __future__ import annotations

import gc as garbage
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.driver.dlpack import DeviceArray, Foreign
from graphc.codegen.cuda.driver.driver import NvidiaDevice, nvidia_device
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.runtime.results import DeviceResults
from tests.cuda_emulated import Arrays, arrays_of, recurrent, ways
from tests.driver_library import CONTEXT, DriverLibrary


def close(found: object, expected: object) -> None:
    for name, value in expected.items():
        there = found[name]
        array = there if isinstance(there, np.ndarray) else there.numpy()
        np.testing.assert_allclose(array, value, rtol=1e-4, atol=1e-5, err_msg=name)


def calls(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """The first call launches, the second makes a graph, the third runs it; a longer sequence launches again."""
    f = gc.compile(g, target="cuda")
    expected = gc.compile(g)(**arrays)
    for graphs in (0, 1, 2):
        close(f(**arrays), expected)
        assert driver.called.count("cuGraphLaunch") == graphs
    longer = arrays_of(g, t=9, n=2)
    close(f(**longer), gc.compile(g)(**longer))


def longer_batches(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """A kernel is told of each launch that asks for more shared memory than those before."""
    assert driver.threshold == 2**64 - 1
    f = gc.compile(g, target="cuda")
    for n in (1, 5, 33):
        batch = arrays_of(g, t=2, n=n)
        close(f(**batch), gc.compile(g)(**batch))


def groupings(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """Clusters and grids of CTAs that wait for each other are launched as such."""
    f = gc.compile(g, target="cuda")
    expected = gc.compile(g)(**arrays)
    driver.launched.clear()
    for chosen in ways(f, {"t": 4, "n": 2}):
        close(f.runner(arrays, chosen), expected)
    assert any(cluster > 1 for _, cluster, _, _ in driver.launched)
    assert any(together for _, _, together, _ in driver.launched)


def few_sms_side_by_side(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """A GPU may have fewer SMs for a cluster than its architecture allows; larger ones are an error of the driver's."""
    assert max(nvidia_device().clusters) == 16
    driver.side_by_side = 5
    device = NvidiaDevice(nvidia_device()._driver, 0)
    assert [size for size, count in device.clusters.items() if count] == [2, 4]
    f = gc.compile(g, target="cuda", device=device)
    expected = gc.compile(g)(**arrays)
    driver.launched.clear()
    for chosen in ways(f, {"t": 4, "n": 2}):
        close(f.runner(arrays, chosen), expected)
    assert max(cluster for _, cluster, _, _ in driver.launched) <= 4
    driver.side_by_side = 16


def arrays_there(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """Arrays on the GPU are used where they lie, on the caller's stream."""
    f = gc.compile(g, target="cuda")
    there = f.upload(arrays)
    stream = driver.new_stream()
    driver.launched.clear()
    found = f.run(there, stream=stream)
    assert isinstance(found, DeviceResults)
    assert {s for _, _, _, s in driver.launched} == {stream}
    expected = gc.compile(g)(**arrays)
    close(found, expected)
    room = f.upload({name: np.zeros(array.size + 1, array.dtype) for name, array in expected.items()})
    unaligned = {
        name: Foreign(room[name].address + array.itemsize, array.shape, array.dtype.name, True, None, room[name])
        for name, array in expected.items()
    }
    assert not f.run(there, stream=stream, into=unaligned)
    close({name: room[name].numpy()[1:].reshape(array.shape) for name, array in expected.items()}, expected)


def bound_calls(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """In the device's context, from the third on, a bound call says five things to the driver: which context is
    current, the graph, the event behind it."""
    f = gc.compile(g, target="cuda")
    stream, expected = driver.new_stream(), gc.compile(g)(**arrays)
    call = f.bind(**f.upload(arrays))
    for _ in range(3):
        driver.called.clear()
        call(stream=stream)
    said = [name for name in driver.called if name != "cuCtxGetCurrent"]
    assert said == ["cuGraphLaunch", "cuEventCreate", "cuEventRecord", "cuEventDestroy"]
    close(call.results, expected)
    close(f.bind(**arrays)(), expected)


def contexts_of_others(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """What is current in a thread stays so: PyTorch's, for another GPU; none, in a new thread."""
    expected = gc.compile(g)(**arrays)
    for context in ([], [5], [5, CONTEXT], [CONTEXT, 5]):
        driver.contexts = list(context)
        f = gc.compile(g, target="cuda")
        close(f(**arrays), expected)
        close(f(**f.upload(arrays)), expected)
        with pytest.raises(MemoryError):
            nvidia_device().allocate(driver.free + 1, nvidia_device().stream)
        f = None
        garbage.collect()
        assert driver.contexts == context
    driver.contexts = [CONTEXT]


def profiles(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """Events with timing between the launches of a graph, and arrays that stay as they are."""
    f = gc.compile(g, target="cuda")
    before = {name: array.copy() for name, array in arrays.items()}
    driver.called.clear()
    made = f.profile(2, **arrays)
    assert driver.called.count("cuGraphAddEventRecordNode") == len(made.parts) + 1
    assert driver.called.count("cuEventElapsedTime") == 2 * len(made.parts)
    assert all(part.seconds > 0 for part in made.parts)
    close(arrays, before)
    assert len(f.profile(1, **f.upload(arrays)).parts) == len(made.parts)


def limited_memory(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """Chunks are launches of one graph, and leave nothing more on the GPU than the limit says."""
    longer = arrays_of(g, t=60, n=2)
    limit = gc.compile(g, target="cuda").memory(t=60, n=2).peak // 2
    f = gc.compile(g, target="cuda", memory=limit)
    expected, before = gc.compile(g)(**longer), driver.free
    driver.called.clear()
    close(f(**longer), expected)
    loaded = driver.called.count("cuModuleLoadData")
    close(f(**longer), expected)
    assert driver.called.count("cuGraphLaunch") == 1
    assert driver.called.count("cuModuleLoadData") == loaded
    assert before - driver.free <= limit + sum(array.nbytes for array in longer.values())
    close(f(**arrays), gc.compile(g)(**arrays))  # in one piece
    assert driver.called.count("cuModuleLoadData") > loaded


def pinned_memory(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """The driver reads pinned memory later, so that a call waits before its caller may change it."""
    device = nvidia_device()
    waits = []
    for pinned in (set(), {arrays["x"].ctypes.data}):
        driver.pinned = pinned
        driver.called.clear()
        DeviceArray.copy_of(arrays["x"], device)
        waits.append(driver.called.count("cuStreamSynchronize"))
    assert waits == [0, 1]


def memory_comes_back(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    """A compiled graph that is gone leaves nothing behind."""
    before = driver.free
    loaded = driver.modules
    f: CompiledCuda | None = gc.compile(g, target="cuda")
    for _ in range(3):
        f(**arrays)
    assert driver.free < before
    assert driver.modules > loaded
    f = None
    garbage.collect()
    assert (driver.free, driver.modules) == (before, loaded)
    for number in range(4):  # one after another, perhaps where the one before lay
        other = gc.Graph("scaled")
        n = other.axis("n")
        other.output("y", other.input("x", (3,), over=n) * float(number))
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(gc.compile(other, target="cuda")(x=x)["y"], x * number)


def errors(driver: DriverLibrary, g: gc.Graph, arrays: Arrays) -> None:
    device = nvidia_device()
    with pytest.raises(MemoryError, match="GiB free of"):
        device.allocate(driver.free + 1, device.stream)
    with pytest.raises(gc.errors.UnsupportedError, match="cuStreamWaitEvent failed with error 400: an error"):
        device._call("cuStreamWaitEvent", device.stream, 1, 0)


def main(folder: str) -> None:
    driver = DriverLibrary(Path(folder))
    g = recurrent("gru", 8)
    arrays = arrays_of(g, t=4, n=2)
    for step in (
        calls,
        longer_batches,
        groupings,
        few_sms_side_by_side,
        arrays_there,
        contexts_of_others,
        bound_calls,
        profiles,
        limited_memory,
        pinned_memory,
        memory_comes_back,
        errors,
    ):
        step(driver, g, arrays)
        assert not driver.mistakes, driver.mistakes
        print(f"{step.__name__}: as on the CPU", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
