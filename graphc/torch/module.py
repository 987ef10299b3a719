"""A graph as a module of PyTorch: its equations run compiled, forward and backward, in the middle of any other model.

In: a graph. Out: a `torch.nn.Module` whose parameters are the graph's params. Between the passes PyTorch keeps what the
backward pass needs (`graphc.transforms.two_passes`); a backward pass that is to be differentiated itself is a call of
the derivative's graph. The module computes where its parameters lie, on the CPU or on a GPU, in the memory of tensors
(`graphc.torch.tensors`).

This module alone needs PyTorch: `pip install 'graphc-compiler[torch]'`, or any build of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import torch

from graphc.checks.verify import verify
from graphc.codegen.target import Precision
from graphc.errors import ArgumentError, UnsupportedError, listed, meant
from graphc.ir import FLOATS, Node
from graphc.language.graph import Graph
from graphc.torch.tensors import Place, place_on, tensor_of
from graphc.training.initialize import initialize
from graphc.transforms.inference import inference
from graphc.transforms.two_passes import two_passes

__all__ = ["Module"]

_OUTSIDE = (
    "do not go through a graphc.torch.Module; make a module of the graph that has the derivative as an output "
    "(gc.grad, gc.vjp, gc.jvp)"
)


class Module(torch.nn.Module):
    """`graphc.torch.Module(g)(x=x)["h"]`: the outputs of a graph by name, as tensors that have gradients.

    Its parameters have the names of the graph's params and begin as `gc.initialize(graph, seed)` has them (None: with a
    seed that PyTorch's generator draws, so `torch.manual_seed` decides); params that are not trainable are buffers.
    Inputs are given by name, as tensors of the declared dtypes and shapes that lie where the module does; so is the
    length of an axis that none of them shows, as a number. After `eval()` the module computes `gc.inference(graph)`,
    the graph as it is once training is over.

    The module computes on the CPU, on at most so many `threads` (None: those that PyTorch has), or after `to("cuda")`
    on the first GPU, in PyTorch's current stream; `precision` is as in `gc.compile`. The graph is compiled when
    it is first called, once for each device and each set of tensors that require gradients, for training and for
    evaluation; modules of equal graphs share that code. Gradients of any order go through it (`create_graph=True`): the
    gradient is a graph, too, which is compiled when it is asked for, and computes the forward pass once more. Dtypes
    are the graph's: a module is not cast (`double()`), and under autocast its inputs are cast to them; whole numbers
    that fit are cast to int32. Raises `ArgumentError` for tensors that do not fit the graph, and `UnsupportedError` for
    a graph that trains itself.
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
        self._made = _Compiled()
        drawn = int(torch.randint(1 << 31, (), device="cpu")) if seed is None else seed
        for name, array in initialize(graph, seed=drawn).items():
            if hasattr(self, name):
                raise UnsupportedError(
                    f"param {name!r} of graph {graph.name!r} is called as what every torch.nn.Module has; rename it"
                )
            if graph.params[name].trainable:
                self.register_parameter(name, torch.nn.Parameter(tensor_of(array)))
            else:
                self.register_buffer(name, tensor_of(array))

    @torch.compiler.disable  # what is compiled already is not to be traced
    def forward(self, *unnamed: Any, **given: Any) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        self._check_names(unnamed, given)
        if torch._C._are_functorch_transforms_active():
            raise UnsupportedError(
                f"grad, vmap, jvp and the like of torch.func {_OUTSIDE}; vmap's is a further axis of it"
            )
        if torch.jit.is_tracing():
            raise UnsupportedError(
                "torch.jit sees nothing of what a graphc.torch.Module computes; gc.export ships a graph"
            )
        given = _as_declared(given, self._graph)
        tensors: dict[str, torch.Tensor] = {name: given[name] for name in self._graph.inputs}
        tensors |= {name: getattr(self, name) for name in self._graph.params}
        device = self._device(tensors)
        lengths = {name: length for name, length in given.items() if name not in self._graph.inputs}
        wanted = torch.is_grad_enabled()
        wrt = tuple(name for name, tensor in tensors.items() if wanted and tensor.requires_grad)
        key = device, self.training, wrt
        if key not in self._made:
            self._made[key] = self._make(device, wrt)
        outputs = _Call.apply(self._made[key], lengths, *tensors.values())
        return dict(zip(self._graph.outputs, outputs, strict=True))

    def _make(self, device: torch.device, wrt: tuple[str, ...]) -> _Made:
        graph = self._graph if self.training else inference(self._graph)
        return _made_of(graph, wrt, device, place_on(device, self._threads, self._precision))

    def extra_repr(self) -> str:
        return f"{self._graph.name}: {', '.join(self._graph.inputs)} -> {', '.join(self._graph.outputs)}"

    def _check_names(self, unnamed: Sequence[Any], given: Mapping[str, Any]) -> None:
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

    def _device(self, tensors: Mapping[str, torch.Tensor]) -> torch.device:
        """Where the module is: where its params and the inputs lie."""
        graph = self._graph
        first = next(chain(graph.params, graph.inputs), None)
        device = torch.device("cpu") if first is None else tensors[first].device
        for name in graph.params:
            _check_param(name, tensors[name], graph, device)
        for name, declared in graph.inputs.items():
            _check_tensor(name, tensors[name], declared, device)
        return device


class _Made:
    """A graph compiled for gradients by the tensors `wrt`: one function without any, else two. Its derivative is made
    when that is differentiated itself."""

    def __init__(self, graph: Graph, wrt: Sequence[str], device: torch.device, place: Place) -> None:
        self.name, self.names = graph.name, (*graph.inputs, *graph.params)
        declared = _declared(graph)
        self.dtypes: dict[str, torch.dtype] = {name: getattr(torch, node.dtype) for name, node in declared.items()}
        self.axes = {name: [axis.name for axis in node.axes] for name, node in declared.items() if node.axes}
        self.outputs = tuple(graph.outputs)
        self.updated = frozenset(graph.updates)
        self.wrt = tuple(wrt)
        if not wrt:
            self.forward = _Function(graph, place)
            return
        made = two_passes(graph, wrt)
        self._check_unchanged(_declared(made.backward))
        self.residuals, self.cotangents = made.residuals, made.cotangents
        self.forward = _Function(made.forward, place)
        self.backward = _Function(made.backward, place)
        self.derivative, self._where = made.derivative, (device, place)
        read = {*self.backward.declared, *_declared(self.derivative)} - self.updated
        self.kept = [name for name in self.names if name in read]
        self._again: dict[tuple[str, ...], _Made] = {}

    def lengths(self, tensors: Mapping[str, torch.Tensor], given: Mapping[str, int]) -> dict[str, int]:
        """Those of all axes that the call shows."""
        shown = chain.from_iterable(zip(axes, tensors[name].shape, strict=False) for name, axes in self.axes.items())
        return {**dict(shown), **given}

    def again(self, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """What the backward pass gives, as a call of the derivative, through which gradients go."""
        self._check_unchanged(_declared(self.derivative))
        wrt = tuple(name for name in _declared(self.derivative) if tensors[name].requires_grad)
        if wrt not in self._again:
            self._again[wrt] = _made_of(self.derivative, wrt, *self._where)
        made = self._again[wrt]
        return dict(zip(made.outputs, _Call.apply(made, lengths, *(tensors[n] for n in made.names)), strict=True))

    def _check_unchanged(self, read: Iterable[str]) -> None:
        changed = sorted(self.updated.intersection(read))
        if changed:
            raise UnsupportedError(
                f"the gradients of graph {self.name!r} read {listed(changed)}, which its forward pass updates; "
                "give the value by an input"
            )


def _declared(graph: Graph) -> dict[str, Node]:
    return {**graph.inputs, **{name: param.node for name, param in graph.params.items()}}


class _Compiled(dict[tuple[torch.device, bool, tuple[str, ...]], _Made]):
    """What a module has compiled. It is code in this process, so copies of it, and what is pickled, are empty."""

    def __reduce__(self) -> tuple[type[_Compiled], tuple[()]]:
        return _Compiled, ()


_shared: WeakValueDictionary[tuple[Graph, tuple[str, ...], torch.device, Place], _Made] = WeakValueDictionary()


def _made_of(graph: Graph, wrt: tuple[str, ...], device: torch.device, place: Place) -> _Made:
    """The code that some module has already, or that is made now."""
    made = _shared.get((graph, wrt, device, place))
    if made is None:
        _shared[graph, wrt, device, place] = made = _Made(graph, wrt, device, place)
    return made


class _Function:
    """A compiled graph that takes of tensors and lengths what it has a use for."""

    def __init__(self, graph: Graph, place: Place) -> None:
        self.place, self.compiled = place, place.compile(graph)
        self.declared = _declared(graph)
        self.axes = frozenset(graph.axes)

    def __call__(self, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]) -> dict[str, torch.Tensor]:
        given = {name: tensor for name, tensor in tensors.items() if name in self.declared}
        known = {name: length for name, length in lengths.items() if name in self.axes}
        return self.place.run(self.compiled, given, known)


class _Call(torch.autograd.Function):
    """A call, for PyTorch's record of what gradients go through."""

    @staticmethod
    def forward(ctx: Any, made: _Made, given: Mapping[str, int], *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = dict(zip(made.names, values, strict=True))
        lengths = made.lengths(tensors, given)
        results = made.forward(tensors, lengths)
        for name in made.updated:  # in the memory of the tensor: PyTorch is told, which did not see it
            torch.autograd.graph.increment_version(tensors[name])
        if made.wrt:
            ctx.made, ctx.lengths = made, lengths
            ctx.save_for_backward(*(tensors[n] for n in made.kept), *(results[n] for n in made.residuals))
            ctx.mark_non_differentiable(*(results[n] for n in made.outputs if n not in made.cotangents))
        return tuple(results[name] for name in made.outputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> NoReturn:
        raise UnsupportedError(f"forward-mode derivatives {_OUTSIDE}")

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        made: _Made = ctx.made
        tensors = dict(zip((*made.kept, *made.residuals), ctx.saved_tensors, strict=True))
        for output, cotangent in zip(made.outputs, cotangents, strict=True):
            declared = made.derivative.inputs.get(made.cotangents.get(output, ""))
            if declared is not None:
                tensors[declared["name"]] = _cast(cotangent, getattr(torch, declared.dtype))
        wanted = torch.is_grad_enabled()  # with create_graph=True
        found = (made.again if wanted else made.backward)(tensors, ctx.lengths)
        grads = {name: _cast(found[f"grad_{name}"], made.dtypes[name]) for name in made.wrt}
        return (None, None, *(grads.get(name) for name in made.names))


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)


def _as_declared(given: Mapping[str, Any], graph: Graph) -> dict[str, Any]:
    """What is given, with numbers of the declared precision where autocast has chosen that of others, and with whole
    numbers of other sizes as int32."""
    found = dict(given)
    for name, node in graph.inputs.items():
        tensor: torch.Tensor = given[name]
        if node.dtype in FLOATS and tensor.is_floating_point() and _is_autocast(tensor.device.type):
            found[name] = tensor.to(getattr(torch, node.dtype))
        elif node.dtype == "int32" and tensor.dtype in _WHOLE:
            _check_fits(name, tensor)
            found[name] = tensor.to(torch.int32)
    return found


_WHOLE = {torch.int64, torch.int16, torch.int8, torch.uint8}
"""Whole numbers that PyTorch computes with, beside int32: those of its indices, labels and lengths are int64."""


def _check_fits(name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype is not torch.int64 or not tensor.numel() or tensor.device.type == "meta":
        return
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
            f"{name} is a tensor on {tensor.device}, but the module is on {device}; pass {name}.to({str(device)!r})"
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
