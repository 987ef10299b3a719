"""Arrays to train a user's graph on, and batches of them: for `graphc train`."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from graphc import checkpoint
from graphc.command_line.user_file import users_code
from graphc.datasets import japanese_vowels
from graphc.datasets.names import printable
from graphc.errors import ArgumentError, GraphError
from graphc.language.graph import Graph
from graphc.machine import check_memory


@dataclass(frozen=True, slots=True)
class Source:
    """What gives an epoch's arrays, of a seed; what tells these data from others; and arrays to measure on, if any."""

    arrays: Callable[[int], Mapping[str, np.ndarray]]
    fingerprint: str
    held_out: Mapping[str, np.ndarray] | None = None


def source(module: ModuleType, graph: Graph, data: str) -> Source:
    """The file's own data(seed), a data set by name, or an archive."""
    if not data:
        if not callable(getattr(module, "data", None)):
            raise ArgumentError("the file has no function data(seed); name the data by --data")
        held_out = _own_arrays(module, graph, "held_out") if callable(getattr(module, "held_out", None)) else None
        return Source(lambda seed: _own_arrays(module, graph, "data", seed), "data(seed)", held_out)
    if data == "vowels":
        known = japanese_vowels().train
        by_name = {
            "x": known.values,
            "lengths": known.lengths,
            **dict.fromkeys(("y", "speaker", "label"), known.speaker),
        }
    elif data.endswith(".npz"):
        by_name = _archive(data, graph)
    elif data.endswith(".safetensors"):
        by_name = checkpoint.load(data)
    else:
        raise ArgumentError(f"--data is 'vowels', or an .npz or .safetensors file, not {data!r}")
    chosen = _chosen(graph, by_name, data)
    return Source(lambda seed: chosen, fingerprint(chosen))


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """A text that other arrays do not have."""
    found = hashlib.sha256()
    for name, array in arrays.items():
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _own_arrays(module: ModuleType, graph: Graph, function: str, *seed: int) -> dict[str, np.ndarray]:
    with users_code(Path(str(module.__file__))):
        return _chosen(graph, getattr(module, function)(*seed), f"{function}({'seed' if seed else ''})")


def _archive(path: str, graph: Graph) -> dict[str, np.ndarray]:
    """The arrays of an .npz file for the graph's inputs; it is never unpickled."""
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as members:  # numpy takes anything else for a pickle
                names = [name.removesuffix(".npy") for name in members.namelist() if name.endswith(".npy")]
                _check_names(graph, names, path)
                wanted = [members.getinfo(f"{name}.npy") for name in graph.inputs]
                check_memory(sum(member.file_size for member in wanted), f"unpacking {path}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in graph.inputs}
        except GraphError:
            raise
        except Exception as error:  # of a damaged file, each way of packing raises something else
            reason = f"{type(error).__name__}: {printable(str(error))}"
            raise ArgumentError(f"{path} is not an archive of plain arrays: {reason}") from None


def _chosen(graph: Graph, arrays: Mapping[str, np.ndarray], source: str) -> dict[str, np.ndarray]:
    """The arrays of the graph's inputs."""
    _check_names(graph, arrays, source)
    return {name: arrays[name] for name in graph.inputs}


def _check_names(graph: Graph, there: Collection[str], source: str) -> None:
    missing = [name for name in graph.inputs if name not in there]
    if missing:
        raise ArgumentError(
            f"{source} has no array for input {', '.join(missing)}; it has {', '.join(map(printable, there)) or 'none'}"
        )


def batches(
    graph: Graph, arrays: Mapping[str, np.ndarray], axis: str, size: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Batches of examples in random order; inputs without the batch axis are the same in each."""
    where = _along(graph, axis)
    if not where:
        yield dict(arrays)
        return
    order = rng.permutation(_count(arrays, where, axis))
    for start in range(0, len(order), size):
        yield _taken(arrays, where, order[start : start + size])


def parted(
    graph: Graph, arrays: Mapping[str, np.ndarray], axis: str, share: float, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The arrays of the examples to learn from, and of a share of them, drawn at random, to measure on."""
    where = _along(graph, axis)
    if not where:
        raise ArgumentError(
            f"--held-out is a share of the examples, and no input has the axis {axis!r} that numbers them"
        )
    count = _count(arrays, where, axis)
    held = round(share * count) if 0 < share < 1 else 0
    if not 0 < held < count:
        raise ArgumentError(
            f"--held-out {share:g} of {count} examples is {held}: some must be held out, and some learnt"
        )
    order = rng.permutation(count)
    return _taken(arrays, where, np.sort(order[held:])), _taken(arrays, where, np.sort(order[:held]))


def _along(graph: Graph, axis: str) -> dict[str, int]:
    """The inputs that vary from example to example, and which dimension of their arrays numbers these."""
    names = {name: [a.name for a in node.axes] for name, node in graph.inputs.items()}
    return {name: axes.index(axis) for name, axes in names.items() if axis in axes}


def _count(arrays: Mapping[str, np.ndarray], where: Mapping[str, int], axis: str) -> int:
    counts = {name: np.shape(arrays[name])[k] for name, k in where.items() if np.ndim(arrays[name]) > k}
    if len(set(counts.values())) != 1 or len(counts) < len(where):
        raise ArgumentError(f"the arrays do not agree on the number of examples: {counts}")
    count: int = next(iter(counts.values()))
    if not count:
        raise ArgumentError(f"there are no examples to train on: axis {axis!r} has length 0")
    return count


def _taken(arrays: Mapping[str, np.ndarray], where: Mapping[str, int], examples: np.ndarray) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(np.take(array, examples, axis=where[name])) if name in where else array
        for name, array in arrays.items()
    }
