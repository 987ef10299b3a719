"""Which launches of a call must wait for which: those that touch the same memory, if one of them changes it.

In: the launches, and where their buffers lie. Out: for each launch, the launches that must end before it. All others
may run at the same time: for example the loops of both directions. Loops that synchronise over the grid store to the
same counters, so they never run at the same time; that is needed, because each could keep the other's CTAs from the
chip. A loop on more than half of the chip runs alone: others would only delay its steps (measured: by 2 % of a training
step).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.codegen.cuda.launches import Launch

__all__ = ["order"]


def order(
    launches: Sequence[Launch], addresses: Mapping[str, int], sizes: Mapping[str, int]
) -> tuple[tuple[int, ...], ...]:
    """For each launch the numbers of those it must wait for. `addresses` of buffers and their `sizes` in bytes are by
    name. A launch that another one of these waits for is left out."""
    names = sorted({name for launch in launches for name in (*launch.loads, *launch.stores)})
    touching = _touching(names, addresses, sizes)
    stored = dict.fromkeys(names, -1)  # the last launch that did
    loaded: dict[str, list[int]] = {name: [] for name in names}  # the launches that loaded since
    found: list[tuple[int, ...]] = []
    before: list[int] = []  # for each launch, all that end before it, as bits
    alone = -1  # the last launch that runs alone
    for number, launch in enumerate(launches):
        needed = {alone, *(range(alone + 1, number) if launch.alone else ())}
        alone = number if launch.alone else alone
        needed |= {stored[other] for name in (*launch.loads, *launch.stores) for other in touching[name]}
        needed |= {k for name in launch.stores for other in touching[name] for k in loaded[other]}
        after: list[int] = []
        all_before = 0
        for k in sorted(needed - {-1}, reverse=True):
            if not all_before >> k & 1:
                after.append(k)
                all_before |= before[k] | 1 << k
        found.append(tuple(reversed(after)))
        before.append(all_before)
        for name in launch.loads:
            loaded[name].append(number)
        for name in launch.stores:
            stored[name] = number
            loaded[name] = []
    return tuple(found)


def _touching(names: Sequence[str], addresses: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """For each buffer those that share memory with it, and itself. Temporaries may share memory."""
    first = np.array([addresses[name] for name in names], np.uint64)
    after = first + np.array([max(1, sizes[name]) for name in names], np.uint64)
    shared = (first[:, None] < after) & (first < after[:, None])
    return {name: [names[int(k)] for k in np.flatnonzero(row)] for name, row in zip(names, shared, strict=True)}
