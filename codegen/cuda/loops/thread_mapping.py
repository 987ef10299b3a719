"""The mapping of a loop's points to threads, and which kernels need a barrier before them.

In: a loop, its products with stationary operands, the lanes that compute a point of each kernel, and the loop's
slicings. Out: a `ThreadMapping`. Two kernels over the same points, mapped in the same way, need no barrier between them
for what a point passes to the same point. So a kernel without reductions may be mapped like a product, as its epilogue:
its points are computed by the threads that have the product's sums there. For example, adjoints of gates are computed
where the adjoint of the state has just been summed up, and a step has one barrier instead of two.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass

from graphc.codegen.cuda.kernel.points import owned_dims
from graphc.codegen.cuda.loops.mma_geometry import AnyGeometry
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.parallel.hazards import Access, barriers
from graphc.codegen.program import Buffer, Dim, Index, Kernel, Load, Loop, Program, Ring, Scalar, kernels

__all__ = ["ThreadMapping", "cells_of", "map_threads", "needs_barriers"]

Shape = tuple[tuple[Scalar, bool], ...]


@dataclass(frozen=True)
class ThreadMapping:
    """`barriers`: the kernels that need a barrier before them. `epilogues`: the kernels that are mapped like a product,
    each with the name of the product's kernel."""

    barriers: frozenset[str]
    epilogues: Mapping[str, str]


def map_threads(
    loop: Loop,
    products: Mapping[str, Product],
    lanes: Mapping[str, int],
    sliced: tuple[Slicing, ...],
    program: Program,
) -> ThreadMapping:
    """The mapping with the fewest barriers: with all points over all threads, or with epilogues of one product."""
    ways = [{}, *(_epilogues(loop, name, products, sliced) for name in products)]
    mappings = [ThreadMapping(_barriers(loop, lanes, _alike(of), sliced, program), of) for of in ways]
    return min(mappings, key=lambda mapping: len(mapping.barriers))


def _epilogues(loop: Loop, name: str, products: Mapping[str, Product], sliced: tuple[Slicing, ...]) -> dict[str, str]:
    """The kernels that can be epilogues of a product: without reductions, and over the same points."""
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    return {
        kernel.name: name
        for kernel in inside.values()
        if kernel.name not in products
        and not owned_dims(kernel)[1]
        and not kernel.reduces
        and _shape(kernel, sliced) == _shape(inside[name], sliced)
    }


def _alike(epilogues: Mapping[str, str]) -> dict[str, str]:
    """A stand-in for `cells_of` before it is known how products are computed: equal for a product and its epilogues."""
    return {**epilogues, **{product: product for product in epilogues.values()}}


def _shape(kernel: Kernel, sliced: tuple[Slicing, ...]) -> Shape:
    """The lengths of a kernel's dims, and which of them are sliced."""
    along = {slicing.dims[kernel.name] for slicing in sliced}
    return tuple((dim.extent, dim.index in along) for dim in kernel.dims)


def cells_of(
    loop: Loop,
    products: Mapping[str, Product],
    geometries: Mapping[str, AnyGeometry],
    epilogues: Mapping[str, str],
    sliced: tuple[Slicing, ...],
) -> dict[str, Hashable]:
    """For each product and epilogue a description of its mapping to threads, given how products are computed. Kernels
    with equal descriptions are mapped in the same way."""
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    cells: dict[str, Hashable] = {
        name: (*own.cell, _positions(inside[name], products[name]), _shape(inside[name], sliced))
        for name, own in geometries.items()
    }
    return cells | {name: cells[product] for name, product in epilogues.items()}


def _positions(kernel: Kernel, product: Product) -> tuple[int, ...]:
    """The positions of a product's units among its kernel's dims."""
    order = [dim.index for dim in kernel.dims]
    return tuple(order.index(dim.index) for dim in product.apart)


def needs_barriers(
    loop: Loop,
    lanes: Mapping[str, int],
    cells: Mapping[str, Hashable],
    sliced: tuple[Slicing, ...],
    program: Program,
    elsewhere: Mapping[str, Set[Load]],
) -> bool:
    """Whether a step needs barriers even if the loads in `elsewhere`, by kernel, do not access the buffers that they
    name. `cells`: as from `cells_of`."""
    return bool(_barriers(loop, lanes, cells, sliced, program, elsewhere))


# Barriers.


@dataclass(frozen=True, slots=True)
class _Owner:
    """Everything that decides which thread computes a point: the kernel's dims, their lengths and which of them are
    sliced (`shape`), the lanes, whether one thread computes points in order, and the product's `cells`, if it has
    any."""

    dims: tuple[Dim, ...]
    shape: Shape
    lanes: int
    in_order: bool
    cells: Hashable


def _barriers(
    loop: Loop,
    lanes: Mapping[str, int],
    cells: Mapping[str, Hashable],
    sliced: tuple[Slicing, ...],
    program: Program,
    elsewhere: Mapping[str, Set[Load]] | None = None,
) -> frozenset[str]:
    owners = {}
    for kernel in kernels((loop,)):
        in_order = bool(owned_dims(kernel)[1])
        own = cells.get(kernel.name)
        owners[kernel.name] = _Owner(kernel.dims, _shape(kernel, sliced), lanes[kernel.name], in_order, own)
    return barriers(loop, owners, program.declared, _same_thread, elsewhere)


def _same_thread(a: Access[_Owner], b: Access[_Owner], buffer: Buffer) -> bool:
    """Whether both kernels map the same points to the same threads, and both accesses are at the point's own
    element."""
    first, second = a.owner, b.owner
    if first.cells != second.cells or first.shape != second.shape or first.in_order or second.in_order:
        return False
    if first.cells is None and (first.lanes != 1 or second.lanes != 1):
        return False
    return all(
        any(
            p == Index(x.index) and q == Index(y.index) and not isinstance(dim, Ring)
            for p, q, dim in zip(a.at, b.at, buffer.dims, strict=True)
        )
        for x, y in zip(first.dims, second.dims, strict=True)
    )
