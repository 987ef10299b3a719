"""explain: what was chosen for each cycle of a graph, and why.

In: a graph. Out: an `Explanation`, read off the graph (edges, Jacobian) and off the Program that code is made of (what
left the loop, what was merged, what is kept), so that it says what was compiled and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, overload

import numpy as np

from graphc.checks.causality import Component, components, resolve
from graphc.codegen.cpu.machine import target_named
from graphc.codegen.cuda.isa.arch import DEFAULT_ARCH, Arch, arch_named
from graphc.codegen.lengths import evaluate
from graphc.codegen.memory.arena import buffer_bytes
from graphc.codegen.memory.budget import parse_bytes
from graphc.codegen.parallel.core import TYPICAL, Core
from graphc.codegen.parallel.partition import partition
from graphc.codegen.parallel.work_sharing import Estimator, shares
from graphc.codegen.program import Kernel, Loop, Program, Statement, kernels
from graphc.codegen.target import Precision, Target
from graphc.codegen.team.measure import this_core
from graphc.codegen.uses import loaded, stored
from graphc.differentiation.jacobian import Entry, Jacobian, jacobian
from graphc.errors import ArgumentError, Location
from graphc.integers import is_whole
from graphc.ir import MOST_POINTS, Axis, Node, size
from graphc.language.graph import Graph
from graphc.ops.axis import SHIFT
from graphc.pipeline.cuda_code import code_within, cuda_code
from graphc.pipeline.options import check_options
from graphc.pipeline.stages import Stages, stages
from graphc.reporting.alternatives import Concurrent, Facts, alternatives
from graphc.reporting.cuda_explanation import CudaExplanation, explain_cuda
from graphc.reporting.explanation import CycleExplanation, Explanation, StateRead
from graphc.reporting.feeds import Feed, feeds
from graphc.reporting.loop_summary import loop_summary
from graphc.scheduling.lookahead import lookahead

THREADS = 2  # that estimates of wavefronts are for
STEPS, POINTS = 128, 32  # the lengths assumed of an axis that a loop walks, and of another


@overload
def explain(
    graph: Graph,
    lengths: Mapping[str, int] | None = ...,
    triple: str | None = ...,
    arch: str = ...,
    features: str = ...,
    target: Literal["cpu"] = ...,
) -> Explanation: ...


@overload
def explain(
    graph: Graph,
    lengths: Mapping[str, int] | None = ...,
    *,
    arch: str = ...,
    target: Literal["cuda"],
    memory: str | int | None = ...,
    precision: Precision = ...,
) -> CudaExplanation: ...


def explain(
    graph: Graph,
    lengths: Mapping[str, int] | None = None,
    triple: str | None = None,
    arch: str = "",
    features: str = "",
    target: str = "cpu",
    memory: str | int | None = None,
    precision: Precision = "float32",
) -> Explanation | CudaExplanation:
    """What the compiler makes of each cycle: its edges, its Jacobian, what left its loop, what is kept, how it runs.

    `lengths` of axes that come with the data are what the estimates are made for; where none is given, 128 steps of an
    axis that a loop walks, and 32 points of any other. The machine is this one, or the one that `triple`, `arch` and
    `features` name as in `gc.emit`; `precision` is as in `gc.compile`. Raises `ArgumentError` if a length is given for
    no such axis.

    With `target="cuda"` it is said instead how loops and products run on a GPU: which CTAs meet in each step, and where
    the weights stay, with the estimates that decided it; of what runs with `memory` as in `gc.compile`.
    """
    check_options(
        target,
        for_cpu={"triple": triple, "features": features or None},
        for_cuda={"memory": memory},
        precision=precision,
    )
    if target == "cuda":
        return _on_a_gpu(stages(graph, ahead=False), arch_named(arch or DEFAULT_ARCH), lengths or {}, memory, precision)
    machine = target_named(triple, arch, features)
    core = this_core() if machine is Target.host() else TYPICAL
    return _Explainer(stages(graph, precision), machine, core, lengths or {}).explanation()


def _on_a_gpu(
    made: Stages, arch: Arch, lengths: Mapping[str, int], memory: str | int | None, precision: Precision
) -> CudaExplanation:
    sizes = _sizes(made.planned, components(made.prepared), lengths)
    if memory is None:
        return explain_cuda(cuda_code(made.planned, arch, precision), sizes)
    limit = parse_bytes(memory)
    code, chosen = code_within(limit, sizes, made.planned, arch, precision)
    return explain_cuda(code, chosen, limit)


class _Explainer:
    """One compilation, while it is explained."""

    def __init__(self, made: Stages, target: Target, core: Core, lengths: Mapping[str, int]) -> None:
        self.made = made
        self.graph, self.program = made.prepared, made.arranged
        self.target, self.core = target, core
        self.parts = components(self.graph)
        self.cycles = [part for part in self.parts if part.axis is not None]
        self.sizes = _sizes(self.program, self.cycles, lengths)
        self.partition = partition(made.program, target)
        self.carriers = lookahead(self.graph).carriers
        self.walked = [part for part in components(made.scheduled.graph) if part.axis is not None]
        self.summary = loop_summary(self.program, made)
        self.loops = {part: self._loop(part) for part in self.cycles}
        places = {id(statement): k for k, statement in enumerate(self.program.body)}
        self.positions = {part: places[id(loop)] for part, loop in self.loops.items()}
        estimator = Estimator(made.program, self.partition, self.sizes, self.core)
        chosen = shares(made.program, self.partition, self.sizes, THREADS, self.core).waves
        waves = zip(self.partition.wavefronts, chosen, strict=True)
        self.waves = [(wave, way or estimator.in_rounds(wave, THREADS), way is not None) for wave, way in waves]
        self.apart = [cycles for _, cycles in estimator.picks(THREADS)]  # of each statement, one after another

    def explanation(self) -> Explanation:
        structures = {part: jacobian(self.graph, part) for part in self.cycles}
        facts = {part: self._facts(part, structures[part]) for part in self.cycles}
        found = []
        between = feeds(self.graph, self.parts)
        for part in self.cycles:
            found.append(self._cycle(part, facts[part], [feed for feed in between if feed.reader is part]))
        return Explanation(self.made.graph.name, self.sizes, tuple(found))

    def _cycle(self, part: Component, facts: Facts, read: Sequence[Feed]) -> CycleExplanation:
        loop, structure = self.loops[part], facts.jacobian
        return CycleExplanation(
            states=tuple(s["name"] for s in structure.states),
            axes=tuple((axis.name, reverse) for axis, reverse in _walks(part)),
            reads=tuple(self._read(part, entry) for entry in structure.entries),
            affine=structure.affine,
            diagonal=structure.diagonal,
            before=tuple(map(self.summary.work, self.summary.before(loop))),
            inside=tuple(map(self.summary.work, kernels(loop.body))),
            after=tuple(map(self.summary.work, self.summary.after(loop))),
            memory=tuple(self.summary.memory(loop)),
            schedules=alternatives(facts, self._concurrent(part), read),
        )

    def _loop(self, part: Component) -> Loop:
        """The loop that computes a cycle, by its own states or by the one that carries it two steps at once."""
        names, states = self.made.lowered.names, set(part.states)
        made = next(w for w in self.walked if states & {self.carriers.get(name, name) for name in w.states})
        return self.summary.loop_of(names[node] for node in made.nodes if node in names)

    def _read(self, part: Component, entry: Entry) -> StateRead:
        delay = dict(entry.delay)
        first = next(axis for axis, _ in _walks(part))
        moved = [f"{a.name} {'-' if d < 0 else '+'} {abs(d)}" for a, d in delay.items() if d]
        operand = f"{entry.column['name']}[{', '.join(moved) or first.name}]"
        lines = tuple(dict.fromkeys(self._lines(part, entry)))
        return StateRead(entry.row["name"], operand, entry.pattern, tuple(a.name for a in entry.mixed), lines)

    def _lines(self, part: Component, entry: Entry) -> Iterator[Location]:
        """Where the user wrote the read: at the delay, or at what reads the state in the same step."""
        for node in part.nodes:
            if not any(resolve(self.graph, i) is resolve(self.graph, entry.column) for i in node.inputs):
                continue
            if node in self.graph.locations and (node["offsets"] if node.op is SHIFT else ()) == entry.delay:
                yield self.graph.locations[node]

    def _facts(self, part: Component, structure: Jacobian) -> Facts:
        loop = self.loops[part]
        steps = max(1, evaluate(loop.extent, self.sizes))
        bytes_each = [np.dtype(s.dtype).itemsize for s in structure.states]
        points = [self._points(s, loop) for s in structure.states]
        units = [size(s.shape) for s in structure.states]
        return Facts(
            cycle=part,
            jacobian=structure,
            steps=steps,
            counted=sum(self._cycles(s) for s in loop.body),
            moved=self._moved(loop) / steps,
            state_bytes=sum(b * p * u for b, p, u in zip(bytes_each, points, units, strict=True)),
            units=sum(units),
            points=max(points),
            lanes=self.target.lanes(max(bytes_each)),
            ahead=not set(part.states).isdisjoint(self.carriers.values()),
        )

    def _points(self, state: Node, loop: Loop) -> int:
        return math.prod(self._length(a) for a in state.axes if a.name != loop.index)

    def _length(self, axis: Axis) -> int:
        return axis.length if isinstance(axis.length, int) else self.sizes[axis.root.name]

    def _cycles(self, statement: Statement) -> float:
        """The counted cycles of a statement, with all repetitions by loops inside it."""
        if isinstance(statement, Kernel):
            return sum(self.partition.costs[statement.name].cycles(self.sizes, self.core))
        return evaluate(statement.extent, self.sizes) * sum(self._cycles(s) for s in statement.body)

    def _concurrent(self, part: Component) -> Concurrent | None:
        """The wavefront that a cycle's loop is a stage of, on two threads."""
        position = self.positions[part]
        for wave, way, chosen in self.waves:
            stage = next((k for k, s in enumerate(wave.stages) if s.position == position), None)
            if stage is not None and way is not None:
                others = {s.position for s in wave.stages} - {position}
                names = tuple(n for p in self.cycles if self.positions[p] in others for n in sorted(p.states))
                apart = sum(self.apart[s.position] for s in wave.stages)
                return Concurrent(names, way.block, way.lags[stage], way.cycles, apart, chosen)
        return None

    def _moved(self, loop: Loop) -> float:
        """Bytes of the values that the loop walks through once, from its first step to its last."""
        touched = [self.program.buffer(name) for name in loaded(loop.body) | stored(loop.body)]
        walked = [b for b in touched if loop.extent in b.dims and not b.has_ring]
        return float(sum(buffer_bytes(b, self.sizes) for b in walked))


def _sizes(program: Program, cycles: Sequence[Component], lengths: Mapping[str, int]) -> dict[str, int]:
    """The lengths that the estimates are made for."""
    if not isinstance(lengths, Mapping):
        raise ArgumentError(f"lengths are given by the names of axes, {{'t': 128}}, not as {lengths!r}")
    wrong = [name for name in lengths if name not in program.sizes]
    if wrong:
        known = ", ".join(program.sizes) or "none"
        raise ArgumentError(f"no length of axis {wrong[0]!r} comes with the data; the axes whose does are: {known}")
    walked = {axis.name for part in cycles for axis, _ in _walks(part)}
    for name, length in lengths.items():
        if not is_whole(length) or not 0 <= length <= MOST_POINTS:
            most = f"{MOST_POINTS:,}"
            raise ArgumentError(f"the length of axis {name!r} is a whole number from 0 to {most}, got {length!r}")
    return {name: int(lengths.get(name, STEPS if name in walked else POINTS)) for name in program.sizes}


def _walks(part: Component) -> Iterator[tuple[Axis, bool]]:
    """The axes that a cycle's loops walk, from the outermost inwards, each with whether it is walked from its end."""
    if part.axis is not None:
        yield part.axis, part.reverse
        yield from dict.fromkeys(walk for inner in part.body for walk in _walks(inner))
