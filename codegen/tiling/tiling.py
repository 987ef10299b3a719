"""How the points of a kernel are computed side by side: in lanes, in registers, and in blocks that share a cache.

In: a kernel and a target. Out: its `Tiling`. A kernel without contractions runs its vector dimension in lanes. A
contraction's vector dimension runs in lanes and over several vectors, and a second dimension, the row, over several
rows: all their accumulators stay in registers, each operand loaded is used for a whole row or column of them, and there
are enough independent chains to hide the latency of a fused multiply-add (Goto & van de Geijn, "Anatomy of
High-Performance Matrix Multiplication", 2008). The tile is chosen by counting. For h[t] = tanh(W @ h[t - 1] + x[t]):

    >>> import graphc as gc
    >>> from graphc.codegen.program import kernels
    >>> from graphc.pipeline.stages import stages
    >>> g = gc.Graph("elman")
    >>> t, n = g.axis("t"), g.axis("n")
    >>> W, h, x = g.param("W", (512, 512)), g.state("h", (512,), over=(t, n)), g.input("x", (512,), over=(t, n))
    >>> h[t] = gc.tanh(W @ h[t - 1] + x)
    >>> g.output("h", h)
    >>> program = stages(g).program
    >>> _, step = kernels(program.body)
    >>> tiling_of(step, program, Target("x86_64-unknown-linux-gnu", "skylake-avx512"))
    Tiling(vector='e.0', lanes=16, vectors=3, row='n', rows=8, by_vector=False,
           widths=(3, 1), heights=(8, 2, 1), wide=8,
           block=32, depth=128, strips=11, inside=())
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from graphc.codegen import halves
from graphc.codegen.access import Access
from graphc.codegen.lengths import known_length
from graphc.codegen.program import Kernel, Program, Reduce
from graphc.codegen.target import Target
from graphc.codegen.tiling.tile import MOST_VECTORS, Step, best_tile, row_sizes
from graphc.codegen.tiling.vectorize import loads_of, reduce_loads, tiled_reductions, values_of, vector_index
from graphc.scalar import index

__all__ = ["Tiling", "cycles", "length", "tiling_of"]

_BYTES = {"float32": 4, "float64": 8, "int32": 4, "bool": 4, "index": 8}
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
    """What runs side by side, from the inside outwards. The numbers are those of the example above."""

    # The tile, whose accumulators stay in registers: 8 rows of 3 vectors of 16 lanes.
    vector: str | None  # the dim that runs in lanes; None: the kernel's points run one by one
    lanes: int
    vectors: int = 1
    row: str | None = None  # None: a tile has a single row
    rows: int = 1
    by_vector: bool = False  # a step of a reduction goes through the tile vector by vector; otherwise row by row

    # The tiles that cover the two dims, the largest first; fewer where the length is known.
    widths: tuple[int, ...] = (1,)  # in vectors: 512 units are 32 vectors, which are ten times 3 and twice 1
    heights: tuple[int, ...] = (1,)  # in rows: a batch of 19 is twice 8, once 2 and once 1
    wide: int = 1  # the vectors of a tile where the batch turns out to be a single row

    # The block, all of whose tiles go through a piece of a reduction before the next piece.
    block: int = 1  # rows
    depth: int = 1  # points of the reduction in a piece: the 512 are 4 pieces
    strips: int = 1  # at most, of one width: first the ten of 3 vectors, then the two of 1
    inside: tuple[str, ...] = ()  # further dims, all of whose points belong to the block: they read the same again


def tiling_of(kernel: Kernel, program: Program, target: Target) -> Tiling:
    """The tiling of a kernel that is estimated to take the fewest cycles on a target."""
    access = Access(kernel, program)
    lanes = target.lanes(max(_BYTES[dtype] for dtype in _dtypes(kernel, access)))
    vector = vector_index(kernel, program, access)
    if vector is None or lanes == 1:
        return Tiling(None, lanes)
    columns = _points(kernel, vector)
    if columns is not None:
        lanes = min(lanes, 1 << (columns - 1).bit_length())
    tiled, row = tiled_reductions(kernel, vector, access)
    if not tiled:
        return Tiling(vector, lanes)
    tile = best_tile(_step(kernel, tiled, vector, row, lanes, target, access))
    streamed = None if row is not None else _streamed(kernel, tiled, vector, lanes, tile.vectors, access)
    if streamed is not None:
        return streamed
    widths, block = _cover(columns, lanes, (tile.vectors, 1)), tile.rows * -(-_BLOCK // tile.rows)
    tiling = Tiling(vector, lanes, tile.vectors, row, tile.rows, tile.by_vector, widths, block=block)
    depth, longest = min(_depth(reduce, tiling, access) for reduce in tiled), max(map(length, tiled))
    if row is not None:
        tall = _points(kernel, row)
        wide = 1 if tall is not None else _wide(columns, tiled, tiling, target)
        tiling = replace(tiling, heights=_cover(tall, 1, row_sizes(tile.rows)), wide=wide)
        if longest > depth:
            tiling = _in_pieces(kernel, tiled, tiling, access)
    return replace(tiling, depth=int(longest) if longest <= _ONE_PIECE * depth else depth)


def _wide(columns: int | None, reduces: list[Reduce], tiling: Tiling, target: Target) -> int:
    """The vectors of a tile of a single row: as many as hide the latencies, or as there are."""
    sums = max(len(reduce.sums) for reduce in reduces)
    chains = min(_CHAINS, target.vector_registers * 3 // 4)
    return max(1, min(MOST_VECTORS, chains // sums, max(_planned(columns)) // tiling.lanes))


def _in_pieces(kernel: Kernel, reduces: list[Reduce], tiling: Tiling, access: Access) -> Tiling:
    """The tiling of reductions that are cut into pieces: as many strips, and points inside, go through them together as
    can wait between the pieces."""
    assert tiling.vector is not None
    width = tiling.vectors * tiling.lanes
    waiting = sum(len(reduce.sums) for reduce in reduces) * tiling.block * width * _BYTES["float32"]
    columns = _points(kernel, tiling.vector)
    most = _MOST_STRIPS if columns is None else -(-columns // width)
    strips = max(1, min(_MOST_STRIPS, most, _WAITING // waiting))
    return replace(tiling, strips=strips, inside=_inside(kernel, reduces, tiling, waiting * strips, access))


def _inside(kernel: Kernel, reduces: list[Reduce], tiling: Tiling, waiting: int, access: Access) -> tuple[str, ...]:
    """The other dimensions that are short and for whose points the reductions read something again."""
    if any(tiling.row not in access.dependence(total.value) for reduce in reduces for total in reduce.sums):
        return ()
    every = [load for reduce in reduces for load in reduce_loads(reduce, access)]
    found = []
    for dim in reversed(kernel.dims):
        if dim.index in (tiling.vector, tiling.row) or all(dim.index in access.dependence(load) for load in every):
            continue
        if dim.length is not None and waiting * dim.length <= _MOST_WAITING:
            waiting *= dim.length
            found.append(dim.index)
    return tuple(reversed(found))


def _streamed(
    kernel: Kernel, reduces: list[Reduce], vector: str, lanes: int, vectors: int, access: Access
) -> Tiling | None:
    """The tiling of long sums of which no two points read the same, such as Σ a[t, u, v] · b[t, u, v] over t. Alone,
    a strip of columns would go through all of memory, and take a few cache lines of every page; so many rows go through
    it together, a few terms at a time. Where columns are many, a strip of them takes enough of each page."""
    dims = [dim for dim in kernel.dims if dim.index != vector and dim.extent != index(1)]
    plain = len(reduces) == len(kernel.reduces)
    if not dims or not plain or any(store.accumulate for store in kernel.stores):
        return None
    row = dims[-1]
    every = [load for reduce in reduces for load in reduce_loads(reduce, access) if vector in access.dependence(load)]
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
    columns, width = _points(kernel, vector), vectors * lanes
    if columns is None or columns * _BYTES["float32"] >= _LONG_RUN:
        return None
    strips = -(-columns // width)
    waiting = sum(len(reduce.sums) for reduce in reduces) * strips * width * _BYTES["float32"]
    block = max(1, _STREAMED // waiting)
    if row.length is not None:
        block = min(block, row.length)
    widths = _cover(columns, lanes, (vectors, 1))
    return Tiling(vector, lanes, vectors, row.index, 1, True, widths, block=block, depth=_FEW_TERMS, strips=strips)


def _depth(reduce: Reduce, tiling: Tiling, access: Access) -> int:
    """For how many points of a reduction, a power of two, what one tile reads stays in the first-level cache."""
    own = reduce.dims[-1].index if reduce.dims else ""
    touched = 0
    for load in reduce_loads(reduce, access):
        dependence, size = access.dependence(load), _BYTES[load.dtype]
        rows = tiling.rows if tiling.row in dependence else 1
        if tiling.vector in dependence:
            touched += tiling.vectors * tiling.lanes * size * rows
        else:
            along = access.lane_step(load.buffer, load.at, own, 1) in (0, 1)
            touched += max(size if along else _LINE, size * rows)
    return max(_SHALLOWEST, 1 << round(math.log2(_FIRST_LEVEL / max(1, touched))))


def _cover(points: int | None, unit: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that are needed to cover so many points, if they are cut anywhere between steps of the largest size."""
    if points is None:
        return tuple(dict.fromkeys(sizes))
    needed, left = [], points // unit
    for size in dict.fromkeys(sizes):
        if left >= size:
            needed.append(size)
            left %= size
    return tuple(needed) or (1,)


def cycles(kernel: Kernel, program: Program, target: Target, access: Access) -> float | None:
    """The cycles of a step of the kernel's reductions, for a vector of its points; None if it has no tiles of several
    rows."""
    lanes = target.lanes(_BYTES["float32"])
    vector = vector_index(kernel, program, access)
    tiled, row = ([], None) if vector is None else tiled_reductions(kernel, vector, access)
    if vector is None or row is None:
        return None
    return best_tile(_step(kernel, tiled, vector, row, lanes, target, access)).cycles


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
    groups = [[g for total in r.sums for g in halves.groups(access.terms(total.value), access)] for r in reduces]
    if target.has_dot:  # one instruction, and one load of each operand, for two products of pairs
        groups = [[g[:1] if halves.factors(g, access) else g for g in every] for every in groups]
    taken = [[term for group in every for term in group] for every in groups]
    return Step(
        max(len(reduce.sums) for reduce in reduces),
        max(map(len, taken)),
        tuple(
            sorted(
                (row in access.dependence(load), vector in access.dependence(load))
                for reduce, values in zip(reduces, taken, strict=True)
                for load in reduce_loads(reduce, access, values)
            )
        ),
        (1,) if row is None else _planned(_points(kernel, row)),
        tuple(-(-columns // lanes) for columns in _planned(_points(kernel, vector))),
        any(reduce.when is not None for reduce in reduces),
        target.vector_registers,
        target.vector_bits // 8,
        max(len(group) for every in groups for group in every),
    )


def _dtypes(kernel: Kernel, access: Access) -> set[str]:
    """The dtypes that decide the number of lanes: those of the floats, or int32 without any."""
    found = {value.dtype for value in values_of(kernel)} | {load.dtype for load in loads_of(values_of(kernel), access)}
    return found & {"float32", "float64"} or {"int32"}


def length(reduce: Reduce) -> float:
    """How many points a reduction has; infinitely many if that is not known."""
    known = known_length(reduce.dims)
    return math.inf if known is None else known


def _planned(known: int | None) -> tuple[int, ...]:
    """The lengths to plan for: the known one, or typical ones."""
    return _TYPICAL_LENGTHS if known is None else (max(1, known),)


def _points(kernel: Kernel, name: str) -> int | None:
    """How many points a dim of a kernel has; None if that comes with the data."""
    return next(dim.length for dim in kernel.dims if dim.index == name)
