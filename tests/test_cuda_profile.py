"""Profiles of calls on a GPU: every launch has its time and its count, and nothing of the caller's changes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import graphc as gc
from graphc.codegen.cuda.driver.driver import NvidiaDevice
from graphc.codegen.cuda.roofline import count
from graphc.command_line.cli import app
from graphc.errors import ArgumentError
from graphc.reporting.cuda_profile import CudaPart, CudaProfile
from graphc.testing.gradient_check import random_arrays
from tests.cuda_emulated import EmulatedDevice, arrays_of, compiled, recurrent
from tests.test_cuda_driver import Driver, Failure, counted, launch, of
from tests.test_profile import CELL, network


def test_every_launch_has_a_part_in_order() -> None:
    graph = gc.grad(network(), "loss")
    f = compiled(graph)
    made = f.profile(1, **random_arrays(graph, t=6, n=4))
    assert len(made.parts) == len(f.code.units)
    assert (made.arch, made.sms, made.lengths) == ("sm_90", 132, {"t": 6, "n": 4})
    assert [part.what for part in made.parts if part.what.startswith("loop")] == [
        "loop along t from its start: layer0_c, layer0_h",
        "loop along t from its end: adjoint_layer0_c, adjoint_layer0_h",
    ]
    assert all(part.seconds > 0 and part.launches == 1 for part in made.parts)
    assert [part.counted for part in made.parts] == [count(u, f.code, {"t": 6, "n": 4}).seconds for u in f.code.units]


def test_operations_are_those_that_the_cpu_counts() -> None:
    graph = network()
    arrays = random_arrays(graph, t=5, n=4)
    on_gpu, on_cpu = (f.profile(1, **arrays) for f in (compiled(graph), gc.compile(graph)))
    by_input, by_state, squares = 2 * 4 * 16 * 8, 2 * 4 * 16 * 16, 2 * 16
    expected = [5 * 4 * by_input, 5 * 4 * by_state, 5 * 4 * squares]
    assert [part.operations for part in on_gpu.parts if part.operations][:3] == expected
    assert sum(part.operations for part in on_cpu.parts) == sum(expected)


def test_it_says_how_ctas_exchange() -> None:
    g = recurrent("lstm", 256)
    parts = compiled(g).profile(1, **arrays_of(g, t=1, n=1)).parts
    loops = [part for part in parts if part.what.startswith("loop")]
    assert loops
    assert all(part.exchange in ("cluster", "grid") and part.ctas > 1 for part in loops)
    assert all(part.grid == f"{part.exchange} {part.groups} × {part.ctas}" for part in loops)
    assert all((part.exchange, part.ctas) == ("", 1) and part.groups for part in parts if part not in loops)


@pytest.mark.parametrize("there", [(), ("x",), ("total",), ("x", "total")], ids=str)
def test_what_a_call_updates_stays_as_it_was(there: tuple[str, ...]) -> None:
    f = compiled(counted())
    arrays = {"x": np.ones((4, 3), np.float32), "total": np.ones(3, np.float32)}
    given = {**arrays, **f.upload({name: arrays[name] for name in there})}
    made = f.profile(3, **given)
    assert len(made.parts) == len(f.code.units)
    total = given["total"]
    np.testing.assert_array_equal(total if isinstance(total, np.ndarray) else total.numpy(), 1)
    found = f(**given)  # as if nothing had been
    np.testing.assert_array_equal(total if isinstance(total, np.ndarray) else total.numpy(), 5)
    assert set(found) == {"twice"}


def test_its_memory_is_given_back() -> None:
    f = compiled(counted())
    arrays = {"x": np.ones((4, 3), np.float32), "total": np.ones(3, np.float32)}
    f(**arrays)
    device = f.runner.device
    assert isinstance(device, EmulatedDevice)
    before = device._free
    f.profile(1, **arrays)
    assert device._free == before


def test_arrays_that_a_call_takes_a_copy_of() -> None:
    """Not only those that could be bound."""
    f = compiled(counted())
    assert f.profile(1, x=[[1.0, 2.0, 3.0]], total=np.zeros(3, np.float32)).lengths == {"n": 1}
    assert f.profile(1, x=np.ones((3, 4), np.float32).T, total=np.zeros(3, np.float32)).lengths == {"n": 4}


def test_a_frozen_function_is_profiled_by_the_same_words() -> None:
    graph = network()
    arrays = random_arrays(graph, t=3, n=2)
    frozen = compiled(graph).freeze(**{name: arrays[name] for name in graph.params})
    parts = frozen.profile(1, x=arrays["x"]).parts
    assert "loop along t from its start: layer0_c, layer0_h" in [part.what for part in parts]


def test_a_call_without_launches() -> None:
    f = compiled(counted())
    made = f.profile(1, x=np.ones((0, 3), np.float32), total=np.zeros(3, np.float32))
    assert made.lengths == {"n": 0}
    assert str(made)


def test_mistakes_are_named() -> None:
    f = compiled(network())
    with pytest.raises(ArgumentError, match="at least one call, got 0"):
        f.profile(0, **random_arrays(network(), t=2, n=2))
    with pytest.raises(ArgumentError, match=r"given as f\(\*\*arrays\)"):
        f.profile(random_arrays(network(), t=2, n=2))  # type: ignore[arg-type]
    with pytest.raises(gc.GraphError, match="missing: x"):
        f.profile(**gc.initialize(network()))


# The driver.


def test_events_with_timing_are_recorded_by_the_graph_itself() -> None:
    """Between launches nothing of the host's is timed: the host makes one call for all of them."""
    driver = Driver(cuEventElapsedTime=2.0)
    device = NvidiaDevice(driver, 0)
    made = device.timed(of(device.load(""), launch("a"), launch("b")))
    assert [call[1] for call in driver.called if call[0] == "cuEventCreate"] == [0, 0, 0]
    nodes = [name for name in driver.names() if name.startswith("cuGraphAdd")]
    assert nodes == [*("cuGraphAddEventRecordNode", "cuGraphAddKernelNode") * 2, "cuGraphAddEventRecordNode"]
    driver.called.clear()
    assert made(7) == [2e-3, 2e-3]
    assert driver.names() == ["cuGraphLaunch", "cuStreamSynchronize", *("cuEventElapsedTime",) * 2]


def test_a_graph_with_events_that_fails_is_given_back() -> None:
    driver = Driver(cuGraphAddKernelNode=Failure(1))
    device = NvidiaDevice(driver, 0)
    with pytest.raises(gc.errors.UnsupportedError, match="cuGraphAddKernelNode failed"):
        device.timed(of(device.load(""), launch()))
    assert "cuGraphDestroy" in driver.names()


# Words.


def test_the_table() -> None:
    parts = (
        CudaPart("input: 4 products", 1e-4, 1e9, 5e-5, 1, "", 264, 1),
        CudaPart("loop along t from its start: h", 8e-4, 0.0, 7e-4, 1, "cluster", 16, 8),
        CudaPart("kept: a copy", 5e-5, 0.0, 2e-5, 12, "", 3, 1),
        CudaPart("small", 1e-6, 0.0, 2e-6, 1, "", 1, 1),
    )
    assert str(CudaProfile("net", "sm_90", 132, {"t": 9}, 1e-3, parts)) == (
        "net, t = 9: 1 ms a call on sm_90 with 132 SMs, 772 µs by count\n"
        "\n"
        "      time  share  by count  GFLOP/s            CTAs  part\n"
        "    100 µs  10.0%     50 µs  10000.0             264  input: 4 products\n"
        "    800 µs  80.0%    700 µs           cluster 16 × 8  loop along t from its start: h\n"
        "     50 µs   5.0%     20 µs               12 times 3  kept: a copy\n"
        "      1 µs   0.1%                                     1 more\n"
        "     49 µs   4.9%                                     launching and copies\n"
    )


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cell.py"
    path.write_text(CELL, encoding="utf-8")
    monkeypatch.setattr(sys.modules["graphc.compiling.compile"], "nvidia_device", EmulatedDevice)
    asked = ["profile", str(path), "--grad", "--length", "t=3", "--calls", "1", "--target", "cuda"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "mine, t = 3: " in done.output
    assert "on sm_90 with 132 SMs" in done.output
    assert "loop along t from its end: adjoint_h" in done.output
    refused = CliRunner().invoke(app, [*asked, "--threads", "2"])
    assert "threads=2 is for target='cpu'" in str(refused.exception)
