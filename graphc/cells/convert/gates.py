"""The gates of a cell as blocks of rows of one array, and libraries with two biases where a cell has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from graphc.cells.convert.forms import Form
from graphc.cells.convert.shapes import Arrays


def split(letter: str, array: np.ndarray, gates: str) -> Arrays:
    """The blocks of rows, each named for its gate."""
    return {f"{letter}_{k}": block for k, block in zip(gates, np.split(array, len(gates)), strict=True)}


def join(letter: str, own: Mapping[str, np.ndarray], gates: str) -> np.ndarray:
    """The array of which `split` makes these."""
    return np.concatenate([own[f"{letter}_{k}"] for k in gates])


def one_bias(form: Form, both: Iterable[np.ndarray], gates: str) -> Arrays:
    """b_k, the sum of those on x and on h, but of gates that keep them apart b_k and c_k."""
    of_x, of_h = both
    on_x, on_h = split("b", of_x, gates), split("c", of_h, gates)
    summed = {f"b_{k}": on_x[f"b_{k}"] + on_h[f"c_{k}"] for k in gates}
    return summed | {name: (on_x | on_h)[name] for k in form.inner for name in (f"b_{k}", f"c_{k}")}


def two_biases(own: Mapping[str, np.ndarray], gates: str) -> tuple[np.ndarray, np.ndarray]:
    """The first is ours, the second 0 but for gates that keep them apart."""
    return join("b", own, gates), np.concatenate([own.get(f"c_{k}", np.zeros_like(own[f"b_{k}"])) for k in gates])
