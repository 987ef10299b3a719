"""Shapes written in letters, such as "4H, I": arrays that belong together fit them with one number for each letter."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]

Shapes = dict[str, str]
"""For each array by name, its shape in letters."""

Sizes = dict[str, int]
"""The number that a letter stands for."""


def misfits(arrays: Mapping[str, np.ndarray], shapes: Shapes, sizes: Sizes) -> dict[str, list[str]]:
    """What is wrong, if anything: arrays that are missing, unknown, and of another shape. Numbers that `sizes` lacks
    are found, and put there."""
    known = {name: (arrays[name].shape, _dimensions(shape)) for name, shape in shapes.items() if name in arrays}
    ranked = {name: pair for name, pair in known.items() if len(pair[0]) == len(pair[1])}
    for lengths, dimensions in ranked.values():
        for length, (factor, letter) in zip(lengths, dimensions, strict=True):
            if factor == 1 and letter:
                sizes.setdefault(letter, length)
    wrong = [name for name in known if name not in ranked or not _fits(*ranked[name], sizes)]
    found = {
        "missing": [name for name in shapes if name not in arrays],
        "unknown": [name for name in arrays if name not in shapes],
        "of another shape": [f"{name} {arrays[name].shape}" for name in wrong],
    }
    return {what: names for what, names in found.items() if names}


def _fits(lengths: tuple[int, ...], dimensions: list[tuple[int, str]], sizes: Sizes) -> bool:
    numbers = (factor * sizes.get(letter, 1) for factor, letter in dimensions)
    return all(length == number > 0 for length, number in zip(lengths, numbers, strict=True))


def times(factor: int, letter: str) -> str:
    """A multiple of a letter, as shapes have it."""
    return letter if factor == 1 else f"{factor}{letter}"


def described(shapes: Shapes) -> str:
    """The arrays and their shapes, in words."""
    return ", ".join(f"{name} ({shape})" for name, shape in shapes.items())


def _dimensions(shape: str) -> list[tuple[int, str]]:
    """Factors and letters: of "4H, I", [(4, "H"), (1, "I")]."""
    return [(int(factor or 1), letter) for factor, letter in re.findall(r"(?=\S)(\d*)([A-Z]?),?", shape)]
