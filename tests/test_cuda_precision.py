"""Products on the tensor cores, in the PTX emulator: what is rounded, and to what."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.target import Precision
from graphc.errors import UnsupportedError
from tests.cuda_emulated import arrays_of, check, compiled, recurrent


def bits_kept(kept: int) -> Callable[[np.ndarray], np.ndarray]:
    """Round float32 to so many bits after the point: to the nearest, ties to even."""

    def rounded(a: np.ndarray) -> np.ndarray:
        bits, drop = a.view(np.uint32).astype(np.uint64), 23 - kept
        bits += (1 << (drop - 1)) - 1 + ((bits >> drop) & 1)
        return (bits >> drop << drop).astype(np.uint32).view(np.float32)

    return rounded


ROUNDED: dict[Precision, Callable[[np.ndarray], np.ndarray]] = {
    "bf16": bits_kept(7),
    "f16": lambda a: a.astype(np.float16).astype(np.float32),
    "tf32": bits_kept(10),
}


def product(n: int) -> gc.Graph:
    g = gc.Graph("product")
    batch = g.axis("n", n)
    x, w = g.input("x", (70,), over=batch), g.param("w", (33, 70))
    g.output("y", w @ x)
    return g


@pytest.mark.parametrize("precision", list(ROUNDED))
def test_operands_are_rounded_and_sums_are_not(precision: Precision) -> None:
    g = product(50)
    arrays = arrays_of(g)
    x, w = ROUNDED[precision](arrays["x"]), ROUNDED[precision](arrays["w"])
    found = compiled(g, precision=precision)(**arrays)["y"]
    np.testing.assert_allclose(found, x.astype(np.float64) @ w.T.astype(np.float64), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("precision", list(ROUNDED))
def test_a_loop_of_small_integers_is_exact(precision: Precision) -> None:
    """A linear recurrence over integers that all precisions hold: any element in a wrong place would show."""
    g = gc.Graph("integers")
    t, n = g.axis("t"), g.axis("n")
    x, w = g.input("x", (20,), over=(t, n)), g.param("w", (20, 20))
    h = g.state("h", (20,), over=(t, n))
    h[t] = x + w @ h[t - 1]
    g.output("h", h)
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.integers(-2, 3, (3, 5, 20)).astype(np.float32),
        "w": rng.permutation(np.eye(20, dtype=np.float32)) - rng.permutation(np.eye(20, dtype=np.float32)),
    }
    check(g, arrays, {"t": 3, "n": 5}, 0.0, precision=precision)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 3e-2), ("f16", 4e-3), ("tf32", 4e-3)])
@pytest.mark.parametrize(
    ("cell", "units", "inputs", "n"), [("lstm", 24, 37, 7), ("gru", 40, 5, 3), ("lstm", 128, 5, 2)]
)
def test_gradients(cell: str, units: int, inputs: int, n: int, precision: Precision, tolerance: float) -> None:
    g = recurrent(cell, units, inputs)
    cluster = 1 if precision == "f16" else 16
    check(g, arrays_of(g, t=2, n=n), {"t": 2, "n": n}, tolerance, precision=precision, cluster=cluster)


def test_other_dtypes_are_left_alone() -> None:
    g = recurrent("elman", 6, 6, dtype="float64")
    check(g, arrays_of(g, t=2, n=1), {"t": 2, "n": 1}, 1e-12, precision="bf16")


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="bf16"):
        compiled(product(2), precision="int4")


def test_a_product_of_few_terms_and_many_points() -> None:
    """A convolution of three channels, whose cheapest tile would have more points side by side than a CTA threads."""
    g = gc.Graph("wide")
    n = g.axis("n")
    g.output("y", gc.layers.conv(g, g.input("x", (3, 24, 24), over=n), filters=32, size=3, padding=1))
    check(g, arrays_of(g, n=2), {"n": 2}, 2e-2, precision="bf16")
