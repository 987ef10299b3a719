"""What all products with stationary operands have in common: the mapping of units and rows to CTAs.

In: a kernel, its `Product` and geometry. Out: code that computes the indices of units, rows and terms from
their numbers; and the interface through which a loop (`graphc.codegen.cuda.loops.loop`) has the operands loaded, the
product computed, and the epilogues computed by the same threads. A cell is a point of the product: a unit and a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.cuda.isa.place import Place, digits, named
from graphc.codegen.cuda.kernel.points import group_part, moved
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.deferred_stores import DeferredStores
from graphc.codegen.cuda.loops.mma_geometry import AnyGeometry
from graphc.codegen.cuda.loops.prefetch import FirstCell, PrefetchRegisters
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.lengths import length_of
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.program import Dim, Kernel

__all__ = ["Rows", "StationaryProduct"]


G = TypeVar("G", bound=AnyGeometry)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a group: the starts and the lengths of its parts of the rows' dims, and the number of all rows."""

    starts: list[Value]
    lengths: list[Value]
    count: Value


class StationaryProduct(ABC, Generic[G]):
    """The code of one kernel's product in one version of its loop. `deferred`: where a thread's only cell leaves its
    stores to global memory, if they may wait."""

    def __init__(
        self,
        function: DeviceFunction,
        kernel: Kernel,
        product: Product,
        geometry: G,
        place: Place,
        deferred: DeferredStores | None = None,
    ) -> None:
        self.function = function
        self.kernel = kernel
        self.product = product
        self.geometry = geometry
        self.place = place
        self.deferred = deferred
        self.has_one_cell = False  # whether the code being emitted is for threads with no more than one cell
        self.dtype = product.sums[0].value.dtype

    @abstractmethod
    def load(self, s: Scalars) -> None:
        """Before the loop: load the stationary operands onto the chip."""

    @abstractmethod
    def first_cell(self, s: Scalars) -> FirstCell:
        """Before the loop: the first cell that this thread computes in each step."""

    @abstractmethod
    def compute(self, s: Scalars, prefetched: PrefetchRegisters, synced: bool) -> None:
        """In a step: compute all cells of this CTA. `synced`: all of its threads have synchronised since the last call.
        It matters to products that use shared memory in a step."""

    @abstractmethod
    def epilogue(self, s: Scalars, kernel: Kernel, prefetched: PrefetchRegisters) -> None:
        """In a step: compute another kernel, without reductions, over the same points. Each point is computed by the
        thread that has the product's sums at that point."""

    def end(self, s: Scalars, kernel: Kernel, prefetched: PrefetchRegisters, is_first: Value) -> None:
        """Compute and store a cell's results from its sums. `is_first`: whether it is the thread's first cell."""
        prefetched.bind(s, kernel, is_first)
        s.load_known(kernel)
        for store, value in zip(kernel.stores, s.stored(kernel), strict=True):
            if self.deferred is not None and self.has_one_cell and self.deferred.can_wait(store, s.access):
                s.store_mirrored(store.buffer, store.at, value)
                self.deferred.defer(kernel, store, value)
            else:
                s.store(store.buffer, store.at, value, store.accumulate)
        prefetched.keep(s, kernel, is_first)

    def renamed(self, kernel: Kernel, indices: Mapping[str, Value]) -> dict[str, Value]:
        """Indices of this kernel's dims, by the names of the corresponding dims of another kernel."""
        names = {own.index: other.index for own, other in zip(self.kernel.dims, kernel.dims, strict=True)}
        return {names[name]: value for name, value in indices.items()}

    def fixed(self) -> dict[str, Value]:
        """The indices of the shared dims: a group has one point of each."""
        return {name: self.place.parts[name][0] for name in self.product.shared}

    def number(self, local: Value) -> Value:
        """The number in the group of a unit, given its number in the CTA."""
        f = self.function
        return f.binary("add nsw", f.binary("mul nsw", self.place.cta, i64(self.geometry.per_cta)), local)

    def unit(self, local: Value) -> dict[str, Value]:
        """The indices of one of the CTA's units; past the end, those of the last."""
        number = self.function.intrinsic("smin", self.number(local), i64(self.geometry.units - 1))
        return {**self.named(self.product.apart, number), **self.fixed()}

    def named(self, dims: tuple[Dim, ...], number: Value) -> dict[str, Value]:
        """The indices of a point of dims of known length, given its number."""
        return named(dims, digits(self.function, number, [i64(length_of((dim,))) for dim in dims]))

    def rows(self, s: Scalars) -> Rows:
        """The rows of this group."""
        starts, lengths = group_part(s, self.product.rows, self.place)
        return Rows(starts, lengths, self.function.product(lengths))

    def row(self, number: Value, rows: Rows) -> dict[str, Value]:
        """The indices of a row of this group, given its number."""
        found = digits(self.function, number, rows.lengths)
        return named(self.product.rows, moved(self.function, rows.starts, found))
