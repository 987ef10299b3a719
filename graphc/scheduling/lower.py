"""lower: a scheduled and fused graph as a Program, with memory for every task's value over its whole domain.

`graphc.codegen.memory.plan` then takes back what needs no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graphc.checks.causality import resolve
from graphc.codegen.program import Buffer, Kernel, Loop, Program, Statement, fresh
from graphc.ir import Node
from graphc.language.graph import Graph
from graphc.ops.leaves import STATE
from graphc.scalar import Scalar, index
from graphc.scheduling.fuse import FusedLoop, Group, Item, fuse
from graphc.scheduling.kernel import KernelBuilder, Memory, extent
from graphc.scheduling.schedule import LoopNest, Schedule, Task


@dataclass(frozen=True, slots=True)
class Lowered:
    """A Program; the buffers in which outputs and tasks' values lie, by name; and the constant arrays that it reads."""

    program: Program
    outputs: Mapping[str, str]
    constants: Mapping[str, np.ndarray]
    names: Mapping[Node, str]


def lower(scheduled: Schedule) -> Lowered:
    """The Program of a schedule."""
    graph = scheduled.graph
    memory = Memory(graph, _names(graph, scheduled))
    body = tuple(_statement(memory, item) for item in fuse(memory, scheduled.body))
    outputs = {name: memory.names[resolve(graph, node)] for name, node in graph.outputs.items()}
    buffers = _buffers(graph, memory, set(outputs.values()))
    sizes = tuple(a.name for a in graph.axes.values() if a.is_open)
    return Lowered(Program(graph.name, sizes, buffers, body), outputs, memory.constants, memory.names)


def _statement(memory: Memory, item: Item) -> Statement:
    if isinstance(item, FusedLoop):
        nest = item.nest
        inner = tuple(_statement(memory, i) for i in item.body)
        return Loop(nest.axis.name, extent(nest.axis), nest.reverse, inner)
    return _kernel(memory, item)


def _kernel(memory: Memory, group: Group) -> Kernel:
    first, last = group.tasks[0], group.tasks[-1]
    wanted = last.into + ".update" if last.into else memory.names[last.node]
    name = fresh(wanted, memory.kernels)  # several may write one buffer: the parts of a concatenation
    if first is last:
        return replace(group.alone, name=name)
    builder = KernelBuilder(memory, group.loops, first.axes, first.shape)
    for task in group.tasks:
        builder.add(task)
    return builder.kernel(name)


def _names(graph: Graph, scheduled: Schedule) -> dict[Node, str]:
    """A buffer name for every value that a task computes: the name of an output or a state, or that of the op with a
    number."""
    outputs: dict[Node, str] = {}
    for name, node in graph.outputs.items():
        outputs.setdefault(resolve(graph, node), name)
    states = {resolve(graph, e.node): name for name, e in graph.states.items() if e.body is not None}
    taken = {*graph.inputs, *graph.params}
    names: dict[Node, str] = {}
    for task in _all_tasks(scheduled.body):
        if task.node in names:
            continue
        wanted = outputs.get(task.node) or states.get(task.node) or task.node.op.name
        names[task.node] = fresh(wanted, taken)
    return names


def _all_tasks(body: Sequence[Task | LoopNest]) -> list[Task]:
    tasks: list[Task] = []
    for item in body:
        tasks += _all_tasks(item.body) if isinstance(item, LoopNest) else [item]
    return tasks


def _buffers(graph: Graph, memory: Memory, outputs: set[str]) -> tuple[Buffer, ...]:
    given = [Buffer(n, v.dtype, _dims(v), _kind(graph, n)) for n, v in graph.inputs.items()]
    given += [Buffer(n, p.node.dtype, _dims(p.node), "param") for n, p in graph.params.items()]
    constants = [
        Buffer(n, a.dtype.name, tuple(index(s) for s in a.shape), "input") for n, a in memory.constants.items()
    ]
    made = [
        Buffer(name, node.dtype, _dims(node), "output" if name in outputs else "temp")
        for node, name in memory.names.items()
    ]
    return (*given, *constants, *made)


def _kind(graph: Graph, name: str) -> Literal["input", "param"]:
    """An input that a call overwrites is memory like a param's."""
    return "param" if name in graph.updates else "input"


def _dims(node: Node) -> tuple[Scalar, ...]:
    assert node.op is not STATE
    return (*(extent(a) for a in node.axes), *(index(s) for s in node.shape))
