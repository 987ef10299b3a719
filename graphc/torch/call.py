"""call: a compiled graph as a function that PyTorch differentiates, and takes through the transforms of `torch.func`.

In: a graph, what to differentiate by, and where to compute. Out: a function of tensors. Between its passes PyTorch
keeps what the backward pass needs (`graphc.transforms.two_passes`). A backward pass that is to be differentiated itself
is a call of the derivative's graph, and so on for any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch.autograd import forward_ad

from graphc.errors import UnsupportedError, listed
from graphc.language.graph import Graph, declared_arrays
from graphc.torch.tensors import Place
from graphc.transforms.two_passes import Passes, two_passes

__all__ = ["Made", "made_of", "plain", "tracked"]


class Made:
    """A graph compiled for gradients by the tensors `wrt`: one function without any, else two. Its derivative is made
    when that is differentiated itself."""

    def __init__(self, graph: Graph, wrt: Sequence[str], device: torch.device, place: Place) -> None:
        self.name, self.names = graph.name, (*graph.inputs, *graph.params)
        declared = declared_arrays(graph)
        self.dtypes: dict[str, torch.dtype] = {name: getattr(torch, node.dtype) for name, node in declared.items()}
        self.axes = {name: [axis.name for axis in node.axes] for name, node in declared.items() if node.axes}
        self.outputs = tuple(graph.outputs)
        self.updated = frozenset(graph.updates)
        self.wrt, self.results = tuple(wrt), self.outputs
        self.residuals: tuple[str, ...] = ()
        self.kept: tuple[str, ...] = ()
        self.cotangents: Mapping[str, str] = {}
        if not wrt:
            self.forward = _Function(graph, place)
            return
        made = two_passes(graph, wrt)
        self._check_unchanged(declared_arrays(made.backward))
        self.residuals, self.cotangents = made.residuals, made.cotangents
        self.results = tuple(dict.fromkeys((*self.outputs, *self.residuals)))
        self.forward = _Function(made.forward, place)
        self.backward = _Function(made.backward, place)
        self.derivative, self._where = made.derivative, (device, place)
        read = {*self.backward.declared, *declared_arrays(self.derivative)} - self.updated
        self.kept = tuple(name for name in self.names if name in read)
        self._again: dict[tuple[bool, tuple[str, ...]], Made] = {}

    def __call__(self, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        values = [tensors[name] for name in self.names]
        transformed = torch._C._are_functorch_transforms_active()
        if not self.wrt and not (transformed and any(map(is_wrapped, values))):
            found = self.run(lengths, values)
        else:
            found = (_Call if transformed else _PlainCall).apply(self, lengths, *values)
        return dict(zip(self.outputs, found, strict=False))

    def run(self, given: Mapping[str, int], values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The outputs, then the residuals."""
        tensors = dict(zip(self.names, values, strict=True))
        results = self.forward(tensors, self.lengths(tensors, given))
        for name in self.updated:  # in the memory of the tensor: PyTorch is told, which did not see it
            torch.autograd.graph.increment_version(tensors[name])
        return tuple(results[name] for name in self.results)

    def lengths(self, tensors: Mapping[str, torch.Tensor], given: Mapping[str, int]) -> dict[str, int]:
        """Those of all axes that the call shows."""
        shown = chain.from_iterable(zip(axes, tensors[name].shape, strict=False) for name, axes in self.axes.items())
        return {**dict(shown), **given}

    def again(self, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """What the backward pass gives, as a call of the derivative, through which gradients go."""
        self._check_unchanged(declared_arrays(self.derivative))
        return self._called(self.derivative, tensors, lengths)

    @cached_property
    def _transposed(self) -> Passes:
        """The derivative is linear in cotangents, and its own derivative by them is the Jacobian times what then are
        its cotangents: tangents of the graph's inputs and params."""
        return two_passes(self.derivative, list(self.cotangents.values()))

    def pushed(
        self,
        tensors: Mapping[str, torch.Tensor],
        tangents: Mapping[str, torch.Tensor | None],
        lengths: Mapping[str, int],
    ) -> dict[str, torch.Tensor]:
        """How outputs change where inputs and params move so."""
        graph = self._transposed.derivative
        given = dict(tensors)
        for name in self.wrt:
            declared = graph.inputs.get(self._transposed.cotangents[f"grad_{name}"])
            if declared is not None:
                tangent = tangents[name]
                moved = torch.zeros_like(tensors[name]) if tangent is None else tangent
                given[declared["name"]] = _cast(moved, getattr(torch, declared.dtype))
        self._check_unchanged(declared_arrays(graph))
        return self._called(graph, given, lengths)

    def _called(
        self, graph: Graph, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        """What a derivative of the graph gives, so that gradients go through that, too."""
        wrt = tracked({name: tensors[name] for name in declared_arrays(graph)})
        key = graph is self.derivative, wrt
        if key not in self._again:
            self._again[key] = made_of(graph, wrt, *self._where)
        return self._again[key](tensors, lengths)

    def _check_unchanged(self, read: Iterable[str]) -> None:
        changed = sorted(self.updated.intersection(read))
        if changed:
            raise UnsupportedError(
                f"the gradients of graph {self.name!r} read {listed(changed)}, which its forward pass updates; "
                "give the value by an input"
            )


_shared: WeakValueDictionary[tuple[Graph, tuple[str, ...], torch.device, Place], Made] = WeakValueDictionary()


def made_of(graph: Graph, wrt: tuple[str, ...], device: torch.device, place: Place) -> Made:
    """The code that some module has already, or that is made now."""
    made = _shared.get((graph, wrt, device, place))
    if made is None:
        _shared[graph, wrt, device, place] = made = Made(graph, wrt, device, place)
    return made


class _Function:
    """A compiled graph that takes of tensors and lengths what it has a use for."""

    def __init__(self, graph: Graph, place: Place) -> None:
        self.place, self.compiled = place, place.compile(graph)
        self.declared = declared_arrays(graph)
        self.axes = frozenset(graph.axes)

    def __call__(self, tensors: Mapping[str, torch.Tensor], lengths: Mapping[str, int]) -> dict[str, torch.Tensor]:
        given = {name: tensor for name, tensor in tensors.items() if name in self.declared}
        known = {name: length for name, length in lengths.items() if name in self.axes}
        return self.place.run(self.compiled, given, known)


class _Call(torch.autograd.Function):
    """A call, for PyTorch's record of what gradients and transforms go through."""

    @staticmethod
    def forward(made: Made, given: Mapping[str, int], *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return made.run(given, values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        made, given, *values = inputs
        tensors, results = (dict(zip(n, v, strict=True)) for n, v in ((made.names, values), (made.results, output)))
        ctx.set_materialize_grads(False)  # residuals have none
        ctx.mark_non_differentiable(*(results[name] for name in made.results if name not in made.cotangents))
        ctx.made, ctx.lengths = made, made.lengths(tensors, given)
        ctx.types = {
            made.cotangents[n]: (r.dtype, r.shape, r.device) for n, r in results.items() if n in made.cotangents
        }
        ctx.save_for_backward(*(tensors[name] for name in made.kept), *(results[name] for name in made.residuals))
        ctx.save_for_forward(*values)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], made: Made, given: Mapping[str, int], *values: torch.Tensor) -> Any:
        if made.updated or not info.batch_size:
            why = f"would update {listed(sorted(made.updated))} at each" if made.updated else "has none"
            raise UnsupportedError(f"vmap calls a graphc.torch.Module once for each element, and {why}")
        calls = []
        for k in range(info.batch_size):
            own = [v if d is None else v.select(d, k) for v, d in zip(values, in_dims[2:], strict=True)]
            calls.append(_Call.apply(made, given, *own))
        return tuple(torch.stack(results) for results in zip(*calls, strict=True)), (0,) * len(made.results)

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        made: Made = ctx.made
        tensors = dict(zip(made.names, ctx.saved_tensors, strict=True))
        moved = dict(zip(made.names, tangents[2:], strict=True))
        found = made.pushed(tensors, moved, ctx.lengths)
        names = (made.cotangents.get(output) for output in made.results)
        return tuple(None if name is None else _cast(found[f"grad_{name}"], ctx.types[name][0]) for name in names)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        made: Made = ctx.made
        tensors = dict(zip((*made.kept, *made.residuals), ctx.saved_tensors, strict=True))
        for output, cotangent in zip(made.results, cotangents, strict=True):
            declared = made.derivative.inputs.get(made.cotangents.get(output, ""))
            if declared is not None:
                name, dtype = declared["name"], getattr(torch, declared.dtype)
                _, shape, device = ctx.types[name]
                zeros = torch.zeros(shape, dtype=dtype, device=device) if cotangent is None else cotangent
                tensors[name] = _cast(zeros, dtype)
        wanted = torch.is_grad_enabled() or any(map(is_wrapped, tensors.values()))  # with create_graph=True; by vmap
        found = (made.again if wanted else made.backward)(tensors, ctx.lengths)
        grads = {name: _cast(found[f"grad_{name}"], made.dtypes[name]) for name in made.wrt}
        return (None, None, *(grads.get(name) for name in made.names))


class _PlainCall(torch.autograd.Function):
    """The same outside of transforms. PyTorch spares it what they need: a tenth of the time of a short call."""

    @staticmethod
    def forward(ctx: Any, made: Made, given: Mapping[str, int], *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = made.run(given, values)
        _Call.setup_context(ctx, (made, given, *values), results)
        return results

    jvp = staticmethod(_Call.jvp)
    backward = staticmethod(_Call.backward)


def is_wrapped(tensor: torch.Tensor) -> bool:
    """Whether a transform of torch.func goes through a tensor."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as no transform sees it: with all elements."""
    while is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def tracked(tensors: Mapping[str, torch.Tensor]) -> tuple[str, ...]:
    """Which tensors have gradients, in any of the transforms that go through them; in forward mode all may have
    tangents."""
    if forward_ad._current_level >= 0:
        return tuple(name for name, tensor in tensors.items() if tensor.is_floating_point())
    wanted = torch.is_grad_enabled()
    return tuple(name for name, tensor in tensors.items() if wanted and _is_tracked(tensor))


def _is_tracked(tensor: torch.Tensor) -> bool:
    while not tensor.requires_grad and is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return bool(tensor.requires_grad)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor if tensor.dtype is dtype else tensor.to(dtype)
