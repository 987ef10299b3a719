"""Explanation: what the compiler made of a graph's cycles, as data and in words (see `graphc.reporting.explain`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc.differentiation.jacobian import Pattern
from graphc.errors import Location
from graphc.reporting.alternatives import Alternative
from graphc.reporting.phrases import at_lengths, many


@dataclass(frozen=True, slots=True)
class StateRead:
    """State `state` reads `operand`, written as in an equation (`h[t - 1]`), at these `lines` of the user's."""

    state: str
    operand: str
    pattern: Pattern
    mixed: tuple[str, ...]
    lines: tuple[Location, ...]

    def __str__(self) -> str:
        along = f", and all points of {', '.join(self.mixed)}" if self.mixed else ""
        return f"{self.state} reads {self.operand}{_places(self.lines)}: {self.pattern.value}{along}"


@dataclass(frozen=True, slots=True)
class Products:
    """`count` products over `length` elements, `together` of these at a time, added up in so many `accumulators`, in
    one pass. All of them read `shared`, if anything."""

    count: int
    accumulators: int
    length: str
    shared: tuple[str, ...]
    together: int = 1

    def __str__(self) -> str:
        if not self.count:
            return f"{many(self.accumulators, 'sum')} over {self.length} elements"
        text = f"{many(self.count, 'product')} over {self.length} elements"
        if self.count > self.accumulators:
            text += f", added up in {many(self.accumulators, 'accumulator')}"
        return text + (f", that share {' and '.join(self.shared)}" if self.shared else "")


@dataclass(frozen=True, slots=True)
class KernelWork:
    """A kernel: its reductions, how many operations it applies to their results, and what it stores."""

    name: str
    products: tuple[Products, ...]
    operations: int
    stores: tuple[str, ...]
    lines: tuple[Location, ...]

    def __str__(self) -> str:
        parts = [*map(str, self.products)]
        if self.operations:
            parts.append(many(self.operations, "operation") + (" on the results" if self.products else ""))
        if self.stores != (self.name,):
            parts.append(f"stores {', '.join(self.stores)}")
        return f"{self.name}{_places(self.lines)}: {'; '.join(parts) or 'a copy'}"


@dataclass(frozen=True, slots=True)
class Kept:
    """How many steps of a value are kept (None: all), and which kernels outside of its loop read it."""

    name: str
    steps: int | None
    readers: tuple[str, ...]
    is_output: bool

    @property
    def reason(self) -> str:
        """Why so many steps are kept, in words."""
        if self.steps is not None:
            back = "in the same step" if self.steps == 1 else f"at most {many(self.steps - 1, 'step')} later"
            return f"{many(self.steps, 'step')}, read in this loop only, {back}"
        reasons = ["an output"] if self.is_output else []
        reasons += [f"read by {', '.join(self.readers)}"] if self.readers else []
        return ", ".join(["every step", *reasons])


@dataclass(frozen=True, slots=True)
class CycleExplanation:
    """What is known of one cycle, and what was chosen for it: `schedules[0]`."""

    states: tuple[str, ...]
    axes: tuple[tuple[str, bool], ...]
    reads: tuple[StateRead, ...]
    affine: bool
    diagonal: bool
    before: tuple[KernelWork, ...]
    inside: tuple[KernelWork, ...]
    after: tuple[KernelWork, ...]
    memory: tuple[Kept, ...]
    schedules: tuple[Alternative, ...]

    @property
    def structure(self) -> str:
        """The step's Jacobian in words."""
        dense = any(read.pattern is Pattern.DENSE for read in self.reads)
        shape = "diagonal" if self.diagonal else "dense" if dense else "sparse, but not diagonal"
        return f"a step is {'affine' if self.affine else 'not affine'} in the states; its Jacobian is {shape}"

    def lines(self) -> Iterator[str]:
        """The lines of the explanation."""
        walks = [f"along {axis} {'from its end' if reverse else 'from its start'}" for axis, reverse in self.axes]
        yield f"cycle {', '.join(self.states)}: {', and in each step '.join(walks)}"
        yield f"  {self.structure}"
        yield from _section("edges", self.reads)
        yield from _section(f"before the loop, for all {self.axes[0][0]} at once", self.before)
        yield from _section("in each step", self.inside)
        yield from _section(f"after the loop, for all {self.axes[0][0]} at once", self.after)
        yield from _section("memory", self._memory())
        chosen, *others = self.schedules
        yield f"  schedule: a {chosen.name}: {chosen.reason}{_cost(chosen)}"
        for other in others:
            verdict = f"a {other.name} is {'not possible' if other.cycles is None else 'not made'}"
            yield f"    {verdict}: {other.reason}{_cost(other)}"

    def _memory(self) -> list[str]:
        """What is kept. Values of which the same is said share a line."""
        reasons: dict[str, list[str]] = {}
        for kept in self.memory:
            reasons.setdefault(kept.reason, []).append(kept.name)
        return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the compiler made of each cycle of a graph. `str` says it in words.

    Costs are estimates for the given `lengths` of the axes, in cycles of one core.
    """

    graph: str
    lengths: Mapping[str, int]
    cycles: tuple[CycleExplanation, ...]

    def __str__(self) -> str:
        if not self.cycles:
            return f"{self.graph} has no cycle: every value is computed over its whole domain at once\n"
        sizes = at_lengths(self.lengths)
        lines = [f"{self.graph}: {many(len(self.cycles), 'cycle')}" + (f"; estimates for {sizes}" if sizes else "")]
        for cycle in self.cycles:
            lines += ["", *cycle.lines()]
        return "\n".join(lines) + "\n"


def _section(title: str, items: Sequence[object]) -> Iterator[str]:
    if items:
        yield f"  {title}"
        yield from (f"    {item}" for item in items)


def _cost(alternative: Alternative) -> str:
    return "" if alternative.cycles is None else f" (about {alternative.cycles:,.0f} cycles)"


def _places(lines: Sequence[Location]) -> str:
    places = dict.fromkeys(f"{Path(line.file).name}:{line.line}" for line in lines)
    return f" ({', '.join(places)})" if places else ""
