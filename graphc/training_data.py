"""Arrays to train a user's graph on, and batches of them: for `graphc train`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from graphc import checkpoint
from graphc.datasets import japanese_vowels
from graphc.errors import ArgumentError
from graphc.graph import Graph
from graphc.user_file import users_code


def source(module: ModuleType, graph: Graph, data: str) -> Callable[[int], Mapping[str, np.ndarray]]:
    """What gives an epoch's arrays: the file's own data(seed), a data set by name, or an archive."""
    if not data:
        if not callable(getattr(module, "data", None)):
            raise ArgumentError("the file has no function data(seed); name the data by --data")
        return lambda epoch: _own_arrays(module, graph, epoch)
    if data == "vowels":
        known = japanese_vowels().train
        by_name = {
            "x": known.values,
            "lengths": known.lengths,
            **dict.fromkeys(("y", "speaker", "label"), known.speaker),
        }
    elif data.endswith(".npz"):
        by_name = _archive(data)
    elif data.endswith(".safetensors"):
        by_name = checkpoint.load(data)[0]
    else:
        raise ArgumentError(f"--data is 'vowels', or an .npz or .safetensors file, not {data!r}")
    chosen = _chosen(graph, by_name, data)
    return lambda epoch: chosen


def _own_arrays(module: ModuleType, graph: Graph, seed: int) -> dict[str, np.ndarray]:
    with users_code(Path(str(module.__file__))):
        return _chosen(graph, module.data(seed), "data(seed)")


def _archive(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; it is never unpickled."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file):  # numpy takes anything else for a pickle
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise ArgumentError(f"{path} is not an archive of plain arrays: {error}") from None


def _chosen(graph: Graph, arrays: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The arrays of the graph's inputs."""
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        raise ArgumentError(f"{source} has no array for input {', '.join(missing)}; it has {', '.join(arrays)}")
    return {name: arrays[name] for name in graph.inputs}


def batches(
    graph: Graph, arrays: Mapping[str, np.ndarray], axis: str, size: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Batches of examples in random order; inputs without the batch axis are the same in each."""
    where = {
        n: [a.name for a in v.axes].index(axis) for n, v in graph.inputs.items() if axis in [a.name for a in v.axes]
    }
    counts = {name: np.shape(arrays[name])[k] for name, k in where.items() if np.ndim(arrays[name]) > k}
    if not where:
        yield dict(arrays)
        return
    if len(set(counts.values())) != 1 or len(counts) < len(where):
        raise ArgumentError(f"the arrays do not agree on the number of examples: {counts}")
    count = next(iter(counts.values()))
    if not count:
        raise ArgumentError(f"there are no examples to train on: axis {axis!r} has length 0")
    order = rng.permutation(count)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield {
            name: np.ascontiguousarray(np.take(array, chosen, axis=where[name])) if name in where else array
            for name, array in arrays.items()
        }
