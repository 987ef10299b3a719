"""What a Program becomes on a GPU: units, each the work of one launch.

In: a Program. Out: its units, in order. A kernel at the top becomes a grid of its own. A loop becomes one persistent
kernel, however many steps it has, in a version for each kind of group that its CTAs may form
(`graphc.codegen.cuda.meeting`); which of them runs is chosen when lengths are known (`graphc.codegen.cuda.launches`).
Of a loop that the host walks (`graphc.codegen.cuda.walk`) the statements inside are such units, launched in each step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.codegen.cuda.arch import WARP, Arch
from graphc.codegen.cuda.blocks import Blocking
from graphc.codegen.cuda.dealing import deal
from graphc.codegen.cuda.device import GLOBAL
from graphc.codegen.cuda.factors import Factors, factors_of
from graphc.codegen.cuda.fma_product import SIDE, fma_blocking
from graphc.codegen.cuda.mma import Fragments
from graphc.codegen.cuda.mma_blocking import Points, mma_blocking
from graphc.codegen.cuda.partials import partials
from graphc.codegen.cuda.points import owned_dims
from graphc.codegen.cuda.search import Search, search_of
from graphc.codegen.cuda.slices import Slicing, slicings
from graphc.codegen.cuda.versions import NOMINAL, Version, held_products, versions
from graphc.codegen.cuda.walk import is_walked
from graphc.codegen.lengths import points_of
from graphc.codegen.llvm import Value, quoted
from graphc.codegen.program import Kernel, Loop, Program, Reduce, Statement, kernels
from graphc.codegen.uses import loaded, stored

__all__ = [
    "THREADS",
    "LoopUnit",
    "PointsUnit",
    "Unit",
    "counters_value",
    "parts_value",
    "split_sums",
    "unit_steps",
    "units",
]

THREADS = 256  # of a CTA
_SHORT = 4  # terms: too few to bring to shared memory
_LONG = 16  # terms: a reduction that is worth a warp's while
_MANY = 1 << 17  # points: enough for the whole chip, one thread each
_FEW = 512  # points: so few that each may have a CTA of its own


def parts_value(slicing: int) -> Value:
    """The parameter that says into how many parts the dims of a slicing are cut."""
    return Value(f"%parts.{slicing}", "i64")


def counters_value() -> Value:
    """The parameter that holds the counters of the grid's barriers."""
    return Value("%counters", GLOBAL)


@dataclass(frozen=True)
class PointsUnit:
    """A kernel at the top of the program, or in loops `around` it that the host walks. `lanes` threads compute each of
    its points together; or it is a product, computed in tiles, or a sum whose terms each row searches for."""

    symbol: str
    kernel: Kernel
    buffers: tuple[str, ...]
    lanes: int
    product: tuple[Factors, Blocking] | None = None
    fragments: Fragments | None = None
    search: Search | None = None
    around: tuple[Loop, ...] = ()
    threads: int = THREADS

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


def split_sums(program: Program, arch: Arch) -> Program:
    """The program with those sums in parts that would leave most of the chip idle."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)

    def ctas(kernel: Kernel) -> int:
        product = _product(kernel, program, arch, None)
        search = search_of(kernel, program, sizes)
        if search is not None:
            return -(-search.warps(kernel, sizes) * WARP // THREADS)
        if product is None:
            return -(-points_of(kernel.dims, sizes) * _lanes(kernel, program, alone=True) // THREADS)
        factors, block = product
        left, right, both = (points_of(dims, sizes) for dims in (factors.left, factors.right, factors.both))
        return block.tiles(left, right) * both

    return partials(program, ctas, arch.sms, sizes)


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
    touched = loaded((statement,)) | stored((statement,))
    buffers = tuple(b.name for b in program.buffers if b.name in touched)
    if isinstance(statement, Kernel):
        symbol = _symbol(place, statement.name)
        alone = _lanes(statement, program, alone=True)
        product = _product(statement, program, arch, fragments)
        rounded = product is not None and product[0].dtype == "float32"
        search = search_of(statement, program, dict.fromkeys(program.sizes, NOMINAL))
        return PointsUnit(symbol, statement, buffers, alone, product, fragments if rounded else None, search)
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
    """How many threads compute a point of a kernel together: the fewer points, the more."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    own, walked = owned_dims(kernel)
    terms = sum(points_of(step.dims, sizes) for step in kernel.body if isinstance(step, Reduce))
    points = points_of(own, sizes)
    if walked or terms < _LONG or points >= _MANY:
        return 1
    return THREADS if alone and points < _FEW and terms >= 2 * THREADS else WARP


def _product(
    kernel: Kernel, program: Program, arch: Arch, fragments: Fragments | None
) -> tuple[Factors, Blocking] | None:
    """How to compute a kernel in tiles, if it is a product of two factors large enough to fill them."""
    factors = factors_of(kernel, program)
    if factors is None:
        return None
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    left, right = points_of(factors.left, sizes), points_of(factors.right, sizes)
    both, terms = points_of(factors.both, sizes), points_of(factors.reduce.dims, sizes)
    if min(left, right) < SIDE or terms < _SHORT:
        return None
    if fragments is not None and factors.dtype == "float32":
        return factors, mma_blocking(factors, fragments, Points(left, right, both, terms), THREADS, arch)
    return factors, fma_blocking(factors, left, right)
