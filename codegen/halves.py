"""Operands in bfloat16 that lie in pairs (`graphc.codegen.passes.pairs`): which scalars load halves of the same words.

In: scalars of one kernel, and its `Access`. Out: what loads the first halves, for scalars that load the first or the
second ones. Tilings, and the code of reductions and stores, ask here, so that they agree on what is moved as a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.program import Call, Const, Load, Scalar, Store
from graphc.scalar import index, map_loads

__all__ = ["are_stored", "factors", "groups", "half", "whole"]


def half(scalar: Scalar, access: Access) -> tuple[Scalar, int] | None:
    """For a scalar that loads one of two neighbours in bfloat16, or chooses between such loads: what loads the first of
    the two, and which it is itself, 0 or 1. None if it is something else, or hides which it is."""
    found: set[int | None] = set()

    def first(load: Load) -> Load:
        made, which = _first(load, access) or (load, None)
        found.add(which)
        return made

    made = map_loads(access.resolve(scalar), first)
    which = found.pop() if len(found) == 1 else None
    return None if which is None else (made, which)


def _first(load: Load, access: Access) -> tuple[Load, int] | None:
    """Of a load, the same as `half`."""
    declared, at = access.buffers[load.buffer], load.at
    if declared.dtype != "bfloat16" or not at:
        return None
    extent, last = declared.dims[-1], access.resolve(at[-1])
    if not isinstance(extent, Const) or extent.value % 2:
        return None
    match last:
        case Const(place):
            return replace(load, at=(*at[:-1], index(int(place) // 2 * 2))), int(place) % 2
        case Call("mul", (Const(2), _)):
            return replace(load, at=(*at[:-1], last)), 0
        case Call("add", (Call("mul", (Const(2), _)) as first, Const(1))):
            return replace(load, at=(*at[:-1], first)), 1
    return None


def whole(first: Scalar, second: Scalar, access: Access) -> Scalar | None:
    """What loads the first halves, if two scalars load the first and the second halves of the same pairs."""
    low, high = half(first, access), half(second, access)
    return None if low is None or high is None or (low[0], 1) != high or low[1] else low[0]


def groups(terms: Iterable[Scalar], access: Access) -> list[list[Scalar]]:
    """The terms of a sum, in groups of those that load halves of the same pairs."""
    terms = list(terms)
    if len(terms) < 2 or not access.has_bfloat16:
        return [[term] for term in terms]
    found: list[list[Scalar]] = []
    before: frozenset[Load] = frozenset()
    for term in terms:
        pairs = frozenset(first[0] for load in access.loads(term) if (first := _first(load, access)) is not None)
        if pairs and pairs == before:
            found[-1].append(term)
        else:
            found.append([term])
        before = pairs
    return found


def factors(group: Sequence[Scalar], access: Access) -> tuple[Scalar, Scalar] | None:
    """Of two terms that multiply pairs half by half: what loads the first halves of either factor."""
    match group:
        case [Call("mul", (a, b), "float32"), Call("mul", (c, d), "float32")]:
            left, right = whole(a, c, access), whole(b, d, access)
            return None if left is None or right is None else (left, right)
    return None


def are_stored(stores: Sequence[Store], access: Access) -> bool:
    """Whether there are two stores, which fill the first and the second halves of the same pairs."""
    if len(stores) != 2 or any(store.accumulate for store in stores):
        return False
    first, second = (Load(store.buffer, store.at, "float32") for store in stores)
    return whole(first, second, access) is not None
