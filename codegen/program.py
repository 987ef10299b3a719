"""Program: the loop IR, and the whole contract between the compiler and its back ends.

    Program = sizes: name*, buffers: Buffer*, body: Statement*
    Statement = Loop(index, extent, reverse, body: Statement*)        steps in order, one after another
              | Kernel(dims: Dim*, body: (Let | Reduce)*, stores: Store*)   all points at once, in any order
    Dim     = index, extent
    Let     = name := Scalar
    Reduce  = dims: Dim*, when: Scalar?, body: Let*, sums: Accumulate*    for every point of the kernel
    Accumulate = name, op ("sum" | "max"), Scalar
    Store   = buffer[Scalar*] := Scalar, or += when `accumulate`

Statements run in order, and each sees everything the statements before it stored. The points of a kernel
are independent: none reads what another point of the same kernel stores, and no two store to one element,
except that an accumulating store adds up, in the order of the dims (the first is the outermost).

Names of `Let`s and accumulators are unique in a kernel and visible from where they stand to the kernel's end;
a `Let` inside a `Reduce` is visible inside that `Reduce` only. A `Reduce` skips the points where `when` is
false; over no points a sum is 0 and a max is the lowest value of its dtype.

A `Buffer` is a dense row-major array, except that a dimension may be a `Ring`: then the subscript counts
modulo its slots, which is how a value that only a few later steps read keeps only those steps. Elements of a float16 or
bfloat16 buffer are float32 where they are loaded, and are rounded to the nearest number where they are stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from graphc.scalar import Call, Const, Index, Load, Ref, Scalar, Size, lowest, walk, zero

__all__ = [
    "Accumulate",
    "Buffer",
    "Call",
    "Const",
    "Dim",
    "Index",
    "Kernel",
    "Kind",
    "Let",
    "Load",
    "Loop",
    "Program",
    "Reduce",
    "Ref",
    "Ring",
    "Scalar",
    "Size",
    "Statement",
    "Store",
    "fresh",
    "indices_of",
    "kernels",
    "map_kernel",
    "map_kernels",
    "map_reduce",
    "map_reduces",
    "nested_kernels",
    "numbered",
    "scalars",
]


@dataclass(frozen=True, slots=True)
class Ring:
    """A buffer dimension of `slots` places, addressed modulo `slots` by subscripts that only ever grow or shrink."""

    slots: int

    def __str__(self) -> str:
        return f"ring {self.slots}"


Kind = Literal["input", "param", "output", "temp"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of the program. The caller provides inputs, which are only read, and params, which may be stored to."""

    name: str
    dtype: str
    dims: tuple[Scalar | Ring, ...]
    kind: Kind

    @property
    def has_ring(self) -> bool:
        """Whether not all of its elements are kept."""
        return any(isinstance(dim, Ring) for dim in self.dims)

    @property
    def extents(self) -> tuple[Scalar, ...]:
        """The lengths of its dims, but for rings."""
        return tuple(dim for dim in self.dims if not isinstance(dim, Ring))

    @property
    def sizes(self) -> set[str]:
        """The names of the sizes that its own size depends on."""
        return {part.name for extent in self.extents for part in walk(extent) if isinstance(part, Size)}

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.dtype}[{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class Dim:
    """A dimension of a domain: `index` takes the values 0 ≤ index < extent."""

    index: str
    extent: Scalar

    @property
    def length(self) -> int | None:
        """How many points it has; None if that comes with the data."""
        return int(self.extent.value) if isinstance(self.extent, Const) else None

    def is_shorter(self, length: int) -> bool:
        """Whether it is known to have fewer points than that."""
        return self.length is not None and self.length < length

    def is_multiple(self, of: int) -> bool:
        """Whether it is known to have a multiple of so many points."""
        return self.length is not None and self.length % of == 0

    def __str__(self) -> str:
        return f"{self.index} < {self.extent}"


@dataclass(frozen=True, slots=True)
class Let:
    """A name for a value at one point."""

    name: str
    value: Scalar


@dataclass(frozen=True, slots=True)
class Accumulate:
    """A name for the sum or the maximum of a `value` over the points of a reduction."""

    name: str
    op: Literal["sum", "max"]
    value: Scalar

    @property
    def identity(self) -> Const:
        """What it comes to over no points."""
        return zero(self.value.dtype) if self.op == "sum" else lowest(self.value.dtype)


@dataclass(frozen=True, slots=True)
class Reduce:
    """Sums and maxima over all points of `dims` where `when` holds. `body` names values that they share."""

    dims: tuple[Dim, ...]
    sums: tuple[Accumulate, ...]
    body: tuple[Let, ...] = ()
    when: Scalar | None = None

    @property
    def values(self) -> tuple[Scalar, ...]:
        """All that is computed at each point where `when` holds."""
        return (*(let.value for let in self.body), *(total.value for total in self.sums))


@dataclass(frozen=True, slots=True)
class Store:
    """Puts a value at an element of a buffer, or with `accumulate` adds it to that element."""

    buffer: str
    at: tuple[Scalar, ...]
    value: Scalar
    accumulate: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is computed and stored at every point of `dims`, in any order of the points."""

    name: str
    dims: tuple[Dim, ...]
    body: tuple[Let | Reduce, ...]
    stores: tuple[Store, ...]

    @property
    def reduces(self) -> tuple[Reduce, ...]:
        """Its reductions, in order."""
        return tuple(step for step in self.body if isinstance(step, Reduce))

    @property
    def lets(self) -> dict[str, Scalar]:
        """What its names stand for, those inside reductions too, but not the results of reductions."""
        return {let.name: let.value for step in self.body for let in ((step,) if isinstance(step, Let) else step.body)}


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps one after another: `body` for each value 0 ≤ index < extent, from the last one down if `reverse`."""

    index: str
    extent: Scalar
    reverse: bool
    body: tuple[Statement, ...]


Statement = Loop | Kernel


@dataclass(frozen=True, slots=True)
class Program:
    """Statements, the buffers that they use, and the names of the `sizes` that come with a call."""

    name: str
    sizes: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    body: tuple[Statement, ...]
    declared: dict[str, Buffer] = field(init=False, repr=False, compare=False)  # the buffers, by name

    def __post_init__(self) -> None:
        object.__setattr__(self, "declared", {buffer.name: buffer for buffer in self.buffers})

    def buffer(self, name: str) -> Buffer:
        """The buffer of that name."""
        return self.declared[name]

    @property
    def names(self) -> set[str]:
        """Those of its buffers and kernels."""
        return {*self.declared, *(kernel.name for kernel in kernels(self.body))}

    def __str__(self) -> str:
        lines = [f"program {self.name}({', '.join('#' + s for s in self.sizes)})"]
        lines += [f"  {buffer}" for buffer in self.buffers]
        for statement in self.body:
            lines += _statement_lines(statement, "  ")
        return "\n".join(lines) + "\n"


def kernels(statements: Iterable[Statement]) -> Iterator[Kernel]:
    """Every kernel, in the order of the text."""
    for statement in statements:
        if isinstance(statement, Loop):
            yield from kernels(statement.body)
        else:
            yield statement


def nested_kernels(
    statements: Iterable[Statement], loops: tuple[Loop, ...] = ()
) -> Iterator[tuple[Kernel, tuple[Loop, ...]]]:
    """Every kernel, in the order of the text, with the loops around it, the outermost first."""
    for statement in statements:
        if isinstance(statement, Loop):
            yield from nested_kernels(statement.body, (*loops, statement))
        else:
            yield statement, loops


def map_kernels(statements: Iterable[Statement], rule: Callable[[Kernel], Kernel]) -> tuple[Statement, ...]:
    """The statements with a rule applied to every kernel."""
    return tuple(
        replace(statement, body=map_kernels(statement.body, rule)) if isinstance(statement, Loop) else rule(statement)
        for statement in statements
    )


def indices_of(dims: Iterable[Dim]) -> tuple[Index, ...]:
    """The indices of dims, as the subscripts of an array that has them."""
    return tuple(Index(dim.index) for dim in dims)


def numbered(extents: Iterable[Scalar]) -> tuple[Dim, ...]:
    """Dims d0, d1 and so on, of these lengths."""
    return tuple(Dim(f"d{k}", extent) for k, extent in enumerate(extents))


def fresh(wanted: str, taken: set[str]) -> str:
    """A name that is not taken, and is from now on: the wanted one, or that and a number."""
    names = itertools.chain([wanted], (f"{wanted}.{k}" for k in itertools.count(1)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def scalars(kernel: Kernel) -> Iterator[Scalar]:
    """All that a kernel computes, and where it stores; not the extents of its dims."""
    for step in kernel.body:
        if isinstance(step, Let):
            yield step.value
            continue
        yield from step.values
        if step.when is not None:
            yield step.when
    for store in kernel.stores:
        yield from (*store.at, store.value)


def map_kernel(kernel: Kernel, rule: Callable[[Scalar], Scalar]) -> Kernel:
    """A kernel with a rule applied to all that it computes and to where it stores; its domain stays."""

    def step(part: Let | Reduce) -> Let | Reduce:
        if isinstance(part, Let):
            return Let(part.name, rule(part.value))
        return map_reduce(part, rule)

    stores = tuple(Store(s.buffer, tuple(map(rule, s.at)), rule(s.value), s.accumulate) for s in kernel.stores)
    return Kernel(kernel.name, kernel.dims, tuple(map(step, kernel.body)), stores)


def map_reduces(kernel: Kernel, rule: Callable[[Reduce], Reduce]) -> Kernel:
    """A kernel with a rule applied to each of its reductions."""
    return replace(kernel, body=tuple(rule(step) if isinstance(step, Reduce) else step for step in kernel.body))


def map_reduce(reduce: Reduce, rule: Callable[[Scalar], Scalar]) -> Reduce:
    """A reduction with a rule applied to all that it computes; what it runs over stays."""
    body = tuple(Let(let.name, rule(let.value)) for let in reduce.body)
    sums = tuple(Accumulate(total.name, total.op, rule(total.value)) for total in reduce.sums)
    return Reduce(reduce.dims, sums, body, None if reduce.when is None else rule(reduce.when))


def _statement_lines(statement: Statement, indent: str) -> Iterator[str]:
    if isinstance(statement, Loop):
        direction = "down" if statement.reverse else "up"
        yield f"{indent}loop {statement.index} < {statement.extent} {direction}"
        for inner in statement.body:
            yield from _statement_lines(inner, indent + "  ")
        return
    yield f"{indent}kernel {statement.name}({', '.join(map(str, statement.dims))})"
    for step in statement.body:
        if isinstance(step, Let):
            yield f"{indent}  %{step.name} = {step.value}"
            continue
        when = "" if step.when is None else f" when {step.when}"
        yield f"{indent}  reduce({', '.join(map(str, step.dims))}){when}"
        for let in step.body:
            yield f"{indent}    %{let.name} = {let.value}"
        for total in step.sums:
            yield f"{indent}    %{total.name} = {total.op} {total.value}"
    for store in statement.stores:
        sign = "+=" if store.accumulate else "="
        yield f"{indent}  {store.buffer}[{', '.join(map(str, store.at))}] {sign} {store.value}"
