"""Stores to global memory that wait until a step's parts have been sent.

In: the stores of a thread's only cell, where their values are computed. Out: their code, later in the step. All CTAs of
a group wait for what a step sends, and with exchanges nobody waits for what it stores to global memory: no other thread
reads it before the loop has ended (`graphc.codegen.cuda.loops.exchanges`). Until then the values stay in registers. For
example, the forward loop of a training step sends h[t], and then stores h[t], c[t] and the gates.

The order of accesses to an element stays as it was: before a kernel that loads from memory or stores what is pending,
the pending stores are made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.codegen.access import MEMORY, Access
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.llvm.builder import Value
from graphc.codegen.program import Kernel, Load, Store
from graphc.codegen.uses import loads, stored

__all__ = ["DeferredStores"]


@dataclass(frozen=True, slots=True)
class _Deferred:
    """A store of a kernel, and the variable that holds its value, of this type."""

    store: Store
    variable: Value
    type: str


class DeferredStores:
    """The pending stores of a step, by kernel."""

    def __init__(self, f: DeviceFunction) -> None:
        self.function = f
        self._pending: dict[str, list[_Deferred]] = {}

    def can_wait(self, store: Store, access: Access) -> bool:
        """Whether a store's address is known without memory, and it replaces what is there."""
        known = {MEMORY, *access.sums}
        return not store.accumulate and all(access.dependence(x).isdisjoint(known) for x in store.at)

    def defer(self, kernel: Kernel, store: Store, value: Value) -> None:
        """Keep the value of a store."""
        variable = self.function.variable(value.type)
        self.function.put(value, variable)
        self._pending.setdefault(kernel.name, []).append(_Deferred(store, variable, value.type))

    def are_touched_by(self, kernel: Kernel, in_registers: Iterable[Load]) -> bool:
        """Whether a kernel loads a buffer with a pending store, other than by the loads whose values are in registers,
        or stores to one."""
        touched = {load.buffer for load in set(loads(kernel)) - set(in_registers)} | stored((kernel,))
        return any(x.store.buffer in touched for pending in self._pending.values() for x in pending)

    def kernels(self) -> tuple[str, ...]:
        """The kernels with pending stores, in order."""
        return tuple(self._pending)

    def make(self, s: Scalars, kernel: str) -> None:
        """Make the pending stores of a kernel, with the indices of the cell bound in `s`."""
        for x in self._pending.pop(kernel):
            s.store_global(x.store.buffer, x.store.at, self.function.get(x.variable, x.type))
