"""augment: a photograph as it might also have been taken: mirrored, or framed a little differently."""

from __future__ import annotations

import numpy as np

REACH = 16  # the frame moves by up to one REACH-th of a side


def augmented(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop of the same size at a random place, mirrored in half of the cases.

    `image` is (C, H, W). The frame moves by up to H / 16 rows and W / 16 columns; where it leaves the photograph, the
    nearest pixels are repeated.
    """
    _, height, width = image.shape
    down = rng.integers(-(height // REACH), height // REACH, endpoint=True)
    across = rng.integers(-(width // REACH), width // REACH, endpoint=True)
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    columns = np.clip(np.arange(width) + across, 0, width - 1)
    return image[:, rows[:, None], columns[:: rng.choice((1, -1))]]
