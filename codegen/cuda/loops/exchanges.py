"""What the CTAs of a group send to each other in a step, and when, so that the step needs no barrier.

In: a loop, its mirrors, how its points are mapped to threads. Out: `Exchange`s, if everything that other CTAs make and
a step reads lies in mirrors; else none. With exchanges, each CTA sends its part as soon as it has stored it, and goes
on when it has received the parts of all others (`graphc.codegen.cuda.loops.all_gather`).

A part takes the place of the one of two steps before. Nothing is overwritten that is still to be read: before a CTA
sends for step t + 2 it has received all parts of step t + 1, and each sender of those had read all of step t before it
sent. This holds if no kernel reads the parts of a step after the kernel that stores the parts of the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.loops.mirror import Mirror, near_loads
from graphc.codegen.cuda.loops.mma_geometry import AnyGeometry
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.cuda.loops.thread_mapping import ThreadMapping, cells_of, needs_barriers
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import Kernel, Loop, Program, Scalar, kernels

__all__ = ["BARRIER_BYTES", "REGISTER", "WORD", "WORD_BYTES", "Exchange", "exchanges"]

REGISTER = 4  # bytes: the size of a CTA's part of a line is a multiple of it
BARRIER_BYTES = 16  # of shared memory, for the two barriers of an exchange in a cluster
WORD_BYTES = 16  # of global memory
WORD = 3  # registers of data in such a word, beside its tag


@dataclass(frozen=True, eq=False, slots=True)
class Exchange:
    """Mirrors exchanged together: complete after kernel `after`, needed before kernel `before`, in the next step if
    `wraps`. The points that store them are all mapped to threads by the cells of one product. The first `ctas` CTAs of
    a group take part: those that have units of any product. Each sends `run` bytes of every line, padded where it has
    fewer units."""

    mirrors: tuple[Mirror, ...]
    after: str
    before: str
    wraps: bool
    ctas: int
    run: int

    @property
    def run_registers(self) -> int:
        """The registers of 4 bytes in a CTA's part of a line."""
        return self.run // REGISTER

    @property
    def words_of_line(self) -> int:
        """The words in which a CTA sends its part of a line over the grid."""
        return -(-self.run_registers // WORD)

    def lines(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The lines of a step, at most, if slicings of these lengths are cut into so many parts."""
        return len(self.mirrors) * self.mirrors[0].most_rows(lengths, parts)

    def sent(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The bytes that a CTA sends to the others of its cluster in a step."""
        return self.lines(lengths, parts) * self.run * (self.ctas - 1)

    def words(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The words that a CTA sends in a step over the grid, at most."""
        return self.lines(lengths, parts) * self.words_of_line

    def words_of_thread(self, lengths: Sequence[int], parts: Sequence[int], threads: int) -> int:
        """The words that a thread reads in a step, at most. It reads words with the same numbers from several CTAs."""
        words = self.words(lengths, parts)
        across = min(threads, 1 << (words - 1).bit_length())
        return -(-words // across) * -(-self.ctas * across // threads)

    def bytes(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The bytes of global memory for the words of a group: those of two steps."""
        return 2 * WORD_BYTES * self.ctas * self.words(lengths, parts)


def exchanges(
    loop: Loop,
    mirrors: Sequence[Mirror],
    products: Mapping[str, Product],
    geometries: Mapping[str, AnyGeometry],
    mapping: ThreadMapping,
    lanes: Mapping[str, int],
    sliced: tuple[Slicing, ...],
    program: Program,
) -> tuple[Exchange, ...]:
    """The exchanges of a step; none if the group needs barriers. `geometries`: how products are computed, by kernel.
    `sliced`: the loop's slicings."""
    order = [kernel.name for kernel in kernels((loop,))]
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    near = {name: near_loads(inside[name], product, mirrors, program) for name, product in products.items()}
    cells = cells_of(loop, products, geometries, mapping.epilogues, sliced)
    if not mapping.barriers or needs_barriers(loop, lanes, cells, sliced, program, near):
        return ()
    if not all(_is_read_in_time(mirror, order, inside, products, program) for mirror in mirrors):
        return ()
    together: dict[tuple[str, bool, str, Scalar, int, str], list[Mirror]] = {}
    for mirror in mirrors:
        before, wraps = _next(order, order.index(mirror.stored_by), mapping.barriers)
        key = (before, wraps, mirror.product, mirror.start, mirror.ahead, mirror.dtype)
        together.setdefault(key, []).append(mirror)
    ctas, found = max(-(-g.units // g.per_cta) for g in geometries.values()), []
    for (before, wraps, product, *_), members in together.items():
        size = STORAGE[members[0].dtype][1]
        if not product or geometries[product].per_cta * size % REGISTER:
            return ()
        run = geometries[product].per_cta * size
        after = max((mirror.stored_by for mirror in members), key=order.index)
        padded = tuple(replace(mirror, least=ctas * run) for mirror in members)
        found.append(Exchange(padded, after, before, wraps, ctas, run))
    return tuple(found)


def _next(order: Sequence[str], position: int, barriers: frozenset[str]) -> tuple[str, bool]:
    """The first kernel after a position that would need a barrier before it, and whether it is in the next step."""
    later = [name for name in order[position + 1 :] if name in barriers]
    return (later[0], False) if later else (next(name for name in order if name in barriers), True)


def _is_read_in_time(
    mirror: Mirror,
    order: Sequence[str],
    inside: Mapping[str, Kernel],
    products: Mapping[str, Product],
    program: Program,
) -> bool:
    """Whether no kernel reads the step before after the kernel that stores this step."""
    late = [name for name in products if order.index(name) > order.index(mirror.stored_by)]
    loads = (load for name in late for load in products[name].other_loads(Access(inside[name], program)))
    return not any(load.buffer == mirror.buffer.name and mirror.age(load.at) == 1 for load in loads)
