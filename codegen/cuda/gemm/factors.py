"""Takes a kernel's product apart into left and right factors, each of which varies with some of the dims only.

In: a kernel. Out: its `Factors`, if it has one reduction, a sum of products (or several sums over the same points)

    s[m, n] = Σ_k L[m, k] · R[k, n]

such that each dim belongs to the left factors, to the right ones, or to both. Each element of a factor is then needed
by a whole row or column of a tile. A `Factor` says which of its elements are neighbours in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from graphc.codegen.access import Access, coefficient, substitute
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Call, Const, Dim, Kernel, Load, Program, Reduce, Ring, Scalar
from graphc.scalar import index

__all__ = ["Factor", "Factors", "element_of", "factors_of", "is_multiple"]

_RUNS = (8, 4, 2)  # elements that one instruction may load
_WIDEST = 16  # bytes of all of them, or four elements
_ONE = index(1)


@dataclass(frozen=True, slots=True)
class Factor:
    """One factor of a product, `value`.

    Its neighbouring elements in memory lie `along` the last dim of the points, or of the terms. Each `run` of them,
    beginning at a multiple of `run`, lies together in memory, and exists entirely or not at all. If the factor is one
    element of a buffer, `load` is its load (0 where the load's condition is false), `stored` the buffer's dtype, and
    `placed` says whether the buffer begins where a wide access may. `load` and `stored` are None, and `placed` false,
    if the factor is not one element of a buffer.
    """

    value: Scalar
    along: Literal["points", "terms"]
    run: int
    load: Load | None
    stored: str | None
    placed: bool


@dataclass(frozen=True, slots=True)
class Factors:
    """A kernel's products. `left`, `right` and `both` are the dims of its points by side; `lefts` and `rights` are the
    factors. Each of `terms` is (sum, left, right): the product of these factors is added to that sum, by number. The
    kernel's last dim is never a left one, so neighbouring right points are neighbours in what the kernel stores."""

    reduce: Reduce
    left: tuple[Dim, ...]
    right: tuple[Dim, ...]
    both: tuple[Dim, ...]
    lefts: tuple[Factor, ...]
    rights: tuple[Factor, ...]
    terms: tuple[tuple[int, int, int], ...]

    @property
    def dtype(self) -> str:
        """The dtype of the sums."""
        return self.reduce.sums[0].value.dtype


def factors_of(kernel: Kernel, program: Program) -> Factors | None:
    """The factors of a kernel's one reduction; None if it is not a sum of products of such factors."""
    if len(kernel.reduces) != 1 or any(store.accumulate for store in kernel.stores):
        return None
    (reduce,) = kernel.reduces
    access = Access(kernel, program)
    pairs = list(_pairs(reduce, access))
    if not pairs or None in pairs:
        return None
    own = {dim.index for dim in kernel.dims}
    products = [pair for pair in pairs if pair is not None]
    _, first, second = products[0]
    left = (access.dependence(first) - access.dependence(second)) & own
    right = (access.dependence(second) - access.dependence(first)) & own
    if kernel.dims and kernel.dims[-1].index in left:
        left, right = right, left
    turned = [_turned(pair, left, right, access) for pair in products]
    if None in turned or not _is_of_terms(reduce.when, left | right, access):
        return None
    sided = [pair for pair in turned if pair is not None]
    lefts = tuple(dict.fromkeys(a for _, a, _ in sided))
    rights = tuple(dict.fromkeys(b for _, _, b in sided))
    rows, columns = (tuple(d for d in kernel.dims if d.index in side) for side in (left, right))
    return Factors(
        reduce,
        rows,
        columns,
        tuple(d for d in kernel.dims if d.index not in left | right),
        tuple(_factor(value, rows, reduce, access) for value in lefts),
        tuple(_factor(value, columns, reduce, access) for value in rights),
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
        for term in access.terms(total.value):
            match term:
                case Call("mul", (a, b)):
                    yield number, a, b
                case _:
                    yield None


def _turned(pair: _Pair, left: frozenset[str], right: frozenset[str], access: Access) -> _Pair | None:
    """The product with its left factor first; None if its factors vary with other dims."""
    number, a, b = pair
    if access.dependence(a).isdisjoint(right) and access.dependence(b).isdisjoint(left):
        return pair
    if access.dependence(b).isdisjoint(right) and access.dependence(a).isdisjoint(left):
        return number, b, a
    return None


def _is_of_terms(when: Scalar | None, sides: frozenset[str], access: Access) -> bool:
    """Whether a condition depends on the term only, not on the point."""
    return when is None or access.dependence(when).isdisjoint(sides)


def _factor(value: Scalar, points: Sequence[Dim], reduce: Reduce, access: Access) -> Factor:
    found = list(access.loads(value))
    dims = points if found and _moves_along(found[0], points, access) else reduce.dims
    widest = max(4, _WIDEST // max((STORAGE[access.buffers[load.buffer].dtype][1] for load in found), default=4))
    runs = (n for n in _RUNS if n <= widest and dims and _runs(found, dims[-1], n, reduce.when, access))
    load = element_of(value, access)
    buffer = None if load is None else access.buffers[load.buffer]
    return Factor(
        value,
        "points" if dims is points else "terms",
        next(runs, 1),
        load,
        buffer.dtype if buffer else None,
        buffer is not None and buffer.kind in ("temp", "output"),
    )


def element_of(value: Scalar, access: Access) -> Load | None:
    """The load that a value is, or that it is where the load's condition holds, if it is 0 elsewhere; else None."""
    load, condition = access.loaded(value)
    return load if load is not None and condition in (None, load.when) else None


def _moves_along(load: Load, dims: Sequence[Dim], access: Access) -> bool:
    """Whether neighbouring points of the last dim are neighbours in memory."""
    if not dims:
        return False
    return coefficient(access.offset(load.buffer, load.at), dims[-1].index, access) == _ONE


def _runs(found: Sequence[Load], dim: Dim, run: int, when: Scalar | None, access: Access) -> bool:
    """Whether each load reads `run` neighbours for so many points of a dim, or one element, under one condition."""
    if not isinstance(dim.extent, Const) or int(dim.extent.value) % run:
        return False
    if when is not None and dim.index in access.dependence(when):
        return False
    return all(dim.index not in access.dependence(load) or _is_row(load, dim.index, run, access) for load in found)


def _is_row(load: Load, name: str, run: int, access: Access) -> bool:
    """Whether a load reads along the rows of its buffer, each of which begins at a multiple of `run`."""
    length = access.buffers[load.buffer].dims[-1]
    others = load.at[:-1] if load.when is None else (*load.at[:-1], load.when)
    if any(name in access.dependence(part) for part in others) or coefficient(load.at[-1], name, access) != _ONE:
        return False
    return is_multiple(length, run) and is_multiple(substitute(load.at[-1], {name: index(0)}, access), run)


def is_multiple(scalar: Scalar | Ring, run: int) -> bool:
    """Whether an index is known to be a multiple of a number."""
    match scalar:
        case Const(value):
            return int(value) % run == 0
        case Call("add" | "sub", (a, b)):
            return is_multiple(a, run) and is_multiple(b, run)
        case Call("mul", (a, b)):
            return is_multiple(a, run) or is_multiple(b, run)
    return False
