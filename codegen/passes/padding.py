"""Keeps the border of a temporary in memory: afterwards products that read windows ask no questions.

In: a Program. Out: a Program that computes the same. A product that reads

    select(0 ≤ u + k - 1 < 64, x[u + k - 1], 0)

reads x'[u + k], where x' is x with a border of one element on each side, filled with the 0 before anything is stored.
The address of an element is then a sum of what its indices add to it, for all rows of a tile and through the whole
reduction. Inputs lie as the caller has them, so only temporaries get a border, and only one that is not too wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.lengths import known_lengths, reach
from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Kernel,
    Load,
    Program,
    Scalar,
    Statement,
    Store,
    indices_of,
    kernels,
    map_kernel,
    map_kernels,
    numbered,
)
from graphc.codegen.uses import stored
from graphc.scalar import call, conjunction, conjuncts, holds, index, replaced, replaced_inside

__all__ = ["pad"]

WIDEST = 3.0  # how many times as large a temporary may become


@dataclass(frozen=True, slots=True)
class Border:
    """What surrounds a temporary: how many elements before and after it along each dim, and the value of them all."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    fill: Const

    def joined(self, other: Border) -> Border | None:
        """A border for two readers; None if they want different values in it."""
        if self.fill != other.fill:
            return None
        before = tuple(map(max, self.before, other.before))
        return Border(before, tuple(map(max, self.after, other.after)), self.fill)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A `choice` select(condition, load, fill) whose condition keeps the load in bounds; `rest` is what else the
    condition says."""

    choice: Call
    load: Load
    border: Border
    rest: Scalar | None


def pad(program: Program) -> Program:
    """The program with borders in memory around the temporaries that products read in windows."""
    found = [(kernel, guarded) for kernel in kernels(program.body) for guarded in _guarded(kernel, program)]
    borders: dict[str, Border | None] = {}
    for _, guarded in found:
        name = guarded.load.buffer
        known = borders.get(name, guarded.border)
        borders[name] = known and known.joined(guarded.border)
    chosen = {n: b for n, b in borders.items() if b is not None and _is_narrow(program.buffer(n), b)}
    if not chosen:
        return program
    free = {(kernel.name, g.choice): g for kernel, g in found if g.load.buffer in chosen}
    body: list[Statement] = []
    filled: set[str] = set()
    for statement in program.body:
        here = stored((statement,)) & set(chosen)
        for name in sorted(here - filled):
            body += _fills(program.buffer(name), chosen[name])
        filled |= here
        body += map_kernels((statement,), lambda kernel: _kernel(kernel, chosen, free))
    buffers = tuple(_widened(b, chosen[b.name]) if b.name in chosen else b for b in program.buffers)
    return replace(program, buffers=buffers, body=tuple(body))


# Finding.


def _guarded(kernel: Kernel, program: Program) -> Iterator[Guarded]:
    """The guarded loads that a kernel's products read."""
    access = Access(kernel, program)
    for reduce in kernel.reduces:
        inside = known_lengths((*kernel.dims, *reduce.dims))
        for total in reduce.sums:
            for part in access.terms(total.value):
                match part:
                    case Call("mul", factors, dtype) if dtype.startswith("float"):
                        for factor in factors:
                            found = _guarded_load(access.resolve(factor), access, inside)
                            if found is not None:
                                yield found


def _guarded_load(scalar: Scalar, access: Access, lengths: Mapping[str, int]) -> Guarded | None:
    match scalar:
        case Call("select", (condition, then, Const() as fill)) as choice:
            load = access.resolve(then)
            if not isinstance(load, Load) or load.when != condition:
                return None
            buffer = access.buffers[load.buffer]
            if buffer.kind != "temp" or buffer.has_ring or not holds(buffer.dtype, fill.value):
                return None
            parts = [(part, _bounds_check(part, load, buffer)) for part in conjuncts(condition, access.resolve)]
            checked = {dim for _, dim in parts if dim is not None}
            before, after = [0] * len(buffer.dims), [0] * len(buffer.dims)
            for dim in checked:
                ends, size = reach(load.at[dim], lengths), buffer.dims[dim]
                if ends is None or not isinstance(size, Const):
                    return None
                before[dim], after[dim] = max(0, -ends[0]), max(0, ends[1] - int(size.value) + 1)
            rest = conjunction(part for part, dim in parts if dim is None)
            return Guarded(choice, load, Border(tuple(before), tuple(after), fill), rest) if checked else None
    return None


def _bounds_check(condition: Scalar, load: Load, buffer: Buffer) -> int | None:
    """The dim of a load, of known length, whose subscript a condition bounds from below or from above; None if it
    bounds none."""
    for dim, (subscript, size) in enumerate(zip(load.at, buffer.dims, strict=True)):
        if isinstance(size, Const) and condition in (call("le", index(0), subscript), call("lt", subscript, size)):
            return dim
    return None


def _is_narrow(buffer: Buffer, border: Border) -> bool:
    growth = 1.0
    for dim, before, after in zip(buffer.dims, border.before, border.after, strict=True):
        if isinstance(dim, Const):
            growth *= (int(dim.value) + before + after) / int(dim.value)
    return 1.0 < growth <= WIDEST


# Making.


def _widened(buffer: Buffer, border: Border) -> Buffer:
    dims = tuple(
        index(int(dim.value) + before + after) if isinstance(dim, Const) else dim
        for dim, before, after in zip(buffer.dims, border.before, border.after, strict=True)
    )
    return replace(buffer, dims=dims)


def _fills(buffer: Buffer, border: Border) -> Iterator[Kernel]:
    """Kernels that fill the border: for each dim its two sides, along the inside of the dims before it and all of those
    after it."""
    wide = _widened(buffer, border)
    inside: list[tuple[int, Scalar]] = []  # where the dims so far begin, and how far they go
    for k, (dim, before, after) in enumerate(zip(buffer.extents, border.before, border.after, strict=True)):
        outside: list[tuple[int, Scalar]] = [(0, d) for d in wide.extents[k + 1 :]]
        if before:
            yield _fill(f"border.{buffer.name}.before{k}", [*inside, (0, index(before)), *outside], wide, border)
        if after and isinstance(dim, Const):
            end = before + int(dim.value)
            yield _fill(f"border.{buffer.name}.after{k}", [*inside, (end, index(after)), *outside], wide, border)
        inside.append((before, dim))


def _fill(name: str, region: list[tuple[int, Scalar]], buffer: Buffer, border: Border) -> Kernel:
    dims = numbered(extent for _, extent in region)
    at = tuple(call("add", own, index(first)) for own, (first, _) in zip(indices_of(dims), region, strict=True))
    return Kernel(name, dims, (), (Store(buffer.name, at, border.fill),))


def _kernel(kernel: Kernel, borders: Mapping[str, Border], free: Mapping[tuple[str, Call], Guarded]) -> Kernel:
    shifted = map_kernel(kernel, lambda scalar: _shifted(scalar, kernel.name, borders, free))
    return replace(shifted, stores=tuple(replace(s, at=_moved(s.buffer, s.at, borders)) for s in shifted.stores))


def _shifted(
    scalar: Scalar, kernel: str, borders: Mapping[str, Border], free: Mapping[tuple[str, Call], Guarded]
) -> Scalar:
    """A scalar whose loads see the borders. Guarded loads that borders make safe are not guarded any more."""

    def rule(part: Scalar) -> Scalar | None:
        guarded = free.get((kernel, part)) if isinstance(part, Call) else None
        if guarded is not None:
            load = replace(guarded.load, when=guarded.rest)
            moved = _shifted(load, kernel, borders, free)
            return moved if guarded.rest is None else call("select", guarded.rest, moved, guarded.border.fill)
        if isinstance(part, Load) and part.buffer in borders:
            shifted = replaced_inside(part, rule)
            return replace(shifted, at=_moved(part.buffer, shifted.at, borders))
        return None

    return replaced(scalar, rule)


def _moved(buffer: str, at: tuple[Scalar, ...], borders: Mapping[str, Border]) -> tuple[Scalar, ...]:
    if buffer not in borders:
        return at
    return tuple(call("add", s, index(before)) for s, before in zip(at, borders[buffer].before, strict=True))
