"""Random cyclic graphs and their gradients in the PTX emulator, against the interpreter."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from tests.cuda_emulated import check


@given(testing.graphs(), st.sampled_from([1, 16]))
@settings(max_examples=8)
def test_random_graphs(example: testing.Example, cluster: int) -> None:
    g = gc.grad(example.graph, "loss")
    sizes = {**example.lengths, "n": len(example.arrays["label"][0])}
    check(g, example.arrays, sizes, 1e-9, cluster=cluster)
