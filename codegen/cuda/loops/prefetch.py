"""Prefetching: a thread loads the other operands of its own cell before it waits for a step.

In: a loop whose kernels compute cells of products, and the kernels before which threads wait. Out: the `Prefetch`es,
and their code. A step waits for what other threads make, and then for a product. Everything else that a cell reads can
be loaded earlier, if nothing stores it in between:

- what no step changes and no step moves, once, before the loop;
- what the same thread stored for the same cell, in this step or the one before, stays in a register;
- what depends on the step otherwise is loaded ahead of the wait, so that the load and the wait overlap. Where wait and
  product take less time than a load, it is loaded a step earlier still. There, too, what the cell loads some steps
  later is brought to the second-level cache.

This is done for the first cell of each thread only. Further cells load when they are computed.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.access import MEMORY, Access, substitute
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.mirror import in_steps
from graphc.codegen.llvm.builder import Value
from graphc.codegen.llvm.functions import REGISTER, STORAGE
from graphc.codegen.program import Index, Kernel, Load, Loop, Program, Ring, Scalar
from graphc.codegen.uses import loads

__all__ = ["FirstCell", "Prefetch", "PrefetchRegisters", "prefetches"]

_MOST = 16  # values of a kernel that a thread prefetches


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A load of a kernel whose value is in a register before the kernel runs. Where the value comes from:

    - store `made_by` (a kernel, and the number of its store), of this step, or of the one before if `before`;
    - or a load ahead of the wait of kernel `wait`, in this step, or in the one before if `before`;
    - or, with neither, one load before the loop.
    """

    kernel: str
    load: Load
    made_by: tuple[str, int] | None = None
    wait: str | None = None
    before: bool = False

    @property
    def is_needed_at_start(self) -> bool:
        """Whether it must be loaded before the loop, for the first step."""
        return self.before or (self.made_by is None and self.wait is None)


def prefetches(
    loop: Loop, cells: Mapping[str, Hashable], waits: Collection[str], program: Program
) -> tuple[Prefetch, ...]:
    """The prefetches of a loop; none if it has loops inside. `cells`: by kernel, how its points are mapped to threads;
    equal values mean equal mappings. `waits`: the kernels before which threads wait."""
    body = [kernel for kernel in loop.body if isinstance(kernel, Kernel)]
    if len(body) < len(loop.body):
        return ()
    search = _Search(loop, body, cells, waits, program)
    return tuple(found for kernel in body if kernel.name in cells for found in search.of(kernel))


class _Search:
    """Finds the prefetches of each kernel of a loop."""

    def __init__(
        self,
        loop: Loop,
        body: Sequence[Kernel],
        cells: Mapping[str, Hashable],
        waits: Collection[str],
        program: Program,
    ) -> None:
        self.loop, self.body, self.cells, self.program = loop, body, cells, program
        self.position = {kernel.name: k for k, kernel in enumerate(body)}
        self.waits = [kernel.name for kernel in body if kernel.name in waits]

    def of(self, kernel: Kernel) -> list[Prefetch]:
        """The prefetches of a kernel: first those of stores, then those of every step, then those made once."""
        found = [x for load in dict.fromkeys(loads(kernel)) for x in self._prefetches_of(kernel, load)]
        found.sort(key=lambda x: (x.made_by is None, x.wait is None))
        return found[:_MOST]

    def _prefetches_of(self, kernel: Kernel, load: Load) -> Iterator[Prefetch]:
        """The prefetch of a load, if it can have one."""
        dependence = _of_subscripts(kernel, load, self.program)
        if dependence is None:
            return
        stores = [(k, n) for k in self.body for n, store in enumerate(k.stores) if store.buffer == load.buffer]
        if not stores and self.loop.index not in dependence:
            yield Prefetch(kernel.name, load)
        elif not stores or (len(stores) == 1 and self._is_changed_later(kernel, load, *stores[0])):
            yield from self._loaded(kernel, load)
        elif len(stores) == 1:
            maker, number = stores[0]
            age = self._age(kernel, load, maker, number)
            newest = 0 if self.position[maker.name] < self.position[kernel.name] else 1
            if age == newest:  # an older value has been overwritten in the register
                yield Prefetch(kernel.name, load, (maker.name, number), before=age == 1)

    def _loaded(self, kernel: Kernel, load: Load) -> Iterator[Prefetch]:
        """A prefetch ahead of the last wait before the kernel; if there is none in the step, the last of the step
        before."""
        earlier = [name for name in self.waits if self.position[name] <= self.position[kernel.name]]
        if self.waits:
            yield Prefetch(kernel.name, load, wait=(earlier or self.waits)[-1], before=not earlier)

    def _is_changed_later(self, kernel: Kernel, load: Load, maker: Kernel, number: int) -> bool:
        """Whether each step stores only where it has read itself, so that it reads what was there before the loop."""
        buffer = self.program.buffer(load.buffer)
        read, made = self._along(load.at), self._along(maker.stores[number].at)
        if read is None or read != made or isinstance(buffer.dims[read[0]], Ring):
            return False
        return self.position[kernel.name] <= self.position[maker.name]

    def _age(self, kernel: Kernel, load: Load, maker: Kernel, number: int) -> int | None:
        """How many steps ago the same thread stored what a load reads, for the same cell; None if it did not."""
        store = maker.stores[number]
        kept_whole = STORAGE[self.program.buffer(load.buffer).dtype][0] == REGISTER.get(load.dtype)
        read, made = self._along(load.at), self._along(store.at)
        if store.accumulate or not kept_whole or self.cells[kernel.name] != self.cells.get(maker.name):
            return None
        if read is None or made is None or read[:2] != made[:2]:
            return None
        if self._beside(kernel, load.at, read[0]) != self._beside(maker, store.at, made[0]):
            return None
        return read[2] - made[2] if self.loop.reverse else made[2] - read[2]

    def _along(self, at: Sequence[Scalar]) -> tuple[int, Scalar, int] | None:
        """The one subscript that moves with the loop: its position, and what `in_steps` gives."""
        found = [(k, *step) for k, x in enumerate(at) if (step := in_steps(x, self.loop)) is not None]
        return found[0] if len(found) == 1 else None

    def _beside(self, kernel: Kernel, at: Sequence[Scalar], along: int) -> list[Scalar]:
        """The other subscripts, with the kernel's dims by number instead of name, to compare those of two kernels."""
        names: dict[str, Scalar] = {dim.index: Index(f"dim {k}") for k, dim in enumerate(kernel.dims)}
        access = Access(kernel, self.program)
        return [substitute(x, names, access) for k, x in enumerate(at) if k != along]


def _of_subscripts(kernel: Kernel, load: Load, program: Program) -> frozenset[str] | None:
    """What the address and the condition of a load depend on; None if it is more than the point and indices of
    loops."""
    access = Access(kernel, program)
    terms = {dim.index for reduce in kernel.reduces for dim in reduce.dims}
    parts = load.at if load.when is None else (*load.at, load.when)
    dependence = frozenset().union(*map(access.dependence, parts))
    return dependence if dependence.isdisjoint(terms | {MEMORY, *access.sums}) else None


@dataclass(frozen=True, slots=True)
class FirstCell:
    """The first cell of a product that this thread computes in each step: whether there is one, and its indices."""

    exists: Value
    indices: Mapping[str, Value]


class PrefetchRegisters:
    """The code: a variable for the value of each prefetch.

    If `early`, each load ahead of a wait is for the next step instead, and has a second variable for the value in
    flight. Loops in which some loads are a step ahead anyway are never early: backward loops became a tenth to a
    quarter slower.
    """

    def __init__(self, f: DeviceFunction, found: Sequence[Prefetch], program: Program, early: bool) -> None:
        self.function, self.found = f, found
        self.early = early and not any(x.before for x in found)
        self.types = {x: REGISTER.get(program.buffer(x.load.buffer).dtype, "float") for x in found}
        self.variables = {x: f.variable(self.types[x]) for x in found}
        self.in_flight = {x: f.variable(self.types[x]) for x in found if self.early and x.wait is not None}
        self.ahead_of_wait = {x.kernel for x in found if x.wait is not None}

    def kept_for(self, kernel: Kernel) -> tuple[Load, ...]:
        """The loads of a kernel whose values the same thread has made and kept."""
        return tuple(x.load for x in self.found if x.kernel == kernel.name and x.made_by is not None)

    def steps_ahead(self, x: Prefetch) -> int:
        """How many steps ahead a load is made before a wait: 0 or 1."""
        return int(x.before or self.early)

    def begin(self, s: Scalars, kernel: Kernel, wanted: Sequence[Prefetch]) -> None:
        """Make loads of a kernel before the first step, with the indices of a cell and a step bound in `s`."""
        for x in wanted:
            self.function.put(s.value(x.load), self.in_flight.get(x, self.variables[x]))

    def fetch(self, s: Scalars, kernel: Kernel, wanted: Sequence[Prefetch]) -> None:
        """Make loads of a kernel ahead of a wait; values that were in flight become those of this step."""
        for x in wanted:
            if x in self.in_flight:
                self.function.put(self.function.get(self.in_flight[x], self.types[x]), self.variables[x])
        self.begin(s, kernel, wanted)
        s.fetch_ahead(kernel)

    def bind(self, s: Scalars, kernel: Kernel, is_first: Value) -> None:
        """Before a cell is computed: bind its loads, to prefetched values for the first cell, else to loads from
        memory."""
        f, own = self.function, [x for x in self.found if x.kernel == kernel.name]
        if kernel.name not in self.ahead_of_wait:
            s.fetch_ahead(kernel)
        if not own:
            return
        variables = [f.variable(self.types[x]) for x in own]
        for x, variable in zip(own, variables, strict=True):
            f.put(f.get(self.variables[x], self.types[x]), variable)
        with s.when(f.binary("xor", is_first, Value("true", "i1"))):
            if kernel.name in self.ahead_of_wait:
                s.fetch_ahead(kernel)
            for x, variable in zip(own, variables, strict=True):
                f.put(s.value(x.load), variable)
        for x, variable in zip(own, variables, strict=True):
            s.bind(x.load, f.get(variable, self.types[x]))

    def keep(self, s: Scalars, kernel: Kernel, is_first: Value) -> None:
        """After a cell was computed: keep the values it has stored that are read again, if it is the first cell."""
        made = [x for x in self.found if x.made_by is not None and x.made_by[0] == kernel.name]
        if not made:
            return
        values = [s.value(s.access.stored(kernel.stores[x.made_by[1]])) for x in made if x.made_by is not None]
        with self.function.when(is_first):
            for x, value in zip(made, values, strict=True):
                self.function.put(value, self.variables[x])
