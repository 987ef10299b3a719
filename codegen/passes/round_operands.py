"""Rounds the operands of products to bfloat16, in copies that lie beside the float32 values.

In: a Program. Out: a Program whose products read bfloat16, and whose sums, and all else, are float32 as before:

    y[t, u] = tanh(Σ W[u, k] · y[t - 1, k] over k)
    becomes
    W.rounded[u, k] = W[u, k]
    y[t, u] = y.rounded[t, u] = tanh(Σ W.rounded[u, k] · y.rounded[t - 1, k] over k)

What the caller gives is rounded before all else, and what a kernel stores where it stores it. A value that only
products read is kept in bfloat16 alone. Products are sums whose terms all multiply two elements, each of which several
points read, over an inner dim of even length along which one of the two lies: those that `graphc.codegen.passes.pairs`
makes fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from graphc.codegen.access import Access
from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Dim,
    Index,
    Kernel,
    Load,
    Program,
    Reduce,
    Ring,
    Scalar,
    Store,
    fresh,
    indices_of,
    kernels,
    map_kernels,
    map_reduce,
    nested_kernels,
)
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import loaded
from graphc.scalar import index, map_loads

__all__ = ["round_operands"]

Operands = dict[str, dict[Reduce, frozenset[str]]]  # the buffers that products read, by kernel and reduction


def round_operands(program: Program) -> Program:
    """The program with products of bfloat16."""
    operands = _operands(program)
    names = dict.fromkeys(name for reduces in operands.values() for names in reduces.values() for name in sorted(names))
    if not names:
        return program
    taken = {*program.declared, *(kernel.name for kernel in kernels(program.body))}
    copies = {name: fresh(f"{name}.rounded", taken) for name in names}
    body = map_kernels(program.body, lambda kernel: _reading(kernel, operands.get(kernel.name, {}), copies))
    unread = {name for name in names if program.buffer(name).kind == "temp"} - loaded(body)
    body = map_kernels(body, lambda kernel: replace(kernel, stores=tuple(_stores(kernel, copies, unread))))
    buffers = [buffer for buffer in program.buffers if buffer.name not in unread]
    buffers += [Buffer(copy, "bfloat16", program.buffer(name).dims, "temp") for name, copy in copies.items()]
    given = [program.buffer(name) for name in names if program.buffer(name).kind in ("input", "param")]
    rounding = [_rounding(buffer, copies[buffer.name]) for buffer in given]
    return replace(program, buffers=tuple(buffers), body=(*rounding, *body))


# Which products.


def _operands(program: Program) -> Operands:
    added = {store.buffer for kernel in kernels(program.body) for store in kernel.stores if store.accumulate}
    found: Operands = {}
    for kernel, loops in nested_kernels(program.body):
        access, vector = Access(kernel, program), None
        points = {loop.index for loop in loops} | {dim.index for dim in kernel.dims if dim.extent != index(1)}
        for reduce in kernel.reduces:
            factors = list(_factors(reduce, access))
            names = frozenset(load.buffer for pair in factors for load in pair or ())
            if (
                not factors
                or names & added
                or not all(pair and _is_product(pair, reduce, points, access) for pair in factors)
            ):
                continue
            vector = vector or vector_index(kernel, program, access)
            if vector is not None and all(program.buffer(name).dtype == "float32" for name in names):
                found.setdefault(kernel.name, {})[reduce] = names
    return found


def _factors(reduce: Reduce, access: Access) -> Iterator[tuple[Load, Load] | None]:
    """The two elements that each term of a reduction multiplies; None for a term that is something else."""
    for total in reduce.sums:
        for term in access.terms(total.value):
            match term:
                case Call("mul", (a, b), "float32") if total.op == "sum":
                    (left, _), (right, _) = access.loaded(a), access.loaded(b)
                    yield None if left is None or right is None else (left, right)
                case _:
                    yield None


def _is_product(factors: tuple[Load, Load], reduce: Reduce, points: set[str], access: Access) -> bool:
    """Whether two factors are read by several points, and in pairs along the reduction's inner dim."""
    inner = reduce.dims[-1]
    even = isinstance(inner.extent, Const) and inner.extent.value % 2 == 0
    reused = all(not points <= access.dependence(load) for load in factors)
    along = all(inner.index in access.dependence(load) for load in factors)
    return even and reused and along and any(load.at[-1] == Index(inner.index) for load in factors)


# The program with copies.


def _reading(kernel: Kernel, operands: Mapping[Reduce, frozenset[str]], copies: Mapping[str, str]) -> Kernel:
    def rounded(load: Load, names: frozenset[str]) -> Load:
        return replace(load, buffer=copies[load.buffer]) if load.buffer in names else load

    def read(reduce: Reduce, names: frozenset[str]) -> Reduce:
        return map_reduce(reduce, lambda scalar: map_loads(scalar, lambda load: rounded(load, names)))

    body = (
        read(step, operands[step]) if isinstance(step, Reduce) and step in operands else step for step in kernel.body
    )
    return replace(kernel, body=tuple(body))


def _stores(kernel: Kernel, copies: Mapping[str, str], unread: set[str]) -> Iterator[Store]:
    for store in kernel.stores:
        if store.buffer not in unread:
            yield store
        if store.buffer in copies:
            yield replace(store, buffer=copies[store.buffer])


def _rounding(buffer: Buffer, copy: str) -> Kernel:
    """The kernel that rounds what the caller gives."""
    dims = tuple(Dim(f"d{axis}", extent) for axis, extent in enumerate(buffer.dims) if not isinstance(extent, Ring))
    at: tuple[Scalar, ...] = indices_of(dims)
    return Kernel(f"round.{copy}", dims, (), (Store(copy, at, Load(buffer.name, at, "float32")),))
