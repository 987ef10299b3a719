"""fuse: tasks over one domain become one kernel.

Two tasks join when they stand in the same loop, have the same domain, share something that they read or sum over, and
neither needs the other's value anywhere but at its own point, so that it can stay in a register. What they share is
computed once: the gate products of an LSTM read the same operand over the same domain, so they are one kernel, and so
are the gates' elementwise work and the new state. Nothing here knows what an LSTM is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import networkx

from graphc.codegen.program import Dim, Kernel
from graphc.codegen.uses import loads
from graphc.ir import Axis, Node
from graphc.ops.axis import STACK
from graphc.ops.event import CONCAT
from graphc.scheduling.kernel import KernelBuilder, Memory, Read
from graphc.scheduling.schedule import DEEPEST, LoopNest, Task

MOST_SUMS = 8  # accumulators in one reduction: more would not fit the vector registers
MOST_TASKS = 24
NEIGHBOURS = 12  # how many earlier groups a task is compared with

Domain = tuple[frozenset[Axis], tuple[int, ...]]


@dataclass(eq=False)
class Group:
    """Tasks that make up one kernel. `alone` is that of the first task."""

    tasks: list[Task]
    loops: tuple[Axis, ...]
    first: int
    alone: Kernel

    @property
    def domain(self) -> Domain:
        """What a kernel's points are: the axes that no loop around it walks, and the shape of its values."""
        task = self.tasks[0]
        return frozenset(task.axes) - set(self.loops), task.shape


@dataclass(frozen=True)
class TaskFacts:
    """What a task reads and how big it is, from lowering it alone to a kernel.

    Take y[t] = x[t] / s[t] + y[t - 1] in a loop over t, where x = exp(u * y[t - 1]) has several elements and s is their
    sum. The task of y `needs` x and s; x may stay in a register, but s is one number for all elements, so not at their
    own point, and `must_be_stored`. The task of x reads y of an earlier step, and `needs` nothing."""

    kernel: Kernel
    reads: frozenset[Read]  # values of tasks
    buffers: frozenset[str]  # everything that it loads
    loaded_elsewhere: frozenset[str]  # those of them that it may load at other elements than the one it computes
    sums: int
    depth: int  # how many operations stand one on the other
    ranges: frozenset[tuple[Dim, ...]]  # what its reductions run over

    def needs(self, loops: tuple[Axis, ...]) -> set[Node]:
        """The values that it reads in the same step of these loops. What it reads of an earlier step is there
        already."""
        return {r.node for r in self._same_step(loops)}

    def must_be_stored(self, loops: tuple[Axis, ...]) -> set[Node]:
        """Those that cannot stay in a register: it reads them at other points than its own, or no one task makes
        them."""
        return {r.node for r in self._same_step(loops) if not r.own_point or r.node.op in (STACK, CONCAT)}

    def _same_step(self, loops: tuple[Axis, ...]) -> list[Read]:
        return [r for r in self.reads if not any(offset for axis, offset in r.offsets if axis in loops)]


@dataclass(eq=False)
class FusedLoop:
    """A loop, and the groups and loops in it."""

    nest: LoopNest
    body: list[Item]
    first: int


Item = Group | FusedLoop
"""A statement; `first` is the place of its first task among those around it in the schedule."""

Facts = dict[Task, TaskFacts]
Order: TypeAlias = "networkx.DiGraph[Item]"
"""Edges from what must come before."""


def fuse(memory: Memory, body: Sequence[Task | LoopNest]) -> list[Item]:
    """The statements of a schedule, with tasks joined to groups, in an order in which each follows what it reads."""
    return _fused(memory, body, (), {})


def _fused(memory: Memory, body: Sequence[Task | LoopNest], loops: tuple[Axis, ...], facts: Facts) -> list[Item]:
    """The statements inside loops; adds the facts of all their tasks."""
    items: list[Item] = []
    for position, entry in enumerate(body):
        if isinstance(entry, LoopNest):
            items.append(FusedLoop(entry, _fused(memory, entry.body, (*loops, entry.axis), facts), position))
        else:
            facts[entry] = _facts(memory, entry, loops)
            items.append(Group([entry], loops, position, facts[entry].kernel))
    order = _dependencies(items, facts, loops)
    groups = [item for item in items if isinstance(item, Group)]
    kept: dict[Domain, list[Group]] = {}
    for group in groups:
        alike = kept.setdefault(group.domain, [])
        partner = _partner(group, alike, order, facts)
        if partner is None:
            alike.append(group)
        else:
            _join(partner, group, order)
    return list(networkx.lexicographical_topological_sort(order, key=lambda item: item.first))


def _facts(memory: Memory, task: Task, loops: tuple[Axis, ...]) -> TaskFacts:
    builder = KernelBuilder(memory, loops, task.axes, task.shape)
    builder.add(task)
    kernel = builder.kernel("alone")
    loaded = list(loads(kernel))
    return TaskFacts(
        kernel,
        reads=frozenset(r for r in builder.reads if r.node is not task.node or task.into),
        buffers=frozenset(load.buffer for load in loaded),
        loaded_elsewhere=frozenset(load.buffer for load in loaded if load.at != builder.own_element(load.buffer)),
        sums=sum(len(reduce.sums) for reduce in kernel.reduces),
        depth=max(builder.depth.values(), default=0),
        ranges=frozenset(reduce.dims for reduce in kernel.reduces),
    )


def _dependencies(items: Sequence[Item], facts: Facts, loops: tuple[Axis, ...]) -> Order:
    """Edges from what computes a value to what reads it, and from what reads an array to what overwrites it."""
    makers: dict[Node, list[Item]] = {}
    needs: dict[Item, set[Node]] = {}
    readers: dict[str, list[Item]] = {}
    for item in items:
        needs[item] = set()
        for task in _tasks(item):
            known = facts[task]
            if task.into is None:
                makers.setdefault(task.node, []).append(item)
            needs[item] |= known.needs(loops)
            for name in known.buffers:
                readers.setdefault(name, []).append(item)
    order: Order = networkx.DiGraph()
    order.add_nodes_from(items)
    for item in items:
        order.add_edges_from(
            (maker, item) for node in needs[item] for maker in makers.get(node, ()) if maker is not item
        )
        if isinstance(item, Group) and item.tasks[0].into is not None:
            order.add_edges_from((r, item) for r in readers.get(item.tasks[0].into, ()) if r is not item)
    return order


def _tasks(item: Item) -> Iterator[Task]:
    if isinstance(item, Group):
        yield from item.tasks
    else:
        for inner in item.body:
            yield from _tasks(inner)


def _partner(group: Group, candidates: Sequence[Group], order: Order, facts: Facts) -> Group | None:
    """An earlier group of this one's domain that it can join, best one whose values it needs."""
    if group.tasks[0].into is None:  # a copy joins what makes its value, however far back; one more pass otherwise
        candidates = candidates[-NEIGHBOURS:]
    own = [facts[task] for task in group.tasks]
    needed = {node for known in own for node in known.needs(group.loops)}
    buffers = {name for known in own for name in known.buffers}
    ranges = {dims for known in own for dims in known.ranges}

    def relation(earlier: Group) -> int:
        """2: its values are needed; 1: it reads the same memory, or sums over the same range; else 0."""
        if any(task.node in needed for task in earlier.tasks):
            return 2
        others = [facts[task] for task in earlier.tasks]
        return int(any(not (k.buffers.isdisjoint(buffers) and k.ranges.isdisjoint(ranges)) for k in others))

    related = [(g, relation(g)) for g in reversed(candidates)]
    for candidate, _ in sorted(((g, s) for g, s in related if s > 0), key=lambda pair: -pair[1]):
        if _can_join(candidate, group, order, facts):
            return candidate
    return None


def _can_join(first: Group, second: Group, order: Order, facts: Facts) -> bool:
    tasks = [*first.tasks, *second.tasks]
    made = {t.node for t in tasks}
    computed = [t for t in tasks if t.into is None]  # copies to the caller's arrays only add stores
    if len(computed) > MOST_TASKS or sum(facts[t].sums for t in tasks) > MOST_SUMS:
        return False
    if any(facts[t].must_be_stored(first.loops) & made for t in tasks) or _depth(tasks, first.loops, facts) > DEEPEST:
        return False
    overwritten = {t.into for t in tasks}
    if any(facts[t].loaded_elsewhere & overwritten for t in tasks):
        return False
    return not _passes(first, second, order)


def _passes(first: Group, second: Group, order: Order) -> bool:
    """Whether the second group needs something that needs the first. Nothing that stands behind the second can be on
    such a way, as no group that was joined so far has a task from there."""
    waiting = [item for item in order.successors(first) if item is not second]
    seen = set(waiting)
    while waiting:
        item = waiting.pop()
        if item is second:
            return True
        if item.first < second.first:
            new = [s for s in order.successors(item) if s not in seen]
            waiting += new
            seen.update(new)
    return False


def _depth(tasks: Sequence[Task], loops: tuple[Axis, ...], facts: Facts) -> int:
    """How many operations at most stand one on the other in a kernel of these tasks."""
    depth: dict[Node, int] = {}
    for task in tasks:
        below = max((depth.get(node, 0) for node in facts[task].needs(loops)), default=0)
        depth[task.node] = max(depth.get(task.node, 0), facts[task].depth + below)
    return max(depth.values())


def _join(first: Group, second: Group, order: Order) -> None:
    """Move the second group's tasks to the first, which from then on stands after all that either needs."""
    first.tasks += second.tasks
    order.add_edges_from((p, first) for p in list(order.predecessors(second)) if p is not first)
    order.add_edges_from((first, s) for s in list(order.successors(second)))
    order.remove_node(second)
