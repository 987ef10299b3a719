"""Subscripts of events are numpy's: a value reads by slices, ints, None and one array what numpy does."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.errors import DtypeError, GraphError, ProtocolError, ShapeError
from graphc.testing import check_gradients
from tests.mistakes import Mistake, Mistakes, check

SHAPE = (3, 4, 5)
A = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)


@st.composite
def keys(draw: st.DrawFn) -> tuple[Any, ...]:
    """A subscript of an event of SHAPE: one array beside slices, or ints and slices; new dimensions anywhere."""
    chosen = draw(st.integers(-1, len(SHAPE) - 1))
    parts: list[Any] = []
    for dim, extent in enumerate(SHAPE):
        position = st.integers(-extent, extent - 1)
        slices = st.sampled_from([slice(None), slice(1, None), slice(None, None, -1), slice(-2, None)])
        if dim == chosen:
            some = st.lists(position, min_size=1, max_size=6)
            pairs = st.lists(st.lists(position, min_size=2, max_size=2), min_size=1, max_size=3)
            mask = st.lists(st.booleans(), min_size=extent, max_size=extent).filter(any)
            parts.append(draw(st.one_of(some, some.map(np.array), pairs, mask, mask.map(np.array))))
        else:
            parts.append(draw(slices if chosen >= 0 else st.one_of(slices, position, position.map(np.int64))))
    last = len(parts) if draw(st.booleans()) else max(chosen + 1, 1)
    parts = parts[:last]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), None)
    if last < len(SHAPE) and draw(st.booleans()):
        parts.append(Ellipsis)
    return tuple(parts)


@given(keys())
def test_as_in_numpy(key: tuple[Any, ...]) -> None:
    g = gc.Graph("indexed")
    g.output("y", g.input("x", SHAPE, over=g.axis("n"))[key])
    expected = A[(slice(None), *key)]
    found = gc.interpret(g, x=A)["y"]
    assert g.value("y").shape == expected.shape[1:]
    np.testing.assert_array_equal(found, expected)
    assert gc.parse(str(g)) == g


@pytest.mark.parametrize("key", [[2, 0, 2], (slice(None), [[1, -1], [0, 2]]), (..., [True, False, True, True, False])])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "bool"])
def test_compiled_and_in_its_dtype(key: Any, dtype: str) -> None:
    g = gc.Graph("indexed")
    y = g.input("x", SHAPE, over=g.axis("n"), dtype=dtype)[key]
    g.output("y", y)
    given = (3 * A).astype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    assert y.dtype == dtype
    expected = given[(slice(None), *(key if isinstance(key, tuple) else (key,)))]
    np.testing.assert_array_equal(gc.compile(g)(x=given)["y"], expected)


def test_a_fixed_permutation_on_the_cycle() -> None:
    """Rotations of pairs between permutations, as in an orthogonal network: the norm is kept."""
    g = gc.Graph("rotations", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    angles, order = g.param("angles", (3,), init="uniform(3)"), np.array([3, 0, 5, 1, 4, 2])
    h = g.state("h", (6,), over=(t, n), initial=g.input("h0", (6,), over=n))
    a, b = h[t - 1][order].reshape(2, 3)
    c, s = gc.cos(angles), gc.sin(angles)
    h[t] = gc.concat([c * a - s * b, s * a + c * b])
    g.output("h", h)
    g.output("loss", gc.sum(gc.sum(h * np.arange(6.0)), over=(t, n)))
    check_gradients(g, "loss")
    start = np.random.default_rng(1).normal(size=(2, 6))
    params = gc.initialize(g)
    f = gc.compile(gc.grad(g, "loss", wrt=["angles", "h0"]))
    made, exact = f(t=5, h0=start, **params), gc.interpret(gc.grad(g, "loss", wrt=["h0"]), t=5, h0=start, **params)
    np.testing.assert_allclose(np.linalg.norm(made["h"], axis=2), np.tile(np.linalg.norm(start, axis=1), (5, 1)))
    np.testing.assert_allclose(made["grad_h0"], exact["grad_h0"], rtol=1e-12)


refused = Mistakes()


def event() -> gc.Value:
    g = gc.Graph("refused")
    return g.input("x", (3, 4), over=g.axis("t"))


@refused(ShapeError, "index -4 is outside dimension 0 of an event of shape (3, 4)")
def position_outside() -> None:
    event()[[0, -4]]  # here


@refused(ShapeError, "stands beside slices only", "x[0][:, [2, 1]]")
def two_arrays() -> None:
    event()[[0, 1], [2, 3]]  # here


@refused(ShapeError, "stands beside slices only")
def array_and_int() -> None:
    event()[0, [2, 3]]  # here


@refused(ShapeError, "without positions, for dimension 1")
def no_positions() -> None:
    event()[:, []]  # here


@refused(ShapeError, "say of each element whether it is read: (2,) for dimension 0")
def bools_for_some() -> None:
    event()[[True, False]]  # here


@refused(DtypeError, "holds ints", "got [0.5]")
def fraction() -> None:
    event()[[0.5]]  # here


@refused(DtypeError, "holds ints", "got [<value")
def list_of_values() -> None:
    x = event()
    x[[x[0, 0]]]  # here


@refused(DtypeError, "holds ints", "[[0], [1, 2]]")
def uneven_lists() -> None:
    event()[[[0], [1, 2]]]  # here


@refused(ProtocolError, "a value has no elements to write to", "gc.concat", "gc.where", "h[t] = …")
def assignment() -> None:
    event()[0] = 1.0  # here


@refused(ProtocolError, "a value has no elements to write to")
def assignment_to_a_part_of_a_state() -> None:
    g = gc.Graph("part")
    t = g.axis("t")
    h = g.state("h", (3,), over=t)
    h[t][0:2] = 1.0  # here


@pytest.mark.parametrize(("mistake", "kind", "says"), refused)
def test_what_an_error_says(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    check(mistake, kind, says)
