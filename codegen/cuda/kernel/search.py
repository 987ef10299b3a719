"""Sums of terms that belong to one row each (segment sums), on a GPU: every row searches for its terms.

    g[r, u] = Σ select(word[m] = r, d[m, u], 0) over m

A warp has a row and some neighbouring u. Its lanes check 32 terms at a time for belonging to the row. Each term that
does is added by all lanes, each at its own u, one term after another. So terms of other rows are never loaded, and
every sum adds its terms in order, the same from run to run. A thread for each g[r, u] would compare all terms for each
u.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.codegen.access import Access
from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.device import i32
from graphc.codegen.cuda.isa.odometer import Odometer
from graphc.codegen.cuda.isa.place import Place, digits, named
from graphc.codegen.cuda.kernel.points import end_point
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER, constant
from graphc.codegen.passes.segment_sum import SegmentSum, segment_sums
from graphc.codegen.program import Const, Dim, Index, Kernel, Program, Ref
from graphc.scalar import call

__all__ = ["Search", "compute_search", "search_of"]

_FEWEST_ROWS = 64
_MOST_PLACES = 8  # of a lane


@dataclass(frozen=True, slots=True)
class Search:
    """How to search: the lanes of a warp lie along the dim `column`; each has `places` of its points."""

    choice: SegmentSum
    column: Dim
    places: int

    def warps(self, kernel: Kernel, sizes: Mapping[str, int]) -> int:
        """How many warps have work."""
        return points_of(kernel.dims[:-1], sizes) * -(-evaluate(self.column.extent, sizes) // (WARP * self.places))


def search_of(kernel: Kernel, program: Program, sizes: Mapping[str, int]) -> Search | None:
    """How to compute a kernel by a search; None if it is not one such sum, or a warp's lanes would have several
    rows."""
    access = Access(kernel, program)
    choice = next(segment_sums(kernel, access), None)
    if choice is None or len(kernel.reduces) > 1 or len(choice.reduce.sums) > 1:
        return None
    if any(store.accumulate for store in kernel.stores):
        return None
    column = kernel.dims[-1]
    asked = [choice.chosen, *(dim.extent for dim in choice.reduce.dims)]
    if choice.reduce.when is not None:
        asked.append(choice.reduce.when)
    varies = any(column.index in access.dependence(scalar) for scalar in asked)
    if column is choice.row or varies or evaluate(choice.row.extent, sizes) < _FEWEST_ROWS:
        return None
    return Search(choice, column, max(1, min(_MOST_PLACES, -(-evaluate(column.extent, sizes) // WARP))))


def compute_search(s: Scalars, kernel: Kernel, search: Search, place: Place) -> None:
    """All points of a kernel that are this warp's."""
    f, outer = s.function, kernel.dims[:-1]
    width = WARP * search.places
    columns = s.value(search.column.extent)
    above = f.binary("add nsw", columns, i64(width - 1))
    lengths = [*(s.value(dim.extent) for dim in outer), f.binary("sdiv", above, i64(width))]
    first, step = place.grid_stride(f, WARP)
    with s.counting(first, f.product(lengths), step, "point") as number:
        *found, block = digits(f, number, lengths)
        begin = f.binary("add nsw", f.binary("mul nsw", block, i64(width)), place.lane)
        own = [f.binary("add nsw", begin, i64(WARP * k)) for k in range(search.places)]
        with s.scope(named(outer, found)):
            sums = _sums(s, search, own, columns, place)
            for column, total in zip(own, sums, strict=True):
                with s.when(f.compare("icmp slt", column, columns), {search.column.index: column}):
                    s.bind(Ref(search.choice.total.name, search.choice.total.value.dtype), total)
                    end_point(s, kernel, 1, place)


def _sums(s: Scalars, search: Search, own: Sequence[Value], columns: Value, place: Place) -> list[Value]:
    """The sums of a row at this lane's columns."""
    f, choice = s.function, search.choice
    dtype = choice.total.value.dtype
    totals = [f.variable(REGISTER[dtype]) for _ in own]
    for total in totals:
        f.put(constant(0, dtype), total)
    even = isinstance(search.column.extent, Const) and int(search.column.extent.value) % (WARP * search.places) == 0
    with _belonging(s, choice, place):
        for column, total in zip(own, totals, strict=True):
            exists = Value("true", "i1") if even else f.compare("icmp slt", column, columns)
            with s.guarded(exists), s.scope({search.column.index: column}):
                value = s.value(choice.term)
            f.put(s.functions.apply("add", [f.get(total, REGISTER[dtype]), value], dtype, dtype), total)
    return [f.get(total, REGISTER[dtype]) for total in totals]


@contextmanager
def _belonging(s: Scalars, choice: SegmentSum, place: Place) -> Iterator[None]:
    """Loops over the terms of a row, in order. Inside, all lanes are at the same term."""
    f, reduce = s.function, choice.reduce
    lengths = [s.value(dim.extent) for dim in reduce.dims]
    odometer = Odometer(f, lengths, place.lane, WARP)
    with s.counting(i64(0), f.product(lengths), i64(WARP), "term") as number:
        own = next(odometer.read())
        found = f.ballot(_belongs(s, choice, own, odometer.inside(own)))
        left = f.variable("i32")
        f.put(found, left)
        with f.when(f.compare("icmp ne", found, i32(0))), f.repeat_until() as enough:
            now = f.get(left, "i32")
            lane = f.intrinsic("cttz", now, Value("true", "i1"))
            rest = f.binary("and", now, f.binary("sub", now, i32(1)))
            f.put(rest, left)
            at = digits(f, f.binary("add nsw", number, f.wide(lane)), lengths)
            with s.scope(named(reduce.dims, at)):
                yield
            enough(f.compare("icmp eq", rest, i32(0)))
        odometer.advance()


def _belongs(s: Scalars, choice: SegmentSum, term: Sequence[Value], inside: Value) -> Value:
    """Whether a term meets the reduction's condition and belongs to this row."""
    f, when = s.function, choice.reduce.when
    with s.scope(named(choice.reduce.dims, term)):
        if when is not None:
            with s.guarded(inside):
                counts = s.value(when)
            inside = f.binary("and", inside, counts)
        with s.guarded(inside):
            return f.binary("and", inside, s.value(call("eq", choice.chosen, Index(choice.row.index))))
