"""What gets computed for itself, and in which loop: the same numbers wherever that is."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.testing import check_gradients


@pytest.mark.parametrize("kept", [True, False])
def test_steps_inside_a_step_begin_where_the_last_step_ended(kept: bool) -> None:
    """All that leads from one step to the next are views: the state v is u's last substep, and u begins as v did."""
    g = gc.Graph("substeps")
    t, n, k = g.axis("t"), g.axis("n"), g.axis("k", 3)
    x, W = g.input("x", (2,), over=(t, n)), g.param("W", (2, 2))
    v = g.state("v", (2,), over=(t, n))
    u = g.state("u", (2,), over=(t, k, n), initial=v[t - 1])
    u[t, k] = u[k - 1] + 0.3 * (gc.tanh(W @ u[k - 1] + x) - u[k - 1])
    v[t] = u[k.last]
    g.output("y", v if kept else 2 * v)
    g.output("loss", gc.mean(gc.sum(v * v), over=(t, n)))
    random = np.random.default_rng(0)
    arrays = {"x": random.normal(size=(4, 3, 2)).astype(np.float32), "W": random.normal(size=(2, 2)).astype(np.float32)}
    dg = gc.grad(g, "loss")
    expected = gc.interpret(dg, **arrays)
    found = gc.compile(dg)(**arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    h = np.zeros((3, 2), np.float32)
    for step in arrays["x"]:
        for _ in range(3):
            h = h + 0.3 * (np.tanh(h @ arrays["W"].T + step) - h)
    np.testing.assert_allclose(found["y"][-1], h if kept else 2 * h, rtol=1e-5, atol=1e-6)
    check_gradients(g, "loss")
