"""Divergence: training that has left the numbers is stopped, and not written over a checkpoint that is sound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.errors import DivergenceError, listed

Arrays = Mapping[str, "np.ndarray | DeviceArray"]


def finite_names(arrays: Arrays) -> list[str]:
    """The arrays all of whose elements are finite."""
    return [name for name, array in arrays.items() if _is_finite(array)]


def check_finite(
    when: str, arrays: Arrays, names: list[str], numbers: Mapping[str, float], batch: Mapping[str, Any] | None = None
) -> None:
    """Raise `DivergenceError` if some of the named arrays are no longer finite.

    `numbers` are what was measured then; `batch`, if it is known, what the step read that spoilt them.
    """
    lost = [name for name in names if not _is_finite(arrays[name])]
    if not lost:
        return
    measured = "".join(f"{name} is {value}, " for name, value in numbers.items() if not math.isfinite(value))
    bad = [name for name, array in (batch or {}).items() if not _is_finite(array)]
    cause = (
        f"input {listed(bad)} of this batch holds what is no finite number"
        if bad
        else "a lower learning rate, or a bound on the gradient (clip=1.0 of an optimiser), keeps it finite"
    )
    raise DivergenceError(f"training diverged {when}: {measured}{listed(lost)} not finite; {cause}")


def _is_finite(array: Any) -> bool:
    there = array.numpy() if isinstance(array, DeviceArray) else np.asarray(array)
    return bool(np.isfinite(there).all())
