"""The versions of a loop's persistent kernel: one for each kind of group that its CTAs may form.

In: a loop, its slicings, an architecture. Out: `Version`s. Each says how many CTAs a group has, how products with
stationary operands are computed, and into how many parts the slicings must be cut that these products depend on.

- One CTA.
- Clusters: the smallest that has all stationary operands on the chip, and the smallest that has them in registers.
- Grids with exchanges, if no small cluster has all operands in registers: as large as there are units for, and half as
  large, since fewer CTAs send less to each other.
- A grid with barriers, as large as there are units for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.cuda.isa.arch import THREADS, WARP, Arch
from graphc.codegen.cuda.isa.mma import ROWS, Fragments
from graphc.codegen.cuda.loops.barriers import Kind
from graphc.codegen.cuda.loops.exchanges import BARRIER_BYTES, Exchange, exchanges
from graphc.codegen.cuda.loops.geometry import geometry
from graphc.codegen.cuda.loops.mirror import Mirror, mirrors
from graphc.codegen.cuda.loops.mma_geometry import AnyGeometry, mma_geometry
from graphc.codegen.cuda.loops.products import Product, product_of
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.cuda.loops.thread_mapping import ThreadMapping
from graphc.codegen.lengths import length_of, points_of
from graphc.codegen.program import Const, Loop, Program, kernels
from graphc.codegen.uses import stored

__all__ = ["NOMINAL", "RESERVED", "Version", "stationary_products", "versions"]

NOMINAL = 64  # points of an axis whose length comes with the data, where code must be chosen before it is known
_REGISTERS = 88  # of a thread, for stationary operands; the others are for sums and what is computed from them
_ROOM = 64  # registers for stationary operands where prefetched values need more
_SMALL = 8  # CTAs of a cluster: few larger ones fit on the chip
RESERVED = 1024  # bytes of shared memory that are not for operands


@dataclass(frozen=True, eq=False)
class Version:
    """A version of a loop. `ctas`: the CTAs of a group. `fixed`: for each slicing the parts it must be cut into, or
    None for any number. `geometries`: how each of the `products` is computed, by kernel. `mirrors`: what products read
    from shared memory. `exchanges`: what the CTAs of a group send to each other; if there are none, they wait at
    barriers."""

    kind: Kind
    ctas: int
    fixed: tuple[int | None, ...]
    products: Mapping[str, Product]
    geometries: Mapping[str, AnyGeometry]
    fragments: Fragments | None = None
    mirrors: tuple[Mirror, ...] = ()
    exchanges: tuple[Exchange, ...] = ()

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory of a CTA, without its mirrors, whose sizes come with the launch."""
        barriers = BARRIER_BYTES * len(self.exchanges) if self.kind == "cluster" else 0
        return sum(g.shared_bytes for g in self.geometries.values()) + barriers

    @property
    def sends_words(self) -> bool:
        """Whether it exchanges words in global memory."""
        return self.kind == "grid" and bool(self.exchanges)

    @property
    def together(self) -> tuple[tuple[Exchange | None, tuple[Mirror, ...]], ...]:
        """Mirrors that lie together: those of an exchange, or each by itself, without an exchange."""
        if self.exchanges:
            return tuple((exchange, exchange.mirrors) for exchange in self.exchanges)
        return tuple((None, (mirror,)) for mirror in self.mirrors)

    @property
    def in_registers(self) -> bool:
        """Whether all stationary operands are in registers (a few may be spilled)."""
        return all(g.home == "registers" for g in self.geometries.values())

    @property
    def waits_briefly(self) -> bool:
        """Whether a step waits for the CTA or the cluster only, which takes less time than a load, and there are
        registers for values in flight."""
        return self.kind != "grid" and sum(g.registers for g in self.geometries.values()) <= _ROOM

    @property
    def on_chip(self) -> bool:
        """Whether all stationary operands are on the chip."""
        return all(g.home != "memory" for g in self.geometries.values())


def stationary_products(loop: Loop, slicings: Sequence[Slicing], program: Program) -> dict[str, Product]:
    """The products of a loop, by kernel, that can be computed with stationary operands. If both operands vary with a
    dim, like heads, a group must have one point of it, so the dim must be sliced."""
    made = stored((loop,))
    found = {kernel.name: product_of(kernel, made, program) for kernel in kernels((loop,))}
    sliced = {name: {s.dims[name] for s in slicings if isinstance(s.extent, Const)} for name in found}
    products = {n: p for n, p in found.items() if p is not None and p.shared <= sliced[n]}
    apart = [any(s.dims[n] in p.shared for n, p in products.items()) for s in slicings]
    return {n: p for n, p in products.items() if not _is_cut(n, p, slicings, apart)}


def _is_cut(name: str, product: Product, slicings: Sequence[Slicing], apart: Sequence[bool]) -> bool:
    """Whether a product's units are cut because another product needs it."""
    units = {dim.index for dim in product.units} - product.shared
    return any(cut and s.dims[name] in units for s, cut in zip(slicings, apart, strict=True))


def versions(
    loop: Loop,
    slicings: Sequence[Slicing],
    products: Mapping[str, Product],
    mapping: ThreadMapping,
    lanes: Mapping[str, int],
    program: Program,
    arch: Arch,
    fragments: Fragments | None,
) -> tuple[Version, ...]:
    """The versions of a loop. `fragments`: how operands are rounded for the tensor cores; None: not on tensor cores."""
    fixed = tuple(_parts(slicing, products) for slicing in slicings)
    rounding = None if fragments is None else fragments.dtype
    mirrored = mirrors(loop, products, mapping.epilogues, slicings, program, rounding)

    def made(kind: Kind, ctas: int, near: bool = True) -> Version:
        geometries = _geometries(products, ctas, arch, fragments)
        version = Version(kind, ctas, fixed, products, geometries, fragments, mirrored if near else ())
        if kind == "cta" or not near:
            return version
        sent = exchanges(loop, mirrored, products, geometries, mapping, lanes, tuple(slicings), program)
        return replace(version, exchanges=sent, mirrors=tuple(m for x in sent for m in x.mirrors)) if sent else version

    found = [made("cta", 1)]
    clusters = [made("cluster", 2**k) for k in range(1, 5) if 2**k <= arch.cluster]
    found += _worthwhile(clusters)
    grid = _grid(loop, products, program, arch, fragments)
    if not any(version.in_registers for version in clusters if version.ctas <= _SMALL):
        candidates = (made("grid", ctas) for ctas in dict.fromkeys((max(2, grid // 2), grid)))
        found += (version for version in candidates if version.exchanges and version.on_chip)
    return (*found, made("grid", grid, near=False))


def _worthwhile(clusters: Sequence[Version]) -> list[Version]:
    """The smallest cluster that has all stationary operands on the chip, and the smallest that has them in
    registers."""
    best = [next((v for v in clusters if v.on_chip), None), next((v for v in clusters if v.in_registers), None)]
    return list(dict.fromkeys(version for version in best if version is not None))


def _parts(slicing: Slicing, products: Mapping[str, Product]) -> int | None:
    """Into how many parts a slicing must be cut: along a shared dim into points, along other units not at all."""
    for name, product in products.items():
        index = slicing.dims[name]
        if index in product.shared and isinstance(slicing.extent, Const):
            return int(slicing.extent.value)
    if any(slicing.dims[name] in {dim.index for dim in product.units} for name, product in products.items()):
        return 1
    return None


def _geometries(
    products: Mapping[str, Product], ctas: int, arch: Arch, fragments: Fragments | None
) -> dict[str, AnyGeometry]:
    """How each product is computed. Registers and shared memory are given to the products in their order. All tiles
    have as many rows as the one with the fewest, so that a thread computes the same points of all products."""
    most = min((g.rows for g in _fitted(products, ctas, arch, fragments, None).values()), default=1)
    return _fitted(products, ctas, arch, fragments, most)


def _fitted(
    products: Mapping[str, Product], ctas: int, arch: Arch, fragments: Fragments | None, most_rows: int | None
) -> dict[str, AnyGeometry]:
    """How each product is computed, with tiles of no more than `most_rows` rows. On tensor cores only where there is
    shared memory for the sums."""
    found: dict[str, AnyGeometry] = {}
    taken, registers, warps = 0, _REGISTERS, THREADS // WARP
    for name, product in products.items():
        free = arch.shared - RESERVED - taken
        chosen: AnyGeometry | None = None
        if fragments is not None and product.sums[0].value.dtype == "float32":
            of_others = _REGISTERS - registers
            chosen = mma_geometry(product, fragments, ctas, warps, free, registers, of_others, most_rows)
        if chosen is None or chosen.shared_bytes > free:
            chosen = geometry(product, ctas, warps, free, registers, most_rows)
        found[name] = replace(chosen, offset=taken)
        taken += chosen.shared_bytes
        registers -= chosen.registers
    return found


def _grid(
    loop: Loop, products: Mapping[str, Product], program: Program, arch: Arch, fragments: Fragments | None
) -> int:
    """The CTAs of a group over the grid: one for each unit (on tensor cores, for each sixteen), or without products for
    each `THREADS` points; a power of two, and no more than there are SMs."""
    sizes = dict.fromkeys(program.sizes, NOMINAL)
    units = max((length_of(product.apart) for product in products.values()), default=0)
    points = max(points_of(kernel.dims, sizes) for kernel in kernels((loop,)))
    wanted = units // (1 if fragments is None else ROWS) or -(-points // THREADS)
    most = 1 << (arch.sms.bit_length() - 1)
    return min(most, max(2, 1 << (wanted - 1).bit_length()))
