"""Joins sums that one kernel stores and another only adds up: afterwards the first stores what they come to.

In: a Program. Out: a Program that computes the same, up to rounding, with fewer buffers:

    a[i] = Σ …;  b[i] = Σ …    and later    … + a[i] + … + b[i] + …
    becomes
    a[i] = Σ … + Σ …           and later    … + a[i] + …

where nothing else reads either. What the layer above gives back to the one below is such a sum, over the gates of its
cell. `graphc.codegen.passes.merge_sums` then makes one sum of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.program import (
    Call,
    Kernel,
    Let,
    Load,
    Program,
    Ref,
    Scalar,
    indices_of,
    kernels,
    map_kernels,
)
from graphc.codegen.uses import loads, name_counts, store_counts, used_steps
from graphc.scalar import call

__all__ = ["merge_stored_sums"]


@dataclass(frozen=True, slots=True)
class _Group:
    """Buffers that the kernel `maker` stores. The first of them is to hold the sum of all."""

    maker: str
    buffers: tuple[str, ...]


def merge_stored_sums(program: Program) -> Program:
    """The program in which a kernel stores the total of sums that another only adds up."""
    makers = _makers(program)
    counts = Counter(load.buffer for kernel in kernels(program.body) for load in loads(kernel))
    single = {name for name in makers if counts[name] == 1}
    groups: list[_Group] = []
    body = map_kernels(program.body, lambda kernel: _reading(kernel, single, makers, groups))
    if not groups:
        return program
    by_maker = {group.maker: [g for g in groups if g.maker == group.maker] for group in groups}
    dropped = {name for group in groups for name in group.buffers[1:]}
    return replace(
        program,
        buffers=tuple(buffer for buffer in program.buffers if buffer.name not in dropped),
        body=map_kernels(body, lambda kernel: _making(kernel, by_maker.get(kernel.name, ()))),
    )


def _makers(program: Program) -> dict[str, str]:
    """The temporaries in which a kernel outside of loops stores a sum at its own point, each with the name of that
    kernel."""
    stores = store_counts(program.body)
    found: dict[str, str] = {}
    for kernel in program.body:
        if not isinstance(kernel, Kernel):
            continue
        sums = {total.name for reduce in kernel.reduces for total in reduce.sums}
        own = indices_of(kernel.dims)
        for store in kernel.stores:
            buffer = program.declared[store.buffer]
            whole = store.at == own and not store.accumulate and not buffer.has_ring
            value = store.value
            alone = whole and stores[store.buffer] == 1 and buffer.kind == "temp" and buffer.dtype == "float32"
            if alone and isinstance(value, Ref) and value.name in sums:
                found[store.buffer] = kernel.name
    return found


# What adds them up.


def _reading(kernel: Kernel, single: set[str], makers: Mapping[str, str], groups: list[_Group]) -> Kernel:
    lets = {step.name: step.value for step in kernel.body if isinstance(step, Let)}
    uses = name_counts(kernel)
    inner = {name for value in lets.values() for name in _inside(value, lets, uses)}
    changed: dict[str, Scalar] = {}
    for name, value in lets.items():
        if name in inner:
            continue
        leaves = list(_leaves(value, lets, uses))
        kept = _kept(leaves, single, makers, groups)
        if len(kept) < len(leaves):
            changed[name] = kept[0]
            for leaf in kept[1:]:
                changed[name] = call("add", changed[name], leaf)
    if not changed:
        return kernel
    body = tuple(Let(s.name, changed.get(s.name, s.value)) if isinstance(s, Let) else s for s in kernel.body)
    return replace(kernel, body=used_steps(body, kernel.stores))


def _inside(value: Scalar, lets: Mapping[str, Scalar], uses: Mapping[str, int]) -> Iterator[str]:
    """The names that a sum adds and that nothing else uses."""
    match value:
        case Call("add", args):
            for argument in args:
                if isinstance(argument, Ref) and _is_term(argument, lets, uses):
                    yield argument.name


def _is_term(ref: Ref, lets: Mapping[str, Scalar], uses: Mapping[str, int]) -> bool:
    return ref.name in lets and uses[ref.name] == 1


def _leaves(value: Scalar, lets: Mapping[str, Scalar], uses: Mapping[str, int]) -> Iterator[Scalar]:
    """What a value adds up, through names that nothing else uses."""
    match value:
        case Call("add", (a, b), dtype) if dtype == "float32":
            yield from _leaves(a, lets, uses)
            yield from _leaves(b, lets, uses)
        case Ref() as ref if _is_term(ref, lets, uses) and _is_sum(lets[ref.name]):
            yield from _leaves(lets[ref.name], lets, uses)
        case _:
            yield value


def _is_sum(value: Scalar) -> bool:
    return isinstance(value, Load) or (isinstance(value, Call) and value.fn == "add")


def _kept(leaves: Sequence[Scalar], single: set[str], makers: Mapping[str, str], groups: list[_Group]) -> list[Scalar]:
    """The leaves without those that are added to another leaf where they are made; notes that in `groups`."""
    found: dict[tuple[str, tuple[Scalar, ...], Scalar | None], list[Load]] = {}
    for leaf in leaves:
        if isinstance(leaf, Load) and leaf.buffer in single:
            found.setdefault((makers[leaf.buffer], leaf.at, leaf.when), []).append(leaf)
    dropped: set[Scalar] = set()
    for (maker, _, _), joined in found.items():
        if len(joined) > 1:
            groups.append(_Group(maker, tuple(load.buffer for load in joined)))
            dropped.update(joined[1:])
    return [leaf for leaf in leaves if leaf not in dropped]


# What makes them.


def _making(kernel: Kernel, groups: Sequence[_Group]) -> Kernel:
    values = {store.buffer: store.value for store in kernel.stores}
    body, stores = list(kernel.body), list(kernel.stores)
    for group in groups:
        total = values[group.buffers[0]]
        for name in group.buffers[1:]:
            let = Let(f"{group.buffers[0]} with {name}", call("add", total, values[name]))
            body.append(let)
            total = Ref(let.name, "float32")
        stores = [
            replace(store, value=total) if store.buffer == group.buffers[0] else store
            for store in stores
            if store.buffer not in group.buffers[1:]
        ]
    return replace(kernel, body=tuple(body), stores=tuple(stores))
