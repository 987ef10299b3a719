"""Persistent kernels in the PTX emulator, against the interpreter: every cell, and lengths of all kinds."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from tests.cuda_emulated import arrays_of, check, compiled, recurrent

CELLS = (
    "cornn", "delta_net", "elman", "gla", "gru", "indrnn", "jordan", "layer_norm_lstm", "lem", "lstm", "mgu", "min_gru",
    "min_lstm", "mlstm", "peephole_lstm", "projected_lstm", "rg_lru", "rwkv7",
    "selective_ssm", "slstm", "ugrnn",
)  # fmt: skip


@pytest.mark.parametrize("cluster", [1, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_cell(cell: str, cluster: int) -> None:
    """A cell's gradient, in every way to group CTAs."""
    g = recurrent(cell, 4)
    check(g, arrays_of(g, t=3, n=3), {"t": 3, "n": 3}, 2e-5, cluster=cluster)


@pytest.mark.parametrize(("t", "n"), [(1, 1), (7, 2), (2, 5)])
def test_one_compilation_serves_all_lengths(t: int, n: int) -> None:
    g = recurrent("gru", 4)
    f = compiled(g)
    for lengths in ({"t": t, "n": n}, {"t": n, "n": t}):
        arrays = arrays_of(g, **lengths)
        for name, value in gc.interpret(g, **arrays).items():
            np.testing.assert_allclose(f(**arrays)[name], value, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(("t", "n"), [(0, 2), (2, 0)])
def test_empty_arrays(t: int, n: int) -> None:
    g = gc.Graph("empty")
    along, batch = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(along, batch))
    cell = gc.cells.elman(g, x, 4, over=along, name="cell")
    g.output("h", cell.h)
    g.output("total", gc.sum(cell.h, over=(along, batch)))
    arrays = arrays_of(g, t=t, n=n)
    found = compiled(g)(**arrays)
    for name, value in gc.interpret(g, **arrays).items():
        np.testing.assert_array_equal(found[name], value)


def test_results_are_the_same_from_run_to_run() -> None:
    g = recurrent("lstm", 8)
    arrays = arrays_of(g, t=9, n=4)
    f = compiled(g)
    first, second = f(**arrays), f(**arrays)
    for name in first:
        assert first[name].tobytes() == second[name].tobytes()


def test_what_follows_an_inner_loop_is_of_the_step_around_it() -> None:
    """A kernel over j after a loop over j: what it fetches ahead belongs to the next step of t, not of j."""
    g = gc.Graph("plane")
    t, j, n = g.axis("t"), g.axis("j"), g.axis("n")
    x = g.input("x", (), over=(t, j, n))
    s = g.state("s", (), over=(j, t))
    mean = gc.mean(x, over=n)
    s[j, t] = gc.tanh(mean + 0.5 * gc.mean(gc.tanh(x) * s[j - 1], over=n) - mean * s[t - 1])
    g.output("loss", gc.mean(gc.sin(s), over=(j, t)))
    lengths = {"t": 3, "j": 2, "n": 2}
    check(gc.grad(g, "loss", wrt=["x"]), arrays_of(g, **lengths), lengths, 2e-5)


def test_three_numbers_in_a_ring_are_not_loaded_as_four() -> None:
    """A state of three numbers, of which one step is kept, ends before a word of 16 bytes does."""
    g = gc.Graph("three")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (), over=(t, n))
    s, u = g.state("s", (3,), over=t), g.state("u", (), over=(t, n))
    s[t] = gc.tanh(gc.mean(u[t - 1] * x, over=n) * np.arange(3) - s[t - 1])
    u[t] = gc.tanh(x + gc.sum(s[t - 1]) * x - u[t - 1])
    g.output("loss", gc.mean(gc.sum(gc.sin(u), over=t), over=n))
    lengths = {"t": 3, "n": 1}
    check(gc.grad(g, "loss", wrt=["x"]), arrays_of(g, **lengths), lengths, 1e-5)
