"""The lecture's image model against a PyTorch model of the same layers, in float64.

Shapes at every layer, the number of params, and with the same weights: probabilities, loss, every gradient, what one
step of training leaves in params and running statistics, and inference. Skipped, visibly, where PyTorch is not
installed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.command_line.user_file import load_module
from graphc.ir import topological

torch = pytest.importorskip("torch")
nn = torch.nn

from benchmarks.peers.torch_reseg import ReSeg, named, statistics  # noqa: E402  (it imports PyTorch)

EXAMPLE = Path(__file__).parent.parent / "examples" / "reseg.py"
Arrays = dict[str, np.ndarray]
IMAGE, N = (3, 64, 64), 3
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4  # the lecture's

# Each layer's output for the lecture's photographs, as (layer, shape).
SHAPES = [
    ("norm_0", (3, 128, 128)),
    ("conv_1", (32, 128, 128)),
    ("norm_1", (32, 128, 128)),
    ("pool_1", (32, 64, 64)),
    ("conv_2", (64, 64, 64)),
    ("norm_2", (64, 64, 64)),
    ("pool_2", (64, 32, 32)),
    ("conv_3", (128, 32, 32)),
    ("norm_3", (128, 32, 32)),
    ("pool_3", (128, 16, 16)),
    ("conv_4", (256, 16, 16)),
    ("norm_4", (256, 16, 16)),
    ("rnn_5", (512, 8, 8)),
    ("norm_5", (512, 8, 8)),
    ("rnn_6", (1024, 4, 4)),
    ("norm_6", (1024, 4, 4)),
    ("conv_7", (2, 6, 6)),
]


def make(image: tuple[int, int, int], dtype: str = "float32") -> gc.Graph:
    module = load_module(EXAMPLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "Graph", functools.partial(gc.Graph, dtype=dtype))
        g = module.reseg(image=image)
    assert isinstance(g, gc.Graph)
    return g


# Sizes.


def test_the_shape_at_every_layer() -> None:
    g, model, seen = make((3, 128, 128)), ReSeg(), []
    nodes = topological([*(s.body for s in g.states.values() if s.body is not None), *g.outputs.values()])
    found: dict[str, list[tuple[int, ...]]] = {}
    for op, kind in {"batch_norm": "norm", "relu": "conv", "max": "pool"}.items():
        found[kind] = [node.shape for node in nodes if node.op.name == op and len(node.shape) == 3]
    found["rnn"] = [tuple(g.axes[f"rnn_{k}_{a}"].length for a in "ij") for k in (5, 6)]
    for kind, shapes in found.items():
        listed = [shape for name, shape in SHAPES if name.startswith(kind)]
        assert shapes == ([shape[1:] for shape in listed] if kind == "rnn" else listed), kind

    for name, layer in model.layers.items():
        if not name.startswith("relu"):
            layer.register_forward_hook(lambda _, __, y, name=name: seen.append((name, tuple(y.shape[1:]))))
    model.eval()(torch.zeros(1, 3, 128, 128))
    assert seen == SHAPES


def test_how_many_params_there_are() -> None:
    """5,640,456 learn: weights and biases of 5 convolutions, γ and β of 7 normalisations, and for each of 8 directions
    two matrices and one bias. PyTorch's second bias a direction makes it 5,643,528.

    5,643,976, a figure that one meets for this model in PyTorch, is 448 more: γ and β of a further normalisation after
    each of the three poolings (32, 64 and 128 channels), which the lecture's list of layers does not have.
    """
    g = make((3, 128, 128))
    sizes = {name: int(np.prod(p.node.shape)) for name, p in g.params.items() if p.trainable}
    convolutions = sum(size for name, size in sizes.items() if name.startswith("conv"))
    norms = sum(size for name, size in sizes.items() if name.startswith("norm"))
    matrices = sum(size for name, size in sizes.items() if name.startswith("rnn") and not name.endswith("_b_h"))
    biases = sum(size for name, size in sizes.items() if name.startswith("rnn") and name.endswith("_b_h"))
    assert (convolutions, norms, matrices, biases) == (390_466, 4_038, 5_242_880, 3_072)
    assert sum(sizes.values()) == 5_640_456
    assert sum(p.numel() for p in ReSeg().parameters()) == 5_640_456 + biases == 5_643_528
    assert 5_643_528 + 2 * (32 + 64 + 128) == 5_643_976
    kept = {name: p.node.shape[0] for name, p in g.params.items() if not p.trainable}
    assert sum(kept.values()) == norms  # a running mean for each β, a running variance for each γ


# Values.


@dataclass(frozen=True)
class Case:
    """The graph and PyTorch's model with the same params and running statistics, and what both are given."""

    g: gc.Graph
    model: ReSeg
    given: Arrays
    state: Arrays


def case() -> Case:
    g, rng = make(IMAGE, "float64"), np.random.default_rng(0)
    given = {"image": rng.uniform(0, 255, (N, *IMAGE)), "label": np.array([0, 1, 1], np.int32)}
    torch.manual_seed(0)
    model = ReSeg().double()
    for name, p in model.named_parameters():
        p.requires_grad_("bias_hh" not in name)
        if p.ndim == 1:  # a γ is about 1, a bias about 0
            p.data = torch.tensor(rng.normal(p.data.mean() > 0.5, 0.1, p.shape)) * p.requires_grad
    for layer in model.layers.values():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(torch.tensor(rng.normal(0, 0.1, layer.num_features)))
            layer.running_var.copy_(torch.tensor(rng.uniform(0.2, 2, layer.num_features)))
    state = {name: a.copy() for name, a in {**named(model, lambda p: p), **statistics(model)}.items()}
    assert set(state) == set(g.params)
    return Case(g, model, given, state)


def close(found: Any, expected: np.ndarray, name: str) -> None:
    """Within 1e-10 of the largest element."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * max(1e-6, np.abs(expected).max()), err_msg=name)


def test_a_step_of_training() -> None:
    """Probabilities, loss and every gradient; what momentum and decay make of each param, biases too; the running
    statistics, of which neon's variance is the population's."""
    at = case()
    dg = gc.grad(at.g, "loss")
    step = gc.training_step(dg, "loss", gc.optim.Momentum(RATE, MOMENTUM, DECAY))
    after = {name: a.copy() for name, a in {**gc.initialize(step), **at.state}.items()}
    interpreted = gc.interpret(dg, **at.given, **{name: a.copy() for name, a in at.state.items()})
    compiled = gc.compile(step)(**at.given, **after)

    moved = [p for p in at.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moved, RATE, MOMENTUM, weight_decay=DECAY)
    scores = at.model(torch.tensor(at.given["image"]))
    loss = nn.functional.cross_entropy(scores, torch.tensor(at.given["label"]).long())
    loss.backward()
    gradients = named(at.model, lambda p: p if p.grad is None else p.grad)
    assert set(gradients) == {name for name, p in at.g.params.items() if p.trainable}
    for found in (interpreted, compiled):
        close(found["loss"], loss.detach().numpy(), "loss")
        close(found["probabilities"], torch.softmax(scores, 1).detach().numpy(), "probabilities")
        for name, value in gradients.items():
            assert np.abs(value).max() > 1e-6, name
            close(found[f"grad_{name}"], value, name)

    optimizer.step()
    for name, value in named(at.model, lambda p: p).items():
        close(after[name], value, name)
    for name, value in statistics(at.model).items():
        if name.endswith("_var"):
            count = N * pixels(name.removesuffix("_var"))
            value = 0.9 * at.state[name] + (value - 0.9 * at.state[name]) * (count - 1) / count
        close(after[name], value, name)


def pixels(layer: str) -> int:
    """Of an image of half the height and width of those in the table."""
    _, height, width = dict(SHAPES)[layer]
    return height * width // 4


def test_inference() -> None:
    at = case()
    model = gc.select(gc.inference(at.g), "probabilities")
    run, params = gc.compile(model), {name: at.state[name].copy() for name in model.params}
    scores = at.model.eval()(torch.tensor(at.given["image"]))
    found = run(image=at.given["image"], **params)["probabilities"]
    close(found, torch.softmax(scores, 1).detach().numpy(), "probabilities")
    close(gc.interpret(model, image=at.given["image"], **params)["probabilities"], found, "interpreted")
    close(run(image=at.given["image"][1:2], **params)["probabilities"], found[1:2], "one photograph alone")
    assert all((params[name] == at.state[name]).all() for name in params)
