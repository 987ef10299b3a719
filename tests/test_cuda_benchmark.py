"""The benchmark for GPUs, with the emulator in the GPU's place and its peers on the CPU: all compute the same, a peer
that does not is not timed, and what was measured is written down."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from benchmarks.compare import Mismatch
from benchmarks.cuda import __main__ as command
from benchmarks.cuda import groupings, measure, peers, record
from benchmarks.cuda.own import Own
from benchmarks.cuda.problems import PROBLEMS, WORKS, Heads, Layer, Problem, Work
from benchmarks.images import Images
from benchmarks.peers.graphc_peer import Graphc
from benchmarks.peers.peer import Call
from benchmarks.timing import Effort
from graphc.codegen.target import Precision
from graphc.errors import UnsupportedError
from tests.cuda_emulated import EmulatedDevice

SMALL: tuple[Problem, ...] = (
    Layer("LSTM", 8, 3, 2, "bf16", layers=2),
    Layer("GRU", 8, 3, 2),
    Layer("LEM", 8, 3, 2),
    Heads("LSTM", 16, 3, 2, "f16", heads=2),
    Heads("sLSTM", 8, 3, 2, heads=2),
    Layer("minGRU", 8, 70, 2),
)
ONCE = Effort(rounds=1, seconds=0)


def installed(name: str) -> Any:
    """A peer on the CPU, if it is there."""
    module, kind, needed = peers.MODULES[name]
    if not all(map(importlib.util.find_spec, needed)):
        pytest.skip(f"{name} is not installed")
    made = getattr(importlib.import_module(f"benchmarks.cuda.{module}"), kind)
    return {"PyTorch": lambda: made("cpu"), "FlashRNN": lambda: made("cpu", "vanilla")}.get(name, made)()


class OnTheHost:
    """graphc on the CPU, in the place of graphc on a GPU where the peers are what is tested."""

    name = "graphc"

    def prepare(self, problem: Problem, work: Work) -> Call:
        bound = gc.compile(problem.graph(work)).bind(x=problem.x, **problem.params)
        return Call(bound, lambda: dict(bound()))

    def image_training(self, problem: Images, precision: Precision) -> Call:
        call = Graphc(1).image_training(problem)["graphc"]
        return Call(call.run, lambda: {k: a for k, a in call.results().items() if not k.startswith("momentum_")})


class Wrong:
    """A peer that computes something else."""

    name = "Wrong"

    def prepare(self, problem: Problem, work: Work) -> Call:
        return Call(lambda: None, lambda: {"h": np.zeros((problem.steps, problem.batch, problem.units))})


@pytest.mark.parametrize(
    ("problem", "work"), [(SMALL[0], "forward"), (SMALL[2], "training"), (SMALL[3], "training")], ids=str
)
def test_layers_are_measured(problem: Problem, work: Work) -> None:
    row = measure.layer(problem, work, Own(EmulatedDevice()), [], ONCE)
    assert set(row.timings) == {"graphc"}
    assert "µs a step" in str(row)
    assert row.profile is not None
    assert any(part.what.startswith("loop along t") for part in row.profile.parts)
    assert "% of graphc's is " in str(row)


@pytest.mark.parametrize("name", sorted(peers.MODULES))
@pytest.mark.parametrize("work", WORKS)
def test_peers_compute_the_same(name: str, work: Work) -> None:
    """Each of those that it has something for, in its precision."""
    peer = installed(name)
    rows = [measure.layer(problem, work, OnTheHost(), [peer], ONCE) for problem in SMALL]
    assert [row.failed for row in rows] == [{}] * len(SMALL)
    assert (
        sum(name in row.timings for row in rows)
        == {
            "PyTorch": 2,
            "FlashRNN": 2,
            "JAX scan": 5,
            "JAX associative scan": 1,
        }[name]
    )


def test_flashrnn_tiles_by_what_pytorch_says_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """From CUDA 13 on, where its own extension does not compile: up to where it would compile its kernels."""
    pytest.importorskip("flashrnn")
    torch = importlib.import_module("torch")
    flash = importlib.import_module("flashrnn.flashrnn.flashrnn")
    known = {"multi_processor_count": 132, "shared_memory_per_block_optin": 232448}
    known |= {"max_threads_per_block": 1024, "regs_per_multiprocessor": 65536}
    monkeypatch.setattr(torch.cuda, "get_device_properties", {5: SimpleNamespace(**known)}.get)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 5)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "zeros", lambda *shape, **options: None)  # of a trial on the device
    monkeypatch.setattr(flash, "get_gpu_info", None)  # to be replaced
    monkeypatch.setattr(flash._FlashRNNCUDAFused, "mod", {})
    asked: dict[str, Any] = {}
    made = SimpleNamespace(FlashRNNFuncFused=lambda *sizes: sizes)
    monkeypatch.setattr(flash, "load_parametric_and_test_and_bisect", lambda **given: asked.update(given) or made)
    importlib.import_module("benchmarks.cuda.flash").Flash()
    config = flash.FlashRNNConfig(num_heads=3, head_dim=256, batch_size=16)
    assert flash._FlashRNNCUDAFused.instance(config)[1:] == (16, 768, 3)
    for name, value in {
        "MAX_THREADS_PER_BLOCK_FORWARD": 256,
        "REGISTERS_PER_BLOCK_FORWARD": 131072,
        "STREAMING_MULTIPROCESSORS": 132,
        "SHARED_MEMORY_PER_BLOCK": 227000,
    }.items():
        assert f"{name} == {value}" in asked["constraint_str"]


def test_a_peer_that_differs_is_not_timed_and_ours_ends_the_run() -> None:
    own = OnTheHost()
    row = measure.layer(SMALL[2], "forward", own, [Wrong()], ONCE)
    assert set(row.timings) == {"graphc"}
    assert "Wrong is not timed: Mismatch" in str(row)
    with pytest.raises(Mismatch, match="h differs"):
        measure.layer(SMALL[2], "forward", Wrong(), [own], ONCE)


def test_the_image_model() -> None:
    row = measure.image_training(Images(1).tiny, "bf16", OnTheHost(), [installed("PyTorch")], ONCE)
    assert row.failed == {}
    assert set(row.timings) == {"graphc", "PyTorch"}


def test_absent_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    found, messages = peers.rivals()
    assert found == []
    assert [message.split(" is left out: ")[0] for message in messages] == list(peers.MODULES)
    assert all("bench-cuda" in message for message in messages)


def test_the_command_writes_what_it_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "nvidia_device", EmulatedDevice)
    monkeypatch.setattr(command, "rivals", lambda: ([], ["FlashRNN is left out: it is not installed"]))
    monkeypatch.setattr(command, "PROBLEMS", SMALL[2:3])
    monkeypatch.setattr(record, "gpu", lambda: {"name": "a GPU of the test"})
    arguments = ["--rounds", "1", "--seconds", "0", "--only", "LEM", "--output", str(tmp_path)]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert "a GPU of the test" in said
    assert "FlashRNN is left out" in said
    written = json.loads((tmp_path / "cuda.json").read_text())
    assert written["gpu"]["name"] == "a GPU of the test"
    assert written["command"].endswith(" ".join(arguments))
    assert [(row["name"], row["work"]) for row in written["times"]] == [("LEM 8", work) for work in WORKS]
    assert written["times"][0]["timings"]["graphc"]["median"] > 0
    for row in written["times"]:
        parts = row["profile"]["parts"]
        assert all(part["seconds"] > 0 and part["counted"] > 0 for part in parts)
        assert any(part["what"].startswith("loop along t") and part["exchange"] for part in parts)


def test_every_way_to_group_ctas_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    problem = Layer("GRU", 20, 2, 3)
    monkeypatch.setattr(groupings, "PROBLEMS", (problem, Layer("LSTM", 20, 2, 3)))
    monkeypatch.setattr(groupings, "nvidia_device", EmulatedDevice)
    assert groupings.main(["--only", "GRU", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "cuda_groupings.json").read_text())
    assert found["command"].startswith("python -m benchmarks.cuda.groupings --only GRU")
    for direction in ("forward", "backward"):
        ways = [way for way in found["times"] if way["direction"] == direction]
        keys = ("exchange", "groups", "ctas", "barrier_free")
        assert len({tuple(way[key] for key in keys) for way in ways}) == len(ways) > 2
        assert [way["chosen"] for way in ways] == [True, *[False] * (len(ways) - 1)]
        assert all(way["measured"] > 0 and way["counted"] > 0 for way in ways)
        assert {way["exchange"] for way in ways} >= {"cta", "cluster"}


def test_nothing_is_measured_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise UnsupportedError("no driver")

    monkeypatch.setattr(command, "nvidia_device", missing)
    assert command.main([]) == 1
    assert capsys.readouterr().err == "nothing was measured: no driver\n"


def test_all_problems_have_a_graph() -> None:
    assert all(problem.graph(work).outputs for problem in PROBLEMS for work in WORKS)
