"""Which loads of its own cell a thread prefetches before a step waits, and that results stay the same."""

from __future__ import annotations

from collections import Counter

import pytest

import graphc as gc
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.prefetch import Prefetch, prefetches
from graphc.codegen.cuda.loops.thread_mapping import cells_of
from graphc.codegen.uses import loaded
from graphc.compiling.cuda_compile import CompiledCuda
from tests.cuda_emulated import arrays_of, check, compiled, loops_of, recurrent


def found(f: CompiledCuda, unit: LoopUnit) -> tuple[Prefetch, ...]:
    """Of the loop on single CTAs, which have barriers."""
    version = unit.versions[0]
    cells = cells_of(unit.loop, version.products, version.geometries, unit.epilogues, unit.slicings)
    return prefetches(unit.loop, cells, unit.barriers, f.program)


def kinds(loads: tuple[Prefetch, ...]) -> Counter[str]:
    return Counter("made" if x.made_by else "each step" if x.wait else "once" for x in loads)


def test_of_a_forward_loop() -> None:
    """The cell's state has never left its register; the gates' inputs come from memory, their biases once."""
    f = compiled(recurrent("lstm", 16))
    forward, _ = loops_of(f)
    loads = found(f, forward)
    assert kinds(loads) == {"made": 1, "each step": 4, "once": 4}
    assert [x.load.buffer for x in loads if x.made_by] == ["cell_c"]
    assert not any(x.before for x in loads if x.wait)


def test_of_a_backward_loop() -> None:
    """Adjoints of gates are computed before the loop waits, so what they take comes in the step before, though a step
    overwrites it; the adjoints of the state and of the cell's are the thread's own."""
    f = compiled(recurrent("lstm", 16))
    _, backward = loops_of(f)
    loads = found(f, backward)
    overwritten = {store.buffer for kernel in backward.loop.body for store in kernel.stores}  # type: ignore[union-attr]
    assert kinds(loads) == {"made": 2, "each step": 7, "once": 1}
    assert all(x.before for x in loads if x.wait)
    assert len({x.load.buffer for x in loads if x.wait} & overwritten) == 4


def test_what_is_stored_rounded_is_loaded_again() -> None:
    """A register would have more digits than the buffer."""
    g = gc.Graph("rounded")
    t, n = g.axis("t"), g.axis("n")
    x, U = g.input("x", (16,), over=(t, n)), g.param("U", (16, 16))
    h, c = g.state("h", (16,), over=(t, n)), g.state("c", (16,), over=(t, n), dtype="float16")
    c[t] = gc.cast(0.9 * c[t - 1] + x[t] + U @ h[t - 1], "float16")
    h[t] = gc.tanh(c[t])
    g.output("h", h)
    f = check(g, arrays_of(g, t=4, n=3), {"t": 4, "n": 3}, 2e-3)
    (unit,) = loops_of(f)
    assert "c" in loaded((unit.loop,))
    assert not kinds(found(f, unit))["made"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cluster", [1, 16])
def test_a_register_holds_one_step(cluster: int, reverse: bool) -> None:
    """What another kernel has made in this step is not what it made in the one before."""
    g = gc.Graph("lag")
    t, n = g.axis("t"), g.axis("n")
    x, U, V = g.input("x", (16,), over=(t, n)), g.param("U", (16, 16)), g.param("V", (16, 16))
    c, h = g.state("c", (16,), over=(t, n)), g.state("h", (16,), over=(t, n))
    before = t + 1 if reverse else t - 1
    c[t] = gc.tanh(x[t] + U @ h[before])
    h[t] = gc.tanh(V @ c[t] + 0.5 * c[before])
    g.output("h", h)
    check(g, arrays_of(g, t=4, n=3), {"t": 4, "n": 3}, 1e-4, cluster=cluster)


def test_a_place_that_is_read_from_memory_is_not_known_before() -> None:
    g = gc.Graph("looked_up")
    t, n = g.axis("t"), g.axis("n")
    word = g.input("word", (), over=(t, n), dtype="int32")
    rows, U = g.param("rows", (5, 16)), g.param("U", (16, 16))
    h = g.state("h", (16,), over=(t, n))
    h[t] = gc.tanh(U @ h[t - 1]) * gc.embedding(rows, word[t])
    g.output("h", h)
    f = compiled(g)
    (unit,) = loops_of(f)
    assert "rows" not in {x.load.buffer for x in found(f, unit)}


@pytest.mark.parametrize("cell", ["lstm", "gru", "lem", "slstm"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_sequences(cell: str, steps: int) -> None:
    """What comes one step early, or two, is of steps that there are."""
    g = recurrent(cell, 16)
    sizes = {"t": steps, "n": 5}
    check(g, arrays_of(g, **sizes), sizes, 1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_more_cells_than_threads(cell: str) -> None:
    """A thread's further cells are not its first."""
    g = recurrent(cell, 24)
    sizes = {"t": 3, "n": 40}
    check(g, arrays_of(g, **sizes), sizes, 1e-4)
    check(g, arrays_of(g, **sizes), sizes, 6e-2, precision="bf16")
