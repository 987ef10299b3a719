"""Every sum over an axis as a running sum, so that the points along the axis can come in pieces.

In: a Program and an axis. Out: its top-level statements in the same order, each of one of two kinds. A `piecewise` one
can run for a part of the axis at a time; any other runs once. A kernel that reduces over the axis becomes a
piecewise one that adds what a part contributes to memory, and one that goes on from there. A load from one place along
the axis, as of a state's last step, becomes such a sum too, over the one point where it lies:

    y[e] = tanh(Σ_t a[t, e])      first    y.sum[e] = 0
                                  in parts y.sum[e] = y.sum[e] + Σ_t a[t, e]
                                  then     y[e] = tanh(y.sum[e])
    y[e] = tanh(h[T - 1, e])      y[e] = tanh(h.at[e]), where h.at[e] = Σ_t (h[t, e] where t = T - 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Dim,
    Kernel,
    Let,
    Loop,
    Program,
    Reduce,
    Statement,
    Store,
    fresh,
    indices_of,
    kernels,
    map_kernel,
    map_kernels,
    map_reduce,
)
from graphc.codegen.uses import loads, reduce_references, references, stored, used_steps, written_out
from graphc.scalar import Index, Load, Ref, Scalar, call, index, offset_from, replaced, walk, zero

NUMBERS = ("float32", "float64", "int32")


@dataclass(frozen=True, slots=True)
class Item:
    """A statement. A `piecewise` one can run for a part of the axis at a time; `first` are kernels that must run before
    its first part."""

    statement: Statement
    piecewise: bool
    first: tuple[Kernel, ...] = ()


@dataclass
class Split:
    """The statements made so far, and the buffers that they need."""

    axis: str
    extent: Scalar
    buffers: dict[str, Buffer]
    names: set[str]  # that are taken
    body: list[Item] = field(default_factory=list)


def split(program: Program, axis: str, extent: Scalar) -> Split:
    """The program's statements, with running sums in the place of sums over the axis."""
    made = Split(axis, extent, dict(program.declared), program.names)
    along = _varying(program, axis)
    for statement in program.body:
        (statement,) = map_kernels((statement,), lambda kernel: _without_picks(kernel, along, made))
        if isinstance(statement, Kernel):
            _split_kernel(statement, made)
        else:
            made.body.append(Item(statement, _is_piecewise(statement, axis)))
    return made


def _is_piecewise(statement: Statement, axis: str) -> bool:
    """Whether a statement steps along the axis, or does the same at each point of it, independently of the others."""
    if isinstance(statement, Loop) and statement.index == axis:
        return True
    inside = list(kernels((statement,)))
    own = stored((statement,))
    apart = all(Index(axis) in load.at for kernel in inside for load in loads(kernel) if load.buffer in own)
    return apart and all(any(d.index == axis for d in kernel.dims) for kernel in inside)


# Loads from one place along the axis.


def _varying(program: Program, axis: str) -> dict[str, int]:
    """The temporaries that have a value for every point of the axis, each with the dimension that runs along it."""
    places: dict[str, set[int | None]] = {b.name: set() for b in program.buffers if b.kind == "temp"}
    for kernel in kernels(program.body):
        for store in kernel.stores:
            if store.buffer in places:
                places[store.buffer].add(next((k for k, s in enumerate(store.at) if s == Index(axis)), None))
    single = {name: next(iter(found)) for name, found in places.items() if len(found) == 1}
    return {name: place for name, place in single.items() if place is not None}


def _without_picks(kernel: Kernel, along: dict[str, int], made: Split) -> Kernel:
    lets = kernel.lets

    def without(scalar: Scalar, dims: tuple[Dim, ...]) -> Scalar:
        known = {d.index: d for d in dims}

        def rule(part: Scalar) -> Scalar | None:
            if not isinstance(part, Load) or part.buffer not in along:
                return None
            place = part.at[along[part.buffer]]
            if offset_from(place, made.axis) is not None:
                return None
            return _picked(part, along[part.buffer], lets, known, made)

        return replaced(scalar, rule)

    def step(part: Let | Reduce) -> Let | Reduce:
        if isinstance(part, Let):
            return Let(part.name, without(part.value, kernel.dims))
        dims = (*kernel.dims, *part.dims)  # another's dim of the same name may be of another length
        return map_reduce(part, lambda scalar: without(scalar, dims))

    body = tuple(map(step, kernel.body))
    return replace(map_kernel(replace(kernel, body=()), lambda scalar: without(scalar, kernel.dims)), body=body)


def _picked(load: Load, dim: int, lets: dict[str, Scalar], dims: dict[str, Dim], made: Split) -> Scalar | None:
    """A load from a buffer that holds what lies at one place along the axis, in the place of a load from there; None if
    that place is not known beforehand."""
    at = tuple(written_out(s, lets) for s in load.at)
    when = None if load.when is None else written_out(load.when, lets)
    parts = [part for scalar in (*at, when) for part in walk(scalar)]
    used = dict.fromkeys(part.name for part in parts if isinstance(part, Index))
    known = all(name in dims and name != made.axis for name in used)
    if not known or any(isinstance(part, Ref) for part in parts) or load.dtype not in NUMBERS:
        return None
    own = tuple(dims[name] for name in used)
    chosen = tuple(Index(name) for name in used)
    name = fresh(f"{load.buffer}.at", made.names)
    made.buffers[name] = Buffer(name, load.dtype, tuple(d.extent for d in own), "temp")
    condition = call("eq", Index(made.axis), at[dim])
    if when is not None:
        condition = call("and", when, condition)
    value = Load(load.buffer, (*at[:dim], Index(made.axis), *at[dim + 1 :]), load.dtype)
    total = Accumulate("picked", "sum", value)
    reduce = Reduce((Dim(made.axis, made.extent),), (total,), (), condition)
    _split_kernel(Kernel(name, own, (reduce,), (Store(name, chosen, Ref("picked", load.dtype)),)), made)
    return Load(name, chosen, load.dtype)


# Reductions over the axis.


def _split_kernel(kernel: Kernel, made: Split) -> None:
    """Append a kernel: first its reductions over the axis that need no other such reduction, then what needs them."""
    over = [reduce for reduce in kernel.reduces if _is_over(reduce, made.axis)]
    if not over:
        made.body.append(Item(kernel, _is_piecewise(kernel, made.axis)))
        return
    waiting: set[str] = set()  # names that need a reduction over the axis
    ready: list[Reduce] = []
    for step in kernel.body:
        if isinstance(step, Let):
            if references(step.value) & waiting:
                waiting.add(step.name)
            continue
        if step in over and not reduce_references(step) & waiting:
            ready.append(step)
        if step in over or reduce_references(step) & waiting:
            waiting |= {total.name for total in step.sums}
    homes = _homes([total for step in ready for total in step.sums], kernel, made)
    made.body.append(_running(kernel, ready, homes, made))
    done = set(homes.values())
    rest = tuple(s for s in kernel.stores if Load(s.buffer, s.at, s.value.dtype) not in done)
    body: list[Let | Reduce] = []
    for step in kernel.body:
        if step in ready:
            assert isinstance(step, Reduce)
            body += [Let(total.name, homes[total.name]) for total in step.sums]
        else:
            body.append(step)
    if rest:
        name = fresh(f"{kernel.name}.whole", made.names)
        _split_kernel(Kernel(name, kernel.dims, used_steps(body, rest), rest), made)


def _is_over(step: Let | Reduce, axis: str) -> bool:
    return isinstance(step, Reduce) and any(d.index == axis for d in step.dims)


def _homes(totals: Sequence[Accumulate], kernel: Kernel, made: Split) -> dict[str, Load]:
    """Where running sums lie: where the kernel stores them anyway, or in buffers of their own. What reads them when
    they are whole may not store to the buffer that it reads."""
    homes = {total.name: home for total in totals if (home := _stored_home(total, kernel, made)) is not None}
    while True:
        done = set(homes.values())
        later = {s.buffer for s in kernel.stores if Load(s.buffer, s.at, s.value.dtype) not in done}
        if not any(home.buffer in later for home in homes.values()):
            break
        homes = {name: home for name, home in homes.items() if home.buffer not in later}
    return {total.name: homes.get(total.name) or _own_home(total, kernel, made) for total in totals}


def _stored_home(total: Accumulate, kernel: Kernel, made: Split) -> Load | None:
    """The first place where the kernel stores a sum as it is."""
    dtype = total.value.dtype
    for store in kernel.stores:
        buffer = made.buffers[store.buffer]
        fits = buffer.kind != "param" and buffer.dtype == dtype
        if store.value == Ref(total.name, dtype) and fits and not store.accumulate:
            return Load(store.buffer, store.at, dtype)
    return None


def _own_home(total: Accumulate, kernel: Kernel, made: Split) -> Load:
    name = fresh(f"{kernel.name}.{total.op}", made.names)
    made.buffers[name] = Buffer(name, total.value.dtype, tuple(d.extent for d in kernel.dims), "temp")
    return Load(name, indices_of(kernel.dims), total.value.dtype)


def _running(kernel: Kernel, ready: Sequence[Reduce], homes: dict[str, Load], made: Split) -> Item:
    """The kernel that adds what one part of the axis contributes, after one that stores what the sums begin with."""
    begin, go_on = [], []
    body = [step for step in kernel.body if step in ready or not _is_over(step, made.axis)]
    for total in (total for step in ready for total in step.sums):
        home = homes[total.name]
        begin.append(Store(home.buffer, home.at, total.identity))
        more = call("add" if total.op == "sum" else "max", home, Ref(total.name, home.dtype))
        go_on.append(Store(home.buffer, home.at, more))
    staged = [_staged(step, kernel, made) for step in body]
    first = Kernel(fresh(f"{kernel.name}.begin", made.names), kernel.dims, (), tuple(begin))
    return Item(Kernel(kernel.name, kernel.dims, used_steps(staged, go_on), tuple(go_on)), True, (first,))


def _staged(step: Let | Reduce, kernel: Kernel, made: Split) -> Let | Reduce:
    """A reduction all of whose products read temporaries. An array of the caller's is copied part by part, so that a
    copy in another order (`graphc.codegen.passes.pack`) is never made of all of it."""
    own = {d.index for d in kernel.dims}
    if isinstance(step, Let) or not own:
        return step

    def rule(scalar: Scalar) -> Scalar | None:
        if not isinstance(scalar, Load) or made.buffers[scalar.buffer].kind == "temp":
            return None
        places = [k for k, s in enumerate(scalar.at) if offset_from(s, made.axis) is not None]
        plain = all(isinstance(s, Index) or k in places for k, s in enumerate(scalar.at))
        moving = any(isinstance(s, Index) and s.name in own for s in scalar.at)
        return _copy(scalar, places[0], made) if len(places) == 1 and plain and moving else None

    body = tuple(Let(let.name, replaced(let.value, rule)) for let in step.body)
    sums = tuple(replace(total, value=replaced(total.value, rule)) for total in step.sums)
    return replace(step, body=body, sums=sums)


def _copy(load: Load, place: int, made: Split) -> Load:
    """A load from a copy of the buffer; the copy is made along the axis."""
    source = made.buffers[load.buffer]
    offset = offset_from(load.at[place], made.axis)
    assert offset is not None
    name = f"{load.buffer}.part" + (f"{offset:+}" if offset else "")
    extents = source.extents
    dims = tuple(Dim(made.axis if k == place else f"d{k}", extent) for k, extent in enumerate(extents))
    at = indices_of(dims)
    if name not in made.buffers:
        made.names.add(name)
        made.buffers[name] = Buffer(name, load.dtype, source.dims, "temp")
        moved = call("add", at[place], index(offset))
        value: Scalar = Load(load.buffer, (*at[:place], moved, *at[place + 1 :]), load.dtype)
        if offset:
            inside = call("and", call("le", index(0), moved), call("lt", moved, extents[place]))
            value = call("select", inside, replace(value, when=inside), zero(load.dtype))  # type: ignore[arg-type]
        made.body.append(Item(Kernel(name, dims, (), (Store(name, at, value),)), True))
    return Load(name, (*load.at[:place], Index(made.axis), *load.at[place + 1 :]), load.dtype, load.when)
