"""scatter: what each row asked for is sent to the rows; values stay, whatever threads, chunks and padding there are."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.codegen.cpu.jit import load
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes.scatter import scatter
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Call,
    Const,
    Dim,
    Index,
    Kernel,
    Load,
    Loop,
    Program,
    Reduce,
    Ref,
    Scalar,
    Store,
    kernels,
)
from graphc.codegen.verify_program import verify
from graphc.pipeline.stages import stages
from graphc.scalar import call, cast, index, walk

STEPS, BATCH = 6, 3


def words(rows: int, event: tuple[int, ...] = (), ragged: bool = False) -> tuple[gc.Graph, gc.Value]:
    """A graph, and words of a sequence that name rows."""
    g = gc.Graph("words", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32") if ragged else None)
    return g, g.input("word", event, over=(t, n), dtype="int32")


def loss(g: gc.Graph, value: gc.Value) -> gc.Graph:
    """The gradient of a sum of squares: different for every place."""
    squares = value * value
    g.output("loss", gc.sum(squares, over=value.axes, dim=tuple(range(len(value.shape)))))
    return gc.grad(g, "loss")


def scattering(inside: Iterable[Kernel]) -> list[Kernel]:
    return [kernel for kernel in inside if any(store.accumulate for store in kernel.stores)]


@settings(max_examples=40)
@given(
    st.integers(1, 300),
    st.sampled_from([(), (1,), (5,), (16,), (70,), (3, 18)]),
    st.sampled_from([(), (2,)]),
    st.booleans(),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 2**32 - 1),
)
@example(300, (70,), (), True, 2, 0)
@example(129, (), (2,), True, 2, 0)
def test_gradients_of_tables(
    rows: int, width: tuple[int, ...], event: tuple[int, ...], ragged: bool, threads: int, seed: int
) -> None:
    """Any table, any words: repeated ones, and behind an example's end such as name no row at all."""
    rng = np.random.default_rng(seed)
    g, word = words(rows, event, ragged)
    table = g.param("table", (rows, *width))
    dg = loss(g, gc.embedding(table, word))
    given_words = rng.integers(0, rows, (STEPS, BATCH, *event)).astype(np.int32)
    given_table = rng.normal(size=(rows, *width))
    lengths = rng.integers(0, STEPS + 1, BATCH).astype(np.int32) if ragged else np.full(BATCH, STEPS)
    exists = np.arange(STEPS)[:, None] < lengths
    expected = np.zeros_like(given_table)
    np.add.at(expected, given_words[exists], 2 * given_table[given_words[exists]])
    given_words[~exists] = rng.choice([-1, rows, 2**31 - 1, -(2**31)], (~exists).sum())[:, *[None] * len(event)]
    arrays = {"word": given_words, "table": given_table} | ({"lengths": lengths} if ragged else {})
    found = gc.compile(dg, threads=threads)(**arrays)["grad_table"]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "width", "sent"),
    [(5000, (64,), True), (8, (64,), True), (7, (64,), False), (5000, (), True), (100, (), False), (100, (4,), False)],
)
def test_tables_of_many_rows_are_scattered(rows: int, width: tuple[int, ...], sent: bool) -> None:
    g, word = words(rows)
    dg = loss(g, gc.embedding(g.param("table", (rows, *width)), word))
    program = stages(dg).program
    asking = [k for k in kernels(program.body) if any(d.extent == index(rows) for d in k.dims) and k.body]
    assert (len(scattering(kernels(program.body))), len(asking)) == ((1, 0) if sent else (0, 1))
    assert not any(b.kind == "temp" and index(rows) in b.dims for b in program.buffers)


def test_the_result_is_the_same_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    g, word = words(50)
    dg = loss(g, gc.embedding(g.param("table", (50, 96), dtype="float32"), word))
    arrays = {
        "word": rng.integers(0, 50, (200, 9)).astype(np.int32),
        "table": rng.normal(size=(50, 96)).astype(np.float32),
    }
    first, *others = (gc.compile(dg, threads=k)(**arrays)["grad_table"] for k in (1, 2, 3, 4))
    assert all(np.array_equal(first, other) for other in others)


def test_a_table_that_is_also_a_factor() -> None:
    """Tied embeddings: one kernel's sums over the same points, of which one is scattered."""
    rng = np.random.default_rng(0)
    g, word = words(40)
    table = g.param("table", (40, 16))
    dg = loss(g, table @ gc.tanh(gc.embedding(table, word)))
    arrays = {"word": rng.integers(0, 40, (STEPS, BATCH)).astype(np.int32), "table": rng.normal(size=(40, 16))}
    hidden = np.tanh(arrays["table"][arrays["word"]])
    scores = 2 * hidden @ arrays["table"].T
    expected = np.einsum("tnr,tnu->ru", scores, hidden)
    np.add.at(expected, arrays["word"], scores @ arrays["table"] * (1 - hidden**2))
    np.testing.assert_allclose(gc.compile(dg)(**arrays)["grad_table"], expected, rtol=1e-11)
    assert scattering(kernels(stages(dg).program.body))


def test_a_memory_that_is_read_in_a_loop() -> None:
    """A state of many cells, of which each step reads some by their numbers and changes all."""
    g, word = words(30, (3,))
    t, _ = word.axes
    cells = g.state("cells", (30, 20), over=word.axes)
    a = g.param("a", (30, 20))
    read = gc.sum(gc.embedding(cells[t - 1], word), dim=0)
    cells[t] = gc.tanh(a + cells[t - 1] + read)
    g.output("loss", gc.sum(gc.sum(cells[t] * cells[t], dim=(0, 1)), over=word.axes))
    dg = gc.grad(g, "loss")
    assert any(isinstance(s, Loop) and scattering(kernels(s.body)) for s in stages(dg).program.body)
    rng = np.random.default_rng(0)
    arrays = {"word": rng.integers(0, 30, (STEPS, BATCH, 3)).astype(np.int32), "a": rng.normal(size=(30, 20))}
    expected = gc.interpret(dg, **arrays)
    for threads in (1, 2):
        found = gc.compile(dg, threads=threads)(**arrays)
        np.testing.assert_allclose(found["grad_a"], expected["grad_a"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("ragged", [False, True])
def test_points_of_an_axis_that_are_read_at_computed_positions(ragged: bool, threads: int) -> None:
    """The gradient by what a permutation reads goes to the points it names, each term in one step."""
    g, position = words(STEPS, ragged=ragged)
    t, _ = position.axes
    s = g.axis("s", t)
    x = g.input("x", (3,), over=position.axes)
    g.output("loss", gc.sum(gc.sum(gc.sin(x[t.at(position[s])])), over=(s, *position.axes[1:])))
    dg = gc.grad(g, "loss", wrt="x")
    assert scattering(kernels(stages(dg).program.body))
    arrays = testing.random_arrays(dg, t=STEPS, n=BATCH) | {
        "x": np.random.default_rng(1).normal(size=(STEPS, BATCH, 3))
    }
    arrays["word"] = np.random.default_rng(2).integers(-1, STEPS + 1, (STEPS, BATCH)).astype(np.int32)
    expected, found = gc.interpret(dg, **arrays), gc.compile(dg, threads=threads)(**arrays)
    np.testing.assert_allclose(found["grad_x"], expected["grad_x"], rtol=1e-12, atol=1e-12)


def test_a_row_that_is_named_by_a_float_is_not_rounded() -> None:
    g = gc.Graph("g", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    named = g.input("named", (), over=n)
    g.output("counts", gc.sum(gc.where(named == gc.cast(gc.index(t), "float64"), 1.0, 0.0), over=n))
    counts = gc.compile(g)(t=40, named=np.array([0.0, 0.5, 2.0, 2.0, 39.25]))["counts"]
    assert counts.nonzero()[0].tolist() == [0, 2]


@pytest.mark.parametrize("memory", [None, "200 KiB"])
def test_a_training_step(memory: str | None) -> None:
    """A table updated in place, its momentum with it; in chunks, which add to what those before have left."""
    g, word = words(200)
    t, n = word.axes
    h = gc.cells.lstm(g, gc.embedding(g.param("table", (200, 16)), word), 16, over=t).h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    step = gc.training_step(g, "loss", gc.optim.Momentum(lr=0.5, momentum=0.9))
    rng = np.random.default_rng(0)
    begin = {name: rng.normal(size=p.node.shape).astype(p.node.dtype) for name, p in step.params.items()}
    begin["step"][...] = 0
    batch = {"word": rng.integers(0, 200, (64, 4)).astype(np.int32)}
    expected = {name: array.copy() for name, array in begin.items()}
    found = {name: array.copy() for name, array in begin.items()}
    program = gc.compile(step, memory=memory, threads=2)
    assert scattering(kernels(program.stages.program.body))
    assert memory is None or program.memory(t=64, n=4).peak < gc.compile(step).memory(t=64, n=4).peak
    for _ in range(2):
        interpreted = gc.interpret(step, **batch, **expected)
        result = program(**batch, **found)
        np.testing.assert_allclose(result["loss"], interpreted["loss"], rtol=1e-10)
    for name in begin:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


# Programs that graphs do not become, but passes might make.

ROW, U, K = Index("row"), Index("u"), Index("k")
WORD, X = cast(Load("word", (K,), "int32"), "index"), Load("x", (K, U), "float32")
TOTAL, MOST = Ref("total", "float32"), Ref("most", "float32")
BEGUN = call("add", Load("y0", (ROW, U), "float32"), TOTAL)


def asking(
    chosen: Scalar = WORD, term: Scalar = X, when: Scalar | None = None, *values: Scalar, before: Reduce | None = None
) -> Program:
    """y[row, u] = Σ select(chosen = row, term, 0) over k; and of more results, what is made of the total."""
    chosen_row = call("select", call("eq", ROW, chosen), term, Const(0.0, "float32"))
    reduce = Reduce((Dim("k", index(40)),), (Accumulate("total", "sum", chosen_row),), (), when)
    values = values or (TOTAL,)
    buffers = (
        Buffer("word", "int32", (index(40),), "input"),
        Buffer("x", "float32", (index(40), index(16)), "input"),
        *(Buffer(f"y{k}", "float32", (index(20), index(16)), "param") for k in range(len(values))),
    )
    stores = tuple(Store(f"y{k}", (ROW, U), value) for k, value in enumerate(values))
    body = (*(() if before is None else (before,)), reduce)
    return Program("asking", (), buffers, (Kernel("y", (Dim("row", index(20)), Dim("u", index(16))), body, stores),))


FAR = call("mul", WORD, index(3))  # some are not rows
ABOVE = Reduce((Dim("j", index(40)),), (Accumulate("most", "max", Load("x", (Index("j"), U), "float32")),))
PROGRAMS = {
    "plain": (asking(), True),
    "not rows": (asking(FAR), True),
    "under a condition": (asking(FAR, X, call("lt", K, index(17))), True),
    "a term that varies with the row": (asking(WORD, call("mul", X, cast(ROW, "float32"))), False),
    "a condition that varies with the row": (asking(WORD, X, call("lt", K, ROW)), False),
    "a row that varies with the row": (asking(call("add", WORD, ROW)), False),
    "a term that needs another sum": (asking(WORD, call("sub", X, MOST), before=ABOVE), False),
    "two uses": (asking(WORD, X, None, TOTAL, call("mul", TOTAL, TOTAL)), True),
    "a count": (asking(WORD, Const(1.0, "float32"), call("lt", K, index(17))), True),
    "begun": (asking(WORD, X, None, BEGUN), True),
    "begun, and used": (asking(WORD, X, None, BEGUN, TOTAL), True),
    "an epilogue": (asking(WORD, X, None, call("tanh", TOTAL)), True),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    before, sent = PROGRAMS[name]
    after = scatter(before)
    verify(after)
    assert bool(scattering(kernels(after.body))) == sent
    rng = np.random.default_rng(0)
    arrays = {
        "word": rng.integers(-2, 22, 40).astype(np.int32),
        "x": rng.normal(size=(40, 16)).astype(np.float32),
        **{b.name: np.ones((20, 16), np.float32) for b in before.buffers if b.kind == "param"},
    }
    results = []
    for program in (before, after):
        full = allocate(program, {name: array.copy() for name, array in arrays.items()}, {})
        interpret(program, full, {})
        results.append([full[b.name] for b in program.buffers if b.kind == "param"])
    native = allocate(after, {name: array.copy() for name, array in arrays.items()}, {})
    pointers = [native[b.name].ctypes.data for b in after.buffers]
    load(after)((ctypes.c_void_p * len(pointers))(*pointers), (ctypes.c_int64 * 0)())
    results.append([native[b.name] for b in after.buffers if b.kind == "param"])
    for expected, *found in zip(*results, strict=True):
        for array in found:
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_where_the_condition_is_false_nothing_is_loaded() -> None:
    """What stands behind the end may be memory that is not there."""
    (kernel,) = scattering(kernels(scatter(asking(WORD, X, call("lt", K, index(17)))).body))
    (store,) = kernel.stores
    loads = [part for scalar in (*store.at, store.value) for part in walk(scalar) if isinstance(part, Load)]
    assert loads
    assert all(load.when == call("lt", K, index(17)) for load in loads)
    assert all(isinstance(s, Call) and s.fn == "select" for s in (store.at[0], store.value))
