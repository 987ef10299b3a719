"""Packing changes where a contraction reads, never what it computes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphc.codegen.access import Access
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes.pack import pack
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Dim,
    Kernel,
    Kind,
    Loop,
    Program,
    Reduce,
    Statement,
    Store,
    indices_of,
    kernels,
)
from graphc.codegen.tiling.vectorize import loads_of, vector_index
from graphc.codegen.verify_program import verify
from graphc.scalar import Const, Index, Load, Ref, Scalar, Size, call, index

F32 = "float32"
T, N, K, U = Size("T"), Size("N"), Size("K"), Size("U")
t, n, u, k = Index("t"), Index("n"), Index("u"), Index("k")


def product(name: str, left: Scalar, right: Scalar, *stores: Store, batch: Scalar = N) -> Kernel:
    """sum over k of left · right at every n and u."""
    total = Accumulate("a", "sum", call("mul", left, right))
    return Kernel(name, (Dim("n", batch), Dim("u", U)), (Reduce((Dim("k", K),), (total,)),), stores)


def recurrence() -> Program:
    """y[t] = W x[t] + V[1:] x[t] in a loop, then W changes, then y[0] = W x[0] + y[0]."""
    x, result = Load("x", (t, n, k), F32), Ref("a", F32)
    shifted = Load("V", (call("add", u, index(1)), k), F32)
    w = Load("W", (u, k), F32)
    step = product("step", x, call("add", w, shifted), Store("y", (t, n, u), result))
    change = Kernel("change", (Dim("u", U), Dim("k", K)), (), (Store("W", (u, k), call("add", w, Const(1.0, F32))),))
    first = Load("x", (index(0), n, k), F32)
    last = product("last", first, w, Store("z", (n, u), result))
    return program(Loop("t", T, False, (step,)), change, last)


def program(*body: Statement) -> Program:
    buffers = (
        Buffer("x", F32, (T, N, K), "input"),
        Buffer("W", F32, (U, K), "param"),
        Buffer("V", F32, (call("add", U, index(1)), K), "param"),
        Buffer("y", F32, (T, N, U), "output"),
        Buffer("z", F32, (N, U), "output"),
    )
    return Program("p", ("T", "N", "K", "U"), buffers, body)


def run(p: Program, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"x": ("T", "N", "K"), "W": ("U", "K")}
    arrays = {name: rng.normal(size=[sizes[s] for s in shape]).astype(F32) for name, shape in shapes.items()}
    arrays["V"] = rng.normal(size=(sizes["U"] + 1, sizes["K"])).astype(F32)
    arrays = allocate(p, arrays, sizes)
    interpret(p, arrays, sizes)
    return arrays


lengths = st.fixed_dictionaries(
    {"T": st.integers(1, 3), "N": st.integers(0, 3), "K": st.integers(0, 5), "U": st.integers(0, 6)}
)


@given(lengths)
def test_the_packed_program_computes_the_same(sizes: dict[str, int]) -> None:
    packed = pack(recurrence())
    verify(packed)
    before, after = run(recurrence(), sizes), run(packed, sizes)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])


def test_every_contraction_loads_along_its_vector_dimension() -> None:
    packed = pack(recurrence())
    steps = []
    for kernel in kernels(packed.body):
        access, vector = Access(kernel, packed), vector_index(kernel, packed)
        for reduce in (step for step in kernel.body if isinstance(step, Reduce)):
            assert vector == "u"
            found = [load for total in reduce.sums for load in access.loads(total.value)]
            steps += [access.lane_step(load.buffer, load.at, vector, 1) for load in found]
    assert len(steps) == 5
    assert set(steps) == {0, 1}


def test_golden() -> None:
    assert (
        str(pack(recurrence()))
        == """\
program p(#T, #N, #K, #U)
  input x: float32[#T, #N, #K]
  param W: float32[#U, #K]
  param V: float32[add(#U, 1), #K]
  output y: float32[#T, #N, #U]
  output z: float32[#N, #U]
  temp V.last0: float32[#K, add(#U, 1)]
  temp W.last0: float32[#K, #U]
  kernel pack.V.last0(d1 < #K, d0 < add(#U, 1))
    V.last0[d1, d0] = V[d0, d1]
  kernel pack.W.last0(d1 < #K, d0 < #U)
    W.last0[d1, d0] = W[d0, d1]
  loop t < #T up
    kernel step(n < #N, u < #U)
      reduce(k < #K)
        %a = sum mul(x[t, n, k], add(W.last0[k, u], V.last0[k, add(u, 1)]))
      y[t, n, u] = %a
  kernel change(u < #U, k < #K)
    W[u, k] = add(W[u, k], 1.0)
  kernel pack.W.last0.2(d1 < #K, d0 < #U)
    W.last0[d1, d0] = W[d0, d1]
  kernel last(n < #N, u < #U)
    reduce(k < #K)
      %a = sum mul(x[0, n, k], W.last0[k, u])
    z[n, u] = %a
"""
    )


@given(lengths)
def test_what_a_loop_changes_is_copied_inside_it(sizes: dict[str, int]) -> None:
    step = product("step", Load("x", (t, n, k), F32), Load("W", (u, k), F32), Store("y", (t, n, u), Ref("a", F32)))
    grown = Store("W", (u, k), call("add", Load("W", (u, k), F32), Const(1.0, F32)))
    changing = program(Loop("t", T, False, (step, Kernel("grow", (Dim("u", U), Dim("k", K)), (), (grown,)))))
    (loop,) = pack(changing).body
    assert isinstance(loop, Loop)
    assert [kernel.name for kernel in kernels(loop.body)] == ["pack.W.last0", "step", "grow"]
    before, after = run(changing, sizes), run(pack(changing), sizes)
    np.testing.assert_array_equal(after["y"], before["y"])


def test_what_is_read_once_or_differs_from_step_to_step_stays() -> None:
    fill = Kernel("fill", (Dim("n", N), Dim("u", U)), (), (Store("y", (t, n, u), Const(1.0, F32)),))
    own = product("own", Load("x", (t, n, k), F32), Load("y", (t, u, k), F32), Store("z", (n, u), Ref("a", F32)))
    stepping = program(Loop("t", T, False, (fill, own)))
    assert pack(stepping) == stepping
    once = program(
        product("once", Load("W", (u, k), F32), Const(1.0, F32), Store("z", (n, u), Ref("a", F32)), batch=index(1))
    )
    assert pack(once) == once


def test_packing_twice_changes_nothing() -> None:
    packed = pack(recurrence())
    assert pack(packed) == packed


@given(st.integers(1, 3), st.integers(0, 3), st.sampled_from([33, 48]), st.sampled_from([16, 32, 33]))
def test_large_operands_are_read_from_panels(steps: int, rows: int, units: int, width: int) -> None:
    """dW[u, j] = sum over t, n of d[t, n, u] x[t, n, j]: both operands get panels, and the sums stay the same."""
    d, x = Load("d", (t, n, u), F32), Load("x", (t, n, Index("j")), F32)
    total = Accumulate("a", "sum", call("mul", d, x))
    reduce = Reduce((Dim("t", T), Dim("n", N)), (total,))
    dims = (Dim("u", index(units)), Dim("j", index(width)))
    kernel = Kernel("dW", dims, (reduce,), (Store("dW", (u, Index("j")), Ref("a", F32)),))
    buffers = (
        Buffer("d", F32, (T, N, index(units)), "input"),
        Buffer("x", F32, (T, N, index(width)), "input"),
        Buffer("dW", F32, (index(units), index(width)), "output"),
    )
    before = Program("p", ("T", "N"), buffers, (kernel,))
    after = pack(before)
    verify(after)
    assert {"d.panels2"} <= {b.name for b in after.buffers}
    assert ("x.panels2" in {b.name for b in after.buffers}) == (width > 32)
    rng = np.random.default_rng(0)
    sizes = {"T": steps, "N": rows}
    arrays = {"d": rng.normal(size=(steps, rows, units)), "x": rng.normal(size=(steps, rows, width))}
    results = []
    for p in (before, after):
        filled = allocate(p, {k: v.astype(F32) for k, v in arrays.items()}, sizes)
        interpret(p, filled, sizes)
        results.append(filled["dW"])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


@given(st.integers(43, 300), st.integers(1, 3))
def test_panels_side_by_side_lie_in_different_sets_of_a_cache(rows: int, taps: int) -> None:
    """A tile walks up to sixteen at once, a line of each at a time: of the 64 sets of a first-level cache, the lines
    must take different ones."""
    w, x = Load("W", (u, Index("tap"), k), F32), Load("x", (n, Index("tap"), k), F32)
    total = Accumulate("a", "sum", call("mul", w, x))
    reduce = Reduce((Dim("tap", index(taps)), Dim("k", index(rows))), (total,))
    kernel = Kernel("y", (Dim("n", N), Dim("u", index(192))), (reduce,), (Store("y", (n, u), Ref("a", F32)),))
    buffers = (
        Buffer("W", F32, (index(192), index(taps), index(rows)), "param"),
        Buffer("x", F32, (N, index(taps), index(rows)), "input"),
        Buffer("y", F32, (N, index(192)), "output"),
    )
    packed = pack(Program("p", ("N",), buffers, (kernel,)))
    panels = packed.buffer("W.panels0")
    lines = 1
    for extent in panels.dims[1:-1]:
        assert isinstance(extent, Const)
        lines *= int(extent.value)
    assert taps * rows <= lines <= taps * (rows + 3)
    assert len({panel * lines % 64 for panel in range(16)}) == 16


def test_each_reduction_reads_a_copy_in_its_own_order() -> None:
    w = Load("W", (u, k, n), F32)

    def total(name: str, *order: str) -> Reduce:
        value = call("mul", w, Load(name, (k, n), F32))
        return Reduce(tuple(Dim(index, N if index == "n" else K) for index in order), (Accumulate(name, "sum", value),))

    def buffer(name: str, *dims: Scalar, kind: Kind = "input") -> Buffer:
        return Buffer(name, F32, dims, kind)

    stores = tuple(Store(f"{name} stored", (t, u), Ref(name, F32)) for name in ("a", "b"))
    sums = Kernel("sums", (Dim("t", T), Dim("u", U)), (total("a", "k", "n"), total("b", "n", "k")), stores)
    outputs = [buffer(store.buffer, T, U, kind="output") for store in stores]
    buffers = (buffer("W", U, K, N), buffer("a", K, N), buffer("b", K, N), *outputs)
    packed = pack(Program("p", ("T", "N", "K", "U"), buffers, (sums,)))
    verify(packed)
    (*copies, after) = kernels(packed.body)
    assert len(copies) == 2
    for reduce in after.reduces:
        read = [load.at for load in loads_of(reduce.values, Access(after, packed)) if load.buffer not in ("a", "b")]
        assert read == [(*indices_of(reduce.dims), u)]
