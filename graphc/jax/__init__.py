"""A graph as a function of JAX. Needs JAX (the extra `jax`)."""

from graphc.jax.function import Function

__all__ = ["Function"]
