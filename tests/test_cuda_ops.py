"""Every op on the GPU, run in the PTX emulator, against the interpreter: values and derivatives in float64, and values
of other dtypes."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.llvm.math import APPROXIMATE_ULP
from graphc.scalar import STORED
from tests import test_ops
from tests.cuda_emulated import compiled
from tests.test_math import wide, worst_ulp

APPROXIMATE = ("exp", "tanh", "sigmoid", "softplus", "log", "log1p")
_DIVISION = re.compile(r"\b(div|rcp)\.(rn|full)\b")


@pytest.mark.parametrize("name", test_ops.NAMES)
def test_op(name: str) -> None:
    g, arrays = test_ops.graph_of(name), test_ops.arguments(test_ops.ROWS[name])
    if test_ops.differentiable(name):
        value = gc.interpret(g, **arrays)["value"]
        g = gc.vjp(g, "value", test_ops.moved(g))
        arrays["cotangent_value"] = np.random.default_rng(1).normal(size=value.shape).astype(value.dtype)
    expected = gc.interpret(g, **arrays)
    found = compiled(g)(**arrays)
    for output, value in expected.items():
        assert found[output].dtype == value.dtype
        np.testing.assert_allclose(found[output], value, rtol=1e-12, atol=1e-14, err_msg=output)


@pytest.mark.parametrize("dtype", ["float32", *STORED])
@pytest.mark.parametrize("name", [n for n in test_ops.NAMES if n != "state"])
def test_op_of_another_dtype(name: str, dtype: str) -> None:
    row = test_ops.ROWS[name]
    c = test_ops.case(row.operands, dtype)
    c.g.output("value", test_ops.Value(c.g, row.build(c)))
    arrays = test_ops.arguments(row, dtype)
    expected = gc.interpret(c.g, **arrays)["value"]
    np.testing.assert_allclose(compiled(c.g)(**arrays)["value"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fn", APPROXIMATE)
def test_float32_is_nearly_right(fn: str) -> None:
    """Over all bit patterns, with approximations as wrong as they may be on a GPU. Results below the smallest normal
    number may be 0."""
    x = np.arange(0, 2**32, 32749, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.linspace(-90, 90, 20001, dtype=np.float32), np.linspace(0.5, 2, 20001, dtype=np.float32)])
    g = of_each(fn)
    got, exact = np.asarray(compiled(g)(x=x)["value"]), wide(fn, x)
    assert np.array_equal(np.isnan(got), np.isnan(exact))
    tiny, huge = np.abs(exact) < 2.0**-126, np.abs(exact) > np.finfo(np.float32).max
    assert np.abs(got[tiny]).max(initial=0) <= 2.0**-126
    assert np.isinf(got[huge]).all()
    usual = ~tiny & ~huge & np.isfinite(exact)
    assert (0.5 if "log" in fn else 1) < worst_ulp(got[usual], exact[usual], "float32") <= APPROXIMATE_ULP


@pytest.mark.parametrize("fn", APPROXIMATE)
def test_none_of_them_divides(fn: str) -> None:
    """A division may branch, and loads are not moved past it."""
    assert not _DIVISION.search(gc.emit(of_each(fn), target="cuda", arch="sm_90").ptx)


def test_a_division_is_seen() -> None:
    g = gc.Graph("inverse")
    g.output("value", 1 / g.input("x", (), over=g.axis("n")))
    assert _DIVISION.search(gc.emit(g, target="cuda", arch="sm_90").ptx)


def of_each(fn: str) -> gc.Graph:
    """A function of each element of an input."""
    g = gc.Graph(fn)
    g.output("value", getattr(gc, fn)(g.input("x", (), over=g.axis("n"))))
    return g
