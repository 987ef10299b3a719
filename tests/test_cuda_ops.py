"""Every op on the GPU, run in the PTX emulator, against the interpreter: values and derivatives in float64, and values
of other dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.scalar import STORED
from tests import test_ops
from tests.cuda_emulated import compiled


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
