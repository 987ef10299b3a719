"""Weights of other libraries against what those document, in numpy, and there and back.

The libraries themselves, where they are installed, are in test_cells_torch.py, _keras.py, _onnx.py and _flax.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.errors import GraphError
from tests.frameworks import LIBRARIES, Arrays, Library

T = 4


@dataclass(frozen=True)
class Case:
    """A layer of a library, and the options of the conversion."""

    library: str
    cell: str
    inputs: int
    units: int
    both: bool
    bias: bool
    reset: str
    update: str
    seed: int

    @property
    def of(self) -> Library:
        return LIBRARIES[self.library]

    def layers(self) -> list[Arrays]:
        rng = np.random.default_rng(self.seed)
        shapes = self.of.shapes(self.cell, self.inputs, self.units, self.bias, self.reset)
        return [{name: rng.normal(size=shape) for name, shape in shapes.items()} for _ in range(1 + self.both)]

    def options(self, bias: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"cell": self.cell, "name": "a", "update": self.update}
        if self.library in ("keras", "onnx"):
            found["reset"] = self.reset
        return found | ({"bias": bias} if self.of.biasless else {})

    def from_(self, weights: Any, bias: bool = True) -> Arrays:
        return getattr(gc.cells, f"from_{self.library}")(weights, **self.options(bias))

    def to(self, params: Arrays, bias: bool = True) -> Any:
        return getattr(gc.cells, f"to_{self.library}")(params, **self.options(bias))

    def graph(self, bias: bool = True) -> gc.Graph:
        g = gc.Graph("layer", dtype="float64")
        t = g.axis("t")
        x = g.input("x", (self.inputs,), over=t)
        cell = getattr(gc.cells, self.cell)
        options: dict[str, Any] = {"reset": self.reset, "update": self.update} if self.cell == "gru" else {}
        if self.cell == "projected_lstm":
            options["outputs"] = 2
        add = functools.partial(gc.cells.bidirectional, cell=cell) if self.both else cell
        g.output("h", add(g, x, units=self.units, over=t, name="a", bias=bias, **options).h)
        return g

    def documented(self, layers: list[Arrays], x: np.ndarray) -> np.ndarray:
        """What the library says that it computes; the second layer reads backwards."""
        runs = [self.of.run(self.cell, self.reset, own, x[:: 1 - 2 * k])[:: 1 - 2 * k] for k, own in enumerate(layers)]
        return np.concatenate(runs, axis=1)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    library = draw(st.sampled_from(sorted(LIBRARIES)))
    of = LIBRARIES[library]
    return Case(
        library,
        draw(st.sampled_from(of.cells)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(st.booleans()) if of.biasless else True,
        draw(st.sampled_from(of.resets)),
        draw(st.sampled_from(["old", "new"])),
        draw(st.integers(0, 2**16)),
    )


EVERY = [
    Case(library, cell, 2, 3, both, bias, reset, update, 1)
    for library, of in LIBRARIES.items()
    for cell in of.cells
    for reset in (of.resets if cell == "gru" else of.resets[:1])
    for update in (("old", "new") if cell == "gru" else ("old",))
    for both in (False, True)
    for bias in ((True, False) if of.biasless else (True,))
]


def same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_cell_computes_what_the_library_documents(case: Case) -> None:
    layers = case.layers()
    x = np.random.default_rng(2).normal(size=(T, case.inputs))
    g = case.graph()
    params = case.from_(case.of.given(layers))
    assert {k: a.shape for k, a in params.items()} == {k: p.shape for k, p in g.params.items()}
    same(gc.interpret(g, x=x, **params)["h"], case.documented(layers, x))


@settings(max_examples=150)
@given(cases())
@example(Case("keras", "gru", 1, 1, True, True, "before", "new", 0))
def test_there_and_back_is_the_same(case: Case) -> None:
    layers = case.layers()
    params = case.from_(case.of.given(layers))
    noise = {"other_W_f": np.ones(3), "mean_a_W_f": np.ones(2), "a_1": np.ones(1)}
    back = case.to({**params, **noise})
    taken = case.of.taken(back, 1 + case.both)
    x = np.random.default_rng(case.seed).normal(size=(T, case.inputs))
    same(case.documented(taken, x), case.documented(layers, x))
    shapes = case.of.shapes(case.cell, case.inputs, case.units, True, case.reset)
    assert [{k: a.shape for k, a in own.items()} for own in taken] == [shapes] * len(layers)
    again = case.from_(back)
    assert again.keys() == params.keys()
    assert all(np.array_equal(again[k], params[k]) for k in params)


@settings(max_examples=100)
@given(cases())
def test_layers_without_biases_are_cells_without_them(case: Case) -> None:
    g = case.graph(bias=False)
    rng = np.random.default_rng(case.seed)
    params = {k: rng.normal(size=p.shape) for k, p in g.params.items()}
    if not case.of.biasless:  # its layers have biases: of 0
        back = gc.cells.to_flax(params, case.cell, "a", case.update, bias=False)
    else:
        back = case.to(params, bias=False)
        again = case.from_(back, bias=False)
        assert again.keys() == params.keys()
        assert all(np.array_equal(again[k], params[k]) for k in params)
    x = rng.normal(size=(T, case.inputs))
    same(case.documented(case.of.taken(back, 1 + case.both), x), gc.interpret(g, x=x, **params)["h"])


@given(cases())
def test_arrays_are_new_and_keep_their_dtype(case: Case) -> None:
    """Params are updated in place, and lie as compiled code wants them."""
    layers = [{k: a.astype(np.float32) for k, a in own.items()} for own in case.layers()]
    given_ = case.of.given(layers)
    params = case.from_(given_)
    taken = case.of.taken(case.to(params), 1 + case.both)
    arrays = [a for own in taken for a in own.values()]
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in (*params.values(), *arrays))
    assert all(a.base is None for a in params.values())
    sources = [a for own in layers for a in own.values()]
    assert not any(np.shares_memory(a, b) for a in params.values() for b in (*sources, *arrays))


def network(cell: Any, both: bool = False, layers: int = 0, **options: Any) -> Arrays:
    """Params of one cell, of both directions, or of a stack, named "a"."""
    g = gc.Graph("one")
    t = g.axis("t")
    add = functools.partial(gc.cells.bidirectional, cell=cell) if both else cell
    add = functools.partial(gc.cells.stack, cell=add, layers=layers) if layers else add
    add(g, g.input("x", (3,), over=t), units=4, over=t, name="a", **options)
    return gc.initialize(g)


def test_layers_of_a_stack_are_converted_one_by_one() -> None:
    params = network(gc.cells.lstm, layers=2)
    for k in range(2):
        back = gc.cells.from_keras(gc.cells.to_keras(params, "lstm", f"a_{k}"), "lstm", f"a_{k}")
        assert back.keys() == {name for name in params if name.startswith(f"a_{k}_")}
        assert all(np.array_equal(back[name], params[name]) for name in back)


def test_a_cell_comes_before_others_whose_names_begin_alike() -> None:
    one, other = network(gc.cells.elman), network(gc.cells.elman)
    params = one | {f"a_2_{k[2:]}": a + 1 for k, a in other.items()}
    state = gc.cells.to_torch(params, "elman", "a")
    assert state.keys() == {"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    assert np.array_equal(state["weight_ih_l0"], one["a_W_h"])


def ones(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.ones(shape) for shape in shapes]


FOUR, THREE = (
    ones((3, 16), (4, 16), (16,)),
    ones((3, 12), (4, 12), (12,)),
)  # an LSTM of Keras, and a GRU, resetting before
NODE = {"W": np.ones((1, 16, 3)), "R": np.ones((1, 16, 4)), "B": np.ones((1, 32))}
PEEPHOLES = {"P": np.ones((1, 12))}
SIMPLE = {"i": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}, "h": {"kernel": np.ones((4, 4))}}
CELLS = gc.cells

REFUSED: dict[str, tuple[Any, list[str]]] = {
    # what a library does not have
    "torch: reset before": (lambda: CELLS.to_torch(network(CELLS.gru), "gru", "a"), ["reset='before'", "not have"]),
    "flax: reset before": (
        lambda: CELLS.to_flax(network(CELLS.gru), "gru", "a"),
        ["missing: c_n", "Flax does not have"],
    ),
    "keras: peepholes": (
        lambda: CELLS.to_keras(network(CELLS.peephole_lstm), "lstm", "a"),
        ["unknown: p_f, p_i, p_o", "cell='peephole_lstm', another function, which Keras does not have"],
    ),
    "keras: gains": (lambda: CELLS.to_keras(network(CELLS.layer_norm_lstm), "lstm", "a"), ["unknown: gain_f"]),
    "onnx: projection": (
        lambda: CELLS.to_onnx(network(CELLS.projected_lstm, outputs=2), "lstm", "a"),
        ["unknown: P", "U_f (4, 2)", "cell='projected_lstm'", "ONNX does not have"],
    ),
    "flax: mgu": (lambda: CELLS.from_flax({}, "mgu"), ["Flax has the cells elman, lstm, gru, not 'mgu'"]),
    "keras: no cell": (lambda: CELLS.to_keras({}, CELLS.lstm), ["Keras has the cells", "<function lstm"]),
    # another cell, reset or bias than was said
    "keras: another cell": (lambda: CELLS.from_keras(THREE, "lstm"), ["cell='gru', reset='before', which these fit"]),
    "keras: reset of a layer": (
        lambda: CELLS.from_keras(THREE, "gru"),
        ["(2, 3H)", "bias (12,)", "reset='before', which"],
    ),
    "keras: reset of a layer, after": (
        lambda: CELLS.from_keras([*THREE[:2], np.ones((2, 12))], "gru", reset="before"),
        ["bias (2, 12)", "give reset='after', which these fit"],
    ),
    "keras: reset of a cell": (lambda: CELLS.to_keras(network(CELLS.gru), "gru", "a"), ["c_n", "give reset='before'"]),
    "onnx: reset of a cell": (
        lambda: CELLS.to_onnx(network(CELLS.gru, reset="after"), "gru", "a"),
        ["unknown: c_n", "give reset='after'"],
    ),
    "onnx: another cell": (lambda: CELLS.from_onnx(NODE, "gru"), ["W (16, 3)", "give cell='lstm', which these fit"]),
    "onnx: peepholes": (lambda: CELLS.from_onnx(NODE | PEEPHOLES, "lstm"), ["unknown: P", "cell='peephole_lstm'"]),
    "onnx: no peepholes": (lambda: CELLS.from_onnx(NODE, "peephole_lstm"), ["missing: P", "P (3H)", "cell='lstm'"]),
    "onnx: no peepholes of ours": (
        lambda: CELLS.to_onnx(network(CELLS.lstm), "peephole_lstm", "a"),
        ["missing: p_f, p_i, p_o", "give cell='lstm'"],
    ),
    "flax: another cell": (lambda: CELLS.from_flax(SIMPLE, "gru"), ["missing: ir/kernel", "give cell='elman'"]),
    "flax: no biases": (lambda: CELLS.to_flax(network(CELLS.lstm, bias=False), "lstm", "a"), ["give bias=False"]),
    "keras: biases": (lambda: CELLS.from_keras(FOUR, "lstm", bias=False), ["these weights have biases"]),
    "keras: biases of ours": (lambda: CELLS.to_keras(network(CELLS.lstm), "lstm", "a", bias=False), ["unknown: b_f"]),
    "reset": (lambda: CELLS.from_keras(FOUR, "gru", reset="none"), ["got reset='none'"]),
    "update": (lambda: CELLS.to_onnx(network(CELLS.gru), "gru", "a", update="both"), ["got 'both'"]),
    "bias": (lambda: CELLS.from_keras(FOUR, "gru", None, "old", "before"), ["got bias='before'"]),
    "a name that is none": (lambda: CELLS.to_keras(network(CELLS.gru), "gru", 3), ["got name=3"]),
    # numbers and shapes of arrays
    "torch: one bias": (
        lambda: CELLS.from_torch({"weight_ih_l0": FOUR[0].T, "weight_hh_l0": FOUR[1].T, "bias_ih_l0": FOUR[2]}, "lstm"),
        ["missing: bias_hh"],
    ),
    "torch: one matrix": (lambda: CELLS.from_torch({"weight_ih_l0": np.ones((16, 3))}, "lstm"), ["missing: weight_hh"]),
    "keras: five": (lambda: CELLS.from_keras([*FOUR, *FOUR[:2]], "lstm"), ["found 5 arrays, (3, 16), (4, 16), (16,)"]),
    "keras: none": (lambda: CELLS.from_keras([], "lstm"), ["found 0 arrays"]),
    "keras: empty": (lambda: CELLS.from_keras(ones((3, 0), (0, 0), (0,)), "elman"), ["kernel (3, 0)"]),
    "keras: numbers": (lambda: CELLS.from_keras([1, 2, 3], "lstm"), ["kernel ()"]),
    "keras: of PyTorch": (lambda: CELLS.from_keras([a.T for a in FOUR], "lstm"), ["of another shape: kernel (16, 3)"]),
    "keras: two layers": (
        lambda: CELLS.from_keras([*FOUR, *ones((4, 16), (4, 16), (16,))], "lstm"),
        ["H = 4, I = 3", "backward: of another shape: kernel (4, 16)", "layers of a stack are converted one by one"],
    ),
    "keras: a dict": (lambda: CELLS.from_keras({"kernel": FOUR[0]}, "lstm"), ["get_weights() gives", "not a dict"]),
    "keras: no list": (lambda: CELLS.from_keras(None, "lstm"), ["not a NoneType"]),
    "onnx: no directions": (
        lambda: CELLS.from_onnx({k: a[0] for k, a in NODE.items()}, "lstm"),
        ["W (16, 3)", "1 or 2"],
    ),
    "onnx: unlike directions": (lambda: CELLS.from_onnx(NODE | {"B": np.ones((2, 32))}, "lstm"), ["B (2, 32)"]),
    "onnx: another name": (lambda: CELLS.from_onnx(NODE | {"initial_h": FOUR[0]}, "lstm"), ["here are initial_h"]),
    "onnx: no R": (lambda: CELLS.from_onnx({"W": NODE["W"]}, "lstm"), ["R (4H, H)", "missing: R"]),
    "onnx: none": (lambda: CELLS.from_onnx({}, "lstm"), ["found none"]),
    "onnx: a list": (lambda: CELLS.from_onnx(FOUR, "lstm"), ["by the names W, R, B and P", "not a list"]),
    "flax: a model's": (
        lambda: CELLS.from_flax({"SimpleCell_0": SIMPLE, "Dense_0": {"kernel": np.ones(1)}}, "elman"),
        ["unknown: SimpleCell_0/i/kernel"],
    ),
    "flax: a list": (lambda: CELLS.from_flax(FOUR, "lstm"), ["nested dicts", "not a list"]),
    "a stack": (
        lambda: CELLS.to_keras(network(CELLS.lstm, layers=2), "lstm", "a"),
        ["convert each by its own name: 'a_0', 'a_1'"],
    ),
    "some layers": (
        lambda: CELLS.to_torch({k: a for k, a in network(CELLS.elman, layers=3).items() if "1" not in k}, "elman", "a"),
        ["the layers of a stack 'a' are counted from 0; here are params of 0, 2"],
    ),
    "one direction": (
        lambda: CELLS.to_torch({f"a_backward_{k[2:]}": a for k, a in network(CELLS.elman).items()}, "elman", "a"),
        ["forward: missing: W_h, U_h, b_h"],
    ),
    "a shape of ours": (lambda: CELLS.to_keras(network(CELLS.lstm) | {"a_b_i": np.ones(5)}, "lstm", "a"), ["b_i (5,)"]),
    "a name": (lambda: CELLS.to_keras(network(CELLS.lstm), "lstm"), ["no param of a cell 'lstm' among a_W_f"]),
    "a name that resembles others": (
        lambda: CELLS.to_keras({f"axb{k[1:]}": a for k, a in network(CELLS.lstm).items()}, "lstm", "a.b"),
        ["no param of a cell 'a.b' among axb_W_f"],
    ),
    "no params": (lambda: CELLS.to_keras([], "lstm"), ["params by name were expected, not a list"]),
}


@pytest.mark.parametrize(("conversion", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(conversion: Any, said: list[str]) -> None:
    with pytest.raises(GraphError) as refused:
        conversion()
    for words in said:
        assert words in refused.value.reason
