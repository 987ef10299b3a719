"""Programs that read windows: the passes for them change where and when elements are read, never values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.access import Access
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.passes.fission import fission
from graphc.codegen.passes.layout import LONG, layout
from graphc.codegen.passes.materialize import materialize
from graphc.codegen.passes.merge_sums import merge_sums
from graphc.codegen.passes.padding import pad
from graphc.codegen.passes.predication import predicate
from graphc.codegen.passes.split import split
from graphc.codegen.passes.split_reduction import split_reduction
from graphc.codegen.program import Call, Const, Index, Kernel, Load, Program, Reduce, kernels
from graphc.codegen.verify_program import verify
from graphc.pipeline.stages import stages
from graphc.scalar import walk

PASSES: dict[str, Callable[[Program], Program]] = {
    change.__name__: change for change in (materialize, split, layout, pad, predicate, split_reduction, fission)
}


def network(
    channels: int = LONG,
    image: tuple[int, int] = (6, 8),
    size: int = 3,
    stride: int = 1,
    padding: int = 2,
    dilation: int = 2,
    pooling: tuple[int, int, int] = (3, 2, 1),
    rows: int = 1,
) -> gc.Graph:
    """Two convolutions with pooling between them, and a product with blocks of what comes out: with its gradient."""
    g = gc.Graph("images", dtype="float64")
    n = g.axis("n")
    x = g.input("x", (2, *image), over=n)
    W1, W2 = g.param("W1", (channels, 2, 3, 3)), g.param("W2", (channels, channels, size, size))
    pool, step, border = pooling
    y = gc.max_pool(gc.tanh(gc.conv(x, W1, padding=1)), size=pool, stride=step, padding=border)
    y = gc.tanh(gc.conv(y, W2, stride=stride, padding=padding, dilation=dilation))
    y = gc.avg_pool(y, 2, 1)
    high, wide = y.shape[1:]
    blocks = gc.blocks(y, (high if high % rows else rows, wide))
    h = gc.tanh(g.param("V", (3, blocks.shape[0])) @ blocks)
    axes = [a for a in h.axes if a is not n]
    g.output("loss", gc.mean(gc.sum(gc.sum(h * h), over=axes), over=n))
    return gc.grad(g, "loss", wrt=["x", "W1", "W2", "V"])


def results(program: Program, made: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    sizes = {"n": 2}
    arrays = allocate(program, {**{k: v.copy() for k, v in given.items()}, **made.lowered.constants}, sizes)
    interpret(program, arrays, sizes)
    return {name: arrays[buffer] for name, buffer in made.lowered.outputs.items()}


def arrays_for(g: gc.Graph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"x": (2, *g.inputs["x"].shape), **{name: p.node.shape for name, p in g.params.items()}}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


GEOMETRIES = st.fixed_dictionaries(
    {
        "channels": st.sampled_from([1, 5, 16, 18]),
        "image": st.tuples(st.integers(6, 9), st.integers(6, 10)),
        "size": st.integers(1, 3),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 3),
        "dilation": st.integers(1, 2),
        "pooling": st.sampled_from([(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 1)]),
        "rows": st.integers(1, 2),
    }
)


def drawn(geometry: dict[str, Any]) -> gc.Graph | None:
    try:
        return network(**geometry)
    except gc.GraphError:  # the window fits nowhere
        return None


@settings(max_examples=20)
@given(GEOMETRIES)
def test_compiled_networks_compute_what_the_interpreter_does(geometry: dict[str, Any]) -> None:
    g = drawn(geometry)
    if g is not None:
        arrays = arrays_for(g)
        expected, found = gc.interpret(g, **arrays), gc.compile(g)(**arrays)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=6)
@given(GEOMETRIES)
def test_each_pass_keeps_the_values(geometry: dict[str, Any]) -> None:
    g = drawn({**geometry, "channels": min(geometry["channels"], 16)})
    if g is None:
        return
    made, arrays = stages(g), arrays_for(g)
    program = merge_sums(made.planned)
    before = results(program, made, arrays)
    for name, change in PASSES.items():
        program = change(program)
        verify(program)
        after = results(program, made, arrays)
        for output, value in before.items():
            np.testing.assert_allclose(after[output], value, rtol=1e-9, atol=1e-12, err_msg=f"{name}: {output}")


# What the passes are for.


def products(program: Program) -> list[tuple[Kernel, Reduce, Access]]:
    """The reductions that add up products of windows."""
    found = []
    for kernel in kernels(program.body):
        access = Access(kernel, program)
        for step in kernel.body:
            if isinstance(step, Reduce) and any(_is_product(total.value, access) for total in step.sums):
                found.append((kernel, step, access))
    return found


def _is_product(value: Any, access: Access) -> bool:
    """Whether a term multiplies a param, or what two activations are, read as they are or with zeros around them."""
    match access.resolve(value):
        case Call("mul", factors):
            return all(_is_operand(access.resolve(f), access) for f in factors)
    return False


def _is_operand(value: Any, access: Access) -> bool:
    match value:
        case Call("select", (_, then, Const(value=0.0))):
            return isinstance(access.resolve(then), Load)
    return isinstance(value, Load)


@pytest.fixture(scope="module")
def program() -> Program:
    return stages(network(channels=LONG, image=(16, 16))).program


def test_no_product_of_a_temporary_asks_where_the_border_is(program: Program) -> None:
    asking = {
        load.buffer
        for _, reduce, access in products(program)
        for total in reduce.sums
        for load in access.loads(total.value)
        if load.when is not None
    }
    assert asking <= {"x"}  # an input lies as the caller has it
    assert any(kernel.name.startswith("border.") for kernel in kernels(program.body))


def test_channels_lie_last_and_run_in_lanes(program: Program) -> None:
    stored = {s.buffer: k for k in kernels(program.body) for s in k.stores}
    turned = [b for b in program.buffers if b.kind == "temp" and len(b.dims) == 4 and b.name in stored]
    images = [b for b in turned if b.dims[-1] == Const(LONG, "index") and b.dims[1] != Const(LONG, "index")]
    assert len(images) >= 4
    for buffer in images:
        kernel = stored[buffer.name]
        if not kernel.name.startswith(("border.", "pack.")):
            assert kernel.dims[-1].extent == Const(LONG, "index"), kernel.name


def test_positions_are_not_taken_apart_inside_reductions(program: Program) -> None:
    found = products(program)
    assert found
    for kernel, reduce, access in found:
        for total in reduce.sums:
            for load in access.loads(total.value):
                own = {Index(d.index) for d in reduce.dims}
                for subscript in load.at:
                    for inside in walk(subscript):
                        match inside:
                            case Call("floordiv" | "mod", (inner, _)):
                                assert not own & set(walk(inner)), (kernel.name, str(load))


def test_the_gradient_of_pooling_skips_what_no_window_saw(program: Program) -> None:
    guarded = [s for k in kernels(program.body) for s in k.body if isinstance(s, Reduce) and s.when is not None]
    assert guarded
    assert all(not isinstance(inside, Load) for reduce in guarded for inside in walk(reduce.when))


def test_two_sums_may_read_as_much_as_they_like_of_blocks() -> None:
    """All of them, and the first few: one kernel, in which an index of the same name goes further in one sum."""
    g = gc.Graph("blocks")
    x = g.input("x", (2, 2, 8), over=g.axis("n"))
    y = gc.transpose(x.reshape(2, 2, 2, 4), 2, 0, 1, 3).reshape(32)
    g.output("all", g.param("W", (LONG, 32)) @ y)
    g.output("few", g.param("V", (LONG, 8)) @ y[:8])
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(3, 2, 2, 8)).astype(np.float32), **gc.initialize(g)}
    found = gc.compile(g)(**arrays)
    blocks = arrays["x"].reshape(3, 2, 2, 2, 4).transpose(0, 3, 1, 2, 4).reshape(3, 32)
    np.testing.assert_allclose(found["all"], blocks @ arrays["W"].T, atol=1e-5)
    np.testing.assert_allclose(found["few"], blocks[:, :8] @ arrays["V"].T, atol=1e-5)


def test_a_sum_may_ask_for_another_sum() -> None:
    """Of one kernel, where all lanes ask for the same."""
    g = gc.Graph("asked")
    n = g.axis("n")
    x, y = g.input("x", (5, LONG), over=n), g.input("y", (5,), over=n)
    total = gc.sum(y[:, None] * np.ones((1, LONG), np.float32), dim=0)
    g.output("kept", gc.sum(gc.where(total > 0, x, 0.0), dim=0))
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(4, 5, LONG)).astype(np.float32), "y": rng.normal(size=(4, 5)).astype(np.float32)}
    expected = np.where(arrays["y"].sum(1)[:, None] > 0, arrays["x"].sum(1), 0.0)
    np.testing.assert_allclose(gc.compile(g)(**arrays)["kept"], expected, atol=1e-5)


def test_a_temporary_read_with_two_fills_keeps_its_questions() -> None:
    """Zeros around it for one product, ones for the other: there is one border, so there is none."""
    g = gc.Graph("fills", dtype="float64")
    n = g.axis("n")
    x = gc.tanh(g.input("x", (LONG, 4, 4), over=n))
    W = g.param("W", (2, LONG, 3, 3))
    zero, one = gc.conv(x, W, padding=1), gc.conv(x - 1.0, W, padding=1)
    g.output("y", zero + one)
    arrays = {"x": np.random.default_rng(0).normal(size=(2, LONG, 4, 4)), "W": np.ones((2, LONG, 3, 3))}
    np.testing.assert_allclose(gc.compile(g)(**arrays)["y"], gc.interpret(g, **arrays)["y"], rtol=1e-12)
