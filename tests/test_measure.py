"""What is measured of a core, and what the choice between ways of running a program makes of it."""

from __future__ import annotations

import ctypes
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cpu import jit
from graphc.codegen.cpu.machine import machine_of
from graphc.codegen.parallel.core import TYPICAL, Core
from graphc.codegen.parallel.partition import partition
from graphc.codegen.parallel.work_sharing import Shares, shares
from graphc.codegen.target import Target
from graphc.codegen.team import measure
from graphc.codegen.team.measure import this_core
from graphc.codegen.team.microbenchmarks import LINE, LOADED, MET, WORKED, probes
from graphc.codegen.team.team import SUPPORTED, Job, runner, team
from graphc.machine import cores
from graphc.pipeline.stages import stages

TARGETS = (
    Target.host(),
    Target("x86_64-unknown-linux-gnu"),
    Target("x86_64-unknown-linux-gnu", "x86-64-v3"),
    Target("x86_64-unknown-linux-gnu", "x86-64-v4"),
    Target("aarch64-unknown-linux-gnu"),
)


@pytest.fixture(scope="module")
def code() -> jit.llvm.ResourceTracker:
    return jit.native(probes(Target.host()), Target.host(), "chain", "multiply", "read", "meet", optimized=True)


def block(size: int) -> np.ndarray:
    raw = np.zeros(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_probes_are_code_of_every_target(target: Target) -> None:
    machine = machine_of(target)
    module = jit._parse(probes(target), machine)
    jit._optimize(module, machine)
    assert len(machine.emit_object(module)) > 1000


def test_no_operation_of_a_chain_is_left_out(code: jit.llvm.ResourceTracker) -> None:
    numbers, expected = block(WORKED).view(np.uint64), 12345
    numbers[0] = expected
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code["chain"])(numbers.ctypes.data, 3)
    for _ in range(3 * 32):
        expected = (expected + (expected >> 1)) % 2**64
    assert numbers[0] == expected


def test_every_sum_of_products_is_made(code: jit.llvm.ResourceTracker) -> None:
    lanes = Target.host().lanes(4)
    numbers = block(WORKED).view(np.float32)
    numbers[:] = np.linspace(0.1, 1.0, len(numbers), dtype=np.float32)
    before, factor = numbers.copy(), np.resize(numbers[:lanes], len(numbers))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code["multiply"])(numbers.ctypes.data, 2)
    made = 12 * lanes
    expected = before + 2 * factor**2 if Target.host().has_fma else (before * factor + factor) * factor + factor
    np.testing.assert_allclose(numbers[:made], expected[:made], rtol=1e-6)
    np.testing.assert_array_equal(numbers[made:], before[made:])


def test_the_whole_block_is_read(code: jit.llvm.ResourceTracker) -> None:
    vector = 4 * Target.host().lanes(4)
    turns = 5
    read = block(turns * LOADED * vector)
    read[:] = np.random.default_rng(0).integers(0, 256, len(read))
    before = read.reshape(turns, LOADED, vector).copy()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(code["read"])(read.ctypes.data, turns, 3)
    expected = before[0] ^ np.bitwise_xor.reduce(before, axis=0)  # read three times, and so once
    np.testing.assert_array_equal(read.reshape(before.shape)[0], expected)


@pytest.mark.skipif(not SUPPORTED, reason="this system has no futex")
def test_threads_read_what_the_other_wrote_before_they_met(code: jit.llvm.ResourceTracker) -> None:
    team.start(2)
    lines, times = block(2 * MET * LINE).view(np.int64), 50
    args, sizes = (ctypes.c_void_p * 1)(lines.ctypes.data), (ctypes.c_int64 * 1)(times)
    rows, patience = np.arange(2, dtype=np.int64), (ctypes.c_int64 * 2)()
    where = (ctypes.addressof(args), ctypes.addressof(sizes), rows.ctypes.data, rows.ctypes.data)
    job = Job(code["meet"], *where, rows.itemsize, 2, 2**62, ctypes.addressof(patience))
    runner()(team.address, ctypes.addressof(job))
    wrote, saw = lines.reshape(2, MET, LINE // 8)[:, :, :2].transpose(2, 0, 1)
    assert (wrote == times - 1).all()
    assert (saw >= times - 1).all()


def test_a_core_is_measured_within_what_processors_can_do() -> None:
    core = this_core()
    for field in fields(Core):
        assert getattr(core, field.name) > 0
    assert core.level_1 < core.level_2
    assert 0.5 <= core.products <= 4
    assert this_core() is core


def test_where_nobody_meets_a_barrier_is_typical(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "cores", lambda: 1)
    assert this_core.__wrapped__().barrier == TYPICAL.barrier


def test_caches_are_those_that_the_system_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_CACHES", tmp_path)
    assert measure._cache(1) is None
    for number, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "64K"), ("2", "Unified", "2048K"), ("3", "Unified", "?")]
    ):
        (tmp_path / f"index{number}").mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{number}" / name).write_text(f"{text}\n")
    assert [measure._cache(level) for level in (1, 2, 3, 4)] == [48 << 10, 2 << 20, None, None]


def recurrent(units: int) -> gc.Graph:
    """A loop and nothing else: its weights are read at every step."""
    g = gc.Graph("recurrent")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (units,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (units, units)) @ h[t - 1] + g.input("x", (units,), over=(t, n)))
    g.output("h", h)
    return g


def chosen(core: Core, units: int, batch: int = 1) -> Shares:
    program = stages(recurrent(units)).program
    target = Target("x86_64-unknown-linux-gnu", "x86-64-v4")
    return shares(program, partition(program, target), {"t": 4096, "n": batch}, 2, core)


def test_a_step_is_shared_where_it_takes_longer_than_to_meet() -> None:
    assert chosen(replace(TYPICAL, barrier=100.0), units=64).threads == 2
    assert chosen(replace(TYPICAL, barrier=5000.0), units=64).threads == 1


def test_weights_that_leave_the_first_cache_are_worth_a_meeting() -> None:
    """Two threads read half of them each."""
    near = replace(TYPICAL, level_1=1 << 20, barrier=2500.0)
    assert chosen(near, units=256).threads == 1
    assert chosen(replace(near, level_1=32 << 10, within=16.0), units=256).threads == 2


def test_weights_that_fit_two_caches_and_not_one_are_shared() -> None:
    far = replace(TYPICAL, level_2=1 << 20, beyond=8.0, within=64.0)
    alone = chosen(replace(far, barrier=5e4), units=512).cycles
    together = chosen(replace(far, level_2=1 << 22, barrier=5e4), units=512).cycles
    assert alone > 2 * together


@pytest.mark.skipif(not SUPPORTED or cores() < 2, reason="one thread has nobody to meet")
def test_bits_do_not_depend_on_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = recurrent(64)
    arrays = {"x": np.random.default_rng(0).standard_normal((200, 1, 64), np.float32), **gc.initialize(graph)}
    found = []
    for core in (replace(TYPICAL, barrier=1.0), replace(TYPICAL, barrier=1e9), this_core()):
        monkeypatch.setattr("graphc.runtime.cpu.this_core", lambda core=core: core)
        found.append(gc.compile(graph, threads=2)(**arrays)["h"].tobytes())
    assert len(set(found)) == 1
