"""A cycle reads of another exactly at the claimed distances, by the interpreter's numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.checks.arguments import check_arguments
from graphc.checks.causality import Component, components
from graphc.differentiation.jacobian import equation
from graphc.interpreter import Evaluation
from graphc.ir import Node, Point
from graphc.ops.leaves import STATE
from graphc.reporting.feeds import Feed, feeds
from graphc.testing import Example, graphs


def states_of(cycle: Component) -> list[Node]:
    return [node for node in cycle.nodes if node.op is STATE]


@settings(max_examples=40)
@given(graphs(), st.integers(0, 2**16))
def test_a_cycle_reads_another_only_at_the_claimed_distances(example: Example, seed: int) -> None:
    """Move a state of one cycle at one point, hold all cycles fixed, and see which equations of others move."""
    graph = example.graph
    parts = components(graph)
    cycles = [part for part in parts if part.axis is not None]
    claimed = {(feed.maker, feed.reader): feed.distances for feed in feeds(graph, parts)}
    arguments = check_arguments(graph, {k: np.copy(v) for k, v in example.arrays.items()})
    base = Evaluation(graph, arguments)
    owner = {state: cycle for cycle in cycles for state in states_of(cycle)}
    points = {state: list(base.points(state.axes)) for state in owner}
    held = {(s, tuple(p.values())): base.at(s, p) for s in owner for p in points[s]}

    def equations(known: dict[tuple[Node, tuple[int, ...]], np.ndarray]) -> dict[tuple[Node, int], np.ndarray]:
        evaluation = Evaluation(graph, arguments)
        evaluation.known.update(known)
        with np.errstate(all="ignore"):
            return {
                (s, k): evaluation.at(body, {a: p[a] for a in body.axes})
                for s in owner
                for k, p in enumerate(points[s])
                for body in (equation(graph, s),)
            }

    before = equations(held)
    rng = np.random.default_rng(seed)
    for maker, cycle in owner.items():
        if not points[maker]:
            continue
        q = points[maker][rng.integers(len(points[maker]))]
        at = (maker, tuple(q.values()))
        after = equations(held | {at: held[at] + rng.normal(size=maker.shape)})
        for (reader, k), value in after.items():
            if owner[reader] is not cycle and not np.array_equal(value, before[reader, k], equal_nan=True):
                distances = claimed.get((cycle, owner[reader]), frozenset())
                assert None in distances or distance(cycle, points[reader][k], q) in distances


def distance(cycle: Component, p: Point, q: Point) -> int:
    assert cycle.axis is not None
    return q[cycle.axis] - p[cycle.axis]


def stacked(offset: int = 0, reverse: bool = False, whole: bool = False) -> Feed:
    """How the second of two layers reads the first, `offset` steps away; `whole`: a mean of all of its steps."""
    g = gc.Graph("stacked")
    t = g.axis("t")
    step = t + 1 if reverse else t - 1
    below = g.state("below", (), over=t)
    below[t] = gc.tanh(below[step] + g.input("x", (), over=t))
    read = gc.mean(below, over=t) if whole else below.shift(t, offset) * 2
    above = g.state("above", (), over=t)
    above[t] = gc.tanh(above[step] + read)
    g.output("y", above)
    (feed,) = feeds(g, components(g))
    return feed


def test_a_layer_reads_the_one_below_at_its_own_step_or_others() -> None:
    assert [stacked(offset).distances for offset in (-3, 0, 2)] == [{-3}, {0}, {2}]
    assert [stacked(offset, reverse=True).distances for offset in (-3, 0, 2)] == [{-3}, {0}, {2}]


def test_a_delay_of_the_layer_below_may_be_read_from_outside() -> None:
    """The node h[t - 2] lies on the cycle of h, and is no value of its own step."""
    g = gc.Graph("shared")
    t = g.axis("t")
    below, above = g.state("below", (), over=t), g.state("above", (), over=t)
    before = below[t - 2]
    below[t] = gc.tanh(before + 1)
    above[t] = gc.tanh(above[t - 1] + before)
    g.output("y", above)
    (feed,) = feeds(g, components(g))
    assert feed.distances == {-2}


def test_a_mean_reads_all_steps() -> None:
    assert stacked(whole=True).distances == {None}


def test_loops_that_run_against_each_other() -> None:
    g = gc.Graph("opposed")
    t = g.axis("t")
    up, down = g.state("up", (), over=t), g.state("down", (), over=t)
    up[t] = gc.tanh(up[t - 1] + 1)
    down[t] = gc.tanh(down[t + 1] + up)
    g.output("y", down)
    (feed,) = feeds(g, components(g))
    assert (feed.distances, feed.alike) == ({0}, False)


def test_backwards_layers_feed_each_other_in_the_other_order() -> None:
    g = gc.Graph("stack")
    t, n = g.axis("t"), g.axis("n")
    layers = gc.cells.stack(g, g.input("x", (2,), over=(t, n)), gc.cells.elman, units=3, layers=2, over=t)
    g.output("loss", gc.sum(gc.sum(layers.h), over=(t, n)))
    graph = gc.grad(g, "loss")
    alike = {(f.maker.reverse, f.reader.reverse): f.alike for f in feeds(graph, components(graph))}
    assert alike == {(False, False): True, (False, True): False, (True, True): True}
