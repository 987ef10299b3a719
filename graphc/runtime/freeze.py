"""Fixing arrays of a compiled graph for good: checked copies, what a prologue makes of them, and calls without them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.checks.arguments import check_arguments
from graphc.codegen.cpu.jit import Loaded
from graphc.codegen.memory.arena import buffer_shape
from graphc.codegen.program import Program
from graphc.errors import ArgumentError, UnsupportedError
from graphc.language.graph import Graph, Param
from graphc.runtime.cpu import aligned_empty


def check_unlimited(limit: int | None) -> None:
    """Check that a function to be frozen has no limit on memory."""
    if limit is not None:
        raise UnsupportedError("a function with a memory limit cannot be frozen; compile without memory=")


def fixed_arrays(graph: Graph, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies of params, and of inputs over no axes, that no call changes."""
    declared = {name: p.node for name, p in graph.params.items()}
    declared |= {name: node for name, node in graph.inputs.items() if not node.axes}
    for name in given:
        if name in graph.updates:
            raise ArgumentError(f"{name} is updated by each call and cannot be fixed")
        if name not in declared:
            raise ArgumentError(
                f"only params and inputs over no axes can be fixed, not {name}; "
                f"those of graph {graph.name!r} are {', '.join(declared) or 'none'}"
            )
    params = {name: Param(declared[name], "zeros") for name in given}
    checked = check_arguments(Graph(graph.name, graph.dtype, params=params), given)
    return {name: _aligned_copy(array) for name, array in checked.arrays.items()}


def with_fixed(fixed: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """A call's arrays, and those that are fixed."""
    again = [name for name in given if name in fixed]
    if again:
        raise ArgumentError(f"{again[0]} is fixed by freeze; leave it out, or call the function that was frozen")
    return {**fixed, **given} if fixed else given


def prologue_results(loaded: Loaded, program: Program, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a program that has no sizes. What nothing is stored to is 0: it may become part of a file."""
    arrays = {}
    for rank, buffer in enumerate(program.buffers):
        if buffer.kind in ("output", "temp"):
            arrays[buffer.name] = aligned_empty(buffer_shape(buffer, {}), buffer.dtype, rank)
            arrays[buffer.name][...] = 0
        else:
            arrays[buffer.name] = given[buffer.name]
    addresses = (ctypes.c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays.values()))
    loaded(addresses, (ctypes.c_int64 * 1)())
    return {b.name: arrays[b.name] for b in program.buffers if b.kind == "output"}


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    copy = aligned_empty(array.shape, array.dtype.name)
    copy[...] = array
    return copy
