"""The GPU through NVIDIA's driver: memory, copies, modules, launches, graphs of launches.

A `Device` is all that running a program needs; addresses are integers. `nvidia_device` gives the machine's first GPU
through the package cuda-bindings (`pip install 'graphc-compiler[cuda]'`), which calls the driver's C interface. All
work goes to one stream, in order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graphc.errors import UnsupportedError

__all__ = ["Device", "Prepared", "nvidia_device"]

_OLDEST_DRIVER = 12000  # of CUDA 12.0, the first that takes PTX 8.0
_MOST_GRAPHS = 32  # that are kept
_PORTABLE_CLUSTER = 8  # CTAs: for more, a function must be told first
_STATIC_SHARED = 48 * 1024  # bytes: the same


@dataclass(frozen=True, slots=True)
class Prepared:
    """One launch with its arguments: addresses and counts, 64 bits each."""

    symbol: str
    grid: int
    block: int
    cluster: int
    shared: int
    cooperative: bool
    arguments: tuple[int, ...]


class Device(Protocol):
    """Where a program's kernels run."""

    @property
    def arch(self) -> str:
        """Its compute capability: "sm_90"."""

    @property
    def sms(self) -> int:
        """How many SMs it has."""

    def load(self, ptx: str) -> Any:
        """A module of PTX, ready to be launched from."""

    def allocate(self, size: int) -> int:
        """The address of new memory. Raises `MemoryError`, saying how much there is, if it does not fit."""

    def free(self, address: int) -> None: ...

    def clear(self, address: int, size: int) -> None:
        """Fill memory with zeros."""

    def write(self, address: int, array: np.ndarray) -> None:
        """Copy an array, contiguous, to the device."""

    def read(self, array: np.ndarray, address: int) -> None:
        """Copy from the device to an array, contiguous; what was launched before has ended then."""

    def run(self, module: Any, launches: Sequence[Prepared]) -> None:
        """Make launches, one after another."""

    def synchronize(self) -> None:
        """Wait until all that was launched has ended, by other libraries too."""


class NvidiaDevice:
    """A GPU through its driver's C interface."""

    def __init__(self, driver: Any, ordinal: int) -> None:
        self._driver = driver
        self._call("cuInit", 0)
        version = self._call("cuDriverGetVersion")
        if version < _OLDEST_DRIVER:
            raise UnsupportedError(
                f"the NVIDIA driver supports CUDA {version // 1000}.{version % 1000 // 10}, but graphc needs 12.0; "
                "install a newer driver"
            )
        if self._call("cuDeviceGetCount") <= ordinal:
            raise UnsupportedError(f"there is no GPU number {ordinal}")
        self._device = self._call("cuDeviceGet", ordinal)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._call("cuCtxSetCurrent", self._context)
        self.stream = self._call("cuStreamCreate", 1)  # not synchronised with the default stream
        self._functions: dict[tuple[int, str], Any] = {}
        self._graphs: dict[tuple[int, tuple[Prepared, ...]], Any] = {}
        self._last: tuple[int, tuple[Prepared, ...]] | None = None

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the driver; its result, or an error with the driver's own words."""
        result = getattr(self._driver, name)(*arguments)
        status = int(result[0])
        if status:
            _, text = self._driver.cuGetErrorString(result[0])
            said = text.decode() if isinstance(text, bytes) else text
            raise UnsupportedError(f"{name} failed with error {status}: {said}")
        return result[1] if len(result) == 2 else result[1:]

    @functools.cached_property
    def arch(self) -> str:
        major, minor = (self._attribute(f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
        return f"sm_{major}{minor}"

    @functools.cached_property
    def sms(self) -> int:
        return self._attribute("MULTIPROCESSOR_COUNT")

    def _attribute(self, name: str) -> int:
        code = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("cuDeviceGetAttribute", code, self._device))

    def load(self, ptx: str) -> Any:
        self._enter()
        return self._call("cuModuleLoadData", ptx.encode() + b"\0")

    def allocate(self, size: int) -> int:
        self._enter()
        free, total = self._call("cuMemGetInfo")
        if size > free:
            raise MemoryError(
                f"the call needs {size / 2**30:.1f} GiB more on the GPU, which has {free / 2**30:.1f} GiB free of "
                f"{total / 2**30:.1f} GiB"
            )
        return int(self._call("cuMemAllocAsync", max(size, 1), self.stream))

    def free(self, address: int) -> None:
        self._enter()
        self._call("cuMemFreeAsync", address, self.stream)

    def clear(self, address: int, size: int) -> None:
        self._enter()
        self._call("cuMemsetD8Async", address, 0, size, self.stream)

    def write(self, address: int, array: np.ndarray) -> None:
        self._enter()
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self.stream)

    def read(self, array: np.ndarray, address: int) -> None:
        self._enter()
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self.stream)
        self.synchronize()

    def synchronize(self) -> None:
        self._enter()
        self._call("cuCtxSynchronize")

    def run(self, module: Any, launches: Sequence[Prepared]) -> None:
        """Launches that are made a second time become one graph, and cost one call of the driver from then on."""
        self._enter()
        key = (id(module), tuple(launches))
        if key not in self._graphs:
            if len(launches) < 2 or key != self._last:
                self._last = key
                for launch in launches:
                    self._launch(module, launch)
                return
            if len(self._graphs) == _MOST_GRAPHS:
                self._call("cuGraphExecDestroy", self._graphs.pop(next(iter(self._graphs))))
            self._graphs[key] = self._captured(module, launches)
        self._call("cuGraphLaunch", self._graphs[key], self.stream)

    def _captured(self, module: Any, launches: Sequence[Prepared]) -> Any:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", self.stream, mode)
        for launch in launches:
            self._launch(module, launch)
        graph = self._call("cuStreamEndCapture", self.stream)
        made = self._call("cuGraphInstantiate", graph, 0)
        self._call("cuGraphDestroy", graph)
        return made

    def _launch(self, module: Any, launch: Prepared) -> None:
        config = self._driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block, 1, 1
        config.sharedMemBytes, config.hStream = launch.shared, self.stream
        config.attrs = self._attributes(launch)
        config.numAttrs = len(config.attrs)
        words = np.array(launch.arguments, np.uint64)
        addresses = words.ctypes.data + 8 * np.arange(len(words), dtype=np.uint64)
        self._call("cuLaunchKernelEx", config, self._function(module, launch), addresses.ctypes.data, 0)

    def _attributes(self, launch: Prepared) -> list[Any]:
        kinds, attributes = self._driver.CUlaunchAttributeID, []
        if launch.cluster > 1:
            cluster = self._driver.CUlaunchAttribute()
            cluster.id = kinds.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
            cluster.value.clusterDim.x = launch.cluster
            cluster.value.clusterDim.y = cluster.value.clusterDim.z = 1
            attributes.append(cluster)
        if launch.cooperative:
            together = self._driver.CUlaunchAttribute()
            together.id = kinds.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
            together.value.cooperative = 1
            attributes.append(together)
        return attributes

    def _function(self, module: Any, launch: Prepared) -> Any:
        key = (id(module), launch.symbol)
        if key not in self._functions:
            function = self._call("cuModuleGetFunction", module, launch.symbol.encode())
            if launch.cluster > _PORTABLE_CLUSTER:
                attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
                self._call("cuFuncSetAttribute", function, attribute, 1)
            if launch.shared > _STATIC_SHARED:
                attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._call("cuFuncSetAttribute", function, attribute, launch.shared)
            self._functions[key] = function
        return self._functions[key]

    def _enter(self) -> None:
        """Another library may have made its own context this thread's."""
        self._call("cuCtxSetCurrent", self._context)


@functools.cache
def nvidia_device(ordinal: int = 0) -> Device:
    """A GPU of this machine. Raises `UnsupportedError` where the package, a driver or a GPU is missing."""
    try:
        from cuda.bindings import driver
    except ImportError:
        raise UnsupportedError(
            "target='cuda' needs the package cuda-bindings: pip install 'graphc-compiler[cuda]'"
        ) from None
    try:
        return NvidiaDevice(driver, ordinal)
    except RuntimeError as error:
        raise UnsupportedError(
            f"no NVIDIA driver was found ({error}); gc.emit(graph, target='cuda', arch=…) makes code without one"
        ) from None
