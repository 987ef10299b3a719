"""A graph as a module of PyTorch: its equations run compiled, forward and backward, in the middle of any other model.

In: a graph. Out: a `torch.nn.Module` whose parameters are the graph's params. It computes where these lie, on the CPU
or on a GPU (`graphc.torch.tensors`), by calls that PyTorch can differentiate (`graphc.torch.call`).

This module alone needs PyTorch: `pip install 'graphc-compiler[torch]'`, or any build of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from graphc.checks.verify import verify
from graphc.codegen.target import Precision
from graphc.errors import ArgumentError, UnsupportedError, listed, meant
from graphc.ir import FLOATING, FLOATS, Node
from graphc.language.graph import Graph
from graphc.torch.call import Made, made_of, plain, tracked
from graphc.torch.tensors import place_on, tensor_of
from graphc.training.initialize import initialize
from graphc.transforms.inference import inference
from graphc.transforms.select import without_unused

__all__ = ["Module"]


class Module(torch.nn.Module):
    """`graphc.torch.Module(g)(x=x)["h"]`: the outputs of a graph by name, as tensors that have gradients.

    Its parameters have the names of the graph's params and begin as `gc.initialize(graph, seed)` has them (None: with a
    seed that PyTorch's generator draws, so `torch.manual_seed` decides); params that are not trainable are buffers.
    Inputs are given by name, as tensors of the declared dtypes and shapes that lie where the module does, one element
    also as a number; so is the length of an axis that none of them shows. After `eval()` the module computes
    `gc.inference(graph)`, the graph as it is once training is over, and needs none of the inputs that only training
    reads.

    The module computes on the CPU, on at most so many `threads` (None: those that PyTorch has), or after `to("cuda")`
    on the first GPU, in PyTorch's current stream; `precision` is as in `gc.compile`. The graph is compiled when
    it is first called, once for each device and each set of tensors that require gradients, for training and for
    evaluation; modules of equal graphs share that code. Gradients of any order go through it (`create_graph=True`): the
    gradient is a graph, too, which is compiled when it is asked for, and computes the forward pass once more. Forward
    mode and `torch.func` go through it as well; `vmap` calls the module once for each element. Dtypes are the graph's:
    a module is not cast (`double()`), and under autocast its inputs are cast to them; whole numbers that fit are cast
    to int32.

    Raises `ArgumentError` for tensors that do not fit the graph, and `UnsupportedError` for a graph that trains itself.
    """

    def __init__(
        self, graph: Graph, seed: int | None = None, threads: int | None = None, precision: Precision = "float32"
    ) -> None:
        super().__init__()
        verify(graph)
        trained = [name for name in graph.updates if name in graph.inputs or graph.params[name].trainable]
        if trained:
            raise UnsupportedError(
                f"graph {graph.name!r} updates {trained[0]} itself, which is an optimiser's to do here; "
                "make the module of the graph that describes the network, and train it with torch.optim"
            )
        self._graph, self._threads, self._precision = graph.copy(), threads, precision
        self._evaluated = without_unused(inference(graph))
        self._made = _Compiled()
        for name, tensor in self._drawn(seed).items():
            if hasattr(self, name):
                raise UnsupportedError(
                    f"param {name!r} of graph {graph.name!r} is called as what every torch.nn.Module has; rename it"
                )
            if graph.params[name].trainable:
                self.register_parameter(name, torch.nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)

    @torch.no_grad()
    def reset_parameters(self, seed: int | None = None) -> None:
        """Let params and buffers begin again, from new draws, as those of PyTorch's layers do."""
        for name, tensor in self._drawn(seed).items():
            own = self._parameters.get(name, self._buffers.get(name))
            if own is None:  # it is computed: torch.nn.utils.parametrize makes it of others
                setattr(self, name, tensor)
            else:
                own.copy_(tensor)

    def _drawn(self, seed: int | None) -> dict[str, torch.Tensor]:
        drawn = int(torch.randint(1 << 31, (), device="cpu")) if seed is None else seed
        device = torch.get_default_device()
        return {name: tensor_of(array).to(device) for name, array in initialize(self._graph, seed=drawn).items()}

    @torch.compiler.disable  # what is compiled already is not to be traced
    def forward(self, *unnamed: Any, **given: Any) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        if torch.jit.is_tracing():
            raise UnsupportedError(
                "torch.jit sees nothing of what a graphc.torch.Module computes; gc.export ships a graph"
            )
        graph = self._graph if self.training else self._evaluated
        self._check_names(graph, unnamed, given)
        params = {name: getattr(self, name) for name in graph.params}
        device = _device(params, given)
        tensors = {name: _as_declared(name, given[name], node, device) for name, node in graph.inputs.items()} | params
        for name in params:
            _check_param(name, tensors[name], graph, device)
        for name, declared in graph.inputs.items():
            _check_tensor(name, tensors[name], declared, device)
        lengths = {name: length for name, length in given.items() if name in self._graph.axes}
        wrt = tracked(tensors)
        key = device, self.training, wrt
        if key not in self._made:
            self._made[key] = made_of(graph, wrt, device, place_on(device, self._threads, self._precision))
        return self._made[key](tensors, lengths)

    def extra_repr(self) -> str:
        return f"{self._graph.name}: {', '.join(self._graph.inputs)} -> {', '.join(self._graph.outputs)}"

    def _check_names(self, graph: Graph, unnamed: Sequence[Any], given: Mapping[str, Any]) -> None:
        known = (*self._graph.inputs, *self._graph.axes)
        found = [
            _found(name, given)
            for name, node in graph.inputs.items()
            if not isinstance(given.get(name), torch.Tensor) and not _is_number(given.get(name), node)
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


class _Compiled(dict[tuple[torch.device, bool, tuple[str, ...]], Made]):
    """What a module has compiled. It is code in this process, so copies of it, and what is pickled, are empty."""

    def __reduce__(self) -> tuple[type[_Compiled], tuple[()]]:
        return _Compiled, ()


def _found(name: str, given: Mapping[str, Any]) -> str:
    """What stands where a tensor was expected."""
    if name not in given:
        return f"no {name}"
    padded = "; pass it padded, and lengths to an axis that has them: g.axis('t', lengths)"
    return f"{name} is of type {type(given[name]).__name__}{padded if isinstance(given[name], PackedSequence) else ''}"


def _is_number(value: Any, node: Node) -> bool:
    """Whether a number of Python stands for a tensor of one element."""
    whole = isinstance(value, bool if node.dtype == "bool" else int)
    return not node.axes and not node.shape and (whole or (node.dtype in FLOATING and isinstance(value, float)))


def _device(params: Mapping[str, torch.Tensor], given: Mapping[str, Any]) -> torch.device:
    """Where the module is: where its params lie, or inputs if it has none."""
    tensors = [*params.values(), *(value for value in given.values() if isinstance(value, torch.Tensor))]
    return tensors[0].device if tensors else torch.get_default_device()


def _as_declared(name: str, given: Any, node: Node, device: torch.device) -> torch.Tensor:
    """What is given as a tensor, of the declared precision where autocast has chosen that of others, and as int32 where
    it has whole numbers of other sizes."""
    if not isinstance(given, torch.Tensor):
        floating = getattr(torch, node.dtype) if node.dtype in FLOATING else None
        given = torch.tensor(given, dtype=floating, device=device)
    if node.dtype in FLOATS and given.is_floating_point() and _is_autocast(given.device.type):
        return given.to(getattr(torch, node.dtype))
    if node.dtype == "int32" and given.dtype in _WHOLE:
        _check_fits(name, given)
        return given.to(torch.int32)
    return given


_WHOLE = {torch.int64, torch.int16, torch.int8, torch.uint8}
"""Whole numbers that PyTorch computes with, beside int32: those of its indices, labels and lengths are int64."""


def _check_fits(name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype is not torch.int64 or not tensor.numel() or tensor.device.type == "meta":
        return
    tensor = plain(tensor)
    limits = torch.iinfo(torch.int32)
    for value in map(int, tensor.aminmax()):
        if not limits.min <= value <= limits.max:
            raise ArgumentError(f"{name} holds {value}, which is no int32: those are {limits.min} to {limits.max}")


def _is_autocast(device: str) -> bool:
    return bool(torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))


def _check_tensor(name: str, tensor: torch.Tensor, declared: Node, device: torch.device) -> None:
    """Check that a tensor has the declared dtype, and lies where the module does."""
    if tensor.device != device:
        raise ArgumentError(
            f"{name} is a tensor on {tensor.device}, but the module is on {device}; pass {name}.to({str(device)!r}) or "
            f"move the module, to({str(tensor.device)!r})"
        )
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype != declared.dtype:
        cast = f"{name}.to(torch.{declared.dtype})"
        raise ArgumentError(f"{name} is a tensor of {dtype}, expected {declared.dtype}; pass {cast}")


def _check_param(name: str, tensor: torch.Tensor, graph: Graph, device: torch.device) -> None:
    """Check that the module was not cast as a whole, since its code is the graph's, nor moved in part."""
    declared = graph.params[name].node.dtype
    if tensor.dtype is not getattr(torch, declared):
        found = str(tensor.dtype).removeprefix("torch.")
        raise ArgumentError(
            f"param {name} of the module is {found}, but graph {graph.name!r} computes with {declared}; do not cast "
            "the module, and declare other dtypes in the graph: gc.Graph(…, dtype=…)"
        )
    if tensor.device != device:
        raise ArgumentError(f"param {name} of the module is on {tensor.device}, others on {device}; move it as a whole")
