"""What a Program becomes on a GPU: units, each the work of one launch.

In: a Program. Out: its units, in order. A kernel at the top becomes a grid of its own. A loop becomes one persistent
kernel, however many steps it has, in a version for each kind of group that its CTAs may form
(`graphc.codegen.cuda.meeting`); which of them runs is chosen when lengths are known (`graphc.codegen.cuda.launches`).
Of a loop that the host walks (`graphc.codegen.cuda.walk`) the statements inside are such units, launched in each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.codegen.access import Access, coefficient
from graphc.codegen.cuda.arch import WARP, Arch
from graphc.codegen.cuda.blocks import Blocking
from graphc.codegen.cuda.dealing import deal
from graphc.codegen.cuda.device import GLOBAL
from graphc.codegen.cuda.factors import Factors, factors_of
from graphc.codegen.cuda.fma_product import SIDE, fma_blocking
from graphc.codegen.cuda.mma import Fragments
from graphc.codegen.cuda.mma_blocking import Points, mma_blocking, mma_parts
from graphc.codegen.cuda.partials import partials
from graphc.codegen.cuda.points import owned_dims
from graphc.codegen.cuda.round_factors import round_factors
from graphc.codegen.cuda.search import Search, search_of
from graphc.codegen.cuda.slices import Slicing, slicings
from graphc.codegen.cuda.versions import NOMINAL, Version, held_products, versions
from graphc.codegen.cuda.walk import is_walked
from graphc.codegen.lengths import points_of
from graphc.codegen.llvm import Value, quoted
from graphc.codegen.program import Const, Index, Kernel, Loop, Program, Reduce, Statement, kernels
from graphc.codegen.uses import touched
from graphc.scalar import index

__all__ = [
    "THREADS",
    "LoopUnit",
    "PointsUnit",
    "Unit",
    "counters_value",
    "parts_value",
    "rounded_factors",
    "split_sums",
    "unit_steps",
    "units",
]

THREADS = 256  # of a CTA
_SHORT = 4  # terms: too few to bring to shared memory
_THIN = 3  # points on one side: fewer leave even the tensor cores too little to do
_LARGE = 1 << 30  # multiply-adds: enough for them nevertheless
_LONG = 16  # terms: a reduction that is worth a warp's while
_MANY = 1 << 17  # points: enough for the whole chip, one thread each
_FEW = 2048  # points: so few that each may have a CTA of its own
_SOME = 4096  # points: enough for a thread each, where their neighbours in memory are other points'
_LONG_AXIS = 128  # points of an axis whose length comes with the data, where a product is to be fast
_PARTS = 16  # of sums that are not weighed against the memory that parts take
_RUN = 4  # neighbouring points of one thread
_CTAS_AN_SM = 8  # that fill it


def parts_value(slicing: int) -> Value:
    """The parameter that says into how many parts the dims of a slicing are cut."""
    return Value(f"%parts.{slicing}", "i64")


def counters_value() -> Value:
    """The parameter that holds the counters of the grid's barriers."""
    return Value("%counters", GLOBAL)


@dataclass(frozen=True)
class PointsUnit:
    """A kernel at the top of the program, or in loops `around` it that the host walks. `lanes` threads compute each of
    its points together, or one thread a `run` of neighbouring points; or it is a product, computed in tiles, or a sum
    whose terms each row searches for."""

    symbol: str
    kernel: Kernel
    buffers: tuple[str, ...]
    lanes: int
    product: tuple[Factors, Blocking] | None = None
    fragments: Fragments | None = None
    search: Search | None = None
    around: tuple[Loop, ...] = ()
    threads: int = THREADS
    run: int = 1

    @property
    def statement(self) -> Statement:
        return self.kernel


@dataclass(frozen=True)
class LoopUnit:
    """A loop, with those `around` it that the host walks: its slicings, the kernels that need a barrier before them,
    the lanes that compute a point of each, and the versions of its code. `visited` are kernels whose points are
    computed by the threads that end with a product's sums at those points, by that product's kernel."""

    symbol: str
    loop: Loop
    buffers: tuple[str, ...]
    slicings: tuple[Slicing, ...]
    barriers: frozenset[str]
    lanes: Mapping[str, int]
    visited: Mapping[str, str]
    versions: tuple[Version, ...]
    around: tuple[Loop, ...] = ()
    threads: int = THREADS

    @property
    def statement(self) -> Statement:
        return self.loop

    def symbol_of(self, version: Version) -> str:
        return f"{self.symbol}_{version.kind}{version.ctas}" + ("_told" if version.is_told else "")


Unit = PointsUnit | LoopUnit


def unit_steps(unit: Unit) -> dict[str, Value]:
    """The parameters that hold the steps of the loops around a unit, by their indices."""
    return {loop.index: Value(quoted("%", f"step.{loop.index}"), "i64") for loop in unit.around}


def split_sums(program: Program, arch: Arch, fragments: Fragments | None) -> Program:
    """The program with those sums in parts that would leave most of the chip idle."""
    sizes = dict.fromkeys(program.sizes, _LONG_AXIS)

    def wanted(kernel: Kernel) -> int:
        factors, search = _factors(kernel, program, fragments, sizes), search_of(kernel, program, sizes)
        if search is not None:
            return min(_PARTS, arch.sms // max(1, -(-search.warps(kernel, sizes) * WARP // THREADS)))
        if factors is not None and fragments is not None and factors.dtype == "float32":
            return mma_parts(factors, fragments, _points(factors, sizes), THREADS, arch)
        if factors is not None:
            counted = _points(factors, sizes)
            tiles = fma_blocking(factors, counted.left, counted.right).tiles(counted.left, counted.right)
            return min(_PARTS, arch.sms // (tiles * counted.both))
        points = points_of(kernel.dims, sizes)
        if _lies_along_points(kernel, program):
            return arch.sms * _CTAS_AN_SM * THREADS // points if points >= WARP else _PARTS
        if 2 * points * _lanes(kernel, program, alone=True) > arch.sms * _CTAS_AN_SM * THREADS:
            return 1
        reduces = [step for step in kernel.body if isinstance(step, Reduce)]
        terms = sum(points_of(step.dims, sizes) for step in reduces)
        stored = points * max(1, sum(len(step.sums) for step in reduces))  # by each part
        return min(arch.sms * _CTAS_AN_SM // points, terms // (_LONG * stored))

    return partials(program, wanted, sizes)


def rounded_factors(program: Program, fragments: Fragments | None) -> Program:
    """The program with copies of what products on the tensor cores read again and again."""
    if fragments is None or fragments.dtype is None:
        return program
    return round_factors(program, fragments.dtype, dict.fromkeys(program.sizes, _LONG_AXIS))


def units(program: Program, arch: Arch, fragments: Fragments | None) -> tuple[Unit, ...]:
    """`fragments`: how the tensor cores are to round operands of products; None leaves them alone."""
    return tuple(_units(program.body, "", (), program, arch, fragments))


def _units(
    body: tuple[Statement, ...],
    numbers: str,
    around: tuple[Loop, ...],
    program: Program,
    arch: Arch,
    fragments: Fragments | None,
) -> Iterator[Unit]:
    """`numbers` are the places of the loops around the body, which begin the names of what is inside."""
    for position, statement in enumerate(body):
        place = f"{numbers}{position}_"
        if isinstance(statement, Loop) and is_walked(statement):
            yield from _units(statement.body, place, (*around, statement), program, arch, fragments)
        else:
            yield replace(_unit(place, statement, program, arch, fragments), around=around)


def _unit(place: str, statement: Statement, program: Program, arch: Arch, fragments: Fragments | None) -> Unit:
    buffers = tuple(touched((statement,)))
    if isinstance(statement, Kernel):
        symbol = _symbol(place, statement.name)
        alone = _lanes(statement, program, alone=True)
        product = _product(statement, program, arch, fragments)
        rounded = product is not None and product[0].dtype == "float32"
        search = search_of(statement, program, dict.fromkeys(program.sizes, NOMINAL))
        run = _RUN if alone == 1 and not product and not search and _has_runs(statement, program) else 1
        return PointsUnit(symbol, statement, buffers, alone, product, fragments if rounded else None, search, run=run)
    symbol = _symbol(place, f"loop_{statement.index}")
    sliced = slicings(statement, program)
    products = held_products(statement, sliced, program)
    lanes = {k.name: WARP if k.name in products else _lanes(k, program, alone=False) for k in kernels((statement,))}
    dealt = deal(statement, products, lanes, sliced, program)
    made = versions(statement, sliced, products, dealt, lanes, program, THREADS, arch, fragments)
    return LoopUnit(symbol, statement, buffers, sliced, dealt.barriers, lanes, dealt.visited, made)


def _symbol(place: str, name: str) -> str:
    """A name that PTX accepts, and that no other kernel of the module has."""
    return f"k{place}" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def _lanes(kernel: Kernel, program: Program, alone: bool) -> int:
    """How many threads compute a point of a kernel together: the fewer points, the more. Where neighbouring points read
    neighbours, and neighbouring terms do not, it is one, unless those are too few."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    own, walked = owned_dims(kernel)
    terms = sum(points_of(step.dims, sizes) for step in kernel.body if isinstance(step, Reduce))
    points = points_of(own, sizes)
    if walked or terms < _LONG or points >= _MANY:
        return 1
    if alone and points >= _SOME and _lies_along_points(kernel, program):
        return 1
    return THREADS if alone and points < _FEW and terms >= 2 * THREADS else WARP


def _has_runs(kernel: Kernel, program: Program) -> bool:
    """Whether a kernel has points enough to leave several to each thread, which then lie together in what it stores;
    and little to add up for each, all of which is then known when code is made."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    if points_of(kernel.dims, sizes) < _RUN * _MANY or any(store.accumulate for store in kernel.stores):
        return False
    last, reduces = kernel.dims[-1], [step for step in kernel.body if isinstance(step, Reduce)]
    terms = sum(points_of(step.dims, sizes) for step in reduces)
    whole = isinstance(last.extent, Const) and int(last.extent.value) % _RUN == 0
    known = all(isinstance(dim.extent, Const) for step in reduces for dim in step.dims)
    return whole and known and terms < _LONG and all(store.at[-1:] == (Index(last.index),) for store in kernel.stores)


def _lies_along_points(kernel: Kernel, program: Program) -> bool:
    """Whether all that a reduction reads lies along the points, and nothing along the terms."""
    access = Access(kernel, program)
    reduces = [step for step in kernel.body if isinstance(step, Reduce) and step.dims]
    if len(reduces) != 1 or not kernel.dims:
        return False
    point, terms = kernel.dims[-1].index, {dim.index for dim in reduces[0].dims}
    found = [load for total in reduces[0].sums for load in access.loads(total.value)]
    varying = [load for load in found if not terms.isdisjoint(access.dependence(load))]
    offsets = [access.offset(load.buffer, load.at) for load in varying]
    return bool(offsets) and all(coefficient(offset, point, access) == index(1) for offset in offsets)


def _factors(kernel: Kernel, program: Program, fragments: Fragments | None, sizes: Mapping[str, int]) -> Factors | None:
    """The factors of a kernel that is computed in tiles: a product of two, large enough to fill them; or large enough
    that the tensor cores are faster though much of their tiles stays empty."""
    factors = factors_of(kernel, program)
    if factors is None:
        return None
    counted = _points(factors, sizes)
    small = min(counted.left, counted.right)
    work = len(factors.terms) * counted.left * counted.right * counted.both * counted.terms
    fast = fragments is not None and factors.dtype == "float32" and small >= _THIN and work >= _LARGE
    return factors if counted.terms >= _SHORT and (small >= SIDE or fast) else None


def _points(factors: Factors, sizes: Mapping[str, int]) -> Points:
    sides = (factors.left, factors.right, factors.both, factors.reduce.dims)
    return Points(*(points_of(dims, sizes) for dims in sides))


def _product(
    kernel: Kernel, program: Program, arch: Arch, fragments: Fragments | None
) -> tuple[Factors, Blocking] | None:
    """How to compute a kernel in tiles, if it is a product that fills them."""
    sizes = dict.fromkeys(program.sizes, _LONG_AXIS)
    factors = _factors(kernel, program, fragments, sizes)
    if factors is None:
        return None
    counted = _points(factors, sizes)
    if fragments is not None and factors.dtype == "float32":
        return factors, mma_blocking(factors, fragments, counted, THREADS, arch)
    return factors, fma_blocking(factors, counted.left, counted.right)
