"""What gets computed for itself, and in which loop: the same numbers wherever that is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.program import Kernel, Loop, Program, Reduce, Ring, kernels
from graphc.language.value import Value
from graphc.pipeline.stages import stages
from graphc.scheduling import sink
from graphc.testing import Example, check_gradients, graphs
from tests.cuda_emulated import check
from tests.test_fuse import agree


@pytest.mark.parametrize("kept", [True, False])
def test_steps_inside_a_step_begin_where_the_last_step_ended(kept: bool) -> None:
    """All that leads from one step to the next are views: the state v is u's last substep, and u begins as v did."""
    g = gc.Graph("substeps")
    t, n, k = g.axis("t"), g.axis("n"), g.axis("k", 3)
    x, W = g.input("x", (2,), over=(t, n)), g.param("W", (2, 2))
    v = g.state("v", (2,), over=(t, n))
    u = g.state("u", (2,), over=(t, k, n), initial=v[t - 1])
    u[t, k] = u[k - 1] + 0.3 * (gc.tanh(W @ u[k - 1] + x) - u[k - 1])
    v[t] = u[k.last]
    g.output("y", v if kept else 2 * v)
    g.output("loss", gc.mean(gc.sum(v * v), over=(t, n)))
    random = np.random.default_rng(0)
    arrays = {"x": random.normal(size=(4, 3, 2)).astype(np.float32), "W": random.normal(size=(2, 2)).astype(np.float32)}
    dg = gc.grad(g, "loss")
    expected = gc.interpret(dg, **arrays)
    found = gc.compile(dg)(**arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
    h = np.zeros((3, 2), np.float32)
    for step in arrays["x"]:
        for _ in range(3):
            h = h + 0.3 * (np.tanh(h @ arrays["W"].T + step) - h)
    np.testing.assert_allclose(found["y"][-1], h if kept else 2 * h, rtol=1e-5, atol=1e-6)
    check_gradients(g, "loss")


@settings(max_examples=60)
@given(graphs(), st.booleans())
def test_small_values_would_sink_too(example: Example, differentiate: bool) -> None:
    """With no limit to how small: in random graphs, whatever may be moved into a loop computes the same there."""
    graph = gc.grad(example.graph, "loss") if differentiate else example.graph
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "LARGE", 1)
        patch.setattr(sink, "LESS", 1)
        expected, found = gc.interpret(graph, **example.arrays), gc.compile(graph)(**example.arrays)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


def memory(read: Callable[[gc.Graph, Value, Value], Value], size: int = 32) -> gc.Graph:
    """A matrix memory S, and what is read of it and a query."""
    g = gc.Graph("memory")
    t, n = g.axis("t"), g.axis("n")
    q, k, v = (g.input(name, (size,), over=(t, n)) for name in "qkv")
    S = g.state("S", (size, size), over=(t, n))
    S[t] = 0.9 * S[t - 1] + gc.outer(v, k)
    g.output("y", read(g, S, q))
    return g


def loops(program: Program) -> list[Loop]:
    return [statement for statement in program.body if isinstance(statement, Loop)]


def is_ring(program: Program, name: str) -> bool:
    return any(isinstance(dim, Ring) for buffer in program.buffers if buffer.name == name for dim in buffer.dims)


def test_what_reads_a_matrix_at_each_step_does_so_in_the_loop() -> None:
    """So that no more than two steps of it are kept; the matrix that is added to it is not stored at all."""
    program = stages(memory(lambda g, S, q: S @ q)).program
    (loop,) = loops(program)
    assert program.body == (loop,)
    assert [kernel.name for kernel in kernels((loop,))] == ["S", "y"]
    assert is_ring(program, "S")
    dg = stages(gc.grad(sized(), "loss", wrt=["q", "k", "v"])).program
    assert is_ring(dg, "adjoint_S")
    assert not is_ring(dg, "S")  # the backward pass reads all of it


def sized() -> gc.Graph:
    g = memory(lambda g, S, q: S @ q)
    t, n = g.axes["t"], g.axes["n"]
    y = g.value("y")
    g.output("loss", gc.mean(gc.sum(y * y), over=(t, n)))
    return gc.select(g, "loss")


@pytest.mark.parametrize(
    "read",
    [
        lambda g, S, q: S[g.axes["t"].last] @ q,  # at another step
        lambda g, S, q: S[g.axes["t"] - 1] @ q,
        lambda g, S, q: S @ g.param("W", (32, 32)),  # weights serve all steps at once
        lambda g, S, q: gc.sum(S @ q, over=g.axes["t"]) + gc.max(S, over=g.axes["t"])[0],
        lambda g, S, q: gc.tanh(S),  # not less than the matrix
    ],
    ids=["last", "before", "weights", "all steps", "as large"],
)
def test_what_gains_nothing_there_stays_outside(read: Callable[[gc.Graph, Value, Value], Value]) -> None:
    program = stages(memory(read)).program
    assert not is_ring(program, "S")
    (loop,) = loops(program)
    assert [kernel.name for kernel in kernels((loop,))] == ["S"]


@pytest.mark.parametrize("size", [32, 33])
def test_a_matrix_memory_and_its_gradient(size: int) -> None:
    g = memory(lambda g, S, q: S @ q, size)
    t, n = g.axes["t"], g.axes["n"]
    y = g.value("y")
    g.output("loss", gc.mean(gc.sum(gc.tanh(y) * y), over=(t, n)))
    dg = gc.grad(g, "loss", wrt=["q", "k", "v"])
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=(5, 2, size)).astype(np.float32) for name in "qkv"}
    expected = gc.interpret(dg, **arrays)
    for threads in (1, 2):
        found = gc.compile(dg, threads=threads)(**arrays)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    check(gc.grad(g, "loss", wrt=["k"]), {**arrays}, {"t": 5, "n": 2}, 3e-5)


def test_sums_along_rows_and_along_columns_are_apart() -> None:
    """In one kernel one of them would gather: in a loop and outside of one."""
    g = gc.Graph("both")
    t, n = g.axis("t"), g.axis("n")
    M, a, b = g.input("M", (64, 64), over=(t, n)), g.input("a", (64,), over=(t, n)), g.input("b", (64,), over=(t, n))
    g.output("rows", M @ a)
    g.output("columns", b @ M)
    f = gc.compile(g, threads=1)
    assert len(list(kernels(f.program.body))) == 2
    assert "gather" not in f.llvm_ir
    dg = gc.compile(gc.grad(sized(), "loss", wrt=["q", "k", "v"]), threads=1)
    assert "gather" not in dg.llvm_ir
    random = np.random.default_rng(0)
    agree(
        gc.parse(str(g).replace("float32", "float64")),
        **{name: random.normal(size=(2, 3, *node.shape)) for name, node in g.inputs.items()},
    )


def test_a_function_of_a_vector_is_not_computed_for_each_column() -> None:
    """It is spread by a view alone, d[:, None]."""
    g = gc.Graph("spread")
    t, n = g.axis("t"), g.axis("n")
    x, A = g.input("x", (8,), over=(t, n)), g.param("A", (8, 16), init=-1.0)
    h = g.state("h", (8, 16), over=(t, n))
    h[t] = gc.exp(gc.softplus(x)[:, None] * A) * h[t - 1] + A
    g.output("y", gc.sum(h, dim=1))
    program = stages(g).program
    (made,) = (kernel for kernel in kernels(program.body) if "fn='softplus'" in str(kernel))
    assert len(made.dims) == 3  # t, n, and the vector's
    assert not any(isinstance(step, Reduce) for step in made.body)
    assert isinstance(made, Kernel)
