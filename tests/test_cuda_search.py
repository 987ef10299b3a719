"""Sums whose terms each row searches for, in the PTX emulator: gradients of tables of any size, from any words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.cuda.units import Unit
from tests.cuda_emulated import Arrays, check, compiled
from tests.ptx import ptxas


def looking_up(rows: int, width: tuple[int, ...], ragged: bool = False, dtype: str = "float32") -> gc.Graph:
    """The gradient of a sum of squares of what words of a sequence name in a table."""
    g = gc.Graph("words", dtype=dtype)
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32") if ragged else None)
    found = gc.embedding(g.param("table", (rows, *width)), g.input("word", (), over=(t, n), dtype="int32"))
    g.output("loss", gc.sum(found * found, over=(t, n), dim=tuple(range(len(width)))))
    return gc.grad(g, "loss")


def searches(units: tuple[Unit, ...]) -> list[PointsUnit]:
    return [unit for unit in units if isinstance(unit, PointsUnit) and unit.search is not None]


def words(rng: np.random.Generator, rows: int, width: tuple[int, ...], steps: int, batch: int) -> Arrays:
    """Few different words, so that rows have many terms and none."""
    return {
        "word": rng.integers(0, rows, (steps, batch)).astype(np.int32) // 5,
        "table": rng.normal(size=(rows, *width)).astype(np.float32),
    }


@settings(max_examples=12)
@given(
    st.sampled_from([64, 65, 130, 2000]),
    st.sampled_from([(2,), (8,), (32,), (70,), (300,), (2, 33)]),
    st.sampled_from([(0, 3), (1, 1), (4, 8), (5, 13), (40, 2)]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@example(2000, (33,), (9, 11), True, 0)
@example(64, (300,), (40, 2), False, 0)
def test_gradients_of_tables(
    rows: int, width: tuple[int, ...], lengths: tuple[int, int], ragged: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    steps, batch = lengths
    arrays = words(rng, rows, width, steps, batch)
    if ragged:  # what lies behind an example's end may name no row at all
        arrays["lengths"] = rng.integers(0, steps + 1, batch).astype(np.int32)
        behind = np.arange(steps)[:, None] >= arrays["lengths"]
        arrays["word"][behind] = rng.choice([-1, rows, 2**31 - 1, -(2**31)], behind.sum())
    f = check(looking_up(rows, width, ragged), arrays, {"t": steps, "n": batch}, 1e-5)
    assert len(searches(f.code.units)) == 1


def test_sums_have_their_terms_in_order() -> None:
    """Large terms that cancel: another order would leave another rest."""
    terms = np.float32([1e8, 1, -1e8, 1, 3, 1e8, -1e8, 0.5])
    g = gc.Graph("words")
    t = g.axis("t")
    found = gc.embedding(g.param("table", (2000, 40)), g.input("word", (), over=t, dtype="int32"))
    g.output("loss", gc.sum(gc.sum(found) * g.input("term", (), over=t), over=t))
    f = compiled(gc.grad(g, "loss", wrt="table"))
    assert len(searches(f.code.units)) == 1
    arrays = {"word": np.full(8, 7, np.int32), "term": terms, "table": np.zeros((2000, 40), np.float32)}
    expected = np.float32(0)
    for term in terms:
        expected += term
    assert (f(**arrays)["grad_table"][7] == expected).all()


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on the PATH")
@pytest.mark.parametrize(("width", "dtype"), [((128,), "float32"), ((300,), "float64"), ((9,), "float32")])
def test_searches_assemble_and_do_not_spill(width: tuple[int, ...], dtype: str) -> None:
    code = gc.emit(looking_up(5000, width, ragged=True, dtype=dtype), target="cuda")
    reports = ptxas.assemble(code.ptx)
    assert [reports[unit.symbol].spills for unit in searches(code.units)] == [0]


@pytest.mark.parametrize("width", [(), (16,)])
def test_small_tables_and_tables_of_numbers_are_summed_by_points(width: tuple[int, ...]) -> None:
    f = compiled(looking_up(50 if width else 2000, width))
    assert not searches(f.code.units)


def test_a_step_of_training_searches() -> None:
    g = gc.Graph("words")
    t = g.axis("t")
    found = gc.embedding(g.param("table", (500, 16)), g.input("word", (), over=t, dtype="int32"))
    g.output("loss", gc.mean(gc.sum(found * found), over=t))
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=1e-2))
    rng = np.random.default_rng(0)
    arrays = {**gc.initialize(step), "word": rng.integers(0, 500, 30).astype(np.int32)}
    expected = gc.interpret(step, **{name: a.copy() for name, a in arrays.items()})
    f = compiled(step)
    assert len(searches(f.code.units)) == 1
    before = arrays["table"].copy()
    assert f(**arrays)["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    moved = (arrays["table"] != before).any(axis=1)
    assert set(np.flatnonzero(moved)) == set(arrays["word"])
