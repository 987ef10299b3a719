"""The driver's interface and the exchange of arrays, without a driver: a stand-in records what is called."""

from __future__ import annotations

import dataclasses
import gc as garbage
import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.driver.dlpack import DeviceArray, foreign
from graphc.codegen.cuda.driver.driver import NvidiaDevice, Prepared, nvidia_device
from graphc.codegen.cuda.isa.arch import arch_of_device
from graphc.errors import ArgumentError, UnsupportedError
from graphc.runtime.results import DeviceResults
from tests.cuda_emulated import EmulatedDevice, arrays_of, loops_of, recurrent, ways

OWN = 1000  # the handle of the device's own stream


@dataclass(frozen=True)
class Failure:
    """A result of the stand-in: the function fails."""

    status: int


class Driver:
    """Stands in for the module cuda.bindings.driver: every function succeeds, with a result of `results`."""

    def __init__(self, **results: Any) -> None:
        self.results = {"cuDriverGetVersion": 13000, "cuDeviceGetCount": 1, "cuMemGetInfo": (100, 200)}
        self.results |= {"cuStreamCreate": OWN, "cuMemAllocAsync": 4096, **results}
        self.called: list[tuple[Any, ...]] = []
        self.CUlaunchConfig = self.CUDA_KERNEL_NODE_PARAMS = SimpleNamespace
        self.CUkernelNodeAttrValue = lambda: SimpleNamespace(clusterDim=SimpleNamespace())
        self.CUlaunchAttribute = lambda: SimpleNamespace(value=self.CUkernelNodeAttrValue())
        names = SimpleNamespace(
            CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION="cluster",
            CU_LAUNCH_ATTRIBUTE_COOPERATIVE="cooperative",
            CU_LAUNCH_ATTRIBUTE_PRIORITY="priority",
            CU_POINTER_ATTRIBUTE_MEMORY_TYPE="type",
            CU_MEMPOOL_ATTR_RELEASE_THRESHOLD="threshold",
            CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared",
            CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED="large",
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="MAJOR",
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="MINOR",
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="COUNT",
            CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH="CLUSTERS",
            CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN="SHARED",
        )
        self.CUlaunchAttributeID = self.CUkernelNodeAttrID = self.CUfunction_attribute = names
        self.CUdevice_attribute = self.CUmemPool_attribute = self.CUpointer_attribute = names

    def cuGetErrorString(self, status: int) -> tuple[int, bytes]:
        return 0, b"out of order"

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> tuple[Any, ...]:
            self.called.append((name, *arguments))
            result = self.results.get(name, f"{name} result")
            if isinstance(result, Failure):
                return (result.status,)
            return (0, *result) if isinstance(result, tuple) else (0, result)

        return call

    def names(self) -> list[str]:
        """The names of `calls`."""
        return [call[0] for call in self.calls()]

    def calls(self) -> list[tuple[Any, ...]]:
        """What was called, without the functions about the current context."""
        about = {"cuCtxGetCurrent", "cuCtxPushCurrent", "cuCtxPopCurrent"}
        return [call for call in self.called if call[0] not in about]


def in_turn() -> list[tuple[int, ...]]:
    """The order of two launches."""
    return [(), (0,)]


def of(module: Any, *launches: Prepared) -> list[Prepared]:
    """The launches, of a module's kernels."""
    return [dataclasses.replace(launch, module=module) for launch in launches]


def launch(symbol: str = "k", **changes: Any) -> Prepared:
    given = {"grid": 4, "block": 256, "cluster": 1, "shared": 0, "cooperative": False, "arguments": (1, 2), **changes}
    return Prepared(None, symbol, **given)


def test_an_old_driver_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"CUDA 11\.8.*12\.3"):
        NvidiaDevice(Driver(cuDriverGetVersion=11080), 0)


def test_a_machine_without_a_gpu() -> None:
    with pytest.raises(UnsupportedError, match="no GPU number 0"):
        NvidiaDevice(Driver(cuDeviceGetCount=0), 0)


def test_what_the_driver_says_is_passed_on() -> None:
    with pytest.raises(UnsupportedError, match="cuInit failed with error 7: out of order"):
        NvidiaDevice(Driver(cuInit=Failure(7)), 0)


def test_a_driver_that_is_too_old_for_the_code() -> None:
    driver = Driver(cuModuleLoadData=Failure(222))
    driver.cuDeviceGetAttribute = lambda code, _: (0, {"MAJOR": 12, "MINOR": 0}[code])  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedError, match=r"too old for PTX 8\.7, which a GPU sm_120 needs; install a newer"):
        NvidiaDevice(driver, 0).load("// made\n.version 8.7\n.target sm_120\n")


def test_too_little_memory() -> None:
    device = NvidiaDevice(Driver(cuMemAllocAsync=Failure(2)), 0)
    with pytest.raises(MemoryError, match="GiB free of"):
        device.allocate(101, OWN)


def test_a_forked_process_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    driver.results["cuCtxGetCurrent"] = Failure(3)
    with pytest.raises(UnsupportedError, match="failed with error 3"):
        device.synchronize()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(UnsupportedError, match=r"was forked from .*'spawn'"):
        device.synchronize()


def test_a_missing_package_and_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_device.cache_clear()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(UnsupportedError, match=r"graphc-compiler\[cuda\]"):
        nvidia_device()

    class Missing(Driver):
        def cuInit(self, flags: int) -> None:
            raise RuntimeError("libcuda.so was not found")

    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=Missing()))
    with pytest.raises(UnsupportedError, match=r"no NVIDIA driver.*libcuda.*gc\.emit"):
        nvidia_device()


def test_launches_say_how_ctas_hang_together() -> None:
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    device.launcher(of(device.load(""), launch(cluster=16, shared=100_000, cooperative=True)), in_turn)(7)
    (config,) = [call[1] for call in driver.called if call[0] == "cuLaunchKernelEx"]
    assert [attribute.id for attribute in config.attrs] == ["cluster", "cooperative"]
    assert config.attrs[0].value.clusterDim.x == 16
    assert (config.gridDimX, config.blockDimX, config.sharedMemBytes, config.hStream) == (4, 256, 100_000, 7)
    assert [call[2:] for call in driver.called if call[0] == "cuFuncSetAttribute"] == [
        ("large", 1),
        ("shared", 100_000),
    ]


def test_a_kernels_attributes_are_raised_when_a_launch_needs_more() -> None:
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    module = device.load("")
    for shared in (0, 1000, 500, 60_000, 60_000):
        device.launcher(of(module, launch(shared=shared)), in_turn)(7)
    attributes_set = [call[2:] for call in driver.called if call[0] == "cuFuncSetAttribute"]
    assert attributes_set == [("shared", 1000), ("shared", 60_000)]
    assert driver.names().count("cuModuleGetFunction") == 1


def test_a_module_goes_with_its_graphs() -> None:
    """What a module has is the module's: the next may have kernels of the same names, and lie where it lay."""
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    for _ in range(2):
        launches = device.launcher(of(device.load(""), launch("a"), launch("b")), in_turn)
        for _ in range(3):
            launches(7)
        del launches
    for name in ("cuModuleGetFunction", "cuGraphLaunch"):
        assert driver.names().count(name) == 4
    for name in ("cuModuleLoadData", "cuModuleUnload", "cuGraphExecDestroy"):
        assert driver.names().count(name) == 2
    assert driver.names()[-2:] == ["cuCtxSynchronize", "cuModuleUnload"]


def test_a_graph_that_fails_is_given_back() -> None:
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    launches = device.launcher(of(device.load(""), launch("a"), launch("b")), in_turn)
    launches(7)
    driver.results["cuGraphAddKernelNode"] = Failure(1)
    with pytest.raises(UnsupportedError, match="cuGraphAddKernelNode failed"):
        launches(7)
    assert driver.names()[-1] == "cuGraphDestroy"
    driver.results["cuGraphAddKernelNode"] = 0
    launches(7)
    assert driver.names()[-1] == "cuGraphLaunch"


def test_nodes_wait_for_those_that_the_order_says() -> None:
    driver, made = Driver(), iter("abcd")
    driver.cuGraphAddKernelNode = lambda graph, behind, count, params: (  # type: ignore[attr-defined]
        waited.append((list(behind), count)),
        (0, next(made)),
    )[1]
    waited: list[tuple[list[str], int]] = []
    device = NvidiaDevice(driver, 0)
    launches = device.launcher(of(device.load(""), *[launch()] * 4), lambda: [(), (), (0, 1), (0,)])
    launches(7)
    launches(7)
    assert waited == [([], 0), ([], 0), (["a", "b"], 2), (["a"], 1)]


def test_nodes_of_a_graph_say_how_ctas_hang_together() -> None:
    """One behind the other; and nothing captures, since then no thread might wait for the context."""
    driver = Driver(cuGraphAddKernelNode="node")
    device = NvidiaDevice(driver, 0)
    given = [launch("a", cluster=16), launch("b", cooperative=True, shared=100_000, urgent=True)]
    launches = device.launcher(of(device.load(""), *given), in_turn)
    launches(7)
    driver.called.clear()
    launches(7)
    nodes = [call[2:] for call in driver.called if call[0] == "cuGraphAddKernelNode"]
    assert [(behind, count) for behind, count, _ in nodes] == [([], 0), (["node"], 1)]
    assert [(p.gridDimX, p.blockDimX, p.sharedMemBytes) for _, _, p in nodes] == [(4, 256, 0), (4, 256, 100_000)]
    attributes_set = [call[1:] for call in driver.called if call[0] == "cuGraphKernelNodeSetAttribute"]
    assert [attribute for _, attribute, _ in attributes_set] == ["cluster", "cooperative", "priority"]
    assert (attributes_set[0][2].clusterDim.x, attributes_set[1][2].cooperative, attributes_set[2][2].priority) == (
        16,
        1,
        -1,
    )
    assert not [name for name in driver.names() if "Capture" in name]


@pytest.mark.parametrize(
    ("launches", "active", "expected"),
    [
        (0, (), {}),
        (1, (57, 28, 0, Failure(912)), {2: 57, 4: 28, 8: 0, 16: 0}),
        (1, (66, 33, 14, 7), {2: 66, 4: 33, 8: 14, 16: 7}),
    ],
)
def test_the_clusters_are_what_can_run(launches: int, active: tuple[Any, ...], expected: dict[int, int]) -> None:
    """Fewer SMs may lie side by side than the architecture allows; each CTA takes one."""
    driver, asked = Driver(), iter(active)
    known = {"CLUSTERS": launches, "SHARED": 232_448}
    driver.cuDeviceGetAttribute = lambda code, _: (0, known[code])  # type: ignore[attr-defined]

    def occupancy(function: Any, config: Any) -> tuple[int, ...]:
        assert config.sharedMemBytes == 232_448
        assert config.gridDimX == config.attrs[0].value.clusterDim.x
        found = next(asked)
        return (found.status,) if isinstance(found, Failure) else (0, found)

    driver.cuOccupancyMaxActiveClusters = occupancy  # type: ignore[attr-defined]
    device = NvidiaDevice(driver, 0)
    assert (device.clusters, device.clusters) == (expected, expected)
    assert not list(asked)


@pytest.mark.parametrize("cluster", [1, 4])
def test_code_has_no_larger_clusters_than_the_device(cluster: int) -> None:
    g, arrays = recurrent("lstm", 16), arrays_of(recurrent("lstm", 16), t=3, n=2)
    device = EmulatedDevice(cluster=cluster)
    f = gc.compile(g, target="cuda", device=device)
    sizes = {version.ctas for unit in loops_of(f) for version in unit.versions if version.kind == "cluster"}
    assert (max(sizes) <= cluster) if cluster > 1 else not sizes
    for chosen in ways(f, {"t": 3, "n": 2}):
        f.runner(arrays, chosen)


def test_repeated_launches_become_a_graph() -> None:
    driver = Driver()
    device = NvidiaDevice(driver, 0)
    launches = device.launcher(of(device.load(""), launch("a"), launch("b")), in_turn)
    for stream in (OWN, 1, 7, OWN):
        launches(stream)
    assert driver.names().count("cuGraphLaunch") == 3
    assert [call[-1] for call in driver.called if call[0] == "cuGraphLaunch"] == [1, 7, OWN]
    assert driver.names().count("cuGraphInstantiate") == 1
    assert (driver.names().count("cuLaunchKernelEx"), driver.names().count("cuGraphAddKernelNode")) == (2, 2)


def test_code_is_made_for_the_device() -> None:
    """For its number of SMs, on which all CTAs of a loop must fit, and for the newest capability that it knows."""
    device = NvidiaDevice(Driver(), 0)
    device._driver.cuDeviceGetAttribute = lambda code, _: (0, {"MAJOR": 9, "MINOR": 0, "COUNT": 114}[code])
    assert (device.arch, device.sms) == ("sm_90", 114)
    smaller = arch_of_device("sm_90", 114, {2: 57, 4: 28, 8: 12, 16: 0})
    assert (smaller.sms, smaller.cluster) == (114, 8)
    assert [smaller.at_once(8, kind) for kind in ("cluster", "grid")] == [12, 14]
    assert (arch_of_device("sm_110", 20, {}).name, arch_of_device("sm_120", 20, {8: 2, 16: 1}).cluster) == ("sm_103", 8)
    with pytest.raises(UnsupportedError, match="sm_75"):
        arch_of_device("sm_75", 40, {})


# Arrays.


def test_an_array_that_begins_inside_of_an_element() -> None:
    """A GPU would end the process's work at the first load."""
    device = EmulatedDevice()
    f, whole = gc.compile(counted(), target="cuda", device=device), Theirs(np.ones((3, 3), np.float32), device)
    moved = whole.__cuda_array_interface__
    moved |= {"data": (moved["data"][0] + 2, False), "shape": (2, 3)}
    with pytest.raises(ArgumentError, match=r"x begins at .* no multiple of its elements' 4 bytes"):
        f(x=whole, total=np.zeros(3, np.float32))


class Theirs:
    """Another library's array on the device."""

    def __init__(self, array: np.ndarray, device: EmulatedDevice, strides: tuple[int, ...] | None = None) -> None:
        address = device.allocate(array.nbytes, device.stream)
        device.write(address, array, device.stream)
        device.finish(device.stream)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (address, False),
            "version": 3,
            "strides": strides,
        }


def counted() -> gc.Graph:
    """Adds its input to a param, in place."""
    g = gc.Graph("counted")
    n = g.axis("n")
    x, total = g.input("x", (3,), over=n), g.param("total", (3,), init="zeros")
    g.update("total", total + gc.sum(x, over=n))
    g.output("twice", x * 2.0)
    return g


def test_what_is_updated_shares_memory_with_nothing_that_is_read() -> None:
    """Code takes what it only reads for something that stays as it is."""
    device = EmulatedDevice()
    f, whole = gc.compile(counted(), target="cuda", device=device), Theirs(np.ones((2, 3), np.float32), device)
    row = Theirs(np.ones(3, np.float32), device)
    f(x=whole, total=row)
    for start in (0, 12, 8):
        row.__cuda_array_interface__["data"] = (whole.__cuda_array_interface__["data"][0] + start, False)
        with pytest.raises(ArgumentError, match="total is written to, but shares memory with x"):
            f(x=whole, total=row)


def test_arrays_on_the_device_are_not_copied() -> None:
    device = EmulatedDevice()
    f = gc.compile(counted(), target="cuda", device=device)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    total = DeviceArray.copy_of(np.zeros(3, np.float32), device)
    theirs = Theirs(x, device)
    found = f(x=theirs, total=total)
    assert isinstance(found, DeviceResults)
    assert any(theirs.__cuda_array_interface__["data"][0] in launch.arguments for launch in device.launched)
    np.testing.assert_array_equal(found["twice"].numpy(), 2 * x)
    np.testing.assert_array_equal(total.numpy(), x.sum(0))
    f(x=theirs, total=total)
    np.testing.assert_array_equal(total.numpy(), 2 * x.sum(0))


def test_arrays_of_the_host_are_updated_in_place() -> None:
    total = np.zeros(3, np.float32)
    x = np.ones((4, 3), np.float32)
    found = gc.compile(counted(), target="cuda", device=EmulatedDevice())(x=x, total=total)
    assert isinstance(found["twice"], np.ndarray)
    np.testing.assert_array_equal(total, [4, 4, 4])


def test_dlpack_goes_both_ways() -> None:
    device = EmulatedDevice()
    array = DeviceArray.copy_of(np.arange(6, dtype=np.int32).reshape(2, 3), device)

    class Dlpack:  # offers nothing else
        __dlpack__, __dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    found = foreign("x", Dlpack(), device.stream)
    assert found is not None
    assert (found.address, found.shape, found.dtype) == (array.address, (2, 3), "int32")
    assert foreign("x", np.ones(3), device.stream) is None


def test_a_capsule_is_no_copy() -> None:
    """What would be one is refused, as DLPack says, instead of sharing memory unasked."""
    array = DeviceArray.copy_of(np.ones(3, np.float32), EmulatedDevice())
    for asked in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match=r"\.numpy\(\) copies"):
            array.__dlpack__(**asked)  # type: ignore[arg-type]
    assert array.__dlpack__(copy=False, dl_device=(2, 0), max_version=(1, 0))


@pytest.mark.parametrize("strides", [(12, 4), (4, 4), None])
def test_an_empty_array_may_have_any_strides(strides: tuple[int, ...] | None) -> None:
    device = EmulatedDevice()
    theirs = Theirs(np.ones((0, 3), np.float32), device, strides)
    found = foreign("x", theirs, device.stream)
    assert found is not None
    assert found.bytes == 0
    theirs.__cuda_array_interface__["shape"] = (3, 0)
    assert foreign("x", theirs, device.stream) is not None


def test_an_array_on_another_gpu() -> None:
    device = EmulatedDevice()
    theirs = Theirs(np.ones((2, 3), np.float32), device)
    theirs.__dlpack_device__ = lambda: (2, 1)  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match="x lies on GPU number 1, but graphc runs on number 0"):
        gc.compile(counted(), target="cuda", device=device)(x=theirs, total=np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("array", "strides", "message"),
    [
        (np.ones((2, 3), np.float32), (4, 8), "contiguous"),
        (np.ones((2, 3), np.float32), (15, 5), "contiguous"),  # a field of packed records
        (np.ones((2, 3), np.float64), None, "float64, expected float32"),
        (np.ones((2, 4), np.float32), None, r"shape \(2, 4\)"),
    ],
)
def test_arrays_that_do_not_fit(array: np.ndarray, strides: tuple[int, ...] | None, message: str) -> None:
    device = EmulatedDevice()
    f = gc.compile(counted(), target="cuda", device=device)
    with pytest.raises(ArgumentError, match=message):
        f(x=Theirs(array, device, strides), total=np.zeros(3, np.float32))


def test_memory_is_kept_and_given_back() -> None:
    device = EmulatedDevice(size=10_000_000)
    at_first = device._free
    f = gc.compile(counted(), target="cuda", device=device)
    total = np.zeros(3, np.float32)
    small, large = np.ones((2, 3), np.float32), np.ones((5000, 3), np.float32)
    f(x=small, total=total)
    before = device._free
    f(x=small, total=total)
    assert device._free == before
    f(x=large, total=total)
    f(x=small, total=total)
    np.testing.assert_array_equal(total, 5006)
    with pytest.raises(MemoryError, match="free"):
        f(x=np.ones((1_000_000, 3), np.float32), total=total)
    del f
    garbage.collect()  # the error above knows it still
    assert device._free == at_first


def test_training_keeps_the_state_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = EmulatedDevice()
    monkeypatch.setattr(sys.modules["graphc.compiling.compile"], "nvidia_device", lambda: device)
    g = gc.Graph("line")
    n = g.axis("n")
    x, y = g.input("x", (2,), over=n), g.input("y", (), over=n)
    w = g.param("w", (2,))
    g.output("loss", gc.mean((gc.sum(w * x) - y) ** 2, over=n))
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.1))
    batch = {"x": np.eye(2, dtype=np.float32), "y": np.array([1, -1], np.float32)}
    runs = [gc.fit(step, [batch] * 3, epochs=2, quiet=True, target=target) for target in ("cpu", "cuda")]
    assert [record["loss"] for record in runs[1].history] == pytest.approx([r["loss"] for r in runs[0].history])
    for name, array in runs[0].state.items():
        np.testing.assert_allclose(runs[1].state[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_code_is_made_when_it_is_needed() -> None:
    """What every call runs when a graph is compiled; of a loop's versions the one that lengths choose, and once."""
    device = EmulatedDevice()
    texts: list[str] = []
    load = device.load
    device.load = lambda text: texts.append(text) or load(text)  # type: ignore[method-assign, func-returns-value]
    g = recurrent("lstm", 16)
    f = gc.compile(g, target="cuda", device=device)
    assert [("_loop_" in text) for text in texts] == [False]
    for batch in (2, 2, 3):
        f(**arrays_of(g, t=3, n=batch))
    assert len(texts) == 3
    assert all(text.count(".entry") == 1 for text in texts[1:])
    whole = gc.emit(g, target="cuda")
    assert sum(text.count(".entry") for text in texts) < whole.ptx.count(".entry")
