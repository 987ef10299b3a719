"""freeze on a GPU: arrays that lie there for good, and what is made of them once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import testing
from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.codegen.program import kernels
from graphc.errors import ArgumentError, AxisError
from graphc.runtime.results import DeviceResults
from tests.cuda_emulated import EmulatedDevice, compiled


class Counting(EmulatedDevice):
    """A device that counts the bytes that are copied to it."""

    written = 0

    def write(self, address: int, array: np.ndarray, stream: int) -> None:
        self.written += array.nbytes
        super().write(address, array, stream)


def network() -> gc.Graph:
    g = gc.Graph("net")
    t, n = g.axis("t"), g.axis("n")
    g.output("h", gc.cells.lstm(g, g.input("x", (8,), over=(t, n)), 16, over=t).h)
    return g


def decayed() -> gc.Graph:
    """A step of it needs exp(r), which no step changes."""
    g = gc.Graph("decayed")
    t, n = g.axis("t"), g.axis("n")
    x, r = g.input("x", (5,), over=(t, n)), g.param("r", (5,))
    s = g.state("s", (5,), over=(t, n))
    s[t] = gc.exp(r) * s[t - 1] + x
    g.output("s", s)
    return g


X = np.random.default_rng(0).normal(size=(4, 3, 8)).astype(np.float32)


@settings(max_examples=6)
@given(testing.graphs(most_states=2))
def test_a_frozen_function_computes_what_the_whole_does(example: testing.Example) -> None:
    params = {name: example.arrays[name] for name in example.graph.params}
    others = {name: array for name, array in example.arrays.items() if name not in params}
    found = compiled(example.graph).freeze(**params)(**others)
    for name, expected in gc.interpret(example.graph, **example.arrays).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-9, atol=1e-9, err_msg=name)


def test_only_the_other_arrays_are_copied_to_the_gpu() -> None:
    g, device = network(), Counting()
    params = gc.initialize(g)
    f = gc.compile(g, target="cuda", device=device)
    frozen, expected = f.freeze(**params), f(x=X, **params)["h"]
    calls = (lambda: frozen(x=X), frozen.bind(x=X))
    for call in calls:
        device.written = 0
        np.testing.assert_array_equal(call()["h"], expected)
        assert device.written == X.nbytes


def test_what_is_made_of_them_alone_is_made_once() -> None:
    g = decayed()
    f = compiled(g)
    params, x = {"r": np.linspace(-2, -1, 5, dtype=np.float32)}, X[:, :, :5].copy()
    frozen = f.freeze(**params)
    assert len(list(kernels(frozen.program.body))) < len(list(kernels(f.program.body)))
    np.testing.assert_allclose(frozen(x=x)["s"], gc.interpret(g, x=x, **params)["s"], rtol=1e-5)


def test_frozen_arrays_are_as_they_were() -> None:
    """Wherever they lie, whatever becomes of the caller's; and in two turns as in one."""
    g = network()
    f, params = compiled(g), gc.initialize(g)
    expected = f(x=X, **params)["h"]
    first = dict(list(params.items())[:1])
    there = f.upload({name: a for name, a in params.items() if name not in first})
    frozen = f.freeze(**first).freeze(**there)
    for array in first.values():
        array[...] = 0
    for name, array in there.items():
        f.runner.device.write(array.address, np.zeros_like(params[name]), EmulatedDevice.stream)
    found = frozen(x=X)
    assert isinstance(found["h"], np.ndarray)
    np.testing.assert_array_equal(found["h"], expected)
    kept = frozen(**f.upload({"x": X}))
    assert isinstance(kept, DeviceResults)
    np.testing.assert_array_equal(kept["h"].numpy(), expected)


def test_what_cannot_be_fixed_is_refused() -> None:
    g = network()
    f, params = compiled(g), gc.initialize(g)
    name = next(iter(params))
    with pytest.raises(ArgumentError, match="only params and inputs over no axes can be fixed, not x"):
        f.freeze(x=DeviceArray.copy_of(X, f.runner.device))
    with pytest.raises(ArgumentError, match="can be fixed, not typo"):
        f.freeze(typo=X)
    with pytest.raises(ArgumentError, match=f"{name} is fixed by freeze"):
        f.freeze(**params)(x=X, **{name: params[name]})


def test_memory_is_asked_for_as_on_the_cpu() -> None:
    f = compiled(network())
    assert f.memory(t=400, n=3).peak > f.memory(t=4, n=3).peak > 0
    with pytest.raises(AxisError, match="t=…, n=…"):
        f.memory(t=4)
