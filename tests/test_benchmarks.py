"""The benchmarks' own parts: the timing, the comparison of results, and every workload's kind of problem, tiny.

Peers that are not installed are not needed: the cells' steps also run in numpy.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from benchmarks import peers
from benchmarks.alone import Cost, measure, received, sent
from benchmarks.cells import CELLS
from benchmarks.compare import Comparison, Mismatch, Row, check, compare, undisturbed
from benchmarks.disturbance import now, others
from benchmarks.images import Images
from benchmarks.layers import layers
from benchmarks.peers.graphc_peer import Graphc
from benchmarks.problems import Linear, Sequence
from benchmarks.report import record, table
from benchmarks.timing import Effort, Timing, interleaved, summary
from benchmarks.workloads import COMPARISONS, linear
from benchmarks.workloads.scaling import Point
from graphc.testing import random_arrays

TINY = Sequence("LSTM", steps=5, batch=3, units=8)
LINEAR = Linear(steps=6, batch=2, channels=5)
ONCE = Effort(rounds=1, seconds=0)


class Numpy:
    """The functions that the cells' steps are written in."""

    tanh, exp, maximum, einsum = np.tanh, np.exp, np.maximum, staticmethod(np.einsum)

    @staticmethod
    def sigmoid(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    @staticmethod
    def softplus(a: Any) -> Any:
        return np.logaddexp(a, 0)

    @staticmethod
    def split(a: Any, parts: int | tuple[int, ...]) -> Any:
        return np.split(a, parts if isinstance(parts, int) else np.cumsum(parts)[:-1], -1)

    @staticmethod
    def affine(a: Any, h: Any, U: Any) -> Any:
        return a + h @ U.T

    @staticmethod
    def layer_norm(a: Any, gain: Any, bias: Any) -> Any:
        return gain * (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5) + bias


@pytest.mark.parametrize("cell", CELLS)
def test_the_packed_step_of_a_cell_is_the_cell(cell: str) -> None:
    problem = replace(TINY, cell=cell)
    w = problem.kind.pack(problem.params)
    states = tuple(problem.kind.zeros(problem.batch, problem.units))
    h = []
    for x in problem.x:
        states = problem.kind.step(Numpy, w, x @ w["W"].T + w.get("b", 0.0), states)
        h.append(states[0])
    check(cell, {"h": np.stack(h)}, Graphc(1).forward(problem)["graphc"].results())


@pytest.mark.parametrize("cell", CELLS)
def test_unpack_is_the_inverse_of_pack(cell: str) -> None:
    problem = replace(TINY, cell=cell)
    again = problem.kind.unpack(problem.kind.pack(problem.params))
    assert set(again) == set(problem.params)
    assert all(np.array_equal(a, problem.params[name]) for name, a in again.items())


@pytest.mark.parametrize("name", [name for name in ("PyTorch", "ONNX Runtime") if name not in peers.missing()])
@pytest.mark.parametrize("work", ["forward", "training", "step"])
@pytest.mark.parametrize("problem", [*(replace(TINY, cell=cell) for cell in CELLS), LINEAR], ids=lambda p: p.name)
def test_a_peer_computes_what_graphc_does(name: str, work: peers.Work, problem: Sequence | Linear) -> None:
    if isinstance(problem, Linear) and work == "step":
        pytest.skip("a linear recurrence is not run step by step")
    row = compare(Comparison("tiny", work, problem), [Graphc(1), peers.load(name, 1)], ONCE)
    assert set(row.timings) <= {"graphc", name}
    if name == "PyTorch" and not (work == "step" and problem.name not in ("LSTM", "GRU")):
        assert name in row.timings


@pytest.mark.skipif("PyTorch" in peers.missing(), reason="PyTorch is not installed")
@pytest.mark.parametrize("work", ["forward", "training"])
def test_pytorch_computes_the_image_model_as_graphc_does(work: peers.Work) -> None:
    row = compare(Comparison("tiny", work, Images(3, (3, 64, 64))), [Graphc(1), peers.load("PyTorch", 1)], ONCE)
    assert set(row.timings) == {"graphc", "PyTorch"}


def test_a_step_of_training_is_told_from_a_forward_pass() -> None:
    """It moves every param, so that a step which leaves something out is not taken for one."""
    results = Graphc(1).image_training(Images(2, (3, 32, 32)))["graphc"].results()
    moved = {name: a for name, a in results.items() if name.startswith("momentum_")}
    assert len(moved) == sum(p.trainable for p in Images(2, (3, 32, 32)).model.params.values())
    assert all(np.abs(a).max() > 0 for a in moved.values())


def test_a_peer_is_measured_alone() -> None:
    cost = measure("graphc", TINY, 1)
    assert (cost.peer, cost.sizes) == ("graphc", TINY.sizes)
    assert min(cost.prepare, cost.run) > 0
    assert cost.peak is None or cost.peak >= 0


@pytest.mark.parametrize("problem", [TINY, Images(2, (3, 32, 32))], ids=lambda p: p.name)
def test_a_problem_survives_its_way_to_another_process(problem: Sequence | Images) -> None:
    assert received(sent("graphc", problem, 2)) == ("graphc", problem, 2)


def test_time_counts_to_the_layer_whose_params_are_used() -> None:
    g = gc.Graph("layers")
    n = g.axis("n")
    x = gc.tanh(g.param("wide_1_W", (16, 8)) @ g.input("x", (8,), over=n))
    g.output("y", gc.relu(g.param("narrow_2_W", (4, 16)) @ x))
    found, most = layers(gc.compile(g, threads=1), random_arrays(g, n=10))
    assert {name: layer.operations for name, layer in found.items()} == {
        "wide_1": 2 * 10 * 16 * 8,
        "narrow_2": 2 * 10 * 4 * 16,
    }
    assert all(layer.seconds > 0 and layer.touched > 0 for layer in found.values())
    assert most > 1e8


def test_graphc_by_steps_is_graphc_over_the_sequence() -> None:
    peer = Graphc(1)
    check("steps", peer.step(TINY)["graphc"].results(), peer.forward(TINY)["graphc"].results())


def test_no_param_is_zero() -> None:
    for cell in CELLS:
        assert all(np.abs(a).max() > 0 for a in replace(TINY, cell=cell).params.values())


def test_different_results_are_a_mismatch() -> None:
    expected = {"h": np.array([1.0, -2.0]), "grad_b": np.array([1e-9])}
    check("same", {"h": np.array([1.0001, -2.0]), "grad_b": np.array([-1e-9])}, expected)
    for wrong in ([1.01, -2.0], [1.0], [np.nan, -2.0]):
        with pytest.raises(Mismatch, match="h "):
            check("other", {**expected, "h": np.array(wrong)}, expected)
    with pytest.raises(Mismatch, match="grad_b"):
        check("fewer", {"h": expected["h"]}, expected)


def test_calls_are_timed_in_turn() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: (order.append(name), time.sleep(0.002)) for name in "ab"}
    timings = interleaved(calls, Effort(rounds=3, seconds=60))
    assert "".join(order[-6:]) == "ababab"
    assert all(t.samples == 3 and t.best >= 0.002 for t in timings.values())


def test_a_short_call_is_timed_over_many() -> None:
    count = 0

    def call() -> None:
        nonlocal count
        count += 1

    interleaved({"": call}, Effort(rounds=2, seconds=60))
    assert count > 1000


def test_time_ends_the_rounds_but_not_the_least() -> None:
    assert interleaved({"": lambda: None}, Effort(rounds=50, seconds=0, least=4))[""].samples == 4


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=30))
def test_quartiles_lie_around_the_median(seconds: list[float]) -> None:
    found = summary(seconds)
    assert found.best == min(seconds)
    assert found.best <= found.low <= found.median <= found.high <= max(seconds)
    assert found.median == pytest.approx(np.median(seconds))


@pytest.mark.parametrize("quick", [False, True])
def test_workloads_are_told_apart(quick: bool) -> None:
    for name, comparisons in COMPARISONS.items():
        found = comparisons(quick)
        assert {c.workload for c in found} == {name}
        assert len({(c.name, c.sizes) for c in found}) == len(found)


def test_the_batch_of_a_long_sequence_fits_the_memory() -> None:
    assert linear.batch(4096, available=1 << 40) == linear.BATCH
    assert linear.batch(65536, available=1 << 35) < linear.BATCH
    assert linear.batch(65536, available=0) == 1


def test_a_row_is_printed_and_recorded(tmp_path: Any) -> None:
    row = Row("tiny", "LSTM", "T 1", False, {"graphc": Timing(2e-3, 1e-3, 3e-3, 1e-3, 3), "JAX": summary([1e-3])})
    assert row.ratio("JAX") == 0.5
    assert "[red]× 0.500" in "".join(str(c) for column in table.times("", [row]).columns for c in column.cells)
    about = record.environment([Graphc(1)], 1, ["--quick"])
    cost = Cost("graphc", "T 1", 0.5, 0.001, 4096)
    lines = [str(c) for column in table.costs("", [("T 1", cost)]).columns for c in column.cells]
    assert lines == ["graphc", "T 1", "0.500", "1.00", "0.00410"]
    paths = record.write(tmp_path, about, [row], [Point(1, cost)], [cost])
    assert '"median": 0.002' in paths[0].read_text()
    assert paths[0].read_text().count('"peak": 4096') == 2
    assert all(path.stat().st_size for path in paths)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.0123"), (0.5, "0.500"), (1.234, "1.23"), (12.34, "12.3"), (999.6, "1000"), (12345.6, "12346")],
)
def test_three_digits_are_told(value: float, text: str) -> None:
    assert table.significant(value) == text


def test_the_work_of_other_processes_is_seen() -> None:
    clocks = now()
    if clocks is None:
        pytest.skip("this system does not tell")
    assert others(replace(clocks, wall=clocks.wall - 1, everybody=clocks.everybody - 1.5)) == pytest.approx(
        1.5, abs=0.2
    )
    assert others(None) == 0


def test_a_disturbed_comparison_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for taken, kept, used in (([0.0], 0.0, 1), ([0.9, 0.05], 0.05, 2), ([0.9, 0.4, 0.6], 0.4, 3)):
        left = list(taken)
        monkeypatch.setattr("benchmarks.compare.others", lambda _, left=left: left.pop(0))
        assert undisturbed({"": lambda: None}, ONCE)[1] == kept
        assert len(taken) - len(left) == used
