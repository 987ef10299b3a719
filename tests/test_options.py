"""Keyword arguments that a cell or an optimiser does not have."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest

import graphc as gc
from graphc.errors import DefinitionError


def cell(kind: Any = gc.cells.lstm, **options: Any) -> Any:
    g = gc.Graph("options")
    t, n = g.axis("t"), g.axis("n")
    return kind(g, g.input("x", (3,), over=(t, n)), units=4, over=t, name="mine", **options)


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("bidirectional", "gc.cells.bidirectional"),
        ("num_layers", "gc.cells.stack"),
        ("initial_state", "write initial="),
        ("batch_first", "over=(n, t)"),
        ("revers", "'reverse'"),
    ],
)
def test_a_cell_says_what_it_takes(option: str, instead: str) -> None:
    with pytest.raises(DefinitionError, match=r"cell 'mine' takes name, reverse, .*, and no ") as caught:
        cell(**{option: True})
    assert repr(option) in caught.value.reason
    assert instead in caught.value.reason
    assert caught.value.location is not None
    assert caught.value.location.file == __file__


@pytest.mark.parametrize(
    ("optimizer", "option", "instead"),
    [
        (gc.optim.Adam, "learning_rate", "write lr="),
        (gc.optim.AdamW, "betas", "beta1=0.9, beta2=0.999"),
        (gc.optim.RMSprop, "alpha", "write beta="),
        (gc.optim.SGD, "momentum", "gc.optim.Momentum"),
        (gc.optim.Momentum, "weight_decai", "'weight_decay'"),
    ],
)
def test_an_optimizer_says_what_it_takes(optimizer: Any, option: str, instead: str) -> None:
    with pytest.raises(
        DefinitionError, match=rf"gc.optim.{optimizer.__name__} takes lr, .* and no '{option}'"
    ) as caught:
        optimizer(**{"lr": 0.1, option: 0.5})
    assert instead in caught.value.reason
    with pytest.raises(DefinitionError, match=r"and no 'betas'$"):
        gc.optim.SGD(lr=0.1, betas=(0.9, 0.999))


def test_what_a_cell_returns_is_not_a_cell() -> None:
    for make in (lambda: gc.cells.LSTM(32), lambda: gc.cells.LSTM(input_size=3, hidden_size=32)):  # type: ignore
        with pytest.raises(DefinitionError, match=r"with h, c; .* gc\.cells\.lstm\(g, x, 8, over=t\)"):
            make()


def test_both_are_copied_as_ever() -> None:
    adam = gc.optim.AdamW(lr=1.0)
    assert copy.deepcopy(adam) == pickle.loads(pickle.dumps(adam)) == replace(adam) == adam
    assert replace(adam, lr=2.0).lr == 2
    made = cell()
    assert copy.copy(made).c is made.c


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (gc.cells.lstm, {"bias": "no"}, "cell 'mine' takes bias=True or bias=False, got 'no'"),
        (gc.cells.lstm, {"reverse": 1}, "cell 'mine' takes reverse=True or reverse=False, got 1"),
        (
            gc.cells.elman,
            {"activation": "relu"},
            "cell 'mine' takes as activation= a function of values, .*; got 'relu'",
        ),
        (gc.cells.jordan, {"output_activation": 0}, "takes as output_activation= a function of values, .*; got 0"),
        (gc.cells.indrnn, {"activation": None}, "takes as activation= a function of values, .*; got None"),
        (gc.cells.gla, {"temperature": 0}, "the temperature of cell 'mine' is a number above 0, got 0"),
    ],
)
def test_values_of_options_are_checked(kind: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        cell(kind, **options)
