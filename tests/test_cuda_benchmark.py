"""The benchmark for GPUs, with the emulator in the GPU's place: it compares results, and it says when it cannot run."""

from __future__ import annotations

import sys

import pytest

from benchmarks import cuda
from graphc.errors import UnsupportedError
from tests.cuda_emulated import EmulatedDevice


@pytest.mark.parametrize(
    "layer", [cuda.Layer("lstm", 16, 5, 2, "bf16", heads=2), cuda.Layer("slstm", 8, 5, 2, "float32")], ids=str
)
@pytest.mark.parametrize("backward", [False, True])
def test_layers_are_measured(layer: cuda.Layer, backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    device = EmulatedDevice()
    for module in ("graphc.compile", "benchmarks.cuda"):
        monkeypatch.setattr(sys.modules[module], "nvidia_device", lambda: device)
    line = cuda.measure(layer, backward, rounds=1)
    assert line.startswith(str(layer))
    assert "µs a step" in line


def test_nothing_is_measured_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise UnsupportedError("no driver")

    monkeypatch.setattr(cuda, "nvidia_device", missing)
    assert cuda.main([]) == 1
    assert capsys.readouterr().err == "nothing was measured: no driver\n"
