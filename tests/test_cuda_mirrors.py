"""What steps exchange inside a CTA or a cluster goes through its shared memory, and nothing there is read too early,
overwritten too early, or written to a CTA that has ended."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda.cost_model import Grouping, groupings
from graphc.codegen.cuda.loops.geometry import Geometry
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.mma_geometry import MmaGeometry
from graphc.codegen.cuda.loops.versions import RESERVED
from graphc.codegen.target import Precision
from graphc.compiling.cuda_compile import CompiledCuda
from tests import ptx
from tests.cuda_emulated import EmulatedDevice, arrays_of, check, recurrent
from tests.ptx import PtxError, Race, UninitialisedRead

SIZES = {"t": 5, "n": 3}
CLUSTER_BARRIER = "barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;"


def loops_of(g: gc.Graph, **options: str) -> list[LoopUnit]:
    units = gc.emit(g, target="cuda", **options).units  # type: ignore[call-overload]
    return [unit for unit in units if isinstance(unit, LoopUnit)]


def test_what_products_read_of_others_is_mirrored() -> None:
    """The state of an LSTM, and in its gradient what the gates' adjoints are made of; not where a grid has barriers."""
    forward, backward = loops_of(recurrent("lstm", 8))
    for unit, count in ((forward, 1), (backward, 4)):
        for version in unit.versions:
            assert len(version.mirrors) == (0 if version.kind == "grid" and not version.exchanges else count)


def test_a_mirror_holds_two_steps_of_a_groups_slice() -> None:
    unit, _ = loops_of(recurrent("lstm", 8))
    (cluster,) = (version for version in unit.versions if version.kind == "cluster")
    (mirror,) = cluster.mirrors
    assert mirror.bytes([10], [1]) == 2 * 10 * (8 * 4 + 16)  # an odd number of 16 bytes
    assert mirror.bytes([10], [4]) == 2 * 3 * (8 * 4 + 16)


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


@pytest.mark.parametrize(("arch", "products"), [("sm_120", 5), ("sm_120", 25), ("sm_90", 12), ("sm_90", 60)])
def test_every_grouping_of_many_products_fits_on_the_chip(arch: str, products: int) -> None:
    """The sums of each product lie in a place of their own, of which there is only so much."""
    g = gc.Graph("many")
    t, n = g.axis("t"), g.axis("n")
    states = [g.state(f"s{k}", (16,), over=(t, n)) for k in range(products)]
    for k, state in enumerate(states):
        state[t] = gc.tanh(g.param(f"W{k}", (16, 16)) @ (states[k - 1] if k else states[-1][t - 1]))
    g.output("last", states[-1])
    code = gc.emit(g, target="cuda", arch=arch, precision="bf16")
    (unit,) = (unit for unit in code.units if isinstance(unit, LoopUnit))
    for batch in (1, 16, 4096):
        ways = groupings(unit, code.program, code.arch, {"t": 4, "n": batch})
        assert ways
        assert all(way.shared + RESERVED <= code.arch.shared for way in ways)


def test_sums_without_a_place_are_made_by_multiply_adds() -> None:
    """Products beyond those whose sums fit; they read the same rounded mirrors as the others."""
    g = gc.Graph("many")
    t, n = g.axis("t"), g.axis("n")
    states = [g.state(f"s{k}", (8,), over=(t, n)) for k in range(21)]
    for k, state in enumerate(states):
        before = states[k - 1] if k else states[-1][t - 1]
        state[t] = gc.tanh(g.param(f"W{k}", (8, 8)) @ before + g.input(f"x{k}", (8,), over=(t, n)))
    g.output("last", states[-1])
    f = gc.compile(g, target="cuda", device=EmulatedDevice("sm_120", cluster=1), precision="bf16")
    (unit,) = (unit for unit in f.code.units if isinstance(unit, LoopUnit))
    homes = {type(geometry) for geometry in unit.versions[-1].geometries.values()}
    assert homes == {Geometry, MmaGeometry}
    arrays = arrays_of(g, t=3, n=2)
    expected = gc.interpret(g, **arrays)["last"]
    for way in groupings(unit, f.program, f.code.arch, {"t": 3, "n": 2}):
        found = f.runner(arrays, {unit.symbol: way})["last"]
        np.testing.assert_allclose(found, expected, rtol=5e-2, atol=5e-2)


def grouped(f: CompiledCuda, kind: str) -> dict[str, Grouping]:
    """Each loop in groups of a kind: "cluster", "words" (exchanged over the grid), or "grid" (with barriers)."""
    units = [unit for unit in f.code.units if isinstance(unit, LoopUnit)]
    ways = {u.symbol: groupings(u, f.program, f.code.arch, SIZES) for u in units}
    return {symbol: next(w for w in found if kind_of(w) == kind) for symbol, found in ways.items()}


def kind_of(way: Grouping) -> str:
    return "words" if way.version.sends_words else way.version.kind


def clusters_for(kind: str) -> int:
    """Small loops exchange words over the grid where there are no clusters."""
    return 1 if kind == "words" else 16


def coupled() -> gc.Graph:
    """Two states; the second reads the step before of the first, which has been stored anew by then."""
    g = gc.Graph("coupled")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (8,), over=(t, n))
    a, b = g.state("a", (8,), over=(t, n)), g.state("b", (12,), over=(t, n))
    a[t] = gc.tanh(g.param("U", (8, 12)) @ b[t - 1] + x)
    b[t] = gc.tanh(g.param("V", (12, 8)) @ a[t - 1] + g.param("W", (12, 8)) @ a)
    g.output("a", a)
    g.output("b", b)
    return g


class Changed(EmulatedDevice):
    """A device that is given another text than the compiler wrote."""

    def __init__(self, change: Callable[[str], str], kind: str) -> None:
        super().__init__(cluster=clusters_for(kind))
        self.change = change

    def load(self, text: str) -> ptx.Module:
        return super().load(self.change(text))


def run(g: gc.Graph, change: Callable[[str], str] = str, kind: str = "cluster") -> dict[str, np.ndarray]:
    f = gc.compile(g, target="cuda", device=Changed(change, kind))
    return dict(f.runner(arrays_of(g, **SIZES), grouped(f, kind)))


def in_function(text: str, pattern: str, change: Callable[[str], str]) -> str:
    """The text with one function changed: the first whose name fits. Some texts have none."""
    found = re.search(rf"\.entry {pattern}\(.*?\n}}", text, re.DOTALL)
    return text if found is None else text[: found.start()] + change(found[0]) + text[found.end() :]


@pytest.mark.parametrize("kind", ["cluster", "words", "grid"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "lem"])
def test_the_text_as_it_is_computes_what_the_interpreter_does(cell: str, kind: str) -> None:
    g = recurrent(cell, 8)
    expected = gc.interpret(g, **arrays_of(g, **SIZES))
    for name, value in run(g, kind=kind).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-5, err_msg=name)


def test_a_loop_that_reads_a_step_after_storing_the_next_has_barriers() -> None:
    """A CTA that does not wait for those that still read would overwrite what they read."""
    g = coupled()
    (loop,) = loops_of(g)
    assert not any(version.exchanges for version in loop.versions)
    expected = gc.interpret(g, **arrays_of(g, **SIZES))
    for name, value in run(g).items():
        np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("ctas", [2, 3])
def test_ctas_without_units_take_no_part(ctas: int) -> None:
    """Sixteen units are one CTA's on the tensor cores, whatever the group has; forty are three CTAs' of four."""
    g = recurrent("gru", 16 if ctas == 2 else 40)
    expected = gc.interpret(g, **arrays_of(g, **SIZES))
    for kind in ("cluster", "words"):
        f = compiled_for(g, "bf16", kind)
        for unit in (u for u in f.code.units if isinstance(u, LoopUnit)):
            for version in unit.versions:
                assert all(exchange.ctas == min(version.ctas, {2: 1, 3: 3}[ctas]) for exchange in version.exchanges)
        found = f.runner(arrays_of(g, **SIZES), grouped(f, kind))
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], rtol=4e-2, atol=4e-2, err_msg=f"{kind} {name}")


def compiled_for(g: gc.Graph, precision: Precision, kind: str) -> CompiledCuda:
    return gc.compile(g, target="cuda", device=EmulatedDevice(cluster=clusters_for(kind)), precision=precision)


@pytest.mark.parametrize("sizes", [(1, 1, 3), (2, 5, 4)])
def test_calls_of_other_lengths_leave_nothing_behind(sizes: tuple[int, ...]) -> None:
    """The words of a call are 0 again when it has ended: the next one, shorter or longer, waits for its own."""
    g = recurrent("lstm", 8)
    f = compiled_for(g, "float32", "words")
    for steps in (*sizes, *reversed(sizes)):
        arrays = arrays_of(g, t=steps, n=3)
        expected = gc.interpret(g, **arrays)
        for name, value in f.runner(arrays, grouped(f, "words")).items():
            np.testing.assert_allclose(value, expected[name], rtol=2e-5, atol=2e-5, err_msg=name)


def without(function: str, what: str, number: int) -> str:
    parts = function.split(what)
    return what.join(parts[: number + 1]) + what.join(parts[number + 1 :])


@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_the_first_barrier_cannot_be_left_out(cell: str) -> None:
    """Before it, the memory of others is not ready for what is sent to it."""
    text = gc.emit(recurrent(cell, 8), target="cuda").ptx
    name = re.findall(r"\.entry (k\d+_loop_t_cluster2)\(", text)[-1]
    assert (
        text[text.index(f".entry {name}(") :].split("\n}")[0].count(CLUSTER_BARRIER) == 2
    )  # the other is after the last step
    with pytest.raises((Race, UninitialisedRead)):
        run(recurrent(cell, 8), lambda text: in_function(text, name, lambda f: without(f, CLUSTER_BARRIER, 0)))


@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_no_cta_goes_on_before_it_has_received_all_parts(cell: str) -> None:
    """No wait for an exchange can be left out, except those after the last step."""
    g, wait = recurrent(cell, 8), r"\{ \.reg \.pred p; mbarrier\.try_wait[^}]*selp\.u32 (%r\d+), 1, 0, p; \}"
    text = gc.emit(g, target="cuda").ptx
    name = re.findall(r"\.entry (k\d+_loop_t_cluster2)\(", text)[-1]
    function = text[text.index(f".entry {name}(") :].split("\n}")[0]
    exchanges = loops_of(g)[-1].versions[1].exchanges
    assert len(re.findall(wait, function)) == len(exchanges) + sum(exchange.wraps for exchange in exchanges)
    for number in range(len(exchanges)):

        def hasty(function: str, number: int = number) -> str:
            found = list(re.finditer(wait, function))[number]
            return f"{function[: found.start()]}mov.u32 {found[1]}, 1;{function[found.end() :]}"

        with pytest.raises((Race, UninitialisedRead)):
            run(g, lambda text, hasty=hasty: in_function(text, name, hasty))  # type: ignore[misc]


@pytest.mark.parametrize("cell", ["elman", "gru"])
def test_a_cluster_has_a_last_barrier_before_it_ends(cell: str) -> None:
    """None of its CTAs may be gone while others still store to it. (The emulator ends all CTAs together.)"""
    text = gc.emit(recurrent(cell, 8), target="cuda").ptx
    clusters = re.findall(r"\.entry k\d+_loop_t_cluster\d+\(.*?\n}", text, re.DOTALL)
    assert clusters
    for function in clusters:
        assert function.count("ret;") == 1
        assert re.search(re.escape(CLUSTER_BARRIER) + r"\s*ret;", function)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("cluster", "barrier.cluster.arrive.aligned", "barrier.cluster.arrive.relaxed.aligned"),
        ("cluster", "try_wait.parity.acquire", "try_wait.parity.relaxed"),
        ("words", "st.relaxed.gpu.global.b128", "st.global.b128"),
        ("words", "st.relaxed.gpu.global.b128", "st.relaxed.cta.global.b128"),
        ("words", "ld.relaxed.gpu.global.b128", "ld.relaxed.cta.global.b128"),
    ],
)
def test_a_weaker_exchange_is_found(kind: str, right: str, wrong: str) -> None:
    def weaker(text: str) -> str:
        assert (right in text) == ("_loop_" in text)
        return text.replace(right, wrong)

    with pytest.raises(PtxError):
        run(recurrent("elman", 8), weaker, kind)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("barrier.cluster.arrive.aligned", "barrier.cluster.arrive.relaxed.aligned"),
        ("st.shared::cluster.b32", "st.shared.b32"),
    ],
)
def test_a_weaker_exchange_is_found_where_there_are_barriers(right: str, wrong: str) -> None:
    with pytest.raises(PtxError):
        run(coupled(), lambda text: text.replace(right, wrong))


def test_one_step_instead_of_two_is_found() -> None:
    """All steps in one place: some CTA still reads a step that another overwrites."""

    def one(function: str) -> str:
        changed = re.sub(r"and\.b64 (\s*%rd\d+, %rd\d+), 1;", r"and.b64 \1, 0;", function)
        changed = re.sub(r"selp\.b64 (\s*%rd\d+), (%rd\d+), 0, (%p\d+);", r"selp.b64 \1, 0, 0, \3;", changed)
        assert changed != function
        return changed

    with pytest.raises(Race):
        run(recurrent("elman", 8), lambda text: in_function(text, r"k\d+_loop_t_cluster2", one))


@pytest.mark.parametrize(
    ("filters", "size", "padding", "dilation"), [(2, 2, 1, 1), (2, 3, 2, 1), (1, 5, 4, 1), (3, 2, 40, 40)]
)
def test_windows_over_the_border_read_nothing_beyond_a_mirror(
    filters: int, size: int, padding: int, dilation: int
) -> None:
    """A state that is read through padded windows, whose elements beyond the border lie nowhere."""
    g = gc.Graph("windows")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (2, 6), over=(t, n))
    kernel = g.param("kernel", (filters, 2, size), init="uniform(1)")
    found = gc.tanh(gc.conv(h[t - 1], kernel, padding=padding, dilation=dilation))
    points = found.shape[0] * found.shape[1]
    U = g.param("U", (12, points), init="uniform(1)")
    h[t] = gc.tanh((U @ found.reshape(points)).reshape(2, 6) + g.input("x", (2, 6), over=(t, n)))
    g.output("loss", gc.sum(gc.sum(h * h), over=(t, n)))
    dg = gc.grad(g, "loss")
    check(dg, arrays_of(dg, **SIZES), SIZES, 2e-4)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_elements_beyond_a_border_are_not_read_from_the_step_that_is_stored(precision: Precision) -> None:
    """A convolution whose sums are the state itself: while it is stored, others still read the step before."""
    g = gc.Graph("windows")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (4, 6, 6), over=(t, n))
    h[t] = gc.tanh(gc.conv(h[t - 1], g.param("U", (4, 4, 3, 3)), padding=1) + g.input("x", (4, 6, 6), over=(t, n)))
    g.output("h", h)
    sizes = {"t": 4, "n": 1}
    tolerance = 3e-2 if precision == "bf16" else 2e-4
    check(g, arrays_of(g, **sizes), sizes, tolerance, cluster=1, precision=precision)
