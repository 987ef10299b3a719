"""Whole numbers, as callers give them: sizes, positions, counts."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

__all__ = ["is_whole"]


def is_whole(number: object) -> TypeGuard[int]:
    """Whether this is an integer of Python's or numpy's. A bool does not count."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
