"""What a step of a loop makes for the next, in the shared memory of every CTA of a group: one, or a cluster.

In: a loop, its products, its slicings. Out: its `Mirror`s: buffers that the loop stores step by step and that a product
reads a step later, or in the same one. Whoever stores an element of one stores it into the shared memory of every CTA
of the group as well (distributed shared memory), and products read it from that of their own, where it is as near as
can be. Two steps lie there, the even and the odd ones. A step's elements are overwritten two steps later, and in each
step all CTAs meet before a product reads what others have stored: so nothing is overwritten that is still to be read.
Where the first step reads what was stored before the loop, as in a chunk, that comes from memory beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.cpu_functions import STORAGE, constant
from graphc.codegen.cpu_memory import write
from graphc.codegen.cuda.device import DeviceFunction
from graphc.codegen.cuda.place import Part, digits
from graphc.codegen.cuda.products import Product
from graphc.codegen.cuda.slices import Slicing
from graphc.codegen.lengths import evaluate
from graphc.codegen.llvm import Value, i64
from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Index,
    Kernel,
    Loop,
    Program,
    Reduce,
    Scalar,
    Size,
    Store,
    kernels,
)
from graphc.codegen.uses import loads, stored
from graphc.scalar import FLOATS, STORED, call, index, offset_from, walk

__all__ = ["Mirror", "Mirrored", "mirrors"]

_STEPS = 2  # that lie in a mirror


@dataclass(frozen=True, slots=True)
class Mirror:
    """A buffer, its dim that runs along the loop and where it is stored there: from which place on (a chunk of a buffer
    that has its full length begins somewhere in it), and how far ahead of the loop's index; which of its other dims are
    sliced, by which slicing; the kernels that come later in a step than the one that stores it; and whether the step
    before the first was stored beforehand."""

    buffer: Buffer
    loop: Loop
    place: int
    start: Scalar
    ahead: int
    sliced: Mapping[int, int]
    later: frozenset[str]
    filled: bool

    def holds(self, at: Sequence[Scalar], kernel: str) -> bool:
        """Whether the element with these subscripts lies in the mirror when a kernel reads it."""
        age = self.age(at)
        return age is not None and (age == 1 or (age == 0 and kernel in self.later))

    def age(self, at: Sequence[Scalar]) -> int | None:
        """How many steps ago the element with these subscripts was stored; None if that is not known."""
        found = _in_steps(at[self.place], self.loop)
        if found is None or found[0] != self.start:
            return None
        return found[1] - self.ahead if self.loop.reverse else self.ahead - found[1]

    @property
    def before(self) -> Scalar:
        """The place along the loop of what the step before the first would have stored."""
        first = self.loop.extent if self.loop.reverse else index(-1)
        return call("add", self.start, call("add", first, index(self.ahead)))

    @property
    def others(self) -> tuple[int, ...]:
        """The dims but that along the loop."""
        return tuple(k for k in range(len(self.buffer.dims)) if k != self.place)

    def bytes(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """What it takes in the shared memory of a CTA, when slicings of these lengths are cut into so many parts."""
        sizes = [
            -(-lengths[self.sliced[k]] // parts[self.sliced[k]]) if k in self.sliced else _extent(self.buffer, k)
            for k in self.others
        ]
        return -(-_STEPS * math.prod(sizes) * STORAGE[self.buffer.dtype][1] // 16) * 16


def mirrors(
    loop: Loop, products: Mapping[str, Product], slicings: Sequence[Slicing], program: Program
) -> tuple[Mirror, ...]:
    """The buffers of a loop, without loops inside it, that its products read of the step before or of the same."""
    if not all(isinstance(statement, Kernel) for statement in loop.body):
        return ()
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    read = {(name, *load) for name, p in products.items() for load in _others(inside[name], p, program)}
    found = []
    others = stored(kernel for kernel in kernels(program.body) if kernel.name not in inside)
    for name in sorted({buffer for _, buffer, _ in read}):
        mirror = _mirror(program.buffer(name), loop, list(inside.values()), slicings)
        if mirror is not None and any(mirror.holds(at, kernel) for kernel, buffer, at in read if buffer == name):
            back = any(mirror.age(x.at) == 1 for k in inside.values() for x in loads(k) if x.buffer == name)
            goes_on = mirror.start != index(0)  # where this very loop has ended in the chunk before
            exists = loop.reverse or mirror.ahead > 0 or goes_on  # a place before the first step
            found.append(replace(mirror, filled=back and exists and (goes_on or name in others)))
    return tuple(found)


def _others(kernel: Kernel, product: Product, program: Program) -> set[tuple[str, tuple[Scalar, ...]]]:
    access = Access(kernel, program)
    return {
        (load.buffer, load.at) for part in product.parts for term in part.terms for load in access.loads(term.other)
    }


def _mirror(buffer: Buffer, loop: Loop, inside: Sequence[Kernel], slicings: Sequence[Slicing]) -> Mirror | None:
    """One kernel stores it, a step in each."""
    stores = [(kernel, store) for kernel in inside for store in kernel.stores if store.buffer == buffer.name]
    if len(stores) != 1 or stores[0][1].accumulate or buffer.dtype not in (*STORED, *FLOATS):
        return None
    kernel, store = stores[0]
    steps = [(k, _in_steps(subscript, loop)) for k, subscript in enumerate(store.at)]
    places = [(k, *found) for k, found in steps if found is not None]
    if len(places) != 1:
        return None
    ((place, start, ahead),) = places
    sliced = _sliced(kernel, store, slicings)
    known = all(k in sliced or k == place or isinstance(dim, Const) for k, dim in enumerate(buffer.dims))
    later = frozenset(other.name for other in inside[inside.index(kernel) + 1 :])
    return Mirror(buffer, loop, place, start, ahead, sliced, later, filled=False) if known else None


def _in_steps(subscript: Scalar, loop: Loop) -> tuple[Scalar, int] | None:
    """A subscript as start + index + k, for the index of the loop and a start that is known before it."""
    offset = offset_from(subscript, loop.index)
    if offset is not None:
        return index(0), offset
    match subscript:
        case Call("add", (start, Index(name))) if name == loop.index and _is_known(start, loop):
            return start, 0
        case Call("add", (inner, Const(k))):
            found = _in_steps(inner, loop)
            return None if found is None else (found[0], found[1] + int(k))
    return None


def _is_known(scalar: Scalar, loop: Loop) -> bool:
    """Whether a scalar depends on nothing but sizes and the loops around."""
    inside = {loop.index}
    for kernel in kernels((loop,)):
        inside |= {dim.index for dim in kernel.dims}
        inside |= {dim.index for step in kernel.body if isinstance(step, Reduce) for dim in step.dims}
    parts = list(walk(scalar))
    known = all(isinstance(part, Const | Size | Call | Index) for part in parts)
    return known and not any(isinstance(part, Index) and part.name in inside for part in parts)


def _sliced(kernel: Kernel, store: Store, slicings: Sequence[Slicing]) -> dict[int, int]:
    return {
        k: number
        for k, subscript in enumerate(store.at)
        for number, slicing in enumerate(slicings)
        if subscript == Index(slicing.dims[kernel.name])
    }


def _extent(buffer: Buffer, dim: int) -> int:
    extent = buffer.dims[dim]
    assert isinstance(extent, Const)
    return evaluate(extent, {})


class Mirrored:
    """The code of one mirror, in the device function of a group of `ctas` CTAs. `parts` are the group's own parts of
    the slicings; `base` is where the mirror begins in shared memory."""

    def __init__(self, f: DeviceFunction, mirror: Mirror, parts: Sequence[Part], ctas: int, base: Value) -> None:
        self.function, self.mirror, self.ctas, self.base = f, mirror, ctas, base
        self.element = STORAGE[mirror.buffer.dtype][0]
        self.starts: dict[int, Value] = {}
        self.lengths: dict[int, Value] = {}
        for k in mirror.others:
            self.starts[k], self.lengths[k] = i64(0), i64(0)
            if k in mirror.sliced:
                first, end = parts[mirror.sliced[k]]
                self.starts[k], self.lengths[k] = first, f.binary("sub nsw", end, first)
            else:
                self.lengths[k] = i64(_extent(mirror.buffer, k))
        self.step = i64(1)  # the elements of one
        for length in self.lengths.values():
            self.step = f.binary("mul nsw", self.step, length)
        self.count = f.binary("mul nsw", self.step, i64(_STEPS))

    @property
    def end(self) -> Value:
        """Where the next mirror can begin."""
        f, size = self.function, STORAGE[self.mirror.buffer.dtype][1]
        bytes_ = f.binary("add nsw", f.binary("mul nsw", self.count, i64(size)), i64(15))
        return f.offset(self.base, "i8", f.binary("and", bytes_, i64(-16)))

    def clear(self, thread: Value, threads: int) -> None:
        """Fill it with zeros: loads whose conditions are false, as before the first step, read what nothing made."""
        f = self.function
        zero = constant(0, self.mirror.buffer.dtype)
        with f.loop(thread, self.count, i64(threads), "clear", unroll=False) as (number, _):
            f.put(zero, f.offset(self.base, self.element, number))

    def at(self, place: Value, number: Value) -> list[Value]:
        """The subscripts in the buffer of an element, given its place along the loop and its number in its step."""
        f = self.function
        found = dict(zip(self.mirror.others, digits(f, number, list(self.lengths.values())), strict=True))
        moved = {
            k: own if self.starts[k] == i64(0) else f.binary("add nsw", self.starts[k], own) for k, own in found.items()
        }
        return [moved.get(k, place) for k in range(len(self.mirror.buffer.dims))]

    def pointer(self, at: Sequence[Value]) -> Value:
        """Where an element lies in the CTA's own shared memory, given its subscripts in the buffer."""
        f = self.function
        number = f.binary("and", at[self.mirror.place], i64(_STEPS - 1))
        for k in self.mirror.others:
            own = at[k] if self.starts[k] == i64(0) else f.binary("sub nsw", at[k], self.starts[k])
            number = f.binary("add nsw", f.binary("mul nsw", number, self.lengths[k]), own)
        return f.offset(self.base, self.element, number)

    def push(self, at: Sequence[Value], value: Value) -> None:
        """Store an element of the step into the shared memory of every CTA of the group."""
        f, pointer, dtype = self.function, self.pointer(at), self.mirror.buffer.dtype
        if self.ctas == 1:
            write(f, value, pointer, dtype, None)
            return
        for rank in range(self.ctas):
            write(f, value, f.in_cluster(pointer, rank), dtype, None)
