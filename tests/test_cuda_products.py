"""Products on the GPU in the PTX emulator: tiles, operands that stay on the chip, slices that never wait for each
other, images."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.points_unit import PointsUnit
from tests.cuda_emulated import arrays_of, check, compiled, loops_of, recurrent


@pytest.mark.parametrize(("units", "inputs", "n"), [(40, 37, 5), (72, 20, 1), (96, 64, 3)])
def test_large_cells(units: int, inputs: int, n: int) -> None:
    """Units and terms that do not fill their tiles; weights in registers and in shared memory."""
    g = recurrent("lstm", units, inputs)
    f = check(g, arrays_of(g, t=2, n=n), {"t": 2, "n": n}, 1e-4)
    assert any(isinstance(unit, PointsUnit) and unit.product is not None for unit in f.code.units)


def test_heads_are_slices_of_their_own() -> None:
    """A block-diagonal cell: the loop falls apart along batch and heads, and each group holds one head's weights."""
    g = gc.Graph("heads")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3, 4), over=(t, n))
    w = g.param("w", (3, 4, 4))
    h = g.state("h", (3, 4), over=(t, n))
    h[t] = gc.tanh(x + gc.einsum("hmk,hk->hm", w, h[t - 1]))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    d = gc.grad(g, "loss")
    f = check(d, arrays_of(d, t=3, n=2), {"t": 3, "n": 2}, 1e-5)
    loops = loops_of(f)
    assert [len(unit.slicings) for unit in loops] == [2, 2]
    assert all(version.fixed.count(3) == 1 for unit in loops for version in unit.versions)
    assert all(version.products and version.in_registers for unit in loops for version in unit.versions)


def test_a_dense_cell_falls_apart_along_the_batch_alone() -> None:
    f = compiled(recurrent("lstm", 8))
    loops = loops_of(f)
    assert [[slicing.dims for slicing in unit.slicings] for unit in loops] == [
        [dict.fromkeys((kernel.name for kernel in unit.loop.body), "n")] for unit in loops
    ]


def test_statistics_over_the_batch_join_its_slices() -> None:
    g = gc.Graph("joined")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(x + h[t - 1] - gc.mean(h[t - 1], over=n))
    g.output("loss", gc.sum(h, over=(t, n)))
    f = check(g, arrays_of(g, t=3, n=4), {"t": 3, "n": 4}, 1e-5)
    (loop,) = loops_of(f)
    assert "n" not in {dim for slicing in loop.slicings for dim in slicing.dims.values()}


def test_image_model() -> None:
    """One training step of a small convolutional and recurrent network: all params and statistics after it."""
    g = gc.Graph("small")
    n = g.axis("n")
    x = gc.layers.batch_norm(g, g.input("image", (3, 8, 8), over=n) / 128, over=n, name="norm")
    x = gc.relu(gc.layers.conv(g, x, 16, size=3, padding=2, dilation=2, name="conv"))
    x = gc.max_pool(x, size=3, stride=2, padding=1)
    x = gc.cells.spatial_rnn(g, x, units=5, size=2, name="rnn").image
    scores = gc.mean(gc.relu(gc.layers.conv(g, x, 2, size=1, padding=1, name="out")), dim=(1, 2))
    label = g.input("label", (), over=n, dtype="int32")
    g.output("loss", gc.mean(gc.cross_entropy(scores, label), over=n))
    step = gc.training_step(g, "loss", gc.optim.Momentum(lr=0.01, momentum=0.9, weight_decay=5e-4))
    pixels = 255 * np.random.default_rng(0).random((2, 3, 8, 8))
    arrays = {"image": pixels.astype("float32"), "label": np.array([0, 1], "int32")}
    expected, found = ({k: np.array(v) for k, v in gc.initialize(step, seed=0).items()} for _ in range(2))
    gc.compile(step)(**arrays, **expected)
    compiled(step)(**arrays, **found)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
