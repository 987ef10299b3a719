"""A launch in the driver's words: the structures in which NVIDIA's driver takes it, by itself or in a graph.

In: a `Prepared`, and the module cuda.bindings.driver. Out: its structures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Arguments", "Prepared", "launch_config", "node_attributes", "node_params"]


_URGENT = -1  # of the priorities, of which the usual one is 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """One launch of a loaded module's kernel, with its arguments: addresses and counts, 64 bits each. `urgent`: CTAs of
    others come behind its own."""

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
    """A kernel's arguments as the driver takes them: the address of their addresses, for as long as this is there."""

    def __init__(self, arguments: Sequence[int]) -> None:
        self._words = np.array(arguments, np.uint64)
        self._places = self._words.ctypes.data + 8 * np.arange(len(arguments), dtype=np.uint64)
        self.address = int(self._places.ctypes.data)


def launch_config(driver: Any, launch: Prepared, stream: int) -> Any:
    """Of a launch by itself."""
    config = driver.CUlaunchConfig()
    _shape(config, launch)
    config.hStream = stream
    config.attrs = list(_attributes(driver, launch))
    config.numAttrs = len(config.attrs)
    return config


def node_params(driver: Any, launch: Prepared, function: Any, arguments: Arguments) -> Any:
    """Of a launch in a graph, which copies the arguments when it is added."""
    params = driver.CUDA_KERNEL_NODE_PARAMS()
    _shape(params, launch)
    params.func, params.kernelParams = function, arguments.address
    return params


def node_attributes(driver: Any, launch: Prepared) -> Iterator[tuple[Any, Any]]:
    """What its node is told when it has been added."""
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
    """What a launch asks for beside its shape: the name of each attribute, and what fills in its value."""

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
