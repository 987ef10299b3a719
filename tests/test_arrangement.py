"""materialize, split, split_reduction, fission and canonical kernels: what is copied, taken apart, added up, computed
and called together, and that values stay."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes.fission import fission
from graphc.codegen.passes.materialize import materialize
from graphc.codegen.passes.split import split
from graphc.codegen.passes.split_reduction import split_reduction
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Const,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Ref,
    Scalar,
    Size,
    Store,
    kernels,
)
from graphc.codegen.verify_program import verify
from graphc.pipeline.stages import stages
from graphc.scalar import call, index


def results(program: Program, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> dict[str, np.ndarray]:
    verify(program)
    found = allocate(program, {name: array.copy() for name, array in arrays.items()}, sizes)
    interpret(program, found, sizes)
    return {b.name: found[b.name] for b in program.buffers if b.kind == "output"}


# Subtotals.


def totals(channels: int, inner: tuple[int, ...], op: str = "sum", condition: bool = False) -> Program:
    """Of x[n, …, c] over all but c: plain, and of its product with a let, both with an epilogue."""
    dims = (Dim("n", Size("n")), *(Dim(f"u{k}", index(extent)) for k, extent in enumerate(inner)))
    at = (*(Index(d.index) for d in dims), Index("c"))
    x = Load("x", at, "float64")
    twice = Let("twice", call("mul", Ref("scale", "float64"), x))
    sums = (Accumulate("a", op, x), Accumulate("b", op, Ref("twice", "float64")))  # type: ignore[arg-type]
    when = call("lt", index(0), Index("u0")) if condition else None
    scale = Let("scale", Load("s", (Index("c"),), "float64"))
    after = Let("y", call("add", Ref("a", "float64"), Ref("scale", "float64")))
    body = (scale, Reduce(dims, sums, (twice,), when), after)
    stores = (Store("o", (Index("c"),), Ref("y", "float64")), Store("p", (Index("c"),), Ref("b", "float64")))
    shape = (Size("n"), *map(index, inner), index(channels))
    buffers = (
        Buffer("x", "float64", shape, "input"),
        Buffer("s", "float64", (index(channels),), "input"),
        Buffer("o", "float64", (index(channels),), "output"),
        Buffer("p", "float64", (index(channels),), "output"),
    )
    return Program("totals", ("n",), buffers, (Kernel("k", (Dim("c", index(channels)),), body, stores),))


@settings(max_examples=20)
@given(
    st.sampled_from([1, 3, 32]),
    st.sampled_from([(64, 64), (4096,), (128, 32)]),
    st.sampled_from(["sum", "max"]),
    st.booleans(),
    st.integers(0, 3),
)
def test_subtotals_add_up(channels: int, inner: tuple[int, ...], op: str, condition: bool, n: int) -> None:
    before = totals(channels, inner, op, condition)
    after = split_reduction(before)
    assert [k.name for k in kernels(after.body)] == ["k.subtotals", "k"]
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(n, *inner, channels)), "s": rng.uniform(1, 2, size=channels)}
    expected, found = results(before, arrays, {"n": n}), results(after, arrays, {"n": n})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("channels", "inner"), [(3, (4, 4)), (2048, (64, 64)), (3, ())])
def test_little_work_and_many_results_have_no_subtotals(channels: int, inner: tuple[int, ...]) -> None:
    program = totals(channels, inner)
    assert split_reduction(program) == program


def test_a_sum_over_pixels_is_the_same_for_any_number_of_threads() -> None:
    g = gc.Graph("mean")
    n = g.axis("n")
    x = g.input("x", (8, 32, 32), over=n)
    g.output("mean", gc.mean(x, over=n, dim=(1, 2)))
    x_value = np.random.default_rng(0).normal(size=(13, 8, 32, 32)).astype(np.float32)
    assert any(kernel.name.endswith(".subtotals") for kernel in kernels(stages(g).program.body))
    one, two = (gc.compile(g, threads=threads)(x=x_value)["mean"] for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, x_value.mean((0, 2, 3), dtype=np.float64), atol=1e-6)


# Parting.


def products(pairs: list[tuple[int, int]], size: int = 64, together: bool = False) -> Program:
    """One kernel of the products A[a] @ B[b] for each pair, each stored; together, one store of their sum."""
    i, j, k = Index("i"), Index("j"), Index("k")

    def term(a: int, b: int) -> Scalar:
        return call("mul", Load(f"A{a}", (i, k), "float32"), Load(f"B{b}", (k, j), "float32"))

    sums = tuple(Accumulate(f"s{number}", "sum", term(*pair)) for number, pair in enumerate(pairs))
    refs: list[Scalar] = [Ref(total.name, "float32") for total in sums]
    while together and len(refs) > 1:
        refs = [call("mul", refs[0], refs[1]), *refs[2:]]
    stores = tuple(Store(f"o{number}", (i, j), value) for number, value in enumerate(refs))
    square = (index(size), index(size))
    names = sorted({f"A{a}" for a, _ in pairs} | {f"B{b}" for _, b in pairs})
    buffers = [Buffer(name, "float32", square, "input") for name in names]
    buffers += [Buffer(store.buffer, "float32", square, "output") for store in stores]
    dims = (Dim("i", index(size)), Dim("j", index(size)))
    body = (Reduce((Dim("k", index(size)),), sums),)
    return Program("products", (), tuple(buffers), (Kernel("all", dims, body, stores),))


def count(program: Program) -> int:
    return sum(1 for _ in kernels(program.body))


def test_products_without_a_common_operand_are_parted() -> None:
    assert count(fission(products([(a, a) for a in range(8)]))) == 8


@pytest.mark.parametrize("pairs", [[(0, b) for b in range(4)], [(a, 0) for a in range(4)]])
def test_products_that_share_an_operand_stay_together(pairs: list[tuple[int, int]]) -> None:
    gates = products(pairs, 96)
    assert fission(gates) == gates


def test_products_of_one_result_stay_together() -> None:
    program = products([(a, a) for a in range(8)], together=True)
    assert fission(program) == program


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=9, unique=True))
def test_parting_keeps_every_result(pairs: list[tuple[int, int]]) -> None:
    before = products(pairs, 6)
    after = fission(before)
    names = [kernel.name for kernel in kernels(after.body)]
    assert len(set(names)) == len(names)
    rng = np.random.default_rng(0)
    arrays = {b.name: rng.normal(size=(6, 6)).astype(np.float32) for b in before.buffers if b.kind == "input"}
    expected, found = results(before, arrays, {}), results(after, arrays, {})
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def test_parts_get_names_that_no_other_kernel_has() -> None:
    before = products([(a, a) for a in range(8)])
    (whole,) = kernels(before.body)
    other = replace(whole, name=f"{whole.name}.1")
    for body in ((whole, other), (other, whole)):
        names = [kernel.name for kernel in kernels(fission(replace(before, body=body)).body)]
        assert len(names) == len(set(names)) == 16


def test_a_part_that_reads_what_another_stores_stays_with_it() -> None:
    program = products([(a, a) for a in range(8)])
    (kernel,) = kernels(program.body)
    i, j = Index("i"), Index("j")
    first = Store("o0", (i, j), call("add", kernel.stores[0].value, Load("o1", (i, j), "float32")))
    touching = Program(
        program.name,
        (),
        program.buffers,
        (Kernel("all", kernel.dims, kernel.body, (first, *kernel.stores[1:])),),
    )
    parts = [{s.buffer for s in k.stores} for k in kernels(fission(touching).body)]
    assert len(parts) > 1
    assert any({"o0", "o1"} <= stored for stored in parts)


# Regrouping.


def blocked(size: tuple[int, int], *, direct: bool = False) -> gc.Graph:
    g = gc.Graph("blocked", dtype="float64")
    n = g.axis("n")
    x = g.input("x", (3, 6, 8), over=n)
    y = x if direct else gc.tanh(x)
    h = g.param("V", (5, 3 * size[0] * size[1])) @ gc.blocks(y, size)
    g.output("loss", gc.sum(gc.sum(h * h), over=h.axes))
    return gc.grad(g, "loss", wrt=["x", "V"])


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 4)])
def test_blocks_are_copied_once_and_no_larger_than_the_image(size: tuple[int, int], direct: bool) -> None:
    g = blocked(size, direct=direct)
    before = stages(g).planned
    after = materialize(before)
    new = [b for b in after.buffers if b.name.endswith(".blocks")]
    assert new
    for buffer in new:
        writers = [k for k in kernels(after.body) for s in k.stores if s.buffer == buffer.name]
        assert len(writers) == 1
        known = prod(int(d.value) for d in buffer.dims if isinstance(d, Const))
        assert known == 3 * 6 * 8
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(2, 3, 6, 8)), "V": rng.normal(size=g.params["V"].node.shape)}
    expected, found = gc.interpret(g, **arrays), gc.compile(g)(**arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)


def test_an_elementwise_source_is_stored_as_it_is_read() -> None:
    """Nothing else reads tanh(x) forwards, so it is computed into its blocks and has no buffer of its own."""
    g = gc.Graph("stored")
    n = g.axis("n")
    y = gc.tanh(g.input("x", (3, 6, 8), over=n))
    g.output("h", g.param("V", (5, 12)) @ gc.blocks(y, 2))
    program = materialize(stages(g).planned)
    temps = [b.name for b in program.buffers if b.kind == "temp"]
    assert len([name for name in temps if name.endswith(".blocks")]) == len(temps)


def test_windows_that_overlap_are_not_copied() -> None:
    g = gc.Graph("windows")
    n = g.axis("n")
    g.output("y", gc.conv(gc.tanh(g.input("x", (3, 6, 8), over=n)), g.param("W", (4, 3, 3, 3))))
    program = stages(g).planned
    assert materialize(program) == program


# Splitting.

SHAPES = ((12,), (3, 4), (4, 3), (2, 3, 2), (2, 6), (12, 1))


@settings(max_examples=20)
@given(st.sampled_from(SHAPES), st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4, unique=True))
def test_sums_in_one_kernel_are_taken_apart_each_by_itself(own: tuple[int, ...], read: list[tuple[int, ...]]) -> None:
    """Their dims may have one name and different lengths."""
    g = gc.Graph("sums", dtype="float64")
    x = g.input("x", own, over=g.axis("n"))
    for k, shape in enumerate(read):
        weights = np.sin(np.arange(prod(shape)) + k).reshape(shape)
        g.output(f"sum{k}", gc.sum(x.reshape(*shape) * weights))
    made = stages(g)
    assert count(made.planned) == 1
    arrays = {"x": np.random.default_rng(0).normal(size=(2, *own))}
    expected = gc.interpret(g, **arrays)
    found = results(split(made.planned), arrays | made.lowered.constants, {"n": 2})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12)


# One function for kernels of one form.


def test_kernels_of_one_form_share_a_function() -> None:
    g = gc.Graph("layers", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (8,), over=(t, n))
    h = x
    for layer in range(4):
        W, U = g.param(f"W{layer}", (8, 8)), g.param(f"U{layer}", (8, 8))
        state = g.state(f"h{layer}", (8,), over=(t, n))
        state[t] = gc.tanh(W @ h + U @ state[t - 1])
        h = state
    g.output("loss", gc.sum(gc.sum(h * h), over=(t, n)))
    step = gc.grad(g, "loss")
    functions = [line for line in gc.emit(step).llvm_ir.splitlines() if "noinline" in line]
    assert 1 < len(functions) < 0.6 * count(stages(step).program)
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(5, 3, 8)), **{name: rng.normal(size=(8, 8)) for name in g.params}}
    expected, found = gc.interpret(step, **arrays), gc.compile(step)(**arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12)
