"""Checkpoints: named arrays in a safetensors file, written whole or not at all, and read without trust.

A safetensors file is a length, a JSON header and raw arrays; reading one runs no code. What a file promises is checked
against its size before any memory is taken.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from graphc.errors import ArgumentError
from graphc.files import write_whole

LARGEST_HEADER = 100_000_000  # bytes: the format's own bound
_METADATA = "__metadata__"  # the header's entry that is no array
_OTHERS = (".npz", ".npy", ".pt", ".pth", ".h5", ".hdf5", ".keras", ".onnx", ".pkl", ".pickle", ".mat", ".csv")
# The format's names of dtypes, and numpy's.
_DTYPES = {
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "BOOL": "bool",
}


def save(path: Path | str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays, such as a network's params by their names, and strings to a safetensors file.

    Until the new file is complete and on disk, the old one stays as it was. Folders on the way are made. Raises
    `OSError` if the file cannot be written.
    """
    check_ending(path)
    write_whole(path, serialized(arrays, metadata))


def check_ending(path: Path | str) -> None:
    """Raise `ArgumentError` if a file's name promises another format."""
    path = Path(path)
    if path.suffix.lower() in _OTHERS:
        raise ArgumentError(f"arrays are written as safetensors, not as {path.name}; say {path.stem}.safetensors")


def serialized(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """What `save` writes."""
    if not isinstance(arrays, Mapping) or not all(isinstance(name, str) for name in arrays):
        raise ArgumentError(f"a file takes a dict of arrays by name, not {type(arrays).__name__}; Fit has one, .state")
    if _METADATA in arrays:
        raise ArgumentError(f"a file keeps the name {_METADATA} for its strings; give the array another")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray | np.generic) or array.dtype.name not in _DTYPES.values():
            what = f"{array.dtype} array" if isinstance(array, np.ndarray) else type(array).__name__
            raise ArgumentError(f"a file takes numpy arrays of numbers; {name} is a {what}")
    for name, text in (metadata or {}).items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise ArgumentError(f"a file's metadata are strings by name; {name} is {text!r}")
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    return serialize(contiguous, metadata=dict(metadata) if metadata else None)


def load(path: Path | str) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name: of `save`, a checkpoint of `gc.fit`, or another program's.

    Raises `ArgumentError` if it is missing, damaged, or something else.
    """
    return read(path)[0]


def read(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the strings of a file, as `load` reads them."""
    path = Path(path)
    try:
        metadata = _metadata(path)
        tensors = dict(_tensors(path.read_bytes()))
        unknown = {tensor["dtype"]: name for name, tensor in tensors.items() if tensor["dtype"] not in _DTYPES}
        arrays = {} if unknown else {name: _array(tensor) for name, tensor in tensors.items()}
    except OSError as error:
        raise ArgumentError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArgumentError(f"{path} is not a whole safetensors file: {error}") from None
    for dtype, name in unknown.items():
        raise ArgumentError(f"{path} holds {name} in {dtype}; of the format's dtypes {', '.join(_DTYPES)} are read")
    return {name: array.copy() for name, array in arrays.items()}, metadata


def _tensors(data: bytes) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    return found


def _array(tensor: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(tensor["data"], _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])


def _metadata(path: Path) -> dict[str, str]:
    """The strings of a file's header, once the header's length is known to fit the file."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
        raise ValueError("it is not a regular file")
    size = about.st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, LARGEST_HEADER):
            raise ValueError(f"its header claims {length} bytes of a file of {size}")
        header = json.loads(file.read(length))
    metadata = header.get(_METADATA, {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata holds something else than text")
    return dict(metadata)
