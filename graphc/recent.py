"""A bounded cache: what was made for the keys that were used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Keeps the `most` entries that were used last. Threads may share it: two that ask for the same new key may both
    make its entry, and then both get the one that was kept first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> T | None:
        """The entry of a key, if it is still kept."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def get_or_make(self, key: Hashable, make: Callable[[], T]) -> T:
        """The entry of a key; if it is not kept, it is made now, outside of the lock."""
        found = self.get(key)
        if found is not None:
            return found
        made = make()
        with self._lock:
            made = self._entries.setdefault(key, made)
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        return made
