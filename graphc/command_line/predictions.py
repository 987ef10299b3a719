"""What a trained network says of photographs whose class is known, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.datasets import Photograph


@dataclass(frozen=True, slots=True)
class Predictions:
    """`probabilities` (N, K): of each of K classes, for each of N photographs."""

    classes: tuple[str, ...]
    photographs: Sequence[Photograph]
    probabilities: np.ndarray

    def __len__(self) -> int:
        return len(self.photographs)

    @property
    def label(self) -> np.ndarray:
        """(N,): the class of each photograph."""
        return np.array([photograph.label for photograph in self.photographs], np.int64)

    @property
    def named(self) -> np.ndarray:
        """(N,): the most probable class of each photograph."""
        return np.asarray(np.argmax(self.probabilities, axis=1))

    @property
    def right(self) -> int:
        """How many photographs are named right."""
        return int((self.named == self.label).sum())

    @property
    def accuracy(self) -> float:
        """The share that is named right; NaN of no photographs."""
        return self.right / len(self) if len(self) else float("nan")

    @property
    def loss(self) -> float:
        """The mean of -log p, where p is what the photograph's own class was given; a p of 0 counts as the least
        positive float32."""
        own = self.probabilities[np.arange(len(self)), self.label].astype(np.float64)
        return float(-np.log(np.maximum(own, np.finfo(np.float32).smallest_subnormal)).mean()) if len(self) else np.nan

    @property
    def confusion(self) -> np.ndarray:
        """(K, K): how many photographs of each class, by row, were named as each class, by column."""
        counts = np.zeros((len(self.classes), len(self.classes)), np.int64)
        np.add.at(counts, (self.label, self.named), 1)
        return counts

    def __str__(self) -> str:
        return f"{self.right:,} of {len(self):,} held-out photographs named right ({self.accuracy:.1%})"
