"""Brings a block of a factor to shared memory: what each thread fetches, and where in the block that belongs.

In: a factor of a product, the size of its block, the first point of the tile. Out: code that fetches runs of
neighbouring elements into registers, whatever each takes to compute, and later gives them away. What depends on the
points is computed once for a tile, and the indices of the terms move on from block to block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.cpu_functions import REGISTER, constant
from graphc.codegen.cuda.factors import Factor
from graphc.codegen.cuda.odometer import Odometer
from graphc.codegen.cuda.place import Place, digits
from graphc.codegen.cuda.products import length_of
from graphc.codegen.cuda.scalars import Scalars
from graphc.codegen.llvm import Value, i64
from graphc.codegen.program import Const, Dim, Index, Reduce

__all__ = ["Bringer", "Odometers", "Run", "Side"]

# Those of all bringers of a tile. Whoever has them fetch moves these on afterwards.
Odometers = dict[tuple[int, ...], Odometer]


@dataclass(frozen=True)
class Side:
    """The points of a tile: their dims, how many there are in all, the first of the tile, and how many it has; and the
    indices of the dims that both sides have."""

    dims: tuple[Dim, ...]
    count: Value
    start: Value
    size: int
    both: Mapping[str, Value]


@dataclass(frozen=True)
class Run:
    """Neighbouring elements of a block, from a point and a term of it on, if they exist; in registers once fetched."""

    point: Value
    term: Value
    exists: Value | None
    indices: Mapping[str, Value]
    terms: Odometer
    values: tuple[Value, ...]


class Bringer:
    """What one thread brings of one factor."""

    def __init__(
        self, s: Scalars, factor: Factor, reduce: Reduce, side: Side, depth: int, place: Place, odometers: Odometers
    ) -> None:
        self.s = s
        self.f = s.function
        self.factor = factor
        self.reduce = reduce
        self.side = side
        self.depth = depth
        self.odometers = odometers
        self.lengths = [s.value(dim.extent) for dim in reduce.dims]
        self.dtype = reduce.sums[0].value.dtype
        parts, rest = divmod(side.size * depth, factor.run * place.threads)
        self.partial = rest != 0
        self.runs = [self._run(part, place) for part in range(parts + self.partial)]

    # Before the blocks of a tile.

    def _run(self, part: int, place: Place) -> Run:
        f, x, size = self.f, self.factor, self.side.size
        number = f.binary("add nsw", place.thread, i64(part * place.threads))
        minor = i64((self.depth if x.along == "terms" else size) // x.run)
        low, high = f.binary("urem", number, minor), f.binary("udiv", number, minor)
        exists = f.compare("icmp slt", number, i64(size * self.depth // x.run)) if self.partial else None
        values = tuple(f.variable(REGISTER[self.dtype]) for _ in range(x.run))
        if x.along == "terms":
            point, term = self._apart(high), f.binary("mul nsw", low, i64(x.run))
            terms = self._odometer((x.run,), self._in_runs(self.lengths), low, self.depth // x.run)
        else:
            point, term = f.binary("mul nsw", low, i64(x.run)), high
            terms = self._odometer((size // x.run, part), self.lengths, high, self.depth)
        return Run(point, term, exists, self._indices(point), terms, values)

    def _odometer(self, key: tuple[int, ...], lengths: Sequence[Value], first: Value, step: int) -> Odometer:
        """One that starts there, for all runs that do. The key says what `first` is of the thread's number."""
        if key not in self.odometers:
            self.odometers[key] = Odometer(self.f, lengths, first, step)
        return self.odometers[key]

    def _apart(self, point: Value) -> Value:
        """Neighbouring threads' points are four apart: rows of 80 bytes then lie in different banks."""
        f = self.f
        group = f.binary("and", point, i64(-8))
        odd = f.binary("shl", f.binary("and", point, i64(1)), i64(2))
        return f.binary("or", f.binary("or", group, odd), f.binary("and", f.binary("lshr", point, i64(1)), i64(3)))

    def _indices(self, point: Value) -> dict[str, Value]:
        """The indices of a point of the tile; past the last, of the last."""
        f, side = self.f, self.side
        run = self.factor.run if self.factor.along == "points" else 1
        last = f.binary("sub nsw", side.count, i64(run))
        at = f.intrinsic("smin", f.binary("add nsw", side.start, point), last)
        lengths = [self.s.value(dim.extent) for dim in side.dims]
        if run > 1:
            at, lengths = f.binary("udiv", at, i64(run)), self._in_runs(lengths)
        found = digits(f, at, lengths)
        if run > 1:
            found[-1] = f.binary("mul nsw", found[-1], i64(run))
        return {**side.both, **dict(zip((dim.index for dim in side.dims), found, strict=True))}

    def _in_runs(self, lengths: Sequence[Value]) -> list[Value]:
        """Lengths of which the last counts runs."""
        if self.factor.run == 1:
            return list(lengths)
        return [*lengths[:-1], i64(int(lengths[-1].text) // self.factor.run)]

    # In a block.

    def fetch(self) -> None:
        """All elements of the next block, into registers; 0 for terms that do not exist."""
        f, s, zero = self.f, self.s, constant(0, self.dtype)
        for run in self.runs:
            inside = None if self._is_whole else run.terms.inside()
            with s.scope({**run.indices, **self._term(run, inside)}):
                when = None if self.reduce.when is None else s.value(self.reduce.when)
                for k, variable in enumerate(run.values):
                    value = self._element(k, when)
                    for condition in (inside, when):
                        value = value if condition is None else f.select(condition, value, zero)
                    f.put(value, variable)

    def _term(self, run: Run, inside: Value | None) -> dict[str, Value]:
        """The indices of a run's first term; of another that exists, if that does not."""
        f, found = self.f, run.terms.read()
        if found and inside is not None:
            found[0] = f.select(inside, found[0], i64(0))
        if found and self.factor.along == "terms":
            found[-1] = f.binary("mul nsw", found[-1], i64(self.factor.run))
        return dict(zip((dim.index for dim in self.reduce.dims), found, strict=True))

    def _element(self, k: int, when: Value | None) -> Value:
        """The element that is k places on."""
        f, s = self.f, self.s
        dims = self.reduce.dims if self.factor.along == "terms" else self.side.dims
        moved = {dim.index: f.binary("add nsw", s.value(Index(dim.index)), i64(k)) for dim in dims[-1:] if k}
        with s.scope(moved):
            if when is None:
                return s.value(self.factor.value)
            with s.guarded(when):
                return s.value(self.factor.value)

    @property
    def _is_whole(self) -> bool:
        """Whether every block is full of terms."""
        known = all(isinstance(dim.extent, Const) for dim in self.reduce.dims)
        return known and not self.partial and length_of(self.reduce.dims) % self.depth == 0
