"""The claimed structure of a cycle's Jacobian holds for the interpreter's numbers, and known cells have theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.checks.arguments import check_arguments
from graphc.checks.causality import Component, components
from graphc.differentiation.jacobian import Entry, Jacobian, Pattern, equation, jacobian
from graphc.interpreter import Evaluation
from graphc.ir import Axis, Node, Point
from graphc.language.graph import Graph
from graphc.simplification.prepare import prepare
from graphc.testing import Example, graphs, random_arrays
from tests import test_ops

Values = Mapping[Node, np.ndarray]


def cycles(graph: Graph) -> Iterator[tuple[Component, Jacobian]]:
    for component in components(graph):
        if component.axis is not None:
            yield component, jacobian(graph, component)


class Step:
    """The equations of a cycle as a function of the states' values at all points, by the interpreter."""

    def __init__(self, graph: Graph, cycle: Component, states: tuple[Node, ...], arrays: Mapping[str, Any]) -> None:
        self.graph, self.states = graph, states
        self.arguments = check_arguments(graph, {k: np.copy(v) for k, v in arrays.items()})
        base = Evaluation(graph, self.arguments)
        with np.errstate(all="ignore"):
            self.values = {s: base.array(s) for s in states}
        self.outside = {k: v for k, v in base.known.items() if k[0] not in cycle.nodes}
        self.points = {s: list(base.points(s.axes)) for s in states}

    def __call__(self, values: Values) -> Values:
        evaluation = Evaluation(self.graph, self.arguments)
        evaluation.known.update(self.outside)
        for state, points in self.points.items():
            for point in points:
                at = position(state, point)
                evaluation.known[state, at] = values[state][at]
        with np.errstate(all="ignore"):
            return {
                state: np.array([evaluation.at(equation(self.graph, state), on(state, p)) for p in points])
                for state, points in self.points.items()
            }


def position(node: Node, point: Point) -> tuple[int, ...]:
    return tuple(point[a] for a in node.axes)


def on(node: Node, point: Point) -> Point:
    return {a: point[a] for a in node.axes}


def allowed(entries: tuple[Entry, ...], row: Node, p: Point, column: Node, q: Point) -> list[Entry]:
    """The entries by which `row` at p may depend on `column` at q."""

    def meets(entry: Entry, axis: Axis) -> bool:
        return axis in entry.mixed or axis not in p or p[axis] + (dict(entry.delay).get(axis) or 0) == q[axis]

    return [e for e in entries if (e.row, e.column) == (row, column) and all(meets(e, a) for a in column.axes)]


def check(example: Example, draw_seed: int) -> None:
    """Whatever changes is what the entries allow; affine equations have no second difference."""
    graph = prepare(example.graph)
    rng = np.random.default_rng(draw_seed)
    for cycle, structure in cycles(graph):
        step = Step(graph, cycle, structure.states, example.arrays)
        before = step(step.values)
        for column in structure.states:
            if step.points[column]:
                check_column(structure, step, before, column, step.points[column], rng)
        check_affine(structure, step, before, rng)


def check_column(
    structure: Jacobian, step: Step, before: Values, column: Node, points: list[Point], rng: np.random.Generator
) -> None:
    q = points[rng.integers(len(points))]
    moved_by: dict[tuple[Node, int], np.ndarray] = {}
    for element in np.ndindex(column.shape):
        changed = {s: v.copy() for s, v in step.values.items()}
        changed[column][(*position(column, q), *element)] += rng.normal()
        after = step(changed)
        for row in structure.states:
            for k, p in enumerate(step.points[row]):
                differs = ~np.isclose(after[row][k], before[row][k], rtol=0, atol=0, equal_nan=True)
                ways = allowed(structure.entries, row, p, column, q)
                assert ways or not differs.any(), f"{row} at {p} depends on {column} at {q}"
                if len(ways) == 1 and not ways[0].mixed and ways[0].pattern is Pattern.DIAGONAL:
                    own = np.zeros(row.shape, bool)
                    own[element] = True
                    assert not (differs & ~own).any(), f"{row} at {p} on element {element} of {column}"
                if len(ways) == 1 and ways[0].pattern is Pattern.SELECTED:
                    count = moved_by.setdefault((row, k), np.zeros(row.shape, int))
                    count += differs
                    assert count.max() <= 1


def check_affine(structure: Jacobian, step: Step, before: Values, rng: np.random.Generator) -> None:
    moves = {s: rng.normal(size=v.shape) for s, v in step.values.items()}
    up = step({s: v + moves[s] for s, v in step.values.items()})
    down = step({s: v - moves[s] for s, v in step.values.items()})
    for state in structure.affine_states:
        scale = 1 + np.abs(up[state]) + np.abs(down[state])
        np.testing.assert_allclose((up[state] + down[state] - 2 * before[state]) / scale, 0, atol=1e-11)


@settings(max_examples=25)
@given(graphs(), st.integers(0, 2**16))
def test_no_claim_is_violated_by_random_graphs(example: Example, seed: int) -> None:
    check(example, seed)


@settings(max_examples=12)
@given(graphs(smooth=True, most_states=2), st.integers(0, 2**16))
def test_adjoint_cycles_are_affine(example: Example, seed: int) -> None:
    """Backpropagation is linear in the adjoints, whatever the network."""
    adjoints = gc.grad(example.graph, "loss", wrt=["x"])
    for _, structure in cycles(prepare(adjoints)):
        if all(s["name"].startswith("adjoint_") for s in structure.states):
            assert structure.affine
    check(Example(adjoints, example.arrays), seed)


# Random cells made of linear and curved ops, elementwise and mixing.

_Op = Callable[[gc.Graph, gc.Value, gc.Value], gc.Value]
OPS: tuple[_Op, ...] = (
    lambda g, a, b: a + b,
    lambda g, a, b: a - 2 * b,
    lambda g, a, b: a * g.value("x"),
    lambda g, a, b: a / (3 + g.value("x")),
    lambda g, a, b: a[::-1],
    lambda g, a, b: gc.concat([a[1:], b[:1]]),
    lambda g, a, b: gc.stack([a, b]).T.reshape(6)[1:4],
    lambda g, a, b: gc.where(g.value("x") > 0, a, b),
    lambda g, a, b: g.value("W") @ a,
    lambda g, a, b: gc.sum(a) * g.value("x"),
    lambda g, a, b: gc.outer(g.value("x"), a)[1],
    lambda g, a, b: gc.mean(a, over=g.axes["n"]) + b,
    lambda g, a, b: gc.cast(gc.cast(a, "float32"), "float64") * 0 + b,
)
CURVED: tuple[_Op, ...] = (
    lambda g, a, b: a * b,
    lambda g, a, b: gc.tanh(a),
    lambda g, a, b: gc.maximum(a, b),
    lambda g, a, b: gc.where(a > 0, a, b),
)


@st.composite
def cells(draw: Any) -> Example:
    g = gc.Graph("drawn", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    g.input("x", (3,), over=(t, n))
    g.param("W", (3, 3))
    ops = OPS + (CURVED if draw(st.booleans()) else ())
    states = [g.state(name, (3,), over=(t, n)) for name in ("h", "k")[: draw(st.integers(1, 2))]]
    pool: list[gc.Value] = [s[t - draw(st.integers(1, 2))] for s in states]
    for state in states:
        for _ in range(draw(st.integers(1, 4))):
            pool.append(draw(st.sampled_from(ops))(g, draw(st.sampled_from(pool)), draw(st.sampled_from(pool))))
        state[t] = pool[-1] + state[t - 1] * g.value("x")
        g.output(f"o_{state.name}", state)
    return Example(g, random_arrays(g, draw(st.integers(0, 99)), t=3, n=2))


@settings(max_examples=60)
@given(cells(), st.integers(0, 2**16))
def test_no_claim_is_violated_by_random_cells(example: Example, seed: int) -> None:
    check(example, seed)


# Every op on a cycle, from the table of ops: each operand of it that can be a state at the step before.

NOT_ALONG_ANOTHER_AXIS = {("state", 0), ("state", 1), ("broadcast", 0), ("batch_norm", 1), ("batch_norm", 2)}
PLACES = [
    (name, k)
    for name, row in test_ops.ROWS.items()
    for k, operand in enumerate(row.operands)
    if operand.kind == "normal" and (name, k) not in NOT_ALONG_ANOTHER_AXIS
]


def on_a_cycle(name: str, place: int) -> Example:
    """h[r] = x + f(h[r - 1]), with what f has beyond the shape and the axes of h added up."""
    row, rng = test_ops.ROWS[name], np.random.default_rng(0)
    g = gc.Graph("cycle", dtype="float64")
    r, t, g.axes["f"] = g.axis("r"), g.axis("t"), test_ops.FIXED
    own = row.operands[place]
    axes = (r, t) if own.over else (r,)
    h, x = g.state("h", own.shape, over=axes), g.input("x", own.shape, over=(r, t))
    arrays = {"x": rng.normal(size=(3, test_ops.T, *own.shape))}
    operands = [h[r - 1]] * len(row.operands)
    for k, operand in enumerate(row.operands):
        if k != place:
            dtype = operand.dtype("float64")
            declare = g.param if not operand.over else partial(g.input, over=t)
            operands[k] = declare(f"x{k}", operand.shape, dtype=dtype)
            arrays[f"x{k}"] = operand.array(rng, dtype)
    value = gc.cast(gc.Value(g, row.build(test_ops.Case(g, t, tuple(v.node for v in operands)))), "float64")
    further = [a for a in value.axes if a not in axes]
    value = gc.sum(value, over=further) if further else value
    value = value if value.shape == own.shape else gc.sum(value)
    h[r] = value + (x if own.over else gc.mean(x, over=t))
    g.output("h", h)
    return Example(g, arrays)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_every_op_on_a_cycle(name: str, place: int) -> None:
    example = on_a_cycle(name, place)
    check(example, 0)
    assert str(gc.explain(example.graph))


# Exactly known structures.


def cell_graph(name: str, **options: Any) -> gc.Graph:
    g = gc.Graph("known")
    t, n = g.axis("t"), g.axis("n")
    h = getattr(gc.cells, name)(g, g.input("x", (3,), over=(t, n)), 4, over=t, name="a", **options).h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g


@pytest.mark.parametrize(
    ("cell", "affine", "diagonal"),
    [
        ("elman", False, False),
        ("lstm", False, False),
        ("indrnn", False, True),
        ("min_gru", True, True),
        ("min_lstm", True, True),
    ],
)
def test_known_cells(cell: str, affine: bool, diagonal: bool) -> None:
    ((_, structure),) = cycles(prepare(cell_graph(cell)))
    assert (structure.affine, structure.diagonal) == (affine, diagonal)
    *_, (_, backwards) = cycles(prepare(gc.grad(cell_graph(cell), "loss")))
    assert (backwards.affine, backwards.diagonal) == (True, diagonal)


def test_an_lstm_entry_by_entry() -> None:
    ((_, structure),) = cycles(prepare(cell_graph("lstm")))
    found = {(e.row["name"], e.column["name"], *(d for _, d in e.delay)): e.pattern for e in structure.entries}
    assert found == {
        ("a_h", "a_h", -1): Pattern.DENSE,
        ("a_h", "a_c"): Pattern.DIAGONAL,
        ("a_c", "a_h", -1): Pattern.DENSE,
        ("a_c", "a_c", -1): Pattern.DIAGONAL,
    }


def test_moved_elements_are_selected() -> None:
    g = gc.Graph("rotation")
    t = g.axis("t")
    h = g.state("h", (4,), over=t)
    h[t] = gc.concat([h[t - 1][2:], -h[t - 1][:2]]) + g.input("x", (4,), over=t)
    g.output("h", h)
    ((_, structure),) = cycles(g)
    assert [e.pattern for e in structure.entries] == [Pattern.SELECTED]
    assert structure.affine
    assert not structure.diagonal


def test_a_mean_over_the_batch_mixes_examples() -> None:
    g = gc.Graph("normalised")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (4,), over=(t, n))
    h[t] = h[t - 1] - gc.mean(h[t - 1], over=n) + g.input("x", (4,), over=(t, n))
    g.output("h", h)
    ((_, structure),) = cycles(g)
    assert [e.mixed for e in structure.entries] == [(n,)]
    assert structure.affine
    assert not structure.diagonal
