"""What `gc.explain(…, target="cuda")` says: it is read off the plan, and its estimates follow the lengths."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.cuda_explanation import CudaExplanation
from graphc.errors import ArgumentError
from tests.cuda_emulated import recurrent


def explained(units: int, t: int = 1024, n: int = 16, arch: str = "sm_90") -> CudaExplanation:
    return gc.explain(recurrent("lstm", units, 64), {"t": t, "n": n}, target="cuda", arch=arch)


@pytest.mark.parametrize(("units", "kind"), [(64, "cta"), (256, "cluster"), (768, "grid")])
def test_the_group_is_the_smallest_that_holds_the_weights(units: int, kind: str) -> None:
    loops = explained(units).loops
    assert len(loops) == 2
    for loop in loops:
        assert loop.ways[0].version.kind == kind
        assert loop.ways[0].version.holds
        smaller = [way for way in loop.ways if way.version.ctas < loop.ways[0].version.ctas]
        assert all(way.seconds >= loop.ways[0].seconds for way in smaller)


def test_without_clusters_there_are_two_kinds() -> None:
    loops = explained(256, arch="sm_80").loops
    assert len(loops) == 2
    for loop in loops:
        assert {way.version.kind for way in loop.ways} == {"cta", "grid"}


def test_work_is_counted() -> None:
    """2 · 4 H² N operations, and 4 H² float32 weights."""
    forward, _ = explained(64, n=8).loops
    assert forward.step.flops == 2 * 4 * 64 * 64 * 8
    assert forward.step.held == 4 * 4 * 64 * 64
    assert (forward.step.steps, forward.step.barriers) == (1024, 1)


def test_words() -> None:
    text = str(explained(64))
    for words in (
        "falls apart along n",
        "chosen: exchange inside one SM",
        "of operands a CTA in registers",
        "1,024 steps",
    ):
        assert words in text
    with pytest.raises(ArgumentError, match="'z'"):
        gc.explain(recurrent("gru", 4), {"z": 3}, target="cuda")
