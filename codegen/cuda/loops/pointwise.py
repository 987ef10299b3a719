"""A pointwise loop as one kernel: a thread takes a point through all steps, its states in registers.

In: a `PointwiseUnit`. Out: the code of its device function. A step is bound by the time of its loads, unless these are
made before they are needed: so the operands of several steps are loaded together, and then the steps are computed, one
after another. What a step stores and the next one reads stays in a register; it is stored too, if anything else reads
it. What remains at the end, fewer steps than are loaded together, is computed step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.codegen.access import Access
from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import digits, place
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.loop_unit import steps_around
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.loops.prefetch import Prefetch
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER
from graphc.codegen.program import Kernel, Program, kernels

__all__ = ["PointwiseLoop"]

_LATER = 2  # blocks of steps: so much later is what is brought to the second-level cache


class PointwiseLoop:
    """Writes one kernel."""

    def __init__(self, function: DeviceFunction, unit: PointwiseUnit, program: Program, arch: Arch) -> None:
        self.function, self.unit, self.program, self.target = function, unit, program, arch.target
        self.kernels = list(kernels((unit.loop,)))
        self.types = {x: REGISTER.get(program.buffer(x.load.buffer).dtype, "float") for x in unit.prefetches}
        self.variables = {x: function.variable(self.types[x]) for x in unit.prefetches if x.wait is None}
        self.elementary: set[tuple[str, str, int]] = set()
        self.point: dict[str, dict[str, Value]] = {}  # by kernel: the indices of this thread's point
        self.last = i64(0)  # the number of the last step

    def emit(self) -> None:
        """Append the code of all steps."""
        f, unit = self.function, self.unit
        around = Scalars(f, Access(Kernel("", (), (), ()), self.program), self.target, steps_around(unit.around))
        lengths = [around.value(slicing.extent) for slicing in unit.slicings]
        here = place(f, unit.threads, f.wide(f.register("ctaid.x")), f.wide(f.register("nctaid.x")))
        number = f.binary("add nsw", f.binary("mul nsw", here.cta, i64(unit.threads)), here.thread)
        with f.when(f.compare("icmp slt", number, around.product(lengths))):
            places = digits(f, number, lengths)
            for kernel in self.kernels:
                named = (slicing.dims[kernel.name] for slicing in unit.slicings)
                self.point[kernel.name] = dict(zip(named, places, strict=True))
            self._steps(around.value(unit.loop.extent))

    def _steps(self, extent: Value) -> None:
        f, together = self.function, self.unit.together
        self.last = f.binary("sub nsw", extent, i64(1))
        with f.when(f.compare("icmp sgt", extent, i64(0))):
            self._begin()
        whole = f.binary("and", extent, i64(-together))
        with f.loop(i64(0), whole, i64(together), "block", unroll=False) as (first, _):
            self._block([f.binary("add nsw", first, i64(k)) for k in range(together)])
        if together > 1:
            with f.loop(whole, extent, i64(1), "step", unroll=False) as (count, _):
                self._block([count])

    def _begin(self) -> None:
        """Before the first step: load what it is to find in registers."""
        for kernel in self.kernels:
            scalars = self._scalars(kernel, i64(0))
            for x in self._of(kernel):
                if x.wait is None and x.is_needed_at_start:
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
                self._point(kernel, scalars)

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

    def _point(self, kernel: Kernel, scalars: Scalars) -> None:
        """Compute the point of a kernel in one step, and store it."""
        f = self.function
        for x in self._of(kernel):
            if x.wait is None:
                scalars.bind(x.load, f.get(self.variables[x], self.types[x]))
        values = scalars.stored(kernel)
        for store, value in zip(kernel.stores, values, strict=True):
            if store.buffer not in self.unit.kept:
                scalars.store(store.buffer, store.at, value, store.accumulate)
        for x in self.unit.prefetches:
            if x.made_by is not None and x.made_by[0] == kernel.name:
                f.put(values[x.made_by[1]], self.variables[x])
        self.elementary |= scalars.functions.elementary

    def _of(self, kernel: Kernel) -> list[Prefetch]:
        return [x for x in self.unit.prefetches if x.kernel == kernel.name]

    def _scalars(self, kernel: Kernel, count: Value) -> Scalars:
        """The scalars of a kernel in the step with this number."""
        loop = self.unit.loop
        ahead = self.function.binary("add nsw", count, i64(_LATER * self.unit.together))
        later = loop.index, self._index(ahead)
        indices: Mapping[str, Value] = {**self.point[kernel.name], loop.index: self._index(count)}
        access = Access(kernel, self.program)
        return Scalars(self.function, access, self.target, {**steps_around(self.unit.around), **indices}, later)

    def _index(self, count: Value) -> Value:
        """The loop's index in the step with this number."""
        return self.function.binary("sub nsw", self.last, count) if self.unit.loop.reverse else count
