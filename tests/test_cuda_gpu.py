"""On a GPU: the comparisons that elsewhere run in the emulator, at sizes that fill it. Skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.driver.driver import Device, nvidia_device
from graphc.codegen.target import Precision
from graphc.errors import UnsupportedError
from tests.cuda_emulated import arrays_of, recurrent, ways
from tests.test_cuda_loops import CELLS


def device() -> Device | None:
    try:
        return nvidia_device()
    except UnsupportedError:
        return None


pytestmark = pytest.mark.skipif(device() is None, reason="no GPU, driver or cuda-bindings")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("units", "t", "n"), [(32, 50, 3), (160, 20, 33)])
def test_cell(cell: str, units: int, t: int, n: int) -> None:
    """A cell's gradient in every way to group CTAs, against the CPU."""
    g = recurrent(cell, units, 24)
    arrays = arrays_of(g, t=t, n=n)
    expected = gc.compile(g)(**arrays)
    f = gc.compile(g, target="cuda")
    for chosen in ways(f, {"t": t, "n": n}):
        found = f.runner(arrays, chosen)
        for name, value in expected.items():
            scale = np.abs(value).max(initial=1e-5)  # a sum that cancels has its terms' error
            np.testing.assert_allclose(found[name] / scale, value / scale, atol=2e-4, err_msg=f"{name} {chosen}")


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 3e-2), ("f16", 5e-3), ("tf32", 5e-3)])
@pytest.mark.parametrize(("cell", "units"), [("lstm", 256), ("gru", 640)])
def test_precision(cell: str, units: int, precision: Precision, tolerance: float) -> None:
    """The larger ones exchange words over the grid, too."""
    g = recurrent(cell, units, 128)
    arrays = arrays_of(g, t=16, n=16)
    expected = gc.compile(g)(**arrays)
    f = gc.compile(g, target="cuda", precision=precision)
    for chosen in ways(f, {"t": 16, "n": 16}):
        found = f.runner(arrays, chosen)
        for name, value in expected.items():
            scale = np.abs(value).max()
            np.testing.assert_allclose(found[name] / scale, value / scale, atol=tolerance, err_msg=f"{name} {chosen}")


@pytest.mark.parametrize("cell", ["min_gru", "indrnn", "rg_lru", "selective_ssm"])
@pytest.mark.parametrize(("t", "n"), [(1000, 1), (3000, 5)])
def test_scan(cell: str, t: int, n: int) -> None:
    """Recurrences whose steps are in many parts, all of which run at the same time."""
    g = recurrent(cell, 32, 24)
    arrays = arrays_of(g, t=t, n=n)
    expected, found = gc.compile(g)(**arrays), gc.compile(g, target="cuda")(**arrays)
    for name, value in expected.items():
        scale = np.abs(value).max(initial=1e-5)
        np.testing.assert_allclose(found[name] / scale, value / scale, atol=1e-3, err_msg=name)


def test_the_same_bits_from_run_to_run() -> None:
    g = recurrent("gru", 256, 64)
    arrays = arrays_of(g, t=64, n=16)
    f = gc.compile(g, target="cuda")
    first = f(**arrays)
    for _ in range(3):  # the second time as a graph of launches
        again = f(**arrays)
        assert all(first[name].tobytes() == again[name].tobytes() for name in first)
