"""Loads a block of a factor: which elements each thread loads, and their places in the block.

In: a factor of a product, the size of its block, the first point of the tile. Out: code that computes runs of
neighbouring elements into registers (`fetch`), from where they are stored to shared memory later; or that copies them
to shared memory as they lie in memory, without registers (`copies`). What depends on the points is computed once for a
tile; the indices of the terms move on from block to block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.cuda.gemm.factors import Factor
from graphc.codegen.cuda.isa.device import i32
from graphc.codegen.cuda.isa.odometer import Odometer
from graphc.codegen.cuda.isa.place import Place, digits, named
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.lengths import length_of
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER, STORAGE
from graphc.codegen.program import Const, Dim, Index, Reduce

__all__ = ["Odometers", "Run", "Side", "TileLoader"]

# The term indices of all loaders of a tile, shared by those that count alike. The caller of `fetch` or `copies`
# advances them after each block.
Odometers = dict[tuple[str, int, int, int], Odometer]


@dataclass(frozen=True)
class Side:
    """One side of a tile: the dims of its points, the `count` of all points, the first (`start`) and the number
    (`size`) of the tile's; and the indices of the dims that both sides have."""

    dims: tuple[Dim, ...]
    count: Value
    start: Value
    size: int
    both: Mapping[str, Value]


@dataclass(frozen=True)
class Run:
    """Neighbouring elements of a block, from a `point` and a `term` of it on. `exists`: whether the block has this run
    (None: it has). `indices`: those of the point. `values`: variables for the elements once fetched. `counts`: a
    variable that says whether the elements count, else they are to be 0 (None: they count)."""

    point: Value
    term: Value
    exists: Value | None
    indices: Mapping[str, Value]
    values: tuple[Value, ...]
    counts: Value | None


class TileLoader:
    """What one thread loads of one factor."""

    def __init__(
        self,
        s: Scalars,
        factor: Factor,
        reduce: Reduce,
        side: Side,
        depth: int,
        place: Place,
        odometers: Odometers,
        rounded: str | None,
    ) -> None:
        """`rounded`: the type to which elements are rounded as they are fetched; None: they are not."""
        self.s = s
        self.f = s.function
        self.factor = factor
        self.reduce = reduce
        self.side = side
        self.depth = depth
        self.lengths = [s.value(dim.extent) for dim in reduce.dims]
        self.rounded = rounded
        self.dtype = reduce.sums[0].value.dtype
        self.type = rounded or REGISTER[self.dtype]
        parts, rest = divmod(side.size * depth, factor.run * place.threads)
        self.partial = rest != 0
        self.parts = parts + self.partial
        self.runs = tuple(self._along_terms(place) if factor.along == "terms" else self._along_points(place))
        self.terms = self._shared(odometers, place)

    # Before the blocks of a tile.

    def _along_terms(self, place: Place) -> Iterator[Run]:
        """Runs of terms: a thread has the same terms of several points."""
        low, high, step = self._digits(place, self.depth // self.factor.run)
        for part in range(self.parts):
            point = self._apart(self.f.binary("add nsw", high, i64(part * step)))
            term = self.f.binary("mul nsw", low, i64(self.factor.run))
            yield Run(point, term, self._exists(place), self._indices(point), self._variables(), self._counts())

    def _along_points(self, place: Place) -> Iterator[Run]:
        """Runs of points: a thread has the same points of neighbouring terms."""
        low, high, _step = self._digits(place, self.side.size // self.factor.run)
        point = self.f.binary("mul nsw", low, i64(self.factor.run))
        first, indices = self.f.binary("mul nsw", high, i64(self.parts)), self._indices(point)
        for part in range(self.parts):
            term = self.f.binary("add nsw", first, i64(part))
            yield Run(point, term, self._exists(place), indices, self._variables(), self._counts())

    def _digits(self, place: Place, minor: int) -> tuple[Value, Value, int]:
        """This thread's place in a line of the block, its line, and how many lines all threads cover together."""
        low, high = (self.f.binary(op, place.thread, i64(minor)) for op in ("urem", "udiv"))
        return low, high, place.threads // minor

    def _exists(self, place: Place) -> Value | None:
        """Whether the block has a run for this thread; None: it has."""
        if not self.partial:
            return None
        return self.f.compare("icmp slt", place.thread, i64(self.side.size * self.depth // self.factor.run))

    def _counts(self) -> Value | None:
        """A variable for whether a run counts; None: all runs count."""
        load = self.factor.load
        conditional = self.reduce.when is not None or (load is not None and load.when is not None)
        return self.f.variable("i1") if conditional or not self._is_whole else None

    def _variables(self) -> tuple[Value, ...]:
        return tuple(self.f.variable(self.type) for _ in range(self.factor.run))

    def _shared(self, odometers: Odometers, place: Place) -> Odometer:
        """The odometer of this thread's terms, counted in runs where these go along the terms. Factors that count alike
        share it."""
        x = self.factor
        along_terms = x.along == "terms"
        unit, minor = (x.run, self.depth // x.run) if along_terms else (1, self.side.size // x.run)
        low, high, _step = self._digits(place, minor)
        first = low if along_terms else self.f.binary("mul nsw", high, i64(self.parts))
        key = (x.along, unit, minor, self.parts)
        if key not in odometers:
            lengths = self._in_runs(self.lengths) if along_terms else self.lengths
            odometers[key] = Odometer(self.f, lengths, first, self.depth // unit)
        return odometers[key]

    def _apart(self, point: Value) -> Value:
        """A permutation of each eight points: those of neighbouring threads are four apart, so that rows of 80 bytes
        lie in different banks."""
        f = self.f
        group = f.binary("and", point, i64(-8))
        odd = f.binary("shl", f.binary("and", point, i64(1)), i64(2))
        return f.binary("or", f.binary("or", group, odd), f.binary("and", f.binary("lshr", point, i64(1)), i64(3)))

    def _indices(self, point: Value) -> dict[str, Value]:
        """The indices of a point of the tile; past the end, those of the last point."""
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
        return {**side.both, **named(side.dims, found)}

    def _in_runs(self, lengths: Sequence[Value]) -> list[Value]:
        """The lengths, with the last one counted in runs."""
        if self.factor.run == 1:
            return list(lengths)
        return [*lengths[:-1], i64(int(lengths[-1].text) // self.factor.run)]

    # In a block.

    def fetch(self) -> None:
        """Load all elements of the next block into registers. No code here waits for them: whoever stores them replaces
        those that do not count by 0."""
        f = self.f
        for run, when in self._moved_runs():
            for k, variable in enumerate(run.values):
                value = self._element(k, when)
                if self.rounded is not None:
                    value = f.convert("fptrunc", value, self.rounded)
                f.put(value, variable)

    def copies(self, address: Callable[[Run], Value], exists: Value) -> Iterator[None]:
        """Begin asynchronous copies of the next block of a factor that is an element of a buffer, to these addresses.
        Elements that do not count become 0, as does a block that does not exist. Each step of the iterator copies one
        run."""
        f, s, load = self.f, self.s, self.factor.load
        assert load is not None
        size = STORAGE[s.access.buffers[load.buffer].dtype][1] * self.factor.run
        for run, _ in self._moved_runs():
            counts = exists if run.counts is None else f.binary("and", exists, f.get(run.counts, "i1"))
            with s.when(run.exists):
                count = f.select(counts, i32(size), i32(0))
                f.copy_async(address(run), s.pointer(load.buffer, load.at), size, count)
            yield

    def _moved_runs(self) -> Iterator[tuple[Run, Value | None]]:
        """All runs of the next block, each in the scope of its first element's indices, with the value of the
        reduction's condition. A run past the last term has the indices of another term, so that its loads are valid."""
        f, s = self.f, self.s
        along_terms = self.factor.along == "terms"
        numbers = self.terms.read()
        found = next(numbers)
        for part, run in enumerate(self.runs):
            if part and not along_terms:
                found = next(numbers)
            inside = None if self._is_whole else self.terms.inside(found)
            with s.scope({**run.indices, **self._term(found, inside)}):
                when = None if self.reduce.when is None else s.value(self.reduce.when)
                load = self.factor.load
                exists = None if load is None or load.when is None else s.value(load.when)
                if run.counts is not None:
                    f.put(f.every(asked for asked in (inside, when, exists) if asked is not None), run.counts)
                yield run, when

    def _term(self, found: Sequence[Value], inside: Value | None) -> dict[str, Value]:
        """The indices of a run's first term; if it does not exist, those of a term that does."""
        f, indices = self.f, list(found)
        if indices and inside is not None:
            indices[0] = f.select(inside, indices[0], i64(0))
        if indices and self.factor.along == "terms":
            indices[-1] = f.binary("mul nsw", indices[-1], i64(self.factor.run))
        return named(self.reduce.dims, indices)

    def _element(self, k: int, when: Value | None) -> Value:
        """The element k places further on in the run."""
        f, s = self.f, self.s
        dims = self.reduce.dims if self.factor.along == "terms" else self.side.dims
        moved = {dim.index: f.binary("add nsw", s.value(Index(dim.index)), i64(k)) for dim in dims[-1:] if k}
        with s.scope(moved):
            value = self.factor.load or self.factor.value
            if when is None:
                return s.value(value)
            with s.guarded(when):
                return s.value(value)

    @property
    def _is_whole(self) -> bool:
        """Whether every block is full of terms."""
        known = all(isinstance(dim.extent, Const) for dim in self.reduce.dims)
        return known and not self.partial and length_of(self.reduce.dims) % self.depth == 0
