"""Which kernels of a loop must wait for all that others do before them.

In: a `Loop`, and when two accesses are made by the same thread, which the back end knows. Out: the names of the kernels
that need a barrier before them. A barrier is left out only where it is proven needless: no two accesses to one buffer,
one of them a store, with no barrier between them, unless one thread makes both, or they lie at different steps of the
loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from graphc.codegen.program import Buffer, Kernel, Load, Loop, Ring, Statement
from graphc.codegen.uses import Touch, loads
from graphc.scalar import offset_from

__all__ = ["Access", "barriers"]

_FURTHEST = 2  # steps of a loop: what was accessed before may be any number of steps old

Owner = TypeVar("Owner")


@dataclass(frozen=True, slots=True)
class Access(Touch, Generic[Owner]):
    """A load or store since the last barrier. `owner` says how its kernel is shared out. `age` counts, for each loop,
    the steps since the access; None: any number of them."""

    owner: Owner
    age: tuple[tuple[str, int | None], ...] = ()

    def aged(self, loop: str, step: int | None) -> Access[Owner]:
        """The access, so many steps of a loop ago."""
        return replace(self, age=tuple(sorted((dict(self.age) | {loop: step}).items(), key=lambda item: item[0])))

    def older(self, loop: str) -> Access[Owner]:
        """The access, one more step of a loop ago."""
        age = dict(self.age).get(loop, 0)
        return self.aged(loop, None if age is None or age >= _FURTHEST else age + 1)


SameThread = Callable[[Access[Owner], Access[Owner], Buffer], bool]


def barriers(
    loop: Loop,
    owners: Mapping[str, Owner],
    buffers: Mapping[str, Buffer],
    same_thread: SameThread[Owner],
    elsewhere: Mapping[str, Set[Load]] | None = None,
) -> frozenset[str]:
    """The kernels before which threads must meet. `owners` says of each kernel how it is shared out. `same_thread` says
    of two accesses to a buffer whether one thread makes both to any element that both touch. `elsewhere` has the loads
    of a kernel that do not touch their buffer."""
    search = _Search(owners, buffers, same_thread, elsewhere or {}, set())
    search.walk((loop,), frozenset(), {})
    return frozenset(search.needed)


@dataclass(frozen=True, slots=True)
class _Search(Generic[Owner]):
    owners: Mapping[str, Owner]
    buffers: Mapping[str, Buffer]
    same_thread: SameThread[Owner]
    elsewhere: Mapping[str, Set[Load]]
    needed: set[str]

    def walk(
        self, statements: Sequence[Statement], pending: frozenset[Access[Owner]], loops: Mapping[str, Loop]
    ) -> frozenset[Access[Owner]]:
        """Find the kernels that need a barrier before them. `pending` is what was accessed since the last barrier; the
        result is what is pending at the end."""
        for statement in statements:
            if isinstance(statement, Kernel):
                own = frozenset(
                    _accesses(statement, self.owners[statement.name], self.elsewhere.get(statement.name, frozenset()))
                )
                if statement.name in self.needed or self._conflict(pending, own, loops):
                    self.needed.add(statement.name)
                    pending = frozenset()
                pending |= own
                continue
            entry = frozenset(access.aged(statement.index, None) for access in pending)
            while True:  # what one step leaves pending, the next one meets
                after = self.walk(statement.body, entry, {**loops, statement.index: statement})
                entering = entry | {access.older(statement.index) for access in after}
                if entering == entry:
                    break
                entry = entering
            pending |= {access.aged(statement.index, None) for access in after}
        return pending

    def _conflict(
        self, before: frozenset[Access[Owner]], after: frozenset[Access[Owner]], loops: Mapping[str, Loop]
    ) -> bool:
        return any(
            a.buffer == b.buffer
            and (a.store or b.store)
            and not self.same_thread(a, b, self.buffers[a.buffer])
            and not _apart(a, b, loops, self.buffers[a.buffer])
            for a in before
            for b in after
        )


def _accesses(kernel: Kernel, owner: Owner, elsewhere: Set[Load]) -> Iterator[Access[Owner]]:
    for load in loads(kernel):
        if load not in elsewhere:
            yield Access(load.buffer, load.at, False, owner)
    for store in kernel.stores:
        yield Access(store.buffer, store.at, True, owner)


def _apart(a: Access[Owner], b: Access[Owner], loops: Mapping[str, Loop], buffer: Buffer) -> bool:
    """Whether two accesses lie at different places along a loop; `a` was made before `b`, by the steps of its age."""
    ages = dict(a.age)
    for x, y, dim in zip(a.at, b.at, buffer.dims, strict=True):
        for name, loop in loops.items():
            first, second, age = offset_from(x, name), offset_from(y, name), ages.get(name, 0)
            if first is None or second is None or age is None:
                continue
            distance = second - first + (-age if loop.reverse else age)
            if distance % dim.slots if isinstance(dim, Ring) else distance:
                return True
    return False
