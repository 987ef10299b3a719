"""alternatives: the ways in which a cycle could be computed, what each would cost, and why one is taken.

In: what is known of a cycle (`Facts`). Out: an `Alternative` for each way; the first is the one that code is made for.

- A **loop** takes the steps one after another. A step costs its instructions, its memory traffic, or the time until a
  stored state can be read again, whichever is longest.
- A **scan** combines steps that are affine in the states (`graphc.lookahead`; Blelloch, "Prefix sums and their
  applications", 1990). It does the work of the loop, and besides stores and reads running products of coefficients;
  what it saves is waiting.
- A **wavefront** runs a cycle beside the one that it reads from, on another core and some steps behind it. They meet
  after every block of steps, so what lies between the two loops stays a product of many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.causality import Component
from graphc.codegen.rounds import BARRIER, BEYOND
from graphc.jacobian import Jacobian
from graphc.lookahead import MOST_BYTES
from graphc.wavefront import Feed

ROUND_TRIP = 12.0  # cycles until a stored state has come back and gone through a multiply-add
BLOCK = 32  # steps between two meetings of a wavefront
EXTRA_STREAMS = 4  # a scan writes each state and its coefficients' product once more, and reads both again


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to compute a cycle: "loop", "scan" or "wavefront"; None cycles: it is not possible."""

    name: str
    cycles: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A cycle, and what one step of its loop takes: counted cycles, bytes that move with the axis, bytes of its states.

    `units` are the elements of the states' events, `points` the points of their other axes, `shared` the cycles of a
    step that two cores share, `between` those of a step's part of what is computed before the loop for it; `ahead`:
    the loop takes two steps at once.
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
    shared: float
    between: float
    ahead: bool

    @property
    def step(self) -> float:
        """Cycles of one step on one core."""
        return max(self.counted, self.moved / BEYOND, ROUND_TRIP)

    @property
    def step_on_two(self) -> float:
        """Cycles of one step that two cores share, or that one of them does alone if that is faster."""
        return min(self.step, max(self.shared, self.moved / BEYOND / 2, ROUND_TRIP))


def alternatives(facts: Facts, sources: Sequence[tuple[Feed, Facts]]) -> tuple[Alternative, ...]:
    """The way that was taken, and those that were not. `sources` are the cycles that this one reads from."""
    taken = _combined(facts) if facts.ahead else (_loop(facts), _scan(facts))
    return (*taken, *(_wavefront(facts, feed, source) for feed, source in sources))


def _loop(facts: Facts) -> Alternative:
    return Alternative("loop", facts.steps * facts.step, "each step reads the one before")


def _combined(facts: Facts) -> tuple[Alternative, Alternative]:
    """Two steps at once, and the loop that it replaces."""
    halved = max(facts.counted, facts.moved / BEYOND, ROUND_TRIP / 2)
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
    cycles = facts.steps * (facts.step + EXTRA_STREAMS * facts.state_bytes / BEYOND)
    elements = facts.points * facts.units
    if facts.state_bytes <= MOST_BYTES:
        reason = "the coefficients of a step are not at hand, or come in vectors that are not full"
    else:
        reason = f"a step has {elements} elements to compute while it waits, and a scan stores and reads more of them"
    return Alternative("scan", cycles, reason)


def _wavefront(facts: Facts, feed: Feed, source: Facts) -> Alternative:
    name = ", ".join(s["name"] for s in source.jacobian.states)
    if None in feed.distances:
        return Alternative("wavefront", None, f"it reads all steps of {name} at once")
    if feed.lag is None:
        return Alternative("wavefront", None, f"the loop of {name} runs the other way, or along another axis")
    blocks = -(-facts.steps // BLOCK)
    together = (facts.steps + BLOCK) * max(facts.step + facts.between, source.step) + blocks * BARRIER
    apart = facts.steps * (facts.step_on_two + source.step_on_two + facts.between / 2)
    reason = f"it could run {feed.lag} step{'s' * (feed.lag > 1)} behind {name}; one after the other, two cores take "
    reason += f"about {apart:,.0f} cycles for both"
    if together < apart:
        reason += ", but no code is made for wavefronts"
    return Alternative("wavefront", together, reason)
