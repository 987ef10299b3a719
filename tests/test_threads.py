"""Threads: a call gives the same bits however its work is shared out, whoever comes first; and workers keep quiet."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.lengths import evaluate
from graphc.codegen.parallel import work_sharing as sharing
from graphc.codegen.parallel.core import TYPICAL
from graphc.codegen.parallel.partition import Partition, Strategy, partition
from graphc.codegen.parallel.row import SKIPPED
from graphc.codegen.parallel.table import table
from graphc.codegen.parallel.wavefront import Stage, Wavefront
from graphc.codegen.parallel.wavefront_schedule import Rounds, in_blocks
from graphc.codegen.parallel.work_sharing import shares
from graphc.codegen.program import Dim, Kernel, Let, Loop, Program, Reduce, Statement, Store
from graphc.codegen.target import Target
from graphc.codegen.team.team import SUPPORTED, team
from graphc.language.graph import declared_arrays
from graphc.pipeline.stages import stages
from graphc.runtime import cpu as runtime
from graphc.scalar import Call, Index, Load, Scalar, call, index

# No vectors, so that every dim can be cut at every point.
SCALAR = Target("riscv64-unknown-linux-gnu")
CELLS = ("elman", "lstm", "gru", "peephole_lstm", "slstm", "lem", "min_gru", "jordan", "mlstm")


needs_team = pytest.mark.skipif(not SUPPORTED, reason="this system has no futex")


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads for the smallest work."""
    monkeypatch.setattr(runtime, "this_core", lambda: replace(TYPICAL, barrier=0.0))
    monkeypatch.setattr(sharing, "WAKE", -1e12)


# Shares, one thread after another.


def substituted(scalar: Scalar, indices: Mapping[str, Scalar]) -> Scalar:
    match scalar:
        case Index(name):
            return indices.get(name, scalar)
        case Load(buffer, at, dtype, when):
            condition = None if when is None else substituted(when, indices)
            return Load(buffer, tuple(substituted(a, indices) for a in at), dtype, condition)
        case Call(fn, args, dtype):
            return Call(fn, tuple(substituted(a, indices) for a in args), dtype)
    return scalar


def part_of(kernel: Kernel, parts: Mapping[str, tuple[int, int]], steps: Mapping[str, int]) -> Kernel:
    """The kernel at some steps of the loops around it, over parts of its dims."""
    indices: dict[str, Scalar] = {name: index(step) for name, step in steps.items()}
    indices |= {name: call("add", Index(name), index(first)) for name, (first, _) in parts.items()}

    def dim(d: Dim) -> Dim:
        if d.index in parts:
            first, end = parts[d.index]
            return Dim(d.index, index(end - first))
        return Dim(d.index, substituted(d.extent, indices))

    def let(step: Let) -> Let:
        return Let(step.name, substituted(step.value, indices))

    def step(s: Let | Reduce) -> Let | Reduce:
        if isinstance(s, Let):
            return let(s)
        sums = tuple(replace(a, value=substituted(a.value, indices)) for a in s.sums)
        when = None if s.when is None else substituted(s.when, indices)
        return Reduce(tuple(map(dim, s.dims)), sums, tuple(map(let, s.body)), when)

    def store(s: Store) -> Store:
        at = tuple(substituted(a, indices) for a in s.at)
        return Store(s.buffer, at, substituted(s.value, indices), s.accumulate)

    return Kernel(
        kernel.name, tuple(map(dim, kernel.dims)), tuple(map(step, kernel.body)), tuple(map(store, kernel.stores))
    )


class Thread:
    """One thread's run of a program, up to the next barrier each time it is resumed."""

    def __init__(self, program: Program, shared: Partition, row: Any, arrays: Any, sizes: Mapping[str, int]) -> None:
        self.program, self.shared, self.row, self.arrays, self.sizes = program, shared, row, arrays, sizes

    def run(self) -> Iterator[None]:
        position = 0
        while position < len(self.program.body):
            number = next((k for k, w in enumerate(self.shared.wavefronts) if w.first == position), None)
            if number is None or not self.row[self.shared.row.rounds(number)]:
                yield from self.one_after_another((position,))
                position += 1
                continue
            wave = self.shared.wavefronts[number]
            yield from self.one_after_another(wave.before)
            yield from self.concurrently(wave, number)
            yield from self.one_after_another(wave.after)
            position = wave.end

    def one_after_another(self, positions: Iterable[int]) -> Iterator[None]:
        for position in positions:
            if self.row[self.shared.row.mode(position)] != SKIPPED:
                yield from self.statement(self.program.body[position], {}, position)
            yield

    def concurrently(self, wave: Wavefront, number: int) -> Iterator[None]:
        extent, block = evaluate(wave.extent, self.sizes), int(self.row[self.shared.row.block(number)])
        for round in range(self.row[self.shared.row.rounds(number)]):
            for k, stage in enumerate(wave.stages):
                lag = int(self.row[self.shared.row.lag(number, k)])
                begin = (round - lag) * block
                if lag >= 0 and 0 <= begin < extent:
                    self.block(stage, extent, begin, min(begin + block, extent))
            yield

    def block(self, stage: Stage, extent: int, begin: int, end: int) -> None:
        first, last = (extent - end, extent - begin) if stage.descending else (begin, end)
        statement, points = self.program.body[stage.position], evaluate(stage.points, self.sizes)
        if isinstance(statement, Kernel):
            part = part_of(statement, {stage.index: (first * points, last * points)}, {})
            interpret(replace(self.program, body=(part,)), self.arrays, self.sizes)
            return
        for step in reversed(range(first, last)) if stage.descending else range(first, last):
            for inner in statement.body:
                for _ in self.statement(inner, {statement.index: step}, stage.position):
                    raise AssertionError("a stage of a wavefront meets nobody")

    def statement(self, statement: Statement, steps: dict[str, int], position: int) -> Iterator[None]:
        if isinstance(statement, Loop):
            extent = evaluate(statement.extent, self.sizes)
            for k in reversed(range(extent)) if statement.reverse else range(extent):
                for inner in statement.body:
                    yield from self.statement(inner, {**steps, statement.index: k}, position)
            return
        if self.row[self.shared.row.mode(position)] & self.shared.meeting(position, statement.name):
            yield
        name = statement.name
        if self.row[self.shared.row.runs(name)]:
            parts = {
                cut.index: (int(self.row[self.shared.row.first(name, k)]), int(self.row[self.shared.row.end(name, k)]))
                for k, cut in enumerate(self.shared.cuts[name])
            }
            alone = replace(self.program, body=(part_of(statement, parts, steps),))
            interpret(alone, self.arrays, self.sizes)


def run_in_turns(
    program: Program, shared: Partition, rows: Any, arrays: Any, sizes: Mapping[str, int], order: Any
) -> None:
    """Run all threads, between barriers one after another in an order that is drawn anew each time."""
    threads = [Thread(program, shared, row, arrays, sizes).run() for row in rows]
    while threads:
        ended = set()
        for k in order(len(threads)):
            try:
                next(threads[k])
            except StopIteration:
                ended.add(k)
        assert len(ended) in (0, len(threads)), "the threads do not meet at the same barriers"
        threads = [] if ended else threads


def in_rounds(wave: Wavefront, random: Random, sizes: Mapping[str, int], threads: int) -> Rounds:
    """A wavefront in blocks of any length, its stages shared out anyhow."""
    block = random.choice((1, 2, 3))
    costs = [random.random() for _ in wave.stages]
    return in_blocks(wave, block, evaluate(wave.extent, sizes), costs, costs, threads, TYPICAL)


def check_in_turns(graph: gc.Graph, arrays: Mapping[str, np.ndarray], seed: int, along: str = "") -> None:
    """Compare shares run in turns with the whole program, with loops cut `along` a dim if they can be."""
    random = Random(seed)
    made = stages(graph)
    program, sizes = made.program, {}
    given_arrays = {n: np.asarray(a) for n, a in arrays.items()}
    for name, node in declared_arrays(graph).items():
        sizes |= dict(zip([a.name for a in node.axes], given_arrays[name].shape, strict=False))
    given_arrays |= made.lowered.constants
    shared = partition(program, SCALAR)
    expected = allocate(program, {n: a.copy() for n, a in given_arrays.items()}, sizes)
    interpret(program, expected, sizes)
    chosen: tuple[Strategy | None, ...] = tuple(random.choice((None, *s, *s)) for s in shared.strategies)
    wanted = [next((s for s in strategies if s.along == along), None) for strategies in shared.strategies]
    chosen = tuple(w or c for w, c in zip(wanted, chosen, strict=True))
    count = random.choice((2, 3))
    waves = [random.choice((in_rounds(w, random, sizes, count), None)) for w in shared.wavefronts]
    beside = {stage.position for w, made in zip(shared.wavefronts, waves, strict=True) if made for stage in w.stages}
    chosen = tuple(None if k in beside else strategy for k, strategy in enumerate(chosen))
    rows = table(program, shared, sizes, count, chosen, waves)
    found = allocate(program, {n: a.copy() for n, a in given_arrays.items()}, sizes)
    run_in_turns(program, shared, rows, found, sizes, lambda n: random.sample(range(n), n))
    for buffer in program.buffers:
        if buffer.kind != "temp":
            np.testing.assert_array_equal(found[buffer.name], expected[buffer.name], err_msg=buffer.name)


@settings(max_examples=8)
@given(testing.graphs(), st.integers(0, 2**31))
def test_threads_that_take_turns_compute_what_one_does(example: testing.Example, seed: int) -> None:
    wrt = [n for n, node in example.graph.inputs.items() if node.dtype.startswith("float")]
    check_in_turns(gc.grad(example.graph, "loss", wrt=wrt), example.arrays, seed)


def network(cell: str, units: int, inputs: int) -> gc.Graph:
    g = gc.Graph(cell)
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    make = getattr(gc.cells, cell)
    made = make(g, x, units, over=t)
    h = made.y if cell == "jordan" else made.h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return gc.grad(g, "loss", wrt=[*g.params, "x"])


def values(graph: gc.Graph, steps: int, batch: int, inputs: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(steps, batch, inputs)).astype(np.float32)
    return {"x": x, **gc.initialize(graph, seed=0)}


@pytest.mark.parametrize("along", ["n", "e.0", ""])
@pytest.mark.parametrize("cell", CELLS)
def test_shares_of_every_cell_in_turns(cell: str, along: str) -> None:
    graph = network(cell, 3, 2)
    check_in_turns(graph, values(graph, 3, 2, 2), 1, along)


def test_loops_meet_only_where_they_must() -> None:
    """Cut along the batch an LSTM never waits; along its units once a step, forward and backward."""
    program = stages(network("lstm", 64, 8)).program
    shared = partition(program, Target("x86_64-unknown-linux-gnu", "x86-64-v3"))
    loops = [k for k, s in enumerate(program.body) if isinstance(s, Loop)]
    assert len(loops) == 2
    for k in loops:
        meetings = {s.along: len(s.barriers) for s in shared.strategies[k]}
        assert meetings["n"] == 0
        assert meetings["e.0"] == 1


def test_small_work_stays_on_one_thread_and_large_work_does_not() -> None:
    program = stages(network("lstm", 64, 64)).program
    shared = partition(program, Target.host())
    assert shares(program, shared, {"t": 4, "n": 1}, 8, TYPICAL).threads == 1
    assert shares(program, shared, {"t": 128, "n": 64}, 2, TYPICAL).threads == 2


# Threads as they run.


@needs_team
@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_gives_the_same_bits_on_any_number_of_threads(cell: str) -> None:
    graph = network(cell, 40, 24)
    for steps, batch in ((9, 5), (4, 1), (1, 3), (0, 2)):
        given_arrays = values(graph, steps, batch, 24)
        expected = gc.compile(graph, threads=1)(**given_arrays)
        for threads in (2, 3, 5):
            f = gc.compile(graph, threads=threads)
            assert f.shares(**given_arrays).threads > 1
            for _ in range(3):
                found = f(**given_arrays)
                for name, array in expected.items():
                    assert array.tobytes() == found[name].tobytes(), name


@needs_team
@pytest.mark.usefixtures("eager")
@settings(max_examples=12)
@given(example=testing.graphs())
def test_random_graphs_give_the_same_bits(example: testing.Example) -> None:
    graph = gc.grad(example.graph, "loss", wrt=list(example.graph.params))
    expected = gc.compile(graph, threads=1)(**example.arrays)
    found = gc.compile(graph, threads=3)(**example.arrays)
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


@needs_team
@pytest.mark.usefixtures("eager")
def test_calls_at_once_from_several_threads() -> None:
    graph = network("gru", 32, 8)
    f, given_arrays = gc.compile(graph, threads=2), values(graph, 20, 4, 8)
    expected = {name: array.copy() for name, array in f(**given_arrays).items()}
    wrong: list[str] = []

    def many() -> None:
        for _ in range(30):
            found = f(**given_arrays)
            wrong.extend(n for n, a in expected.items() if a.tobytes() != found[n].tobytes())

    callers = [threading.Thread(target=many) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@needs_team
@pytest.mark.usefixtures("eager")
def test_workers_sleep_between_calls() -> None:
    graph = network("gru", 32, 8)
    call_ = gc.compile(graph, threads=2).bind(**values(graph, 20, 4, 8))
    call_()
    assert team.threads > 1
    time.sleep(0.05)
    before, start = time.process_time(), time.perf_counter()
    time.sleep(0.5)
    assert time.process_time() - before < 0.2 * (time.perf_counter() - start)


PROGRAM = """
import os, sys, threading
import numpy as np
import graphc as gc
from dataclasses import replace
from graphc.runtime import cpu as runtime
from graphc.codegen.parallel import work_sharing as shares
from graphc.codegen.parallel.core import TYPICAL
runtime.this_core = lambda: replace(TYPICAL, barrier=0.0)
shares.WAKE = -1e12
g = gc.Graph("g"); t = g.axis("t"); n = g.axis("n")
x = g.input("x", (4,), over=(t, n))
h = g.state("h", (4,), over=(t, n))
h[t] = gc.tanh(x + 0.5 * h[t - 1])
g.output("h", h)
f = gc.compile(g, threads=2)
x = np.ones((50, 8, 4), np.float32)
call = f.bind(x=x)
expected = call()["h"].copy()
"""


def run(program: str, before: str = PROGRAM) -> str:
    done = subprocess.run([sys.executable, "-c", before + program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_team
def test_a_fork_computes_on_with_workers_of_its_own() -> None:
    assert (
        run(
            """
from graphc.codegen.team.team import team
child = os.fork()
if child == 0:
    same = (call()["h"] == expected).all() and team.address == 0
    same = same and (f(x=x)["h"] == expected).all() and team.threads == 2
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (f(x=x)["h"] == expected).all())
"""
        )
        == "0 True"
    )


@needs_team
def test_a_process_ends_while_calls_run() -> None:
    assert (
        run(
            """
def forever():
    while True:
        f(x=x)
threading.Thread(target=forever, daemon=True).start()
for _ in range(100):
    f(x=x)
print("end")
"""
        )
        == "end"
    )


@needs_team
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind threads to cores")
def test_two_threads_on_one_core_do_not_collapse() -> None:
    """A barrier that only looks would wait out whole time slices."""
    assert (
        run(
            """
import time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {min(os.sched_getaffinity(0))})
start = time.perf_counter()
for _ in range(20):
    assert (call()["h"] == expected).all()
print(time.perf_counter() - start < 10)
"""
        )
        == "True"
    )


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads: int) -> None:
    with pytest.raises(gc.errors.GraphError, match="threads is a whole number from 1 to 1024"):
        gc.compile(network("elman", 3, 2), threads=threads)


def test_a_system_without_futex_runs_every_call_on_one_thread() -> None:
    assert (
        run(
            """
import sys
from graphc.codegen.team import builtin
from graphc.codegen.team import team
from graphc.codegen.team import team_code
import graphc.runtime.cpu
team.SUPPORTED = team_code.SUPPORTED = graphc.runtime.cpu.SUPPORTED = False
team._native.cache_clear()
builtin._definition.cache_clear()
assert "syscall" not in team_code.module(team.Target.host())
f = gc.compile(g, threads=4)
print((f(x=x)["h"] == expected).all(), f.shares(x=x).threads, team.team.start(4))
""",
            before=PROGRAM.replace("f = gc.compile(g, threads=2)", "f = gc.compile(g, threads=1)"),
        )
        == "True 1 0"
    )
