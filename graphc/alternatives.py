"""alternatives: the ways in which a cycle could be computed, what each would cost, and why one is taken.

In: what is known of a cycle (`Facts`). Out: an `Alternative` for each way; the first is the one that code is made for.

- A **loop** takes the steps one after another. A step costs its instructions, its memory traffic, or the time until a
  stored state can be read again, whichever is longest.
- A **scan** computes chunks of the axis side by side, each from zero, and then corrects them by what the chunks before
  them came to (Blelloch, "Prefix sums and their applications", 1990). It needs a step that is affine in the states, and
  stores and reads again a running product of the coefficients beside the states.
- A **wavefront** runs a cycle beside the one that it reads from, on another core and some steps behind it. They meet
  after every block of steps, so what lies between the two loops stays a product of many rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.causality import Component
from graphc.codegen.shares import BARRIER, BEYOND
from graphc.jacobian import Jacobian
from graphc.wavefront import Feed

ROUND_TRIP = 9.0  # cycles until a stored state has come back into a register and through a multiply-add
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
    step that two cores share, `between` those of a step's part of what is computed before the loop for it.
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

    @property
    def step(self) -> float:
        """Cycles of one step on one core."""
        return max(self.counted, self.moved / BEYOND, ROUND_TRIP)

    @property
    def step_on_two(self) -> float:
        """Cycles of one step that two cores share, or that one of them does alone if that is faster."""
        return min(self.step, max(self.shared, self.moved / BEYOND / 2, ROUND_TRIP))


def alternatives(facts: Facts, sources: Sequence[tuple[Feed, Facts]]) -> tuple[Alternative, ...]:
    """The loop, and the ways that were not taken. `sources` are the cycles that this one reads from."""
    loop = Alternative("loop", facts.steps * facts.step, "each step reads the one before")
    return (loop, _scan(facts), *(_wavefront(facts, feed, source) for feed, source in sources))


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
    traffic = facts.steps * (facts.moved + EXTRA_STREAMS * facts.state_bytes) / BEYOND
    filled = f"a step has {facts.points * facts.units} elements to compute side by side"
    if traffic < facts.steps * facts.step:
        return Alternative("scan", traffic, f"{filled}, and chunks of steps would be more; no code is made for it")
    return Alternative("scan", traffic, f"{filled} already, and chunks of steps take more memory traffic")


def _wavefront(facts: Facts, feed: Feed, source: Facts) -> Alternative:
    name = ", ".join(s["name"] for s in source.jacobian.states)
    if None in feed.distances:
        return Alternative("wavefront", None, f"it reads all steps of {name} at once")
    if feed.lag is None:
        return Alternative("wavefront", None, f"the loop of {name} runs the other way, or along another axis")
    blocks = -(-facts.steps // BLOCK)
    together = (facts.steps + BLOCK) * max(facts.step + facts.between, source.step) + blocks * BARRIER
    apart = facts.steps * (facts.step_on_two + source.step_on_two + facts.between / 2)
    reason = f"possible {feed.lag} step{'s' * (feed.lag > 1)} behind {name}; one after the other, two cores take "
    reason += f"about {apart:,.0f} cycles for both"
    return Alternative("wavefront", together, reason)
