"""Which loop of a kernel runs in vector lanes, and which in registers side by side.

In: a kernel. Out: its `Tiling`. A kernel without contractions runs its vector dimension in lanes. A
contraction's vector dimension runs in lanes and over several vectors, and a second dimension, the row, over
several rows: all their accumulators stay in registers, each operand loaded is used for a whole row or column
of them, and there are enough independent chains to hide the latency of a fused multiply-add (Goto & van de
Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). The tile is chosen by counting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.program import Const, Dim, Kernel, Let, Load, Program, Reduce, Ref, Scalar, nested_kernels
from graphc.codegen.target import Target
from graphc.codegen.tiling.tile import MOST_VECTORS, Step, best_tile, row_sizes

__all__ = ["Tiling", "cycles", "horizontal_index", "length", "tiling_of", "vector_index"]

_BYTES = {"float32": 4, "float64": 8, "int32": 4, "bool": 4, "index": 8}
_SMALLEST_VECTOR = 4
_CHAINS = 16  # sums side by side that hide the latency of an addition, and of the second-level cache
_FIRST_LEVEL = 1 << 15  # bytes of the first-level cache
_LINE = 64  # bytes of a cache line
_BLOCK = 32  # rows that reuse what was loaded into the first-level cache
_MOST_STRIPS = 16
_ONE_PIECE = 2  # times the depth: a reduction no longer than this is not cut
_WAITING = 1 << 18  # bytes of accumulators that wait between the pieces of a reduction
_MOST_WAITING = 1 << 18  # and with the short dimensions inside
_SHALLOWEST = 16  # points of a reduction between taking up its accumulators and putting them down
_FEW_TERMS = 4  # whose rows, of as many buffers, are streams that a processor brings ahead
_LONG_RUN = 1 << 10  # bytes side by side in memory that are as good as a stream
_STREAMED = 1 << 16  # bytes of accumulators that wait meanwhile
_TYPICAL_LENGTHS = (1, 16, 32, 64, 100, 128, 512)


@dataclass(frozen=True, slots=True)
class Tiling:
    """The dim `vector` runs in `lanes` lanes, and `vectors` vectors of it side by side; of the dim `row`, `rows` rows
    run side by side. A step goes through such a tile row by row, or `by_vector`. Tiles of `block` rows go together
    through a reduction, `depth` of its points at a time. A single row has tiles of `wide` vectors.

    `widths` are the strips that cover the vector dimension, in vectors, the widest first. `heights` are the tiles that
    cover the row dimension, in rows. There are fewer of both where the length is known. If a reduction is long,
    `strips` of the widest go through it together, and so do all points of the dims `inside`, which read the same again.
    """

    vector: str | None
    lanes: int
    vectors: int
    row: str | None
    rows: int
    by_vector: bool = False
    block: int = 1
    depth: int = 1
    wide: int = 1
    widths: tuple[int, ...] = (1,)
    heights: tuple[int, ...] = (1,)
    strips: int = 1
    inside: tuple[str, ...] = ()


def vector_index(
    kernel: Kernel, program: Program, access: Access | None = None, whole: Kernel | None = None
) -> str | None:
    """The dimension whose neighbouring points share a vector. A kernel that is not in the program is a part of a
    `whole` one.

    None: the kernel's points run one by one, and each reduction has its own last dimension in lanes.
    """
    access = access or Access(kernel, program)
    dims = [dim for dim in kernel.dims if not dim.is_shorter(_SMALLEST_VECTOR)]
    if any(store.accumulate for store in kernel.stores):
        dims = [dim for dim in dims if _adds_side_by_side(kernel, dim, access)]
    if not dims:
        return None
    if not kernel.reduces:
        return max(dims, key=_contiguity(kernel, access)).index
    last_index = dims[-1].index
    varying = [r for r in kernel.reduces if last_index in access.reduce_dependence(r)]
    turned = [_strided(reduce, access, last_index) for reduce in varying]
    if not varying or not all(turned):
        return last_index
    around = {dim.index for dim in kernel.dims if dim.extent != Const(1, "index")}
    loops = next((loops for other, loops in nested_kernels(program.body) if other == (whole or kernel)), ())
    around |= {loop.index for loop in loops}
    once = all(any(around <= access.dependence(load) for load in strided) for strided in turned)
    return None if once else last_index


def _adds_side_by_side(kernel: Kernel, dim: Dim, access: Access) -> bool:
    """Whether this is the kernel's last dimension, and lanes along it add to neighbouring elements: each to its own, in
    the order of the points."""
    accumulating = [store for store in kernel.stores if store.accumulate]
    steps = {access.lane_step(store.buffer, store.at, dim.index, 1) for store in accumulating}
    return dim is kernel.dims[-1] and steps == {1}


def horizontal_index(reduce: Reduce) -> Dim:
    """The dimension of a reduction that runs in lanes if the kernel's points do not: the last one that is long."""
    long = [dim for dim in reduce.dims if not dim.is_shorter(_SMALLEST_VECTOR)]
    return (long or list(reduce.dims))[-1]


def tiling_of(kernel: Kernel, program: Program, target: Target) -> Tiling:
    """The tiling of a kernel that is estimated to take the fewest cycles on a target."""
    access = Access(kernel, program)
    lanes = target.lanes(max(_BYTES[dtype] for dtype in _dtypes(kernel, access)))
    vector = vector_index(kernel, program, access)
    if vector is None or lanes == 1:
        return Tiling(None, lanes, 1, None, 1)
    extent = _extent(kernel, vector)
    if isinstance(extent, Const):
        lanes = min(lanes, 1 << (int(extent.value) - 1).bit_length())
    tiled, row = _tiled(kernel, vector, access)
    if not tiled:
        return Tiling(vector, lanes, 1, None, 1)
    tile = best_tile(_step(kernel, tiled, vector, row, lanes, target, access))
    streamed = None if row is not None else _streamed(kernel, tiled, vector, lanes, tile.vectors, access)
    if streamed is not None:
        return streamed
    block = tile.rows * -(-_BLOCK // tile.rows)
    tiling = Tiling(vector, lanes, tile.vectors, row, tile.rows, tile.by_vector, block)
    tiling = replace(tiling, widths=_cover(extent, lanes, (tile.vectors, 1)))
    depth, longest = min(_depth(reduce, tiling, access) for reduce in tiled), max(map(length, tiled))
    if row is not None:
        tall = _extent(kernel, row)
        wide = 1 if isinstance(tall, Const) else _wide(extent, tiled, tiling, target)
        tiling = replace(tiling, heights=_cover(tall, 1, row_sizes(tile.rows)), wide=wide)
        if longest > depth:
            tiling = _in_pieces(kernel, tiled, tiling, access)
    return replace(tiling, depth=int(longest) if longest <= _ONE_PIECE * depth else depth)


def _wide(extent: Scalar, reduces: list[Reduce], tiling: Tiling, target: Target) -> int:
    """The vectors of a tile of a single row: as many as hide the latencies, or as there are."""
    sums = max(len(reduce.sums) for reduce in reduces)
    chains = min(_CHAINS, target.vector_registers * 3 // 4)
    return max(1, min(MOST_VECTORS, chains // sums, max(_lengths(extent)) // tiling.lanes))


def _in_pieces(kernel: Kernel, reduces: list[Reduce], tiling: Tiling, access: Access) -> Tiling:
    """The tiling of reductions that are cut into pieces: as many strips, and points inside, go through them together as
    can wait between the pieces."""
    assert tiling.vector is not None
    width = tiling.vectors * tiling.lanes
    waiting = sum(len(reduce.sums) for reduce in reduces) * tiling.block * width * _BYTES["float32"]
    extent = _extent(kernel, tiling.vector)
    most = -(-int(extent.value) // width) if isinstance(extent, Const) else _MOST_STRIPS
    strips = max(1, min(_MOST_STRIPS, most, _WAITING // waiting))
    return replace(tiling, strips=strips, inside=_inside(kernel, reduces, tiling, waiting * strips, access))


def cycles(kernel: Kernel, program: Program, target: Target, access: Access) -> float | None:
    """The cycles of a step of the kernel's reductions, for a vector of its points; None if it has no tiles of several
    rows."""
    lanes = target.lanes(_BYTES["float32"])
    vector = vector_index(kernel, program, access)
    tiled, row = ([], None) if vector is None else _tiled(kernel, vector, access)
    if vector is None or row is None:
        return None
    return best_tile(_step(kernel, tiled, vector, row, lanes, target, access)).cycles


def _tiled(kernel: Kernel, vector: str, access: Access) -> tuple[list[Reduce], str | None]:
    """The reductions that run in tiles, and the dimension of their rows."""
    tiled = [reduce for reduce in kernel.reduces if vector in access.reduce_dependence(reduce)]
    rows = len(tiled) == len(kernel.reduces) > 0 and not any(store.accumulate for store in kernel.stores)
    return tiled, _row(kernel, tiled, vector, access) if rows else None


def _inside(kernel: Kernel, reduces: list[Reduce], tiling: Tiling, waiting: int, access: Access) -> tuple[str, ...]:
    """The other dimensions that are short and for whose points the reductions read something again."""
    if any(tiling.row not in access.dependence(total.value) for reduce in reduces for total in reduce.sums):
        return ()
    every = [load for reduce in reduces for load in _reduce_loads(reduce, access)]
    found = []
    for dim in reversed(kernel.dims):
        if dim.index in (tiling.vector, tiling.row) or all(dim.index in access.dependence(load) for load in every):
            continue
        if isinstance(dim.extent, Const) and waiting * dim.extent.value <= _MOST_WAITING:
            waiting *= int(dim.extent.value)
            found.append(dim.index)
    return tuple(reversed(found))


def _streamed(
    kernel: Kernel, reduces: list[Reduce], vector: str, lanes: int, vectors: int, access: Access
) -> Tiling | None:
    """The tiling of long sums of which no two points read the same, such as Σ a[t, u, v] · b[t, u, v] over t. Alone,
    a strip of columns would go through all of memory, and take a few cache lines of every page; so many rows go through
    it together, a few terms at a time. Where columns are many, a strip of them takes enough of each page."""
    dims = [dim for dim in kernel.dims if dim.index != vector and dim.extent != Const(1, "index")]
    plain = len(reduces) == len(kernel.reduces)
    if not dims or not plain or any(store.accumulate for store in kernel.stores):
        return None
    row = dims[-1]
    every = [load for reduce in reduces for load in _reduce_loads(reduce, access) if vector in access.dependence(load)]
    far = [
        load
        for load in every
        for reduce in reduces
        if reduce.dims
        and row.index in access.dependence(load)
        and access.lane_step(load.buffer, load.at, reduce.dims[-1].index, 1) not in (0, 1)
    ]
    if not far or min(map(length, reduces)) <= _ONE_PIECE * _FEW_TERMS:
        return None
    columns, width = _extent(kernel, vector), vectors * lanes
    if not isinstance(columns, Const) or int(columns.value) * _BYTES["float32"] >= _LONG_RUN:
        return None
    strips = -(-int(columns.value) // width)
    waiting = sum(len(reduce.sums) for reduce in reduces) * strips * width * _BYTES["float32"]
    block = max(1, _STREAMED // waiting)
    if isinstance(row.extent, Const):
        block = min(block, int(row.extent.value))
    widths = _cover(columns, lanes, (vectors, 1))
    return Tiling(vector, lanes, vectors, row.index, 1, True, block, _FEW_TERMS, 1, widths, strips=strips)


def length(reduce: Reduce) -> float:
    """How many points a reduction has; infinitely many if that is not known."""
    points = 1.0
    for dim in reduce.dims:
        points *= dim.extent.value if isinstance(dim.extent, Const) else math.inf
    return points


def _cover(extent: Scalar, unit: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that are needed to cover an extent, if it is cut anywhere between steps of the largest size."""
    if not isinstance(extent, Const):
        return tuple(dict.fromkeys(sizes))
    needed, left = [], int(extent.value) // unit
    for size in dict.fromkeys(sizes):
        if left >= size:
            needed.append(size)
            left %= size
    return tuple(needed) or (1,)


def _extent(kernel: Kernel, name: str) -> Scalar:
    return next(dim.extent for dim in kernel.dims if dim.index == name)


def _values(kernel: Kernel) -> Iterator[Scalar]:
    for step in kernel.body:
        if isinstance(step, Let):
            yield step.value
        else:
            yield from step.values
    yield from (store.value for store in kernel.stores)


def _dtypes(kernel: Kernel, access: Access) -> set[str]:
    """The dtypes that decide the number of lanes: those of the floats, or int32 without any."""
    found = {value.dtype for value in _values(kernel)} | {load.dtype for load in _loads(_values(kernel), access)}
    return found & {"float32", "float64"} or {"int32"}


def _contiguity(kernel: Kernel, access: Access) -> Callable[[Dim], tuple[int, int]]:
    """How good the loads and stores are if a dimension runs in lanes: neighbouring elements count for it, gathered ones
    against it, and between equals the later dimension is better."""
    accesses = {(load.buffer, load.at) for load in _loads(_values(kernel), access)}
    accesses |= {(store.buffer, store.at) for store in kernel.stores}

    def of(dim: Dim) -> tuple[int, int]:
        steps = [access.lane_step(buffer, at, dim.index, 1) for buffer, at in accesses]
        return sum(1 if step == 1 else 0 if step == 0 else -2 for step in steps), kernel.dims.index(dim)

    return of


def _loads(values: Iterable[Scalar], access: Access) -> Iterator[Load]:
    """What several values load. Names that they share are followed once."""
    seen: set[Ref] = set()
    for value in values:
        yield from access.loads(value, seen)


def _reduce_loads(reduce: Reduce, access: Access, values: Iterable[Scalar] = ()) -> list[Load]:
    """The distinct loads that vary along a reduction, in all that it adds up or in these `values` alone."""
    bound = {dim.index for dim in reduce.dims}
    every = dict.fromkeys(_loads(values or (total.value for total in reduce.sums), access))
    return [load for load in every if not bound.isdisjoint(access.dependence(load))]


def _strided(reduce: Reduce, access: Access, vector: str) -> list[Load]:
    """What a reduction reads across the dimension `vector`, if all that it reads lies along its own last dimension. If
    one of these is read only once in all that is around the reduction, to turn it round, so that it lies along the
    kernel's dimension, would cost as much as the reduction."""
    own = horizontal_index(reduce).index
    every = _reduce_loads(reduce, access)
    along = all(access.lane_step(x.buffer, x.at, own, 1) in (0, 1) for x in every)
    return [x for x in every if access.lane_step(x.buffer, x.at, vector, 1) not in (0, 1)] if along else []


def _row(kernel: Kernel, reduces: list[Reduce], vector: str, access: Access) -> str | None:
    """The dimension, other than the vector's, along which the reductions share the most vector loads."""
    every = [load for reduce in reduces for load in _reduce_loads(reduce, access)]
    conditions = [r.when for r in reduces if r.when is not None]
    best, shared_most = None, (0, 0)
    for dim in kernel.dims:
        if dim.index == vector or dim.extent == Const(1, "index"):
            continue
        if any(dim.index in access.dependence(when) for when in conditions):
            continue
        same = [access.dependence(load) for load in every if dim.index not in access.dependence(load)]
        shared = sum(vector in moving for moving in same), len(same)
        if same and shared >= shared_most:
            best, shared_most = dim.index, shared
    return best


def _step(
    kernel: Kernel,
    reduces: list[Reduce],
    vector: str,
    row: str | None,
    lanes: int,
    target: Target,
    access: Access,
) -> Step:
    """What a step of the kernel's reductions asks of a tile. Where the length of a dimension is not known, typical ones
    are planned for."""
    groups = [[g for total in r.sums for g in access.groups(access.terms(total.value))] for r in reduces]
    if target.has_dot:  # one instruction, and one load of each operand, for two products of pairs
        groups = [[g[:1] if access.factors(g) else g for g in every] for every in groups]
    taken = [[term for group in every for term in group] for every in groups]
    return Step(
        max(len(reduce.sums) for reduce in reduces),
        max(map(len, taken)),
        tuple(
            sorted(
                (row in access.dependence(load), vector in access.dependence(load))
                for reduce, values in zip(reduces, taken, strict=True)
                for load in _reduce_loads(reduce, access, values)
            )
        ),
        (1,) if row is None else _lengths(_extent(kernel, row)),
        tuple(-(-length // lanes) for length in _lengths(_extent(kernel, vector))),
        any(reduce.when is not None for reduce in reduces),
        target.vector_registers,
        target.vector_bits // 8,
        max(len(group) for every in groups for group in every),
    )


def _depth(reduce: Reduce, tiling: Tiling, access: Access) -> int:
    """For how many points of a reduction, a power of two, what one tile reads stays in the first-level cache."""
    own = reduce.dims[-1].index if reduce.dims else ""
    touched = 0
    for load in _reduce_loads(reduce, access):
        dependence, size = access.dependence(load), _BYTES[load.dtype]
        rows = tiling.rows if tiling.row in dependence else 1
        if tiling.vector in dependence:
            touched += tiling.vectors * tiling.lanes * size * rows
        else:
            along = access.lane_step(load.buffer, load.at, own, 1) in (0, 1)
            touched += max(size if along else _LINE, size * rows)
    return max(_SHALLOWEST, 1 << round(math.log2(_FIRST_LEVEL / max(1, touched))))


def _lengths(extent: Scalar) -> tuple[int, ...]:
    """The lengths to plan for: the known one, or typical ones."""
    return (max(1, int(extent.value)),) if isinstance(extent, Const) else _TYPICAL_LENGTHS
