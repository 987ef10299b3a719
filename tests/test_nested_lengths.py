"""Lengths that vary over an axis that has lengths itself: the words of each sentence of each text."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArgumentError
from graphc.testing import check_gradients

RUNS = {"interpreted": gc.interpret, "compiled": lambda graph, **arrays: gc.compile(graph)(**arrays)}
SENTENCES = np.array([3, 1, 2], np.int32)
WORDS = np.array([[2, 4, 1], [3, 0, 4], [1, 0, 0]], np.int32)  # (sentence, text)


def network(order: tuple[str, ...]) -> gc.Graph:
    """Words both ways, weighed against each other; of these the sentences, and of all of a text its mean."""
    g = gc.Graph("texts", dtype="float64")
    n = g.axis("n")
    s = g.axis("s", g.input("sentences", (), over=n, dtype="int32"))
    w = g.axis("w", g.input("words", (), over=(s, n), dtype="int32"))
    axes = [g.axes[name] for name in order]
    x = gc.embedding(g.param("E", (7, 3)), g.input("word", (), over=axes, dtype="int32"))
    W = g.param("W", (3, 3))
    h, b = (g.state(name, (3,), over=axes) for name in "hb")
    h[w] = gc.tanh(W @ h[w - 1] + x)
    b[w] = gc.tanh(W @ b[w + 1] + h)
    c = g.state("c", (3,), over=(s, n))
    read = gc.sum(gc.softmax(gc.sum(h * b), over=w) * h, over=w)
    c[s] = gc.tanh(W @ c[s - 1] + read + gc.max(b, over=w) + h[w.last] + b[w.first])
    g.output("c", c)
    g.output("mean", gc.mean(h, over=(w, s)))
    g.output("total", gc.sum(h, over=(w, s, n)))
    g.output("loss", gc.sum(gc.sum(c[s.last] ** 2), over=n))
    return g


def arrays(graph: gc.Graph, order: tuple[str, ...]) -> dict[str, np.ndarray]:
    word = np.random.default_rng(0).integers(0, 7, (4, 3, 3)).astype(np.int32)  # (w, s, n)
    return {
        "sentences": SENTENCES,
        "words": WORDS,
        "word": word.transpose(["wsn".index(name) for name in order]).copy(),
        **gc.initialize(graph, seed=1),
    }


def expected(given: dict[str, np.ndarray], order: tuple[str, ...]) -> dict[str, np.ndarray]:
    word = given["word"].transpose([order.index(name) for name in "wsn"])
    W, E = given["W"], given["E"]
    c, mean, total = np.zeros((3, 3, 3)), np.zeros((3, 3)), np.zeros(3)
    for n, sentences in enumerate(SENTENCES):
        before, of_text = np.zeros(3), []
        for s in range(sentences):
            h, b = np.zeros((2, WORDS[s, n] + 2, 3))
            for w in range(WORDS[s, n]):
                h[w + 1] = np.tanh(W @ h[w] + E[word[w, s, n]])
            for w in reversed(range(WORDS[s, n])):
                b[w + 1] = np.tanh(W @ b[w + 2] + h[w + 1])
            h, b = h[1:-1], b[1:-1]
            weights = np.exp((h * b).sum(axis=1))
            before = np.tanh(W @ before + weights / weights.sum() @ h + b.max(axis=0) + h[-1] + b[0])
            c[s, n] = before
            of_text += [*h]
        mean[n] = np.mean(of_text, axis=0)
        total += np.sum(of_text, axis=0)
    return {"c": c, "mean": mean, "total": total}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("order", [*permutations("wsn")], ids="".join)
def test_values(run: str, order: tuple[str, ...]) -> None:
    g = network(order)
    given = arrays(g, order)
    found = RUNS[run](g, **given)
    for name, array in expected(given, order).items():
        np.testing.assert_allclose(found[name], array, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("run", RUNS)
def test_derivatives(run: str) -> None:
    g = network(("s", "w", "n"))
    check_gradients(g, "loss", ["E", "W"], arrays(g, ("s", "w", "n")), run=RUNS[run])


@pytest.mark.parametrize("lengths", [{"w": 4}, {"w": 4, "s": 3}], ids=str)
def test_unrolled(lengths: dict[str, int]) -> None:
    order = ("n", "w", "s")
    g = network(order)
    given = arrays(g, order)
    found = gc.compile(gc.grad(gc.unroll(g, **lengths), "loss"))(**given)
    for name, array in gc.interpret(gc.grad(g, "loss"), **given).items():
        np.testing.assert_allclose(found[name], array, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("run", RUNS)
def test_a_length_in_the_padding_of_lengths_is_any_that_fits(run: str) -> None:
    order = ("s", "w", "n")
    g, given = network(order), arrays(network(order), order)
    padding = np.arange(3)[:, None] >= SENTENCES
    given["words"] = np.where(padding, 4, WORDS).astype(np.int32)
    for name, array in expected(given, order).items():
        np.testing.assert_allclose(RUNS[run](g, **given)[name], array, atol=1e-12, err_msg=name)
    given["words"][padding] = -1
    with pytest.raises(ArgumentError, match=r"words holds lengths from -1 to 4, .* its padding is a length, too"):
        RUNS[run](g, **given)
