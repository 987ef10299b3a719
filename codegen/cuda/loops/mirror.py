"""Mirrors: copies of what a step makes for the next, in the shared memory of every CTA of a group.

In: a loop, its products, its slicings. Out: its `Mirror`s: buffers that the loop stores step by step and that a product
reads a step later, or in the same step. Products read the mirror in their own CTA instead of global memory. Its
elements are rounded if products do nothing but round them. How the parts of other CTAs get there is a matter of
`graphc.codegen.cuda.loops.exchanges`; the code of a mirror is in `graphc.codegen.cuda.loops.mirrored`.

A mirror has slots for two steps, an even and an odd one. A slot consists of lines; a line is what one point of the
batch needs, and lines begin in different banks. If the first step reads what was stored before the loop, as in a chunk,
the mirror is filled from memory before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.access import Access
from graphc.codegen.cuda.loops.products import Product
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.program import (
    Buffer,
    Call,
    Const,
    Index,
    Kernel,
    Load,
    Loop,
    Program,
    Scalar,
    Size,
    Store,
    kernels,
)
from graphc.codegen.uses import loads, stored
from graphc.scalar import FLOATS, STORED, call, index, offset_from, walk

__all__ = ["STEPS", "Mirror", "in_steps", "mirrors", "near_loads"]

STEPS = 2  # slots of a mirror
_LINE = 16  # bytes: a line is an odd multiple of it, so that eight neighbouring lines begin in different banks


@dataclass(frozen=True, slots=True)
class Mirror:
    """A mirrored buffer of a loop.

    - `place`: the buffer's dim along the loop. A step stores at `start` + index of the loop + `ahead` there. `start` is
      not 0 in a chunk of a buffer of full length.
    - `sliced`: for each other dim that is sliced, the number of its slicing.
    - `stored_by`: the one kernel that stores the buffer; `later`: the kernels after it in a step.
    - `dtype`: that of the elements in the mirror, which may be rounded.
    - `line`: the dims whose points lie side by side in a line, in order. Lines are numbered by the remaining dims.
    - `product`: if `line` are the units of a product by whose cells the storing points are mapped to threads, that
      product's kernel; else "".
    - `filled`: whether the first step reads what was stored before the loop.
    - `least`: bytes of a line, at least.
    """

    buffer: Buffer
    loop: Loop
    place: int
    start: Scalar
    ahead: int
    sliced: Mapping[int, int]
    later: frozenset[str]
    stored_by: str
    dtype: str
    line: tuple[int, ...]
    product: str
    filled: bool = False
    least: int = 0

    def holds(self, at: Sequence[Scalar], kernel: str) -> bool:
        """Whether the element with these subscripts is in the mirror when a kernel reads it."""
        age = self.age(at)
        return age is not None and (age == 1 or (age == 0 and kernel in self.later))

    def age(self, at: Sequence[Scalar]) -> int | None:
        """How many steps ago the element with these subscripts was stored; None if that is not known."""
        found = in_steps(at[self.place], self.loop)
        if found is None or found[0] != self.start:
            return None
        return found[1] - self.ahead if self.loop.reverse else self.ahead - found[1]

    @property
    def before(self) -> Scalar:
        """The subscript along the loop at which the step before the first would have stored."""
        first = self.loop.extent if self.loop.reverse else index(-1)
        return call("add", self.start, call("add", first, index(self.ahead)))

    @property
    def stored_at(self) -> Scalar:
        """The subscript along the loop at which a step stores."""
        return call("add", self.start, call("add", Index(self.loop.index), index(self.ahead)))

    def extent(self, k: int) -> int:
        """The length of one of the buffer's dims, which is known."""
        extent = self.buffer.dims[k]
        assert isinstance(extent, Const)
        return int(extent.value)

    @property
    def rows(self) -> tuple[int, ...]:
        """The dims by which lines are numbered."""
        return tuple(k for k in range(len(self.buffer.dims)) if k != self.place and k not in self.line)

    @property
    def line_bytes(self) -> int:
        """The distance of two lines, in bytes."""
        used = max(self.least, math.prod(self.extent(k) for k in self.line) * STORAGE[self.dtype][1])
        return _LINE * (-(-used // _LINE) | 1)

    def most_rows(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The lines of a step in a CTA, at most, if slicings of these lengths are cut into so many parts."""
        return math.prod(
            -(-lengths[self.sliced[k]] // parts[self.sliced[k]]) if k in self.sliced else self.extent(k)
            for k in self.rows
        )

    def bytes(self, lengths: Sequence[int], parts: Sequence[int]) -> int:
        """The bytes of the mirror in the shared memory of a CTA, at most, with slicings as in `most_rows`."""
        return STEPS * self.most_rows(lengths, parts) * self.line_bytes


def mirrors(
    loop: Loop,
    products: Mapping[str, Product],
    epilogues: Mapping[str, str],
    slicings: Sequence[Slicing],
    program: Program,
    rounding: str | None,
) -> tuple[Mirror, ...]:
    """The mirrors of a loop: of all buffers of which its products read the step before or the same step. A loop with
    loops inside has none. `epilogues`: as in `LoopUnit`. `rounding`: the dtype that products round to, if any."""
    if not all(isinstance(statement, Kernel) for statement in loop.body):
        return ()
    inside = {kernel.name: kernel for kernel in kernels((loop,))}
    read = [(name, load) for name, p in products.items() for load in p.other_loads(Access(inside[name], program))]
    mapped = {**{name: name for name in products}, **epilogues}
    rounded = _rounded(inside, products, program) if rounding is not None else frozenset()
    found = []
    others = stored(kernel for kernel in kernels(program.body) if kernel.name not in inside)
    for name in dict.fromkeys(load.buffer for _, load in read):
        dtype = rounding if rounding is not None and name in rounded else program.buffer(name).dtype
        mirror = _mirror(program.buffer(name), loop, list(inside.values()), slicings, dtype)
        if mirror is not None and any(mirror.holds(load.at, kernel) for kernel, load in read if load.buffer == name):
            back = any(mirror.age(x.at) == 1 for k in inside.values() for x in loads(k) if x.buffer == name)
            goes_on = mirror.start != index(0)  # this loop has stored the end of the chunk before
            exists = loop.reverse or mirror.ahead > 0 or goes_on  # the buffer may have the step before the first
            mirror = replace(mirror, filled=back and exists and (goes_on or name in others))
            product = mapped.get(mirror.stored_by)
            found.append(mirror if product is None else _in_units(mirror, inside, product, products[product]))
    return tuple(found)


def near_loads(kernel: Kernel, product: Product, found: Sequence[Mirror], program: Program) -> set[Load]:
    """The loads of a product that read mirrors. Their subscripts depend on the terms, so nothing else of the product's
    kernel makes the same loads."""
    inside = {dim.index for part in product.parts for dim in part.dims}
    by_name = {mirror.buffer.name: mirror for mirror in found}
    return {
        load
        for load in product.other_loads(Access(kernel, program))
        if load.buffer in by_name
        and by_name[load.buffer].holds(load.at, kernel.name)
        and any(isinstance(x, Index) and x.name in inside for at in load.at for x in walk(at))
    }


def _rounded(inside: Mapping[str, Kernel], products: Mapping[str, Product], program: Program) -> frozenset[str]:
    """The buffers whose elements products only round: each is an operand by itself, wherever a product reads it."""
    plain: set[str] = set()
    other: set[str] = set()
    for name, product in products.items():
        access = Access(inside[name], program)
        rounds = product.sums[0].value.dtype == "float32"
        for term in product.terms:
            bare = rounds and access.loaded(term.other)[0] is not None
            (plain if bare else other).update(load.buffer for load in access.loads(term.other))
    return frozenset(plain - other)


def _mirror(
    buffer: Buffer, loop: Loop, inside: Sequence[Kernel], slicings: Sequence[Slicing], dtype: str
) -> Mirror | None:
    """The mirror of a buffer, if one kernel stores it, one step of the loop at a time, and its lines have known
    size."""
    stores = [(kernel, store) for kernel in inside for store in kernel.stores if store.buffer == buffer.name]
    if len(stores) != 1 or stores[0][1].accumulate or buffer.dtype not in (*STORED, *FLOATS):
        return None
    kernel, store = stores[0]
    steps = [(k, in_steps(subscript, loop)) for k, subscript in enumerate(store.at)]
    places = [(k, *found) for k, found in steps if found is not None]
    if len(places) != 1:
        return None
    ((place, start, ahead),) = places
    sliced = _sliced(kernel, store, slicings)
    known = all(k in sliced or k == place or isinstance(dim, Const) for k, dim in enumerate(buffer.dims))
    later = frozenset(other.name for other in inside[inside.index(kernel) + 1 :])
    line: list[int] = []
    for k in reversed(range(len(buffer.dims))):
        if k in sliced or k == place:
            break
        line.insert(0, k)
    made = Mirror(buffer, loop, place, start, ahead, sliced, later, kernel.name, dtype, tuple(line), "")
    return made if known else None


def _in_units(mirror: Mirror, inside: Mapping[str, Kernel], name: str, product: Product) -> Mirror:
    """The mirror with the units of a product as its lines, if the storing points correspond to the product's points.
    The kernel that stores is the product's, or an epilogue of it."""
    kernel = inside[mirror.stored_by]
    (store,) = (store for store in kernel.stores if store.buffer == mirror.buffer.name)
    names = {other.index: own.index for own, other in zip(inside[name].dims, kernel.dims, strict=True)}
    dims = {
        names[subscript.name]: k
        for k, subscript in enumerate(store.at)
        if isinstance(subscript, Index) and subscript.name in names
    }
    apart = [dim.index for dim in product.apart]
    if len(dims) != len(kernel.dims) or len(mirror.buffer.dims) != len(dims) + 1:
        return mirror
    line = tuple(dims[index] for index in apart)
    if any(k in mirror.sliced for k in line) or not all(isinstance(mirror.buffer.dims[k], Const) for k in line):
        return mirror
    return replace(mirror, line=line, product=name)


def in_steps(subscript: Scalar, loop: Loop) -> tuple[Scalar, int] | None:
    """Take a subscript apart into start + index + k, with the loop's index and a start that is known before the loop;
    gives (start, k), or None if it has no such form."""
    offset = offset_from(subscript, loop.index)
    if offset is not None:
        return index(0), offset
    match subscript:
        case Call("add", (start, Index(name))) if name == loop.index and _is_known(start, loop):
            return start, 0
        case Call("add", (inner, Const(k))):
            found = in_steps(inner, loop)
            return None if found is None else (found[0], found[1] + int(k))
    return None


def _is_known(scalar: Scalar, loop: Loop) -> bool:
    """Whether a scalar depends on nothing but sizes and the indices of outer loops."""
    inside = {loop.index}
    for kernel in kernels((loop,)):
        inside |= {dim.index for dim in kernel.dims}
        inside |= {dim.index for reduce in kernel.reduces for dim in reduce.dims}
    parts = list(walk(scalar))
    known = all(isinstance(part, Const | Size | Call | Index) for part in parts)
    return known and not any(isinstance(part, Index) and part.name in inside for part in parts)


def _sliced(kernel: Kernel, store: Store, slicings: Sequence[Slicing]) -> dict[int, int]:
    """The sliced dims of a stored buffer, with the numbers of their slicings."""
    return {
        k: number
        for k, subscript in enumerate(store.at)
        for number, slicing in enumerate(slicings)
        if subscript == Index(slicing.dims[kernel.name])
    }
