"""What streams may do at once: a vector clock for each, and who touched each block of memory last.

In: a device's work, marks and waits, as they are queued. Out: an `AssertionError` when two streams, or a stream and the
host, touch a block without an order between them. Every touch counts as a write. The default stream of a thread
differs between threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from graphc.codegen.cuda.driver.streams import PER_THREAD

HOST = 0  # stands for the host among the streams, whose handles are positive

Clock = dict[int, int]


class StreamOrder:
    """The order that a device's streams have been given. `log` holds the waits: ("wait", stream), ("finish", stream),
    ("synchronize",)."""

    def __init__(self) -> None:
        self.log: list[tuple[str | int, ...]] = []
        self._clocks: dict[int, Clock] = {}
        self._last: dict[int, tuple[int, int]] = {}  # by block: a stream and its time

    def work(self, stream: int, blocks: Iterable[int]) -> None:
        """Something on a stream touches blocks; it begins when all that the host waited for has ended."""
        self._learn(stream, self._clock(HOST))
        clock = self._clock(stream)
        stream = _own(stream)
        clock[stream] = clock.get(stream, 0) + 1
        for block in blocks:
            other, time = self._last.get(block, (stream, 0))
            assert clock.get(other, 0) >= time, f"stream {stream} touches block {block:#x} while stream {other} may"
            self._last[block] = (stream, clock[stream])

    def gone(self, block: int) -> None:
        self._last.pop(block, None)

    def mark(self, stream: int) -> Clock:
        return dict(self._clock(stream))

    def wait(self, stream: int, mark: Clock) -> None:
        self.log.append(("wait", stream))
        self._learn(stream, mark)

    def finish(self, stream: int) -> None:
        self.log.append(("finish", stream))
        self._learn(HOST, self._clock(stream))

    def synchronize(self) -> None:
        self.log.append(("synchronize",))
        for clock in list(self._clocks.values()):
            self._learn(HOST, clock)

    def _clock(self, stream: int) -> Clock:
        return self._clocks.setdefault(_own(stream), {})

    def _learn(self, stream: int, received: Clock) -> None:
        clock = self._clock(stream)
        for other, time in received.items():
            clock[other] = max(time, clock.get(other, 0))


def _own(stream: int) -> int:
    """The stream that a handle means in this thread."""
    return -threading.get_ident() if stream == PER_THREAD else stream
