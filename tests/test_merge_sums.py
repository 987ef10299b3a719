"""merge_sums: sums that are only added up become one, and nothing else changes."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cpu.jit import load
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes.merge_sums import merge_sums
from graphc.codegen.program import (
    Accumulate,
    Buffer,
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
from graphc.scalar import call

N, K = Size("n"), Size("k")
i, k = Index("i"), Index("k")


def program(*results: Scalar, condition: Scalar | None = None) -> Program:
    """Sums %a, %b, %c of three matrices' rows, a let that adds two of them, and stores."""
    loads = {name: Load(name.upper(), (i, k), "float32") for name in "abc"}
    sums = tuple(Accumulate(name, "sum", value) for name, value in loads.items())
    lets = (Let("ab", call("add", Ref("a", "float32"), Ref("b", "float32"))),)
    buffers = [Buffer(name.upper(), "float32", (N, K), "input") for name in "abc"]
    buffers += [Buffer(f"o{j}", "float32", (N,), "output") for j in range(len(results))]
    stores = tuple(Store(f"o{j}", (i,), value) for j, value in enumerate(results))
    body = (Reduce((Dim("k", K),), sums, (), condition), *lets)
    return Program("sums", ("n", "k"), tuple(buffers), (Kernel("all", (Dim("i", N),), body, stores),))


AB, A, C = Ref("ab", "float32"), Ref("a", "float32"), Ref("c", "float32")
CASES = {
    "joined": (program(AB, C), 2),
    "used elsewhere": (program(AB, A, C), 3),
    "under a condition": (program(AB, C, condition=call("lt", k, i)), 2),
    "all three": (
        replace(
            program(C),
            body=tuple(
                replace(
                    kernel,
                    body=(*kernel.body, Let("abc", call("add", AB, C))),
                    stores=(Store("o0", (i,), Ref("abc", "float32")),),
                )
                for kernel in kernels(program(C).body)
            ),
        ),
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sums_that_are_only_added_become_one(name: str) -> None:
    before, count = CASES[name]
    after = merge_sums(before)
    verify(after)
    (kernel,) = kernels(after.body)
    assert sum(len(step.sums) for step in kernel.body if isinstance(step, Reduce)) == count
    sizes, random = {"n": 5, "k": 19}, np.random.default_rng(0)
    given = {x: random.normal(size=(5, 19)).astype(np.float32) for x in "ABC"}
    expected = allocate(before, given, sizes)
    interpret(before, expected, sizes)
    found = allocate(after, given, sizes)
    interpret(after, found, sizes)
    native = allocate(after, given, sizes)
    pointers = [native[buffer.name].ctypes.data for buffer in after.buffers]
    load(after)((ctypes.c_void_p * len(pointers))(*pointers), (ctypes.c_int64 * 2)(5, 19))
    for buffer in before.buffers:
        np.testing.assert_allclose(found[buffer.name], expected[buffer.name], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(native[buffer.name], expected[buffer.name], rtol=1e-5, atol=1e-5)


def test_the_gradient_of_an_lstms_state_is_one_sum_over_its_gates() -> None:
    g = gc.Graph("lstm")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    g.output("loss", gc.mean(gc.sum(gc.cells.lstm(g, x, 4, over=t).h), over=(t, n)))
    program = stages(gc.grad(g, "loss")).program
    in_loops = [s for s in program.body if not isinstance(s, Kernel)]
    backward = [step for kernel in kernels((in_loops[-1],)) for step in kernel.body if isinstance(step, Reduce)]
    assert [len(step.sums) for step in backward] == [1]
