"""graphc.jax on meshes of several devices: what a call gives is what the same equations of JAX's own give there."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent

import pytest

jax = pytest.importorskip("jax")

BEGIN = """
import jax, jax.numpy as jnp, numpy as np
import graphc as gc
from graphc.jax import Function
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

g = gc.Graph("leaky")
t, n = g.axis("t"), g.axis("n")
s = g.state("s", (2,), over=(t, n))
s[t] = gc.tanh(g.param("W", (2, 2)) @ s[t - 1] + g.input("x", (2,), over=(t, n)))
g.output("s", s)
g.output("flags", s > 0)
f = Function(g)


def graphc(W, x):
    return f(W=W, x=x)["s"]


def own(W, x):
    def step(s, x):
        s = jnp.tanh(s @ W.T + x)
        return s, s

    return jax.lax.scan(step, 0 * x[0] + 0 * W[0], x)[1]


W = jnp.array([[0.5, -0.25], [0.75, 0.125]])
x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8, 2)), jnp.float32)


def same(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)
"""


def on_four_devices(script: str) -> None:
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", BEGIN + dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | flags, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="an older JAX")
def test_shard_map_differentiated_without_and_within() -> None:
    """A param that all devices share gets the sum of their gradients, wherever JAX gives it for its own operations."""
    on_four_devices("""
        mesh = Mesh(np.array(jax.devices()), ("d",))
        cut = {"mesh": mesh, "in_specs": (P(), P(None, "d"))}

        def values(f, **how):
            return jax.shard_map(f, **cut, out_specs=P(None, "d"), **how)

        def loss(f, **how):
            return lambda W, x: jnp.sum(jnp.sin(values(f, **how)(W, x)))

        def within(f, **how):
            grad = jax.grad(lambda W, x: jnp.sum(jnp.sin(f(W, x))), argnums=(0, 1))
            outputs = (P(), P(None, "d")) if not how else (P("d"), P(None, "d"))
            return jax.shard_map(grad, **cut, out_specs=outputs, **how)

        for how in ({}, {"check_vma": False}):
            for each in (lambda f: f, jax.jit):
                same(each(values(graphc, **how))(W, x), own(W, x))
                grads = [each(jax.grad(loss(f, **how), argnums=(0, 1)))(W, x) for f in (graphc, own)]
                same(*grads)
                same(*[each(within(f, **how))(W, x) for f in (graphc, own)])
        def slope(f):
            return lambda c: jax.grad(lambda c: loss(f)(c * W, x))(c) ** 2
        same(*[jax.jit(jax.grad(slope(f)))(1.0) for f in (graphc, own)])
        try:
            jax.shard_map(graphc, **cut, out_specs=P())(W, x)
        except ValueError as error:
            assert "out_specs" in str(error)
        else:
            raise AssertionError("no device has all of it")
    """)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_arrays_cut_over_a_mesh(kind: str) -> None:
    on_four_devices(f"""
        if not hasattr(jax, "set_mesh"):
            raise SystemExit
        mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.{kind},))
        expected = jax.grad(lambda W, x: jnp.sum(jnp.sin(graphc(W, x))), argnums=(0, 1))(W, x)
        with jax.set_mesh(mesh):
            shared = jax.device_put(W, NamedSharding(mesh, P()))
            cut = jax.device_put(x, NamedSharding(mesh, P(None, "d")))
            grad = jax.grad(lambda W, x: jnp.sum(jnp.sin(graphc(W, x))), argnums=(0, 1))
            same(grad(shared, cut), expected)
            same(jax.jit(grad)(shared, cut), expected)
    """)
