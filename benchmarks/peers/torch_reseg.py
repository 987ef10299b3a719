"""The image model of `examples/reseg.py` in PyTorch: the same layers by the same names, to check and to time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import graphc as gc
from benchmarks.images import DECAY, MOMENTUM, RATE
from benchmarks.problems import Arrays

EPS = 1e-3  # neon's


class SpatialRNN(nn.Module):
    """Blocks of 2 × 2 read down and up the columns, then what came of that to the right and left."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        self.vertical = nn.RNN(4 * channels, units, bidirectional=True)
        self.horizontal = nn.RNN(2 * units, units, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, height, width = x.shape
        rows, columns = height // 2, width // 2
        blocks = x.reshape(n, c, rows, 2, columns, 2).permute(2, 4, 0, 1, 3, 5)  # i, j, n, then the block
        down_and_up, _ = self.vertical(blocks.reshape(rows, columns * n, 4 * c))
        lines = down_and_up.reshape(rows, columns, n, -1).transpose(0, 1)  # j, i, n, units
        across, _ = self.horizontal(lines.reshape(columns, rows * n, -1))
        return across.reshape(columns, rows, n, -1).permute(2, 3, 1, 0)


class ReSeg(nn.Module):
    """The layers by the names that they have in the example."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        sizes = [3, 32, 64, 128, 256]
        layers: dict[str, nn.Module] = {"norm_0": nn.BatchNorm2d(3, eps=EPS)}
        for k in range(1, 5):
            conv = nn.Conv2d(sizes[k - 1], sizes[k], 3, padding=2, dilation=2)
            layers |= {f"conv_{k}": conv, f"relu_{k}": nn.ReLU(), f"norm_{k}": nn.BatchNorm2d(sizes[k], eps=EPS)}
            layers |= {f"pool_{k}": nn.MaxPool2d(3, 2, padding=1)} if k < 4 else {}
        for k, (channels, units) in {5: (256, 256), 6: (512, 512)}.items():
            layers |= {f"rnn_{k}": SpatialRNN(channels, units), f"norm_{k}": nn.BatchNorm2d(2 * units, eps=EPS)}
        self.layers = nn.ModuleDict({**layers, "conv_7": nn.Conv2d(1024, classes, 1, padding=1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The scores of the classes."""
        x = x / 128
        for layer in self.layers.values():
            x = layer(x)
        return torch.relu(x).mean((2, 3))


def training(
    model: ReSeg, x: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype = torch.float32
) -> tuple[Any, Callable[[], Any]]:
    """The lecture's optimiser, and a step of it on a batch, which gives the loss; products are of a dtype."""
    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moved, RATE, MOMENTUM, weight_decay=DECAY)

    def step() -> Any:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            scores = model(x)
        loss = F.cross_entropy(scores.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return optimizer, step


def named(model: ReSeg, of: Callable[[Any], Any]) -> Arrays:
    """What `of` says of each of PyTorch's params (itself, its gradient, …), by the graph's names.

    PyTorch has two biases a direction, of which the second is held at 0 here.
    """
    found: Arrays = {}
    for name, layer in model.layers.items():
        if isinstance(layer, SpatialRNN):
            for side in ("vertical", "horizontal"):
                state = {k: of(p).detach().numpy() for k, p in getattr(layer, side).named_parameters()}
                state |= {k: np.zeros_like(a) for k, a in state.items() if k.startswith("bias_hh")}
                found |= gc.cells.from_torch(state, "elman", f"{name}_{side}")
        else:
            for letter, p in zip(_letters(name), layer.parameters(), strict=False):
                found[f"{name}_{letter}"] = of(p).detach().numpy()
    return found


def _letters(layer: str) -> tuple[str, str]:
    return ("gamma", "beta") if layer.startswith("norm") else ("W", "b")


def statistics(model: ReSeg) -> Arrays:
    """The running means and variances, by the graph's names."""
    norms = {name: layer for name, layer in model.layers.items() if isinstance(layer, nn.BatchNorm2d)}
    means = {f"{name}_mean": layer.running_mean.numpy() for name, layer in norms.items()}
    return means | {f"{name}_var": layer.running_var.numpy() for name, layer in norms.items()}


def with_params(params: Arrays) -> ReSeg:
    """The model with the graph's params and statistics; the biases that only PyTorch has stay 0 and are not trained."""
    model = ReSeg(classes=len(params["conv_7_b"]))
    state: dict[str, torch.Tensor] = {}
    for name, layer in model.layers.items():
        if isinstance(layer, SpatialRNN):
            for side in ("vertical", "horizontal"):
                weights = gc.cells.to_torch(params, "elman", f"{name}_{side}")
                state |= {f"layers.{name}.{side}.{k}": torch.tensor(a) for k, a in weights.items()}
        else:
            ours = {
                k: params.get(f"{name}_{letter}") for k, letter in zip(("weight", "bias"), _letters(name), strict=True)
            }
            state |= {f"layers.{name}.{k}": torch.tensor(a) for k, a in ours.items() if a is not None}
            if isinstance(layer, nn.BatchNorm2d):
                state |= {f"layers.{name}.running_{k}": torch.tensor(params[f"{name}_{k}"]) for k in ("mean", "var")}
                state[f"layers.{name}.num_batches_tracked"] = torch.tensor(0)
    model.load_state_dict(state)
    for name, p in model.named_parameters():
        p.requires_grad_("bias_hh" not in name)
    return model
