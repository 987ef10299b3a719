"""`gc.cells.spatial_rnn` against its equations written as loops over blocks, for either order of the sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.testing import check_gradients

N, UNITS = 2, 3
Arrays = dict[str, np.ndarray]


def network(cell: Any, vertical_first: bool, order: str, size: tuple[int, int], named: bool) -> gc.Graph:
    g = gc.Graph("spatial", dtype="float64")
    n = g.axis("n")
    x = g.input("x", (2, 4, 6), over=n)
    axes = (g.axis("rows", 4 // size[0]), g.axis("columns", 6 // size[1])) if named else None
    made = gc.cells.spatial_rnn(
        g, x, UNITS, size=size, cell=cell, name="s", axes=axes, vertical_first=vertical_first, order=order
    )
    assert made.rows.length == 4 // size[0]
    assert made.columns.length == 6 // size[1]
    g.output("y", made.image)
    g.output("blocks", made.second.h)
    g.output("loss", gc.mean(gc.sum(made.image * made.image), over=n))
    return g


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def step(a: Arrays, name: str, h: np.ndarray, p: np.ndarray) -> np.ndarray:
    """One step of an Elman cell, or of Chung's GRU if the params are a GRU's."""
    if f"{name}_W_h" in a:
        return np.tanh(p @ a[f"{name}_W_h"].T + a[f"{name}_b_h"] + h @ a[f"{name}_U_h"].T)
    gate = {k: p @ a[f"{name}_W_{k}"].T + a[f"{name}_b_{k}"] for k in "rzn"}
    r, z = (sigmoid(gate[k] + h @ a[f"{name}_U_{k}"].T) for k in "rz")
    return (1 - z) * h + z * np.tanh(gate["n"] + (r * h) @ a[f"{name}_U_n"].T)


def swept(a: Arrays, p: np.ndarray, name: str, vertical: bool) -> np.ndarray:
    """Both directions over p (rows, columns, N, inputs), concatenated."""
    result = np.zeros((*p.shape[:3], 2 * UNITS))
    for i, j in np.ndindex(*p.shape[:2]):
        before = (i - 1, j) if vertical else (i, j - 1)
        h = result[before][:, :UNITS] if min(before) >= 0 else np.zeros((N, UNITS))
        result[i, j][:, :UNITS] = step(a, f"s_{name}_forward", h, p[i, j])
    for i, j in reversed(list(np.ndindex(*p.shape[:2]))):
        after = (i + 1, j) if vertical else (i, j + 1)
        h = result[after][:, UNITS:] if after[0] < p.shape[0] and after[1] < p.shape[1] else np.zeros((N, UNITS))
        result[i, j][:, UNITS:] = step(a, f"s_{name}_backward", h, p[i, j])
    return result


@pytest.mark.parametrize("cell", ["elman", "gru"])
@pytest.mark.parametrize(
    ("vertical_first", "order", "size", "named"),
    [
        (True, "chw", (2, 2), False),
        (False, "chw", (1, 3), False),
        (True, "hwc", (2, 3), True),
        (False, "hwc", (1, 1), True),
    ],
)
def test_sweeps_follow_their_equations(
    cell: str, vertical_first: bool, order: str, size: tuple[int, int], named: bool
) -> None:
    g = network(getattr(gc.cells, cell), vertical_first, order, size, named)
    rng = np.random.default_rng(0)
    a = {name: rng.normal(0, 0.5, p.node.shape) for name, p in g.params.items()}
    x = rng.normal(size=(N, 2, 4, 6))
    (high, wide), rows, columns = size, 4 // size[0], 6 // size[1]
    p = np.zeros((rows, columns, N, 2 * high * wide))
    for i, j in np.ndindex(rows, columns):
        block = x[:, :, i * high : (i + 1) * high, j * wide : (j + 1) * wide]
        p[i, j] = (block if order == "chw" else block.transpose(0, 2, 3, 1)).reshape(N, -1)
    for vertical in (vertical_first, not vertical_first):
        p = swept(a, p, "vertical" if vertical else "horizontal", vertical)
    dg = gc.grad(g, "loss", ["x", *g.params])
    interpreted, compiled = gc.interpret(dg, x=x, **a), gc.compile(dg)(x=x, **a)
    for found in (interpreted, compiled):
        np.testing.assert_allclose(found["blocks"], p, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(found["y"], p.transpose(2, 3, 0, 1), rtol=1e-11, atol=1e-13)
    for name, value in interpreted.items():
        np.testing.assert_allclose(compiled[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
    if size == (2, 2):
        check_gradients(g, "loss", ["x", *g.params], {"x": x, **a})


def test_every_block_sees_the_whole_image() -> None:
    g = network(gc.cells.elman, True, "chw", (2, 2), named=False)
    a, x = gc.initialize(g), np.random.default_rng(1).normal(size=(1, 2, 4, 6))
    cotangent = np.zeros((1, 2 * UNITS, 2, 3))
    cotangent[:, :, 1, 0] = 1
    seen = gc.compile(gc.vjp(gc.select(g, "y"), "y", ["x"]))(x=x, cotangent_y=cotangent, **a)["grad_x"]
    assert (seen != 0).all()
