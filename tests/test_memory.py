"""Memory: what a call is said to take, and what it takes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc import machine
from graphc.codegen.disk_cache import VARIABLE
from graphc.errors import ArgumentError, AxisError


def lstm(units: int, inputs: int) -> gc.Graph:
    g = gc.Graph("lstm")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.lstm(g, g.input("x", (inputs,), over=(t, n)), units, over=t, name="cell").h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return gc.grad(g, "loss")


def test_predicted_memory_is_what_a_call_takes() -> None:
    dg = lstm(5, 3)
    f, params = gc.compile(dg), gc.initialize(dg, seed=0)
    for t, n in ((7, 2), (1, 1), (0, 3), (40, 6)):
        arrays = {"x": np.zeros((t, n, 3), np.float32), **params}
        use, call = f.memory(t=t, n=n), f.bind(**arrays)
        assert use.results == sum(array.nbytes for array in call.results.values())
        assert use.given == sum(array.nbytes for array in arrays.values())
        assert use.peak == use.results + use.workspace
    call = gc.compile(dg).bind(**arrays)
    assert call.workspace.nbytes == use.workspace
    assert str(use).startswith("peak ")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's high-water mark from /proc")
def test_predicted_memory_is_what_the_machine_gives() -> None:
    script = """
        import graphc as gc, numpy as np
        from test_memory import lstm
        dg = lstm(64, 64)
        f, params = gc.compile(dg, threads=1), gc.initialize(dg, seed=0)
        x = np.zeros((400, 32, 64), np.float32)
        f(x=x[:1].copy(), **params)
        def status(key):
            lines = open("/proc/self/status").read().splitlines()
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))
        open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
        before = status("VmRSS")
        results = f(x=x, **params)
        print(status("VmHWM") - before, f.memory(t=400, n=32).peak)
    """
    path = [str(p) for p in sys.path if p] + ["tests"]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={"PYTHONPATH": ":".join(path), "PATH": "", VARIABLE: ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    measured, predicted = map(int, run.stdout.split())
    assert predicted == pytest.approx(measured, rel=0.1)


def test_lengths_are_asked_for() -> None:
    f = gc.compile(lstm(5, 3))
    for lengths in ({}, {"t": 3}, {"t": 3, "n": 2, "k": 1}, {"t": -3, "n": 2}):
        with pytest.raises(AxisError, match="t=…, n=…"):
            f.memory(**lengths)


@pytest.mark.parametrize(
    ("share", "whole"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("?", 8)]
)
def test_a_container_has_a_part_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: str, whole: int
) -> None:
    monkeypatch.setattr(machine, "_LIMITS", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores() == 8
    machine.check_memory(2**20, "the call")
    (tmp_path / "cpu.max").write_text(share + "\n", encoding="utf-8")
    (tmp_path / "memory.max").write_text("1000000\n", encoding="utf-8")
    assert machine.cores() == whole
    with pytest.raises(ArgumentError, match="the call needs"):
        machine.check_memory(2**20, "the call")
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    machine.check_memory(2**20, "the call")
