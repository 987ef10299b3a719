"""Photographs as batches of arrays, decoded in the background.

A small data set is decoded once and kept as bytes, a large one again in every epoch; the batches are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from graphc.datasets.augment import augmented
from graphc.datasets.background import ordered
from graphc.datasets.decode import Shape, Unreadable, pixels, require_pillow
from graphc.datasets.image_folder import Photograph
from graphc.errors import ArgumentError

KEPT = 1 << 30  # bytes: data sets of up to this size, as uint8, are decoded once and kept
AHEAD = 3  # batches that are ready, or being made, while one is trained on

Pixels = np.ndarray | Unreadable


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """`image` (N, C, H, W) float32, 0 to 255; `label` (N,) int32; `index` (N,): which photographs these are."""

    image: np.ndarray
    label: np.ndarray
    index: np.ndarray


@dataclass
class ImageLoader:
    """Photographs of one shape (C, H, W), with C of 1 (grey) or 3 (RGB), by the threads of a pool.

    A photograph that cannot be read raises `ArgumentError`; with `skip` it is missing from its batch, and listed in
    `skipped`.
    """

    photographs: Sequence[Photograph]
    shape: Shape
    pool: Executor
    skip: bool = False
    skipped: dict[Path, str] = field(default_factory=dict, init=False)
    _kept: list[Pixels] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if self.shape[0] not in (1, 3) or min(self.shape) < 1:
            raise ArgumentError(f"photographs have 1 channel (grey) or 3 (RGB), not shape {self.shape}")
        require_pillow()

    def __len__(self) -> int:
        return len(self.photographs)

    @property
    def kept_bytes(self) -> int:
        """What keeping every photograph takes."""
        return len(self) * prod(self.shape)

    def keep(self) -> Iterator[None]:
        """Decode every photograph once, for good; yields after each."""
        kept: list[Pixels] = []
        for result in ordered(self.pool, self._decode, range(len(self)), ahead=64):
            self.report([result])
            kept.append(result)
            yield
        self._kept = kept

    def in_order(self, size: int) -> Epoch:
        """Every photograph as it is, in order."""
        return Epoch(self, _parts(np.arange(len(self)), size))

    def shuffled(self, size: int, seed: int, epoch: int, augment: bool) -> Epoch:
        """Every photograph once, in random order, and varied at random if `augment`.

        What is random follows from the seed, the epoch and the photograph's number alone.
        """
        order = np.random.default_rng((seed, epoch, 0)).permutation(len(self))
        return Epoch(self, _parts(order, size), (seed, epoch) if augment else None)

    def _decode(self, index: int) -> Pixels:
        try:
            return pixels(self.photographs[index].path, self.shape)
        except Unreadable as error:
            return error

    def read(self, index: int) -> Pixels:
        """A photograph as (C, H, W) uint8, or why there is none."""
        return self._kept[index] if self._kept else self._decode(index)

    def report(self, results: Iterable[Pixels]) -> None:
        """Raise for an unreadable photograph, or note it in `skipped`."""
        for result in results:
            if isinstance(result, Unreadable):
                if not self.skip:
                    raise ArgumentError(
                        f"cannot read a photograph: {result}; mend or remove it, or skip such files (--skip-unreadable)"
                    )
                self.skipped[result.path] = str(result)


@dataclass(frozen=True, slots=True)
class Epoch:
    """The batches of one epoch: as many as it has a length, made while it is iterated.

    With `vary`, a seed and an epoch, each photograph is varied at random.
    """

    loader: ImageLoader
    parts: Sequence[np.ndarray]
    vary: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[ImageBatch]:
        for results, batch in ordered(self.loader.pool, self._batch, self.parts, AHEAD):
            self.loader.report(results)
            if len(batch.index):
                yield batch

    def _batch(self, part: np.ndarray) -> tuple[list[Unreadable], ImageBatch]:
        """Runs in a thread of the pool."""
        found = {int(index): self.loader.read(int(index)) for index in part}
        images = {index: image for index, image in found.items() if not isinstance(image, Unreadable)}
        values = np.empty((len(images), *self.loader.shape), np.float32)
        for place, (index, image) in zip(values, images.items(), strict=True):
            place[...] = image if self.vary is None else augmented(image, self._rng(index))
        label = np.array([self.loader.photographs[index].label for index in images], np.int32)
        unreadable = [result for result in found.values() if isinstance(result, Unreadable)]
        return unreadable, ImageBatch(values, label, np.array(list(images), np.int64))

    def _rng(self, index: int) -> np.random.Generator:
        assert self.vary is not None
        return np.random.default_rng((*self.vary, 1 + index))  # 0 is the order's


def _parts(order: np.ndarray, size: int) -> list[np.ndarray]:
    """At most `size` of each, and as equal as can be: a last batch of one or two would be all noise."""
    return np.array_split(order, -(-len(order) // size)) if len(order) else []
