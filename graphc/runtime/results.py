"""The outputs of a call, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn, TypeVar

import numpy as np

from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.errors import MissingAttributeError

__all__ = ["DeviceResults", "Results"]

A = TypeVar("A", bound="np.ndarray | DeviceArray")


class _Outputs(Mapping[str, A]):
    def __init__(self, arrays: dict[str, A]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> A:
        try:
            return self._arrays[name]
        except KeyError:
            raise KeyError(f"no output {name!r}; the outputs are {', '.join(self._arrays)}") from None

    if not TYPE_CHECKING:  # else every attribute would have a type

        def __getattr__(self, name: str) -> NoReturn:
            outputs = self.__dict__.get("_arrays", {})
            if name.startswith("_") or not outputs:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            hint = f"r[{name!r}] is that output" if name in outputs else f"the outputs are {', '.join(outputs)}"
            raise MissingAttributeError(f"results have no attribute {name!r}; {hint}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{k}: {v.dtype}{list(v.shape)}" for k, v in self._arrays.items())
        return f"{type(self).__name__}({arrays})"


class Results(_Outputs[np.ndarray]):
    """The outputs of a call, as arrays of the host's: `r["loss"]`."""


class DeviceResults(_Outputs[DeviceArray]):
    """The outputs of a call that was given arrays on the GPU: they stay there, too; `r["loss"].numpy()` is a copy."""
