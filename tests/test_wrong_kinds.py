"""Arguments of another kind than a function takes, a name for an axis, an array for a value, a number for a function:
each is refused by an error of graphc's, never by one of Python's from somewhere inside."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError

Given = dict[str, Any]
WRONG: tuple[Any, ...] = (None, 3, 2.5, True, "q", (), {}, ("t",), [1, 2], object())
ARRAY = np.zeros(3, np.float32)
ELSEWHERE = {"compile", "draw", "emit", "export", "fit", "interpret", "load", "save"}  # these make code, or files
ACCEPTS_ALL = {"bias", "gated", "keepdims", "trainable", "vertical_first"}  # by their truth


def sound() -> Given:
    """A graph, and an argument for each that a function cannot do without."""
    g = gc.Graph("sound")
    t, n = g.axis("t"), g.axis("n")
    x, W = g.input("x", (3,), over=(t, n)), g.param("W", (3, 3))
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(W @ h[t - 1] + x)
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    image = g.input("image", (4, 6, 6), over=n)
    given = {"g": g, "graph": g, "over": t, "axis": t, "of": "loss", "units": 3, "cell": gc.cells.gru, "layers": 2}
    return {**given, "x": x, "image": image, "filters": 4, "size": 3, "state_dict": {}, "params": {}, "lr": 0.1}


def functions() -> Iterator[Any]:
    for module in (gc, gc.cells, gc.layers):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and name not in ELSEWHERE:
                full = f"{module.__name__}.{name}"
                yield pytest.param(full, function, id=full)


def arguments(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Each argument that can be given by name, with each thing that it may not be."""
    for p in inspect.signature(function).parameters.values():
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ACCEPTS_ALL:
            yield from ((p.name, wrong) for wrong in (*WRONG, *((ARRAY,) if p.default is p.empty else ())))


def needed(name: str, function: Callable[..., Any]) -> Given:
    """The arguments without a default, as they should be."""
    given = sound()
    if name.startswith("graphc.layers") or name.endswith("spatial_rnn"):
        given["x"] = given["image"]
    if name.endswith("torch"):
        given["cell"] = "lstm"
    required = (p for p in inspect.signature(function).parameters.values() if p.default is p.empty)
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
    return {p.name: given.get(p.name, given["x"]) for p in required if p.kind in kinds}


@pytest.mark.parametrize(("name", "function"), list(functions()))
def test_an_argument_of_another_kind(name: str, function: Callable[..., Any]) -> None:
    for option, wrong in arguments(function):
        given = {**needed(name, function), option: wrong}
        unnamed = [
            given.pop(p.name) for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY
        ]
        try:
            function(*unnamed, **given)
        except GraphError:
            pass
        except Exception as error:
            raise AssertionError(f"{name}(…, {option}={wrong!r})") from error


MISTAKES: dict[str, tuple[Callable[[Given], Any], str]] = {
    "an activation by its name": (
        lambda s: gc.cells.elman(s["g"], s["x"], 3, over=s["over"], activation="tanh"),
        "'elman' takes as activation= a function of values, gc.tanh or, for none, lambda x: x; got 'tanh'",
    ),
    "a cell by its name": (
        lambda s: gc.cells.stack(s["g"], s["x"], "gru", 3, layers=2, over=s["over"]),
        "such as gc.cells.gru, got 'gru'",
    ),
    "no graph": (lambda s: gc.layers.conv(s["image"], 4, 3, 1), "expected a graph, gc.Graph(…), got Value"),
    "data for a value": (
        lambda s: gc.cells.lstm(s["g"], np.zeros((5, 2, 3)), 3, over=s["over"]),
        "reads a value of the graph, got ndarray; an array is given with the call, in place of an input",
    ),
    "over no axis": (lambda s: s["g"].input("u", (3,), over=None), "over= takes axes of the graph, got None"),
    "another library's dtype": (
        lambda s: gc.cast(s["x"], type("dtype", (), {"__repr__": lambda _: "torch.flaot16"})()),
        "'torch.flaot16' is not one of bool, int32, float16, bfloat16, float32, float64; did you mean 'float16'?",
    ),
    "no dtype": (lambda s: gc.cast(s["x"], None), "dtype None is not one of"),
    "an output that is none": (lambda s: gc.vjp(s["g"], None), "outputs are differentiated"),
    "a number for a param": (lambda s: gc.grad(s["g"], "loss", wrt=3), "wrt= names params and inputs"),
    "a name for an axis": (lambda s: gc.as_dim(s["x"], "t"), "gc.as_dim takes an axis"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_said(name: str) -> None:
    mistake, says = MISTAKES[name]
    with pytest.raises(GraphError) as raised:
        mistake(sound())
    assert says in raised.value.reason
    assert raised.value.location is not None
    assert raised.value.location.file == __file__


def test_over_no_axes_a_mean_is_the_value() -> None:
    g = gc.Graph("none")
    x = g.input("x", (2,), over=g.axis("t"))
    g.output("mean", gc.mean(x, over=()))
    g.output("var", gc.var(x, over=()))
    data = np.array([[1, 2], [3, 4]], np.float32)
    made = gc.compile(g)(x=data)
    assert np.array_equal(made["mean"], data)
    assert not made["var"].any()
