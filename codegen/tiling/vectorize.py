"""Which loop of a kernel runs in vector lanes, and which in registers side by side.

In: a kernel. Out: the names of two of its dims. The vector dim runs in lanes. A contraction has a second one, the row,
along which it shares the most of what it loads: for y[n, e] = Σ_r W[e, r] · h[n, r] the lanes run along e, the rows
along n, and each vector of W that is loaded serves all rows. How many there are of both is chosen in
`graphc.codegen.tiling.tiling`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from graphc.codegen.access import Access
from graphc.codegen.program import Dim, Kernel, Let, Load, Program, Reduce, Ref, Scalar, nested_kernels
from graphc.scalar import index

__all__ = ["horizontal_index", "loads_of", "reduce_loads", "tiled_reductions", "values_of", "vector_index"]

_SMALLEST_VECTOR = 4


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
    around = {dim.index for dim in kernel.dims if dim.extent != index(1)}
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


def _contiguity(kernel: Kernel, access: Access) -> Callable[[Dim], tuple[int, int]]:
    """How good the loads and stores are if a dimension runs in lanes: neighbouring elements count for it, gathered ones
    against it, and between equals the later dimension is better."""
    accesses = {(load.buffer, load.at) for load in loads_of(values_of(kernel), access)}
    accesses |= {(store.buffer, store.at) for store in kernel.stores}

    def of(dim: Dim) -> tuple[int, int]:
        steps = [access.lane_step(buffer, at, dim.index, 1) for buffer, at in accesses]
        return sum(1 if step == 1 else 0 if step == 0 else -2 for step in steps), kernel.dims.index(dim)

    return of


def _strided(reduce: Reduce, access: Access, vector: str) -> list[Load]:
    """What a reduction reads across the dimension `vector`, if all that it reads lies along its own last dimension. If
    one of these is read only once in all that is around the reduction, to turn it round, so that it lies along the
    kernel's dimension, would cost as much as the reduction."""
    own = horizontal_index(reduce).index
    every = reduce_loads(reduce, access)
    along = all(access.lane_step(x.buffer, x.at, own, 1) in (0, 1) for x in every)
    return [x for x in every if access.lane_step(x.buffer, x.at, vector, 1) not in (0, 1)] if along else []


def tiled_reductions(kernel: Kernel, vector: str, access: Access) -> tuple[list[Reduce], str | None]:
    """The reductions that run in tiles, and the dimension of their rows."""
    tiled = [reduce for reduce in kernel.reduces if vector in access.reduce_dependence(reduce)]
    rows = len(tiled) == len(kernel.reduces) > 0 and not any(store.accumulate for store in kernel.stores)
    return tiled, _row(kernel, tiled, vector, access) if rows else None


def _row(kernel: Kernel, reduces: list[Reduce], vector: str, access: Access) -> str | None:
    """The dimension, other than the vector's, along which the reductions share the most vector loads."""
    every = [load for reduce in reduces for load in reduce_loads(reduce, access)]
    conditions = [r.when for r in reduces if r.when is not None]
    best, shared_most = None, (0, 0)
    for dim in kernel.dims:
        if dim.index == vector or dim.extent == index(1):
            continue
        if any(dim.index in access.dependence(when) for when in conditions):
            continue
        same = [access.dependence(load) for load in every if dim.index not in access.dependence(load)]
        shared = sum(vector in moving for moving in same), len(same)
        if same and shared >= shared_most:
            best, shared_most = dim.index, shared
    return best


def values_of(kernel: Kernel) -> Iterator[Scalar]:
    """All that a kernel names, adds up or stores; not where, nor under which conditions."""
    for step in kernel.body:
        if isinstance(step, Let):
            yield step.value
        else:
            yield from step.values
    yield from (store.value for store in kernel.stores)


def loads_of(values: Iterable[Scalar], access: Access) -> Iterator[Load]:
    """What several values load. Names that they share are followed once."""
    seen: set[Ref] = set()
    for value in values:
        yield from access.loads(value, seen)


def reduce_loads(reduce: Reduce, access: Access, values: Iterable[Scalar] = ()) -> list[Load]:
    """The distinct loads that vary along a reduction, in all that it adds up or in these `values` alone."""
    bound = {dim.index for dim in reduce.dims}
    every = dict.fromkeys(loads_of(values or (total.value for total in reduce.sums), access))
    return [load for load in every if not bound.isdisjoint(access.dependence(load))]
