"""What a thread reads of its own cell before a step waits: it is on its way meanwhile, or has never left its register.

In: a loop whose kernels compute cells of products, and before which kernels threads wait. Out: `Foreseen` loads, and
their code. A step waits for what other threads make, and then for a product; what else a cell takes could have been
read before, if no step changes it until then. So the loads of a thread's first cell come before the wait; what no step
changes at all, before the loop. And what the thread itself has made at that cell, in this step or the one before,
stays in a register. Its further cells, if there are any, load when they are computed. Where neither the wait nor the
product is as long as a load, loads come a step earlier still.
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
from graphc.codegen.program import Index, Kernel, Load, Loop, Program, Reduce, Ring, Scalar
from graphc.codegen.uses import loads

__all__ = ["FirstCell", "Prefetch", "PrefetchRegisters", "prefetches"]

_MOST = 16  # values of a kernel that a thread keeps


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A load of a kernel. A store may have the value, of a kernel earlier in the step, or in the step `before` of this
    one or a later: `made_by` names the kernel, and the place among its stores. Or it is loaded before the kernel `wait`
    waits: in the step `before` its own, or in the same; None: before the loop, and never again."""

    kernel: str
    load: Load
    made_by: tuple[str, int] | None = None
    wait: str | None = None
    before: bool = False

    @property
    def is_of_the_step_before(self) -> bool:
        """Whether the first step must find it in its register."""
        return self.before or (self.made_by is None and self.wait is None)


def prefetches(
    loop: Loop, cells: Mapping[str, Hashable], waits: Collection[str], program: Program
) -> tuple[Prefetch, ...]:
    """`cells`: how the points of kernels are dealt to threads; alike, where it says the same. `waits`: the kernels
    before which threads wait."""
    body = [kernel for kernel in loop.body if isinstance(kernel, Kernel)]
    if len(body) < len(loop.body):
        return ()
    search = _Search(loop, body, cells, waits, program)
    return tuple(found for kernel in body if kernel.name in cells for found in search.of(kernel))


class _Search:
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
        """First what has never left its register, then what every step loads, then what is loaded once."""
        found = [x for load in dict.fromkeys(loads(kernel)) for x in self._foreseen(kernel, load)]
        found.sort(key=lambda x: (x.made_by is None, x.wait is None))
        return found[:_MOST]

    def _foreseen(self, kernel: Kernel, load: Load) -> Iterator[Prefetch]:
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
            if age == newest:  # the register holds no other
                yield Prefetch(kernel.name, load, (maker.name, number), before=age == 1)

    def _loaded(self, kernel: Kernel, load: Load) -> Iterator[Prefetch]:
        """Before the last wait that is before the kernel."""
        earlier = [name for name in self.waits if self.position[name] <= self.position[kernel.name]]
        if self.waits:
            yield Prefetch(kernel.name, load, wait=(earlier or self.waits)[-1], before=not earlier)

    def _is_changed_later(self, kernel: Kernel, load: Load, maker: Kernel, number: int) -> bool:
        """Whether each step stores to the places that it has read, and to no others."""
        buffer = self.program.buffer(load.buffer)
        read, made = self._along(load.at), self._along(maker.stores[number].at)
        if read is None or read != made or isinstance(buffer.dims[read[0]], Ring):
            return False
        return self.position[kernel.name] <= self.position[maker.name]

    def _age(self, kernel: Kernel, load: Load, maker: Kernel, number: int) -> int | None:
        """How many steps ago the same thread has stored what a load reads, at the same cell."""
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
        """The one subscript that moves with the loop: its place, where it starts, and how far ahead it is."""
        found = [(k, *step) for k, x in enumerate(at) if (step := in_steps(x, self.loop)) is not None]
        return found[0] if len(found) == 1 else None

    def _beside(self, kernel: Kernel, at: Sequence[Scalar], along: int) -> list[Scalar]:
        """The other subscripts, by the numbers of the kernel's dims."""
        names: dict[str, Scalar] = {dim.index: Index(f"dim {k}") for k, dim in enumerate(kernel.dims)}
        access = Access(kernel, self.program)
        return [substitute(x, names, access) for k, x in enumerate(at) if k != along]


def _of_subscripts(kernel: Kernel, load: Load, program: Program) -> frozenset[str] | None:
    """What the place of a load depends on; None if that is more than the point and the step."""
    access = Access(kernel, program)
    terms = {dim.index for step in kernel.body if isinstance(step, Reduce) for dim in step.dims}
    parts = load.at if load.when is None else (*load.at, load.when)
    dependence = frozenset().union(*map(access.dependence, parts))
    return dependence if dependence.isdisjoint(terms | {MEMORY, *access.sums}) else None


@dataclass(frozen=True, slots=True)
class FirstCell:
    """The first cell of a product that this thread computes in each step: whether there is one, and its indices."""

    exists: Value
    indices: Mapping[str, Value]


class PrefetchRegisters:
    """The code: a variable for each of the loads; and another, if they may come a step `early`, for what every step
    loads, where the next one's value is on its way. They do not where some loads do so anyway: backward loops were a
    tenth to a quarter slower."""

    def __init__(self, f: DeviceFunction, found: Sequence[Prefetch], program: Program, early: bool) -> None:
        self.function, self.found = f, found
        self.early = early and not any(x.before for x in found)
        self.types = {x: REGISTER.get(program.buffer(x.load.buffer).dtype, "float") for x in found}
        self.variables = {x: f.variable(self.types[x]) for x in found}
        self.coming = {x: f.variable(self.types[x]) for x in found if self.early and x.wait is not None}

    def steps_ahead(self, x: Prefetch) -> int:
        """For which step a load before a wait is: for this one (0), or the next."""
        return int(x.before or self.early)

    def begin(self, s: Scalars, wanted: Sequence[Prefetch]) -> None:
        """Load what the first step finds in registers, for the cell and the step whose indices are known."""
        for x in wanted:
            self.function.put(s.value(x.load), self.coming.get(x, self.variables[x]))

    def fetch(self, s: Scalars, wanted: Sequence[Prefetch]) -> None:
        """Load before a wait; what was on its way has come."""
        for x in wanted:
            if x in self.coming:
                self.function.put(self.function.get(self.coming[x], self.types[x]), self.variables[x])
        self.begin(s, wanted)

    def bind(self, s: Scalars, kernel: Kernel, is_first: Value) -> None:
        """Before a cell is computed: what is known of it, if it is the first, and of another, what memory has."""
        f, own = self.function, [x for x in self.found if x.kernel == kernel.name]
        if not own:
            return
        variables = [f.variable(self.types[x]) for x in own]
        for x, variable in zip(own, variables, strict=True):
            f.put(f.get(self.variables[x], self.types[x]), variable)
        with f.when(f.binary("xor", is_first, Value("true", "i1"))), s.scope({}):
            for x, variable in zip(own, variables, strict=True):
                f.put(s.value(x.load), variable)
        for x, variable in zip(own, variables, strict=True):
            s.bind(x.load, f.get(variable, self.types[x]))

    def keep(self, s: Scalars, kernel: Kernel, is_first: Value) -> None:
        """After a cell was computed: what it has made, if it is the first."""
        made = [x for x in self.found if x.made_by is not None and x.made_by[0] == kernel.name]
        if not made:
            return
        values = [s.value(s.access.stored(kernel.stores[x.made_by[1]])) for x in made if x.made_by is not None]
        with self.function.when(is_first):
            for x, value in zip(made, values, strict=True):
                self.function.put(value, self.variables[x])
