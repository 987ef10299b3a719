"""A kernel outside of loops as the work of one launch: by points, in the tiles of a product, or by a search.

In: a kernel, its program, a GPU. Out: a `PointsUnit`. How the kernel is computed depends on how many points and terms
it has, and on whether its points or its terms are neighbours in memory. Lengths that come with the data are counted as
nominal ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphc.codegen.access import Access, coefficient
from graphc.codegen.cuda.gemm.blocks import Blocking
from graphc.codegen.cuda.gemm.factors import Factors
from graphc.codegen.cuda.gemm.large_product import large_product
from graphc.codegen.cuda.gemm.mma_blocking import MmaBlocking
from graphc.codegen.cuda.isa.arch import THREADS, WARP, Arch
from graphc.codegen.cuda.isa.mma import Fragments
from graphc.codegen.cuda.kernel.points import owned_dims
from graphc.codegen.cuda.kernel.search import Search, search_of
from graphc.codegen.cuda.loops.versions import NOMINAL
from graphc.codegen.lengths import points_of
from graphc.codegen.program import Const, Index, Kernel, Loop, Program, Statement
from graphc.codegen.uses import touched
from graphc.scalar import index

__all__ = ["NOMINAL_AXIS", "PointsUnit", "lanes_of", "lies_along_points", "points_unit"]

_LONG = 16  # terms: from so many on, the lanes of a warp share a reduction
_MANY = 1 << 17  # points: enough for the whole chip, one thread each
_FEW = 2048  # points: so few that each may have a CTA of its own
_SOME = 4096  # points: enough for a thread each, if neighbouring points read neighbouring memory
_RUN = 4  # neighbouring points of one thread
NOMINAL_AXIS = 128  # points of an axis whose length comes with the data, where a product is to be fast


@dataclass(frozen=True)
class PointsUnit:
    """A kernel at the top of the program, or in the host loops `around` it. `lanes` threads compute each of its points
    together, or one thread computes a `run` of neighbouring points. Otherwise it is a `product`, computed in tiles, or
    a sum whose terms each row searches for (`search`)."""

    symbol: str
    kernel: Kernel
    buffers: tuple[str, ...]
    lanes: int
    product: tuple[Factors, Blocking] | None = None
    search: Search | None = None
    around: tuple[Loop, ...] = ()
    run: int = 1
    threads: ClassVar[int] = THREADS

    @property
    def on_tensor_cores(self) -> bool:
        """Whether it is a product on the tensor cores."""
        return self.product is not None and isinstance(self.product[1], MmaBlocking)

    @property
    def statement(self) -> Statement:
        """The statement whose work this is."""
        return self.kernel


def points_unit(symbol: str, kernel: Kernel, program: Program, arch: Arch, fragments: Fragments | None) -> PointsUnit:
    """The unit of a kernel outside of persistent loops."""
    alone = lanes_of(kernel, program, alone=True)
    large = large_product(kernel, program, fragments, dict.fromkeys(program.sizes, NOMINAL_AXIS))
    product = None if large is None else (large.factors, large.blocking(arch))
    search = search_of(kernel, program, dict.fromkeys(program.sizes, NOMINAL))
    run = _RUN if alone == 1 and not product and not search and _has_runs(kernel, program) else 1
    return PointsUnit(symbol, kernel, tuple(touched((kernel,))), alone, product, search, run=run)


def lanes_of(kernel: Kernel, program: Program, alone: bool) -> int:
    """How many threads compute a point of a kernel together: the fewer points, the more threads. It is one where
    neighbouring points, but not neighbouring terms, read neighbouring memory, unless there are too few points. `alone`:
    the kernel has a launch of its own."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    own, sequential = owned_dims(kernel)
    terms = sum(points_of(reduce.dims, sizes) for reduce in kernel.reduces)
    points = points_of(own, sizes)
    if sequential or terms < _LONG or points >= _MANY:
        return 1
    if alone and points >= _SOME and lies_along_points(kernel, program):
        return 1
    return THREADS if alone and points < _FEW and terms >= 2 * THREADS else WARP


def _has_runs(kernel: Kernel, program: Program) -> bool:
    """Whether each thread should compute several neighbouring points: there are many points, which are neighbours in
    what the kernel stores, and few terms for each, whose number is known when code is made."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    if points_of(kernel.dims, sizes) < _RUN * _MANY or any(store.accumulate for store in kernel.stores):
        return False
    last = kernel.dims[-1]
    terms = sum(points_of(reduce.dims, sizes) for reduce in kernel.reduces)
    whole = isinstance(last.extent, Const) and int(last.extent.value) % _RUN == 0
    known = all(isinstance(dim.extent, Const) for reduce in kernel.reduces for dim in reduce.dims)
    return whole and known and terms < _LONG and all(store.at[-1:] == (Index(last.index),) for store in kernel.stores)


def lies_along_points(kernel: Kernel, program: Program) -> bool:
    """Whether neighbouring points read neighbouring memory in everything that a kernel's one reduction loads."""
    access = Access(kernel, program)
    reduces = [reduce for reduce in kernel.reduces if reduce.dims]
    if len(reduces) != 1 or not kernel.dims:
        return False
    point, terms = kernel.dims[-1].index, {dim.index for dim in reduces[0].dims}
    found = [load for total in reduces[0].sums for load in access.loads(total.value)]
    varying = [load for load in found if not terms.isdisjoint(access.dependence(load))]
    offsets = [access.offset(load.buffer, load.at) for load in varying]
    return bool(offsets) and all(coefficient(offset, point, access) == index(1) for offset in offsets)
