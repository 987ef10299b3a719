"""Rounds the operands of large products once, into a copy in the tensor cores' dtype, before the products read them.

In: a Program, and the dtype that products round to. Out: a Program that computes the same. Each element is read by many
tiles. A rounded copy is half as long and goes to shared memory without another conversion. The copy's last dim is one
along which all products read whole runs of elements:

    s[n, m, i, j] = Σ w[m, c, k, l] · x[n, c, i + k, j + l] over c, k, l
    becomes
    a[n, i, j, c] = x[n, c, i, j];    b[m, k, l, c] = w[m, c, k, l]
    s[n, m, i, j] = Σ b[m, k, l, c] · a[n, i + k, j + l, c] over k, l, c

A copy serves all products up to the next statement that stores to the original. It is made only if it saves more time
than it costs: for products with enough operations for each element.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from graphc.codegen.access import Access
from graphc.codegen.cuda.gemm.factors import Factors, element_of, factors_of, is_multiple
from graphc.codegen.cuda.isa.mma import Fragments
from graphc.codegen.cuda.points_unit import NOMINAL_AXIS
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Dim,
    Index,
    Kernel,
    Load,
    Program,
    Ring,
    Scalar,
    Statement,
    Store,
    fresh,
    kernels,
    map_reduce,
)
from graphc.codegen.uses import stored
from graphc.scalar import call, index, replaced

__all__ = ["cast_operands"]

_RUN = 8  # elements of 16 bits that one instruction copies
_TURNED = 16  # elements that a thread rounds where the copy's order differs: they fill a sector of memory
_WORTH = 1100.0  # operations for each copied element, where the original can be loaded in runs as well
_TILE = 16  # points on each side of the smallest tile
_LEAST = 1e9  # operations of a product: fewer take no longer than the copy's launch
_FEWEST = 3  # points on each side of a product


_T = TypeVar("_T")
Version = tuple[str, int]  # a buffer, and how many statements before have stored to it


@dataclass(frozen=True, slots=True)
class _Product:
    """A kernel at a position of the program, the elements that are its factors, and the versions of their buffers.
    `operations`: for each factor the operations for each of its elements; times the loads of the original that one load
    of a copy replaces, as a copy is loaded in runs and the original perhaps element by element."""

    position: int
    kernel: Kernel
    factors: Factors
    loads: tuple[Load, ...]
    versions: tuple[Version, ...]
    operations: tuple[float, ...]


def cast_operands(program: Program, fragments: Fragments | None) -> Program:
    """The program with rounded copies of the operands of large products on the tensor cores."""
    if fragments is None or fragments.dtype is None:
        return program
    products = list(_products(program, dict.fromkeys(program.sizes, NOMINAL_AXIS)))
    while products:
        places = _places(products, program)
        whole = [product for product in products if all(version in places for version in product.versions)]
        if len(whole) == len(products):
            return _rewritten(program, products, places, fragments.dtype)
        products = whole
    return program


# Which products.


def _products(program: Program, sizes: Mapping[str, int]) -> Iterator[_Product]:
    """Large products at the top of the program whose factors are all elements of buffers. `sizes` are the lengths to
    count with."""
    stores = dict.fromkeys(program.declared, 0)
    for position, statement in enumerate(program.body):
        factors = factors_of(statement, program) if isinstance(statement, Kernel) else None
        if isinstance(statement, Kernel) and factors is not None and _is_large(factors, sizes):
            loads = _elements(statement, factors, program)
            versions = tuple((load.buffer, stores[load.buffer]) for load in loads)
            if loads:
                share = tuple(_share(k, factors, load, program, sizes) for k, load in enumerate(loads))
                yield _Product(position, statement, factors, loads, versions, share)
        for name in stored((statement,)):
            stores[name] += 1


def _share(number: int, factors: Factors, load: Load, program: Program, sizes: Mapping[str, int]) -> float:
    """The operations for each element of a factor (see `_Product`). `number` counts left factors first."""
    count = len(factors.lefts)
    own = [l == number if number < count else r == number - count for _, l, r in factors.terms]
    factor = (*factors.lefts, *factors.rights)[number]
    made = _operations(factors, sizes) * sum(own) / len(own)
    return made / _count(program.declared[load.buffer], sizes) * _RUN / factor.run


def _is_large(factors: Factors, sizes: Mapping[str, int]) -> bool:
    sides = points_of(factors.left, sizes), points_of(factors.right, sizes)
    return factors.dtype == "float32" and min(sides) >= _FEWEST and _operations(factors, sizes) >= _LEAST


def _operations(factors: Factors, sizes: Mapping[str, int]) -> float:
    """The operations of a product, with sides shorter than a tile counted as whole tiles."""
    sides = max(points_of(factors.left, sizes), _TILE) * max(points_of(factors.right, sizes), _TILE)
    return 2.0 * len(factors.terms) * sides * points_of((*factors.both, *factors.reduce.dims), sizes)


def _count(buffer: Buffer, sizes: Mapping[str, int]) -> int:
    return math.prod(evaluate(dim, sizes) for dim in buffer.dims if not isinstance(dim, Ring))


def _elements(kernel: Kernel, factors: Factors, program: Program) -> tuple[Load, ...]:
    """The factors, if all are elements of buffers that may be copied; else none."""
    access = Access(kernel, program)
    values = [factor.value for factor in (*factors.lefts, *factors.rights)]
    loads = tuple(load for value in values if (load := element_of(value, access)) is not None)
    copied = len(loads) == len(values) and all(_may_be_copied(program.declared[load.buffer]) for load in loads)
    return loads if copied else ()


def _may_be_copied(buffer: Buffer) -> bool:
    return buffer.dtype == "float32" and not buffer.has_ring


# How copies lie.


def _places(products: Sequence[_Product], program: Program) -> dict[Version, int]:
    """For each buffer worth a copy, the dim that comes last in the copy."""
    uses: dict[Version, list[tuple[_Product, Load]]] = defaultdict(list)
    worth: dict[Version, float] = defaultdict(float)
    for product in products:
        for load, version, operations in zip(product.loads, product.versions, product.operations, strict=True):
            uses[version].append((product, load))
            worth[version] += operations
    found: dict[Version, int] = {}
    for version, users in uses.items():
        rank = len(program.declared[version[0]].dims)
        allowed = [k for k in reversed(range(rank)) if all(_is_run(*use, k, program) for use in users)]
        if allowed and worth[version] >= _WORTH:
            found[version] = allowed[0]
    return found


def _is_run(product: _Product, load: Load, place: int, program: Program) -> bool:
    """Whether a product reads whole runs along a dim, and each run entirely or not at all."""
    subscript, extent = load.at[place], program.declared[load.buffer].dims[place]
    dim = _moving(subscript, (*product.kernel.dims, *product.factors.reduce.dims))
    if dim is None or not all(isinstance(n, Const) and int(n.value) % _RUN == 0 for n in (dim.extent, extent)):
        return False
    reduce, access = product.factors.reduce, Access(product.kernel, program)
    others = [at for k, at in enumerate(load.at) if k != place]
    conditions = [when for when in (load.when, reduce.when) if when is not None]
    return not any(dim.index in access.dependence(part) for part in (*others, *conditions))


def _moving(subscript: Scalar, dims: Sequence[Dim]) -> Dim | None:
    """The dim that a subscript goes along, from a multiple of a run on."""
    match subscript:
        case Index(name):
            return next((dim for dim in dims if dim.index == name), None)
        case Call("add", (Index(), start)) if is_multiple(start, _RUN):
            return _moving(subscript.args[0], dims)
    return None


# The program with copies.


def _rewritten(program: Program, products: Sequence[_Product], places: Mapping[Version, int], dtype: str) -> Program:
    taken = {*program.declared, *(kernel.name for kernel in kernels(program.body))}
    at = {product.position: product for product in products}
    copies: dict[Version, Buffer] = {}
    body: list[Statement] = []
    for position, statement in enumerate(program.body):
        if position not in at:
            body.append(statement)
            continue
        product = at[position]
        for version in dict.fromkeys(product.versions):
            if version not in copies:
                buffer, place = program.declared[version[0]], places[version]
                dims = tuple(_moved(buffer.dims, place))
                copies[version] = Buffer(fresh(f"{buffer.name}.{dtype}", taken), dtype, dims, "temp")
                body.append(_copying(buffer, copies[version], place))
        body.append(_reading(product, places, copies))
    return replace(program, buffers=(*program.buffers, *copies.values()), body=tuple(body))


def _moved(values: Sequence[_T], place: int) -> list[_T]:
    """The values with the one at `place` moved to the end."""
    return [*values[:place], *values[place + 1 :], values[place]]


def _copying(buffer: Buffer, copy: Buffer, place: int) -> Kernel:
    """The kernel that makes a copy. Each of its points stores a run along the copy's last dim; neighbouring points read
    neighbouring elements."""
    extents = [dim for dim in buffer.dims if not isinstance(dim, Ring)]
    length = evaluate(extents[place], {})
    turned = place + 1 < len(extents)
    run = next(n for n in (_TURNED, _RUN) if length % n == 0 and (turned or n == _RUN))
    names = [f"{copy.name}.{k}" for k in range(len(extents))]
    extents[place] = index(length // run)
    dims = tuple(map(Dim, names, extents))
    stores = []
    for k in range(run):
        at: list[Scalar] = [Index(name) for name in names]
        at[place] = call("add", call("mul", index(run), Index(names[place])), index(k))
        stores.append(Store(copy.name, tuple(_moved(at, place)), Load(buffer.name, tuple(at), buffer.dtype)))
    return Kernel(copy.name, dims, (), tuple(stores))


def _reading(product: _Product, places: Mapping[Version, int], copies: Mapping[Version, Buffer]) -> Kernel:
    """The product, reading the copies. The dims along which runs are read come last among its points and terms."""
    moved: dict[Scalar, Scalar] = {}
    last: set[Dim] = set()
    for load, version in zip(product.loads, product.versions, strict=True):
        place = places[version]
        dim = _moving(load.at[place], (*product.kernel.dims, *product.factors.reduce.dims))
        last |= set() if dim is None else {dim}
        moved[load] = replace(load, buffer=copies[version].name, at=tuple(_moved(load.at, place)))
    kernel, own = product.kernel, product.factors.reduce

    def ordered(dims: Sequence[Dim]) -> tuple[Dim, ...]:
        return tuple(sorted(dims, key=last.__contains__))

    reduce = map_reduce(replace(own, dims=ordered(own.dims)), lambda scalar: replaced(scalar, moved.get))
    right = {dim.index for dim in product.factors.right}
    dims = sorted(ordered(kernel.dims), key=lambda dim: dim.index in right)
    return replace(kernel, dims=tuple(dims), body=tuple(reduce if step is own else step for step in kernel.body))
