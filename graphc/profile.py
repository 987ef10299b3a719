"""profile: where the time of a call goes, statement by statement of its Program.

In: a compiled graph's stages, its runner, and the arrays of a call. Out: a `Profile`, measured in calls that keep
clocks, each thread its own. What is called a statement's time is that of the thread that took longest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.anatomy import Anatomy, anatomy
from graphc.causality import components
from graphc.codegen.clock import has_clock
from graphc.codegen.cost import evaluate
from graphc.codegen.measure import this_core, tick
from graphc.codegen.program import Kernel, Loop, Reduce, Statement, kernels
from graphc.codegen.target import Target
from graphc.errors import ArgumentError, UnsupportedError
from graphc.ops.leaves import STATE
from graphc.runtime import Layout, Runner

if TYPE_CHECKING:
    from graphc.compile import Stages

_SMALL = 0.005  # of the time: parts that take less are named together
_WIDEST = 100  # characters of what is said of a part


@dataclass(frozen=True, slots=True)
class Part:
    """A statement: what it does, the seconds that it takes in a call, the operations of its products (a multiply-add is
    two), and how many threads share it."""

    what: str
    seconds: float
    operations: float
    threads: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of a call goes: of the one of several that was neither faster nor slower than most. `seconds` are
    those of the whole call on so many `threads`; `peak` is how many operations a second one core makes in products.
    `str` is a table.

    Parts that run beside each other, each on its own thread, take more together than the call. What the parts do not
    account for, threads wait for each other.
    """

    graph: str
    lengths: Mapping[str, int]
    seconds: float
    threads: int
    peak: float
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} = {length}" for name, length in self.lengths.items())
        many = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        about = f"{self.graph}{f', {sizes}' if sizes else ''}: {_duration(self.seconds)} a call on {many}"
        lines = [about, "", "      time  share  GFLOP/s  of peak  part"]
        small = [part for part in self.parts if part.seconds < _SMALL * self.seconds]
        lines += [self._line(part) for part in self.parts if part not in small]
        left = self.seconds - sum(part.seconds for part in self.parts)
        if small:
            lines.append(self._line(Part(f"{len(small)} more", sum(part.seconds for part in small), 0.0, 1)))
        if left > _SMALL * self.seconds:
            lines.append(self._line(Part("beginning, ending, and waiting for each other", left, 0.0, 1)))
        return "\n".join(lines) + "\n"

    def _line(self, part: Part) -> str:
        share = part.seconds / self.seconds
        rate = part.operations / part.seconds if part.seconds else 0.0
        speed = f"{rate * 1e-9:9.1f}{rate / (self.peak * part.threads):9.0%}" if rate else " " * 18
        what = part.what if len(part.what) <= _WIDEST else part.what[: _WIDEST - 1] + "…"
        return f"{_duration(part.seconds):>10}{share:7.1%}{speed}  {what}"


def profile(made: Stages, runner: Runner, given: Mapping[str, Any], calls: int) -> Profile:
    """Measure so many calls, after one that is not counted. What they update are copies."""
    if not has_clock(Target.host()):
        raise UnsupportedError("programs of this processor have no clock to read")
    if calls < 1:
        raise ArgumentError(f"a profile takes at least one call, got {calls}")
    copies = {name: np.array(array) if name in made.graph.updates else array for name, array in given.items()}
    call, clocks, layout = runner.clocked(copies)
    call()
    made_calls: list[tuple[float, np.ndarray]] = []
    for _ in range(calls):
        clocks[...] = 0
        begun = time.perf_counter()
        call()
        made_calls.append((time.perf_counter() - begun, clocks * tick()))
    seconds, spent = sorted(made_calls, key=lambda one: one[0])[calls // 2]
    core = this_core()
    return Profile(
        made.graph.name,
        {axis.name: extent for axis, extent in layout.sizes.items() if not isinstance(axis.length, int)},
        seconds,
        layout.shares.threads,
        2 * core.products * Target.host().lanes(4) * core.clock,
        tuple(_parts(made, layout, spent)),
    )


def _parts(made: Stages, layout: Layout, spent: np.ndarray) -> Iterator[Part]:
    words = _Words(made)
    for position, statement in enumerate(layout.code.program.body):
        each = spent[:, position]
        operations = words.operations(statement, layout.code.sizes)
        yield Part(
            words.statement(statement), float(each.max()), operations, max(1, int((each > each.max() / 10).sum()))
        )


class _Words:
    """What is said of the statements of a program, by the names that its values had before they shared memory."""

    def __init__(self, made: Stages) -> None:
        graph, names = made.scheduled.graph, made.lowered.names
        lines = {buffer: graph.locations[node] for node, buffer in names.items() if node in graph.locations}
        self.anatomy: Anatomy = anatomy(made.arranged, lines)
        self.kernels = {kernel.name: kernel for kernel in kernels(made.arranged.body)}
        self.states: dict[str, list[str]] = {}  # of the cycle that a buffer is part of
        for part in components(graph):
            if part.axis is not None:
                states = sorted(node["name"] for node in part.nodes if node.op is STATE)
                self.states |= {names[node]: states for node in part.nodes if node in names}

    def statement(self, statement: Statement) -> str:
        inside = [self.kernels.get(kernel.name, kernel) for kernel in kernels((statement,))]
        if isinstance(statement, Kernel):
            return str(self.anatomy.work(inside[0]))
        stored = [store.buffer for kernel in inside for store in kernel.stores]
        states = dict.fromkeys(state for name in stored for state in self.states.get(name, ()))
        where = "end" if statement.reverse else "start"
        return f"loop along {statement.index} from its {where}: {', '.join(states or dict.fromkeys(stored))}"

    def operations(self, statement: Statement, sizes: Mapping[str, int]) -> float:
        if isinstance(statement, Loop):
            return evaluate(statement.extent, sizes) * sum(self.operations(s, sizes) for s in statement.body)
        points = math.prod(evaluate(dim.extent, sizes) for dim in statement.dims)
        reduces = [step for step in statement.body if isinstance(step, Reduce)]
        products = self.anatomy.work(statement).products
        lengths = [math.prod(evaluate(dim.extent, sizes) for dim in reduce.dims) for reduce in reduces]
        return 2.0 * points * sum(p.count * length for p, length in zip(products, lengths, strict=True))


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
