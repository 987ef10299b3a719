"""Which threads compute the points of a loop's kernels, and before which kernels they must meet.

In: a loop, its products with held operands, the lanes that compute a point of each kernel, and the loop's slicings.
Out: a `Dealing`. Kernels over the same points that are dealt alike need no barrier between them for what a point itself
made. So a kernel without reductions may be dealt like a product: its points are visited by the threads that end with
the product's sums there. Adjoints of gates are computed where the adjoint of the state has just been summed up, and a
step has one barrier instead of two.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

from graphc.codegen.cuda.kernel.points import owned_dims
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.parallel.hazards import Access, barriers
from graphc.codegen.program import Buffer, Dim, Index, Kernel, Load, Loop, Program, Reduce, Ring, Scalar, kernels

__all__ = ["ThreadMapping", "cells_of", "map_threads", "needs_barriers"]

Shape = tuple[tuple[Scalar, bool], ...]


@dataclass(frozen=True)
class ThreadMapping:
    """`barriers`: the kernels before which threads meet. `visited`: the kernels that are dealt like a product, by its
    kernel."""

    barriers: frozenset[str]
    visited: Mapping[str, str]


def map_threads(
    loop: Loop,
    products: Mapping[str, Product],
    lanes: Mapping[str, int],
    sliced: tuple[Slicing, ...],
    program: Program,
) -> ThreadMapping:
    """Kernels are dealt like a product if that saves barriers, like the one that saves the most; else over all
    threads."""
    ways = [{}, *(_visited(loop, name, products, sliced) for name in products)]
    dealings = [ThreadMapping(_barriers(loop, lanes, _alike(visited), sliced, program), visited) for visited in ways]
    return min(dealings, key=lambda dealing: len(dealing.barriers))


def _visited(loop: Loop, name: str, products: Mapping[str, Product], sliced: tuple[Slicing, ...]) -> dict[str, str]:
    """The kernels without reductions that are over the same points as a product's."""
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    return {
        kernel.name: name
        for kernel in inside.values()
        if kernel.name not in products
        and not owned_dims(kernel)[1]
        and not any(isinstance(step, Reduce) for step in kernel.body)
        and _shape(kernel, sliced) == _shape(inside[name], sliced)
    }


def _alike(visited: Mapping[str, str]) -> dict[str, str]:
    """What is known of how kernels are dealt before it is known how products are computed."""
    return {**visited, **{product: product for product in visited.values()}}


def _shape(kernel: Kernel, sliced: tuple[Slicing, ...]) -> Shape:
    """The lengths of a kernel's dims, and which of them are sliced."""
    along = {slicing.dims[kernel.name] for slicing in sliced}
    return tuple((dim.extent, dim.index in along) for dim in kernel.dims)


class _Tiled(Protocol):
    @property
    def cell(self) -> tuple[object, ...]: ...


def cells_of(
    loop: Loop,
    products: Mapping[str, Product],
    tiles: Mapping[str, _Tiled],
    visited: Mapping[str, str],
    sliced: tuple[Slicing, ...],
) -> dict[str, Hashable]:
    """How kernels are dealt that are by the cells of a product, given how those are computed: kernels alike, where it
    is the same."""
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    cells: dict[str, Hashable] = {
        name: (*tile.cell, _positions(inside[name], products[name]), _shape(inside[name], sliced))
        for name, tile in tiles.items()
    }
    return cells | {name: cells[product] for name, product in visited.items()}


def _positions(kernel: Kernel, product: Product) -> tuple[int, ...]:
    """Which of a kernel's dims its units are."""
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
    """Whether threads must meet even if these loads, by kernel, do not touch the buffers that they name. `cells` says
    how kernels are dealt that are by the cells of a product: alike, where it says the same."""
    return bool(_barriers(loop, lanes, cells, sliced, program, elsewhere))


# Barriers.


@dataclass(frozen=True, slots=True)
class _Owner:
    """What decides which thread computes a point: the kernel's dims, their lengths and which of them are sliced, the
    lanes, whether points are walked in order, and by which cells they are dealt, if by those of a product."""

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
    """Whether both kernels deal out the same points alike, and both accesses are at the element of the point."""
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
