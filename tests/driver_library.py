"""NVIDIA's driver, answered by the PTX emulator: a shared library that cuda-bindings loads in the driver's place.

So what graphc says to the driver goes through the real bindings, as C's arguments and structures, and comes out of them
here, with the signatures of CUDA's `cuda.h`; kernels run in the emulator with the arguments that arrived. Streams do
their work at once, and a graph that of its nodes when it is launched. Loading the library takes the driver's place for
the whole process, so that this is for a process of its own (`tests/driver_session.py`).
"""

import ctypes
import functools
import inspect
import subprocess
import time
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_ubyte, c_uint, c_uint64, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests import ptx

SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONTEXT, INVALID_HANDLE, MISTAKE = 0, 1, 2, 201, 400, 999
INVALID_CLUSTER_SIZE = 912

CONTEXT = 77
CLUSTER_DIMENSION, COOPERATIVE, PRIORITY = 4, 2, 8  # CUlaunchAttributeID
MAJOR, MINOR, SM_COUNT, CLUSTER_LAUNCH, OPT_IN_SHARED = 75, 76, 16, 120, 97  # CUdevice_attribute
LARGEST_SHARED, LARGE_CLUSTERS = 8, 14  # CUfunction_attribute
RELEASE_THRESHOLD = 4  # CUmemPool_attribute
MEMORY_TYPE, HOST_MEMORY = 2, 1  # CUpointer_attribute, CUmemorytype
DISABLE_TIMING = 2  # CUevent_flags
DYNAMIC_SHARED = 16 * 1024  # what a kernel that is not told gets at least: 48 KiB, less what it declares
NAMES = {OUT_OF_MEMORY: b"out of memory", INVALID_VALUE: b"invalid argument"}


class AttributeValue(ctypes.Union):
    _fields_ = (("pad", c_ubyte * 64), ("cluster", c_uint * 3), ("cooperative", c_int))


class Attribute(ctypes.Structure):
    _fields_ = (("id", c_int), ("pad", c_ubyte * 4), ("value", AttributeValue))


class Config(ctypes.Structure):
    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("stream", c_void_p),
        ("attributes", POINTER(Attribute)),
        ("count", c_uint),
    )


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS, version 2."""

    _fields_ = (
        ("function", c_void_p),
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared", c_uint),
        ("parameters", POINTER(c_void_p)),
        ("extra", c_void_p),
        ("kernel", c_void_p),
        ("context", c_void_p),
    )


class Stream:
    """A stream of the caller's."""


@dataclass
class Event:
    timing: bool
    recorded: float | None = None  # when


class Pool:
    """The memory that allocations in streams come from."""


@dataclass
class Kernel:
    module: ptx.Module
    name: str
    attributes: dict[int, int] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        declared = self.module.text.functions[self.name].parameters
        assert all(p.bytes == 8 for p in declared)
        return len(declared)


@dataclass
class Launch:
    """A kernel with its arguments, and how its CTAs hang together."""

    kernel: Kernel
    grid: list[int]
    block: list[int]
    shared: int
    arguments: list[int] = field(default_factory=list)
    cluster: list[int] = field(default_factory=lambda: [1, 1, 1])
    cooperative: bool = False

    def run(self) -> None:
        self.kernel.module.launch(
            self.kernel.name,
            grid=self.grid,
            block=self.block,
            cluster=self.cluster,
            args=self.arguments,
            shared_bytes=self.shared,
            cooperative=self.cooperative,
        )


@dataclass
class Graph:
    """Its nodes, by their handles, each with those that it comes behind."""

    nodes: dict[int, set[int]] = field(default_factory=dict)

    def in_order(self) -> list[int]:
        """In the order that is furthest from that in which they were added."""
        waiting, made = list(self.nodes), []
        while waiting:
            ready = next(node for node in reversed(waiting) if self.nodes[node].isdisjoint(waiting))
            waiting.remove(ready)
            made.append(ready)
        return made


@dataclass
class Executable:
    work: list[Launch | Callable[[], None]]


def _host(address: int, size: int) -> np.ndarray:
    """The host's memory there, as bytes."""
    return np.ctypeslib.as_array(ctypes.cast(address, POINTER(c_ubyte)), (size,))


class Refused(Exception):
    """A call ends with an error code."""

    def __init__(self, status: int) -> None:
        self.status = status


class DriverLibrary:
    """The driver: its memory, modules, streams, events and graphs, all by handles that are numbers.

    `called` are the names of the functions that were called; `mistakes` what they would not have survived.
    """

    def __init__(self, folder: Path, memory: int = 1 << 26, side_by_side: int = 16) -> None:
        """`side_by_side`: the SMs that one cluster can have."""
        self.side_by_side = side_by_side
        self.called: list[str] = []
        self.mistakes: list[BaseException] = []
        self.memory = ptx.Memory()
        self.free = self.total = memory
        self.sizes: dict[int, int] = {}
        self.contexts: list[int] = []  # the last is current
        self.handles: dict[int, Any] = {}
        self.launched: list[tuple[str, int, bool, int]] = []  # kernel, CTAs of a cluster, cooperative, stream
        self.pinned: set[int] = set()  # addresses of the host's memory
        self.threshold = 0
        library = folder / "libcuda.so.1"
        source = Path(__file__).with_name("driver_library.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, source], check=True)
        self._library = ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        self._kept = [
            self._answer(name, f) for name, f in inspect.getmembers(self, inspect.ismethod) if name[:2] == "cu"
        ]

    def _answer(self, name: str, method: Callable[..., int | None]) -> Any:
        """A C function for a method, whose annotations are C's types."""

        def function(*arguments: Any) -> int:
            self.called.append(name)
            try:
                return method(*arguments) or SUCCESS
            except Refused as refused:
                return refused.status
            except BaseException as mistake:
                self.mistakes.append(mistake)
                return MISTAKE

        types = [p.annotation for p in inspect.signature(method).parameters.values()]
        made = ctypes.CFUNCTYPE(c_int, *types)(function)
        assert self._library.answer(name.encode(), ctypes.cast(made, c_void_p))
        return made

    def _new(self, thing: Any) -> int:
        handle = 0x1000 + 16 * len(self.handles)
        self.handles[handle] = thing
        return handle

    def _gone(self, handle: int) -> None:
        assert self.handles[handle] is not None, "given back twice"
        self.handles[handle] = None  # numbers are not used again, so that one that is gone is recognised

    def new_stream(self) -> int:
        return self._new(Stream())

    @property
    def modules(self) -> int:
        """How many are loaded."""
        return sum(isinstance(thing, ptx.Module) for thing in self.handles.values())

    def _found(self, handle: int | None, kind: type) -> Any:
        if not isinstance(found := self.handles.get(handle or 0), kind):
            raise Refused(INVALID_HANDLE)
        return found

    def _in_context(self) -> None:
        if self.contexts[-1:] != [CONTEXT]:
            raise Refused(INVALID_CONTEXT)

    def _queue(self, stream: int | None, work: Callable[[], None]) -> None:
        """Do it now."""
        self._in_context()
        self._found(stream, Stream)
        work()

    # The machine.

    def cuInit(self, flags: c_uint) -> None:
        assert flags == 0

    def cuDriverGetVersion(self, version: POINTER(c_int)) -> None:
        version[0] = 12080

    def cuGetErrorString(self, status: c_int, text: POINTER(c_char_p)) -> None:
        text[0] = NAMES.get(status, b"an error")

    def cuDeviceGetCount(self, count: POINTER(c_int)) -> None:
        count[0] = 1

    def cuDeviceGet(self, device: POINTER(c_int), ordinal: c_int) -> None:
        assert ordinal == 0
        device[0] = 0

    def cuDeviceGetAttribute(self, value: POINTER(c_int), attribute: c_int, device: c_int) -> None:
        known = {MAJOR: 9, MINOR: 0, SM_COUNT: 132, CLUSTER_LAUNCH: 1, OPT_IN_SHARED: 227 * 1024}
        value[0] = known[attribute]

    def cuDeviceGetDefaultMemPool(self, pool: POINTER(c_void_p), device: c_int) -> None:
        pool[0] = self._new(Pool())

    def cuMemPoolSetAttribute(self, pool: c_void_p, attribute: c_int, value: POINTER(c_uint64)) -> None:
        self._found(pool, Pool)
        assert attribute == RELEASE_THRESHOLD
        self.threshold = value[0]

    def cuDevicePrimaryCtxRetain(self, context: POINTER(c_void_p), device: c_int) -> None:
        context[0] = CONTEXT

    def cuCtxGetCurrent(self, context: POINTER(c_void_p)) -> None:
        context[0] = self.contexts[-1] if self.contexts else None

    def cuCtxPushCurrent(self, context: c_void_p) -> None:
        self.contexts.append(context)

    def cuCtxPopCurrent(self, context: POINTER(c_void_p)) -> None:
        context[0] = self.contexts.pop()

    def cuCtxSynchronize(self) -> None:
        self._in_context()

    # Memory.

    def cuMemAllocAsync(self, address: POINTER(c_uint64), size: c_size_t, stream: c_void_p) -> None:
        self._queue(stream, lambda: None)
        assert size > 0
        if size > self.free:
            raise Refused(OUT_OF_MEMORY)
        self.free -= size
        address[0] = self.memory.alloc(size)
        self.sizes[address[0]] = size

    def cuMemFreeAsync(self, address: c_uint64, stream: c_void_p) -> None:
        self._queue(stream, lambda: self.memory.free(address))
        self.free += self.sizes.pop(address)

    def cuMemGetInfo(self, free: POINTER(c_size_t), total: POINTER(c_size_t)) -> None:
        free[0], total[0] = self.free, self.total

    def cuMemsetD8Async(self, address: c_uint64, value: c_ubyte, size: c_size_t, stream: c_void_p) -> None:
        self._queue(stream, lambda: self.memory.fill(address, value, size))

    def cuPointerGetAttribute(self, value: c_void_p, attribute: c_int, address: c_uint64) -> int:
        assert attribute == MEMORY_TYPE
        assert address not in self.sizes
        if address not in self.pinned:
            return INVALID_VALUE
        ctypes.cast(value, POINTER(c_uint))[0] = HOST_MEMORY
        return SUCCESS

    def cuMemcpyHtoDAsync(self, address: c_uint64, source: c_void_p, size: c_size_t, stream: c_void_p) -> None:
        array = _host(source, size).copy()
        self._queue(stream, lambda: self.memory.copy_in(address, array))

    def cuMemcpyDtoHAsync(self, target: c_void_p, address: c_uint64, size: c_size_t, stream: c_void_p) -> None:
        def copy() -> None:
            _host(target, size)[...] = self.memory.copy_out(address, size)

        self._queue(stream, copy)

    def cuMemcpyDtoDAsync(self, to: c_uint64, source: c_uint64, size: c_size_t, stream: c_void_p) -> None:
        self._queue(stream, lambda: self.memory.copy_in(to, self.memory.copy_out(source, size)))

    # Streams and events.

    def cuStreamCreate(self, stream: POINTER(c_void_p), flags: c_uint) -> None:
        self._in_context()
        stream[0] = self._new(Stream())

    def cuStreamSynchronize(self, stream: c_void_p) -> None:
        self._in_context()
        self._found(stream, Stream)

    def cuEventCreate(self, event: POINTER(c_void_p), flags: c_uint) -> None:
        self._in_context()
        event[0] = self._new(Event(timing=not flags & DISABLE_TIMING))

    def cuEventRecord(self, event: c_void_p, stream: c_void_p) -> None:
        self._queue(stream, functools.partial(self._record, self._found(event, Event)))

    def _record(self, event: Event) -> None:
        event.recorded = time.perf_counter()

    def cuEventElapsedTime(self, milliseconds: POINTER(c_float), start: c_void_p, end: c_void_p) -> None:
        first, last = (self._found(event, Event) for event in (start, end))
        if not (first.timing and last.timing and first.recorded and last.recorded):
            raise Refused(INVALID_HANDLE)
        milliseconds[0] = 1e3 * (last.recorded - first.recorded)

    def cuStreamWaitEvent(self, stream: c_void_p, event: c_void_p, flags: c_uint) -> None:
        assert self._found(event, Event).recorded is not None
        assert flags == 0

    def cuEventDestroy(self, event: c_void_p) -> None:
        self._found(event, Event)
        self._gone(event)

    # Kernels.

    def cuModuleLoadData(self, module: POINTER(c_void_p), image: c_char_p) -> None:
        self._in_context()
        module[0] = self._new(ptx.load(image.decode(), self.memory))

    def cuModuleUnload(self, module: c_void_p) -> None:
        self._in_context()
        self._found(module, ptx.Module)
        self._gone(module)

    def cuModuleGetFunction(self, function: POINTER(c_void_p), module: c_void_p, name: c_char_p) -> None:
        function[0] = self._new(Kernel(self._found(module, ptx.Module), name.decode()))

    def cuFuncSetAttribute(self, function: c_void_p, attribute: c_int, value: c_int) -> None:
        self._found(function, Kernel).attributes[attribute] = value

    def cuLaunchKernelEx(
        self, config: POINTER(Config), function: c_void_p, parameters: POINTER(c_void_p), extra: c_void_p
    ) -> None:
        assert not extra
        launch = self._configured(function, config.contents)
        launch.arguments = _arguments(launch.kernel, parameters)
        self._check(launch)
        self._run(launch, config.contents.stream)

    def cuOccupancyMaxActiveClusters(
        self, clusters: POINTER(c_int), function: c_void_p, config: POINTER(Config)
    ) -> None:
        """Each CTA has an SM of its own here, and so many of them lie side by side."""
        launch = self._configured(function, config.contents)
        self._check(launch)
        clusters[0] = self.side_by_side // launch.cluster[0] * 8

    def _configured(self, function: int, given: Config) -> Launch:
        attributes = {a.id: a.value for a in given.attributes[: given.count]}
        assert attributes.keys() <= {CLUSTER_DIMENSION, COOPERATIVE, PRIORITY}
        launch = Launch(self._found(function, Kernel), given.grid[:], given.block[:], given.shared)
        if CLUSTER_DIMENSION in attributes:
            launch.cluster = attributes[CLUSTER_DIMENSION].cluster[:]
        if COOPERATIVE in attributes:
            launch.cooperative = attributes[COOPERATIVE].cooperative == 1
        return launch

    def _check(self, launch: Launch) -> None:
        """What a kernel was not told, or the machine cannot run."""
        told = launch.kernel.attributes
        if launch.shared > told.get(LARGEST_SHARED, DYNAMIC_SHARED):
            raise Refused(INVALID_VALUE)
        most = self.side_by_side if told.get(LARGE_CLUSTERS) else min(8, self.side_by_side)
        if launch.cluster[0] > most:
            raise Refused(INVALID_CLUSTER_SIZE)

    def _run(self, launch: Launch, stream: int | None) -> None:
        self.launched.append((launch.kernel.name, launch.cluster[0], launch.cooperative, stream))
        self._queue(stream, launch.run)

    # Graphs of launches.

    def cuGraphCreate(self, graph: POINTER(c_void_p), flags: c_uint) -> None:
        self._in_context()
        graph[0] = self._new(Graph())

    def _add(
        self, node: POINTER(c_void_p), graph: int, behind: POINTER(c_void_p), count: int, work: Callable[[], None]
    ) -> None:
        nodes = self._found(graph, Graph).nodes
        before = {behind[k] for k in range(count)}
        assert before <= nodes.keys()
        node[0] = self._new(work)
        nodes[node[0]] = before

    def cuGraphAddKernelNode(
        self,
        node: POINTER(c_void_p),
        graph: c_void_p,
        behind: POINTER(c_void_p),
        count: c_size_t,
        parameters: POINTER(KernelNode),
    ) -> None:
        given = parameters.contents
        assert not given.extra
        kernel = self._found(given.function, Kernel)
        arguments = _arguments(kernel, given.parameters)
        self._add(node, graph, behind, count, Launch(kernel, given.grid[:], given.block[:], given.shared, arguments))

    def cuGraphKernelNodeSetAttribute(self, node: c_void_p, attribute: c_int, value: POINTER(AttributeValue)) -> None:
        launch = self._found(node, Launch)
        if attribute == CLUSTER_DIMENSION:
            launch.cluster = value.contents.cluster[:]
        elif attribute == COOPERATIVE:
            launch.cooperative = value.contents.cooperative == 1
        elif attribute != PRIORITY:
            raise Refused(INVALID_VALUE)

    def cuGraphAddEventRecordNode(
        self, node: POINTER(c_void_p), graph: c_void_p, behind: POINTER(c_void_p), count: c_size_t, event: c_void_p
    ) -> None:
        self._add(node, graph, behind, count, functools.partial(self._record, self._found(event, Event)))

    def cuGraphInstantiateWithFlags(self, made: POINTER(c_void_p), graph: c_void_p, flags: c_uint64) -> None:
        self._in_context()
        work = [self.handles[node] for node in self._found(graph, Graph).in_order()]
        for launch in work:
            if isinstance(launch, Launch):
                self._check(launch)
        made[0] = self._new(Executable(work))

    def cuGraphDestroy(self, graph: c_void_p) -> None:
        for node in self._found(graph, Graph).nodes:
            self._gone(node)
        self._gone(graph)

    def cuGraphExecDestroy(self, made: c_void_p) -> None:
        self._found(made, Executable)
        self._gone(made)

    def cuGraphLaunch(self, made: c_void_p, stream: c_void_p) -> None:
        for work in self._found(made, Executable).work:
            self._run(work, stream) if isinstance(work, Launch) else self._queue(stream, work)


def _arguments(kernel: Kernel, parameters: Any) -> list[int]:
    return [ctypes.cast(parameters[k], POINTER(c_uint64))[0] for k in range(kernel.parameters)]
