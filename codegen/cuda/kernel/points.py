"""A kernel point by point: each is computed by one thread, by the lanes of a warp together, or by a CTA.

In: a `Kernel`, and how many lanes compute a point, or how many neighbouring points one thread computes. Out: its code,
appended to a device function. All values of a point stay in registers. If several lanes share the terms of a reduction,
they add their partial results in a fixed tree, so results are the same from run to run. Where a store accumulates, one
thread computes all points that may add to the same element, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from graphc.codegen.access import MEMORY
from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.device import SHARED, DeviceFunction
from graphc.codegen.cuda.isa.place import Place, digits, named
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.llvm.functions import REGISTER, STORAGE, constant
from graphc.codegen.llvm.memory import read, write
from graphc.codegen.program import Accumulate, Call, Dim, Index, Kernel, Reduce, Ref
from graphc.codegen.uses import loaded, stored

__all__ = ["PARTIALS", "compute_points", "compute_runs", "end_point", "group_part", "moved", "owned_dims"]

PARTIALS = "graphc_partials"  # shared memory: one word for each warp


def owned_dims(kernel: Kernel) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """The dims along which points may be computed in parallel, and those along which one thread computes all points in
    order, because they may add to the same element."""
    accumulating = [store for store in kernel.stores if store.accumulate]
    own = tuple(d for d in kernel.dims if all(Index(d.index) in store.at for store in accumulating))
    return own, tuple(d for d in kernel.dims if d not in own)


def compute_points(s: Scalars, kernel: Kernel, lanes: int, place: Place) -> None:
    """All points of a kernel that are this thread's. `lanes` threads share a point: 1, `WARP`, or the CTA's."""
    f = s.function
    own, sequential = owned_dims(kernel)
    starts, lengths = group_part(s, own, place)
    first, step = place.grid_stride(f, lanes)
    with s.counting(first, f.product(lengths), step, "point") as number, ExitStack() as stack:
        found = digits(f, number, lengths)
        stack.enter_context(s.scope(named(own, moved(f, starts, found))))
        for dim, start, length in zip(sequential, *group_part(s, sequential, place), strict=True):
            stop = length if start == i64(0) else f.binary("add nsw", start, length)
            index = stack.enter_context(s.counting(start, stop, i64(1), dim.index))
            s.bind(Index(dim.index), index)
        _steps(s, kernel, lanes, place)
        end_point(s, kernel, lanes, place)


def compute_runs(s: Scalars, kernel: Kernel, run: int, place: Place) -> None:
    """All runs of `run` neighbouring points along the last dim that are this thread's. The dim's length is a multiple
    of `run`. All points of a run are computed before the first is stored, so their loads and stores can be combined."""
    f = s.function
    last = kernel.dims[-1]
    lengths = [s.value(dim.extent) for dim in kernel.dims]
    lengths[-1] = i64(int(lengths[-1].text) // run)
    first, step = place.grid_stride(f, 1)
    with s.counting(first, f.product(lengths), step, "run") as number:
        found = digits(f, number, lengths)
        start = f.binary("mul nsw", found.pop(), i64(run))
        with s.scope(named(kernel.dims[:-1], found)):
            points = [{last.index: f.binary("add nsw", start, i64(k))} for k in range(run)]
            for point in points:
                with s.scope(point):
                    s.load_known(kernel)
            values = []
            for point in points:
                with s.scope(point):
                    _steps(s, kernel, 1, place)
                    values.append(s.stored(kernel))
            for number_of, store in enumerate(kernel.stores):
                for point, made in zip(points, values, strict=True):
                    with s.scope(point):
                        s.store(store.buffer, store.at, made[number_of], accumulate=False)


def group_part(s: Scalars, dims: Sequence[Dim], place: Place) -> tuple[list[Value], list[Value]]:
    """The start and the length of this group's part of each dim."""
    starts, lengths = [], []
    for dim in dims:
        if dim.index in place.parts:
            first, end = place.parts[dim.index]
            starts.append(first)
            lengths.append(s.function.binary("sub nsw", end, first))
        else:
            starts.append(i64(0))
            lengths.append(s.value(dim.extent))
    return starts, lengths


def moved(f: DeviceFunction, starts: Iterable[Value], indices: Iterable[Value]) -> list[Value]:
    """Indices that were counted from these starts, in the whole dims."""
    return [i if a == i64(0) else f.binary("add nsw", a, i) for a, i in zip(starts, indices, strict=True)]


def _steps(s: Scalars, kernel: Kernel, lanes: int, place: Place) -> None:
    for step in kernel.body:
        if isinstance(step, Reduce):
            _reduce(s, step, lanes, place)
        else:
            s.value(Ref(step.name, step.value.dtype))


def end_point(s: Scalars, kernel: Kernel, lanes: int, place: Place) -> None:
    """Compute and store a point's results once its reductions are bound; the first of its lanes stores."""
    f = s.function
    s.load_known(kernel)
    s.fetch_ahead(kernel)
    values = s.stored(kernel)
    if lanes > 1 and loaded((kernel,)) & stored((kernel,)):  # the other lanes may still load
        f.sync_warp() if lanes == WARP else f.sync_cta()
    with s.when(None if lanes == 1 else f.compare("icmp eq", place.among(lanes), i64(0))):
        for store, value in zip(kernel.stores, values, strict=True):
            s.store(store.buffer, store.at, value, store.accumulate)


# Reductions.


def _reduce(s: Scalars, reduce: Reduce, lanes: int, place: Place) -> None:
    """Compute a reduction's results and bind their names."""
    f = s.function
    totals = [(total, f.variable(REGISTER[total.value.dtype])) for total in reduce.sums]
    for total, variable in totals:
        f.put(constant(total.identity.value, total.value.dtype), variable)
    with ExitStack() as stack:
        counts = _each_term(s, reduce, lanes, place, stack)
        for let in reduce.body:
            s.value(Ref(let.name, let.value.dtype))
        for total, variable in totals:
            _include(s, total, variable, counts)
    for total, variable in totals:
        result = f.get(variable, REGISTER[total.value.dtype])
        if lanes > 1:
            result = _combined(s, total, result, lanes, place)
        s.bind(Ref(total.name, total.value.dtype), result)


def _each_term(s: Scalars, reduce: Reduce, lanes: int, place: Place, stack: ExitStack) -> Value | None:
    """Open a loop over the terms that are this lane's, with a branch for those that meet the reduction's condition, as
    far out as the condition is known. Where there is no branch, gives whether a term counts; else None."""
    f, when = s.function, reduce.when
    lengths = [s.value(dim.extent) for dim in reduce.dims]
    if lanes > 1:
        number = stack.enter_context(s.counting(place.among(lanes), f.product(lengths), i64(lanes), "term"))
        for dim, index in zip(reduce.dims, digits(f, number, lengths), strict=True):
            s.bind(Index(dim.index), index)
    else:
        for k, (dim, length) in enumerate(zip(reduce.dims, lengths, strict=True), 1):
            index = stack.enter_context(s.counting(i64(0), length, i64(1), dim.index))
            s.bind(Index(dim.index), index)
            inner = {dim.index for dim in reduce.dims[k:]}
            if inner and when is not None and inner.isdisjoint(s.access.dependence(when)):
                stack.enter_context(s.when(s.value(when)))
                when = None
    if when is None:
        return None
    if MEMORY in s.access.dependence(when):
        stack.enter_context(s.when(s.value(when)))
        return None
    counts = s.value(when)  # most terms count, and a branch would keep the loads of several terms from overlapping
    stack.enter_context(s.guarded(counts))
    return counts


def _include(s: Scalars, total: Accumulate, variable: Value, counts: Value | None) -> None:
    """Include one term, if `counts` holds or is None. A product is added with one rounding (fused multiply-add)."""
    f, dtype = s.function, total.value.dtype
    before = f.get(variable, REGISTER[dtype])
    match s.access.resolve(total.value):
        case Call("mul", (a, b)) if total.op == "sum" and dtype.startswith("float"):
            after = s.functions.multiply_add(s.value(a), s.value(b), before)
        case _:
            after = _joined(s, total, before, s.value(total.value))
    f.put(after if counts is None else f.select(counts, after, before), variable)


def _joined(s: Scalars, total: Accumulate, a: Value, b: Value) -> Value:
    dtype = total.value.dtype
    return s.functions.apply("add" if total.op == "sum" else "max", [a, b], dtype, dtype)


def _combined(s: Scalars, total: Accumulate, value: Value, lanes: int, place: Place) -> Value:
    """The lanes' partial results combined, in all lanes: a butterfly in each warp, then the warps in order."""
    f, dtype = s.function, total.value.dtype
    distance = WARP // 2
    while distance:
        value = _joined(s, total, value, f.shuffle_xor(value, distance))
        distance //= 2
    if lanes == WARP:
        return value
    words, element = Value(f"@{PARTIALS}", SHARED), STORAGE[dtype][0]
    with f.when(f.compare("icmp eq", place.lane, i64(0))):
        write(f, value, f.offset(words, element, place.warp), dtype, None)
    f.sync_cta()
    result = read(f, words, dtype, 1, None)
    for warp in range(1, place.warps):
        result = _joined(s, total, result, read(f, f.offset(words, element, i64(warp)), dtype, 1, None))
    f.sync_cta()  # before the words are used again
    return result
