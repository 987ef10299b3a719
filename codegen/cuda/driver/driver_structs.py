"""A launch as structures of NVIDIA's driver, for a launch by itself or for a node of a graph.

In: a `Prepared`, and the module cuda.bindings.driver. Out: its structures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Arguments", "Prepared", "launch_config", "node_attributes", "node_params"]


_URGENT = -1  # a priority higher than the default, 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """One launch of a loaded module's kernel, with its arguments: addresses and counts, 64 bits each. `urgent`: it runs
    at high priority."""

    module: Any
    symbol: str
    grid: int
    block: int
    cluster: int
    shared: int
    cooperative: bool
    arguments: tuple[int, ...]
    urgent: bool = False


class Arguments:
    """A kernel's arguments as the driver takes them: `address` is that of an array of pointers to them. It is valid as
    long as this object lives."""

    def __init__(self, arguments: Sequence[int]) -> None:
        self._words = np.array(arguments, np.uint64)
        self._places = self._words.ctypes.data + 8 * np.arange(len(arguments), dtype=np.uint64)
        self.address = int(self._places.ctypes.data)


def launch_config(driver: Any, launch: Prepared, stream: int) -> Any:
    """The configuration of a launch by itself."""
    config = driver.CUlaunchConfig()
    _shape(config, launch)
    config.hStream = stream
    config.attrs = list(_attributes(driver, launch))
    config.numAttrs = len(config.attrs)
    return config


def node_params(driver: Any, launch: Prepared, function: Any, arguments: Arguments) -> Any:
    """The parameters of a launch in a graph. The graph copies the arguments when the node is added."""
    params = driver.CUDA_KERNEL_NODE_PARAMS()
    _shape(params, launch)
    params.func, params.kernelParams = function, arguments.address
    return params


def node_attributes(driver: Any, launch: Prepared) -> Iterator[tuple[Any, Any]]:
    """The attributes of a launch's node, to be set after it was added: the name and the value of each."""
    for name, fill in _demands(launch):
        value = driver.CUkernelNodeAttrValue()
        fill(value)
        yield getattr(driver.CUkernelNodeAttrID, name), value


def _shape(structure: Any, launch: Prepared) -> None:
    structure.gridDimX, structure.gridDimY, structure.gridDimZ = launch.grid, 1, 1
    structure.blockDimX, structure.blockDimY, structure.blockDimZ = launch.block, 1, 1
    structure.sharedMemBytes = launch.shared


def _attributes(driver: Any, launch: Prepared) -> Iterator[Any]:
    for name, fill in _demands(launch):
        attribute = driver.CUlaunchAttribute()
        attribute.id = getattr(driver.CUlaunchAttributeID, name)
        fill(attribute.value)
        yield attribute


def _demands(launch: Prepared) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """The attributes that a launch needs: the name of each, and a function that fills in its value."""

    def clustered(value: Any) -> None:
        value.clusterDim.x, value.clusterDim.y, value.clusterDim.z = launch.cluster, 1, 1

    def together(value: Any) -> None:
        value.cooperative = 1

    def before_others(value: Any) -> None:
        value.priority = _URGENT

    if launch.cluster > 1:
        yield "CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION", clustered
    if launch.cooperative:
        yield "CU_LAUNCH_ATTRIBUTE_COOPERATIVE", together
    if launch.urgent:
        yield "CU_LAUNCH_ATTRIBUTE_PRIORITY", before_others
