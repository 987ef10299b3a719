"""Which launches wait for which: all pairs that must, and no others. (The emulated device makes launches in the order
that is furthest from their own, so all that runs there shows that what is left suffices.)"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cuda.launches import COUNTERS, Launch, launches
from graphc.codegen.cuda.ordering import order
from tests.cuda_emulated import EmulatedDevice, recurrent

NAMES = "abcd"


def launch(loads: frozenset[str], stores: frozenset[str], alone: bool) -> Launch:
    return Launch("k", 1, 32, 1, 0, False, (), loads, stores, alone=alone)


@dataclass(frozen=True)
class Call:
    launches: tuple[Launch, ...]
    addresses: dict[str, int]
    sizes: dict[str, int]

    def conflict(self, one: Launch, other: Launch) -> bool:
        """Whether one is to run alone, or both touch a byte, and one changes it."""
        first, second = self._bytes(one.stores), self._bytes(other.stores)
        shared = first & second | first & self._bytes(other.loads) | self._bytes(one.loads) & second
        return one.alone or other.alone or bool(shared)

    def _bytes(self, names: frozenset[str]) -> set[int]:
        return {self.addresses[n] + k for n in names for k in range(self.sizes[n])}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    names = st.frozensets(st.sampled_from(NAMES), max_size=2)
    made = draw(st.lists(st.builds(launch, names, names, st.integers(0, 5).map(lambda k: k == 0)), max_size=8))
    addresses = {name: draw(st.integers(0, 6)) for name in NAMES}
    return Call(tuple(made), addresses, {name: draw(st.integers(1, 3)) for name in NAMES})


@given(calls())
def test_those_that_share_memory_wait_for_each_other(call: Call) -> None:
    behind = order(call.launches, call.addresses, call.sizes)
    before = _closed(behind)
    for i, j in itertools.combinations(range(len(call.launches)), 2):
        if call.conflict(call.launches[i], call.launches[j]):
            assert i in before[j]


@given(calls())
def test_no_launch_waits_for_nothing(call: Call) -> None:
    for number, others in enumerate(order(call.launches, call.addresses, call.sizes)):
        for k in others:
            assert call.conflict(call.launches[k], call.launches[number])
            assert not any(k in _closed(order(call.launches, call.addresses, call.sizes))[n] for n in others if n != k)


def _closed(behind: tuple[tuple[int, ...], ...]) -> list[set[int]]:
    before: list[set[int]] = []
    for others in behind:
        before.append(set(others).union(*(before[k] for k in others)))
    return before


def test_both_directions_run_together() -> None:
    """Their loops, unless they synchronise over the grid: then each could keep the other's CTAs from the chip."""
    g = gc.Graph("both")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (64,), over=(t, n))
    g.output("y", gc.cells.bidirectional(g, x, gc.cells.lstm, 64, over=t).h)
    for cluster in (16, 1):
        f = gc.compile(g, target="cuda", device=EmulatedDevice(cluster=cluster))
        made = launches(f.code, {"t": 9, "n": 2})
        names = sorted({name for launch in made for name in launch.loads | launch.stores})
        apart = {name: 100 * k for k, name in enumerate(names)}
        first, second = (k for k, launch in enumerate(made) if launch.urgent)
        together = COUNTERS in made[first].stores & made[second].stores
        for alone in (False, True):
            changed = [dataclasses.replace(launch, alone=launch.urgent and alone) for launch in made]
            before = _closed(order(changed, apart, dict.fromkeys(names, 1)))
            assert (first in before[second]) == (together or alone)


def test_a_loop_on_most_of_the_chip_runs_alone() -> None:
    f = gc.compile(recurrent("lstm", 16), target="cuda", device=EmulatedDevice(sms=8, cluster=1))
    for batch in (1, 64):
        (loop, _) = (launch for launch in launches(f.code, {"t": 9, "n": batch}) if launch.urgent)
        assert loop.alone == (2 * loop.grid > 8) == (batch > 1)


def test_a_loss_is_nothing_that_its_gradient_waits_for() -> None:
    f = gc.compile(recurrent("lstm", 16), target="cuda", device=EmulatedDevice())
    made = launches(f.code, {"t": 9, "n": 2})
    names = sorted({name for launch in made for name in launch.loads | launch.stores})
    behind = order(made, {name: 100 * k for k, name in enumerate(names)}, dict.fromkeys(names, 1))
    loss = next(k for k, launch in enumerate(made) if launch.symbol.endswith("_loss"))
    assert not any(loss in before for before in _closed(behind))
