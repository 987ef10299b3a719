"""The best epoch: which it was, its arrays, and whether a better one has been waited for long enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc import checkpoint as checkpoint_files
from graphc.errors import ArgumentError, listed, meant
from graphc.files import write_whole
from graphc.integers import is_whole

Record = dict[str, float]
Score = str | Callable[[Record], float]
ANEW = "to begin anew, remove the file or give another path (to gc.fit also: resume=False)"


class Best:
    """The arrays after the epoch whose score, a number of its record or a function of it, is the lowest.

    Where there is a checkpoint they are in a file beside it, `run.best.safetensors` beside `run.safetensors`, which
    is written after the checkpoint: if only that was, the best epoch is the checkpoint's last.
    """

    def __init__(self, score: Score, patience: int | None, checkpoint: Path | str | None, owner: Mapping[str, str]):
        self.score, self.patience, self.owner = score, patience, owner
        self.path = None if checkpoint is None else best_path(Path(checkpoint))
        self.arrays: dict[str, np.ndarray] | None = None
        self._scores: list[float] = []

    @property
    def epoch(self) -> int:
        """The best epoch so far; of equal ones the first. What is not a number is worse than any."""
        return min(range(len(self._scores)), key=lambda k: (math.isnan(self._scores[k]), self._scores[k], k))

    @property
    def given_up(self) -> bool:
        """Whether the last `patience` epochs were all no better."""
        return bool(self._scores) and self.patience is not None and len(self._scores) - 1 - self.epoch >= self.patience

    def add(self, record: Record, arrays: Mapping[str, np.ndarray]) -> None:
        """Score an epoch, and keep a copy of the arrays after it if it is the best."""
        self._scores.append(self._of(record))
        if self.epoch == len(self._scores) - 1:
            self._keep(arrays)

    def resume(self, history: Sequence[Record], arrays: Mapping[str, np.ndarray]) -> None:
        """Go on after the epochs of a checkpoint that holds these arrays."""
        self._scores = [self._of(record) for record in history]
        if history and self.epoch == len(history) - 1:
            self._keep(arrays)
        elif history and self.path is not None:
            found, metadata = checkpoint_files.read(self.path) if self.path.exists() else ({}, {})
            if metadata != self._metadata():
                raise ArgumentError(
                    f"epoch {self.epoch + 1} was the best, and {self.path} does not hold it: training was begun "
                    f"without best= (graphc train: --patience), or with another; resume so; {ANEW}"
                )
            self.arrays = found

    def _keep(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = {name: array.copy() for name, array in arrays.items()}
        if self.path is not None:
            write_whole(self.path, checkpoint_files.serialized(self.arrays, self._metadata()))

    def _metadata(self) -> dict[str, str]:
        return {**self.owner, "epoch": str(self.epoch + 1)}

    def _of(self, record: Record) -> float:
        if isinstance(self.score, str):
            if self.score not in record:
                raise unknown_score(self.score, record)
            return record[self.score]
        found = self.score(dict(record))
        try:
            return float(found)
        except (TypeError, ValueError):
            raise ArgumentError(
                f"best= is a function that returns a number, the lower the better, got {found!r}"
            ) from None


def best_path(checkpoint: Path) -> Path:
    """Where the best epoch's arrays lie: beside the checkpoint."""
    return checkpoint.with_name(f"{checkpoint.stem}.best{checkpoint.suffix}")


def unknown_score(name: str, record: Mapping[str, Any]) -> ArgumentError:
    """The error for a number that a record does not have."""
    known = [n for n in record if n != "epoch"]
    there = listed(known) if known else "none"
    return ArgumentError(f"best= names {name!r}; the numbers of an epoch are {there}{meant(name, known)}")


def check_best(score: object, patience: object) -> None:
    """Raise `ArgumentError` if `fit` cannot use these."""
    if score is not None and not isinstance(score, str) and not callable(score):
        raise ArgumentError(
            "best= names a number that is the lower the better, 'val_loss', or is a function of an epoch's record, as "
            f"lambda record: -record['accuracy']; got {score!r}"
        )
    if patience is None:
        return
    if not is_whole(patience) or patience < 1:
        raise ArgumentError(f"patience= is a number of epochs, at least 1, got {patience!r}")
    if score is None:
        raise ArgumentError("patience= counts the epochs since the best one: say by best='loss' which that is")
