"""Bytes with a state each: free, allocated but never written, written, or awaiting an asynchronous copy.

`Space` is one such array, for shared and local memory; `Memory` is a device's global memory with an allocator, on
which a driver can be built. Allocations lie in one address range, apart from each other by red zones that belong to
nobody, so that an access beyond the end of one is found. Addresses are plain integers.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np

from tests.ptx.errors import OutOfBounds, PtxError
from tests.ptx.kinds import UNSIGNED, Array

FREE, UNWRITTEN, WRITTEN, PENDING = 0, 1, 2, 3

GLOBAL_BASE = 0x7F00_0000_0000
RED_ZONE = 256
_WORD = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class Space:
    """`data` and `state`, byte for byte. Their lengths are multiples of 256."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        size = -(-max(size, 256) // 256) * 256
        self.data = np.zeros(size, np.uint8)
        self.state = np.zeros(size, np.uint8)

    def faults(self, offsets: Array, size: int, wanted: tuple[int, ...]) -> Array | None:
        """Which of the accesses of `size` bytes touch a byte whose state is not wanted; None when none does.

        Offsets must be within the space and aligned to the size (to 8 at least, for longer accesses).
        """
        word = min(size, 8)
        words = self.state.view(_WORD[word])
        first = offsets // word
        bad: Array | None = None
        for k in range(size // word):
            found = words[first + k] if k else words[first]
            good = found == _repeated(wanted[0], word)
            for state in wanted[1:]:
                good |= found == _repeated(state, word)
            if not good.all():
                mixed = ~good & self._mixed(first + k, word, wanted)
                bad = mixed if bad is None else bad | mixed
        return bad if bad is not None and bad.any() else None

    def _mixed(self, words: Array, word: int, wanted: tuple[int, ...]) -> Array:
        """The same byte by byte, for words whose bytes differ in state."""
        found = self.state.reshape(-1, word)[words]
        return ~np.isin(found, wanted).all(axis=1)

    def get(self, offsets: Array, dtype: np.dtype[Any], count: int) -> list[Array]:
        """`count` elements one after the other, at each of the offsets (multiples of all elements' size)."""
        if count == 1:
            return [self.data.view(dtype)[offsets // dtype.itemsize]]
        rows = self.data.view(dtype).reshape(-1, count)[offsets // (dtype.itemsize * count)]
        return [np.ascontiguousarray(rows[:, k]) for k in range(count)]

    def put(self, offsets: Array, values: list[Array]) -> None:
        """The opposite of `get`; of several accesses to one place the last one wins."""
        size = values[0].dtype.itemsize
        view = self.data.view(UNSIGNED[size * 8])
        first = offsets // size
        for k, value in enumerate(values):
            view[first + k] = value.view(view.dtype)
        self.mark(offsets, size * len(values), WRITTEN)

    def mark(self, offsets: Array, size: int, state: int) -> None:
        """Set the state of the accessed bytes."""
        word = min(size, 8)
        words = self.state.view(_WORD[word])
        for k in range(size // word):
            words[offsets // word + k] = _repeated(state, word)


def _repeated(state: int, size: int) -> Any:
    return _WORD[size](int.from_bytes(bytes([state]) * size, "little"))


class Memory(Space):
    """Global memory: `alloc`, `free`, `copy_in`, `copy_out`, `fill`, all by address."""

    def __init__(self) -> None:
        super().__init__("global", 1 << 16)
        self._starts: list[int] = []  # sorted offsets of living and freed allocations
        self._sizes: list[int] = []
        self._alive: list[bool] = []
        self._end = RED_ZONE

    def alloc(self, size: int, align: int = 256) -> int:
        """The address of `size` new bytes, never written."""
        start = -(-self._end // align) * align
        self._end = start + size + RED_ZONE
        if self._end > len(self.data):
            grown = max(self._end, 2 * len(self.data))
            grown = -(-grown // 256) * 256
            self.data = _grown(self.data, grown)
            self.state = _grown(self.state, grown)
        self.state[start : start + size] = UNWRITTEN
        self._starts.append(start)
        self._sizes.append(size)
        self._alive.append(True)
        return GLOBAL_BASE + start

    def free(self, address: int) -> None:
        """Give an allocation back; its addresses are used again only when all later ones are free too."""
        start = address - GLOBAL_BASE
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self._starts[index] != start or not self._alive[index]:
            raise PtxError(f"free of 0x{address:x}, where no allocation begins")
        self._alive[index] = False
        self.state[start : start + self._sizes[index]] = FREE
        while self._alive and not self._alive[-1]:
            self._alive.pop()
            self._sizes.pop()
            self._end = self._starts.pop()

    def copy_in(self, address: int, array: Array | bytes) -> None:
        """Bytes from the host to an address."""
        raw = np.frombuffer(array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes(), np.uint8)
        start = self._checked(address, len(raw))
        self.data[start : start + len(raw)] = raw
        self.state[start : start + len(raw)] = WRITTEN

    def copy_out(self, address: int, size: int) -> Array:
        """`size` bytes from an address; bytes that nothing has written are 0."""
        start = self._checked(address, size)
        return self.data[start : start + size].copy()

    def fill(self, address: int, value: int, size: int) -> None:
        """Set bytes."""
        start = self._checked(address, size)
        self.data[start : start + size] = value
        self.state[start : start + size] = WRITTEN

    def written(self, address: int, size: int) -> Array:
        """Which of these bytes have been written."""
        start = self._checked(address, size)
        return np.asarray(self.state[start : start + size] == WRITTEN)

    def describe(self, address: int) -> str:
        """Where an address lies, in words."""
        offset = address - GLOBAL_BASE
        index = bisect_right(self._starts, offset) - 1
        if not 0 <= offset < self._end or index < 0:
            return "outside of all allocations"
        start, size = self._starts[index], self._sizes[index]
        gone = "" if self._alive[index] else ", which was freed"
        place = (
            f"byte {offset - start} of" if offset < start + size else f"{offset - start - size} bytes past the end of"
        )
        return f"{place} the allocation of {size} bytes at 0x{GLOBAL_BASE + start:x}{gone}"

    def _checked(self, address: int, size: int) -> int:
        start = address - GLOBAL_BASE
        if not 0 <= start <= len(self.state) - size or (self.state[start : start + size] == FREE).any():
            raise OutOfBounds(f"a copy of {size} bytes at 0x{address:x}, {self.describe(address)}")
        return start


def _grown(array: Array, size: int) -> Array:
    larger = np.zeros(size, array.dtype)
    larger[: len(array)] = array
    return larger
