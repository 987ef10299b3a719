"""Fusion joins what shares its operands, and keeps the order in which values are made and read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.program import Load, Loop, Reduce, kernels
from graphc.pipeline.stages import stages


def agree(graph: gc.Graph, **arrays: np.ndarray) -> None:
    """Interpreted and compiled results, and the params after both, are equal."""
    ours = {k: np.array(v) for k, v in arrays.items()}
    theirs = {k: np.array(v) for k, v in arrays.items()}
    expected, found = gc.interpret(graph, **theirs), gc.compile(graph)(**ours)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_loop_reads_the_neighbours_of_a_value_made_before_it() -> None:
    """A read one step away is a step of this loop's only if this loop makes the value."""
    g = gc.Graph("g", dtype="float64")
    t = g.axis("t")
    x, W = g.input("x", (3,), over=t), g.param("W", (3, 3))
    z = gc.tanh(W @ x)
    h = g.state("h", (3,), over=t)
    h[t] = gc.tanh(h[t - 1] + z[t - 1] * z)
    k = g.state("k", (3,), over=t)
    k[t] = gc.tanh(0.5 * k[t + 1] + h[t - 2])
    g.output("z", z[t + 1])
    g.output("loss", gc.sum(gc.sum(k * h), over=t))
    rng = np.random.default_rng(0)
    agree(gc.grad(g, "loss", wrt=["x", "W"]), x=rng.normal(size=(5, 3)), W=rng.normal(size=(3, 3)))


def test_the_parts_of_a_concatenation_are_all_there_when_it_is_read() -> None:
    g = gc.Graph("g", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x, a = g.input("x", (2,), over=(t, n)), g.input("a", (), over=t)
    joined = gc.concat([x, (a + np.zeros(2))[1:]])
    g.output("loss", gc.sum(gc.sum(gc.sin(joined)), over=(t, n)))
    u = gc.unroll(gc.grad(g, "loss", wrt="x"), t=1)
    rng = np.random.default_rng(0)
    agree(u, x=rng.normal(size=(1, 2, 2)), a=rng.normal(size=1))


def test_updates_see_the_params_as_they_were() -> None:
    """Two params swap, two move by each other, and one takes an input."""
    g = gc.Graph("g", dtype="float64")
    names = ("a", "b", "c", "d", "e")
    a, b, c, d, e = (g.param(name, (3,)) for name in names)
    x = g.input("x", (3,))
    g.output("total", a + b + c + d + e)
    g.update(a, b)
    g.update(b, a)
    g.update(c, c + 0.1 * d)
    g.update(d, d - 0.1 * c)
    g.update(e, x)
    rng = np.random.default_rng(0)
    agree(g, **{name: rng.normal(size=3) for name in (*names, "x")})


UPDATES: dict[str, Callable[[gc.Value], gc.Value]] = {
    "its transpose": lambda W: W.T,
    "a sum with its transpose": lambda W: W + W.T,
    "its rows in reverse": lambda W: W[::-1] * 2,
    "its rows in turn": lambda W: gc.concat([W[1:], W[:1]], dim=0),
    "its square": lambda W: W @ W,
    "its softmax": lambda W: gc.softmax(W, dim=0),
}


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_may_read_its_param_at_other_elements(name: str) -> None:
    g = gc.Graph("g", dtype="float64")
    W = g.param("W", (4, 4))
    g.output("W_before", W)
    g.update(W, UPDATES[name](W))
    agree(g, W=np.random.default_rng(0).normal(size=(4, 4)))


@pytest.mark.parametrize("optimizer", [gc.optim.Momentum(0.1), gc.optim.Adam()], ids=["momentum", "adam"])
def test_updates_are_stored_by_the_kernels_that_compute_them(optimizer: gc.optim.Optimizer) -> None:
    """However many params there are: a kernel that only copies is a pass over memory for nothing."""
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    h = g.input("x", (8,), over=(t, n))
    for layer in range(4):
        h = gc.cells.lstm(g, h, 8, over=t, name=f"l{layer}").h
    g.output("loss", gc.mean(gc.sum(gc.square(h)), over=(t, n)))
    program = stages(gc.training_step(g, "loss", optimizer)).program
    params = {b.name for b in program.buffers if b.kind == "param"}
    stored = [k for k in kernels(program.body) if any(s.buffer in params for s in k.stores)]
    assert stored
    assert not [k.name for k in stored if all(isinstance(s.value, Load) for s in k.stores)]


def test_gates_share_one_kernel() -> None:
    """The products, the elementwise work and the new states of gates that read one operand are one kernel a step."""
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (5,), over=(t, n))
    h, c = g.state("h", (7,), over=(t, n)), g.state("c", (7,), over=(t, n))
    z = [g.param(f"W{k}", (7, 5)) @ x + g.param(f"U{k}", (7, 7)) @ h[t - 1] for k in range(4)]
    c[t] = gc.sigmoid(z[0]) * c[t - 1] + gc.sigmoid(z[1]) * gc.tanh(z[2])
    h[t] = gc.sigmoid(z[3]) * gc.tanh(c)
    g.output("h", h)
    program = stages(g).program
    (loop,) = (s for s in program.body if isinstance(s, Loop))
    (kernel,) = kernels(loop.body)
    (reduce,) = (s for s in kernel.body if isinstance(s, Reduce))
    assert len(reduce.sums) == 4


def test_input_products_leave_the_loop() -> None:
    """What is on no cycle runs over all steps at once, on a concatenation too."""
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (5,), over=(t, n))
    h = g.state("h", (7,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (7, 12)) @ gc.concat([h[t - 1], x]))
    g.output("loss", gc.mean(gc.sum(h), over=(t, n)))
    program = stages(gc.grad(g, "loss")).program
    inside = kernels(s for s in program.body if isinstance(s, Loop))
    reduces = [s for kernel in inside for s in kernel.body if isinstance(s, Reduce)]
    assert [[str(d.extent) for d in reduce.dims] for reduce in reduces] == [["7"], ["7"]]
