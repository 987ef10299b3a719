"""What `gc.explain(…, target="cuda")` says: it is read off the plan, and its estimates follow the lengths."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.codegen.cuda.launches import launched
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.memory.arena import readable
from graphc.errors import ArgumentError, UnsupportedError
from graphc.reporting.cuda_explanation import CudaExplanation
from tests.cuda_emulated import compiled, recurrent


def explained(units: int, t: int = 1024, n: int = 16, arch: str = "sm_90") -> CudaExplanation:
    return gc.explain(recurrent("lstm", units, 64), {"t": t, "n": n}, target="cuda", arch=arch)


@pytest.mark.parametrize(("units", "kind"), [(8, "cta"), (256, "cluster"), (768, "grid")])
def test_the_group_is_the_smallest_that_holds_the_weights(units: int, kind: str) -> None:
    loops = explained(units).loops
    assert len(loops) == 2
    for loop in loops:
        assert loop.ways[0].version.kind == kind
        assert loop.ways[0].version.on_chip
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
    assert forward.step.stationary == 4 * 4 * 64 * 64
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


def test_a_limit_on_memory_is_explained_as_it_runs() -> None:
    """The same chunks, each loop as often, and grouped as in its first launch."""
    g, lengths, limit = recurrent("lstm", 16), {"t": 500, "n": 4}, "256 KiB"
    f = compiled(g, memory=limit)
    text = gc.explain(g, lengths, target="cuda", memory=limit)
    chosen = f._versions.choose(lengths)
    assert text.limited is not None
    assert text.lengths == lengths
    assert text.limited.chunks == {"t": (chosen.sizes["t.chunks"], chosen.sizes["t.chunk"])}
    assert text.limited.use == f.memory(**lengths)
    run = list(launched(chosen.code, chosen.sizes))
    loops = [unit for unit in chosen.code.units if isinstance(unit, LoopUnit)]
    for loop, unit in zip(text.loops, loops, strict=True):
        first, *others = (one.launch for one in run if one.unit is unit and one.sizes["step of t.chunk"] == 0)
        assert not others
        assert loop.launches == sum(one.unit is unit for one in run) == chosen.sizes["t.chunks"]
        assert unit.symbol_of(loop.ways[0].version) == first.symbol
    words = f"of 256.0 KiB, in {chosen.sizes['t.chunks']} chunks of {chosen.sizes['t.chunk']} steps of t"
    assert f"memory: {readable(f.memory(**lengths).peak)} {words}" in str(text)
    assert f"one persistent kernel, {chosen.sizes['t.chunks']} times" in str(text)


def test_what_fits_is_explained_in_one_piece() -> None:
    g, lengths = recurrent("gru", 4), {"t": 8, "n": 2}
    limited, free = (gc.explain(g, lengths, target="cuda", memory=memory) for memory in ("1 GiB", None))
    first, about, *rest = str(limited).splitlines()
    assert about.endswith("of 1.0 GiB, in one piece")
    assert [first, *rest] == str(free).splitlines()


def test_a_limit_that_is_too_low_is_an_error_of_the_call() -> None:
    g = recurrent("gru", 4)
    with pytest.raises(ArgumentError, match=r"at least .* limited to 1\.0 KiB"):
        gc.explain(g, {"t": 64, "n": 2}, target="cuda", memory="1 KiB")
    with pytest.raises(UnsupportedError, match="target='cuda'"):
        gc.explain(g, {"t": 64, "n": 2}, memory="1 MiB")  # type: ignore[call-overload]
