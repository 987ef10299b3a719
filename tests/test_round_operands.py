"""`precision="bf16"` on a CPU: operands of products are rounded and nothing else; in both passes, for every size, in
loops, chunks, steps and threads."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.codegen.program import kernels
from graphc.codegen.uses import loads
from graphc.pipeline.stages import stages
from graphc.transforms.precision import to_dtype

EXTENTS = st.sampled_from([1, 2, 3, 6, 16, 17, 34, 48, 66, 130])


def linear(units: int, inputs: int) -> gc.Graph:
    """W x, and the gradients of Σ c · W x: three products, the gradients' without any other arithmetic."""
    g = gc.Graph("linear")
    t, n = g.axis("t"), g.axis("n")
    x, c = g.input("x", (inputs,), over=(t, n)), g.input("c", (units,), over=(t, n))
    y = g.param("W", (units, inputs)) @ x
    g.output("y", y)
    g.output("loss", gc.sum(gc.sum(c * y), over=(t, n)))
    return gc.grad(g, "loss", wrt=["W", "x"])


def recurrent(delay: int = 1, units: int = 48, inputs: int = 32) -> gc.Graph:
    """A gated cell, trained on its last step: products in loops in both directions, and of all steps at once."""
    g = gc.Graph("recurrent")
    t, n = g.axis("t"), g.axis("n")
    x, goal = g.input("x", (inputs,), over=(t, n)), g.input("goal", (4,), over=n)
    W, U, A = g.param("W", (units, inputs)), g.param("U", (units, units)), g.param("A", (units, units))
    h = g.state("h", (units,), over=(t, n))
    z = gc.sigmoid(A @ h[t - delay])
    h[t] = z * h[t - 1] + (1 - z) * gc.tanh(W @ x[t] + U @ h[t - 1])
    g.output("loss", gc.mean(gc.sum(gc.square(g.param("V", (4, units)) @ h[t.last] - goal)), over=n))
    return gc.grad(g, "loss", wrt=["W", "U", "A", "V", "x"])


def integers(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Numbers that bfloat16 holds, and whose sums float32 holds."""
    return {name: rng.integers(-4, 5, size=shape).astype(np.float32) for name, shape in shapes.items()}


def products(g: gc.Graph) -> dict[str, set[str]]:
    """For each kernel of the program with sums, the dtypes of what its sums read."""
    program = stages(g, "bf16").program
    return {
        kernel.name: {program.buffer(load.buffer).dtype for load in loads(kernel) if load.dtype == "float32"}
        for kernel in kernels(program.body)
        if kernel.reduces
    }


@settings(max_examples=60)
@given(EXTENTS, EXTENTS, st.integers(1, 4), st.integers(1, 9), st.integers(1, 3), st.booleans())
def test_small_integers_are_exact(units: int, inputs: int, steps: int, rows: int, threads: int, frozen: bool) -> None:
    """Any element in a wrong place, or counted twice, would show."""
    g, rng = linear(units, inputs), np.random.default_rng(units + inputs)
    arrays = integers(rng, W=(units, inputs), x=(steps, rows, inputs), c=(steps, rows, units))
    expected, f = gc.interpret(g, **arrays), gc.compile(g, precision="bf16", threads=threads)
    if frozen:
        f = f.freeze(W=arrays.pop("W"))
    found = f(**arrays)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@settings(max_examples=40)
@given(st.sampled_from([16, 17, 48, 130]), EXTENTS, st.integers(1, 4), st.integers(1, 9))
def test_operands_are_rounded_and_sums_are_not(units: int, inputs: int, steps: int, rows: int) -> None:
    g, rng = linear(units, 2 * inputs), np.random.default_rng(units)
    shapes = {"W": (units, 2 * inputs), "x": (steps, rows, 2 * inputs), "c": (steps, rows, units)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    found = gc.compile(g, precision="bf16")(**arrays)
    x, W = (arrays[name].astype(ml_dtypes.bfloat16).astype(np.float64) for name in ("x", "W"))
    np.testing.assert_allclose(found["y"], x @ W.T, rtol=1e-5, atol=1e-5)
    for name, terms in (("grad_W", steps * rows), ("grad_x", units)):
        array = gc.interpret(g, **arrays)[name]
        np.testing.assert_allclose(found[name], array, rtol=2e-2, atol=2e-2 * np.sqrt(terms), err_msg=name)


def test_every_product_of_a_cell_and_of_its_gradient_is_rounded() -> None:
    """Those in the loops, the input's and the weights' gradients; not the loss, which is no product."""
    found = products(recurrent())
    assert sum(dtypes == {"bfloat16"} for dtypes in found.values()) >= 5
    assert {name for name, dtypes in found.items() if dtypes == {"float32"}} <= {"loss", "sum"}


def test_code_of_a_cell_and_its_gradient_has_no_other_products() -> None:
    code = gc.emit(recurrent(), triple="x86_64-unknown-linux-gnu", arch="znver4", precision="bf16").llvm_ir
    functions = re.findall(r'^define internal void @"?(recurrent\.[^"(]*).*?^}', code, re.DOTALL | re.MULTILINE)
    assert functions
    made = {m[1]: m[0] for m in re.finditer(r'^define internal void @"?([^"(]*).*?^}', code, re.DOTALL | re.MULTILINE)}
    dots = {name for name, text in made.items() if "dpbf16ps" in text}
    assert len(dots) >= 5
    assert not {name for name in dots if re.search(r"(gather|scatter)\.v\d+i16", made[name])}


@pytest.mark.parametrize("delay", [1, 2, 3])
@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (7, 3), (4, 16)])
def test_a_cell_and_its_gradient(delay: int, steps: int, rows: int) -> None:
    """Near the interpreter, and the same on one thread and on two."""
    g = recurrent(delay)
    arrays = testing.random_arrays(g, 0, t=steps, n=rows)
    expected = gc.interpret(g, **arrays)
    found = gc.compile(g, precision="bf16", threads=1)(**arrays)
    again = gc.compile(g, precision="bf16", threads=2)(**arrays)
    for name, array in expected.items():
        scale = np.abs(array).max() + 1e-3
        np.testing.assert_allclose(found[name], array, rtol=5e-2, atol=5e-2 * scale, err_msg=name)
        np.testing.assert_array_equal(found[name], again[name], err_msg=name)


def test_chunks() -> None:
    """A limit on memory changes the order of sums alone."""
    g = recurrent(2)
    arrays = testing.random_arrays(g, 0, t=200, n=3)
    f = gc.compile(g, precision="bf16")
    chunked = gc.compile(g, precision="bf16", memory=f.memory(t=200, n=3).peak // 2)
    assert chunked.memory(t=200, n=3).peak < f.memory(t=200, n=3).peak
    expected, found = f(**arrays), chunked(**arrays)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-3 * np.abs(array).max(), err_msg=name)


def test_images() -> None:
    """Convolutions with borders, of integers, in both passes."""
    g = gc.Graph("image")
    n = g.axis("n")
    x, c = g.input("x", (16, 6, 5), over=n), g.input("c", (32, 6, 5), over=n)
    y = gc.conv(x + 1, g.param("W", (32, 16, 3, 3)), padding=1)
    g.output("y", y)
    g.output("loss", gc.sum(gc.sum((c + 1) * y), over=n))
    g = gc.grad(g, "loss", wrt=["W", "x"])
    arrays = integers(np.random.default_rng(0), W=(32, 16, 3, 3), x=(3, 16, 6, 5), c=(3, 32, 6, 5))
    assert sum(dtypes == {"bfloat16"} for dtypes in products(g).values()) >= 2
    found = gc.compile(g, precision="bf16")(**arrays)
    for name, array in gc.interpret(g, **arrays).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_params_that_a_call_updates_are_rounded_anew() -> None:
    """Each call multiplies by what the one before has left."""
    g = gc.Graph("updates")
    n = g.axis("n")
    W, x = g.param("W", (32, 16)), g.input("x", (16,), over=n)
    g.output("y", W @ x)
    g.update("W", W + 1)
    arrays = integers(np.random.default_rng(0), W=(32, 16), x=(3, 16))
    other = {name: array.copy() for name, array in arrays.items()}
    f = gc.compile(g, precision="bf16")
    for _ in range(3):
        np.testing.assert_array_equal(f(**arrays)["y"], gc.interpret(g, **other)["y"])
        np.testing.assert_array_equal(arrays["W"], other["W"])


def test_without_products_the_program_is_the_same() -> None:
    g = gc.Graph("plain")
    t = g.axis("t")
    h = g.state("h", (8,), over=t)
    h[t] = gc.tanh(g.param("a", (8,)) * h[t - 1] + g.input("x", (8,), over=t)[t])
    g.output("h", h)
    g.output("norm", gc.sum(h * h))
    assert stages(g, "bf16").program == stages(g).program


@settings(max_examples=40)
@given(testing.graphs())
def test_random_graphs(example: testing.Example) -> None:
    """Compiled, any graph is what its program says, which is near the graph."""
    g = gc.grad(example.graph, "loss", wrt=[*example.graph.params])
    g = to_dtype(g, "float32")
    arrays = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in example.arrays.items()
    }
    expected = gc.interpret(g, **arrays)
    found = gc.compile(g, precision="bf16")(**arrays)
    for name, array in expected.items():
        scale = np.abs(array).max(initial=0) + 1e-2
        np.testing.assert_allclose(found[name], array, rtol=0.1, atol=0.1 * scale, err_msg=name)
