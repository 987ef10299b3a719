"""A graph as a module of PyTorch: its equations run compiled, forward and backward, in the middle of any other model.

In: a graph. Out: a `torch.nn.Module` whose parameters are the graph's params. Between the passes PyTorch keeps what
the backward pass needs (`graphc.passes`). Tensors and arrays share memory, on the CPU; nothing is copied but what is
not contiguous.

This module alone needs PyTorch: `pip install 'graphc-compiler[torch]'`, or any build of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import ml_dtypes
import numpy as np
import torch

from graphc.compile import Compiled, compile
from graphc.errors import ArgumentError, UnsupportedError, listed, meant
from graphc.graph import Graph
from graphc.inference import inference
from graphc.initialize import initialize
from graphc.ir import Node
from graphc.passes import passes
from graphc.verify import verify

__all__ = ["Module"]


class Module(torch.nn.Module):
    """`graphc.torch.Module(g)(x=x)["h"]`: the outputs of a graph by name, as tensors that have gradients.

    Its parameters have the names of the graph's params and begin as `gc.initialize(graph, seed)` has them; params that
    are not trainable are buffers. Inputs are given by name, as tensors on the CPU of the declared dtypes and shapes; so
    is the length of an axis that none of them shows, as a number. After `eval()` the module computes
    `gc.inference(graph)`, the graph as it is once training is over.

    The graph is compiled when it is first called, once for each set of tensors that require gradients, for training and
    for evaluation. Gradients of gradients are refused: make a module of the graph that has the gradient as an output
    (`gc.grad`). Dtypes are the graph's: a module is neither cast (`double()`) nor moved to another device. Raises
    `ArgumentError` for tensors that do not fit the graph, and `UnsupportedError` for a graph that trains itself.
    """

    def __init__(self, graph: Graph, seed: int = 0, threads: int | None = None) -> None:
        super().__init__()
        verify(graph)
        trained = [name for name in graph.updates if name in graph.inputs or graph.params[name].trainable]
        if trained:
            raise UnsupportedError(
                f"graph {graph.name!r} updates {trained[0]} itself, which is an optimiser's to do here; "
                "make the module of the graph that describes the network, and train it with torch.optim"
            )
        self._graph, self._threads = graph, threads
        self._made: dict[tuple[bool, tuple[str, ...]], _Made] = {}
        for name, array in initialize(graph, seed=seed).items():
            if hasattr(self, name):
                raise UnsupportedError(
                    f"param {name!r} of graph {graph.name!r} is called as what every torch.nn.Module has; rename it"
                )
            if graph.params[name].trainable:
                self.register_parameter(name, torch.nn.Parameter(_tensor(array)))
            else:
                self.register_buffer(name, _tensor(array))

    @torch.compiler.disable  # what is compiled already is not to be traced
    def forward(self, *unnamed: Any, **given: Any) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        self._check(unnamed, given)
        tensors = {name: given[name] for name in self._graph.inputs}
        tensors |= {name: getattr(self, name) for name in self._graph.params}
        lengths = {name: length for name, length in given.items() if name not in self._graph.inputs}
        wanted = torch.is_grad_enabled()
        wrt = tuple(name for name, tensor in tensors.items() if wanted and tensor.requires_grad)
        key = self.training, wrt
        if key not in self._made:
            graph = self._graph if self.training else inference(self._graph)
            self._made[key] = _Made(graph, wrt, self._threads)
        outputs = _Call.apply(self._made[key], lengths, *tensors.values())
        return dict(zip(self._graph.outputs, outputs, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # a copy compiles for itself

    def extra_repr(self) -> str:
        return f"{self._graph.name}: {', '.join(self._graph.inputs)} -> {', '.join(self._graph.outputs)}"

    def _check(self, unnamed: Sequence[Any], given: Mapping[str, Any]) -> None:
        graph = self._graph
        known = (*graph.inputs, *graph.axes)
        found = [
            f"{name} is a {type(given[name]).__name__}" if name in given else f"no {name}"
            for name in graph.inputs
            if not isinstance(given.get(name), torch.Tensor)
        ]
        found = ["one was given without its name"] if unnamed else found
        if found:
            names = ", ".join(f"{name}=…" for name in graph.inputs)
            raise ArgumentError(f"a module of graph {graph.name!r} takes tensors by name, ({names}); {found[0]}")
        for name in given:
            if name not in known:
                close = meant(name, known)
                raise ArgumentError(
                    f"graph {graph.name!r} has no input or axis {name!r}{close}; it has {listed(known)}"
                )
        for name in graph.params:
            _check_param(name, getattr(self, name), graph)


class _Made:
    """A graph compiled for gradients by the tensors `wrt`: one function without any, else two."""

    def __init__(self, graph: Graph, wrt: Sequence[str], threads: int | None) -> None:
        self.names = (*graph.inputs, *graph.params)
        self.declared = {**graph.inputs, **{name: param.node for name, param in graph.params.items()}}
        self.outputs = tuple(graph.outputs)
        self.updated = frozenset(graph.updates)
        self.wrt = tuple(wrt)
        if not wrt:
            self.forward = _Function(compile(graph, threads=threads))
            return
        made = passes(graph, wrt)
        self.residuals, self.differentiable = made.residuals, made.outputs
        self.forward = _Function(compile(made.forward, threads=threads))
        self.backward = _Function(compile(made.backward, threads=threads))
        changed = self.updated & self.backward.names
        if changed:
            raise UnsupportedError(
                f"the gradients of graph {graph.name!r} read {listed(sorted(changed))}, which its forward pass "
                "updates; give the value by an input"
            )

    def lengths(self, tensors: Mapping[str, torch.Tensor], given: Mapping[str, int]) -> dict[str, int]:
        """Those of all axes that the call shows."""
        shown = chain.from_iterable(zip(self.declared[n].axes, t.shape, strict=False) for n, t in tensors.items())
        return {**{axis.name: extent for axis, extent in shown}, **given}


class _Function:
    """A compiled graph that takes of arrays and lengths what it has a use for."""

    def __init__(self, compiled: Compiled) -> None:
        graph = compiled.stages.graph
        self.compiled = compiled
        self.names = frozenset((*graph.inputs, *graph.params))
        self.axes = frozenset(graph.axes)

    def __call__(self, arrays: Mapping[str, np.ndarray], lengths: Mapping[str, int]) -> Mapping[str, np.ndarray]:
        known = {name: length for name, length in lengths.items() if name in self.axes}
        return self.compiled(**{name: array for name, array in arrays.items() if name in self.names}, **known)


class _Call(torch.autograd.Function):
    """A call, for PyTorch's record of what gradients go through."""

    @staticmethod
    def forward(ctx: Any, made: _Made, given: Mapping[str, int], *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = dict(zip(made.names, values, strict=True))
        arrays = {name: _array(name, tensor, made.declared[name]) for name, tensor in tensors.items()}
        lengths = made.lengths(tensors, given)
        found = made.forward(arrays, lengths)
        results = _apart(found)
        for name in made.updated:  # in the memory of the tensor: PyTorch is told, which did not see it
            torch.autograd.graph.increment_version(tensors[name])
        if made.wrt:
            ctx.made, ctx.lengths = made, lengths
            ctx.kept = [name for name in made.names if name in made.backward.names]
            ctx.save_for_backward(*(tensors[n] for n in ctx.kept), *(results[n] for n in made.residuals))
            ctx.mark_non_differentiable(*(results[n] for n in made.outputs if n not in made.differentiable))
        return tuple(results[name] for name in made.outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # with create_graph=True
            raise UnsupportedError(
                "gradients of gradients do not go through a graphc.torch.Module; "
                "make a module of the graph that has the gradient as an output (gc.grad, gc.vjp)"
            )
        made: _Made = ctx.made
        names = (*ctx.kept, *made.residuals)
        arrays = {name: _plain(tensor) for name, tensor in zip(names, ctx.saved_tensors, strict=True)}
        declared = made.backward.compiled.stages.graph.inputs
        for output, tensor in zip(made.outputs, cotangents, strict=True):
            name = f"cotangent_{output}"
            if name in declared:
                arrays[name] = _plain(tensor).astype(declared[name].dtype, copy=False)
        found = made.backward(arrays, ctx.lengths)
        dtypes = {name: made.declared[name].dtype for name in made.wrt}
        grads = _apart({name: found[f"grad_{name}"].astype(dtype, copy=False) for name, dtype in dtypes.items()})
        return (None, None, *(grads.get(name) for name in made.names))


def _array(name: str, tensor: torch.Tensor, declared: Node) -> np.ndarray:
    """A tensor's memory as an array."""
    if tensor.device.type != "cpu":
        raise ArgumentError(f"{name} is a tensor on {tensor.device}; the module computes on the CPU: pass {name}.cpu()")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype != declared.dtype:
        cast = f"{name}.to(torch.{declared.dtype})"
        raise ArgumentError(f"{name} is a tensor of {dtype}, expected {declared.dtype}; pass {cast}")
    return _plain(tensor)


def _check_param(name: str, tensor: torch.Tensor, graph: Graph) -> None:
    """Check that the module was not moved or cast as a whole: its code is the graph's."""
    declared = graph.params[name].node.dtype
    if tensor.dtype is not getattr(torch, declared) or tensor.device.type != "cpu":
        found = f"{tensor.dtype} on {tensor.device}".removeprefix("torch.")
        raise ArgumentError(
            f"param {name} of the module is {found}, but graph {graph.name!r} computes with {declared} on the CPU; "
            f"keep the module there, and declare other dtypes in the graph: gc.Graph(…, dtype=…)"
        )


def _plain(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype is torch.bfloat16:  # which numpy has from another package
        return np.asarray(tensor.view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def _apart(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors, each with memory of its own: equal results of a call are one array, and tensors are changed in place."""
    seen: set[int] = set()
    made = {}
    for name, array in arrays.items():
        made[name] = _tensor(array.copy() if id(array) in seen else array)
        seen.add(id(array))
    return made


def _tensor(array: np.ndarray) -> torch.Tensor:
    """An array's memory as a tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
