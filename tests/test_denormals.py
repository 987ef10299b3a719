"""Denormal numbers: zero inside a call, on every thread, and untouched outside of it."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cpu.module import llvm_ir
from graphc.codegen.parallel.partition import partition
from graphc.codegen.target import Target
from graphc.pipeline.stages import stages

TINY = {"float32": np.float32(1e-40), "float64": np.float64(1e-310)}


def elementwise(dtype: str) -> gc.Graph:
    g = gc.Graph("elementwise", dtype=dtype)
    n = g.axis("n")
    x = g.input("x", (), over=n)
    g.output("half", x * 0.5)
    g.output("twice", x * 2.0)
    g.output("log", gc.log(x))
    g.output("exp", gc.exp(x))
    g.output("sign", gc.sign(x))
    g.output("positive", gc.where(x > 0, 1.0, 0.0))
    return g


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_denormals_are_zero_on_every_thread(dtype: str, threads: int) -> None:
    f = gc.compile(elementwise(dtype), threads=threads)
    for length in (1, 7, 1_000_000):
        found = f(x=np.full(length, TINY[dtype]))
        assert not found["half"].any()
        assert not found["twice"].any()
        assert not found["positive"].any()
        assert (
            not found["sign"].view(f"u{found['sign'].itemsize}").any()
        )  # every bit: compared, a denormal may count as zero
        assert (found["log"] == -np.inf).all()
        assert (found["exp"] == 1).all()
    smallest = np.finfo(dtype).tiny
    found = f(x=np.full(5, smallest))
    assert not found["half"].any()
    assert (found["twice"] == 2 * smallest).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_caller_keeps_its_own_mode(threads: int) -> None:
    x = np.full(1_000_000, TINY["float32"])
    step = gc.compile(elementwise("float32"), threads=threads)
    step(x=x)
    bound = step.bind(x=x)
    bound()
    assert (x * np.float32(0.5) > 0).all()


def test_a_gradient_that_vanishes_ends_in_zeros() -> None:
    """Of a loss at the end, through a contraction by 1000 at each step: no step has anything between 0 and the smallest
    normal number."""
    g = gc.Graph("vanishing")
    t = g.axis("t")
    x, h = g.input("x", (64,), over=t), g.state("h", (64,), over=t)
    h[t] = 0.001 * h[t - 1] + x
    g.output("loss", gc.sum(h[t.last]))
    gradient = gc.compile(gc.grad(g, "loss", wrt=["x"]))(x=np.ones((40, 64), np.float32))["grad_x"]
    np.testing.assert_allclose(gradient[::-1, 0], 0.001 ** np.arange(40), rtol=1e-5, atol=1.2e-38)
    assert not ((gradient != 0) & (np.abs(gradient) < np.finfo("float32").tiny)).any()


@pytest.mark.parametrize(
    ("triple", "instruction"),
    [
        ("x86_64-unknown-linux-gnu", "@llvm.x86.sse.ldmxcsr("),
        ("aarch64-unknown-linux-gnu", "@llvm.aarch64.set.fpcr("),
        ("arm64-apple-darwin", "@llvm.aarch64.set.fpcr("),
    ],
)
def test_every_function_sets_the_mode_and_puts_it_back(triple: str, instruction: str) -> None:
    program, target = stages(elementwise("float32")).program, Target(triple)
    text = llvm_ir(program, target, partition(program, target))
    assert text.count(f"call void {instruction}") == 2
    assert gc.emit(elementwise("float32"), triple=triple).object


def test_machines_without_such_a_mode_go_without() -> None:
    program, target = stages(elementwise("float32")).program, Target("riscv64-unknown-linux-gnu")
    text = llvm_ir(program, target, partition(program, target))
    assert "fpcr" not in text
    assert "mxcsr" not in text
