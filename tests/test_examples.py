"""Every system in examples/ against its equations written again as numpy loops: outputs, loss, and gradients.

The examples are float32; here their graphs are built in float64.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc as gc

EXAMPLES = Path(__file__).parent.parent / "examples"
Results = dict[str, np.ndarray]
T, N = 6, 3


@functools.cache
def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def softmax(o: np.ndarray) -> np.ndarray:
    e = np.exp(o - o.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(o: np.ndarray, y: np.ndarray) -> np.ndarray:
    return -np.log(np.take_along_axis(softmax(o), y[..., None], -1)[..., 0])


def scan(step: Callable[[Any, np.ndarray], Any], start: Any, x: np.ndarray) -> list[Any]:
    states = []
    for x_t in x:
        start = step(start, x_t)
        states.append(start)
    return states


def plain(a: SimpleNamespace, x: np.ndarray) -> np.ndarray:
    """h = tanh(U x + W h′ + b), from 0."""
    start = np.zeros((N, len(a.W)))
    return np.stack(scan(lambda h, x_t: np.tanh(x_t @ a.U.T + h @ a.W.T + a.b), start, x))


def autonomous(a: SimpleNamespace) -> Results:
    h = np.stack(scan(lambda h, _: np.tanh(h @ a.W.T + a.b), a.h0, a.y))
    return {"h": h, "loss": ((h - a.y) ** 2).sum(-1).mean()}


def driven(a: SimpleNamespace) -> Results:
    h = np.stack(scan(lambda h, x: np.tanh(h @ a.W.T + x @ a.U.T + a.b), a.h0, a.x))
    return {"h": h, "loss": ((h - a.y) ** 2).sum(-1).mean()}


def hidden_to_hidden(a: SimpleNamespace) -> Results:
    o = plain(a, a.x) @ a.V.T + a.c
    return {"o": o, "loss": cross_entropy(o, a.y).mean()}


def output_to_hidden(a: SimpleNamespace) -> Results:
    start = np.zeros((N, len(a.c)))
    o = np.stack(scan(lambda o, x: np.tanh(x @ a.U.T + o @ a.W.T + a.b) @ a.V.T + a.c, start, a.x))
    return {"o": o, "loss": cross_entropy(o, a.y).mean()}


def one_output(a: SimpleNamespace) -> Results:
    o = plain(a, a.x)[-1] @ a.V.T + a.c
    return {"o": o, "loss": cross_entropy(o, a.y[-1]).mean()}


def elman(a: SimpleNamespace) -> Results:
    o = plain(a, a.x) @ a.V.T + a.c
    return {"p": softmax(o), "loss": cross_entropy(o, a.y).sum(0).mean()}


def jordan(a: SimpleNamespace) -> Results:
    def step(p: np.ndarray, x: np.ndarray) -> np.ndarray:
        return sigmoid(np.tanh(x @ a.U.T + p @ a.W.T + a.b) @ a.V.T + a.c)

    p = np.stack(scan(step, np.zeros((N, len(a.c))), a.x))
    return {"p": p, "loss": ((p - a.y) ** 2).sum(-1).mean()}


def training_problem(a: SimpleNamespace, euclidean: bool = False) -> Results:
    """Each sequence by itself, cut to its length."""
    p, J = np.zeros((T, N, len(a.c))), 0.0
    for n, length in enumerate(a.lengths):
        h = np.zeros(len(a.b))
        for t in range(length):
            h = np.tanh(a.U @ a.x[t, n] + a.W @ h + a.b)
            p[t, n] = softmax(a.V @ h + a.c)
            d = p[t, n] - np.eye(len(a.c))[a.y[t, n]]
            J += np.sqrt((d**2).sum()) if euclidean else -np.log(p[t, n, a.y[t, n]])
    return {"p": p, "loss": np.asarray(J / N)}


def deep_transition(a: SimpleNamespace) -> Results:
    def step(h: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.tanh(np.tanh(np.tanh(x @ a.U.T + h @ a.W.T + a.b) @ a.U_2) @ a.U_3)

    o = np.stack(scan(step, np.zeros((N, len(a.b))), a.x)) @ a.V.T + a.c
    return {"p": softmax(o), "loss": cross_entropy(o, a.y).mean()}


def deep_output(a: SimpleNamespace) -> Results:
    o = np.tanh(np.tanh(plain(a, a.x) @ a.V.T + a.c) @ a.V_2) @ a.V_3
    return {"p": softmax(o), "loss": cross_entropy(o, a.y).mean()}


def stack(a: SimpleNamespace) -> Results:
    below = a.x
    for W, U in ((a.W_1, a.U_1), (a.W_2, a.U_2), (a.W_3, a.U_3)):
        below = np.stack(scan(lambda h, x, W=W, U=U: np.tanh(h @ W + x @ U), np.zeros((N, len(W))), below))
    o = below @ a.V.T + a.c
    return {"p": softmax(o), "loss": cross_entropy(o, a.y).mean()}


def lstm(a: SimpleNamespace) -> Results:
    def step(state: tuple[np.ndarray, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h, C = state
        hx = np.concatenate([h, x], -1)
        f, i, o = (sigmoid(hx @ W.T + b) for W, b in ((a.W_f, a.b_f), (a.W_i, a.b_i), (a.W_o, a.b_o)))
        C = f * C + i * np.tanh(hx @ a.W_C.T + a.b_C)
        return o * np.tanh(C), C

    zero = np.zeros((N, len(a.b_f)))
    logits = scan(step, (zero, zero), a.x)[-1][0] @ a.V.T + a.c
    return {"p": softmax(logits), "loss": cross_entropy(logits, a.y).mean()}


def gru(a: SimpleNamespace) -> Results:
    def step(h: np.ndarray, x: np.ndarray) -> np.ndarray:
        r = sigmoid(x @ a.W_r.T + h @ a.U_r.T + a.b_r)
        z = sigmoid(x @ a.W_z.T + h @ a.U_z.T + a.b_z)
        return h + z * (np.tanh(x @ a.W.T + (r * h) @ a.U.T + a.b) - h)

    o = (scan(step, np.zeros((N, len(a.b))), a.x)[-1] @ a.V.T + a.c)[:, 0]
    return {"o": o, "loss": ((o - a.y) ** 2).mean()}


def bidirectional(a: SimpleNamespace) -> Results:
    forward = plain(SimpleNamespace(U=a.U_f, W=a.W_f, b=a.b_f), a.x)
    backward = plain(SimpleNamespace(U=a.U_b, W=a.W_b, b=a.b_b), a.x[::-1])[::-1]
    o = np.concatenate([forward, backward], -1) @ a.V.T + a.c
    return {"p": softmax(o), "loss": cross_entropy(o, a.y).mean()}


def recurrent_block(a: SimpleNamespace, size: int = 2) -> Results:
    """Block by block: each is the pixels of its place, in the order of channels, rows and columns."""
    I = J = a.image.shape[-1] // size

    def sweep(name: str, read: np.ndarray, di: int, dj: int) -> np.ndarray:
        W, U, b = (getattr(a, f"{letter}_{name}") for letter in "WUb")
        made = np.zeros((I + 2, J + 2, N, len(b)))  # with a border of zeros
        for i in range(I)[:: di or 1]:
            for j in range(J)[:: dj or 1]:
                made[i + 1, j + 1] = np.tanh(read[i, j] @ W.T + made[i + 1 - di, j + 1 - dj] @ U.T + b)
        return made[1:-1, 1:-1]

    def block(i: int, j: int) -> np.ndarray:
        return a.image[:, :, i * size : (i + 1) * size, j * size : (j + 1) * size].reshape(N, -1)

    p = np.array([[block(i, j) for j in range(J)] for i in range(I)])
    vertical = np.concatenate([sweep("down", p, 1, 0), sweep("up", p, -1, 0)], -1)
    horizontal = np.concatenate([sweep("right", vertical, 0, 1), sweep("left", vertical, 0, -1)], -1)
    o = (horizontal @ a.V.T + a.c).transpose(2, 0, 1, 3)
    return {"features": horizontal.transpose(2, 3, 0, 1), "p": softmax(o), "loss": cross_entropy(o, a.y).mean()}


def bptt(a: SimpleNamespace) -> Results:
    return {"loss": elman(a)["loss"]}


REFERENCES: dict[tuple[str, str], Callable[[SimpleNamespace], Results]] = {
    ("dynamical_system", "autonomous"): autonomous,
    ("dynamical_system", "driven"): driven,
    ("three_patterns", "hidden_to_hidden"): hidden_to_hidden,
    ("three_patterns", "output_to_hidden"): output_to_hidden,
    ("three_patterns", "one_output"): one_output,
    ("elman", "graph"): elman,
    ("jordan", "graph"): jordan,
    ("training_problem", "graph"): training_problem,
    ("training_problem", "graph:euclidean"): functools.partial(training_problem, euclidean=True),
    ("bptt", "network"): bptt,
    ("deep_rnn", "deep_transition"): deep_transition,
    ("deep_rnn", "deep_output"): deep_output,
    ("stack", "graph"): stack,
    ("lstm", "graph"): lstm,
    ("gru", "graph"): gru,
    ("bidirectional", "graph"): bidirectional,
    ("recurrent_block", "graph"): recurrent_block,
}
FILES = sorted(
    path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("reseg")
)  # tested in files of their own


def build(monkeypatch: pytest.MonkeyPatch, file: str, function: str) -> gc.Graph:
    monkeypatch.setattr(gc, "Graph", functools.partial(gc.Graph, dtype="float64"))
    name, *arguments = function.split(":")
    g = getattr(load(file), name)(*arguments)
    monkeypatch.undo()
    assert isinstance(g, gc.Graph)
    return g


def arrays_for(file: str, g: gc.Graph) -> dict[str, np.ndarray]:
    """The example's data, and random params: biases too."""
    rng = np.random.default_rng(7)
    steps = {"T": T} if "t" in g.axes else {}
    data = {k: a.astype(g.inputs[k].dtype) for k, a in load(file).data(seed=1, N=N, **steps).items() if k in g.inputs}
    return {**data, **{k: rng.normal(size=p.node.shape) * 0.7 for k, p in g.params.items()}}


def same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    for k, value in expected.items():
        np.testing.assert_allclose(found[k], value, rtol=1e-10, atol=1e-13, err_msg=k)


@pytest.mark.parametrize(("file", "function"), REFERENCES)
def test_outputs_and_gradients_follow_the_equations(monkeypatch: pytest.MonkeyPatch, file: str, function: str) -> None:
    reference = REFERENCES[file, function]
    g = build(monkeypatch, file, function)
    arrays = arrays_for(file, g)
    dg = gc.grad(g, "loss")
    found = gc.interpret(dg, **arrays)
    same(found, reference(SimpleNamespace(**arrays)))
    assert set(reference(SimpleNamespace(**arrays))) == set(g.outputs)
    same(gc.compile(dg)(**arrays), found)

    rng = np.random.default_rng(1)
    for name in g.params:
        direction = rng.normal(size=arrays[name].shape)
        above, below = (
            reference(SimpleNamespace(**{**arrays, name: arrays[name] + e * direction}))["loss"] for e in (1e-6, -1e-6)
        )
        slope = (found[f"grad_{name}"] * direction).sum()
        assert slope == pytest.approx((above - below) / 2e-6, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("file", FILES)
def test_each_example_shows_one_graph_and_unrolls(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """`graph()` is what the command line takes."""
    g = build(monkeypatch, file, "graph")
    assert "loss" in g.outputs
    assert "examples" in str(next(iter(g.locations.values())))
    if file != "training_problem":  # its lengths come with the data
        flat = gc.unroll(g, **({"t": T} if "t" in g.axes else {"i": 4, "j": 4}))
        arrays, other = arrays_for(file, g), arrays_for(file, g)
        same(gc.interpret(flat, **arrays), gc.interpret(g, **other))
        same(arrays, other)


def test_the_references_cover_every_example() -> None:
    assert {file for file, _ in REFERENCES} == set(FILES)


def test_a_step_of_bptt_is_gradient_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    g = build(monkeypatch, "bptt", "graph")
    arrays = arrays_for("bptt", g)
    before = {k: a.copy() for k, a in arrays.items()}
    found = gc.compile(g)(**arrays)
    for name in g.params:
        np.testing.assert_allclose(arrays[name], before[name] - 0.1 * found[f"grad_{name}"], rtol=1e-12)
    assert gc.compile(g)(**arrays)["loss"] < found["loss"]


@pytest.mark.parametrize("file", FILES)
def test_each_example_runs_and_learns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    """What is printed shows the loss fall to less than a third. The drawings are only asked for here."""
    drawn: list[str] = []
    monkeypatch.setattr(gc, "draw", lambda g: SimpleNamespace(save=drawn.append))
    load(file).main()
    losses = re.findall(r"(?:loss|J|error) ([\d.]+)(?: → ([\d.]+))?", capsys.readouterr().out)
    for first, last in [pair for pair in losses if pair[1]] or [(losses[0][0], losses[-1][0])]:
        assert float(last) < float(first) / 3
    assert drawn
    assert all(path.endswith(".svg") for path in drawn)
