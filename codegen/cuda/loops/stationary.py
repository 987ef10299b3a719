"""What products with held operands have in common, however they are made: which units and rows are whose.

In: a kernel, its `Product`, how its units are dealt. Out: the indices of units, rows and terms, by number, as code; and
the interface by which a loop (`graphc.codegen.cuda.loops.loop`) has the operands loaded, the product computed, and
other kernels over the same points visited by the same threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import Place, digits
from graphc.codegen.cuda.kernel.points import end_point
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.prefetch import FirstCell, PrefetchRegisters
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.lengths import length_of
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.program import Dim, Kernel

__all__ = ["StationaryProduct"]


class Dealt(Protocol):
    """How units are dealt: so many of each group, `per_cta` of them to each of its CTAs."""

    @property
    def units(self) -> int: ...

    @property
    def per_cta(self) -> int: ...


class StationaryProduct(ABC):
    """The code of one kernel's product in one version of its loop."""

    def __init__(self, function: DeviceFunction, kernel: Kernel, product: Product, dealt: Dealt, place: Place) -> None:
        self.function = function
        self.kernel = kernel
        self.product = product
        self.dealt = dealt
        self.place = place
        self.dtype = product.sums[0].value.dtype

    @abstractmethod
    def load(self, s: Scalars) -> None:
        """Before the loop: bring the operands onto the chip."""

    @abstractmethod
    def first_cell(self, s: Scalars) -> FirstCell:
        """Before the loop: the first cell that this thread ends with the sums of."""

    @abstractmethod
    def compute(self, s: Scalars, kept: PrefetchRegisters, met: bool) -> None:
        """In a step: all cells that fall to this CTA. `met`: all of its threads have met since the last time."""

    @abstractmethod
    def visit(self, s: Scalars, kernel: Kernel, kept: PrefetchRegisters) -> None:
        """In a step: another kernel, without reductions, over the same points; each by the thread that ends with the
        product's sums at that point."""

    def end(self, s: Scalars, kernel: Kernel, kept: PrefetchRegisters, is_first: Value) -> None:
        """Compute and store what a cell makes of its sums; it may be the thread's first."""
        kept.bind(s, kernel, is_first)
        end_point(s, kernel, 1, self.place)
        kept.keep(s, kernel, is_first)

    def renamed(self, kernel: Kernel, indices: Mapping[str, Value]) -> dict[str, Value]:
        """Indices of this kernel's dims, by the names that the dims of another have."""
        names = {own.index: other.index for own, other in zip(self.kernel.dims, kernel.dims, strict=True)}
        return {names[name]: value for name, value in indices.items()}

    def fixed(self) -> dict[str, Value]:
        """The one point of each shared dim that is this group's."""
        return {name: self.place.parts[name][0] for name in self.product.shared}

    def number(self, local: Value) -> Value:
        """The number in the group of one of the CTA's units."""
        f = self.function
        return f.binary("add nsw", f.binary("mul nsw", self.place.cta, i64(self.dealt.per_cta)), local)

    def unit(self, local: Value) -> dict[str, Value]:
        """The indices of one of the CTA's units; past the last, of the last."""
        number = self.function.intrinsic("smin", self.number(local), i64(self.dealt.units - 1))
        return {**self.named(self.product.apart, number), **self.fixed()}

    def named(self, dims: tuple[Dim, ...], number: Value) -> dict[str, Value]:
        """The indices of dims of known length."""
        lengths = [i64(length_of((dim,))) for dim in dims]
        return dict(zip((d.index for d in dims), digits(self.function, number, lengths), strict=True))

    def row_lengths(self, s: Scalars) -> list[Value]:
        """How many points each dim of the rows has that are this group's."""
        f, lengths = self.function, []
        for dim in self.product.rows:
            part = self.place.parts.get(dim.index)
            lengths.append(s.value(dim.extent) if part is None else f.binary("sub nsw", part[1], part[0]))
        return lengths

    def row(self, number: Value, lengths: list[Value]) -> dict[str, Value]:
        """The indices of a row."""
        found = {}
        for dim, index in zip(self.product.rows, digits(self.function, number, lengths), strict=True):
            part = self.place.parts.get(dim.index)
            found[dim.index] = index if part is None else self.function.binary("add nsw", part[0], index)
        return found
