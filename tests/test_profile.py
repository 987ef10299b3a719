"""Profiles: every statement has a clock, counts are those of the equations, and nothing of the caller's changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import graphc as gc
from graphc.codegen.cpu.clock import TICK, has_clock
from graphc.codegen.parallel.core import TYPICAL
from graphc.codegen.target import Target
from graphc.codegen.team.measure import tick
from graphc.command_line.cli import app
from graphc.errors import ArgumentError
from graphc.reporting.profile import Part, Profile
from graphc.runtime import cpu as runtime
from graphc.testing.gradient_check import random_arrays

pytestmark = pytest.mark.skipif(not has_clock(Target.host()), reason="this processor has no clock to read")


def network(layers: int = 1, units: int = 16) -> gc.Graph:
    g = gc.Graph("net")
    t, n = g.axis("t"), g.axis("n")
    value = g.input("x", (8,), over=(t, n))
    for k in range(layers):
        value = gc.cells.lstm(g, value, units, over=t, name=f"layer{k}").h
    g.output("loss", gc.mean(gc.sum(value * value), over=(t, n)))
    return g


def test_every_statement_has_a_part_in_the_order_of_the_program() -> None:
    graph = gc.grad(network(), "loss")
    f = gc.compile(graph)
    made = f.profile(3, **random_arrays(graph, t=20, n=4))
    assert len(made.parts) == len(f.program.body)
    assert made.lengths == {"t": 20, "n": 4}
    loops = [part.what for part in made.parts if part.what.startswith("loop")]
    assert loops == [
        "loop along t from its start: layer0_c, layer0_h",
        "loop along t from its end: adjoint_layer0_c, adjoint_layer0_h",
    ]
    assert all(part.seconds > 0 for part in made.parts)


def test_operations_are_those_of_the_products() -> None:
    graph = network()
    made = gc.compile(graph).profile(1, **random_arrays(graph, t=20, n=4))
    counts = [part.operations for part in made.parts if part.operations]
    by_input, by_state, squares = 2 * 4 * 16 * 8, 2 * 4 * 16 * 16, 2 * 16
    assert counts == [20 * 4 * by_input, 20 * 4 * by_state, 20 * 4 * squares]


def test_on_one_thread_the_parts_make_up_the_call() -> None:
    graph = gc.grad(network(units=64), "loss")
    made = gc.compile(graph, threads=1).profile(5, **random_arrays(graph, t=200, n=16))
    assert made.threads == 1
    assert {part.threads for part in made.parts} == {1}
    assert 0.5 * made.seconds < sum(part.seconds for part in made.parts) < 1.1 * made.seconds


def test_stages_that_run_beside_each_other_have_clocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "this_core", lambda: replace(TYPICAL, barrier=4000.0))
    graph = network(layers=2)
    f, arrays = gc.compile(graph, threads=2), random_arrays(graph, t=4096, n=1)
    if not any(f.shares(**arrays).waves):
        pytest.skip("one thread runs them one after another")
    made = f.profile(2, **arrays)
    assert all(part.seconds > 0 for part in made.parts)


def test_a_frozen_function_is_profiled_without_what_was_made_before() -> None:
    graph = network()
    arrays = random_arrays(graph, t=20, n=4)
    whole = gc.compile(graph)
    frozen = whole.freeze(**{name: arrays[name] for name in graph.params})
    assert len(frozen.profile(1, x=arrays["x"]).parts) <= len(whole.profile(1, **arrays).parts)


def test_a_function_with_a_limit_on_memory_is_profiled() -> None:
    graph = gc.grad(network(), "loss")
    arrays = random_arrays(graph, t=400, n=4)
    f = gc.compile(graph, memory=f"{gc.compile(graph).memory(t=400, n=4).peak // 2048} KiB")
    assert any(part.what.startswith("loop") for part in f.profile(1, **arrays).parts)


def test_what_a_step_of_training_updates_stays_as_it_was() -> None:
    step = gc.training_step(network(), "loss", gc.optim.SGD(lr=0.1))
    state = gc.initialize(step, seed=0)
    before = {name: array.copy() for name, array in state.items()}
    gc.compile(step).profile(2, x=np.ones((5, 2, 8), np.float32), **state)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name])


def test_results_are_those_of_a_call_without_clocks() -> None:
    graph = gc.grad(network(), "loss")
    arrays = random_arrays(graph, t=20, n=4)
    f = gc.compile(graph)
    call, _, _ = f._runner.clocked(arrays)
    found, expected = call(), f(**arrays)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_mistakes_are_named() -> None:
    f = gc.compile(network())
    with pytest.raises(gc.GraphError, match="at least one call, got 0"):
        f.profile(0, **random_arrays(network(), t=2, n=2))
    with pytest.raises(gc.GraphError, match="missing: x"):
        f.profile(**gc.initialize(network()))


def test_a_tick_is_a_fraction_of_a_microsecond() -> None:
    assert 1e-11 < tick() < 1e-6
    assert tick() == tick()


@pytest.mark.parametrize("triple", ["thumbv7em-none-eabi", "riscv64-unknown-linux-gnu", "wasm32-unknown-unknown"])
def test_code_of_processors_without_a_clock_reads_none(triple: str) -> None:
    assert TICK not in gc.emit(network(), triple=triple).llvm_ir


def test_the_table_says_what_is_small_in_one_line() -> None:
    parts = (
        Part("loop along t from its start: h", 8e-3, 1.6e9, 2),
        Part("sum", 1e-3, 0.0, 1),
        *(Part("a copy", 1e-6, 0.0, 1) for _ in range(3)),
    )
    assert str(Profile("net", {"t": 128, "n": 32}, 10e-3, 2, 2e11, parts)) == (
        "net, t = 128, n = 32: 10 ms a call on 2 threads\n"
        "\n"
        "      time  share  GFLOP/s  of peak  part\n"
        "      8 ms  80.0%    200.0      50%  loop along t from its start: h\n"
        "      1 ms  10.0%                    sum\n"
        "      3 µs   0.0%                    3 more\n"
        "    997 µs  10.0%                    beginning, ending, and waiting for each other\n"
    )


def test_arrays_are_given_by_name() -> None:
    f = gc.compile(network())
    with pytest.raises(ArgumentError, match=r"given as f\(\*\*arrays\)"):
        f.profile(random_arrays(f.stages.graph, t=2, n=2))  # type: ignore[arg-type]


CELL = """
import graphc as gc

def graph() -> gc.Graph:
    g = gc.Graph("mine")
    t, n = g.axis("t"), g.axis("n", 3)
    h = g.state("h", (4,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (4, 4)) @ h[t - 1] + g.input("x", (4,), over=(t, n)))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g
"""


def test_the_command_takes_lengths_of_open_axes(tmp_path: object) -> None:
    path = f"{tmp_path}/cell.py"
    with open(path, "w", encoding="utf-8") as file:
        file.write(CELL)
    done = CliRunner().invoke(app, ["profile", path, "--grad", "--length", "t=9", "--threads", "1", "--calls", "2"])
    assert done.exit_code == 0, done.output
    assert "mine, t = 9: " in done.output
    assert "loop along t from its end: adjoint_h" in done.output
    for wrong, found in (("n=4", "'n'"), ("q=4", "'q'"), ("t", "'t'")):
        failed = CliRunner().invoke(app, ["profile", path, "--length", wrong])
        assert failed.exit_code != 0
        assert found in str(failed.exception)
