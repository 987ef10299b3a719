"""The counted estimates for GPUs: operations and bytes are those of the closed forms, and what is known is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.cuda import estimate as command
from benchmarks.cuda.estimate import Estimate, estimate, table
from benchmarks.cuda.problems import Heads, Layer, Problem
from graphc.codegen.cuda.isa.arch import ARCHS
from graphc.codegen.cuda.roofline import LAUNCH
from tests.ptx import ptxas

ARCH = ARCHS["sm_90"]
T, N, H = 32, 4, 64


def counted(problem: Problem, work: str = "forward") -> Estimate:
    return estimate(problem, "training" if work == "training" else "forward", ARCH, assembled=False)


def test_an_lstm_is_counted_as_its_equations_have_it() -> None:
    found = counted(Layer("LSTM", H, T, N))
    (loop,) = found.loops
    assert (loop.steps, loop.flops) == (T, 2 * 4 * H * H * N * T)
    (product,) = (part for part in found.parts if not part.steps)
    gates = 4 * T * N * H
    assert product.flops == gates * 2 * H + T * N * H  # a point of the kernel makes all four gates
    assert product.bytes == 4 * (T * N * H + 4 * H * H + gates)


def test_heads_multiply_by_their_own_weights_alone() -> None:
    (loop,) = counted(Heads("LSTM", 16, T, N, "bf16", heads=3)).loops
    assert loop.flops == 2 * 4 * 3 * 16 * 16 * N * T


def test_twice_the_steps_take_twice_the_time() -> None:
    once, twice = (counted(Layer("GRU", H, steps, N), "training").loops for steps in (T, 2 * T))
    assert len(once) == 2
    for a, b in zip(once, twice, strict=True):
        assert b.seconds - LAUNCH == pytest.approx(2 * (a.seconds - LAUNCH))
        assert 0 < a.waiting < a.seconds


def test_a_linear_recurrence_is_counted_in_parts() -> None:
    """Each of few points: the loop takes much less than a step after the other would."""
    (short,), (long,) = (counted(Layer("minGRU", 16, steps, 1)).loops for steps in (16, 4096))
    assert (short.kind, short.groups, short.steps) == ("parts", 1, 16)
    assert (long.kind, long.groups, long.steps) == ("parts", 90, 4096)
    assert long.seconds < 20 * short.seconds


def test_training_does_nearly_three_times_the_work() -> None:
    problem = Layer("LSTM", H, T, N)
    forward, training = (sum(p.flops for p in counted(problem, w).parts) for w in ("forward", "training"))
    assert training >= 2.5 * forward  # not by the input, which nothing asks the gradient of


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on the PATH")
def test_the_assembler_adds_registers() -> None:
    (loop,) = estimate(Layer("LSTM", H, T, N), "forward", ARCH).loops
    assert loop.registers is not None
    assert loop.registers > 16
    assert loop.spills == 0


def test_the_command_writes_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "PROBLEMS", (Layer("LSTM", H, T, N), Layer("GRU", H, T, N)))
    assert command.main(["--only", "GRU", "--output", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "cuda_estimate.json").read_text())
    assert [(e["problem"], e["work"]) for e in written["estimates"]] == [("GRU 64", "forward"), ("GRU 64", "training")]
    assert "measured on no device" in written["what"]
    found = [counted(Layer("GRU", H, T, N))]
    assert "measured on no device" in str(table(found, ARCH).title)
    assert written["estimates"][0]["seconds"] == pytest.approx(found[0].seconds)
