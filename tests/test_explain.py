"""What `gc.explain` says is what was compiled: of random graphs against their Programs, of known cells in words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.checks.causality import components
from graphc.codegen.program import Kernel, Loop, Program, Ring, kernels
from graphc.codegen.uses import loads
from graphc.differentiation.jacobian import Pattern
from graphc.pipeline.stages import stages
from graphc.reporting.explanation import CycleExplanation
from graphc.testing import Example, graphs


def loaded(kernel: Kernel) -> set[str]:
    return {load.buffer for load in loads(kernel)}


def stored(kernel: Kernel) -> set[str]:
    return {store.buffer for store in kernel.stores}


@settings(max_examples=15)
@given(graphs())
def test_what_is_said_of_random_graphs_is_in_their_programs(example: Example) -> None:
    graph = gc.grad(example.graph, "loss", wrt="x")
    made, explained = stages(graph), gc.explain(graph)
    looped = [part for part in components(made.prepared) if part.axis is not None]
    assert [{*c.states} for c in explained.cycles] == [
        {n["name"] for n in part.nodes if n.op.name == "state"} for part in looped
    ]
    for cycle in explained.cycles:
        check_cycle(cycle, made.arranged)
        assert all(state in str(explained) for state in cycle.states)


def check_cycle(cycle: CycleExplanation, program: Program) -> None:
    """The loop that holds the named kernels holds no others; what leaves it and enters it is named."""
    inside = {work.name for work in cycle.inside}
    (loop,) = (s for s in program.body if isinstance(s, Loop) and inside & {k.name for k in kernels(s.body)})
    held = {k.name: k for k in kernels(loop.body)}
    assert inside == set(held)
    assert (loop.index, loop.reverse) == cycle.axes[0]
    copies = {k.name for k in kernels(program.body) if k.name.startswith("pack.")}
    made = {name for k in held.values() for name in stored(k)}
    assert {kept.name for kept in cycle.memory} == made
    for kept in cycle.memory:
        rings = [d.slots for d in program.buffer(kept.name).dims if isinstance(d, Ring)]
        assert kept.steps == (rings[0] if rings else None)
        outside = {k.name for k in kernels(program.body) if k.name not in held and kept.name in loaded(k)}
        assert outside - copies <= set(kept.readers)
        assert kept.steps is None or not outside
    alone = {s.name: s for s in program.body if isinstance(s, Kernel) and s.name not in copies}
    read = {name for k in held.values() for name in loaded(k)}
    first = program.body.index(loop)
    assert {name for name, k in alone.items() if stored(k) & read} <= {w.name for w in cycle.before}
    assert {name for name, k in alone.items() if loaded(k) & made} <= {w.name for w in cycle.after}
    assert all(program.body.index(alone[w.name]) < first for w in cycle.before)
    assert all(program.body.index(alone[w.name]) > first for w in cycle.after)


def network(cell: str, layers: int = 1) -> gc.Graph:
    g = gc.Graph("network")
    t, n = g.axis("t"), g.axis("n")
    h = g.input("x", (12,), over=(t, n))
    for layer in range(layers):
        h = getattr(gc.cells, cell)(g, h, 16, over=t, name="abc"[layer]).h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g


def test_gates_are_merged_and_input_products_leave_the_loop() -> None:
    forwards, backwards = gc.explain(gc.grad(network("lstm"), "loss")).cycles
    (hoisted,) = forwards.before
    assert [(p.count, p.shared) for p in hoisted.products] == [(4, ("x",))]
    (step,) = forwards.inside
    assert [(p.count, p.length, p.shared) for p in step.products] == [(4, "16", ("a_h",))]
    weights = [p for work in backwards.after for p in work.products if work.name.startswith("grad_a_W")]
    assert sum(p.count for p in weights) == 4
    assert {p.length for p in weights} == {"t × n"}


def test_edges_name_the_line_of_the_delay() -> None:
    g = gc.Graph("lines")
    t = g.axis("t")
    h = g.state("h", (4,), over=t)
    before = h[t - 2]
    h[t] = gc.tanh(before) * g.input("x", (4,), over=t)
    g.output("h", h)
    ((cycle),) = gc.explain(g).cycles
    (read,) = cycle.reads
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert (read.operand, read.pattern) == ("h[t - 2]", Pattern.DIAGONAL)
    assert [Path(line.file).name for line in read.lines] == ["test_explain.py"]
    assert [source[line.line - 1].strip() for line in read.lines] == ["before = h[t - 2]"]


def test_only_an_affine_diagonal_step_could_be_a_scan() -> None:
    def scan(cell: str) -> list[float | None]:
        cycles = gc.explain(gc.grad(network(cell), "loss"), {"t": 256, "n": 16}).cycles
        return [next(s.cycles for s in cycle.schedules if s.name == "scan") for cycle in cycles]

    elman, adjoint = scan("elman")
    assert elman is None
    assert adjoint is not None
    for cell in ("min_gru", "min_lstm"):
        for cycle in gc.explain(network(cell), {"t": 256, "n": 16}).cycles:
            loop, other, *_ = cycle.schedules
            assert cycle.affine
            assert cycle.diagonal
            assert loop.cycles is not None
            assert other.cycles is not None
            assert other.cycles > loop.cycles


def test_a_small_stack_is_a_wavefront_and_a_large_one_could_be() -> None:
    graph = network("lstm", layers=2)
    for steps, batch, name in ((4096, 1, "wavefront"), (512, 64, "loop")):
        lower, upper = gc.explain(graph, {"t": steps, "n": batch}).cycles
        assert lower.schedules[0].name == upper.schedules[0].name == name
        made = gc.compile(graph, threads=2)
        arrays = {"x": np.zeros((steps, batch, *graph.inputs["x"].shape), np.float32), **gc.initialize(graph)}
        assert (made.shares(**arrays).waves[0] is not None) == (name == "wavefront")
        (wave,) = (way for way in upper.schedules if way.name == "wavefront")
        assert all(state in wave.reason for state in lower.states)
        assert "1 block behind" in wave.reason


def test_a_mean_over_time_makes_a_wavefront_impossible() -> None:
    g = gc.Graph("normalised")
    t = g.axis("t")
    below, above = g.state("below", (4,), over=t), g.state("above", (4,), over=t)
    below[t] = gc.tanh(below[t - 1] + g.input("x", (4,), over=t))
    above[t] = gc.tanh(above[t - 1] + below - gc.mean(below, over=t))
    g.output("y", above)
    _, upper = gc.explain(g).cycles
    assert upper.schedules[-1].name == "wavefront"
    assert upper.schedules[-1].cycles is None
    assert "all steps of below at once" in upper.schedules[-1].reason


def test_rings_and_what_is_kept_for_the_backward_pass() -> None:
    (forwards,) = gc.explain(network("lstm")).cycles
    kept = {k.name: k.steps for k in forwards.memory}
    assert kept["a_c"] == 2
    assert kept["a_h"] is None
    forwards, backwards = gc.explain(gc.grad(network("lstm"), "loss")).cycles
    assert {k.name: k.steps for k in forwards.memory}["a_c"] is None
    assert 2 in {k.steps for k in backwards.memory}


def test_two_axes_are_two_loops() -> None:
    g = gc.Graph("image")
    i, j = g.axis("i"), g.axis("j", 5)
    o = g.state("o", (4,), over=(i, j))
    o[i, j] = gc.tanh(o[i - 1] + o[i, j + 1] + g.input("x", (4,), over=(i, j)))
    g.output("o", o)
    (cycle,) = gc.explain(g).cycles
    assert {r.operand for r in cycle.reads} == {"o[i - 1]", "o[j + 1]"}
    assert cycle.axes == (("i", False), ("j", True))
    assert "more than one axis" in str(cycle.schedules[1].reason)


def test_estimates_follow_the_lengths() -> None:
    def steps(**lengths: int) -> float:
        (cycle,) = gc.explain(network("elman"), lengths).cycles
        assert cycle.schedules[0].cycles is not None
        return cycle.schedules[0].cycles

    assert steps(t=200) == pytest.approx(2 * steps(t=100))
    assert steps(n=256) > steps(n=16)
    with pytest.raises(gc.GraphError, match=re.escape("'q'") + ".*t, n"):
        steps(q=3)
    for length in (-1, 2.5, 10**30):
        with pytest.raises(gc.GraphError, match="the length of axis 't' is a whole number from 0 to"):
            gc.explain(network("elman"), {"t": length})  # type: ignore[dict-item]


def test_a_sum_of_random_numbers_is_explained_at_once() -> None:
    """Their formula has names that are used several times each: written out, it would have more parts than can be."""
    g = gc.Graph("dropped")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(h[t - 1] + g.input("x", (3,), over=(t, n)))
    g.output("loss", gc.mean(gc.sum(gc.dropout(h, 0.5, seed=3)), over=(t, n)))
    (cycle,) = gc.explain(g).cycles
    assert cycle.states == ("h",)


def test_a_graph_without_cycles_says_so() -> None:
    g = gc.Graph("plain")
    g.output("y", gc.tanh(g.input("x", (3,))))
    assert "no cycle" in str(gc.explain(g))
    assert gc.explain(gc.unroll(network("elman"), t=3)).cycles == ()
