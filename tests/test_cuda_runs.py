"""A thread with several neighbouring points, in the PTX emulator: what lies together is loaded and stored together."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda import points_unit
from graphc.codegen.cuda.points_unit import PointsUnit
from tests.cuda_emulated import arrays_of, check


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels with few points, too."""
    monkeypatch.setattr(points_unit, "_MANY", 1)


@pytest.mark.parametrize("side", [8, 12, 6])
def test_images(side: int) -> None:
    """Elements, and windows that overlap, and back; rows of 6 have no whole runs."""
    g = gc.Graph("images")
    n = g.axis("n")
    x = g.input("x", (2, side, side), over=n)
    scale = g.param("scale", (2, 1, 1))
    y = gc.max_pool(gc.relu(x * scale + 1.0), size=3, stride=2, padding=1)
    g.output("loss", gc.mean(gc.sum(y * y), over=n))
    d = gc.grad(g, "loss")
    f = check(d, arrays_of(d, n=3), {"n": 3}, 1e-5)
    runs = [unit.run for unit in f.code.units if isinstance(unit, PointsUnit)]
    assert (max(runs) == 4) == (side % 4 == 0)
    assert ("st.global.v4" in f.code.ptx) == (side % 4 == 0)


def test_a_point_may_replace_what_it_reads() -> None:
    """Both arrays are read before either is stored, in one place of memory for all of it."""
    g = gc.Graph("replaced")
    n = g.axis("n")
    x = g.input("x", (8,), over=n)
    total = gc.sum(x, over=n)
    y = gc.exp(x - total)
    z = y * gc.sum(y, over=n)
    g.output("z", z - gc.sum(z, over=n))
    arrays = {"x": np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)}
    check(g, arrays, {"n": 5}, 1e-4)
