"""What the parts of a Program use of each other: the buffers that statements load and store, the names in a kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.program import Buffer, Kernel, Let, Reduce, Statement, Store, kernels, scalars
from graphc.scalar import Call, Load, Ref, Scalar, replaced, walk

__all__ = [
    "Touch",
    "loaded",
    "loads",
    "name_counts",
    "reduce_references",
    "references",
    "store_counts",
    "stored",
    "terms",
    "touched",
    "touches",
    "used",
    "used_steps",
    "written_out",
]


# Buffers.


def loads(kernel: Kernel) -> Iterator[Load]:
    """Every load of a kernel, those inside subscripts and conditions too."""
    for scalar in scalars(kernel):
        if isinstance(scalar, Call | Load):
            yield from (part for part in walk(scalar) if isinstance(part, Load))


@dataclass(frozen=True, slots=True)
class Touch:
    """A load of an element of a buffer, or a store to it."""

    buffer: str
    at: tuple[Scalar, ...]
    store: bool


def touches(kernel: Kernel) -> Iterator[Touch]:
    """Every load of a kernel, then every store."""
    yield from (Touch(load.buffer, load.at, False) for load in loads(kernel))
    yield from (Touch(store.buffer, store.at, True) for store in kernel.stores)


def store_counts(body: Iterable[Statement]) -> Counter[str]:
    """How many stores there are to each buffer."""
    return Counter(store.buffer for kernel in kernels(body) for store in kernel.stores)


def loaded(body: Iterable[Statement]) -> set[str]:
    """The buffers that statements load."""
    return {load.buffer for kernel in kernels(body) for load in loads(kernel)}


def touched(body: Iterable[Statement]) -> list[str]:
    """The buffers that statements load or store to, in the order in which they appear."""
    return list(dict.fromkeys(touch.buffer for kernel in kernels(body) for touch in touches(kernel)))


def used(buffers: Iterable[Buffer], body: Iterable[Statement]) -> tuple[Buffer, ...]:
    """The buffers without the temporaries that no statement touches."""
    names = set(touched(body))
    return tuple(buffer for buffer in buffers if buffer.kind != "temp" or buffer.name in names)


def stored(body: Iterable[Statement]) -> set[str]:
    """The buffers that statements store to."""
    return {store.buffer for kernel in kernels(body) for store in kernel.stores}


# Names.


def references(scalar: Scalar | None) -> set[str]:
    """The names that a scalar uses."""
    return {part.name for part in walk(scalar) if isinstance(part, Ref)}


def name_counts(kernel: Kernel) -> Counter[str]:
    """How often a kernel uses each of its names."""
    return Counter(part.name for scalar in scalars(kernel) for part in walk(scalar) if isinstance(part, Ref))


def reduce_references(reduce: Reduce) -> set[str]:
    """The names that a reduction uses and that are made outside of it."""
    used = {name for scalar in (reduce.when, *reduce.values) for name in references(scalar)}
    return used - {let.name for let in reduce.body}


def terms(scalar: Scalar, lets: Mapping[str, Scalar]) -> Iterator[Scalar]:
    """The terms of a sum, followed through names. A name that occurs in it more than once is one term: written out, 30
    doublings would be a billion terms."""
    uses: Counter[str] = Counter()

    def count(part: Scalar) -> None:
        match part:
            case Ref(name) if name in lets:
                uses[name] += 1
                if uses[name] == 1:
                    count(lets[name])
            case Call("add", (a, b)):
                count(a)
                count(b)

    def found(part: Scalar) -> Iterator[Scalar]:
        match part:
            case Ref(name) if name in lets and uses[name] == 1:
                yield from found(lets[name])
            case Call("add", (a, b)):
                yield from found(a)
                yield from found(b)
            case _:
                yield part

    count(scalar)
    yield from found(scalar)


def written_out(scalar: Scalar, lets: Mapping[str, Scalar]) -> Scalar:
    """A scalar with what names stand for in their place; results of reductions stay names."""

    def rule(part: Scalar) -> Scalar | None:
        return replaced(lets[part.name], rule) if isinstance(part, Ref) and part.name in lets else None

    return replaced(scalar, rule)


def used_steps(body: Sequence[Let | Reduce], stores: Sequence[Store]) -> tuple[Let | Reduce, ...]:
    """The steps that the stores need, directly or through other steps."""
    used = {name for store in stores for scalar in (*store.at, store.value) for name in references(scalar)}
    kept: list[Let | Reduce] = []
    for step in reversed(body):
        if isinstance(step, Let):
            if step.name in used:
                used |= references(step.value)
                kept.append(step)
            continue
        sums = tuple(a for a in step.sums if a.name in used)
        if sums:
            used |= {name for a in sums for name in references(a.value)} | references(step.when)
            inner: list[Let] = []
            for let in reversed(step.body):
                if let.name in used:
                    used |= references(let.value)
                    inner.append(let)
            kept.append(replace(step, sums=sums, body=tuple(reversed(inner))))
    return tuple(reversed(kept))
