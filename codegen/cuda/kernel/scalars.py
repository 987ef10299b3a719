"""Computes the scalars of a kernel in the registers of one thread.

In: scalars, requested inside the loops that are open. Out: LLVM values. A value is computed once in each scope. LLVM
moves what does not depend on a loop out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from graphc.codegen.access import Access
from graphc.codegen.cuda.isa.device import GLOBAL, DeviceFunction
from graphc.codegen.cuda.kernel.parameters import size_value
from graphc.codegen.llvm.builder import Value
from graphc.codegen.llvm.functions import STORAGE, constant
from graphc.codegen.llvm.memory import read, write
from graphc.codegen.program import Call, Const, Index, Kernel, Load, Ref, Scalar, Size
from graphc.codegen.uses import loads
from graphc.scalar import index, walk

if TYPE_CHECKING:
    from graphc.codegen.cuda.loops.mirrored import Mirrored

__all__ = ["NOWHERE", "NOWHERE_BYTES", "NO_KERNEL", "Scalars"]

NOWHERE = "graphc_nowhere"  # global memory, read by loads whose conditions are false
NOWHERE_BYTES = 1 << 14


NO_KERNEL = Kernel("", (), (), ())  # for scalars that belong to none, such as lengths


class Scalars:
    """Computes the scalars of one kernel in one device function.

    `indices` are those of the loops around the kernel. `later` is the index of the innermost loop, and its value some
    steps later. What a kernel stores to a buffer in `mirrors` is stored to its mirror too: to that of the own CTA if
    `alone`, else to those of all CTAs of the cluster. The loads in `near` read mirrors instead of global memory.
    """

    def __init__(
        self,
        function: DeviceFunction,
        access: Access,
        indices: Mapping[str, Value],
        later: tuple[str, Value] | None = None,
        mirrors: Mapping[str, Mirrored] | None = None,
        near: Set[Load] = frozenset(),
        alone: bool = False,
    ) -> None:
        self.function = function
        self.functions = function.functions
        self.access = access
        self.later = later
        self.mirrors = mirrors or {}
        self.near = near
        self.alone = alone
        self._around = frozenset(indices)
        self._scopes: list[dict[Scalar, Value]] = [{Index(name): value for name, value in indices.items()}]
        self._guards: list[Value] = []

    @contextmanager
    def scope(self, indices: Mapping[str, Value]) -> Iterator[None]:
        """A region of code whose values are not reused outside. It binds indices."""
        self._scopes.append({Index(name): value for name, value in indices.items()})
        yield
        self._scopes.pop()

    @contextmanager
    def when(self, condition: Value | None, indices: Mapping[str, Value] | None = None) -> Iterator[None]:
        """if (condition), in a scope of its own. None: always."""
        with nullcontext() if condition is None else self.function.when(condition), self.scope(indices or {}):
            yield

    @contextmanager
    def guarded(self, condition: Value) -> Iterator[None]:
        """A scope in which loads access memory only if the condition holds."""
        self._guards.append(condition)
        with self.scope({}):
            yield
        self._guards.pop()

    def bind(self, scalar: Scalar, value: Value) -> None:
        """Set the value of a scalar to the end of the scope: a reduction's result, an operand in a register."""
        self._scopes[-1][scalar] = value

    def value(self, scalar: Scalar) -> Value:
        """The value of a scalar, computed here if no open scope has it."""
        match scalar:
            case Const(value, dtype):
                return constant(value, dtype)
            case Size(name):
                return size_value(name)
        known = self._known(scalar)
        if known is not None:
            return known
        resolved = self.access.resolve(scalar)
        made = self.value(resolved) if resolved is not scalar else self._computed(scalar)
        self._scopes[-1][scalar] = made
        return made

    def _known(self, scalar: Scalar) -> Value | None:
        return next((scope[scalar] for scope in reversed(self._scopes) if scalar in scope), None)

    def _computed(self, scalar: Scalar) -> Value:
        match scalar:
            case Call(fn, args, dtype):
                return self.functions.apply(fn, [self.value(a) for a in args], args[-1].dtype, dtype)
            case Load():
                return self._load(scalar)
        raise AssertionError(f"{scalar} has no value here")

    def _load(self, load: Load) -> Value:
        """An element; if the load's condition is false, some element of `NOWHERE`."""
        f, dtype = self.function, self.access.buffers[load.buffer].dtype
        if load in self.near:
            return read(f, self._near(load), self.mirrors[load.buffer].mirror.dtype, 1, None)
        exists = self._exists(load)
        if exists is None:
            return read(f, self.pointer(load.buffer, load.at), dtype, 1, None)
        nowhere, last = Value(f"@{NOWHERE}", GLOBAL), self._last(load)
        if last is None:
            pointer = f.select(exists, self.pointer(load.buffer, load.at), nowhere)
            return read(f, pointer, dtype, 1, None)
        # The condition chooses the row, so neighbouring elements stay neighbours and can be loaded together.
        line = f.select(exists, self.pointer(load.buffer, (*load.at[:-1], index(0))), nowhere)
        return read(f, f.offset(line, STORAGE[dtype][0], self.value(last)), dtype, 1, None)

    def _near(self, load: Load) -> Value:
        """Where a load finds its element in shared memory; where its condition is false, where that step's part of the
        mirror begins, which is complete, too. Steps need no condition: the mirror has a place for each, and zeros where
        there is none."""
        pointer, mirrored = self.mirrored(load), self.mirrors[load.buffer]
        if load.when is None or self.access.dependence(load.when) <= self._around:
            return pointer
        start = mirrored.slot(self.value(load.at[mirrored.mirror.place]))
        return self.function.select(self.value(load.when), pointer, start)

    def mirrored(self, load: Load) -> Value:
        """The address of an element in its mirror."""
        return self.mirrors[load.buffer].pointer([self.value(a) for a in load.at])

    def _exists(self, load: Load) -> Value | None:
        """The condition under which memory is accessed; None: always."""
        conditions = self._guards if load.when is None else [*self._guards, self.value(load.when)]
        return self.function.every(conditions) if conditions else None

    def _last(self, load: Load) -> Scalar | None:
        """The last subscript of a load, if the load's condition does not depend on it and its dim is short."""
        if not load.at:
            return None
        buffer = self.access.buffers[load.buffer]
        last, extent = load.at[-1], buffer.dims[-1]
        short = isinstance(extent, Const) and int(extent.value) * STORAGE[buffer.dtype][1] <= NOWHERE_BYTES
        asked = load.when is not None and not self.access.dependence(load.when).isdisjoint(self.access.dependence(last))
        return None if not isinstance(last, Index) or not short or asked else last

    def pointer(self, buffer: str, at: tuple[Scalar, ...]) -> Value:
        """The address of an element."""
        element = STORAGE[self.access.buffers[buffer].dtype][0]
        return self.function.offset(self.function.buffers[buffer], element, self.value(self.access.offset(buffer, at)))

    def stored(self, kernel: Kernel) -> list[Value]:
        """The values that this point stores, by store."""
        return [self.value(self.access.stored(store)) for store in kernel.stores]

    def store(self, buffer: str, at: tuple[Scalar, ...], value: Value, accumulate: bool) -> None:
        """Store an element, and store it to the buffer's mirror if there is one."""
        if accumulate:
            pointer, dtype = self.pointer(buffer, at), self.access.buffers[buffer].dtype
            value = self.functions.apply("add", [read(self.function, pointer, dtype, 1, None), value], dtype, dtype)
        self.store_global(buffer, at, value)
        self.store_mirrored(buffer, at, value)

    def store_global(self, buffer: str, at: tuple[Scalar, ...], value: Value) -> None:
        """Store an element to global memory alone."""
        write(self.function, value, self.pointer(buffer, at), self.access.buffers[buffer].dtype, None)

    def store_mirrored(self, buffer: str, at: tuple[Scalar, ...], value: Value) -> None:
        """Store an element to the buffer's mirror, if there is one."""
        if buffer in self.mirrors:
            self.mirrors[buffer].push([self.value(a) for a in at], value, self.alone)

    def load_known(self, kernel: Kernel) -> None:
        """Load what this point reads at known subscripts before anything is computed, so that it waits for memory only
        once. The assembler does not move loads up past a division, which may branch."""
        for load in dict.fromkeys(loads(kernel)):
            if all(map(self._is_placed, load.at if load.when is None else (*load.at, load.when))):
                self.value(load)

    def _is_placed(self, scalar: Scalar) -> bool:
        """Whether a subscript or a condition depends on nothing but indices that are bound."""
        for part in walk(scalar):
            named = self.access.resolve(part) if isinstance(part, Ref) else None
            if named is not None and (named is part or not self._is_placed(named)):
                return False
            if isinstance(part, Load) or (isinstance(part, Index) and self._known(part) is None):
                return False
        return True

    def fetch_ahead(self, kernel: Kernel) -> None:
        """Prefetch to the second-level cache what this point loads some steps later; from memory it would take as long
        as a step. What earlier steps have made is in that cache already."""
        if self.later is None:
            return
        name, value = self.later
        later = Index(f"{name} later")
        with self.scope({later.name: value}):
            for load in dict.fromkeys(loads(kernel)):
                indices = [part for subscript in load.at for part in walk(subscript) if isinstance(part, Index | Load)]
                known = all(isinstance(part, Index) and self._known(part) is not None for part in indices)
                if load.when is None and Index(name) in load.at and known:
                    at = tuple(later if subscript == Index(name) else subscript for subscript in load.at)
                    self.function.prefetch(self.pointer(load.buffer, at))

    @contextmanager
    def counting(self, start: Value, stop: Value, step: Value, name: str = "i") -> Iterator[Value]:
        """for (index = start; index < stop; index += step), in a scope of its own. Yields the index."""
        label = "".join(c for c in name if c.isascii() and c.isalnum()) or "i"
        with self.function.loop(start, stop, step, label, unroll=True) as (index, _), self.scope({}):
            yield index
