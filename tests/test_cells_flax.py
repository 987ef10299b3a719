"""The cells against Flax's LSTMCell, GRUCell and SimpleCell: outputs, and weights there and back.

Skipped, visibly, where Flax is not installed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import graphc as gc

jax = pytest.importorskip("jax")
linen = pytest.importorskip("flax.linen")

T, N, I, H = 6, 2, 3, 4
CELLS = {"lstm": linen.LSTMCell, "gru": linen.GRUCell, "elman": linen.SimpleCell}


def layer(made: Any, both: bool) -> Any:
    rnn = functools.partial(linen.RNN, time_major=True)
    return linen.Bidirectional(rnn(made(H)), rnn(made(H)), time_major=True) if both else rnn(made(H))


def graph(cell: str, both: bool, update: str, **options: Any) -> gc.Graph:
    g = gc.Graph("layer")
    t, n = g.axis("t"), g.axis("n")
    own = functools.partial(gc.cells.gru, reset="after", update=update) if cell == "gru" else getattr(gc.cells, cell)
    add = functools.partial(gc.cells.bidirectional, cell=own) if both else own
    g.output("h", add(g, g.input("x", (I,), over=(t, n)), units=H, over=t, name=cell, **options).h)
    return g


@pytest.mark.parametrize("update", ["old", "new"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("cell", "made"), [*CELLS.items(), ("lstm", linen.OptimizedLSTMCell)])
def test_a_layer_and_a_cell_are_the_same_function(cell: str, made: Any, both: bool, update: str) -> None:
    module = layer(made, both)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(T, N, I)).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), variables)  # no biases of 0
    expected = module.apply(variables, x)
    params = gc.cells.from_flax(variables["params"], cell, update=update)
    g = graph(cell, both, update)
    assert params.keys() == g.params.keys()
    np.testing.assert_allclose(gc.interpret(g, x=x, **params)["h"], expected, rtol=2e-5, atol=2e-6)
    again = gc.cells.to_flax(params, cell, update=update)
    own = variables["params"] if both else variables["params"]["cell"]
    assert jax.tree.structure(again) == jax.tree.structure(own)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, again, own)))


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_of_flax_by_itself_has_the_same_params(cell: str) -> None:
    """One step, of a cell without biases, which has biases of 0 there."""
    g = graph(cell, False, "old", bias=False)
    params = gc.initialize(g, seed=3)
    one = CELLS[cell](H)
    x = np.random.default_rng(1).normal(size=(1, N, I)).astype(np.float32)
    theirs = gc.cells.to_flax(params, cell, bias=False)
    _, h = one.apply({"params": theirs}, one.initialize_carry(jax.random.key(0), (N, I)), x[0])
    np.testing.assert_allclose(gc.interpret(g, x=x, **params)["h"][0], h, rtol=2e-5, atol=2e-6)
