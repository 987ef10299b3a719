"""Parts kernels whose sums gain nothing from standing together.

In: a Program. Out: a Program that computes the same. Contractions over one domain are one kernel as long as none needs
the others' results; that pays where they share operands, of which a tile then loads fewer, and costs where they do not,
as a tile holds fewer rows and vectors of each. What each needs is counted for its tile, and the kernel is parted where
that saves cycles. In a loop every kernel waits for the one before it, so there they stay together.

Sums along rows of what they read and sums along columns are parted everywhere: in one kernel all would have the same
lanes, and one of them would gather what it reads, element by element.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import networkx

from graphc.codegen.access import Access
from graphc.codegen.program import Kernel, Loop, Program, Statement, Store, kernels
from graphc.codegen.target import Target
from graphc.codegen.tiling.tiling import cycles
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import loaded, stored, used_steps

__all__ = ["fission"]

_WORTH = 0.9  # of the cycles of both: two parts that take more together than this stay together
_TARGET = Target("x86_64-unknown-linux-gnu", "x86-64-v4")  # to count for: the same Program is made for every target


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """A kernel of some of another's stores, and the cycles that a step of its reductions takes at each point."""

    kernel: Kernel
    cycles: float


def fission(program: Program) -> Program:
    """The program in which kernels are parted whose sums gain nothing from standing together."""
    taken = {kernel.name for kernel in kernels(program.body)}
    body = [piece for statement in program.body for piece in _parts(statement, program, taken)]
    return replace(program, body=tuple(body))


def _parts(statement: Statement, program: Program, taken: set[str]) -> Sequence[Statement]:
    """The statement, or its parts, with names that are added to those `taken`."""
    if isinstance(statement, Loop):
        return (_inside(statement, program, taken),)
    parts = [part for turned in _turned(statement, program) for part in _smaller(turned, program)]
    return _named(statement, parts, taken)


def _inside(loop: Loop, program: Program, taken: set[str]) -> Loop:
    body: list[Statement] = []
    for inner in loop.body:
        if isinstance(inner, Loop):
            body.append(_inside(inner, program, taken))
        else:
            body += _named(inner, _turned(inner, program), taken)
    return replace(loop, body=tuple(body))


def _named(kernel: Kernel, parts: Sequence[Kernel], taken: set[str]) -> Sequence[Kernel]:
    if len(parts) == 1:
        return parts
    fresh = (name for k in itertools.count(1) if (name := f"{kernel.name}.{k}") not in taken)
    named = [replace(part, name=name) for part, name in zip(parts, fresh, strict=False)]
    taken |= {part.name for part in named}
    return named


def _turned(kernel: Kernel, program: Program) -> list[Kernel]:
    """The kernel, or two parts of it: its sums along rows and its other sums, if neither part needs the other."""
    groups = _independent(kernel)
    if len(groups) < 2:
        return [kernel]
    found: dict[bool, list[Store]] = {}
    for stores in groups:
        alone = _restricted(kernel, stores)
        found.setdefault(vector_index(alone, program, whole=kernel) is None, []).extend(stores)
    if len(found) == 1:
        return [kernel]
    return [_restricted(kernel, tuple(s for s in kernel.stores if s in own)) for own in found.values()]


def _smaller(kernel: Kernel, program: Program) -> list[Kernel]:
    """The kernel, or parts of it that take fewer cycles."""
    groups = _independent(kernel)
    if len(groups) < 2:
        return [kernel]
    access = Access(kernel, program)
    whole = cycles(kernel, program, _TARGET, access)
    if whole is None:
        return [kernel]
    parts = _merged([_of(kernel, stores, program, access) for stores in groups], kernel, program, access)
    if len(parts) == 1 or sum(p.cycles for p in parts) > _WORTH * whole:
        return [kernel]
    return [p.kernel for p in parts]


def _independent(kernel: Kernel) -> list[tuple[Store, ...]]:
    """The kernel's stores in groups. No group computes a sum, or touches any memory, that another group needs. With
    fewer than two sums all are one group."""
    if sum(len(reduce.sums) for reduce in kernel.reduces) < 2:
        return [kernel.stores]
    needs: dict[Store, set[str]] = {}
    for store in kernel.stores:
        alone = _restricted(kernel, (store,))
        sums = {total.name for reduce in alone.reduces for total in reduce.sums}
        read = loaded((alone,)) & stored((kernel,))
        needs[store] = sums | {f"memory {buffer}" for buffer in read | {store.buffer}}
    together: networkx.Graph[Store | str] = networkx.Graph()
    together.add_edges_from((store, need) for store, found in needs.items() for need in found)
    groups = networkx.connected_components(together)
    return sorted(
        (tuple(s for s in kernel.stores if s in group) for group in groups), key=lambda g: kernel.stores.index(g[0])
    )


def _of(kernel: Kernel, stores: Iterable[Store], program: Program, access: Access) -> _Part:
    """The part of a kernel, whose definitions `access` has, that makes these stores."""
    wanted = set(stores)
    alone = _restricted(kernel, tuple(s for s in kernel.stores if s in wanted))
    return _Part(alone, cycles(alone, program, _TARGET, Access(alone, program, access)) or 0.0)


def _merged(parts: list[_Part], kernel: Kernel, program: Program, access: Access) -> list[_Part]:
    """Parts joined again, two at a time, as long as that saves cycles."""
    joined: dict[tuple[_Part, _Part], _Part] = {}
    while len(parts) > 1:
        pairs = list(itertools.combinations(parts, 2))
        for a, b in pairs:
            if (a, b) not in joined:
                joined[a, b] = _of(kernel, (*a.kernel.stores, *b.kernel.stores), program, access)
        a, b = min(pairs, key=lambda pair: joined[pair].cycles - pair[0].cycles - pair[1].cycles)
        best = joined[a, b]
        if best.cycles > (a.cycles + b.cycles) / _WORTH:
            break
        parts = [best if p is a else p for p in parts if p is not b]
    return parts


def _restricted(kernel: Kernel, stores: tuple[Store, ...]) -> Kernel:
    """The kernel with these stores alone, and only what they need."""
    return replace(kernel, body=used_steps(kernel.body, stores), stores=stores)
