"""Sends terms to the rows they belong to, where every row asks every term whether it belongs there.

In: a Program. Out: a Program that computes the same, up to rounding. The gradient of an embedding is

    g[r, u] = Σ select(word[t, n] = r, d[t, n, u], 0) over t, n

which takes a step for each row and each term. Afterwards it takes one for each row, and one for each term:

    g[r, u] = 0;    g[word[t, n], u] += d[t, n, u] for all t, n

Threads share out the dims that are left (u): all that is added to one element one thread adds, in the order of the
terms, so that the result is the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.passes.segment_sum import SegmentSum, segment_sums
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Call,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ref,
    Statement,
    Store,
    fresh,
    indices_of,
    scalars,
)
from graphc.codegen.uses import used_steps
from graphc.scalar import Scalar, call, guarded, index, walk, with_indices, zero

__all__ = ["scatter"]

_LANES = 16
_STORING = 8  # elements, or vectors of them, that are compared and added in the time that one is loaded, added, stored


def scatter(program: Program) -> Program:
    """The program in which each term is added to the row that it names, where rows asked terms."""
    made = _Scattering(program)
    body = tuple(made.statements(program.body))
    return replace(program, buffers=(*program.buffers, *made.buffers), body=body)


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a sum is added up. With `begun`, it is added to what lies there already."""

    at: Load
    begun: bool = False


class _Scattering:
    """The statements of a program with terms scattered, and the buffers that they need in addition."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.buffers: list[Buffer] = []
        self.taken = program.names

    def statements(self, body: tuple[Statement, ...]) -> Iterator[Statement]:
        for statement in body:
            if isinstance(statement, Kernel):
                yield from self._kernel(statement)
            else:
                yield replace(statement, body=tuple(self.statements(statement.body)))

    def _kernel(self, kernel: Kernel) -> Iterator[Kernel]:
        """The kernels that scatter sums of a kernel, then the kernel without these sums."""
        access = Access(kernel, replace(self.program, buffers=(*self.program.buffers, *self.buffers)))
        choice = next((c for c in segment_sums(kernel, access) if _worth(c, kernel)), None)
        if choice is None:
            yield kernel
            return
        home = _home(kernel, choice.total, access) or self._temporary(kernel, choice.total)
        if home is None:
            yield kernel
            return
        place = home.at
        if not home.begun:
            nothing = Store(place.buffer, place.at, zero(place.dtype))
            yield Kernel(fresh(f"{kernel.name}.zero", self.taken), kernel.dims, (), (nothing,))
        yield _sending(kernel, choice, place, fresh(f"{kernel.name}.scatter", self.taken))
        known: list[Let | Reduce] = [Let(choice.total.name, place)]
        body = [part for step in kernel.body for part in (known + _others(choice) if step is choice.reduce else [step])]
        stores = tuple(s for s in kernel.stores if (s.buffer, s.at) != (place.buffer, place.at))
        if stores:
            yield from self._kernel(replace(kernel, body=used_steps(body, stores), stores=stores))

    def _temporary(self, kernel: Kernel, total: Accumulate) -> _Home | None:
        """A buffer that holds the sum; None if it is not known how large it has to be."""
        extents = tuple(extent for dim in kernel.dims if (extent := _most(dim.extent)) is not None)
        if len(extents) < len(kernel.dims):
            return None
        buffer = Buffer(fresh(f"{kernel.name}.{total.name}", self.taken), total.value.dtype, extents, "temp")
        self.buffers.append(buffer)
        return _Home(Load(buffer.name, indices_of(kernel.dims), buffer.dtype))


def _most(extent: Scalar) -> Scalar | None:
    """A bound of an extent in all steps of the loops around it: for the steps of a chunk, how long chunks are."""
    if not any(isinstance(part, Index) for part in walk(extent)):
        return extent
    parts = extent.args if isinstance(extent, Call) and extent.fn == "min" else ()
    return next((most for part in parts if (most := _most(part)) is not None), None)


def _worth(choice: SegmentSum, kernel: Kernel) -> bool:
    """Whether there are enough rows for it to pay. Rows that are compared in lanes must be more, as they are stored to
    one by one."""
    in_lanes = kernel.dims[-1] is not choice.row and not kernel.dims[-1].is_shorter(_LANES)
    return not choice.row.is_shorter(_STORING if in_lanes else _STORING * _LANES)


def _home(kernel: Kernel, total: Accumulate, access: Access) -> _Home | None:
    """Where the kernel stores a sum, or adds it to what is there; None if it does neither, or if something else needs
    the sum."""
    ref = Ref(total.name, total.value.dtype)
    parts = [part for scalar in scalars(kernel) for part in walk(scalar)]
    if parts.count(ref) != 1:
        return None
    for store in kernel.stores:
        place = Load(store.buffer, store.at, ref.dtype)
        touched = sum(isinstance(part, Load) and part.buffer == store.buffer for part in parts)
        fits = access.buffers[store.buffer].dtype == ref.dtype
        if store.accumulate or not fits or sum(s.buffer == store.buffer for s in kernel.stores) > 1:
            continue
        match access.resolve(store.value):
            case Ref() as value if value == ref and touched == 0:
                return _Home(place)
            case Call("add", (a, b)) if (a, b) in ((place, ref), (ref, place)) and touched == 1:
                return _Home(place, begun=True)
    return None


def _sending(kernel: Kernel, choice: SegmentSum, place: Load, name: str) -> Kernel:
    """The kernel that adds every term where it belongs. A term that belongs nowhere counts as 0, for the first row."""
    reduce, row, when = choice.reduce, choice.row, choice.reduce.when
    chosen, term, lets = choice.chosen, choice.term, reduce.body
    if when is not None:
        chosen, term = guarded(chosen, when), guarded(term, when)
        lets = tuple(Let(let.name, guarded(let.value, when)) for let in lets)
    belongs = call("and", call("le", index(0), chosen), call("lt", chosen, row.extent))
    if when is not None:
        belongs = call("and", when, belongs)
    target = call("select", belongs, chosen, index(0))
    at = tuple(with_indices(subscript, {row.index: target}) for subscript in place.at)
    store = Store(place.buffer, at, call("select", belongs, term, zero(place.dtype)), accumulate=True)
    steps = [part for step in kernel.body for part in (lets if step is reduce else (step,))]
    dims = (*reduce.dims, *(dim for dim in kernel.dims if dim is not row))
    return Kernel(name, dims, used_steps(steps, (store,)), (store,))


def _others(choice: SegmentSum) -> list[Let | Reduce]:
    """The reduction without the sum, if it has others."""
    sums = tuple(total for total in choice.reduce.sums if total is not choice.total)
    return [replace(choice.reduce, sums=sums)] if sums else []
