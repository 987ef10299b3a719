"""Which kernels are products large enough for tiles, and which tiles they take.

In: a kernel, how operands are rounded for the tensor cores, lengths to count with. Out: a `LargeProduct`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.cuda.gemm.blocks import Blocking
from graphc.codegen.cuda.gemm.factors import Factors, factors_of
from graphc.codegen.cuda.gemm.fma_product import SIDE, fma_blocking
from graphc.codegen.cuda.gemm.mma_blocking import Points, mma_blocking, mma_parts
from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.isa.mma import Fragments
from graphc.codegen.lengths import points_of
from graphc.codegen.program import Kernel, Program

__all__ = ["MOST_PARTS", "LargeProduct", "large_product"]

MOST_PARTS = 16  # of a sum, where the memory of the parts is not weighed
_SHORT = 4  # terms: with fewer, tiles in shared memory do not pay
_THIN = 3  # points on one side: with fewer, not even tensor cores pay
_LARGE = 1 << 30  # multiply-adds: with so many, tensor cores pay although a side is short


@dataclass(frozen=True, slots=True)
class LargeProduct:
    """A product to be computed in tiles: its factors, and about how many points it has. `fragments`: how operands are
    rounded for the tensor cores; None: it is made by multiply-adds."""

    factors: Factors
    points: Points
    fragments: Fragments | None

    def blocking(self, arch: Arch) -> Blocking:
        """The tiles that it takes."""
        if self.fragments is not None:
            return mma_blocking(self.factors, self.fragments, self.points, arch)
        return fma_blocking(self.factors, self.points.left, self.points.right)

    def parts(self, arch: Arch) -> int:
        """Into how many parts its sums should be split (split-K); 1 or less: they should not be."""
        if self.fragments is not None:
            return mma_parts(self.factors, self.fragments, self.points, arch)
        tiles = self.blocking(arch).tiles(self.points.left, self.points.right)
        return min(MOST_PARTS, arch.sms // (tiles * self.points.both))


def large_product(
    kernel: Kernel, program: Program, fragments: Fragments | None, sizes: Mapping[str, int]
) -> LargeProduct | None:
    """A kernel as a product that is to be computed in tiles; None if it is not. It is a product large enough to fill
    tiles, or so large that the tensor cores are faster although their tiles stay partly empty."""
    factors = factors_of(kernel, program)
    if factors is None:
        return None
    sides = (factors.left, factors.right, factors.both, factors.reduce.dims)
    points = Points(*(points_of(dims, sizes) for dims in sides))
    rounding = fragments if factors.dtype == "float32" else None
    small = min(points.left, points.right)
    work = len(factors.terms) * points.left * points.right * points.both * points.terms
    fast = rounding is not None and small >= _THIN and work >= _LARGE
    large = points.terms >= _SHORT and (small >= SIDE or fast)
    return LargeProduct(factors, points, rounding) if large else None
