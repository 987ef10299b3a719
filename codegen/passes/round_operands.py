"""Rounds the operands of products to bfloat16, in copies that lie beside the float32 values.

In: a Program. Out: a Program whose products read bfloat16, and whose sums, and all else, are float32 as before:

    y[t, u] = tanh(Σ W[u, k] · y[t - 1, k] over k)
    becomes
    W.rounded[u, k] = W[u, k]
    y[t, u] = y.rounded[t, u] = tanh(Σ W.rounded[u, k] · y.rounded[t - 1, k] over k)

What the caller gives is rounded before all else, and what a kernel stores where it stores it. A value that only
products read is kept in bfloat16 alone. Products are sums whose terms all multiply two elements, each of which several
points read: those that `graphc.codegen.passes.pairs` makes fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.program import (
    Buffer,
    Index,
    Kernel,
    Load,
    Program,
    Reduce,
    Store,
    fresh,
    indices_of,
    kernels,
    map_kernels,
    map_reduce,
    nested_kernels,
    numbered,
)
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import loaded
from graphc.scalar import index, map_loads

__all__ = ["round_operands"]

Version = tuple[str, bool]  # a buffer, and whether the product goes along another dim of it than the last


def round_operands(program: Program) -> Program:
    """The program with products of bfloat16."""
    products = _products(program)
    versions = dict.fromkeys(
        version for found in products.values() for loads in found.values() for version in loads.values()
    )
    if not versions:
        return program
    taken = program.names
    copies = {version: fresh(f"{version[0]}.rounded", taken) for version in versions}
    body = map_kernels(program.body, lambda kernel: _reading(kernel, products.get(kernel.name, {}), copies))
    unread = {name for name, _ in versions if program.buffer(name).kind == "temp"} - loaded(body)
    body = map_kernels(body, lambda kernel: replace(kernel, stores=tuple(_stores(kernel, copies, unread))))
    buffers = [buffer for buffer in program.buffers if buffer.name not in unread]
    buffers += [Buffer(copy, "bfloat16", program.buffer(name).dims, "temp") for (name, _), copy in copies.items()]
    given = [(program.buffer(name), copy) for (name, _), copy in copies.items() if _is_given(program.buffer(name))]
    rounding = [_rounding(buffer, copy) for buffer, copy in given]
    return replace(program, buffers=tuple(buffers), body=(*rounding, *body))


def _is_given(buffer: Buffer) -> bool:
    return buffer.kind in ("input", "param")


# Which products.


def _products(program: Program) -> dict[str, dict[Reduce, dict[Load, Version]]]:
    """By kernel and reduction, the operands of products, each with the copy that it is to be read from."""
    added = {store.buffer for kernel in kernels(program.body) for store in kernel.stores if store.accumulate}
    found: dict[str, dict[Reduce, dict[Load, Version]]] = {}
    for kernel, loops in nested_kernels(program.body):
        access, vector = Access(kernel, program), None
        points = {loop.index for loop in loops} | {dim.index for dim in kernel.dims if dim.extent != index(1)}
        for reduce in kernel.reduces:
            factors = _factors(reduce, points, access)
            if not factors or any(load.buffer in added for load in factors):
                continue
            vector = vector or vector_index(kernel, program, access)
            if vector is not None and all(program.buffer(load.buffer).dtype == "float32" for load in factors):
                found.setdefault(kernel.name, {})[reduce] = {
                    load: (load.buffer, turned and _is_given(program.buffer(load.buffer)))
                    for load, turned in factors.items()
                }
    return found


def _factors(reduce: Reduce, points: set[str], access: Access) -> dict[Load, bool]:
    """The factors of a reduction whose terms are all products of two elements, each with whether it lies across to the
    other, which lies along the reduction. Empty if it is not one."""
    found: dict[Load, bool] = {}
    for total in reduce.sums if reduce.dims else ():
        for term in access.terms(total.value):
            pair = access.multiplied(term) if total.op == "sum" else None
            if pair is None or not _is_product(pair, reduce, points, access):
                return {}
            inner = Index(reduce.dims[-1].index)
            along = any(load.at[-1] == inner for load in pair)
            found |= {load: along and load.at[-1] != inner for load in pair}
    return found


def _is_product(factors: tuple[Load, Load], reduce: Reduce, points: set[str], access: Access) -> bool:
    """Whether several points read each of two factors, and they can lie in pairs along the reduction's inner dim: both
    across, or one of them along it."""
    inner = reduce.dims[-1]
    if any(points <= access.dependence(load) or inner.index not in access.dependence(load) for load in factors):
        return False
    if any(load.at[-1] == Index(inner.index) for load in factors):
        return inner.is_multiple(2)
    return not any(inner.index in access.dependence(load.at[-1]) for load in factors)


# The program with copies.


def _reading(
    kernel: Kernel, products: Mapping[Reduce, Mapping[Load, Version]], copies: Mapping[Version, str]
) -> Kernel:
    def read(reduce: Reduce, versions: Mapping[Load, Version]) -> Reduce:
        def rounded(load: Load) -> Load:
            return replace(load, buffer=copies[versions[load]]) if load in versions else load

        return map_reduce(reduce, lambda scalar: map_loads(scalar, rounded))

    body = (read(s, products[s]) if isinstance(s, Reduce) and s in products else s for s in kernel.body)
    return replace(kernel, body=tuple(body))


def _stores(kernel: Kernel, copies: Mapping[Version, str], unread: set[str]) -> Iterator[Store]:
    for store in kernel.stores:
        if store.buffer not in unread:
            yield store
        for turned in (False, True):
            if (store.buffer, turned) in copies:
                yield replace(store, buffer=copies[store.buffer, turned])


def _rounding(buffer: Buffer, copy: str) -> Kernel:
    """The kernel that rounds what the caller gives."""
    dims = numbered(buffer.extents)
    at = indices_of(dims)
    return Kernel(f"round.{copy}", dims, (), (Store(copy, at, Load(buffer.name, at, "float32")),))
