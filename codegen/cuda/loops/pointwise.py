"""A pointwise loop as one kernel: a thread takes a point through all steps, its states in registers.

In: a `PointwiseUnit`. Out: the code of its device function. A step is bound by the time of its loads, unless these are
made before they are needed: so the operands of several steps are loaded together, and then the steps are computed, one
after another. What a step stores and the next one reads stays in a register; it is stored too, if anything else reads
it. What remains at the end, fewer steps than are loaded together, is computed step by step.

The steps of a linear recurrence may be cut into parts, which are computed at the same time: a thread takes a point
through the steps of one part. It finds the states before its part in what the parts before it have come to
(`graphc.codegen.cuda.loops.scan`).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from graphc.codegen.access import Access
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import digits, place
from graphc.codegen.cuda.kernel.parameters import scan_values, steps_around
from graphc.codegen.cuda.kernel.scalars import NO_KERNEL, Scalars
from graphc.codegen.cuda.loops.linear import Coefficient
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.loops.prefetch import Prefetch
from graphc.codegen.cuda.loops.scan import NOTHING, Totals, is_nothing
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER
from graphc.codegen.program import Kernel, Program, Ring, Store, kernels

__all__ = ["PartTotals", "PointwiseLoop"]

_LATER = 2  # blocks of steps: so much later is what is brought to the second-level cache


class _Steps(ABC):
    """Writes a kernel whose threads each take a point through the steps of a part. `all_parts`: or else those of all
    parts but the last."""

    all_parts: bool

    def __init__(self, function: DeviceFunction, unit: PointwiseUnit, program: Program) -> None:
        self.function, self.unit, self.program = function, unit, program
        self.kernels = list(kernels((unit.loop,)))
        self.types = {x: REGISTER.get(program.buffer(x.load.buffer).dtype, "float") for x in unit.prefetches}
        self.variables = {x: function.variable(self.types[x]) for x in unit.prefetches if x.wait is None}
        self.point: dict[str, dict[str, Value]] = {}  # by kernel: the indices of this thread's point
        self.part = self.last = i64(0)  # the number of this thread's part, and of the last step of all
        self.is_last_part = Value("true", "i1")
        self.totals: Totals | None = None

    @abstractmethod
    def begin(self) -> None:
        """Before the first step of the part."""

    @abstractmethod
    def step(self, kernel: Kernel, scalars: Scalars) -> None:
        """Compute the point of a kernel in one step."""

    @abstractmethod
    def end(self) -> None:
        """After the last step of the part."""

    def emit(self) -> None:
        """Append the code."""
        f, unit = self.function, self.unit
        around = Scalars(f, Access(NO_KERNEL, self.program), steps_around(unit.around))
        lengths = [around.value(slicing.extent) for slicing in unit.slicings]
        points, extent = f.product(lengths), around.value(unit.loop.extent)
        self.last = f.binary("sub nsw", extent, i64(1))
        here = place(f, unit.threads, f.wide(f.register("ctaid.x")), f.wide(f.register("nctaid.x")))
        number = f.binary("add nsw", f.binary("mul nsw", here.cta, i64(unit.threads)), here.thread)
        if unit.linear is None:
            with f.when(f.compare("icmp slt", number, points)):
                self._of_point(digits(f, number, lengths), i64(0), extent)
            return
        parts, totals = scan_values()
        count = parts if self.all_parts else f.binary("sub nsw", parts, i64(1))
        with f.when(f.compare("icmp slt", number, f.binary("mul nsw", points, count))):
            self.part, number = digits(f, number, [count, points])
            self.is_last_part = f.compare("icmp eq", self.part, f.binary("sub nsw", parts, i64(1)))
            self.totals = Totals(f, len(unit.linear.states), totals, points, number)
            length = f.binary("udiv", extent, parts)
            start = f.binary("mul nsw", self.part, length)
            stop = f.select(self.is_last_part, extent, f.binary("add nsw", start, length))
            self._of_point(digits(f, number, lengths), start, stop)

    def _of_point(self, places: Sequence[Value], start: Value, stop: Value) -> None:
        """The steps of one point, given its place along each slicing."""
        f, together = self.function, self.unit.together
        for kernel in self.kernels:
            named = (slicing.dims[kernel.name] for slicing in self.unit.slicings)
            self.point[kernel.name] = dict(zip(named, places, strict=True))
        with f.when(f.compare("icmp slt", start, stop)):
            self.load_first(start)
        self.begin()
        count = f.binary("sub nsw", stop, start)
        whole = f.binary("add nsw", start, f.binary("and", count, i64(-together)))
        with f.loop(start, whole, i64(together), "block", unroll=False) as (first, _):
            self._block([f.binary("add nsw", first, i64(k)) for k in range(together)])
        if together > 1:
            with f.loop(whole, stop, i64(1), "step", unroll=False) as (step, _):
                self._block([step])
        self.end()

    def load_first(self, start: Value) -> None:
        """Load what the first step of a part is to find in registers: of the first part, the states before it, too."""
        for kernel in self.kernels:
            scalars = self._scalars(kernel, start)
            for x in self._of(kernel):
                if x.wait is None and x.made_by is None:
                    self.function.put(scalars.value(x.load), self.variables[x])
            with scalars.when(self.function.compare("icmp eq", start, i64(0))):
                for x in self._of(kernel):
                    if x.before and x.made_by is not None:
                        self.function.put(scalars.value(x.load), self.variables[x])

    def _block(self, counts: Sequence[Value]) -> None:
        """These steps, the operands of all of them loaded first."""
        steps = [[(kernel, self._scalars(kernel, count)) for kernel in self.kernels] for count in counts]
        for step in steps:
            for kernel, scalars in step:
                for x in self._of(kernel):
                    if x.wait is not None:
                        scalars.value(x.load)
        self._bring(steps, counts[-1])
        for step in steps:
            for kernel, scalars in step:
                for x in self._of(kernel):
                    if x.wait is None:
                        scalars.bind(x.load, self.function.get(self.variables[x], self.types[x]))
                self.step(kernel, scalars)

    def _bring(self, steps: Sequence[Sequence[tuple[Kernel, Scalars]]], last: Value) -> None:
        """Bring the operands of later steps to the second-level cache, if there are so many more. `last`: the number of
        the last of these steps."""
        f = self.function
        if len(steps) < self.unit.together:
            return
        after = f.binary("add nsw", last, i64(_LATER * self.unit.together))
        with f.when(f.compare("icmp sle", after, self.last)):
            for step in steps:
                for kernel, scalars in step:
                    scalars.fetch_ahead(kernel)

    def keep(self, kernel: Kernel, values: Mapping[int, Value]) -> None:
        """After a step: keep those values that are read again, by the number of their store."""
        for x in self.unit.prefetches:
            if x.made_by is not None and x.made_by[0] == kernel.name:
                self.function.put(values[x.made_by[1]], self.variables[x])

    def _of(self, kernel: Kernel) -> list[Prefetch]:
        return [x for x in self.unit.prefetches if x.kernel == kernel.name]

    def _scalars(self, kernel: Kernel, count: Value) -> Scalars:
        """The scalars of a kernel in the step with this number."""
        loop = self.unit.loop
        ahead = self.function.binary("add nsw", count, i64(_LATER * self.unit.together))
        later = loop.index, self._index(ahead)
        indices: Mapping[str, Value] = {**self.point[kernel.name], loop.index: self._index(count)}
        access = Access(kernel, self.program)
        return Scalars(self.function, access, {**steps_around(self.unit.around), **indices}, later)

    def _index(self, count: Value) -> Value:
        """The loop's index in the step with this number."""
        return self.function.binary("sub nsw", self.last, count) if self.unit.loop.reverse else count


class PointwiseLoop(_Steps):
    """Writes the kernel that computes and stores all steps."""

    all_parts = True

    def begin(self) -> None:
        """Of a part that is not the first: take the states before it from the totals."""
        f, unit = self.function, self.unit
        if unit.linear is None or self.totals is None:
            return
        with f.when(f.compare("icmp sgt", self.part, i64(0))):
            states = self.totals.before(self.part)
            self.keep(self.kernels[0], dict(zip(unit.linear.states, self._as_stored(states), strict=True)))

    def _as_stored(self, states: Sequence[Value]) -> list[Value]:
        """States in double precision, in that of their buffers."""
        kernel, linear = self.kernels[0], self.unit.linear
        assert linear is not None
        types = (REGISTER[self.program.buffer(kernel.stores[k].buffer).dtype] for k in linear.states)
        convert = self.function.convert
        return [s if type == "double" else convert("fptrunc", s, type) for s, type in zip(states, types, strict=True)]

    def step(self, kernel: Kernel, scalars: Scalars) -> None:
        values = scalars.stored(kernel)
        for store, value in zip(kernel.stores, values, strict=True):
            if store.buffer in self.unit.kept:
                continue
            if self.unit.linear is None or self._moves(store):
                scalars.store(store.buffer, store.at, value, store.accumulate)
                continue
            with scalars.when(self.is_last_part):  # the last steps are to stay
                scalars.store(store.buffer, store.at, value, store.accumulate)
        self.keep(kernel, dict(enumerate(values)))

    def _moves(self, store: Store) -> bool:
        """Whether each step stores to an element of its own."""
        dims, own = self.program.buffer(store.buffer).dims, self.unit.loop.index
        access = Access(self.kernels[0], self.program)
        return any(
            own in access.dependence(at) and not isinstance(dim, Ring) for at, dim in zip(store.at, dims, strict=True)
        )

    def end(self) -> None:
        """Nothing: everything is stored."""


class PartTotals(_Steps):
    """Writes the kernel that computes what each part but the last comes to: its states, if the states before it were 0;
    and the product of its steps' coefficients. It stores nothing else."""

    all_parts = False

    def __init__(self, function: DeviceFunction, unit: PointwiseUnit, program: Program) -> None:
        super().__init__(function, unit, program)
        assert unit.linear is not None
        self.linear = unit.linear
        states = range(len(unit.linear.states))
        self.product = [[function.variable("double") for _ in states] for _ in states]
        self.states = [function.variable("double") for _ in states]

    def begin(self) -> None:
        f = self.function
        for i, row in enumerate(self.product):
            for k, variable in enumerate(row):
                f.put(_double(1.0) if i == k else NOTHING, variable)
        with f.when(f.compare("icmp sgt", self.part, i64(0))):
            for x, variable in self.variables.items():
                if x.made_by is not None:
                    f.put(Value("0.0", self.types[x]), variable)

    def step(self, kernel: Kernel, scalars: Scalars) -> None:
        f, values = self.function, scalars.stored(kernel)
        before = [[f.get(variable, "double") for variable in row] for row in self.product]
        for i, row in enumerate(self.linear.rows):
            own = [(k, self._coefficient(scalars, a)) for k, a in enumerate(row) if a is not None]
            for column, variable in enumerate(self.product[i]):
                terms = [self._term(*coefficient, before[k][column]) for k, coefficient in own]
                f.put(functools.reduce(lambda a, b: f.binary("fadd", a, b), terms or [NOTHING]), variable)
        for number, variable in zip(self.linear.states, self.states, strict=True):
            f.put(_wide(f, values[number]), variable)
        self.keep(kernel, dict(enumerate(values)))

    def _coefficient(self, scalars: Scalars, coefficient: Coefficient) -> tuple[Value, Value | None]:
        """A coefficient, and whether it exists, if that is a question."""
        when = None if coefficient.when is None else scalars.value(coefficient.when)
        return _wide(self.function, scalars.value(coefficient.value)), when

    def _term(self, coefficient: Value, exists: Value | None, before: Value) -> Value:
        """What a coefficient makes of a product."""
        f, product = self.function, self.function.binary("fmul", coefficient, before)
        if self.linear.is_full:
            return product
        product = f.select(is_nothing(f, before), NOTHING, self._something(product))
        return product if exists is None else f.select(exists, product, NOTHING)

    def _something(self, product: Value) -> Value:
        """A product that is never -0.0."""
        zero = _double(0.0)
        return self.function.select(self.function.compare("fcmp oeq", product, zero), zero, product)

    def end(self) -> None:
        f = self.function
        assert self.totals is not None
        product = [[f.get(variable, "double") for variable in row] for row in self.product]
        if self.linear.is_full:
            product = [[self._something(value) for value in row] for row in product]
        self.totals.put(self.part, [f.get(variable, "double") for variable in self.states], product)


def _double(value: float) -> Value:
    return Value(str(value), "double")


def _wide(f: DeviceFunction, value: Value) -> Value:
    return value if value.type == "double" else f.convert("fpext", value, "double")
