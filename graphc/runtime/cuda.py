"""Running a graph on a GPU: arguments in, results out, and the memory in between.

In: the arrays of a call, in the host's memory or on the GPU. Out: its outputs, as numpy arrays; or, if any array was
given on the GPU, as arrays there. Memory on the GPU is kept from call to call; a call takes more only if it needs more.

A call is queued on one stream: on the caller's, where the host waits only if arrays of the host are involved; or on the
device's own, and then the call returns when its work has ended. Marks make the order between streams that memory needs:
a call's work comes after other streams' work on the arguments, and after the call before, which used the same memory.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.checks.arguments import Arguments, check_apart, check_arguments, check_bound, check_updated
from graphc.checks.index_checks import IndexCheck, check_indices
from graphc.codegen.cuda.cost_model import Grouping
from graphc.codegen.cuda.driver.dlpack import UNKNOWN_STREAM, DeviceArray, Foreign, foreign
from graphc.codegen.cuda.driver.driver import Device, Order, Prepared
from graphc.codegen.cuda.driver.streams import PER_THREAD, stream_handle
from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.launches import COUNTERS, TOTALS, Launched, exchange_bytes, launched
from graphc.codegen.cuda.ptx import ALIGNMENT
from graphc.codegen.program import Buffer
from graphc.errors import ArgumentError, UnsupportedError
from graphc.ir import Node
from graphc.language.graph import Graph, declared_arrays
from graphc.recent import Recent
from graphc.runtime.cuda_bound import BoundCudaCall, Memory
from graphc.runtime.cuda_layout import Chosen, Layout, layout_of
from graphc.runtime.results import DeviceResults, Results
from graphc.scheduling.lower import Lowered

_WORKSPACE = "(workspace)"
_MOST_LAYOUTS, _MOST_LAUNCHERS = 256, 32  # that are kept


@dataclass(frozen=True, slots=True)
class _Given:
    """The arrays of a call: the checked `arguments` in the host's memory, and those that lie on the GPU (`there`)."""

    arguments: Arguments
    there: Mapping[str, Foreign]

    @property
    def sizes(self) -> dict[str, int]:
        """The lengths of the axes."""
        return {axis.name: extent for axis, extent in self.arguments.sizes.items()}


@dataclass(frozen=True, slots=True)
class _Queue:
    """The stream of a call, given by the caller (`by_caller`), or the device's own."""

    stream: int
    by_caller: bool


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A call with memory of its own: launches, their order, and what they read and write."""

    launches: tuple[Prepared, ...]
    order: Order
    memory: Memory
    results: Results | DeviceResults


@dataclass(frozen=True, slots=True)
class Measured:
    """A call to be measured: what it runs, its launches, and the whole `call`. After the call was made, `timed` gives a
    function that makes the same launches again and gives the seconds of each."""

    chosen: Chosen
    launched: tuple[Launched, ...]
    call: BoundCudaCall
    timed: Callable[[], Callable[[], list[float]]]


class CudaRunner:
    """Runs a graph on one device. `choose` gives the code for the lengths of a call; all code is for one
    architecture."""

    def __init__(
        self,
        graph: Graph,
        lowered: Lowered,
        choose: Callable[[Mapping[str, int]], Chosen],
        checks: tuple[IndexCheck, ...],
        device: Device,
        arch: Arch,
    ) -> None:
        self.graph = graph
        self.lowered = lowered
        self.choose = choose
        self.checks = checks
        self.device = device
        self._declared = declared_arrays(graph)
        self._blocks: dict[str, tuple[int, int]] = {}  # by buffer: size and address
        self._before: tuple[int, Any] | None = None  # the call before, unless it has ended: its stream, a mark after it
        self._layouts: Recent[Layout] = Recent(_MOST_LAYOUTS)
        self._launchers: Recent[Callable[[int], None]] = Recent(_MOST_LAUNCHERS)
        self._lock = threading.Lock()
        stream = device.stream
        self._cleared(COUNTERS, exchange_bytes((), arch), stream)
        for name, array in lowered.constants.items():
            device.write(self._block(name, array.nbytes, stream), np.ascontiguousarray(array), stream)
        self._before = (stream, device.mark(stream))

    def __call__(
        self,
        given: Mapping[str, Any],
        groupings: Mapping[str, Grouping] | None = None,
        stream: object = None,
        into: Mapping[str, Any] | None = None,
    ) -> Results | DeviceResults:
        """Run the program, on a stream. `groupings` says how loops are grouped, by their unit's symbol; else the cost
        model does. `into` are arrays on the GPU for results, by output."""
        queue = _Queue(self.device.stream, False) if stream is None else _Queue(stream_handle(stream), True)
        with self._lock:
            taken = self._taken(given, queue)
            layout = self._layout(taken.sizes, groupings)
            targets = self._targets(into, taken, layout, queue) if into else {}
            try:
                return self._run(taken, layout, queue, targets)
            except BaseException:  # what was queued until then works on the same memory as the next call
                with contextlib.suppress(UnsupportedError):  # unless the GPU does nothing more
                    self._before = (queue.stream, self.device.mark(queue.stream))
                raise

    def bind(self, given: Mapping[str, Any]) -> BoundCudaCall:
        """A call that reads these arrays themselves, so none may need a conversion. It has memory of its own."""
        stream = self.device.stream
        with self._lock:
            taken = self._taken(given, _Queue(stream, False))
            check_bound({n: node for n, node in self._declared.items() if n not in taken.there}, given)
            return self._bound(self._fixed(taken, self._layout(taken.sizes), stream))

    def measured(self, given: Mapping[str, Any], groupings: Mapping[str, Grouping] | None = None) -> Measured:
        """A call with these arrays and memory of its own; what it updates are copies. `groupings` says how loops are
        grouped, by their unit's symbol; else the cost model does."""
        stream = self.device.stream
        updated = {name: given[name] for name in self.graph.updates if name in given}
        copies: dict[str, Any] = {name: np.array(array) for name, array in self.fetch(updated).items()}
        there = {n for n, array in updated.items() if foreign(n, array, stream) is not None}
        copies |= {name: DeviceArray.copy_of(copies[name], self.device, stream) for name in there}
        with self._lock:
            taken = self._taken({**given, **copies}, _Queue(stream, False))
            layout = self._layout(taken.sizes, groupings)
            fixed = self._fixed(taken, layout, stream)

        def timed() -> Callable[[], list[float]]:
            run = self.device.timed(fixed.launches)
            return lambda: run(stream)

        chosen = layout.chosen
        made = tuple(launched(chosen.code, chosen.sizes, groupings))
        return Measured(chosen, made, self._bound(fixed), timed)

    def fetch(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays; copies of those that lie on the GPU."""
        queue = _Queue(self.device.stream, False)
        with self._lock:
            found = {name: foreign(name, given[name], queue.stream) for name in given if name in self._declared}
            there = {name: array for name, array in found.items() if array is not None}
            self._order(there, queue)
            return {**given, **{name: self._stand_in(name, array, queue) for name, array in there.items()}}

    def _layout(self, lengths: Mapping[str, int], groupings: Mapping[str, Grouping] | None = None) -> Layout:
        """The layout of a call, made once for its lengths; the cost model takes longer than a short sequence. With
        `groupings`, which replace the model's, it is made anew."""
        if groupings is not None:
            return layout_of(self.choose(lengths), groupings)
        key = tuple(lengths[name] for name in self.graph.axes)
        return self._layouts.get_or_make(key, lambda: layout_of(self.choose(lengths)))

    def __del__(self) -> None:
        """Free the memory, after the last call."""
        if sys.is_finalizing():
            return
        if self._before is not None:
            self.device.wait(self.device.stream, self._before[1])
        for _, address in self._blocks.values():
            self.device.free(address, self.device.stream)

    # Arguments.

    def _taken(self, given: Mapping[str, Any], queue: _Queue) -> _Given:
        """Check the arrays. Of an array on the GPU only the shape and the dtype are checked, and the values only if
        they say which memory is read: lengths and indices."""
        found = {name: foreign(name, array, queue.stream) for name, array in given.items()}
        there = {name: array for name, array in found.items() if array is not None}
        self._order(there, queue)
        looked_at = {check.name for check in self.checks}
        looked_at |= {str(a.length["name"]) for a in self.graph.axes.values() if isinstance(a.length, Node)}
        stand_ins = {
            name: self._stand_in(name, array, queue if name in looked_at else None) for name, array in there.items()
        }
        arguments = check_arguments(self.graph, {**given, **stand_ins})
        check_indices(self.checks, arguments)
        self._check_updated(given, there)
        return _Given(arguments, there)

    def _order(self, there: Mapping[str, Foreign], queue: _Queue) -> None:
        """Let the call's stream wait for other streams' work on the arrays, and for the call before."""
        afters = {array.after for array in there.values()}
        if UNKNOWN_STREAM in afters and not queue.by_caller:
            self.device.synchronize()
            self._before = None
            return
        others = {stream for stream in afters if stream not in (None, UNKNOWN_STREAM, queue.stream)}
        for stream in sorted(stream for stream in others if stream is not None):
            self.device.wait(queue.stream, self.device.mark(stream))
        if self._before is not None:
            stream, mark = self._before
            same = stream == queue.stream and stream != PER_THREAD  # which differs between threads
            if not same and stream not in others:
                self.device.wait(queue.stream, mark)

    def _stand_in(self, name: str, found: Foreign, queue: _Queue | None) -> np.ndarray:
        """An array of the host with the shape and dtype of one on the GPU; with its values too, if a stream to read
        them on is given."""
        try:
            dtype = np.dtype(found.dtype)
        except TypeError:
            raise ArgumentError(f"{name} is an array of {found.dtype}, expected {self._declared[name].dtype}") from None
        if queue is None:
            return np.broadcast_to(np.zeros((), dtype), found.shape)
        array = np.empty(found.shape, dtype)
        self.device.read(array, found.address, queue.stream)
        return array

    def _check_updated(self, given: Mapping[str, Any], there: Mapping[str, Foreign]) -> None:
        updated = self.graph.updates
        check_updated({n: node for n, node in updated.items() if n not in there}, given)
        for name in updated:
            if name in there and not there[name].writeable:
                raise ArgumentError(f"{name} is updated in place, but its array on the GPU is read-only; pass a copy")
        spans = {name: (array.address, array.bytes, name) for name, array in there.items()}
        apart = [span for name, span in spans.items() if name not in updated]
        check_apart([spans[name] for name in updated if name in spans], apart)

    def _targets(self, into: Mapping[str, Any], given: _Given, layout: Layout, queue: _Queue) -> dict[str, Foreign]:
        """The arrays for results, by output. Raises `ArgumentError` for arrays that are not as the results are."""
        targets = {}
        for name, array in into.items():
            buffer = self.lowered.outputs[name]
            shape, dtype = layout.shapes[buffer], layout.chosen.code.program.buffer(buffer).dtype
            found = foreign(name, array, queue.stream)
            if found is None or (found.shape, found.dtype) != (shape, dtype) or not found.writeable:
                raise ArgumentError(
                    f"{name} is written to, so it must be a writeable array on the GPU of {dtype} and shape {shape}"
                )
            targets[name] = found
        spans = [[(a.address, a.bytes, n) for n, a in arrays.items()] for arrays in (targets, given.there)]
        check_apart(*spans)
        self._order(targets, queue)
        return targets

    # A call.

    def _run(
        self, given: _Given, layout: Layout, queue: _Queue, targets: Mapping[str, Foreign]
    ) -> Results | DeviceResults:
        addresses, outputs = {COUNTERS: self._cleared(COUNTERS, layout.exchange_bytes, queue.stream)}, {}
        addresses[TOTALS] = self._block(TOTALS, layout.totals_bytes, queue.stream)
        base = self._block(_WORKSPACE, layout.arena.size, queue.stream)
        rest = {name: buffer for name, buffer in self.lowered.outputs.items() if name not in targets}
        usable = [(self.lowered.outputs[n], a.address) for n, a in targets.items() if a.address % ALIGNMENT == 0]
        written = {buffer: address for buffer, address in usable if buffer not in rest.values()}
        is_there = bool(given.there or targets)
        for buffer in layout.chosen.code.program.buffers:
            if buffer.kind == "temp":
                addresses[buffer.name] = base + layout.arena.offsets[buffer.name]
            elif buffer.kind == "output" and buffer.name in written:
                addresses[buffer.name] = written[buffer.name]
            elif buffer.kind == "output" and is_there:
                outputs[buffer.name] = DeviceArray(self.device, layout.shapes[buffer.name], buffer.dtype, queue.stream)
                addresses[buffer.name] = outputs[buffer.name].address
            else:
                addresses[buffer.name] = self._address(buffer, given, layout, queue.stream)
        self._launcher(layout, _is_aligned(given), addresses)(queue.stream)
        for name in self.graph.updates:
            if name not in given.there:
                self.device.read(given.arguments.arrays[name], addresses[name], queue.stream)
        for name, array in targets.items():
            made = addresses[self.lowered.outputs[name]]
            if made != array.address:
                self.device.copy(array.address, made, array.bytes, queue.stream)
        if is_there:
            owners = (array.owner for array in (*given.there.values(), *targets.values()))
            self._leave([*outputs.values(), *owners], queue)
            return DeviceResults({name: outputs[buffer] for name, buffer in rest.items()})
        found = {name: self._fetched(buffer, layout, queue.stream) for name, buffer in self.lowered.outputs.items()}
        self._before = None
        return Results(found)

    def _bound(self, fixed: _Fixed) -> BoundCudaCall:
        launch = self.device.launcher(fixed.launches, fixed.order)
        return BoundCudaCall(self.device, launch, fixed.memory, fixed.results)

    def _fixed(self, given: _Given, layout: Layout, stream: int) -> _Fixed:
        buffers = layout.chosen.code.program.buffers
        kinds = {buffer.name: buffer.kind for buffer in buffers}
        there = {name: array.address for name, array in given.there.items()}
        there |= {name: self._blocks[name][1] for name in self.lowered.constants}
        own = {
            b.name: DeviceArray(self.device, layout.shapes[b.name], b.dtype, stream)
            for b in buffers
            if b.kind != "temp" and b.name not in there
        }
        workspace = DeviceArray(self.device, (layout.arena.size,), "uint8", stream)
        counters = DeviceArray.copy_of(np.zeros(layout.exchange_bytes, np.uint8), self.device, stream)
        addresses = {name: workspace.address + offset for name, offset in layout.arena.offsets.items()}
        totals = DeviceArray(self.device, (layout.totals_bytes,), "uint8", stream)
        addresses |= there | {name: array.address for name, array in own.items()}
        addresses |= {COUNTERS: counters.address, TOTALS: totals.address}
        hosts = [(given.arguments.arrays[name], own[name].address) for name in own if kinds[name] != "output"]
        back = [(given.arguments.arrays[name], own[name].address) for name in self.graph.updates if name in own]
        results: Results | DeviceResults
        if given.there:
            results = DeviceResults({name: own[buffer] for name, buffer in self.lowered.outputs.items()})
        else:
            outputs = {name: np.empty(own[b].shape, own[b].dtype) for name, b in self.lowered.outputs.items()}
            back += [(array, own[self.lowered.outputs[name]].address) for name, array in outputs.items()]
            results = Results(outputs)
        owners = [array.owner for array in given.there.values()]
        memory = Memory(hosts, back, [*own.values(), workspace, counters, totals], owners)
        made = layout.prepared(_is_aligned(given), addresses)
        return _Fixed(made, layout.order(addresses), memory, results)

    def _launcher(self, layout: Layout, aligned: bool, addresses: Mapping[str, int]) -> Callable[[int], None]:
        """The launcher of a call; calls with the same arrays share one."""
        made = layout.prepared(aligned, addresses)
        return self._launchers.get_or_make(made, lambda: self.device.launcher(made, layout.order(addresses)))

    def _leave(self, arrays: Iterable[object], queue: _Queue) -> None:
        """End a call whose outputs stay on the GPU: with a mark on the caller's stream, or by waiting on the device's
        own."""
        if queue.by_caller:
            self._before = (queue.stream, self.device.mark(queue.stream))
        else:
            self.device.finish(queue.stream)
            self._before = None
        for array in arrays:
            if isinstance(array, DeviceArray):
                array.queued_on(queue.stream)
                if not queue.by_caller:
                    array.ended()

    def _address(self, buffer: Buffer, given: _Given, layout: Layout, stream: int) -> int:
        """The address of a buffer that is not a temporary; an array of the host is copied there."""
        if buffer.name in self.lowered.constants:
            return self._blocks[buffer.name][1]
        if buffer.name in given.there:
            return given.there[buffer.name].address
        address = self._block(buffer.name, layout.bytes[buffer.name], stream)
        if buffer.kind != "output":
            self.device.write(address, np.ascontiguousarray(given.arguments.arrays[buffer.name]), stream)
        return address

    def _fetched(self, buffer: str, layout: Layout, stream: int) -> np.ndarray:
        array = np.empty(layout.shapes[buffer], layout.chosen.code.program.buffer(buffer).dtype)
        self.device.read(array, self._blocks[buffer][1], stream)
        return array

    def _block(self, name: str, size: int, stream: int) -> int:
        """The address of memory of at least this size that stays allocated between calls."""
        known, address = self._blocks.get(name, (-1, 0))
        if known < size:
            if known >= 0:
                self.device.free(address, stream)
                del self._blocks[name]
            address = self.device.allocate(size, stream)
            self._blocks[name] = (size, address)
        return address

    def _cleared(self, name: str, size: int, stream: int) -> int:
        """Such memory, filled with 0 when it is allocated; launches leave it at 0, or usable as it is."""
        is_there = self._blocks.get(name, (-1, 0))[0] >= size
        address = self._block(name, size, stream)
        if not is_there:
            self.device.clear(address, size, stream)
        return address


def _is_aligned(given: _Given) -> bool:
    """Whether all arrays that lie on the GPU begin at multiples of `ALIGNMENT`."""
    return all(array.address % ALIGNMENT == 0 for array in given.there.values())
