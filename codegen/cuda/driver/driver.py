"""The GPU through NVIDIA's driver: memory, copies, modules, launches, graphs of launches.

A `Device` has all that running a program needs; addresses are integers. `nvidia_device` gives the machine's first GPU
through the package cuda-bindings (`pip install 'graphc-compiler[cuda]'`), which calls the driver's C interface. Work is
queued on streams, named by their handles. A stream does its work in order; between two streams only a mark (an event)
and a wait for it make an order.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np

from graphc.codegen.cuda.driver.driver_structs import Arguments, Prepared, launch_config, node_attributes, node_params
from graphc.errors import UnsupportedError

__all__ = ["Device", "Order", "Prepared", "nvidia_device"]

_OLDEST_DRIVER = 12030  # of CUDA 12.3, the first that takes PTX 8.3
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_NOT_INITIALIZED = 3  # CUDA_ERROR_NOT_INITIALIZED
_UNSUPPORTED_PTX = 222  # CUDA_ERROR_UNSUPPORTED_PTX_VERSION
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: not synchronised with the legacy default stream
_NO_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_TIMING = 0  # CU_EVENT_DEFAULT
_PORTABLE_CLUSTER = 8  # CTAs: a function needs an attribute for more
_CLUSTERS = (2, 4, 8, 16)  # CTAs
_ALL_MEMORY = 2**64 - 1
_NOTHING = """\
.version 8.0
.target sm_90
.address_size 64
.visible .entry nothing() { ret; }
"""  # a kernel that does nothing, to ask how many clusters fit


_P = ParamSpec("_P")
_R = TypeVar("_R")

# For each launch the numbers of those that it must wait for. A function, since it is called only if a graph is made.
Order = Callable[[], Sequence[Sequence[int]]]


class Device(Protocol):
    """Where a program's kernels run."""

    @property
    def arch(self) -> str:
        """Its compute capability: "sm_90"."""

    @property
    def sms(self) -> int:
        """How many SMs it has."""

    @property
    def clusters(self) -> Mapping[int, int]:
        """How many clusters of each size, a power of two, can run at the same time, each CTA on an SM of its own. A GPU
        (or a MIG part of one) may have room for fewer or smaller clusters than its architecture allows."""

    def load(self, ptx: str) -> Any:
        """Load PTX as a module, whose kernels can be launched then."""

    @property
    def stream(self) -> int:
        """The handle of the device's own stream, which waits for no other."""

    def allocate(self, size: int, stream: int) -> int:
        """Allocate memory for what follows in the stream; gives its address.

        Raises `MemoryError`, which says how much is free, if it does not fit.
        """

    def free(self, address: int, stream: int) -> None:
        """Free memory when all work queued on the stream so far has ended."""

    def clear(self, address: int, size: int, stream: int) -> None:
        """Fill memory with zeros."""

    def write(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy a contiguous array to the device; the array may be changed as soon as this returns."""

    def read(self, array: np.ndarray, address: int, stream: int) -> None:
        """Copy from the device to a contiguous array; returns when all work queued on the stream has ended."""

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Copy on the device."""

    def launcher(self, launches: Sequence[Prepared], order: Order) -> Callable[[int], None]:
        """A function that makes the launches on the stream that it is called with. Each waits at least for those that
        `order` says."""

    def timed(self, launches: Sequence[Prepared]) -> Callable[[int], list[float]]:
        """A function that makes the launches, one after another, on the stream that it is called with, waits for them,
        and gives the seconds that each took. Their kernels must have been launched before."""

    def mark(self, stream: int) -> Any:
        """A mark after all work queued on the stream so far."""

    def wait(self, stream: int, mark: Any) -> None:
        """Let the stream wait for all work before the mark; the caller does not wait."""

    def finish(self, stream: int) -> None:
        """Let the caller wait until all work queued on the stream has ended."""

    def synchronize(self) -> None:
        """Let the caller wait until all work on the device has ended, that of other libraries, too."""


def _in_context(method: Callable[Concatenate[NvidiaDevice, _P], _R]) -> Callable[Concatenate[NvidiaDevice, _P], _R]:
    """A method that works in the device's context. Another library may have made its own current in this thread, for
    another GPU; it is current again afterwards."""

    @functools.wraps(method)
    def inside(device: NvidiaDevice, /, *given: _P.args, **named: _P.kwargs) -> _R:
        if device._call("cuCtxGetCurrent") == device._context:
            return method(device, *given, **named)
        device._call("cuCtxPushCurrent", device._context)
        try:
            return method(device, *given, **named)
        finally:
            device._call("cuCtxPopCurrent")

    return inside


class NvidiaDevice:
    """A GPU through its driver's C interface."""

    def __init__(self, driver: Any, ordinal: int) -> None:
        self._driver, self._process = driver, os.getpid()
        self._call("cuInit", 0)
        version = self._call("cuDriverGetVersion")
        if version < _OLDEST_DRIVER:
            raise UnsupportedError(
                f"the NVIDIA driver supports CUDA {version // 1000}.{version % 1000 // 10}, but graphc needs 12.3; "
                "install a newer driver"
            )
        if self._call("cuDeviceGetCount") <= ordinal:
            raise UnsupportedError(f"there is no GPU number {ordinal}")
        self._device = self._call("cuDeviceGet", ordinal)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        self.stream = self._new_stream()
        self._keep_memory()

    @_in_context
    def _new_stream(self) -> int:
        return int(self._call("cuStreamCreate", _NON_BLOCKING))

    def _keep_memory(self) -> None:
        """Let the driver's pool keep freed memory. By default the pool returns it to the system whenever the host
        synchronises, and each call would have to map its outputs anew."""
        pool = self._call("cuDeviceGetDefaultMemPool", self._device)
        threshold = self._driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        self._call("cuMemPoolSetAttribute", pool, threshold, self._driver.cuuint64_t(_ALL_MEMORY))

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the driver; its result, or an error with the driver's own words."""
        return self._checked(name, getattr(self._driver, name)(*arguments))

    def _checked(self, name: str, result: tuple[Any, ...]) -> Any:
        status = int(result[0])
        if status == _NOT_INITIALIZED and os.getpid() != self._process:
            raise UnsupportedError(
                "this process was forked from one that uses the GPU, which CUDA does not allow; start it by "
                "multiprocessing.get_context('spawn'), and compile there"
            )
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

    @functools.cached_property
    def clusters(self) -> dict[int, int]:
        if not self._attribute("CLUSTER_LAUNCH"):
            return {}
        module, shared = self.load(_NOTHING), self._attribute("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
        asked = {size: Prepared(module, "nothing", size, 32, size, shared, False, ()) for size in _CLUSTERS}
        return {size: self._clusters(launch) for size, launch in asked.items()}

    @_in_context
    def _clusters(self, launch: Prepared) -> int:
        """How many clusters of a launch can run at the same time. The driver reports an error for impossible sizes."""
        function = self._function(launch)
        config = launch_config(self._driver, launch, self.stream)
        status, *found = self._driver.cuOccupancyMaxActiveClusters(function, config)
        return 0 if int(status) else int(found[0])

    def _attribute(self, name: str) -> int:
        code = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(self._call("cuDeviceGetAttribute", code, self._device))

    @_in_context
    def load(self, ptx: str) -> _Module:
        result = self._driver.cuModuleLoadData(ptx.encode() + b"\0")
        if int(result[0]) == _UNSUPPORTED_PTX:
            version = ptx.partition(".version ")[2].split(maxsplit=1)[0]
            raise UnsupportedError(
                f"the NVIDIA driver is too old for PTX {version}, which a GPU {self.arch} needs; install a newer driver"
            )
        return _Module(self, self._checked("cuModuleLoadData", result))

    @_in_context
    def unload(self, module: _Module) -> None:
        """Unload a module when all work on the device has ended."""
        self.synchronize()
        self._call("cuModuleUnload", module.handle)

    @_in_context
    def allocate(self, size: int, stream: int) -> int:
        result = self._driver.cuMemAllocAsync(max(size, 1), stream)
        if int(result[0]) == _OUT_OF_MEMORY:
            free, total = self._call("cuMemGetInfo")
            raise MemoryError(
                f"the call needs {size / 2**30:.1f} GiB more on the GPU, which has {free / 2**30:.1f} GiB free of "
                f"{total / 2**30:.1f} GiB"
            )
        return int(self._checked("cuMemAllocAsync", result))

    @_in_context
    def free(self, address: int, stream: int) -> None:
        self._call("cuMemFreeAsync", address, stream)

    @_in_context
    def clear(self, address: int, size: int, stream: int) -> None:
        self._call("cuMemsetD8Async", address, 0, size, stream)

    @_in_context
    def write(self, address: int, array: np.ndarray, stream: int) -> None:
        if array.nbytes:
            self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, stream)
            if self._pinned(array.ctypes.data):
                self.finish(stream)

    def _pinned(self, address: int) -> bool:
        """Whether memory of the host is pinned. The driver reads pinned memory later; of other memory it makes a copy
        at once."""
        kind = self._driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
        return int(self._driver.cuPointerGetAttribute(kind, address)[0]) == 0

    @_in_context
    def read(self, array: np.ndarray, address: int, stream: int) -> None:
        if array.nbytes:
            self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, stream)
        self.finish(stream)

    @_in_context
    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        if size:
            self._call("cuMemcpyDtoDAsync", to, source, size, stream)

    @_in_context
    def mark(self, stream: int) -> _Event:
        event = self.event(_NO_TIMING)
        self._call("cuEventRecord", event.handle, stream)
        return event

    @_in_context
    def event(self, flags: int) -> _Event:
        """A new event, not recorded yet."""
        return _Event(self, self._call("cuEventCreate", flags))

    @_in_context
    def elapsed(self, start: _Event, end: _Event) -> float:
        """The seconds between two events that have been recorded, and have timing."""
        return 1e-3 * float(self._call("cuEventElapsedTime", start.handle, end.handle))

    @_in_context
    def wait(self, stream: int, mark: _Event) -> None:
        self._call("cuStreamWaitEvent", stream, mark.handle, 0)

    @_in_context
    def destroy(self, mark: _Event) -> None:
        """Destroy a mark. A stream that waits for it goes on waiting."""
        self._call("cuEventDestroy", mark.handle)

    @_in_context
    def finish(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    @_in_context
    def synchronize(self) -> None:
        self._call("cuCtxSynchronize")

    def launcher(self, launches: Sequence[Prepared], order: Order) -> _Launcher:
        return _Launcher(self, tuple(launches), order)

    def timed(self, launches: Sequence[Prepared]) -> _Timed:
        return _Timed(self, tuple(launches))

    @_in_context
    def launch(self, launches: Sequence[Prepared], stream: int) -> None:
        """One call of the driver for each."""
        for launch in launches:
            self._launch(launch, stream)

    def graph(self, launches: Sequence[Prepared], after: Sequence[Sequence[int]]) -> _Graph:
        """A graph of launches, each after those whose numbers are in `after`. Any stream can run it.

        Its nodes are added one by one instead of captured: while a stream captures, no thread may synchronise the
        context.
        """

        def build(graph: Any) -> None:
            nodes: list[Any] = []
            for launch, others in zip(launches, after, strict=True):
                nodes.append(self._node(graph, [nodes[k] for k in others], launch))

        return self._built(launches, build)

    def timed_graph(self, launches: Sequence[Prepared], events: Sequence[_Event]) -> _Graph:
        """A graph of launches, one after another. It records an event before the first and one after each."""

        def build(graph: Any) -> None:
            after = [self._event_node(graph, [], events[0])]
            for launch, event in zip(launches, events[1:], strict=True):
                after = [self._event_node(graph, [self._node(graph, after, launch)], event)]

        return self._built(launches, build)

    @_in_context
    def _built(self, launches: Sequence[Prepared], build: Callable[[Any], None]) -> _Graph:
        graph = self._call("cuGraphCreate", 0)
        try:
            build(graph)
            made = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        return _Graph(self, launches, made)

    def _event_node(self, graph: Any, after: list[Any], event: _Event) -> Any:
        return self._call("cuGraphAddEventRecordNode", graph, after, len(after), event.handle)

    def _node(self, graph: Any, after: list[Any], launch: Prepared) -> Any:
        """Add a launch to a graph, after other nodes."""
        arguments = Arguments(launch.arguments)
        params = node_params(self._driver, launch, self._function(launch), arguments)
        node = self._call("cuGraphAddKernelNode", graph, after, len(after), params)
        for attribute, value in node_attributes(self._driver, launch):
            self._call("cuGraphKernelNodeSetAttribute", node, attribute, value)
        return node

    @_in_context
    def run(self, graph: _Graph, stream: int) -> None:
        """Launch a graph on a stream."""
        self._call("cuGraphLaunch", graph.handle, stream)

    @_in_context
    def discard(self, graph: _Graph) -> None:
        """Destroy a graph. If it is running, it runs to its end."""
        self._call("cuGraphExecDestroy", graph.handle)

    def _launch(self, launch: Prepared, stream: int) -> None:
        config, arguments = launch_config(self._driver, launch, stream), Arguments(launch.arguments)
        self._call("cuLaunchKernelEx", config, self._function(launch), arguments.address, 0)

    def _function(self, launch: Prepared) -> Any:
        """A kernel, with its attributes raised to what the launch needs. A later launch may need more."""
        module, attributes = launch.module, self._driver.CUfunction_attribute
        with module.lock:  # or a smaller request of another thread's might reach the driver behind a larger one
            function = module.functions.get(launch.symbol)
            if function is None:
                function = _Function(self._call("cuModuleGetFunction", module.handle, launch.symbol.encode()))
                module.functions[launch.symbol] = function
            if launch.cluster > function.cluster:
                attribute = attributes.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
                self._call("cuFuncSetAttribute", function.handle, attribute, 1)
                function.cluster = launch.cluster
            if launch.shared > function.shared:
                attribute = attributes.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                self._call("cuFuncSetAttribute", function.handle, attribute, launch.shared)
                function.shared = launch.shared
        return function.handle


@dataclass(slots=True)
class _Function:
    """A kernel, and the most that its attributes allow: CTAs of a cluster, bytes of dynamic shared memory."""

    handle: Any
    cluster: int = _PORTABLE_CLUSTER
    shared: int = 0


class _Module:
    """Code on the GPU, with its functions by name. It is unloaded when the last reference to it goes."""

    def __init__(self, device: NvidiaDevice, handle: Any) -> None:
        self.handle = handle
        self.functions: dict[str, _Function] = {}
        self.lock = threading.Lock()
        self._device = device

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._device.unload(self)


class _Launcher:
    """Several launches. From the second time on they are a graph: one call of the driver, in which launches that need
    not wait for each other run at the same time. A single launch is never a graph."""

    def __init__(self, device: NvidiaDevice, launches: tuple[Prepared, ...], order: Order) -> None:
        self._device, self._launches, self._order = device, launches, order
        self._made = False
        self._graph: _Graph | None = None

    def __call__(self, stream: int) -> None:
        if not self._made or len(self._launches) < 2:
            self._device.launch(self._launches, stream)
            self._made = True
            return
        if self._graph is None:
            self._graph = self._device.graph(self._launches, self._order())
        self._device.run(self._graph, stream)


class _Timed:
    """Launches as one graph with events between them, so that no time of the host is counted."""

    def __init__(self, device: NvidiaDevice, launches: tuple[Prepared, ...]) -> None:
        self._device = device
        self._events = [device.event(_TIMING) for _ in range(len(launches) + 1)]
        self._graph = device.timed_graph(launches, self._events)

    def __call__(self, stream: int) -> list[float]:
        self._device.run(self._graph, stream)
        self._device.finish(stream)
        return [self._device.elapsed(start, end) for start, end in itertools.pairwise(self._events)]


class _Graph:
    """A graph of launches, which keeps their modules alive. It is destroyed when the last reference to it goes."""

    def __init__(self, device: NvidiaDevice, launches: Sequence[Prepared], handle: Any) -> None:
        self.handle = handle
        self._device, self._launches = device, launches

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._device.discard(self)


class _Event:
    """An event of the driver. It is destroyed when the last reference to it goes."""

    def __init__(self, device: NvidiaDevice, handle: Any) -> None:
        self.handle = handle
        self._device = device

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._device.destroy(self)


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
