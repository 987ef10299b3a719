"""join_stored: sums that are stored to be added up elsewhere are added up where they are made."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.passes.merge_stored_sums import merge_stored_sums
from graphc.codegen.passes.merge_sums import merge_sums
from graphc.codegen.program import Kernel, Program, Reduce, kernels
from graphc.codegen.uses import loads, stored
from graphc.codegen.verify_program import verify
from graphc.pipeline.stages import stages
from tests.cuda_emulated import arrays_of, check, recurrent


def stacked(cell: str) -> gc.Graph:
    g = gc.Graph("stacked")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    for k in range(2):
        x = getattr(gc.cells, cell)(g, x, 5, over=t, name=f"cell_{k}").h
    g.output("loss", gc.mean(gc.sum(x * x), over=(t, n)))
    return gc.grad(g, "loss")


def sums(program: Program) -> list[int]:
    """How many sums each kernel at the top has."""
    tops = [kernel for kernel in program.body if isinstance(kernel, Kernel)]
    return [sum(len(step.sums) for step in kernel.body if isinstance(step, Reduce)) for kernel in tops]


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3)])
def test_a_layer_hands_back_one_sum(cell: str, gates: int) -> None:
    planned = stages(stacked(cell)).planned
    joined = merge_sums(merge_stored_sums(planned))
    verify(joined)
    dropped = {b.name for b in planned.buffers} - {b.name for b in joined.buffers}
    assert len(dropped) == gates - 1
    assert sum(sums(planned)) - sum(sums(joined)) == gates - 1
    assert not dropped & (stored(joined.body) | {load.buffer for k in kernels(joined.body) for load in loads(k)})


def test_what_is_used_otherwise_stays() -> None:
    """A sum that two kernels read, one that is an output, and one that is not added."""
    g = gc.Graph("apart")
    n = g.axis("n")
    x, w, u = g.input("x", (8,), over=n), g.param("w", (8, 8)), g.param("u", (8, 8))
    a, b = w @ x, u @ x
    g.output("a", a)
    g.output("y", gc.sum(gc.exp(a + b)))
    g.output("z", gc.sum(gc.exp(b)))
    planned = stages(g).planned
    assert merge_stored_sums(planned) == planned


@pytest.mark.parametrize("cell", ["lstm", "gru", "slstm"])
def test_gradients(cell: str) -> None:
    g = stacked(cell)
    check(g, arrays_of(g, t=3, n=2), {"t": 3, "n": 2}, 1e-4)


def test_a_single_layer_has_nothing_to_join() -> None:
    planned = stages(recurrent("lstm", 8)).planned
    assert merge_stored_sums(planned) == planned
    assert np.array_equal(sums(planned), sums(merge_stored_sums(planned)))
