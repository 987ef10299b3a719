"""The image model of `examples/reseg.py` on a batch of photographs, with its arrays.

Photographs are random: what they show changes no time. Results are compared by name: "probabilities", and of a step of
training "loss", the velocity "momentum_…" of every trainable param, and the running means. (PyTorch's running
variance is another one, that of a sample.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

import graphc as gc
from benchmarks.problems import Arrays
from examples.reseg import reseg

RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4  # the lecture's optimiser


@dataclass(frozen=True)
class Images:
    """So many photographs of (channels, height, width), and the model that tells two classes apart."""

    batch: int
    image: tuple[int, int, int] = (3, 128, 128)

    steps = 1
    name = "ReSeg"
    # In float32 a pixel beside a kink (a ReLU's 0, two almost equal pixels under a pooling window) may fall on either
    # side, and moves a gradient by up to a hundredth of its largest element; the tests compare in float64.
    tolerance = 3e-2

    @property
    def sizes(self) -> str:
        return f"N {self.batch}, {' × '.join(map(str, self.image))}"

    @property
    def tiny(self) -> Images:
        """The smallest of the kind, for what a library does once."""
        return Images(2, (3, 32, 32))

    @cached_property
    def photographs(self) -> np.ndarray:
        """(N, channels, height, width), float32 from 0 to 255."""
        return np.random.default_rng(1).uniform(0, 255, (self.batch, *self.image)).astype(np.float32)

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,), int32."""
        return np.random.default_rng(2).integers(0, 2, self.batch).astype(np.int32)

    def make(self) -> None:
        """Make the arrays, which are made once."""
        _ = self.photographs, self.labels, self.params

    @property
    def model(self) -> gc.Graph:
        return reseg(image=self.image)

    @property
    def training_step(self) -> gc.Graph:
        return gc.training_step(self.model, "loss", gc.optim.Momentum(RATE, MOMENTUM, weight_decay=DECAY))

    @cached_property
    def params(self) -> Arrays:
        """The params and statistics of the model at its start."""
        return gc.initialize(self.model, seed=0)
