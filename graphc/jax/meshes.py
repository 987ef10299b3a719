"""meshes: arrays that lie on several devices, as a call takes them.

In: arrays, whose types say how a mesh of devices holds them. Out: the same arrays, by types that agree. Within
`jax.shard_map` these say along which axes of the mesh devices hold different ones: where JAX has added such an axis, it
sums the gradient over it, and what it is not told makes gradients wrong. Elsewhere a call takes arrays whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax

__all__ = ["varying", "varying_alike", "whole"]


def varying_alike(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The arrays, each said to vary along all axes that any of them does."""
    return {name: varying(array, arrays) for name, array in arrays.items()}


def varying(array: jax.Array, others: Mapping[str, jax.Array]) -> jax.Array:
    """The array, said to vary along all axes that any of the others does."""
    axes = frozenset[Any]().union(*map(_axes, others.values())) - _axes(array)
    if not axes:
        return array
    names = tuple(sorted(axes, key=str))
    if hasattr(jax.lax, "pcast"):
        return cast(jax.Array, jax.lax.pcast(array, names, to="varying"))
    return cast(jax.Array, jax.lax.pvary(array, names))


def _axes(array: jax.Array) -> frozenset[Any]:
    said: Any = getattr(array, "aval", None)  # older versions pass on arrays of numpy, which have none
    if hasattr(said, "manual_axis_type"):
        return cast(frozenset[Any], said.manual_axis_type.varying)
    return cast(frozenset[Any], getattr(said, "vma", frozenset()))


def whole(array: jax.Array) -> jax.Array:
    """The array, gathered where its type says that it is cut: a mesh with explicit axes."""
    said = getattr(getattr(array, "aval", None), "sharding", None)
    if said is None or not any(said.spec):
        return array
    everywhere = jax.sharding.NamedSharding(said.mesh, jax.sharding.PartitionSpec())
    return cast(jax.Array, jax.sharding.reshard(array, everywhere))
