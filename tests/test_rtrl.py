"""rtrl: gradients carried forward equal those of backpropagation, at each step, and stream; and influences are no
larger than the equations ask for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.errors import DefinitionError, GraphError, ShapeError
from graphc.ir import FLOATING
from graphc.language import functions as fn
from tests.cuda_emulated import check as check_emulated
from tests.mistakes import Mistake, Mistakes, check
from tests.test_step import agree

refused = Mistakes()


@pytest.mark.parametrize(("mistake", "kind", "says"), refused)
def test_mistake(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    check(mistake, kind, says)


def equal_backpropagation(
    g: gc.Graph, arrays: testing.Arrays, steps: int, tolerance: float = 1e-9, compiled: bool = True
) -> gc.Graph:
    """The gradients at each step are those that backpropagation finds for that step's loss alone."""
    params = [name for name, param in g.params.items() if param.node.dtype in FLOATING]
    forward = gc.rtrl(g, "loss", params)
    assert gc.parse(str(forward)) == forward
    found = gc.compile(forward)(**arrays) if compiled else gc.interpret(forward, **arrays)
    (t,) = g.outputs["loss"].axes
    for k in range(steps):
        one = g.copy()
        one.output("one", one.value("loss")[t.at(k)])
        expected = gc.interpret(gc.grad(one, "one", params), **arrays)
        for name in params:
            right = expected[f"grad_{name}"]
            np.testing.assert_allclose(found[f"grad_{name}"][k], right, rtol=tolerance, atol=tolerance, err_msg=name)
    return forward


@settings(max_examples=25)
@given(testing.graphs(causal=True, most_states=2))
def test_it_is_the_gradient_of_each_step(example: testing.Example) -> None:
    if example.graph.outputs["loss"].axes:
        equal_backpropagation(example.graph, example.arrays, example.lengths["t"])


@settings(max_examples=12)
@given(testing.graphs(causal=True, most_states=2), st.booleans())
def test_it_streams(example: testing.Example, compiled: bool) -> None:
    g = example.graph
    if g.outputs["loss"].axes:
        agree(gc.rtrl(g, "loss"), example.arrays, compiled)


def around(cell: Callable[..., gc.Value], dtype: str = "float64", **options: object) -> tuple[gc.Graph, testing.Arrays]:
    """A cell of four units that is read by a classifier, and a call."""
    g = gc.Graph("around", dtype=dtype)
    t, n = g.axis("t"), g.axis("n")
    x, y = g.input("x", (3,), over=(t, n)), g.input("y", (), over=(t, n), dtype="int32")
    h = cell(g, x, t, **options)
    logits = g.param("V", (5, h.shape[0])) @ h + g.param("c", (5,))
    g.output("loss", gc.mean(gc.cross_entropy(logits, y), over=n))
    return g, testing.random_arrays(g, 0, t=5, n=2)


def from_library(name: str) -> Callable[..., gc.Value]:
    return lambda g, x, t, **options: getattr(gc.cells, name)(g, x, 4, over=t, **options).h


def carried(forward: gc.Graph) -> dict[str, tuple[int, ...]]:
    """The size of each influence for one example, by its name without `influence_` and `_back1`."""
    carry = gc.initial_carry(forward, over="t", n=1)
    return {
        name.removeprefix("influence_").removesuffix("_back1"): array.shape[1:]
        for name, array in carry.items()
        if name.startswith("influence_")
    }


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "slstm", "mlstm", "delta_net", "selective_ssm", "lem"])
def test_cells(cell: str) -> None:
    equal_backpropagation(*around(from_library(cell)), steps=5)


@pytest.mark.parametrize("cell", ["indrnn", "min_gru", "min_lstm", "rg_lru"])
def test_where_units_do_not_meet_influences_are_of_the_size_of_params(cell: str) -> None:
    g, arrays = around(from_library(cell))
    sizes = carried(equal_backpropagation(g, arrays, steps=5))
    assert sizes
    for name, shape in sizes.items():
        param = next(p for key, p in g.params.items() if name.endswith(f"_{key}"))
        assert np.prod(shape) == np.prod(param.node.shape), name


def test_where_units_meet_influences_are_units_times_as_large() -> None:
    g, arrays = around(from_library("elman"))
    forward = equal_backpropagation(g, arrays, steps=5)
    assert carried(forward) == {
        "elman_h_elman_W_h": (4, 3, 4),
        "elman_h_elman_U_h": (4, 4, 4),
        "elman_h_elman_b_h": (4, 4),
    }


def test_what_no_cycle_reads_has_no_influence() -> None:
    """Neither of the two layers between a recurrence and its loss, though one is declared as a state."""

    def layered(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = gc.cells.elman(g, x, 4, over=t, bias=False).h
        layer = g.state("layer", (6,), over=x.axes)
        layer[t] = gc.tanh(g.param("A", (6, 4)) @ h)
        return gc.relu(g.param("B", (6, 6)) @ layer)

    sizes = carried(equal_backpropagation(*around(layered), steps=5))
    assert sorted(sizes) == ["elman_h_elman_U_h", "elman_h_elman_W_h"]


def test_a_layer_below_has_influence_on_those_above() -> None:
    def stacked(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = gc.cells.elman(g, x, 2, over=t, name="a", bias=False).h
        return gc.cells.elman(g, h, 3, over=t, name="b", bias=False).h

    sizes = carried(equal_backpropagation(*around(stacked), steps=5))
    assert {name for name in sizes if name.endswith("a_W_h")} == {"a_h_a_W_h", "b_h_a_W_h"}
    assert {name for name in sizes if name.endswith("b_W_h")} == {"b_h_b_W_h"}


def mixed(v: gc.Value) -> gc.Value:
    """Of each row of a matrix all elements meet."""
    return v + gc.sum(v, dim=1)[:, None]


STEPS: dict[str, tuple[Callable[[gc.Value, gc.Value, gc.Value], gc.Value], int]] = {
    "each unit by itself": (lambda h, W, x: gc.sigmoid(h) * h + W @ x, 12),
    "columns": (lambda h, W, x: gc.tanh(h * W[1, 0] + x @ W.T.T.T), 4 * 12),  # W[1, 0] reaches all units
    "a transposed matrix": (lambda h, W, x: gc.tanh(h + x @ W.T), 12),
    "other places": (lambda h, W, x: h / 2 + (W @ x).reshape(2, 2).T.reshape(4), 12),
    "one number more, one less": (lambda h, W, x: h / 2 + (W @ x).reshape(1, 4, 1)[0, :, 0], 12),
    "a neighbour": (lambda h, W, x: gc.roll(h, 1) / 2 + W @ x, 4 * 12),
    "in reverse": (lambda h, W, x: gc.tanh(gc.flip(h) + W @ x), 4 * 12),
    "a norm": (lambda h, W, x: gc.standardize(h + W @ x), 4 * 12),
    "a sum of all": (lambda h, W, x: gc.tanh(h + gc.mean(W @ x)), 4 * 12),
    "an outer product": (lambda h, W, x: gc.tanh(h + gc.sum(gc.outer(W @ x, x), dim=1)), 12),
    "joined and cut": (lambda h, W, x: h / 2 + gc.concat([(W @ x)[:2], (W @ x)[2:]]), 12),
    "other ends joined": (lambda h, W, x: h / 2 + gc.concat([(W @ x)[2:], (W @ x)[:2]]), 2 * 12),
    "every second": (lambda h, W, x: h / 2 + gc.concat([(W @ x)[::2], (W @ x)[1::2]]), 4 * 12),
    "halves by themselves": (lambda h, W, x: gc.tanh(mixed(h.reshape(2, 2)).reshape(4) + W @ x), 2 * 12),
    "parts of halves by themselves": (lambda h, W, x: gc.tanh(mixed(h.reshape(2, 2).T).T.reshape(4) + W @ x), 2 * 12),
    "chosen": (lambda h, W, x: gc.where(h > 0, h / 2, W @ x), 12),
}


@pytest.mark.parametrize("name", STEPS)
def test_rows_move_at_once_only_where_they_do_not_meet(name: str) -> None:
    step, size = STEPS[name]

    def cell(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = g.state("h", (4,), over=x.axes, initial=0.5)
        h[t] = step(h[t - 1], g.param("W", (4, 3)), x)
        return h

    g, arrays = around(cell)
    sizes = carried(equal_backpropagation(g, arrays, steps=5))
    assert {key: int(np.prod(shape)) for key, shape in sizes.items()} == {"h_W": size}


REARRANGED: dict[str, Callable[[gc.Value], gc.Value]] = {
    "cut": lambda v: v[1:],
    "cut at the end": lambda v: v[:-1],
    "every second": lambda v: v[::2],
    "flipped": lambda v: gc.flip(v),
    "rolled": lambda v: gc.roll(v, 1),
    "joined": lambda v: gc.concat([v, gc.sin(v)]),
    "halves exchanged": lambda v: gc.concat([v[v.shape[0] // 2 :], v[: v.shape[0] // 2]], dim=0),
    "turned": lambda v: v.T if len(v.shape) == 2 else v,
    "cut in two": lambda v: v.reshape(2, v.shape[0] // 2, *v.shape[1:]) if v.shape[0] % 2 == 0 else v,
    "in one dimension": lambda v: v.reshape(-1),
    "one row": lambda v: v + v[0],
    "scaled": lambda v: v * np.linspace(0.5, 1.5, v.shape[-1]),
    "each by itself": lambda v: gc.exp(v / 2),
    "masked": lambda v: gc.where(np.arange(v.shape[-1]) > 0, v, 0.0),
    "normalised": lambda v: v / gc.sqrt(1 + gc.sum(v * v)),
    "looked up": lambda v: gc.embedding(v, np.array([1, 0, 1])),
    "with itself": lambda v: v + v.T if v.shape[1:] == v.shape[:1] else v - gc.flip(v),
}


@st.composite
def rearranged(draw: st.DrawFn) -> Callable[[gc.Value], gc.Value]:
    steps = draw(st.lists(st.sampled_from(sorted(REARRANGED)), max_size=4))

    def apply(v: gc.Value) -> gc.Value:
        for step in steps:
            v = REARRANGED[step](v) if len(v.shape) in (1, 2, 3) and v.shape[0] > 1 and np.prod(v.shape) < 40 else v
        return v

    return apply


@settings(max_examples=60)
@given(rearranged(), rearranged(), st.booleans(), st.sampled_from(["each", "mixed", "halves"]))
def test_params_are_rearranged(
    weights: Callable[[gc.Value], gc.Value], drive: Callable[[gc.Value], gc.Value], product: bool, meet: str
) -> None:
    """However weights are made of params, and drives of weights, before they reach units that meet, or do not."""

    def cell(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = g.state("h", (4,), over=x.axes, initial=0.5)
        W = weights(g.param("W", (4, 3)))
        seen = gc.concat([h[t - 1], x, x, h[t - 1], x, h[t - 1], *(x for _ in range(20))])
        made = drive(W @ seen[: W.shape[-1]] if product else W * seen[: W.shape[-1]])
        flat = gc.concat([made.reshape(-1), x, x[:1]])[:4]
        past = {
            "each": lambda: h[t - 1] / 2,
            "mixed": lambda: g.param("U", (4, 4)) @ h[t - 1],
            "halves": lambda: mixed(h[t - 1].reshape(2, 2)).reshape(4) / 4,
        }
        h[t] = gc.tanh(past[meet]() + flat)
        return h

    equal_backpropagation(*around(cell), steps=3, compiled=False)


def test_an_approximation_is_a_stopped_gradient() -> None:
    """Without what units see of each other influences are traces, as large as params (e-prop, Bellec et al. 2020)."""

    def cell(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = g.state("h", (4,), over=x.axes)
        h[t] = h[t - 1] / 2 + gc.tanh(g.param("W", (4, 3)) @ x + g.param("U", (4, 4)) @ gc.stop_gradient(h[t - 1]))
        return h

    sizes = carried(equal_backpropagation(*around(cell), steps=5))
    assert {name: int(np.prod(shape)) for name, shape in sizes.items()} == {"h_W": 12, "h_U": 16}


def test_rows_that_meet_in_one_state_move_at_once_in_the_others() -> None:
    """The traces of units are as large as params also where a leaky readout mixes them, or a layer above."""

    def readout(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h, o = g.state("h", (4,), over=x.axes), g.state("o", (2,), over=x.axes)
        seen = g.param("W", (4, 3)) @ x + g.param("U", (4, 4)) @ gc.stop_gradient(h[t - 1])
        h[t] = h[t - 1] / 2 + gc.tanh(seen)
        o[t] = 0.8 * o[t - 1] + g.param("R", (2, 4)) @ h
        return o

    sizes = carried(equal_backpropagation(*around(readout), steps=5))
    assert sizes == {"h_W": (3, 4), "h_U": (4, 4), "o_W": (4, 3, 2), "o_U": (4, 4, 2), "o_R": (4, 2)}

    def stacked(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = gc.cells.min_gru(g, x, 4, over=t, name="a", bias=False).h
        return gc.cells.min_gru(g, h, 5, over=t, name="b", bias=False).h

    sizes = carried(equal_backpropagation(*around(stacked), steps=5))
    assert (sizes["a_h_a_W_z"], sizes["b_h_a_W_z"], sizes["b_h_b_W_z"]) == ((3, 4), (4, 3, 5), (4, 5))


def test_a_learned_beginning() -> None:
    def cell(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        return gc.cells.elman(g, x, 4, over=t, initial=gc.tanh(g.param("h0", (4,)))).h

    equal_backpropagation(*around(cell), steps=5)


def test_names_that_are_taken() -> None:
    """An axis of the influence is called by the param; a call gives lengths of axes and arrays alike by their names."""

    def cell(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = g.state("h", (4,), over=x.axes)
        other = g.param("W_0", (4,))
        h[t] = gc.tanh(g.param("U", (4, 4)) @ h[t - 1] + g.param("W", (4, 3)) @ x + other)
        g.state("influence_h_W", (), over=x.axes)[t] = h[0]
        return h

    equal_backpropagation(*around(cell), steps=5)


def test_of_two_outputs() -> None:
    g, arrays = around(from_library("elman"))
    g.output("other", g.value("loss") ** 2)
    both = gc.interpret(gc.rtrl(gc.rtrl(g, "loss"), "other"), **arrays)
    for name in g.params:
        for of, found in (("loss", f"grad_{name}"), ("other", f"grad_other_{name}")):
            expected = gc.interpret(gc.rtrl(g, of), **arrays)[f"grad_{name}"]
            np.testing.assert_allclose(both[found], expected, rtol=1e-9, atol=1e-12)


def test_half_precision() -> None:
    """The gradient of a param of bfloat16 is float32, as everywhere."""

    def cell(g: gc.Graph, x: gc.Value, t: gc.Value) -> gc.Value:
        h = g.state("h", (4,), over=x.axes)
        h[t] = gc.tanh(g.param("W", (4, 3), dtype="bfloat16") @ x + h[t - 1])
        return h

    g, arrays = around(cell, dtype="float32")
    forward = equal_backpropagation(g, arrays, steps=5, tolerance=1e-5)
    assert forward.outputs["grad_W"].dtype == "float32"


@settings(max_examples=15)
@given(testing.graphs(causal=True, most_states=2, storing=True))
def test_what_lies_in_half_precision_beside_what_does_not(example: testing.Example) -> None:
    if example.graph.outputs["loss"].axes:
        equal_backpropagation(example.graph, example.arrays, example.lengths["t"], tolerance=2e-2, compiled=False)


def test_learning_while_running() -> None:
    """A step of stochastic descent at each step of time is what it is by hand."""
    g, arrays = around(from_library("gru"))
    forward = gc.rtrl(g, "loss")
    by_hand = gc.compile(gc.step(forward, over="t"))
    learn = gc.training_step(gc.step(forward, over="t"), {p: f"grad_{p}" for p in g.params}, gc.optim.SGD(0.5))
    assert list(learn.outputs) == ["loss"]
    state = {**gc.initialize(learn), **{name: arrays[name].copy() for name in g.params}}
    params = {name: arrays[name].copy() for name in g.params}
    call = gc.compile(learn)
    one, other = gc.initial_carry(forward, over="t", n=2), gc.initial_carry(forward, over="t", n=2)
    for k in range(5):
        now = {"x": arrays["x"][k], "y": arrays["y"][k]}
        loss = call(**now, **state, **one)["loss"]
        expected = by_hand(**now, **params, **other)
        np.testing.assert_allclose(loss, expected["loss"], rtol=1e-12)
        for name, array in params.items():
            array -= 0.5 * expected[f"grad_{name}"]
            np.testing.assert_allclose(state[name], array, rtol=1e-10, atol=1e-12)


def test_clipped_together() -> None:
    g, arrays = around(from_library("indrnn"))
    forward = gc.rtrl(g, "loss")
    step = gc.training_step(
        gc.step(forward, over="t"), {p: f"grad_{p}" for p in g.params}, gc.optim.SGD(1.0, clip=1e-3)
    )
    params = {name: arrays[name].copy() for name in g.params}
    gc.compile(step)(
        x=arrays["x"][0], y=arrays["y"][0], **gc.initialize(step) | params, **gc.initial_carry(forward, over="t", n=2)
    )
    moved = sum(np.sum((arrays[name] - array) ** 2) for name, array in params.items())
    np.testing.assert_allclose(np.sqrt(moved), 1e-3, rtol=1e-2)


def test_on_an_emulated_gpu() -> None:
    g, arrays = around(from_library("elman"))
    check_emulated(gc.rtrl(g, "loss"), arrays, {"t": 5, "n": 2}, 1e-9)


@pytest.mark.parametrize("position", [0, 3, 7])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_sum_with_one_term_is_that_point(position: int, ragged: bool) -> None:
    """The tangent of a point comes as such a sum, which would have to wait for the last step."""
    g = gc.Graph("one", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32")) if ragged else g.axis("t")
    x = g.input("x", (2,), over=(t, n))
    g.output("y", gc.sum(gc.where(fn.index(t) == position, x, 0.0), over=t))
    g.output("last", gc.sum(gc.where(fn.index(t) == gc.length(t) - 1, x * x, 0.0), over=t))
    arrays: testing.Arrays = {"x": np.random.default_rng(0).normal(size=(5, 3, 2))}
    if ragged:
        arrays["lengths"] = np.array([5, 2, 0], np.int32)
    simpler = gc.jvp(g, "y", wrt=["x"])
    assert "sum(" not in str(gc.select(simpler, "y", "last"))
    expected = gc.interpret(g, **arrays)
    for found in (gc.interpret(gc.select(simpler, "y", "last"), **arrays), gc.compile(g)(**arrays)):
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-12)


@pytest.mark.parametrize("positions", [[2], [1, 0, 4]])
def test_each_element_at_a_point_of_its_own(positions: list[int]) -> None:
    g = gc.Graph("own", dtype="float64")
    t = g.axis("t")
    x = g.input("x", (len(positions),), over=t)
    g.output("y", gc.sum(gc.where(fn.index(t) == np.array(positions, np.int32), x, 0.0), over=t))
    array = np.random.default_rng(0).normal(size=(5, len(positions)))
    np.testing.assert_array_equal(gc.compile(g)(x=array)["y"], array[positions, range(len(positions))])


@refused(ShapeError, "a number at each step of one axis", "'y' is float32[3] over t, n", "gc.grad")
def no_number() -> object:
    g = gc.Graph("plain")
    x = g.input("x", (3,), over=(g.axis("t"), g.axis("n")))
    y = g.param("b", (3,)) * x  # here
    g.output("y", y)
    return gc.rtrl(g, "y")


@refused(DefinitionError, "rtrl differentiates by params", "'x' is an input")
def an_input() -> object:
    return gc.rtrl(around(from_library("elman"))[0], "loss", wrt=["elman_W_h", "x"])  # here


@refused(DefinitionError, "no output 'grad_W'", "loss")
def no_such_gradient() -> object:
    return gc.training_step(around(from_library("elman"))[0], {"V": "grad_W"}, gc.optim.SGD(0.1))  # here


@refused(DefinitionError, "no param 'W'", "elman_W_h")
def no_such_param() -> object:
    return gc.training_step(around(from_library("elman"))[0], {"W": "loss"}, gc.optim.SGD(0.1))  # here


@refused(ShapeError, "the gradient of param 'V' is float64[5, 4]", "float64[5, 4] over t", "step the graph")
def at_every_step() -> object:
    forward = gc.rtrl(around(from_library("elman"))[0], "loss")
    return gc.training_step(forward, {"V": "grad_V"}, gc.optim.SGD(0.1))  # here


@refused(DefinitionError, "wrt=", "name their params")
def both() -> object:
    forward = gc.rtrl(around(from_library("elman"))[0], "loss")
    return gc.training_step(forward, {"V": "grad_V"}, gc.optim.SGD(0.1), wrt=["V"])  # here


@refused(DefinitionError, "gradients by param", '{"W": "grad_W"}')
def none() -> object:
    return gc.training_step(around(from_library("elman"))[0], {}, gc.optim.SGD(0.1))  # here
