"""Takes a kernel's products apart into two factors, each of which varies with some of its dims only.

In: a kernel. Out: its `Factors`, if it has one reduction, a sum of products (or several sums over the same points)

    s[m, n] = Σ_k L[m, k] · R[k, n]

such that the dims fall into those of the left factors, those of the right, and those of both. Each element of a factor
is then needed by a whole row or column of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.access import Access
from graphc.codegen.program import Call, Dim, Kernel, Program, Reduce, Scalar

__all__ = ["Factors", "factors_of"]


@dataclass(frozen=True, slots=True)
class Factors:
    """`terms` are products of the left and the right factor of these numbers, each added to the sum of a number."""

    reduce: Reduce
    left: tuple[Dim, ...]
    right: tuple[Dim, ...]
    both: tuple[Dim, ...]
    lefts: tuple[Scalar, ...]
    rights: tuple[Scalar, ...]
    terms: tuple[tuple[int, int, int], ...]

    @property
    def dtype(self) -> str:
        return self.reduce.sums[0].value.dtype


def factors_of(kernel: Kernel, program: Program) -> Factors | None:
    reduces = [step for step in kernel.body if isinstance(step, Reduce)]
    if len(reduces) != 1 or any(store.accumulate for store in kernel.stores):
        return None
    (reduce,) = reduces
    access = Access(kernel, program)
    pairs = list(_pairs(reduce, access))
    if not pairs or None in pairs:
        return None
    own = {dim.index for dim in kernel.dims}
    products = [pair for pair in pairs if pair is not None]
    _, first, second = products[0]
    left = (access.dependence(first) - access.dependence(second)) & own
    right = (access.dependence(second) - access.dependence(first)) & own
    turned = [_turned(pair, left, right, access) for pair in products]
    if None in turned or not _is_of_terms(reduce.when, left | right, access):
        return None
    sided = [pair for pair in turned if pair is not None]
    lefts = tuple(dict.fromkeys(a for _, a, _ in sided))
    rights = tuple(dict.fromkeys(b for _, _, b in sided))
    return Factors(
        reduce,
        tuple(d for d in kernel.dims if d.index in left),
        tuple(d for d in kernel.dims if d.index in right),
        tuple(d for d in kernel.dims if d.index not in left | right),
        lefts,
        rights,
        tuple((total, lefts.index(a), rights.index(b)) for total, a, b in sided),
    )


_Pair = tuple[int, Scalar, Scalar]


def _pairs(reduce: Reduce, access: Access) -> Iterator[_Pair | None]:
    """Every product, with the number of the sum that it is added to; None for a term that is no product."""
    if len({total.value.dtype for total in reduce.sums}) != 1:
        yield None
    for number, total in enumerate(reduce.sums):
        if total.op != "sum" or not total.value.dtype.startswith("float"):
            yield None
        yield from _products(number, total.value, access)


def _products(number: int, scalar: Scalar, access: Access) -> Iterator[_Pair | None]:
    match access.resolve(scalar):
        case Call("add", (a, b)):
            yield from _products(number, a, access)
            yield from _products(number, b, access)
        case Call("mul", (a, b)):
            yield number, a, b
        case _:
            yield None


def _turned(pair: _Pair, left: frozenset[str], right: frozenset[str], access: Access) -> _Pair | None:
    """The product with its left factor first; None if its factors fall into other dims."""
    number, a, b = pair
    if access.dependence(a).isdisjoint(right) and access.dependence(b).isdisjoint(left):
        return pair
    if access.dependence(b).isdisjoint(right) and access.dependence(a).isdisjoint(left):
        return number, b, a
    return None


def _is_of_terms(when: Scalar | None, sides: frozenset[str], access: Access) -> bool:
    """Whether a condition holds for a term or not, whatever the point."""
    return when is None or access.dependence(when).isdisjoint(sides)
