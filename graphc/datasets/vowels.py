"""Japanese Vowels: nine speakers say /ae/, 640 times; the task is to name the speaker.

M. Kudo, J. Toyama & M. Shimbo, "Multidimensional curve classification using passing-through regions", Pattern
Recognition Letters 20, 1999. UCI Machine Learning Repository, https://doi.org/10.24432/C5NS47, CC BY 4.0. The authors
report 94.1 % of the test utterances with their own method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

SPEAKERS = 9
COEFFICIENTS = 12


@dataclass(frozen=True)
class Utterances:
    """Padded sequences.

    `values` (frames, utterances, 12) float32: LPC cepstrum coefficients, 0 past an utterance's end; `lengths`
    (utterances,) int32: 7 to 29 frames; `speaker` (utterances,) int32 in 0 … 8.
    """

    values: np.ndarray
    lengths: np.ndarray
    speaker: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Utterances]:
        """All utterances once, in random order; each batch is cut to its own longest."""
        order = rng.permutation(len(self))
        for start in range(0, len(order), size):
            yield self.select(order[start : start + size])

    def select(self, which: np.ndarray) -> Utterances:
        lengths = self.lengths[which]
        values = np.ascontiguousarray(self.values[: lengths.max(), which])
        return Utterances(values, lengths, self.speaker[which])


@dataclass(frozen=True)
class Vowels:
    """270 utterances to train on and 370 held out, of the same nine speakers."""

    train: Utterances
    test: Utterances


def japanese_vowels(normalize: bool = True) -> Vowels:
    """The data set. With `normalize`, each coefficient has mean 0 and variance 1 over the training frames."""
    source = files("graphc.datasets").joinpath("japanese_vowels.npz")
    with source.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        frames = {part: archive[f"{part}_values"] for part in ("train", "test")}
        lengths = {part: archive[f"{part}_lengths"] for part in ("train", "test")}
        speaker = {part: archive[f"{part}_speaker"] for part in ("train", "test")}
    if normalize:
        mean, deviation = frames["train"].mean(axis=0), frames["train"].std(axis=0)
        frames = {part: (values - mean) / deviation for part, values in frames.items()}
    train, test = (
        Utterances(_padded(frames[part], lengths[part]), lengths[part], speaker[part]) for part in ("train", "test")
    )
    return Vowels(train, test)


def _padded(frames: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Frames that follow one another as an array (frames, utterances, coefficients), 0 past an utterance's end."""
    result = np.zeros((int(lengths.max()), len(lengths), frames.shape[1]), np.float32)
    start = 0
    for k, length in enumerate(lengths):
        result[:length, k] = frames[start : start + length]
        start += int(length)
    return result
