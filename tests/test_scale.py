"""Deep, wide and long graphs: every stage walks them without deep recursion, in work that grows as they do.

Every test here runs with a small part of Python's usual stack: what a notebook, a web server and a test runner leave
is less than all of it, and a graph's size must not matter.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.checks.causality import components
from graphc.codegen.parallel.wavefront_schedule import _owners
from graphc.differentiation.jacobian import jacobian
from graphc.ir import topological
from graphc.pipeline.stages import stages
from graphc.scheduling.schedule import DEEPEST

FRAMES = 500  # of Python's 1,000
ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(autouse=True)
def little_stack() -> Iterator[None]:
    limit, depth, frame = sys.getrecursionlimit(), 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    sys.setrecursionlimit(depth + FRAMES)
    yield
    sys.setrecursionlimit(limit)


def _summed(step: Callable[[Any, Any, int], Any], count: int) -> gc.Graph:
    """A value that each of `count` steps makes of the one before and the input, summed."""
    g = gc.Graph("chain")
    n = g.axis("n")
    x = y = g.input("x", (4,), over=n)
    for k in range(count):
        y = step(y, x, k)
    g.output("loss", gc.sum(gc.sum(y), over=n))
    return g


def chain(count: int) -> gc.Graph:
    return _summed(lambda y, x, k: gc.tanh(y) + x, count)


def shared(count: int) -> gc.Graph:
    """Each value is used three times: 3 to the power of `count` paths."""
    return _summed(lambda y, x, k: y * y * 0.5 + y * 0.25 + x, count)


def doubled(count: int) -> gc.Graph:
    return _summed(lambda y, x, k: (y + y) * 0.5, count)


def added(count: int) -> gc.Graph:
    """A sum of 2 to the power of `count` terms, if it is written out."""
    g = gc.Graph("added")
    n = g.axis("n")
    y = g.input("x", (4,), over=n)
    for _ in range(count):
        y = y + y
    g.output("loss", gc.sum(y, over=n))
    return g


def concatenated(count: int) -> gc.Graph:
    """A state that reads a concatenation of so many parts."""
    g = gc.Graph("concatenated")
    n = g.axis("n")
    x = g.input("x", (4,), over=n)
    h = g.state("h", (4 * count,), over=n)
    h[n] = 0.5 * h[n - 1] + gc.concat([x * (k % 3) for k in range(count)])
    g.output("loss", gc.sum(gc.sum(h), over=n))
    return g


def views(count: int) -> gc.Graph:
    return _summed(lambda y, x, k: gc.concat([y[1:4], y[0:1]]), count)


def powers(count: int) -> gc.Graph:
    return _summed(lambda y, x, k: y * y, count)


def ring(count: int) -> gc.Graph:
    """States that each read the one before them, and a sum of all."""
    g = gc.Graph("ring")
    t = g.axis("t")
    x = g.input("x", (4,), over=t)
    states = [g.state(f"h{k}", (4,), over=t) for k in range(count)]
    for k, h in enumerate(states):
        h[t] = gc.tanh(states[k - 1][t - 1] + x)
    g.output("loss", gc.sum(gc.sum(sum(states)), over=t))
    return g


def instant(count: int) -> gc.Graph:
    """States that each read the one before them at the same step."""
    g = gc.Graph("instant")
    t = g.axis("t")
    h = x = g.input("x", (4,), over=t)
    for k in range(count):
        state = g.state(f"h{k}", (4,), over=t)
        state[t] = h * 0.5 + x
        h = state
    g.output("loss", gc.sum(gc.sum(h), over=t))
    return g


def unrolled(count: int) -> gc.Graph:
    g = gc.Graph("unrolled")
    t = g.axis("t")
    x = g.input("x", (4,), over=t)
    h = g.state("h", (4,), over=t)
    h[t] = gc.tanh(h[t - 1] * 0.5 + x)
    g.output("loss", gc.sum(gc.sum(h), over=t))
    return gc.unroll(gc.grad(g, "loss", wrt="x"), t=count)


DEEP = {
    "chain": lambda: chain(1500),
    "gradient": lambda: gc.grad(chain(400), "loss", wrt="x"),
    "shared": lambda: shared(200),
    "doubled": lambda: doubled(300),
    "added": lambda: added(40),
    "concatenated": lambda: concatenated(200),
    "views": lambda: views(100),
    "powers": lambda: powers(60),
    "ring": lambda: ring(500),
    "instant": lambda: instant(500),
    "unrolled": lambda: unrolled(150),
}


@pytest.mark.parametrize("name", DEEP)
def test_graphs_of_any_size_run_as_interpreted(name: str) -> None:
    g = DEEP[name]()
    x = np.resize(ROWS, (150, 4)) if name == "unrolled" else ROWS
    expected, found = gc.interpret(g, x=x), gc.compile(g)(x=x)
    for output, value in expected.items():
        np.testing.assert_allclose(found[output], value, rtol=2e-4, atol=2e-5, err_msg=output)


@pytest.mark.parametrize("name", DEEP)
def test_graphs_of_any_size_print_and_read_back(name: str) -> None:
    g = DEEP[name]()
    assert gc.parse(str(g)) == g


@pytest.mark.parametrize("name", DEEP)
def test_graphs_of_any_size_are_drawn_and_explained(name: str) -> None:
    g = DEEP[name]()
    assert gc.draw(g).dot.startswith("digraph")
    assert str(gc.explain(g))


@pytest.mark.parametrize("name", ["chain", "ring"])
def test_graphs_of_any_size_are_emitted_for_gpus(name: str) -> None:
    g = {"chain": chain, "ring": ring}[name](150)
    assert ".entry" in gc.emit(g, target="cuda").ptx


def test_a_long_chain_is_cut_and_a_short_one_is_one_kernel() -> None:
    def kernels(count: int) -> int:
        return str(stages(_summed(lambda y, x, k: gc.tanh(y), count)).program).count("kernel ")

    assert kernels(DEEPEST // 2) == kernels(1)
    assert kernels(DEEPEST * 10) > 8


def test_large_constants_print_and_read_back() -> None:
    g = gc.Graph("constant")
    array = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    g.output("loss", gc.sum(g.input("x", (100,)) @ array))
    assert gc.parse(str(g)) == g
    assert len(str(g)) < 100 * 100 * 8 + 1000


# Work.


def _calls(run: Callable[[], object]) -> int:
    """How many calls of graphc's functions something makes."""
    count = 0

    def profile(frame: Any, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


WORK = {
    "chain": (chain, 60),
    "gradient": (lambda k: gc.grad(chain(k), "loss", wrt="x"), 60),
    "weighted": (lambda k: gc.grad(_weighted(k), "loss", wrt="w"), 30),
    "shared": (shared, 40),
    "added": (added, 8),
    "terms": (lambda k: gc.grad(_terms(k), "loss"), 40),
    "ring": (ring, 60),
    "unrolled": (unrolled, 20),
    "network": (lambda k: gc.training_step(_network(k), "loss", gc.optim.Adam(lr=1e-3)), 4),
}


def cycles(count: int, length: int) -> gc.Graph:
    """So many cycles of so many operations each, each cycle on the states of the one before."""
    g = gc.Graph("cycles")
    t = g.axis("t")
    x = g.input("x", (4,), over=t)
    for k in range(count):
        h = g.state(f"h{k}", (4,), over=t)
        y = h[t - 1] * 0.5 + x
        for _ in range(length):
            y = gc.tanh(y) * 2.0
        h[t] = y
        x = h
    g.output("loss", gc.sum(gc.sum(x), over=t))
    return g


def _weighted(count: int) -> gc.Graph:
    g = gc.Graph("weighted")
    n = g.axis("n")
    w, x = g.param("w", (4,)), g.input("x", (4,), over=n)
    y = x
    for _ in range(count):
        y = gc.tanh(w * y + x)
    g.output("loss", gc.sum(gc.sum(y), over=n))
    return g


def _terms(count: int) -> gc.Graph:
    g = gc.Graph("terms")
    n = g.axis("n")
    w, x = g.param("w", (count, 4)), g.input("x", (4,), over=n)
    g.output("loss", gc.sum(gc.sum(sum(gc.tanh(w[k] * x) for k in range(count))), over=n))
    return g


def _network(count: int) -> gc.Graph:
    g = gc.Graph("network")
    n = g.axis("n")
    x = g.input("x", (8,), over=n)
    for k in range(count):
        x = x + gc.relu(g.param(f"W{k}", (8, 8)) @ x + g.param(f"b{k}", (8,)))
    g.output("loss", gc.mean(gc.sum(x * x), over=n))
    return g


@pytest.mark.parametrize("name", WORK)
def test_four_times_the_graph_is_about_four_times_the_work(name: str) -> None:
    make, count = WORK[name]

    def work(size: int) -> tuple[int, int]:
        g = make(size)
        nodes = len(
            topological([*g.outputs.values(), *g.updates.values(), *(e.body for e in g.states.values() if e.body)])
        )
        return nodes, _calls(lambda: (str(g), gc.emit(g)))

    work(count)  # what is made once
    (small, few), (large, many) = work(count), work(4 * count)
    assert many / few < 1.6 * large / small


def _jacobian(length: int) -> Callable[[], object]:
    g = cycles(1, length)
    (cycle,) = (part for part in components(g) if part.axis is not None)
    return lambda: jacobian(g, cycle)


@pytest.mark.parametrize(
    ("make", "count"),
    [(_jacobian, 150), (lambda count: lambda: str(gc.explain(cycles(count, 1))), 10)],
    ids=["jacobian", "explain"],
)
def test_four_times_the_cycle_or_the_cycles_are_about_four_times_the_work(
    make: Callable[[int], Callable[[], object]], count: int
) -> None:
    _calls(make(count))  # what is made once
    assert _calls(make(4 * count)) < 1.6 * 4 * _calls(make(count))


def test_stages_are_shared_out_so_that_the_busiest_thread_has_the_least() -> None:
    costs = [3.0, 1.0, 0.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    for threads in range(1, 12):
        owners = _owners(costs, threads)
        parts = [sum(c for c, owner in zip(costs, owners, strict=True) if owner == k) for k in range(threads)]
        cuts = itertools.combinations_with_replacement(range(len(costs) + 1), threads - 1)
        edges = ((0, *cut, len(costs)) for cut in cuts)
        assert max(parts) == min(max(sum(costs[a:b]) for a, b in itertools.pairwise(e)) for e in edges)
        assert list(owners) == sorted(owners)
