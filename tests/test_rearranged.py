"""Values that are reshaped, cut, turned round and put together again, and then summed: compiled as interpreted.

What reads them takes positions apart into digits, and passes split the dims of such reads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.interpret_program import interpret
from graphc.codegen.passes.split import split
from graphc.codegen.program import Accumulate, Buffer, Dim, Kernel, Program, Reduce, Store, kernels
from graphc.codegen.verify_program import ProgramError, verify
from graphc.scalar import Const, Index, Load, Ref, Scalar, call, index
from tests.cuda_emulated import compiled

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _factors(draw: Any, points: int) -> tuple[int, ...]:
    """A shape of so many points."""
    shape = []
    while points > 1 and len(shape) < 3:
        size = draw(st.sampled_from([d for d in range(1, points + 1) if points % d == 0]))
        shape.append(size)
        points //= size
    return (*shape, points)


@st.composite
def graphs(draw: Any) -> tuple[gc.Graph, np.ndarray]:
    """A few rearrangements, some of values that have memory of their own, and at the end a sum of products or a
    maximum along one dim; with the input."""
    g = gc.Graph("rearranged")
    n = g.axis("n")
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 10]), min_size=1, max_size=3)))
    x = v = g.input("x", shape, over=n)
    for _ in range(draw(st.integers(1, 5))):
        dim = draw(st.integers(0, len(v.shape) - 1))
        size = v.shape[dim]
        match draw(st.sampled_from(["reshape", "flat", "cut", "turn", "join", "constant", "flip", "stored"])):
            case "reshape":
                v = v.reshape(*_factors(draw, math.prod(v.shape)))
            case "flat":
                flat = v.reshape(math.prod(v.shape))
                v = flat[: draw(st.sampled_from([k for k in (1, 2, 3, 4, 6, 10, 24) if k <= flat.shape[0]]))]
            case "cut":
                start = draw(st.integers(0, size - 1))
                stop = draw(st.integers(start + 1, size))
                v = v[(*[slice(None)] * dim, slice(start, stop))]
            case "turn":
                v = gc.transpose(v, draw(st.permutations(range(len(v.shape)))))
            case "join" if math.prod(v.shape) < 500:
                v = gc.concat([v, v * 0.5], dim=dim)
            case "constant" if math.prod(v.shape) < 500:
                v = gc.roll(gc.concat([np.arange(math.prod(v.shape)).reshape(v.shape) / 7.0, v], dim=dim), 1, dim=dim)
            case "flip":
                v = gc.flip(v, dim=dim)
            case "stored":
                v = gc.tanh(v)
    dim = draw(st.integers(0, len(v.shape) - 1))
    match draw(st.sampled_from(["sum", "max", "product", "all", "none"])):
        case "sum":
            v = gc.sum(v * v, dim=dim)
        case "max":
            v = gc.max(v, dim=dim)
        case "product":
            v = g.param("w", (5, math.prod(v.shape))) @ v.reshape(math.prod(v.shape))
        case "all":
            v = gc.sum(v)
    g.output("y", v)
    points = (draw(st.integers(1, 3)), *x.shape)
    return g, np.linspace(-1, 1, math.prod(points), dtype=np.float32).reshape(points) ** 3


def _check(f: Any, g: gc.Graph, x: np.ndarray) -> None:
    params = gc.initialize(g, seed=0)
    np.testing.assert_allclose(f(x=x, **params)["y"], gc.interpret(g, x=x, **params)["y"], rtol=2e-5, atol=2e-5)


@SLOW
@given(graphs())
def test_compiled_as_interpreted(example: tuple[gc.Graph, np.ndarray]) -> None:
    g, x = example
    _check(gc.compile(g), g, x)


@settings(SLOW, max_examples=15)
@given(graphs())
def test_on_a_gpu_in_the_emulator(example: tuple[gc.Graph, np.ndarray]) -> None:
    g, x = example
    _check(compiled(g), g, x)


def _first(extent: int, place: int) -> Program:
    """y = Σ x[r // place, r mod place] over r < extent: the first points of a reshaped value."""
    r = Index("r")
    at = (call("floordiv", r, index(place)), call("mod", r, index(place)))
    total = Accumulate("s", "sum", Load("x", at, "float32"))
    kernel = Kernel("y", (), (Reduce((Dim("r", index(extent)),), (total,)),), (Store("y", (), Ref("s", "float32")),))
    buffers = (Buffer("x", "float32", (index(6), index(place)), "input"), Buffer("y", "float32", (), "output"))
    return Program("first", (), buffers, (kernel,))


@pytest.mark.parametrize("place", [1, 2, 4, 12])
@pytest.mark.parametrize("extent", [1, 2, 3, 4, 8, 24])
def test_a_dim_keeps_its_points(extent: int, place: int) -> None:
    """Also where it is taken apart at a place that none of its points reaches."""
    if extent > 6 * place:
        pytest.skip("not that many points")
    program = _first(extent, place)
    found = split(program)
    verify(found)
    x = np.arange(6 * place, dtype=np.float32).reshape(6, place)
    y = np.zeros((), np.float32)
    interpret(found, {"x": x, "y": y}, {})
    assert y == x.ravel()[:extent].sum()
    sums = [step for kernel in kernels(found.body) for step in kernel.body if isinstance(step, Reduce)]
    assert math.prod(int(str(dim.extent)) for step in sums for dim in step.dims) == extent


def test_a_subscript_that_leaves_its_buffer_is_found() -> None:
    a, b = Index("a"), Index("b")
    at = call("add", call("mul", a, index(4)), b)
    buffers = (Buffer("x", "float32", (index(23),), "input"), Buffer("y", "float32", (index(24),), "output"))
    dims = (Dim("a", index(6)), Dim("b", index(4)))

    def program(*subscript: Scalar, when: Scalar | None = None) -> Program:
        kernel = Kernel("y", dims, (), (Store("y", (at,), Load("x", subscript, "float32", when)),))
        return Program("p", (), buffers, (kernel,))

    with pytest.raises(ProgramError, match="from 0 to 23, leaves"):
        verify(program(at))
    verify(program(at, when=call("lt", at, index(23))))
    with pytest.raises(ProgramError, match="from -1 to 4, leaves"):
        verify(program(call("sub", a, index(1))))
    verify(program(call("mod", at, index(23))))  # nothing is said of it
    store = Store("y", (call("mul", at, index(2)),), Const(0.0, "float32"))
    with pytest.raises(ProgramError, match="from 0 to 46, leaves"):
        verify(Program("p", (), buffers, (Kernel("y", dims, (), (store,)),)))
