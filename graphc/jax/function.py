"""A graph as a function of JAX: its equations run compiled, forward and backward, in the middle of any other model.

In: a graph. Out: a function of arrays by name, for `jax.jit`, `jax.grad`, `jax.vmap` and `jax.lax.scan`.

It computes where XLA does, on the CPU or on a GPU. This folder alone needs JAX, `pip install 'graphc-compiler[jax]'` or
any build of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from graphc.checks.arguments import check_arguments, check_by_name
from graphc.checks.verify import verify
from graphc.codegen.target import Precision
from graphc.errors import ArgumentError, UnsupportedError, listed
from graphc.ir import Node
from graphc.jax.call import differentiable
from graphc.jax.places import Settings
from graphc.language.graph import Graph, declared_arrays

__all__ = ["Function"]


class Function:
    """`graphc.jax.Function(g)(x=x, **params)["h"]`: the outputs of a graph by name, as arrays that JAX differentiates.

    Inputs and params are given by name, as arrays of the declared dtypes and shapes; `gc.initialize(g, seed)` makes
    params, as a dict that JAX's transforms and Optax's optimisers take as it is, but for those that are not trainable.
    The length of an axis that no array shows is given by name, too, as a number. Nothing is changed in place: what the
    graph updates, such as statistics of a batch or the state of `gc.step`, is a result by its own name.

    It works inside `jax.jit`, as one operation of it, on the CPU or on the first GPU. Reverse mode goes through it to
    any order (`jax.grad`, `jax.vjp`, `jax.jacrev`), forward mode does not; `jax.vmap` calls it once for each element.
    Code is compiled when it is first traced, on at most so many `threads` (None: one for each core); `precision` is as
    in `gc.compile`. Functions of equal graphs share it.

    Raises `ArgumentError` for arrays that do not fit the graph, while JAX traces; for lengths and indices that do not,
    once they are known, JAX raises an error of its own with that text.
    """

    def __init__(self, graph: Graph, threads: int | None = None, precision: Precision = "float32") -> None:
        verify(graph)
        self._graph = graph.copy()
        self._pure, self._names = _without_updates(self._graph)
        self._settings = Settings(threads, precision)
        self._call = differentiable(self._pure, self._settings)

    def __reduce__(self) -> tuple[Any, ...]:
        return Function, (self._graph, self._settings.threads, self._settings.precision)

    def __call__(self, /, *unnamed: Any, **given: Any) -> dict[str, jax.Array]:
        """The outputs by name."""
        check_by_name(self._graph, unnamed)
        nodes = declared_arrays(self._graph)
        self._check_dtypes(nodes)
        given |= {name: _as_declared(name, given[name], node) for name, node in nodes.items() if name in given}
        given |= {name: _as_length(name, given[name]) for name in self._graph.axes if name in given}
        checked = check_arguments(self._graph, {name: _stand_in(value) for name, value in given.items()})
        self._check_shown(given)
        lengths = tuple((axis.name, length) for axis, length in checked.sizes.items())
        arrays = {n: jnp.asarray(given[n] if _is_traced(given[n]) else checked.arrays[n]) for n in nodes}
        found = self._call(lengths, arrays)
        return {shown: found[name] for name, shown in self._names.items()}

    def __repr__(self) -> str:
        taken, given = declared_arrays(self._graph), self._names.values()
        return f"<{self._graph.name}, as a function of JAX: {listed(taken)} → {listed(given)}>"

    def _check_dtypes(self, nodes: Mapping[str, Node]) -> None:
        for name, node in {**nodes, **self._pure.outputs}.items():
            if node.dtype == "float64" and jax.dtypes.canonicalize_dtype(node.dtype) != np.float64:
                raise UnsupportedError(
                    f"{name} of graph {self._graph.name!r} is float64, which JAX has only after "
                    "jax.config.update('jax_enable_x64', True)"
                )

    def _check_shown(self, given: Mapping[str, Any]) -> None:
        """Check that no length depends on what an array holds: JAX compiles for shapes."""
        shown = {axis.root for node in declared_arrays(self._graph).values() for axis in node.axes}
        for name, axis in self._graph.axes.items():
            if isinstance(axis.length, Node) and axis.root not in shown and name not in given:
                raise ArgumentError(f"no array shows how long axis {name!r} is; pass {name}=… as a number")


def _without_updates(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The same graph with what it updates as further outputs, and the names of all results by those of its outputs."""
    outputs, names = dict(graph.outputs), {name: name for name in graph.outputs}
    for name, node in graph.updates.items():
        if name in graph.outputs:
            raise UnsupportedError(
                f"graph {graph.name!r} has an output {name!r} and updates what is called so; rename the output"
            )
        free = f"updated_{name}"
        while free in outputs:
            free += "_"
        outputs[free], names[free] = node, name
    return replace(graph.copy(), outputs=outputs, updates={}), names


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.Array)  # tracers are, too


def _as_declared(name: str, value: Any, node: Node) -> Any:
    """JAX's whole numbers of other sizes as int32, where that is declared, and those of Python that it traces (weak
    types) in the declared dtype, where it would compute in that."""
    if not _is_traced(value):
        return value
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
        number = "randint(key, (), 0, 2**31 - 1)" if node.dtype == "int32" else "normal(key, shape)"
        raise ArgumentError(
            f"{name} holds {value.dtype}, expected {node.dtype}; of a key make numbers: jax.random.{number}"
        )
    if not all(isinstance(length, int) for length in value.shape):
        raise ArgumentError(f"{name} has shape {value.shape}; trace with numbers, each length that occurs anew")
    dtype = jnp.dtype(node.dtype)
    whole = dtype == jnp.int32 and jnp.issubdtype(value.dtype, jnp.integer)
    return value.astype(dtype) if whole or (value.weak_type and jnp.result_type(value, dtype) == dtype) else value


def _as_length(name: str, value: Any) -> Any:
    """A number of JAX's as one of Python's."""
    if isinstance(value, jax.core.Tracer):
        raise ArgumentError(
            f"the length of axis {name!r} is not known while JAX compiles, which it does for shapes; pass a number, as "
            f"an argument of jax.jit(…, static_argnames={name!r}) is one"
        )
    return value.item() if _is_traced(value) and value.ndim == 0 else value


def _stand_in(value: Any) -> Any:
    """What can be checked before values are known: an array of this shape and dtype, without memory of its own."""
    return np.broadcast_to(np.zeros((), value.dtype), value.shape) if _is_traced(value) else value
