"""alternatives: the ways in which a cycle could be computed, what each would cost, and why one is taken.

In: what is known of a cycle (`Facts`). Out: an `Alternative` for each way; the first is the one that code is made for.

- A **loop** takes the steps one after another. A step costs its instructions, its memory traffic, or the time until a
  stored state can be read again, whichever is longest.
- A **scan** combines steps that are affine in the states (`graphc.scheduling.lookahead`; Blelloch, "Prefix sums and
  their applications", 1990). It does the work of the loop, and besides stores and reads running products of
  coefficients; what it saves is waiting.
- In a **wavefront** the loop runs at the same time as others, or as what is computed before it for all steps, each on a
  thread of its own and one or more blocks of steps apart (`graphc.codegen.parallel.wavefront`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.checks.causality import Component
from graphc.differentiation.jacobian import Jacobian
from graphc.reporting.feeds import Feed
from graphc.reporting.phrases import many
from graphc.scheduling.lookahead import MOST_BYTES

MEMORY = 8.0  # bytes a cycle that come from memory
ROUND_TRIP = 12.0  # cycles until a stored state has come back and gone through a multiply-add
EXTRA_STREAMS = 4  # a scan writes each state and its coefficients' product once more, and reads both again


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to compute a cycle: "loop", "scan" or "wavefront". With None cycles, it is not possible."""

    name: str
    cycles: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A cycle, and what one step of its loop takes: `counted` cycles, bytes `moved` with the axis, and the bytes of its
    states.

    `units` are the elements of the states' events, `points` the points of their other axes. `ahead`: the loop takes two
    steps at once.
    """

    cycle: Component
    jacobian: Jacobian
    steps: int
    counted: float
    moved: float
    state_bytes: float
    units: int
    points: int
    lanes: int
    ahead: bool

    @property
    def step(self) -> float:
        """Cycles of one step on one core."""
        return max(self.counted, self.moved / MEMORY, ROUND_TRIP)


@dataclass(frozen=True, slots=True)
class Concurrent:
    """A wavefront that a cycle's loop is a stage of.

    `others` are the states of the other loops among its stages. A block has `block` steps, and the loop lags `lag`
    blocks behind the first stage. All stages take `cycles` in rounds, and `apart` one after another on as many threads.
    `made`: code runs it at these lengths.
    """

    others: tuple[str, ...]
    block: int
    lag: int
    cycles: float
    apart: float
    made: bool


def alternatives(facts: Facts, concurrent: Concurrent | None, feeds: Sequence[Feed]) -> tuple[Alternative, ...]:
    """The way that was taken, then those that were not. `feeds` are the cycles that this one reads from."""
    alone = _combined(facts) if facts.ahead else (_loop(facts), _scan(facts))
    if concurrent is not None and concurrent.made:
        return (_wavefront(concurrent), *(way for way in alone if way.name != "loop"))
    inside = concurrent.others if concurrent is not None else ()
    apart = [_apart(feed) for feed in feeds if not set(feed.maker.states) <= set(inside)]
    return (*alone, *([_wavefront(concurrent)] if concurrent is not None else []), *apart)


def _loop(facts: Facts) -> Alternative:
    return Alternative("loop", facts.steps * facts.step, "each step reads the one before")


def _combined(facts: Facts) -> tuple[Alternative, Alternative]:
    """Two steps at once, and the loop that it replaces."""
    halved = max(facts.counted, facts.moved / MEMORY, ROUND_TRIP / 2)
    scan = Alternative("scan", facts.steps * halved, "two steps are combined, so that half as often a step waits")
    return scan, Alternative("loop", facts.steps * ROUND_TRIP, "each step would wait for the one before")


def _scan(facts: Facts) -> Alternative:
    jacobian = facts.jacobian
    if facts.cycle.body and any(part.axis is not None for part in facts.cycle.body):
        return Alternative("scan", None, "the cycle runs along more than one axis")
    if not jacobian.affine:
        curved = ", ".join(s["name"] for s in jacobian.states if s not in jacobian.affine_states)
        return Alternative("scan", None, f"steps that are not affine in the states do not combine ({curved})")
    if not jacobian.diagonal:
        work = facts.steps * facts.points * facts.units**3 / facts.lanes
        return Alternative("scan", work, "a step is not diagonal, so to combine two is to multiply their matrices")
    cycles = facts.steps * (facts.step + EXTRA_STREAMS * facts.state_bytes / MEMORY)
    elements = facts.points * facts.units
    if facts.state_bytes <= MOST_BYTES:
        reason = "the coefficients of a step are not at hand, or come in vectors that are not full"
    else:
        reason = f"a step has {elements} elements to compute while it waits, and a scan stores and reads more of them"
    return Alternative("scan", cycles, reason)


def _wavefront(way: Concurrent) -> Alternative:
    who = f"the loop{'s' * (len(way.others) > 1)} of {', '.join(way.others)}" if way.others else "its products"
    behind = f", {many(way.lag, 'block')} behind the first" if way.lag else ""
    reason = f"it {'runs' if way.made else 'could run'} beside {who}, in blocks of {way.block} steps{behind}; one"
    return Alternative("wavefront", way.cycles, f"{reason} after another they take about {way.apart:,.0f} cycles")


def _apart(feed: Feed) -> Alternative:
    name = ", ".join(feed.maker.states)
    if None in feed.distances:
        reason = f"it reads all steps of {name} at once"
    elif not feed.alike:
        reason = f"the loop of {name} runs the other way, or along another axis"
    else:
        reason = f"what is computed between it and the loop of {name} needs all steps at once"
    return Alternative("wavefront", None, reason)
