"""Gradient checks: where they look, what they find, and where they say that nothing can be measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.testing import GradientError, check_gradients, random_arrays


def compiled(graph: gc.Graph, **arrays: Any) -> Any:
    return gc.compile(graph)(**arrays)


def leaky(init: Any, steps: int = 6) -> gc.Graph:
    """Some Euler steps within each step of time, which diverge where tau is small."""
    g = gc.Graph("leaky")
    t, n = g.axis("t"), g.axis("n")
    drive = gc.tanh(g.param("U", (5, 3)) @ g.input("x", (3,), over=(t, n)))
    tau = g.param("tau", (5,), init=init)
    v = g.state("v", (5,), over=(t, n))
    now = v[t - 1]
    for _ in range(steps):
        now = now + (drive - now / tau) / steps
    v[t] = now
    g.output("loss", gc.mean(gc.sum(v * v), over=(t, n)))
    return g


@gc.custom_gradient
def wrong(x: gc.Value) -> Any:
    return gc.sin(x), lambda d: d * gc.cos(x) * 1.001


# Lengths of axes that no array shows.


def unseen() -> gc.Graph:
    g = gc.Graph("unseen")
    t, k = g.axis("t"), g.axis("k")
    x = g.input("x", (), over=t)
    g.output("loss", gc.mean(gc.sum(gc.sin(x * gc.index(k)), over=k), over=t))
    return g


@pytest.mark.parametrize("run", [gc.interpret, compiled])
def test_lengths_are_given_as_in_a_call(run: Any) -> None:
    arrays: dict[str, Any] = {"x": np.ones(3, np.float32), "k": 4}
    assert check_gradients(unseen(), arrays=arrays, run=run)["x"] < 1e-6
    assert check_gradients(unseen(), run=run)["x"] < 1e-6


def test_random_arguments_are_those_of_a_call() -> None:
    arrays = random_arrays(unseen(), k=3)
    assert (arrays["k"], arrays["x"].shape) == (3, (4,))
    assert np.isfinite(gc.interpret(unseen(), **arrays)["loss"])


# Where it looks.


def test_random_params_are_near_those_of_initialize() -> None:
    g = gc.Graph("near")
    for name, init in {"tau": "uniform(1, 2)", "rate": 1e-4, "bias": "zeros", "begun": np.array([1.0, 0, -2])}.items():
        g.param(name, (3,), init=init)
    g.param("fixed", (3,), init="normal", trainable=False)
    g.param("number", (), init=0.5)
    g.param("places", (), init=2, dtype="int32")
    g.output("y", gc.sum(g.value("tau")))
    initial, moved = gc.initialize(g, 5), random_arrays(g, 5)
    assert initial.keys() == moved.keys()
    assert moved["places"] == 2
    for name in ("tau", "rate", "bias", "begun", "fixed", "number"):
        assert (moved[name] != initial[name]).all(), name
        scale = np.where(initial[name] == 0, 1, np.abs(initial[name]))
        assert (np.abs(moved[name] - initial[name]) < 0.5 * scale).all(), name
        assert moved[name].dtype == np.float32
        assert isinstance(moved[name], np.ndarray)


@pytest.mark.parametrize("seed", range(4))
def test_params_that_must_be_positive_cause_no_alarm(seed: int) -> None:
    assert max(check_gradients(leaky("uniform(1, 2)"), seed=seed).values()) < 1e-6


def test_arrays_of_params_that_do_not_train_are_converted() -> None:
    g = gc.Graph("fixed")
    g.output("loss", gc.sum(g.input("x", (2,)) * g.param("w", (2,), init="ones", trainable=False)))
    arrays = {"x": np.ones(2, np.float32), **gc.initialize(g)}
    assert check_gradients(g, arrays=arrays).keys() == {"x"}


# What it says.


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_a_wrong_rule_is_wrong_where_values_are_large(scale: float) -> None:
    g = gc.Graph("scaled")
    t = g.axis("t")
    x = g.input("x", (), over=t)
    g.output("loss", scale * gc.sum(wrong(g.param("w", (), init="ones") * x), over=t))
    with pytest.raises(GradientError, match="but central differences measure"):
        check_gradients(g)


def test_a_surrogate_is_named() -> None:
    @gc.custom_gradient
    def spike(v: gc.Value) -> Any:
        return gc.where(v > 0, 1.0, 0.0), lambda d: d / (1 + gc.abs(v)) ** 2

    g = gc.Graph("spiking")
    t = g.axis("t")
    s = g.state("s", (3,), over=t)
    s[t] = spike(g.param("W", (3, 2)) @ g.input("x", (2,), over=t) - s[t - 1])
    line = g.locations[g.states["s"].body].line
    g.output("loss", gc.sum(gc.sum(s), over=t))
    with pytest.raises(
        GradientError, match=rf"gc.custom_gradient \(.*test_gradient_check.py:{line}\): a surrogate is not"
    ):
        check_gradients(g)


def test_a_derivative_that_is_no_number_is_wrong() -> None:
    @gc.custom_gradient
    def without(x: gc.Value) -> Any:
        return gc.sin(x), lambda d: d * np.nan

    g = gc.Graph("nan")
    g.output("loss", without(g.input("x", ())))
    with pytest.raises(GradientError):
        check_gradients(g)


@pytest.mark.parametrize(
    ("init", "says"),
    [
        (1e-2, "differences cannot measure the derivative of 'loss' by .* the output is of size"),
        (1e-10, "output 'loss' is not finite"),
    ],
)
def test_a_point_that_diverges_is_called_so(init: float, says: str) -> None:
    with pytest.raises(GradientError, match=f"{says}.*pass arrays="):
        check_gradients(leaky(init))


def test_digits_that_cancel_are_called_so() -> None:
    g = gc.Graph("large")
    g.output("loss", g.input("x", ()) + 1e15)
    with pytest.raises(GradientError, match=r"differences cannot measure .* size 1"):
        check_gradients(g)
