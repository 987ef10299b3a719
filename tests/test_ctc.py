"""gc.ctc_loss: against a sum over all paths, written out, and against PyTorch's; its gradients; what it refuses."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AxisError, DtypeError, GraphError, ShapeError
from graphc.testing import check_gradients
from tests.mistakes import Mistake, Mistakes, check

refused = Mistakes()
C = 3  # classes


@pytest.mark.parametrize(("mistake", "kind", "says"), refused)
def test_mistake(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    check(mistake, kind, says)


def graph(L: int, blank: int = 0, classes: int = C) -> gc.Graph:
    g = gc.Graph("spoken", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    logits = g.input("logits", (classes,), over=(t, n))
    labels = g.input("labels", (L,), over=n, dtype="int32")
    label_lengths = g.input("label_lengths", (), over=n, dtype="int32")
    loss = gc.ctc_loss(g, logits, labels, over=t, label_lengths=label_lengths, blank=blank)
    g.output("each", loss)
    g.output("loss", gc.mean(loss, over=n))
    return g


LABELS = np.array([[1, 1], [1, 2], [2, -7], [2, 1]], np.int32)  # what is past a labelling's length is not read
EXAMPLES: dict[str, Any] = {
    "logits": np.random.default_rng(0).normal(size=(4, 4, C)),
    "lengths": np.array([4, 3, 4, 2], np.int32),
    "label_lengths": np.array([2, 2, 1, 0], np.int32),
}


def all_paths(logits: np.ndarray, labels: list[int], blank: int) -> float:
    """Σ over the paths that are the labels, when repetitions and then blanks are left out."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(C), repeat=len(logits)):
        if [k for k, _ in itertools.groupby(path) if k != blank] == labels:
            total += float(np.prod(p[range(len(path)), path]))
    return -np.log(total)


@pytest.mark.parametrize("blank", [0, 2])
def test_it_sums_over_all_paths(blank: int) -> None:
    arrays = {**EXAMPLES, "labels": np.where(blank == LABELS, 0, LABELS)}
    right = [
        all_paths(arrays["logits"][: arrays["lengths"][k], k], list(arrays["labels"][k, :many]), blank)
        for k, many in enumerate(arrays["label_lengths"])
    ]
    g = graph(2, blank)
    for found in (gc.interpret(g, **arrays), gc.compile(g)(**arrays)):
        np.testing.assert_allclose(found["each"], right, rtol=1e-12)


def test_its_gradient() -> None:
    check_gradients(graph(2), "loss", arrays={**EXAMPLES, "labels": LABELS})


def test_too_few_steps_are_impossible() -> None:
    arrays = {**EXAMPLES, "labels": LABELS, "lengths": np.array([2, 1, 0, 0], np.int32)}
    found = gc.compile(gc.grad(graph(2), "loss", wrt="logits"))(**arrays)
    np.testing.assert_array_equal(found["each"], [np.inf, np.inf, np.inf, 0])
    assert not found["grad_logits"].any()


def test_it_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    arrays = {
        "logits": rng.normal(size=(30, 5, 8)),
        "labels": rng.integers(1, 8, (5, 6)).astype(np.int32),
        "lengths": np.array([30, 12, 20, 25, 30], np.int32),
        "label_lengths": np.array([6, 5, 1, 4, 6], np.int32),
    }
    found = gc.compile(gc.grad(graph(6, classes=8), "loss", wrt="logits"))(**arrays)
    logits, *others = (torch.tensor(array) for array in arrays.values())
    logits.requires_grad_()
    right = torch.nn.functional.ctc_loss(logits.log_softmax(-1), *others, reduction="none")
    right.mean().backward()
    np.testing.assert_allclose(found["each"], right.detach(), rtol=1e-12)
    np.testing.assert_allclose(found["grad_logits"], logits.grad, rtol=1e-9, atol=1e-14)


def parts() -> tuple[gc.Graph, Any, gc.Value, gc.Value]:
    g = gc.Graph("spoken")
    t, n = g.axis("t"), g.axis("n")
    return g, t, g.input("logits", (C,), over=(t, n)), g.input("labels", (2,), over=n, dtype="int32")


@refused(ShapeError, "labels of event (L,), got (3,) and ()")
def label_at_each_step() -> None:
    g, t, logits, labels = parts()
    gc.ctc_loss(g, logits, labels[0], over=t)  # here


@refused(DtypeError, "int32 numbers of classes, got float32")
def labels_that_are_floats() -> None:
    g, t, logits, labels = parts()
    gc.ctc_loss(g, logits, gc.cast(labels, "float32"), over=t)  # here


@refused(AxisError, "goes along axis 'n', over which logits vary and labels do not")
def loss_along_the_batch() -> None:
    g, _, logits, labels = parts()
    gc.ctc_loss(g, logits, labels, over=g.axes["n"])  # here
