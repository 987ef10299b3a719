"""What the CTAs of a group tell each other in a step, and when: so that none has to wait for more than it reads.

In: a loop, its mirrors, how its points are dealt. Out: `Round`s, if all that other CTAs make and a step reads lies in
mirrors. Then no barrier is needed: each CTA sends its part of a round as soon as it has stored it, and goes on when it
has those of all others (`graphc.codegen.cuda.loops.all_gather`). What a CTA tells two steps later takes the same place.
It has read by then what all others told a step before, and they had read what lay there; so nothing is overwritten that
is still to be read, provided that nobody reads a step's part behind the kernel that stores the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.loops.geometry import Geometry
from graphc.codegen.cuda.loops.mirror import Mirror, near_loads
from graphc.codegen.cuda.loops.mma_tile import MmaGeometry
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.cuda.loops.thread_mapping import ThreadMapping, cells_of, needs_barriers
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Kernel, Loop, Program, Scalar, kernels

__all__ = ["BARRIER_BYTES", "REGISTER", "WORD", "WORD_BYTES", "Exchange", "exchanges"]

REGISTER = 4  # bytes: what is told is a multiple of it
BARRIER_BYTES = 16  # of shared memory, for the barriers of a round in a cluster: one for even times, one for odd ones
WORD_BYTES = 16  # of global memory
WORD = 3  # registers told in such a word, beside the number of the step


@dataclass(frozen=True, eq=False, slots=True)
class Exchange:
    """Mirrors that are told together: stored by points that are dealt by the cells of one product, the last of them by
    the kernel `after`; a group has them before the kernel `before`, in the next step if it `wraps`. The first `ctas`
    CTAs of a group tell and hear, those that have units of any product; each has `run` bytes of every line, whether
    there are units for them or not."""

    mirrors: tuple[Mirror, ...]
    after: str
    before: str
    wraps: bool
    ctas: int
    run: int

    @property
    def run_registers(self) -> int:
        return self.run // REGISTER

    @property
    def words_of_line(self) -> int:
        """The words in which a CTA tells its part of a line."""
        return -(-self.run_registers // WORD)

    def lines(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The lines of a step, at most, when slicings of these lengths are cut into so many parts."""
        return len(self.mirrors) * self.mirrors[0].most_rows(lengths, parts)

    def sent(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The bytes that a CTA sends to the others of its cluster in a step."""
        return self.lines(lengths, parts) * self.run * (self.ctas - 1)

    def words(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The words that a CTA tells in a step, at most."""
        return self.lines(lengths, parts) * self.words_of_line

    def words_of_thread(self, lengths: Sequence[int], parts: Sequence[int], threads: int) -> int:
        """The words that a thread reads, which has the same of several CTAs."""
        words = self.words(lengths, parts)
        across = min(threads, 1 << (words - 1).bit_length())
        return -(-words // across) * -(-self.ctas * across // threads)

    def bytes(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The global memory of a group."""
        return 2 * WORD_BYTES * self.ctas * self.words(lengths, parts)


def exchanges(
    loop: Loop,
    mirrors: Sequence[Mirror],
    products: Mapping[str, Product],
    tiles: Mapping[str, Geometry | MmaGeometry],
    dealing: ThreadMapping,
    lanes: Mapping[str, int],
    sliced: tuple[Slicing, ...],
    program: Program,
) -> tuple[Exchange, ...]:
    """`tiles`: how products are computed, by kernel. There are no rounds if the group has to meet."""
    order = [kernel.name for kernel in kernels((loop,))]
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    near = {name: near_loads(inside[name], product, mirrors, program) for name, product in products.items()}
    cells = cells_of(loop, products, tiles, dealing.visited, sliced)
    if not dealing.barriers or needs_barriers(loop, lanes, cells, sliced, program, near):
        return ()
    if not all(_is_read_in_time(mirror, order, inside, products, program) for mirror in mirrors):
        return ()
    together: dict[tuple[str, bool, str, Scalar, int, str], list[Mirror]] = {}
    for mirror in mirrors:
        before, wraps = _next(order, order.index(mirror.stored_by), dealing.barriers)
        together.setdefault((before, wraps, mirror.dealt, mirror.start, mirror.ahead, mirror.dtype), []).append(mirror)
    ctas, found = max(-(-tile.units // tile.per_cta) for tile in tiles.values()), []
    for (before, wraps, product, *_), of in together.items():
        size = STORAGE[of[0].dtype][1]
        if not product or tiles[product].per_cta * size % REGISTER:
            return ()
        run = tiles[product].per_cta * size
        after = max((mirror.stored_by for mirror in of), key=order.index)
        padded = tuple(replace(mirror, least=ctas * run) for mirror in of)
        found.append(Exchange(padded, after, before, wraps, ctas, run))
    return tuple(found)


def _next(order: Sequence[str], position: int, barriers: frozenset[str]) -> tuple[str, bool]:
    """The first kernel behind a position that a barrier would be before, and whether it is in the next step."""
    later = [name for name in order[position + 1 :] if name in barriers]
    return (later[0], False) if later else (next(name for name in order if name in barriers), True)


def _is_read_in_time(
    mirror: Mirror,
    order: Sequence[str],
    inside: Mapping[str, Kernel],
    products: Mapping[str, Product],
    program: Program,
) -> bool:
    """Whether no kernel reads the step before behind the one that stores the next."""
    ages = (
        (name, mirror.age(at))
        for name, product in products.items()
        for at in _read(mirror, inside[name], product, program)
    )
    return all(age != 1 or order.index(name) <= order.index(mirror.stored_by) for name, age in ages)


def _read(mirror: Mirror, kernel: Kernel, product: Product, program: Program) -> Iterator[tuple[Scalar, ...]]:
    access = Access(kernel, program)
    for part in product.parts:
        for term in part.terms:
            yield from (load.at for load in access.loads(term.other) if load.buffer == mirror.buffer.name)
