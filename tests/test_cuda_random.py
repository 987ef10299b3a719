"""Random cyclic graphs and their gradients in the PTX emulator, against the interpreter."""

from __future__ import annotations

from hypothesis import given, settings

import graphc as gc
from graphc import testing
from tests.cuda_emulated import check


@given(testing.graphs())
@settings(max_examples=8)
def test_random_graphs(example: testing.Example) -> None:
    g = gc.grad(example.graph, "loss")
    sizes = {**example.lengths, "n": len(example.arrays["label"][0])}
    check(g, example.arrays, sizes, 1e-9)
