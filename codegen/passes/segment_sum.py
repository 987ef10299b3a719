"""Finds sums of terms each of which belongs to one row, as in the gradient of an embedding:

    g[r, u] = Σ select(word[t, n] = r, d[t, n, u], 0) over t, n

In: a kernel. Out: its choices. As it stands, every row asks every term whether it belongs there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.access import Access
from graphc.codegen.program import Accumulate, Call, Const, Dim, Index, Kernel, Reduce, Scalar
from graphc.scalar import cast

__all__ = ["SegmentSum", "segment_sums"]


@dataclass(frozen=True, slots=True)
class SegmentSum:
    """A sum whose terms count for one index of the dim `row` each: for the one that `chosen` gives."""

    reduce: Reduce
    total: Accumulate
    row: Dim
    chosen: Scalar
    term: Scalar


def segment_sums(kernel: Kernel, access: Access) -> Iterator[SegmentSum]:
    """The kernel's sums of that kind whose terms, and where they belong, depend neither on the row nor on another
    sum."""
    for reduce in kernel.reduces:
        for total in reduce.sums:
            choice = _selected(kernel, reduce, total, access)
            if choice is not None and _independent(choice, access):
                yield choice


def _selected(kernel: Kernel, reduce: Reduce, total: Accumulate, access: Access) -> SegmentSum | None:
    """The sum of select(chosen = row, term, 0), if it is one."""
    match total.op, access.resolve(total.value):
        case "sum", Call("select", (condition, term, Const(0))):
            match access.resolve(condition):
                case Call("eq", (a, b)):
                    for chosen, named in ((a, b), (b, a)):
                        row = _row(kernel, access.resolve(named))
                        if row is not None:
                            return SegmentSum(reduce, total, row, cast(chosen, "index"), term)
    return None


def _row(kernel: Kernel, scalar: Scalar) -> Dim | None:
    """The dim whose index a scalar is, perhaps as an int32."""
    match scalar:
        case Index(name) | Call("cast", (Index(name),), "int32"):
            return next((dim for dim in kernel.dims if dim.index == name), None)
    return None


def _independent(choice: SegmentSum, access: Access) -> bool:
    asked = [choice.chosen, choice.term, *(dim.extent for dim in choice.reduce.dims)]
    if choice.reduce.when is not None:
        asked.append(choice.reduce.when)
    varying = frozenset().union(*map(access.dependence, asked))
    return choice.row.index not in varying and not varying & access.sums.keys()
