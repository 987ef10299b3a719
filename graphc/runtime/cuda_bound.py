"""A call on the GPU with its memory fixed: everything that repeated calls have in common is done once, at binding.

In: the launches of a call with all their addresses, and the arrays that lie there. Out: an object to be called again
and again. Each call costs a copy for every array of the host, and one call of the driver for all launches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.codegen.cuda.driver.driver import Device
from graphc.codegen.cuda.driver.streams import PER_THREAD, stream_handle
from graphc.errors import no_copy
from graphc.runtime.results import DeviceResults, Results

__all__ = ["BoundCudaCall", "Memory"]

Copies = Sequence[tuple[np.ndarray, int]]  # arrays of the host, and the addresses of their copies on the GPU


@dataclass(frozen=True, slots=True)
class Memory:
    """What a bound call reads and writes: copies to the GPU `before` its launches, and from the GPU `after` them; its
    own arrays on the GPU, and those that were `given` there."""

    before: Copies
    after: Copies
    own: Sequence[DeviceArray]
    given: Sequence[object]


class BoundCudaCall:
    """A call with its memory fixed: it reads the arrays as they are now, and overwrites `results` each time.

    Lengths and indices were checked when it was bound. A value that was changed since and is out of bounds counts as
    the nearest one within them.
    """

    def __init__(
        self, device: Device, launch: Callable[[int], None], memory: Memory, results: Results | DeviceResults
    ) -> None:
        self.results = results
        self._device, self._launch, self._memory = device, launch, memory
        self._touched = [*memory.own, *(array for array in memory.given if isinstance(array, DeviceArray))]
        self._before: tuple[int, Any] = (device.stream, device.mark(device.stream))
        self._lock = threading.Lock()

    def __call__(self, *, stream: object = None) -> Results | DeviceResults:
        """Run it, queued on a stream, as `CompiledCuda.run` takes it; without one on the device's own.

        On a stream the call returns without waiting, unless it has results or updated arrays of the host's; what works
        on bound arrays of the GPU must be on that stream, or have been waited for. Without a stream the call begins
        when all work on the GPU has ended, if any of its arrays lies there, and returns when its own has.
        """
        handle = None if stream is None else stream_handle(stream)
        with self._lock:
            if handle is None and self._memory.given:
                self._device.synchronize()
            self._queue(self._device.stream if handle is None else handle)
            if handle is None:
                self._device.finish(self._device.stream)
                for touched in self._touched:
                    touched.ended()
        return self.results

    __reduce__ = no_copy

    def _queue(self, stream: int) -> None:
        earlier, mark = self._before
        if earlier != stream or stream == PER_THREAD:  # which differs between threads
            self._device.wait(stream, mark)
        for array, address in self._memory.before:
            self._device.write(address, array, stream)
        self._launch(stream)
        for array, address in self._memory.after:
            self._device.read(array, address, stream)
        for touched in self._touched:
            touched.queued_on(stream)
        self._before = (stream, self._device.mark(stream))
