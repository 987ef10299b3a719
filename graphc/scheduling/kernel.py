"""Building one kernel: tasks of one domain become lets, reductions and stores.

A value that has memory is loaded; one that this kernel computed already is a name; any other is computed on the spot
by its op's lowering rule. Each element is computed once, however many places use it (`graphc.scheduling.lets`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from graphc.checks.causality import in_memory, resolve
from graphc.codegen.program import Accumulate, Dim, Kernel, Let, Reduce, Store
from graphc.ir import Axis, Node, lengths_within, merge_axes
from graphc.language.graph import Graph
from graphc.ops.axis import STACK
from graphc.ops.event import CONCAT, concat_starts
from graphc.ops.leaves import CONST
from graphc.ops.site import Event, Place, Reduction
from graphc.scalar import (
    Index,
    Load,
    Ref,
    Scalar,
    Size,
    call,
    cast,
    computed,
    conjunction,
    index,
    offset_from,
    zero,
)
from graphc.scheduling.lets import Lets
from graphc.scheduling.schedule import Task


def extent(axis: Axis) -> Scalar:
    """The length of arrays along an axis."""
    return index(axis.length) if isinstance(axis.length, int) else Size(axis.root.name)


@dataclass(frozen=True, slots=True)
class Read:
    """A value of another task that is read from memory, at the kernel's own point or elsewhere. `offsets` say how far
    off along loops."""

    node: Node
    own_point: bool
    offsets: tuple[tuple[Axis, int], ...]


@dataclass
class Memory:
    """Where values lie: the buffers of tasks' values, by name, and the constant arrays. `kernels` are the names of the
    kernels made."""

    graph: Graph
    names: dict[Node, str]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    kernels: set[str] = field(default_factory=set)

    def constant(self, array: np.ndarray) -> str:
        """The name of the buffer that holds a constant array; equal arrays share one."""
        for name, known in self.constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and known.tobytes() == array.tobytes():
                return name
        name = f"const.{len(self.constants)}"
        self.constants[name] = array
        return name


class KernelBuilder:
    """Lowers tasks, in order, to one kernel over their common domain, inside loops over `loops`."""

    def __init__(self, memory: Memory, loops: Sequence[Axis], axes: Sequence[Axis], shape: Sequence[int]) -> None:
        self.memory = memory
        self.graph = memory.graph
        self.loops = tuple(loops)
        own = [a for a in axes if a not in loops]
        self.dims = [Dim(a.name, extent(a)) for a in own]
        self.dims += [Dim(f"e.{k}", index(s)) for k, s in enumerate(shape) if s > 1]
        self.point: dict[Axis, Scalar] = {a: Index(a.name) for a in (*own, *loops)}
        self.event: Event = tuple(Index(f"e.{k}") if s > 1 else index(0) for k, s in enumerate(shape))
        self.lets = Lets()
        self.done: dict[Node, Scalar] = {}
        self.stores: list[Store] = []
        self.reads: dict[Read, None] = {}
        self.tasks: list[Task] = []
        self.depth: dict[Node, int] = {}  # how many operations stand one on the other in a value computed here

    def add(self, task: Task) -> None:
        """Compute a task's value and store it."""
        self.tasks.append(task)
        point = {a: self.point[a] for a in task.axes}
        if task.part is not None:
            value = self._existing(task.node, self.value(task.value, point, self.event, None))
        elif task.into is None:
            compute = self.value if in_memory(task.node) else self._compute
            value = self._existing(task.node, compute(task.node, point, self.event, None))
            self.done[task.node] = value
        else:  # a copy of what was computed before any of the caller's arrays was overwritten
            value = self.done.get(task.node) or self._load_task(task.node, point, self.event, None)
        self.stores.append(self._store(task, value))

    def kernel(self, name: str) -> Kernel:
        """The kernel of the tasks that were added."""
        return Kernel(name, tuple(self.dims), tuple(self.lets.scope.steps), tuple(self.stores))

    def own_element(self, name: str) -> tuple[Scalar, ...] | None:
        """The subscripts of a param or an input at the kernel's own point and event; None if it has axes that the
        kernel lacks."""
        axes = self.graph.inputs[name].axes if name in self.graph.inputs else ()
        return (*(self.point[a] for a in axes), *self.event) if set(axes) <= set(self.point) else None

    def _store(self, task: Task, value: Scalar) -> Store:
        node, event, point = task.node, list(self.event), dict(self.point)
        if task.into is not None:
            at = self.own_element(task.into)
            assert at is not None, "an array is overwritten over all of its axes"
            return Store(task.into, at, value)
        if task.part is not None and node.op is STACK:
            point[node["axis"]] = index(task.part)
        elif task.part is not None and node.op is CONCAT:
            dim = node["dim"]
            event[dim] = call("add", event[dim], index(concat_starts(node)[task.part]))
        return Store(self.memory.names[node], (*(point[a] for a in node.axes), *event), value)

    def _existing(self, node: Node, value: Scalar) -> Scalar:
        """The value, but 0 at points past an example's length, which do not exist."""
        for axis in node.axes:
            if lengths_within(axis, node.axes) is not None and axis in self.point:
                exists = call("lt", self.point[axis], self.length(axis, node.axes, self.point, None))
                value = self.lets.let(call("select", self.lets.let(exists), value, zero(computed(node.dtype))))
        return value

    # Values.

    def value(self, node: Node, point: Place, event: Event, when: Scalar | None) -> Scalar:
        """The scalar that is an element of a node."""
        node = resolve(self.graph, node)
        point = {a: point[a] for a in node.axes}
        event = _broadcast(event, node.shape)
        if node in self.done and self._is_own(point, event):
            return self.done[node]
        if node.op is not CONST and (in_memory(node) or node in self.memory.names):
            return self._load(node, point, event, when)
        return self._compute(node, point, event, when)

    def _load(self, node: Node, point: Place, event: Event, when: Scalar | None) -> Scalar:
        if in_memory(node):
            return Load(str(node["name"]), (*(point[a] for a in node.axes), *event), computed(node.dtype), when)
        return self._load_task(node, point, event, when)

    def _load_task(self, node: Node, point: Place, event: Event, when: Scalar | None) -> Scalar:
        """What a task stored."""
        offsets = tuple((a, offset_from(point[a], a.name)) for a in self.loops if a in point)
        known = tuple((a, o) for a, o in offsets if o is not None)
        self.reads[Read(node, self._is_own(point, event), known)] = None
        return Load(self.memory.names[node], (*(point[a] for a in node.axes), *event), computed(node.dtype), when)

    def _is_own(self, point: Place, event: Event) -> bool:
        return event == self.event and all(self.point.get(a) == p for a, p in point.items())

    def _compute(self, node: Node, point: Place, event: Event, when: Scalar | None) -> Scalar:
        assert node.op.lower is not None, f"{node.op.name} cannot be lowered"
        key = (node, tuple(point.values()), event, when)
        known = self.lets.known(key)
        if known is not None:
            return known
        home = self.lets.home([*point.values(), *event, *([] if when is None else [when])])
        with self.lets.at(home):
            result = self.lets.let(node.op.lower(node, KernelSite(self, node, point, event, when)))
        self.depth[node] = 1 + max((self.depth.get(resolve(self.graph, i), 0) for i in node.inputs), default=0)
        home.memo[key] = result
        return result

    def length(self, axis: Axis, axes: Sequence[Axis], point: Place, when: Scalar | None) -> Scalar:
        """How many points a value over `axes` has along an axis, at a point."""
        lengths = lengths_within(axis, axes)
        return extent(axis) if lengths is None else cast(self.value(lengths, point, (), when), "index")

    # Reductions.

    def reduce(
        self,
        site: KernelSite,
        op: Reduction,
        over: Sequence[Axis],
        extents: Sequence[int],
        value: Callable[[KernelSite, Event], Scalar],
    ) -> Scalar:
        """The sum or maximum, at a site, of a value over axes and extents."""
        dims = [Dim(a.name, extent(a)) for a in over] + [Dim(f"r.{k}", index(s)) for k, s in enumerate(extents)]
        if not dims:
            return value(site, ())
        with self.lets.inside(frozenset(d.index for d in dims)) as scope:
            inner_point = {**site.point, **{a: Index(a.name) for a in over}}
            when = self._exists(site.node, over, inner_point)
            inner = KernelSite(self, site.node, inner_point, site.event, site.when)
            element = value(inner, tuple(Index(f"r.{k}") for k in range(len(extents))))
        result = Ref(self.lets.fresh(), site.node.dtype)
        own = tuple(let for let in scope.steps if isinstance(let, Let))
        self.lets.append(Reduce(tuple(dims), (Accumulate(result.name, op, element),), own, when))
        return result

    def _exists(self, node: Node, over: Sequence[Axis], point: Place) -> Scalar | None:
        """The condition under which a point of the sum exists; None if all of them do."""
        axes = merge_axes(*(i.axes for i in node.inputs))
        conditions = []
        for axis in axes:
            lengths = lengths_within(axis, axes)
            if lengths is not None and (axis in over or any(a in over for a in lengths.axes)):
                conditions.append(call("lt", point[axis], self.length(axis, axes, point, None)))
        return conjunction(conditions)


class KernelSite:
    """What an op's lowering rule sees of the kernel (see `graphc.ops.site.Site`)."""

    def __init__(self, builder: KernelBuilder, node: Node, point: Place, event: Event, when: Scalar | None) -> None:
        self.builder = builder
        self.node = node
        self.point = point
        self.event = event
        self.when = when

    def read(
        self, k: int, *, event: Event | None = None, point: Place | None = None, when: Scalar | None = None
    ) -> Scalar:
        """An element of the node's k-th input, at this point and event or another, where `when` holds."""
        place = self.point if point is None else {**self.point, **point}
        condition = self.when
        if when is not None:
            when = self.builder.lets.let(when)
            condition = when if condition is None else self.builder.lets.let(call("and", condition, when))
        return self.builder.value(self.node.inputs[k], place, self.event if event is None else event, condition)

    def extent(self, axis: Axis) -> Scalar:
        """The length of arrays along an axis."""
        return extent(axis)

    def length(self, axis: Axis, axes: Sequence[Axis]) -> Scalar:
        """How many points there are along an axis. Calls check the lengths that they are given; this keeps even one
        that was changed since within the arrays."""
        length, most = self.builder.length(axis, axes, self.point, self.when), extent(axis)
        return length if length == most else call("max", index(0), call("min", length, most))

    def reduce(
        self,
        op: Reduction,
        over: Sequence[Axis],
        extents: Sequence[int],
        value: Callable[[KernelSite, Event], Scalar],
    ) -> Scalar:
        """The sum or maximum of a value over axes and extents."""
        return self.builder.reduce(self, op, over, extents, value)

    def constant(self, array: np.ndarray) -> Scalar:
        """The element of a constant array at this event."""
        name = self.builder.memory.constant(array)
        when = self.when if array.shape else None
        return Load(name, _broadcast(self.event, array.shape), computed(self.node.dtype), when)

    def let(self, value: Scalar) -> Scalar:
        """A name for a value that takes work to compute."""
        return self.builder.lets.let(value)


def _broadcast(event: Event, shape: Sequence[int]) -> Event:
    """The subscripts of an operand of this shape: its dimensions align with the last ones, and one of length 1
    repeats."""
    own = event[len(event) - len(shape) :]
    return tuple(index(0) if s == 1 else e for e, s in zip(own, shape, strict=True))
