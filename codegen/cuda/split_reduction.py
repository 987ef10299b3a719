"""Splits long sums with too few results to fill a GPU, so that many CTAs add up parts of each (split-K).

In: a Program. Out: a Program that computes the same, up to rounding. With S parts of C = ⌈T / S⌉ steps,

    g[m, n] = Σ x[t, m] · y[t, n] over t < T
    becomes
    p[s, m, n] = Σ x[s·C + c, m] · y[s·C + c, n] over c < C where s·C + c < T;    g[m, n] = Σ p[s, m, n] over s

S is fixed when code is made, so every sum is added in the same order in every call. The gradients of weights, sums over
all steps and examples, are such sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.codegen.cuda.gemm.large_product import MOST_PARTS, large_product
from graphc.codegen.cuda.host_loop import is_host_loop
from graphc.codegen.cuda.isa.arch import THREADS, WARP, Arch
from graphc.codegen.cuda.isa.mma import Fragments
from graphc.codegen.cuda.kernel.search import search_of
from graphc.codegen.cuda.points_unit import NOMINAL_AXIS, lanes_of, lies_along_points
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.passes.subtotals import subtotals
from graphc.codegen.program import (
    Buffer,
    Const,
    Dim,
    Index,
    Kernel,
    Loop,
    Program,
    Reduce,
    Scalar,
    Statement,
    map_reduce,
)
from graphc.scalar import call, guarded, index, replaced, walk

__all__ = ["in_parts", "split_reductions"]

_FEWEST = 64  # terms of a part
_LONG = 16  # terms for each result of a part: with fewer, storing the parts costs more than it saves
_CTAS_AN_SM = 8  # that fill it


def split_reductions(program: Program, arch: Arch, fragments: Fragments | None) -> Program:
    """The program with those sums split that would leave most of the chip idle."""
    sizes = dict.fromkeys(program.sizes, NOMINAL_AXIS)

    def wanted(kernel: Kernel) -> int:
        product, search = large_product(kernel, program, fragments, sizes), search_of(kernel, program, sizes)
        if search is not None:
            return min(MOST_PARTS, arch.sms // max(1, -(-search.warps(kernel, sizes) * WARP // THREADS)))
        if product is not None:
            return product.parts(arch)
        points = points_of(kernel.dims, sizes)
        if lies_along_points(kernel, program):
            return arch.sms * _CTAS_AN_SM * THREADS // points if points >= WARP else MOST_PARTS
        if 2 * points * lanes_of(kernel, program, alone=True) > arch.sms * _CTAS_AN_SM * THREADS:
            return 1
        terms = sum(points_of(reduce.dims, sizes) for reduce in kernel.reduces)
        stored = points * max(1, sum(len(reduce.sums) for reduce in kernel.reduces))  # by each part
        return min(arch.sms * _CTAS_AN_SM // points, terms // (_LONG * stored))

    return in_parts(program, wanted, sizes)


def in_parts(program: Program, wanted: Callable[[Kernel], int], sizes: Mapping[str, int]) -> Program:
    """The program with reductions split. `wanted` says into how many parts a kernel's reduction should be split; 1: it
    should not be. It is split into fewer where no dim is long enough. `sizes` are the lengths to count with."""
    buffers: list[Buffer] = []

    def parts(statements: tuple[Statement, ...]) -> Iterator[Statement]:
        for statement in statements:
            if isinstance(statement, Loop):
                on_host = is_host_loop(statement)
                yield replace(statement, body=tuple(parts(statement.body))) if on_host else statement
                continue
            split = _split(statement, wanted, sizes)
            if split is None:
                yield statement
                continue
            between, both = subtotals(statement, split.reduce, _part(split), split.number, "partials")
            yield from both
            buffers.extend(between)

    body = tuple(parts(program.body))
    return replace(program, buffers=(*program.buffers, *buffers), body=body)


@dataclass(frozen=True, slots=True)
class _Split:
    """A reduction, the dim that is cut, and into how many parts."""

    reduce: Reduce
    dim: Dim
    parts: int

    @property
    def number(self) -> Dim:
        """The dim that counts the parts."""
        return Dim(f"{self.dim.index}.part", index(self.parts))

    @property
    def inside(self) -> Dim:
        """The dim that counts the points of a part."""
        whole = call("add", self.dim.extent, index(self.parts - 1))
        return Dim(f"{self.dim.index}.in", call("floordiv", whole, index(self.parts)))

    @property
    def is_even(self) -> bool:
        """Whether all parts are known to be of one length."""
        extent = self.dim.extent
        return isinstance(extent, Const) and int(extent.value) % self.parts == 0

    @property
    def place(self) -> Scalar:
        """The point of the whole dim."""
        return call("add", call("mul", Index(self.number.index), self.inside.extent), Index(self.inside.index))


def _split(kernel: Kernel, wanted: Callable[[Kernel], int], sizes: Mapping[str, int]) -> _Split | None:
    """How to split the one reduction of a kernel; None if it is not to be split or too short."""
    if len(kernel.reduces) != 1 or any(store.accumulate for store in kernel.stores):
        return None
    (reduce,) = kernel.reduces
    if not reduce.dims or any(isinstance(part, Index) for dim in kernel.dims for part in walk(dim.extent)):
        return None  # the parts lie in a buffer, and the dims of a buffer must not depend on a loop's index
    dim = max(reduce.dims, key=lambda d: evaluate(d.extent, sizes))
    parts = min(wanted(kernel), evaluate(dim.extent, sizes), points_of(reduce.dims, sizes) // _FEWEST)
    return _Split(reduce, dim, 1 << (parts.bit_length() - 1)) if parts >= 2 else None


def _part(split: _Split) -> Reduce:
    """The reduction over one part."""

    def moved(scalar: Scalar) -> Scalar:
        return replaced(scalar, lambda part: split.place if part == Index(split.dim.index) else None)

    dims = tuple(split.inside if dim == split.dim else dim for dim in split.reduce.dims)
    part = map_reduce(replace(split.reduce, dims=dims), moved)
    if split.is_even:
        return part
    exists = call("lt", split.place, split.dim.extent)
    return replace(part, when=exists if part.when is None else call("and", exists, guarded(part.when, exists)))
