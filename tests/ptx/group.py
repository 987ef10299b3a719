"""The threads that execute together, and their view of the registers.

A register's value is an array with an entry for each thread of the machine, or one entry when it is the same for all.
A group works on all threads at once (its arrays are the machine's own), or on a selection: then it gathers what it
reads, and `flush` scatters what is live afterwards. Arrays are never changed in place once another register may hold
them: the machine's set `owned` names the registers whose arrays nobody else has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tests.ptx.kinds import UNSIGNED, Array

if TYPE_CHECKING:
    from tests.ptx.machine import Machine

_GARBAGE = 0xCDCDCDCDCDCDCDCD  # what a register holds before anything is written to it


class Group:
    """A selection of the machine's threads (`threads`: their numbers, None for all), all at one instruction."""

    __slots__ = ("_chosen", "_values", "_written", "count", "limit", "machine", "threads")

    def __init__(self, machine: Machine, threads: Array | None, limit: int) -> None:
        self.machine = machine
        self.threads = threads
        self.count = machine.count if threads is None else len(threads)
        self.limit = limit  # the lowest place where another thread could join
        self._values: dict[int, Array] = {}
        self._written: set[int] = set()
        self._chosen: dict[int, tuple[Array, Array]] = {}

    @property
    def numbers(self) -> Array:
        """The numbers of the threads."""
        return self.machine.numbers if self.threads is None else self.threads

    def choose(self, values: Array) -> Array:
        """The entries of a per-thread array that belong to the group."""
        if self.threads is None or len(values) == 1:
            return values
        key = id(values)
        if key not in self._chosen:
            self._chosen[key] = (values, values[self.threads])  # the array is kept, so that its id stays its own
        return self._chosen[key][1]

    def read(self, slot: int) -> Array:
        """A register's bits: an array of one entry or of one for each thread."""
        if self.threads is not None:
            value = self._values.get(slot)
            if value is None:
                value = self._full(slot)
                if len(value) > 1:
                    value = value[self.threads]
                self._values[slot] = value
            return value
        self.machine.owned.discard(slot)  # whoever reads the array may keep it under another register's name
        return self._full(slot)

    def write(self, slot: int, bits: Array) -> None:
        """Set a register."""
        if self.threads is None:
            self.machine.owned.discard(slot)
            self.machine.registers[slot] = bits
        else:
            self._values[slot] = bits
            self._written.add(slot)

    def flush(self, live: int = -1) -> None:
        """Write the selection's registers back, those in the bit set `live` alone."""
        registers = self.machine.registers
        for slot in self._written:
            if live >> slot & 1:
                whole, value = self._full(slot), self._values[slot]
                if slot not in self.machine.owned:
                    if len(whole) == len(value) == 1 and whole[0] == value[0]:
                        continue
                    whole = np.repeat(whole, self.machine.count) if len(whole) == 1 else whole.copy()
                    registers[slot] = whole
                    self.machine.owned.add(slot)
                whole[self.threads] = value
        self._written.clear()
        self._values.clear()

    def spread(self, values: Array) -> Array:
        """An array of one entry for each thread."""
        return values if len(values) == self.count else np.broadcast_to(values, (self.count,))

    def _full(self, slot: int) -> Array:
        value = self.machine.registers[slot]
        if value is None:
            width = self.machine.widths[slot]
            garbage = np.array([_GARBAGE], np.uint64)
            made = np.repeat(garbage, 2).view(UNSIGNED[width]) if width > 64 else garbage.astype(UNSIGNED[width])
            value = self.machine.registers[slot] = made
        return value
