"""The interpreter of the loop IR: numpy, slow, as literal as the grammar. Back ends are tested against it.

In: a Program, an array for every buffer, the value of every size. Out: the same arrays, stored to.

A kernel is evaluated as a whole: every scalar becomes an array with one axis for each dim of the kernel, and
inside a `Reduce` one more for each dim of the reduction. What the Program promises is checked on the way:
subscripts lie inside their buffers wherever the element is touched, and no two points of a kernel store to
one element. What it leaves unspecified (memory not yet written, a load whose `when` is false) is filled
with NaN and other garbage, so that a result that depends on it shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.codegen.lengths import buffer_shape
from graphc.codegen.program import Buffer, Dim, Kernel, Let, Program, Reduce, Ring, Statement, Store
from graphc.errors import InternalError
from graphc.scalar import FUNCTIONS, STORED, Call, Const, Index, Load, Ref, Scalar, Size, computed, converted, nearest

Array = npt.NDArray[Any]

_DTYPES = {"index": np.dtype(np.int64)} | {d: np.dtype(d) for d in (*STORED, "float32", "float64", "int32", "bool")}
_GARBAGE = {"float32": np.nan, "float64": np.nan, "int32": -0x5A5A5A5B, "index": -0x5A5A5A5B, "bool": True}


def allocate(program: Program, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[str, Array]:
    """The given arrays, and an array full of garbage for every output and temp that is missing."""
    complete = dict(arrays)
    for buffer in program.buffers:
        if buffer.name not in complete and buffer.kind in ("output", "temp"):
            garbage = _GARBAGE[computed(buffer.dtype)]
            complete[buffer.name] = np.full(buffer_shape(buffer, sizes), garbage, _DTYPES[buffer.dtype])
    return complete


def interpret(program: Program, arrays: dict[str, Array], sizes: Mapping[str, int]) -> None:
    """Run the program on the arrays, in place.

    Raises ValueError if an array does not fit its buffer, IndexError if a kernel loads or stores outside of a buffer,
    InternalError if two points of a kernel store to one element.
    """
    for buffer in program.buffers:
        array, shape, dtype = arrays[buffer.name], buffer_shape(buffer, sizes), _DTYPES[buffer.dtype]
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{buffer}: expected {dtype}{shape}, got {array.dtype}{array.shape}")
    buffers = {b.name: (b, arrays[b.name]) for b in program.buffers}
    with np.errstate(all="ignore"):
        _run(program.body, _Scope(buffers, sizes, {}))


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a scalar can mention, the kernel it stands in, and the points at which it is evaluated.

    `active` is None where every point counts; elsewhere loads touch memory only where it is true.
    """

    buffers: Mapping[str, tuple[Buffer, Array]]
    sizes: Mapping[str, int]
    indices: Mapping[str, Array]
    names: Mapping[str, Array] | None = None
    kernel: str = ""
    active: Array | None = None


def _run(statements: tuple[Statement, ...], scope: _Scope) -> None:
    for statement in statements:
        if isinstance(statement, Kernel):
            _run_kernel(statement, scope)
            continue
        steps = range(_length(statement.extent, scope))
        for step in reversed(steps) if statement.reverse else steps:
            _run(statement.body, replace(scope, indices={**scope.indices, statement.index: np.asarray(step)}))


def _run_kernel(kernel: Kernel, outer: _Scope) -> None:
    names: dict[str, Array] = {}
    grid = _grid(kernel.dims, outer)
    scope = replace(outer, indices={**outer.indices, **grid}, names=names, kernel=kernel.name)
    for step in kernel.body:
        if isinstance(step, Let):
            names[step.name] = _evaluate(step.value, scope)
        else:
            names.update(_reduce(step, scope))
    shape = tuple(_length(d.extent, outer) for d in kernel.dims)
    values = [np.broadcast_to(_evaluate(s.value, scope), shape) for s in kernel.stores]
    places = [_subscripts(s.buffer, s.at, np.ones(shape, bool), scope) for s in kernel.stores]
    for store, place, value in zip(kernel.stores, places, values, strict=True):
        _store(store, place, value.reshape(-1), scope)


def _store(store: Store, place: tuple[Array, ...], value: Array, scope: _Scope) -> None:
    buffer, array = scope.buffers[store.buffer]
    array = array[None]  # one more dim, so that a scalar buffer has one to index
    if store.accumulate:
        np.add.at(array, place, value)  # one after another, in row-major order of the dims
        return
    if np.unique(np.stack(place), axis=1).shape[1] < value.size:
        raise InternalError(f"kernel {scope.kernel}: several points store to one element of {store.buffer}")
    array[place] = nearest(value, buffer.dtype) if buffer.dtype in STORED else value


def _reduce(reduce: Reduce, outer: _Scope) -> dict[str, Array]:
    """What the accumulators come to: sums and maxima over the last axes, one for each dim of the reduction."""
    rank = len(reduce.dims)
    axes, ones = tuple(range(-rank, 0)), (1,) * rank
    names = {name: value.reshape(value.shape + ones) for name, value in (outer.names or {}).items()}
    indices = {name: value.reshape(value.shape + ones) for name, value in outer.indices.items()}
    grid = _grid(reduce.dims, outer)
    scope = replace(outer, indices={**indices, **grid}, names=names)
    active = np.asarray(True) if reduce.when is None else _evaluate(reduce.when, scope)
    scope = replace(scope, active=active)
    for let in reduce.body:
        names[let.name] = _evaluate(let.value, scope)
    results = {}
    for total in reduce.sums:
        value = _evaluate(total.value, scope)
        rest = total.identity.value
        # Every axis must be there in full before it is summed over, also where the value does not vary.
        full = np.broadcast_shapes(value.shape, active.shape, *(i.shape for i in scope.indices.values()))
        points = np.where(active, np.broadcast_to(value, full), value.dtype.type(rest))
        if total.op == "sum":
            results[total.name] = np.sum(points, axis=axes, dtype=value.dtype)
        else:
            results[total.name] = np.max(points, axis=axes, initial=rest)
    return results


def _grid(dims: tuple[Dim, ...], scope: _Scope) -> dict[str, Array]:
    """For each dim its index as an array: all values, along an axis of its own, counted from the right."""
    lengths = [_length(d.extent, scope) for d in dims]
    return {
        dim.index: np.arange(length).reshape((length,) + (1,) * (len(dims) - 1 - axis))
        for axis, (dim, length) in enumerate(zip(dims, lengths, strict=True))
    }


def _length(extent: Scalar, scope: _Scope) -> int:
    return int(_evaluate(extent, scope))


def _evaluate(scalar: Scalar, scope: _Scope) -> Array:
    match scalar:
        case Const(value, dtype):
            return np.asarray(value, _DTYPES[dtype])
        case Index(name):
            return scope.indices[name]
        case Size(name):
            return np.asarray(scope.sizes[name], np.int64)
        case Ref(name):
            return (scope.names or {})[name]
        case Load():
            return _load(scalar, scope)
        case Call("cast", (value,), dtype):
            return np.asarray(converted(_evaluate(value, scope), _DTYPES[dtype].name))
        case Call(fn, args, dtype):
            result = FUNCTIONS[fn].numpy(*(_evaluate(a, scope) for a in args))
            return np.asarray(result, _DTYPES[dtype])


def _load(load: Load, scope: _Scope) -> Array:
    """The elements at the points that count, and garbage at the others."""
    array = scope.buffers[load.buffer][1]
    when = np.asarray(True) if load.when is None else _evaluate(load.when, scope)
    if scope.active is not None:
        when = when & scope.active
    shape = np.broadcast_shapes(when.shape, *(_evaluate(s, scope).shape for s in load.at))
    when = np.broadcast_to(when, shape)
    result = np.full(shape, _GARBAGE[load.dtype], _DTYPES[load.dtype])
    result[when] = array[None][_subscripts(load.buffer, load.at, when, scope)]
    return result


def _subscripts(buffer: str, at: tuple[Scalar, ...], where: Array, scope: _Scope) -> tuple[Array, ...]:
    """A 0 and the checked subscripts, each as a flat array over the points that `where` marks."""
    declared, array = scope.buffers[buffer]
    result = [np.zeros(np.count_nonzero(where), np.int64)]
    for scalar, dim, length in zip(at, declared.dims, array.shape, strict=True):
        places = np.broadcast_to(_evaluate(scalar, scope), where.shape)[where]
        if isinstance(dim, Ring):
            places = places % dim.slots
        elif places.size and (places.min() < 0 or places.max() >= length):
            bad = places.min() if places.min() < 0 else places.max()
            text = f"{buffer}[{', '.join(map(str, at))}]"
            raise IndexError(f"kernel {scope.kernel}: {text}: subscript {scalar} = {bad}, length {length}")
        result.append(places)
    return tuple(result)
