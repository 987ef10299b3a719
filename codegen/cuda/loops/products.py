"""Finds the products of a loop that read the same operands in every step: the recurrent weights.

In: a kernel of a loop. Out: a `Product`, if all of the kernel's reductions are sums of products

    Σ_k W[u, k] · x[r, k]  (+ further products)

of which one operand is stationary: it is read from memory that the loop does not change, at subscripts that do not
depend on the step. So it can stay on the chip from the first step to the last. The dims that stationary operands vary
with are the product's `units`, the others its `rows`: with the batch as rows, W is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.access import MEMORY, Access
from graphc.codegen.lengths import length_of
from graphc.codegen.program import Accumulate, Call, Const, Dim, Kernel, Load, Program, Reduce, Scalar

__all__ = ["Part", "Product", "Term", "product_of"]


@dataclass(frozen=True, slots=True)
class Term:
    """One product of a stationary and another operand, added to sum number `total`."""

    total: int
    stationary: Scalar
    other: Scalar


@dataclass(frozen=True, slots=True)
class Part:
    """The products of one reduction, over `length` terms, with its sums."""

    dims: tuple[Dim, ...]
    length: int
    sums: tuple[Accumulate, ...]
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """The products of a kernel's reductions, its `parts`. `shared`: the units that the other operands vary with, too,
    like heads."""

    units: tuple[Dim, ...]
    rows: tuple[Dim, ...]
    shared: frozenset[str]
    parts: tuple[Part, ...]

    @property
    def apart(self) -> tuple[Dim, ...]:
        """The units that a group computes: one point of the shared ones, and all of the others."""
        return tuple(dim for dim in self.units if dim.index not in self.shared)

    @property
    def sums(self) -> tuple[Accumulate, ...]:
        """All sums, in the order of their numbers."""
        return tuple(total for part in self.parts for total in part.sums)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of all parts."""
        return tuple(term for part in self.parts for term in part.terms)

    def other_loads(self, access: Access) -> Iterator[Load]:
        """Every load that computing the operands that are not stationary makes. `access`: of the product's kernel."""
        return (load for term in self.terms for load in access.loads(term.other))


def product_of(kernel: Kernel, made: set[str], program: Program) -> Product | None:
    """The products of a kernel; None if its reductions are not such sums. `made`: the buffers that the loop stores
    to."""
    access = Access(kernel, program)
    if any(store.accumulate for store in kernel.stores):
        return None
    parts: list[Part] = []
    dtypes = {total.value.dtype for reduce in kernel.reduces for total in reduce.sums}
    if len(dtypes) != 1:
        return None
    for reduce in kernel.reduces:
        part = _part(reduce, kernel, made, access, sum(len(p.sums) for p in parts))
        if part is None:
            return None
        parts.append(part)
    own = {dim.index for dim in kernel.dims}
    stationary = frozenset().union(*(access.dependence(t.stationary) for p in parts for t in p.terms)) & own
    others = frozenset().union(*(access.dependence(t.other) for p in parts for t in p.terms))
    units = tuple(dim for dim in kernel.dims if dim.index in stationary)
    rows = tuple(dim for dim in kernel.dims if dim.index not in stationary)
    if not units or not all(isinstance(dim.extent, Const) for dim in units):
        return None
    return Product(units, rows, stationary & others, tuple(parts))


def _part(reduce: Reduce, kernel: Kernel, made: set[str], access: Access, before: int) -> Part | None:
    """The products of a reduction; its sums are numbered from `before` on."""
    length = length_of(reduce.dims)
    if not all(isinstance(dim.extent, Const) for dim in reduce.dims):
        return None
    inside = frozenset(dim.index for dim in (*kernel.dims, *reduce.dims))
    if reduce.when is not None or not length:
        return None
    terms: list[Term] = []
    for number, total in enumerate(reduce.sums):
        if total.op != "sum" or not total.value.dtype.startswith("float"):
            return None
        for product in access.terms(total.value):
            pair = product.args if isinstance(product, Call) and product.fn == "mul" else ()
            stationary = next((x for x in pair if _is_stationary(x, inside, made, access)), None)
            if stationary is None:
                return None
            other = pair[1] if stationary is pair[0] else pair[0]
            if not access.dependence(other).isdisjoint(access.sums):
                return None
            terms.append(Term(before + number, stationary, other))
    return Part(reduce.dims, length, reduce.sums, tuple(terms))


def _is_stationary(scalar: Scalar, inside: frozenset[str], made: set[str], access: Access) -> bool:
    """Whether a value is read from memory and is the same in every step."""
    dependence = access.dependence(scalar)
    if MEMORY not in dependence or not dependence <= inside | {MEMORY}:
        return False
    return not any(load.buffer in made for load in access.loads(scalar))
