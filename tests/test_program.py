"""The interpreter of the loop IR against plain numpy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.lengths import evaluate
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Dim,
    Kernel,
    Let,
    Loop,
    Program,
    Reduce,
    Ring,
    Statement,
    Store,
    kernels,
)
from graphc.errors import InternalError
from graphc.scalar import Const, Index, Load, Ref, Scalar, Size, call, cast, guarded, index, walk

T, N, K = Size("T"), Size("N"), Size("K")
t, n, u, k = Index("t"), Index("n"), Index("u"), Index("k")
F32 = "float32"


def test_lengths_do_not_wrap_around() -> None:
    sizes = {"T": 2**40, "N": 3}
    assert evaluate(call("mul", T, T), sizes) == 2**80
    assert evaluate(call("floordiv", call("add", T, N), Const(2, "index")), sizes) == (2**40 + 3) // 2
    assert evaluate(call("max", call("mod", T, N), call("sub", N, T)), sizes) == 2**40 % 3


def test_a_guarded_scalar_loads_nothing_where_the_condition_is_false() -> None:
    """Nor in its subscripts, nor in conditions that it has already."""
    inner = load("a", n, dtype="index")
    asked = call("lt", load("b", n, dtype="index"), index(3))
    condition = call("lt", n, index(5))
    scalar = call("add", load("x", inner, when=asked), load("y", n))
    loads = [part for part in walk(guarded(scalar, condition)) if isinstance(part, Load)]
    assert {part.buffer for part in loads} == {"a", "b", "x", "y"}
    assert all(part.when is not None and condition in walk(part.when) for part in loads)


def load(buffer: str, *at: Scalar, when: Scalar | None = None, dtype: str = F32) -> Load:
    return Load(buffer, at, dtype, when)


def program(buffers: list[Buffer], *body: Statement) -> Program:
    return Program("p", ("T", "N", "K"), tuple(buffers), body)


def run(p: Program, arrays: dict[str, np.ndarray], **sizes: int) -> dict[str, np.ndarray]:
    full = allocate(p, arrays, {"T": 1, "N": 1, "K": 1} | sizes)
    interpret(p, full, {"T": 1, "N": 1, "K": 1} | sizes)
    return full


def elman(slots: int | None = None) -> Program:
    """h[t] = tanh(W h[t-1] + x[t]), with h in a ring of `slots` steps or stored for every step."""
    past = call("lt", index(0), t)
    before = load("h", call("sub", t, index(1)), n, k, when=past)
    product = call("mul", load("W", u, k), Ref("before", F32))
    step = Kernel(
        "step",
        (Dim("n", N), Dim("u", K)),
        (
            Reduce(
                (Dim("k", K),),
                (Accumulate("a", "sum", product),),
                body=(Let("before", call("select", past, before, Const(0.0, F32))),),
            ),
            Let("h", call("tanh", call("add", Ref("a", F32), load("x", t, n, u)))),
        ),
        (Store("h", (t, n, u), Ref("h", F32)), Store("y", (t, n, u), Ref("h", F32))),
    )
    steps = T if slots is None else Ring(slots)
    return program(
        [
            Buffer("x", F32, (T, N, K), "input"),
            Buffer("W", F32, (K, K), "param"),
            Buffer("h", F32, (steps, N, K), "temp"),
            Buffer("y", F32, (T, N, K), "output"),
        ],
        Loop("t", T, False, (step,)),
    )


@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 4), st.sampled_from([None, 2, 3]))
def test_recurrence_matches_numpy(steps: int, batch: int, units: int, slots: int | None) -> None:
    rng = np.random.default_rng(steps)
    x = rng.normal(size=(steps, batch, units)).astype(F32)
    w = rng.normal(size=(units, units)).astype(F32)
    got = run(elman(slots), {"x": x, "W": w}, T=steps, N=batch, K=units)["y"]
    h = np.zeros((batch, units), F32)
    for s in range(steps):
        h = np.tanh(h @ w.T + x[s])
        np.testing.assert_allclose(got[s], h, rtol=1e-5, atol=1e-6)


def test_a_ring_that_is_too_short_shows() -> None:
    """With one slot h[t-1] is the place that h[t] goes to; two steps back it is lost."""
    back = call("sub", t, index(2))
    old = load("r", back, when=call("le", index(2), t))
    kernel = Kernel("k", (), (), (Store("r", (t,), cast(t, F32)), Store("y", (t,), old)))
    for slots, right in ((2, True), (1, False)):
        p = program(
            [Buffer("r", F32, (Ring(slots),), "temp"), Buffer("y", F32, (T,), "output")],
            Loop("t", T, False, (kernel,)),
        )
        assert (run(p, {}, T=5)["y"][2:].tolist() == [0, 1, 2]) is right


@given(st.integers(0, 4), st.integers(1, 4), st.integers(0, 6))
def test_reduce_sums_and_maximises_where_its_condition_holds(rows: int, columns: int, limit: int) -> None:
    """The load has no condition of its own and would leave the buffer at the skipped points."""
    when = call("lt", k, index(min(limit, columns)))
    value = load("x", n, k)
    sums = (
        Accumulate("s", "sum", value),
        Accumulate("m", "max", value),
        Accumulate("c", "sum", Const(1, "int32")),
    )
    outputs = (
        Store("s", (n,), Ref("s", F32)),
        Store("m", (n,), Ref("m", F32)),
        Store("c", (n,), Ref("c", "int32")),
    )
    p = program(
        [
            Buffer("x", F32, (N, K), "input"),
            Buffer("s", F32, (N,), "output"),
            Buffer("m", F32, (N,), "output"),
            Buffer("c", "int32", (N,), "output"),
        ],
        Kernel("k", (Dim("n", N),), (Reduce((Dim("k", index(9)),), sums, when=when),), outputs),
    )
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(F32)
    got = run(p, {"x": x}, N=rows, K=columns)
    part = x[:, : min(limit, columns)]
    np.testing.assert_allclose(got["s"], part.sum(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got["m"], part.max(1, initial=-np.inf))
    np.testing.assert_array_equal(got["c"], part.shape[1])


def test_reverse_loop_runs_backwards() -> None:
    kernel = Kernel("k", (), (), (Store("last", (), cast(t, "int32")), Store("sum", (), index(1), True)))
    p = program(
        [Buffer("last", "int32", (), "output"), Buffer("sum", "index", (), "param")],
        Loop("t", T, True, (kernel,)),
    )
    got = run(p, {"sum": np.zeros((), np.int64)}, T=4)
    assert (got["last"].item(), got["sum"].item()) == (0, 4)


def test_accumulating_store_adds_every_point() -> None:
    place = load("at", n, dtype="index")
    p = program(
        [Buffer("at", "index", (N,), "input"), Buffer("y", F32, (K,), "param")],
        Kernel("scatter", (Dim("n", N),), (), (Store("y", (place,), cast(n, F32), True),)),
    )
    got = run(p, {"at": np.array([1, 1, 0]), "y": np.full(2, 10, F32)}, N=3, K=2)
    assert got["y"].tolist() == [12, 11]


def test_two_points_that_store_to_one_element_are_an_error() -> None:
    p = program(
        [Buffer("y", F32, (K,), "output")],
        Kernel("clash", (Dim("n", N),), (), (Store("y", (index(0),), cast(n, F32)),)),
    )
    run(p, {}, N=1)
    with pytest.raises(InternalError, match="clash"):
        run(p, {}, N=2)


@pytest.mark.parametrize("offset", [-1, 1])
def test_subscripts_are_checked_where_the_element_is_touched(offset: int) -> None:
    shifted = call("add", n, index(offset))
    inside = call("and", call("le", index(0), shifted), call("lt", shifted, N))
    buffers = [Buffer("x", F32, (N,), "input"), Buffer("y", F32, (N,), "output")]
    guarded = load("x", shifted, when=inside)
    right = call("select", inside, guarded, Const(0.0, F32))
    x = np.arange(1, 4, dtype=F32)

    def result(value: Scalar) -> list[float]:
        kernel = Kernel("shift", (Dim("n", N),), (), (Store("y", (n,), value),))
        return run(program(buffers, kernel), {"x": x}, N=3)["y"].tolist()

    assert result(right) == ([0, 1, 2] if offset < 0 else [2, 3, 0])
    assert np.isnan(result(guarded)).sum() == 1  # the unspecified value is visible when it is not discarded
    with pytest.raises(IndexError, match="kernel shift: x"):
        result(load("x", shifted))


def test_memory_that_was_never_written_is_garbage() -> None:
    p = program(
        [Buffer("s", F32, (), "temp"), Buffer("y", F32, (), "output")],
        Kernel("k", (), (), (Store("y", (), load("s")),)),
    )
    assert np.isnan(run(p, {})["y"])


@pytest.mark.parametrize("x", [np.zeros(3, F32), np.zeros(2, np.float64)])
def test_arrays_that_do_not_fit_are_refused(x: np.ndarray) -> None:
    p = program([Buffer("x", F32, (N,), "input")])
    with pytest.raises(ValueError, match="input x"):
        run(p, {"x": x}, N=2)


def test_printed_form() -> None:
    assert str(elman(2)) == (
        "program p(#T, #N, #K)\n"
        "  input x: float32[#T, #N, #K]\n"
        "  param W: float32[#K, #K]\n"
        "  temp h: float32[ring 2, #N, #K]\n"
        "  output y: float32[#T, #N, #K]\n"
        "  loop t < #T up\n"
        "    kernel step(n < #N, u < #K)\n"
        "      reduce(k < #K)\n"
        "        %before = select(lt(0, t), (h[sub(t, 1), n, k] when lt(0, t)), 0.0)\n"
        "        %a = sum mul(W[u, k], %before)\n"
        "      %h = tanh(add(%a, x[t, n, u]))\n"
        "      h[t, n, u] = %h\n"
        "      y[t, n, u] = %h\n"
    )


def test_kernels_lists_them_in_the_order_of_the_text() -> None:
    def named(name: str) -> Kernel:
        return Kernel(name, (), (), ())

    body = (named("a"), Loop("t", T, False, (named("b"), Loop("n", N, True, (named("c"),)))), named("d"))
    assert [kernel.name for kernel in kernels(body)] == ["a", "b", "c", "d"]
