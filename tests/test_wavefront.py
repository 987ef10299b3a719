"""Which statements run beside each other, how, and that nothing they compute changes by it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.codegen.memory.arena import arena, buffer_bytes
from graphc.codegen.parallel import wavefront_schedule as timing
from graphc.codegen.parallel import work_sharing as sharing
from graphc.codegen.parallel.core import TYPICAL
from graphc.codegen.parallel.partition import Partition, partition
from graphc.codegen.parallel.wavefront import Wavefront
from graphc.codegen.parallel.wavefront_schedule import in_blocks
from graphc.codegen.program import Loop, Program, kernels
from graphc.codegen.target import Target
from graphc.codegen.team.team import SUPPORTED
from graphc.codegen.uses import loads
from graphc.language.value import Value
from graphc.pipeline.stages import stages

SCALAR = Target("riscv64-unknown-linux-gnu")


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wavefronts wherever there can be one, in the shortest blocks."""
    monkeypatch.setattr(sharing, "WAKE", -1e12)
    monkeypatch.setattr(sharing, "_WORTH", float("inf"))
    monkeypatch.setattr(timing, "_BLOCKS", (1, 3))


def stacked(offset: int = 0, reverse: bool = False, whole: bool = False) -> gc.Graph:
    """Two layers, of which the second reads the first `offset` steps away; `whole`: a mean of all of its steps."""
    g = gc.Graph("stacked")
    t = g.axis("t")
    step = t + 1 if reverse else t - 1
    below = g.state("below", (3,), over=t)
    below[t] = gc.tanh(below[step] + g.input("x", (3,), over=t))
    read = gc.mean(below, over=t) if whole else below.shift(t, offset) * 2
    above = g.state("above", (3,), over=t)
    above[t] = gc.tanh(above[step] + read)
    g.output("y", above)
    return g


def in_both_directions(layers: int = 1) -> gc.Graph:
    g = gc.Graph("bidirectional")
    t, n = g.axis("t"), g.axis("n")
    value: Value = g.input("x", (4,), over=(t, n))
    for layer in range(layers):
        both = [gc.cells.gru(g, value, 4, over=t, name=f"{way}{layer}", reverse=way == "b").h for way in "fb"]
        value = gc.concat(both)
    g.output("loss", gc.mean(gc.sum(value * value), over=(t, n)))
    return g


def stack(cell: str = "lstm", layers: int = 3) -> gc.Graph:
    g = gc.Graph("stack")
    t, n = g.axis("t"), g.axis("n")
    value: Value = g.input("x", (4,), over=(t, n))
    for layer in range(layers):
        value = getattr(gc.cells, cell)(g, value, 4, over=t, name=f"layer{layer}").h
    g.output("loss", gc.mean(gc.sum(value * value), over=(t, n)))
    return g


def found(graph: gc.Graph) -> tuple[Program, Partition]:
    program = stages(graph).program
    return program, partition(program, SCALAR)


def loops(program: Program, wave: Wavefront) -> list[bool]:
    """Of the wavefront's loops, whether they descend."""
    inside = [program.body[stage.position] for stage in wave.stages]
    return [statement.reverse for statement in inside if isinstance(statement, Loop)]


def test_a_layer_waits_for_as_many_steps_of_the_one_below_as_it_reads() -> None:
    for reverse in (False, True):
        for offset in (-3, 0, 2):
            _, shared = found(stacked(offset, reverse))
            (wave,) = shared.wavefronts
            # What reads it at its own step alone is stored in its place, once its next step has read it too.
            assert set(wave.ahead.values()) == {1 if offset == 0 else -offset if reverse else offset}


def test_a_mean_over_all_steps_keeps_two_layers_apart() -> None:
    _, shared = found(stacked(whole=True))
    assert shared.wavefronts == ()


def test_loops_of_both_directions_run_beside_each_other_where_neither_needs_the_other() -> None:
    program, shared = found(in_both_directions())
    assert [loops(program, wave) for wave in shared.wavefronts] == [[False, True]]
    program, shared = found(stack(layers=3))
    assert [loops(program, wave) for wave in shared.wavefronts] == [[False, False, False]]
    program, shared = found(gc.grad(stack(layers=3), "loss"))
    assert [loops(program, wave) for wave in shared.wavefronts] == [[False, False, False], [True, True, True]]


def statements_in_order(program: Program, wave: Wavefront) -> Iterator[int]:
    yield from wave.before
    yield from (stage.position for stage in wave.stages)
    yield from wave.after


@settings(max_examples=25)
@given(testing.graphs(), st.integers(1, 5), st.integers(2, 4))
def test_every_statement_has_one_place_and_stages_lag_behind_what_they_need(
    example: testing.Example, block: int, threads: int
) -> None:
    program, shared = found(gc.grad(example.graph, "loss", wrt="x"))
    for wave in shared.wavefronts:
        assert sorted(statements_in_order(program, wave)) == list(range(wave.first, wave.end))
        rng = np.random.default_rng(block)
        costs = list(rng.random(len(wave.stages)))
        made = in_blocks(wave, block, 11, costs, costs, threads, TYPICAL)
        for (earlier, later), ahead in wave.ahead.items():
            apart = made.lags[later] - made.lags[earlier]
            # In the round of its block b, the earlier stage has ended block b + apart - (1 on another thread).
            ready = apart - (made.owners[earlier] != made.owners[later])
            assert ready * block >= ahead
        assert made.rounds == -(-11 // block) + max(made.lags)


needs_team = pytest.mark.skipif(not SUPPORTED, reason="this system has no futex")


def check_bits(graph: gc.Graph, arrays: dict[str, np.ndarray], threads: int) -> bool:
    """The same bits as on one thread; whether anything ran as a wavefront."""
    expected = gc.compile(graph, threads=1)(**arrays)
    f = gc.compile(graph, threads=threads)
    for _ in range(3):
        results = f(**arrays)
        for name, array in expected.items():
            assert array.tobytes() == results[name].tobytes(), name
    return any(made is not None for made in f.shares(**arrays).waves)


@needs_team
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    "graph",
    [stack("lstm"), stack("gru"), stack("min_gru", 2), in_both_directions(), in_both_directions(2)],
    ids=["lstm", "gru", "min_gru", "bidirectional", "deep bidirectional"],
)
def test_networks_give_the_same_bits_as_wavefronts(graph: gc.Graph, threads: int) -> None:
    graph = gc.grad(graph, "loss", wrt=[*graph.params, "x"])
    for steps, batch in ((13, 1), (4, 3), (1, 2), (0, 1)):
        x = np.random.default_rng(steps).normal(size=(steps, batch, 4)).astype(np.float32)
        ran = check_bits(graph, {"x": x, **gc.initialize(graph, seed=0)}, threads)
        assert ran == (steps > 1)


@needs_team
@pytest.mark.usefixtures("always")
@settings(max_examples=15)
@given(testing.graphs())
def test_random_graphs_give_the_same_bits_as_wavefronts(example: testing.Example) -> None:
    check_bits(gc.grad(example.graph, "loss", wrt=list(example.graph.params)), dict(example.arrays), 2)


@pytest.mark.usefixtures("always")
def test_what_runs_at_one_time_shares_no_memory() -> None:
    program, shared = found(gc.grad(stack("lstm", 2), "loss"))
    sizes = {"t": 12, "n": 2}
    made = sharing.shares(program, shared, sizes, 2, TYPICAL)
    assert sorted(k for slot in made.time_slots for k in slot) == list(range(len(program.body)))
    apart, together = arena(program, sizes), arena(program, sizes, made.time_slots)
    assert together.size >= apart.size
    for slot in made.time_slots:
        alive = alive_at(program, slot)
        ends = {name: together.offsets[name] + bytes_of(program, name, sizes) for name in alive}
        for a in alive:
            for b in alive - {a}:
                assert ends[a] <= together.offsets[b] or ends[b] <= together.offsets[a]


def alive_at(program: Program, slot: tuple[int, ...]) -> set[str]:
    """The temporaries that the statements of a time slot touch."""
    temporaries = {b.name for b in program.buffers if b.kind == "temp"}
    inside = list(kernels(tuple(program.body[k] for k in slot)))
    touched = {load.buffer for k in inside for load in loads(k)} | {s.buffer for k in inside for s in k.stores}
    return touched & temporaries


def bytes_of(program: Program, name: str, sizes: dict[str, int]) -> int:
    return buffer_bytes(program.buffer(name), sizes)


@needs_team
@pytest.mark.usefixtures("always")
def test_memory_is_predicted_with_its_wavefronts_and_a_limit_does_without() -> None:
    graph = stack("lstm", 2)
    arrays = {"x": np.zeros((64, 1, 4), np.float32), **gc.initialize(graph)}
    free, limited = gc.compile(graph, threads=2), gc.compile(graph, threads=2, memory="1 MiB")
    assert any(free.shares(**arrays).waves)
    assert not any(limited.shares(**arrays).waves)
    assert free.bind(**arrays).workspace.size >= free.memory(t=64, n=1).workspace > limited.memory(t=64, n=1).workspace
