"""What steps exchange inside a CTA or a cluster goes through its shared memory, and nothing there is read too early,
overwritten too early, or written to a CTA that has ended."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.groups import Grouping, groupings
from graphc.codegen.cuda.units import LoopUnit
from graphc.cuda_compile import CompiledCuda
from tests import ptx
from tests.cuda_emulated import EmulatedDevice, arrays_of, check, recurrent
from tests.ptx import PtxError, Race, UninitialisedRead

SIZES = {"t": 5, "n": 3}
MEETING = "barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;"


def loops_of(g: gc.Graph, **options: str) -> list[LoopUnit]:
    units = gc.emit(g, target="cuda", **options).units  # type: ignore[call-overload]
    return [unit for unit in units if isinstance(unit, LoopUnit)]


def test_what_products_read_of_others_is_mirrored() -> None:
    """The state of an LSTM, and in its gradient what the gates' adjoints are made of; not over the grid."""
    forward, backward = loops_of(recurrent("lstm", 8))
    for unit, count in ((forward, 1), (backward, 4)):
        for version in unit.versions:
            assert len(version.mirrors) == (0 if version.kind == "grid" else count)


def test_a_mirror_holds_two_steps_of_a_groups_slice() -> None:
    unit, _ = loops_of(recurrent("lstm", 8))
    (cluster,) = (version for version in unit.versions if version.kind == "cluster")
    (mirror,) = cluster.mirrors
    assert mirror.bytes([10], [1]) == 2 * 10 * 8 * 4
    assert mirror.bytes([10], [4]) == 2 * 3 * 8 * 4


def test_what_lies_in_the_place_of_another_value_is_not_filled_with_it() -> None:
    """A state takes the place of its input product, which others stored; before the first step there is nothing."""
    g = gc.Graph("reversed")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.elman(g, g.input("x", (3,), over=(t, n)), 8, over=t, name="cell", reverse=True).h
    g.output("total", gc.sum(gc.sum(h * h), over=(t, n)))
    (loop,) = loops_of(g)
    assert loop.versions[0].mirrors[0].filled
    check(g, arrays_of(g, **SIZES), SIZES, 2e-5)
    forward, _ = loops_of(recurrent("elman", 8))
    assert not forward.versions[0].mirrors[0].filled


def test_groups_are_so_many_that_their_mirrors_fit() -> None:
    code = gc.emit(recurrent("lstm", 64), target="cuda")
    unit = next(unit for unit in code.units if isinstance(unit, LoopUnit))
    for batch in (1, 4096, 1 << 20):
        ways = groupings(unit, code.program, code.arch, {"t": 4, "n": batch})
        assert {way.version.kind for way in ways} == {"cta", "cluster", "grid"}
        assert all(way.shared <= code.arch.shared for way in ways)


def in_cluster(f: CompiledCuda) -> dict[str, Grouping]:
    """Each loop in clusters."""
    units = [unit for unit in f.code.units if isinstance(unit, LoopUnit)]
    ways = {u.symbol: groupings(u, f.program, f.code.arch, SIZES) for u in units}
    return {symbol: next(w for w in found if w.version.kind == "cluster") for symbol, found in ways.items()}


class Changed(EmulatedDevice):
    """A device that is given another text than the compiler wrote."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__()
        self.change = change

    def load(self, text: str) -> ptx.Module:
        return super().load(self.change(text))


def run(g: gc.Graph, change: Callable[[str], str] = str) -> dict[str, np.ndarray]:
    f = gc.compile(g, target="cuda", device=Changed(change))
    return dict(f.runner(arrays_of(g, **SIZES), in_cluster(f)))


def in_function(text: str, pattern: str, change: Callable[[str], str]) -> str:
    """The text with one function changed: the first whose name fits."""
    found = re.search(rf"\.entry {pattern}\(.*?\n}}", text, re.DOTALL)
    assert found is not None
    return text[: found.start()] + change(found[0]) + text[found.end() :]


@pytest.mark.parametrize("cell", ["gru", "lstm", "lem"])
def test_the_text_as_it_is_computes_what_the_interpreter_does(cell: str) -> None:
    g = recurrent(cell, 8)
    expected = gc.interpret(g, **arrays_of(g, **SIZES))
    for name, value in run(g).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-5, err_msg=name)


def without_meeting(function: str, number: int) -> str:
    parts = function.split(MEETING)
    return MEETING.join(parts[: number + 1]) + MEETING.join(parts[number + 1 :])


@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_no_meeting_before_the_last_can_be_left_out(cell: str) -> None:
    """In the gradient's loop, which stores to others before they first meet in a step."""
    g = recurrent(cell, 8)
    text = gc.emit(g, target="cuda").ptx
    name = re.findall(r"\.entry (k\d+_loop_t_cluster2)\(", text)[-1]
    meetings = text[text.index(f".entry {name}(") :].split("\n}")[0].count(MEETING)
    assert meetings >= 3  # before the first step, in each, after the last
    for number in range(meetings - 1):
        with pytest.raises((Race, UninitialisedRead)):
            run(g, lambda text, n=number: in_function(text, name, lambda f: without_meeting(f, n)))  # type: ignore[misc]


@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_a_cluster_meets_once_more_before_it_ends(cell: str) -> None:
    """None of its CTAs may be gone while others still store to it. (The emulator ends all CTAs together.)"""
    text = gc.emit(recurrent(cell, 8), target="cuda").ptx
    clusters = re.findall(r"\.entry k\d+_loop_t_cluster\d+\(.*?\n}", text, re.DOTALL)
    assert clusters
    for function in clusters:
        assert function.count("ret;") == 1
        assert re.search(re.escape(MEETING) + r"\s*ret;", function)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("barrier.cluster.arrive.aligned", "barrier.cluster.arrive.relaxed.aligned"),
        ("st.shared::cluster.b32", "st.shared.b32"),
    ],
)
def test_a_weaker_exchange_is_found(right: str, wrong: str) -> None:
    with pytest.raises(PtxError):
        run(recurrent("elman", 8), lambda text: text.replace(right, wrong))


def test_one_step_instead_of_two_is_found() -> None:
    """All steps in one place: some CTA still reads a step that another overwrites."""

    def one(function: str) -> str:
        changed = re.sub(r"and\.b64 (\s*%rd\d+, %rd\d+), 1;", r"and.b64 \1, 0;", function)
        changed = re.sub(r"selp\.b64 (\s*%rd\d+), (%rd\d+), 0, (%p\d+);", r"selp.b64 \1, 0, 0, \3;", changed)
        assert changed != function
        return changed

    with pytest.raises(Race):
        run(recurrent("elman", 8), lambda text: in_function(text, r"k\d+_loop_t_cluster2", one))
