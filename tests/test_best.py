"""`gc.fit` keeps the best epoch, and ends when it has waited for a better one for long enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArgumentError
from graphc.training.best import Best

VALIDATION = [5.0, 3.0, math.nan, 4.0, 3.0, 2.0, 6.0, 7.0, 8.0, 9.0]  # of each epoch: the best are 1, then 5


def step() -> gc.Graph:
    g = gc.Graph("line")
    n = g.axis("n")
    x, y = g.input("x", (), over=n), g.input("y", (), over=n)
    g.output("loss", gc.mean((g.param("a", (), init=0.0) * x - y) ** 2, over=n))
    return gc.training_step(g, "loss", gc.optim.Momentum(0.01))


def batches(epoch: int) -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(epoch).normal(size=8).astype(np.float32)
    return [{"x": x, "y": 2 * x}]


def fitted(epochs: int, **options: Any) -> gc.training.fit.Fit:
    """The step counter of a state says which epoch it is of."""
    return gc.fit(
        step(),
        options.pop("batches", batches),
        epochs=epochs,
        evaluate=lambda state: {"val": VALIDATION[int(state["step"]) - 1]},
        quiet=True,
        **options,
    )


@pytest.mark.parametrize(
    ("epochs", "patience", "trained", "best"), [(10, None, 10, 5), (10, 3, 5, 1), (10, 4, 10, 5), (1, 1, 1, 0)]
)
def test_the_best_epoch_is_kept_and_waiting_ends(epochs: int, patience: int | None, trained: int, best: int) -> None:
    found = fitted(epochs, best="val", patience=patience)
    assert len(found.history) == trained
    assert found.best["step"] == best + 1
    assert found.state["step"] == trained
    alone = fitted(best + 1)
    assert all(np.array_equal(found.best[name], array) for name, array in alone.state.items())


def test_the_score_may_be_a_function_and_without_one_the_last_epoch_is_the_best() -> None:
    assert fitted(10, best=lambda record: -record["val"]).best["step"] == 10
    assert fitted(4).best["step"] == 4
    assert fitted(0, best="val").best["step"] == 0


@pytest.mark.parametrize("stopped", range(10))
def test_a_resumed_run_keeps_and_ends_as_the_uninterrupted_one(tmp_path: Path, stopped: int) -> None:
    path, options = tmp_path / "run.safetensors", {"best": "val", "patience": 4}
    fitted(stopped, checkpoint=path, **options)
    for _ in range(2):
        found = fitted(10, checkpoint=path, **options)
        whole = fitted(10, **options)
        assert str(found.history) == str(whole.history)  # NaN is not itself
        assert found.best.keys() == whole.best.keys()
        assert all(np.array_equal(found.best[name], array) for name, array in whole.best.items())
        kept = gc.load(tmp_path / "run.best.safetensors")
        assert all(np.array_equal(kept[name], array) for name, array in whole.best.items())


def test_a_run_that_has_given_up_makes_no_step_when_it_is_resumed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"best": "val", "patience": 3, "checkpoint": tmp_path / "run.safetensors"}
    fitted(10, **options)

    def none(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        raise AssertionError(epoch)

    assert len(fitted(10, batches=none, **options).history) == 5


def test_a_stop_between_the_two_files_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        add = Best.add

        def stopping(self: Best, record: dict[str, float], arrays: Any) -> None:
            if record["epoch"] == 5:
                raise KeyboardInterrupt
            add(self, record, arrays)

        patch.setattr(Best, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            fitted(10, checkpoint=path, best="val")
    assert gc.load(tmp_path / "run.best.safetensors")["step"] == 2
    assert fitted(10, checkpoint=path, best="val").best["step"] == 6
    assert gc.load(tmp_path / "run.best.safetensors")["step"] == 6


def test_a_best_epoch_that_was_not_kept_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    fitted(4, checkpoint=path)
    with pytest.raises(ArgumentError, match=r"epoch 2 was the best, and .*run\.best\.safetensors does not hold it"):
        fitted(10, checkpoint=path, best="val")
    fitted(6, checkpoint=path)
    assert fitted(10, checkpoint=path, best="val").best["step"] == 6  # the last of those
    fitted(4, checkpoint=path, resume=False, seed=1)
    with pytest.raises(ArgumentError, match="does not hold it"):  # but that of another run
        fitted(10, checkpoint=path, seed=1, best="val")


def test_it_is_said_why_training_ends(capsys: pytest.CaptureFixture[str]) -> None:
    gc.fit(step(), batches, epochs=9, best=lambda record: record["epoch"], patience=2)
    assert capsys.readouterr().out.splitlines()[-1] == "epoch 1 was the best; 2 after it were not"
