"""call: a compiled graph as a function that JAX differentiates.

In: a graph. Out: a function of arrays, with a rule for its gradients: between the passes JAX keeps what the backward
pass needs (`graphc.transforms.two_passes`). Both passes have rules of their own, by the graph of the derivative, so
gradients of gradients go through them, to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from graphc.checks.index_checks import index_checks
from graphc.ir import FLOATING, Node
from graphc.jax.custom_call import CustomCall
from graphc.jax.meshes import varying, varying_alike, whole
from graphc.jax.places import Code, Settings
from graphc.language.graph import Graph, declared_arrays
from graphc.recent import Recent
from graphc.transforms.two_passes import two_passes

__all__ = ["Differentiable", "differentiable"]

Lengths = tuple[tuple[str, int], ...]  # of axes, by name
Arrays = dict[str, jax.Array]
Primals = Mapping[str, Any]  # values, and whether a gradient is asked for by them
Cotangents = Mapping[str, Any]  # arrays and symbolic zeros
Grads = dict[str, jax.Array | None]

_shared: Recent[Differentiable] = Recent(256)


def differentiable(graph: Graph, settings: Settings) -> Differentiable:
    """A graph's function; equal graphs share theirs."""
    return _shared.get_or_make((graph, settings), lambda: Differentiable(graph, settings))


class Differentiable:
    """A graph's outputs as a function of arrays, both by name."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self.graph, self.settings = graph, settings
        self._passes: dict[tuple[str, ...], _Passes] = {}
        call = jax.custom_vjp(_Call(graph, settings), nondiff_argnums=(0,))
        call.defvjp(self._forward, self._backward, symbolic_zeros=True)
        self._call = jax.jit(call, static_argnums=0)  # outside of it `shard_map` takes no symbolic zeros

    def __call__(self, lengths: Lengths, arrays: Arrays) -> Arrays:
        """The outputs. `arrays` may be more than the graph declares."""
        taken = varying_alike({name: whole(arrays[name]) for name in declared_arrays(self.graph)})
        return cast(Arrays, self._call(lengths, taken))

    def passes(self, wrt: tuple[str, ...]) -> _Passes:
        """The two passes for gradients by these names."""
        if wrt not in self._passes:
            self._passes[wrt] = _Passes(self, wrt)
        return self._passes[wrt]

    def _forward(self, lengths: Lengths, given: Primals) -> tuple[Arrays, _Kept]:
        arrays, wrt = _values(given), _moved(given)
        passes = self.passes(wrt)
        outputs, residuals = passes.forward(lengths, arrays, {})
        kept = {name: array for name, array in arrays.items() if name in passes.read or name in wrt}
        return outputs, _Kept(wrt, kept, residuals)

    def _backward(self, lengths: Lengths, kept: _Kept, cotangents: Cotangents) -> tuple[Grads]:
        passes = self.passes(kept.wrt)
        given = varying_alike({**kept.arrays, **passes.materialized(cotangents)})
        grads, _ = passes.backward(lengths, {name: given[name] for name in passes.read}, kept.residuals)
        return (self._grads(grads, kept),)

    def again(self, lengths: Lengths, kept: _Kept, cotangents: Cotangents) -> Grads:
        """What the backward pass gives, from no residuals, and by a call that can itself be differentiated."""
        passes = self.passes(kept.wrt)
        grads = passes.derivative(lengths, {**kept.arrays, **passes.materialized(cotangents)})
        return self._grads(grads, kept)

    def _grads(self, grads: Arrays, kept: _Kept) -> Grads:
        """Gradients by the names of what they are for, in their dtypes; None where none was asked for."""
        grads = varying_alike({**kept.arrays, **grads})
        found = {name: grads[f"grad_{name}"].astype(kept.arrays[name].dtype) for name in kept.wrt}
        return {name: found.get(name) for name in declared_arrays(self.graph)}


class _Passes:
    """The forward pass, which gives outputs and residuals, and the backward pass, which takes the residuals. `read`:
    what else that takes, or the derivative's graph does."""

    def __init__(self, whole: Differentiable, wrt: tuple[str, ...]) -> None:
        made = two_passes(whole.graph, wrt)
        first, second = _Call(made.forward, whole.settings), _Call(made.backward, whole.settings)
        self._made, self._settings = made, whole.settings
        self.read = {*second.declared, *declared_arrays(made.derivative)}.difference(made.residuals)
        awaited = () if made.residuals else _awaited(whole.graph)

        def forward(lengths: Lengths, arrays: Arrays, _: Arrays) -> tuple[Arrays, Arrays]:
            found = first(lengths, arrays)
            kept = (*made.residuals, *awaited)
            return {name: found[name] for name in whole.graph.outputs}, {name: found[name] for name in kept}

        def backward(lengths: Lengths, arrays: Arrays, residuals: Arrays) -> tuple[Arrays, Arrays]:
            before = {name: residuals[name] for name in awaited}
            return second.after(before, lengths, {**residuals, **arrays}), {}

        self.forward = _by_derivative(forward, lambda: whole)
        self.backward = _by_derivative(backward, lambda: self.derivative)

    @cached_property
    def derivative(self) -> Differentiable:
        return Differentiable(self._made.derivative, self._settings)

    def materialized(self, cotangents: Cotangents) -> Arrays:
        """Cotangents of outputs by the names that the passes have for them, in the dtypes that they take."""
        found = {}
        for output, name in self._made.cotangents.items():
            if name in self.read:
                given, dtype = cotangents[output], self._made.derivative.inputs[name].dtype
                is_zero = isinstance(given, SymbolicZero)
                found[name] = jnp.zeros(given.shape, dtype) if is_zero else given.astype(dtype)
        return found


@partial(jax.tree_util.register_dataclass, data_fields=("arrays", "residuals"), meta_fields=("wrt",))
@dataclass(frozen=True)
class _Kept:
    """What is kept for a backward pass."""

    wrt: tuple[str, ...]
    arrays: Arrays
    residuals: Arrays


def _awaited(graph: Graph) -> tuple[str, ...]:
    """The output that a backward pass is to wait for, if the forward pass checks indices: XLA leaves out a call of
    which nothing is read, and with it the check."""
    if not index_checks(graph):
        return ()
    return (min(graph.outputs, key=lambda name: (len(graph.outputs[name].axes), math.prod(graph.outputs[name].shape))),)


def _by_derivative(
    compute: Callable[[Lengths, Arrays, Arrays], tuple[Arrays, Arrays]], whole: Callable[[], Differentiable]
) -> Callable[[Lengths, Arrays, Arrays], tuple[Arrays, Arrays]]:
    """A function that first gives what a whole graph gives, differentiated as that is. What it takes and gives beside
    follows from the same arrays, so no gradients go through it."""
    call = jax.custom_vjp(compute, nondiff_argnums=(0,))

    def forward(lengths: Lengths, given: Primals, beside: Primals) -> tuple[tuple[Arrays, Arrays], _Kept]:
        arrays = _values(given)
        return call(lengths, arrays, _values(beside)), _Kept(_moved(given), arrays, {})

    def backward(lengths: Lengths, kept: _Kept, cotangents: tuple[Cotangents, Cotangents]) -> tuple[Grads, None]:
        grads = whole().again(lengths, kept, cotangents[0])
        return {name: grads.get(name) for name in kept.arrays}, None

    call.defvjp(forward, backward, symbolic_zeros=True)
    return cast(Callable[[Lengths, Arrays, Arrays], tuple[Arrays, Arrays]], call)


def _values(given: Primals) -> Arrays:
    return {name: primal.value for name, primal in given.items()}


def _moved(given: Primals) -> tuple[str, ...]:
    """The names of what a gradient is asked for."""
    return tuple(n for n, primal in given.items() if primal.perturbed and primal.value.dtype.name in FLOATING)


class _Call:
    """A graph as an operation of JAX."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self.graph, self.declared, self.__name__ = graph, declared_arrays(graph), graph.name
        self._code = Code(graph, tuple(self.declared), settings)
        self._calls: dict[Lengths, CustomCall] = {}

    def __call__(self, lengths: Lengths, arrays: Arrays) -> Arrays:
        return self.after({}, lengths, arrays)

    def after(self, before: Arrays, lengths: Lengths, arrays: Arrays) -> Arrays:
        """The outputs, computed once there are the arrays that come before."""
        axes = self.graph.axes.keys() - self.declared.keys()
        own = tuple((name, length) for name, length in lengths if name in axes)
        if own not in self._calls:
            self._code.prepare()
            self._calls[own] = CustomCall(partial(self._code.run, dict(own)), f"{self._code}\n{own}")
        outputs = self.graph.outputs.values()
        like = [jax.ShapeDtypeStruct(_shape(node, dict(lengths)), np.dtype(node.dtype)) for node in outputs]
        awaited = {f"{name} before": array for name, array in before.items()}
        given = varying_alike({**{name: arrays[name] for name in self.declared}, **awaited})
        found = self._calls[own](list(given.values()), like)
        return {name: varying(array, given) for name, array in zip(self.graph.outputs, found, strict=True)}


def _shape(node: Node, lengths: Mapping[str, int]) -> tuple[int, ...]:
    return (*(lengths[axis.name] for axis in node.axes), *node.shape)
