"""Recurrent layers on a GPU, beside cuDNN through PyTorch: `python -m benchmarks.cuda`.

Workloads of the field's papers on fast recurrence, forward and with gradients. Arrays lie on the device. The results
are compared with the CPU's before times are taken, and samples of both peers alternate. What ran is printed with the
date and the GPU. Without a GPU nothing is measured, and that is said.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

import graphc as gc
from graphc.codegen.cuda.driver import nvidia_device
from graphc.codegen.cuda.mma import Precision
from graphc.cuda_compile import CompiledCuda
from graphc.errors import UnsupportedError
from graphc.ir import Axis


@dataclass(frozen=True)
class Layer:
    """One recurrent layer: a cell of the library's, its sizes, and what products are rounded to. With several heads of
    `units` each it is an LSTM whose recurrent weights are block-diagonal, and whose input is already projected."""

    cell: str
    units: int
    steps: int
    batch: int
    precision: Precision
    heads: int = 1

    def __str__(self) -> str:
        size = f"{self.heads} × {self.units}" if self.heads > 1 else str(self.units)
        return f"{self.cell} {size} T{self.steps} B{self.batch} {self.precision}"


LAYERS = (
    Layer("lstm", 768, 1024, 16, "f16"),
    Layer("lstm", 768, 1024, 16, "bf16"),
    Layer("gru", 512, 1024, 64, "bf16"),
    Layer("lstm", 256, 1024, 16, "float32"),
    Layer("lstm", 64, 1024, 512, "bf16"),
    Layer("lstm", 64, 1024, 16, "bf16", heads=12),
    Layer("lstm", 128, 1024, 16, "bf16", heads=6),
    Layer("lstm", 256, 1024, 16, "bf16", heads=3),
    Layer("peephole_lstm", 128, 256, 16, "float32"),
    Layer("slstm", 128, 256, 16, "float32"),
)


def layer_graph(layer: Layer, backward: bool) -> gc.Graph:
    g = gc.Graph("layer")
    t, n = g.axis("t"), g.axis("n")
    if layer.heads > 1:
        h: gc.Value = head_wise(g, t, n, layer)
    else:
        x = g.input("x", (layer.units,), over=(t, n))
        h = getattr(gc.cells, layer.cell)(g, x, layer.units, over=t, name="cell").h
    g.output("h", h)
    if not backward:
        return g
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return gc.grad(g, "loss")


def head_wise(g: gc.Graph, t: Axis, n: Axis, layer: Layer) -> gc.Value:
    """An LSTM whose heads see their own states alone."""
    shape = (layer.heads, layer.units)
    x = g.input("x", (4, *shape), over=(t, n))
    h, c = g.state("h", shape, over=(t, n)), g.state("c", shape, over=(t, n))

    def gate(k: int) -> gc.Value:
        weights = g.param(f"R_{k}", (*shape, layer.units))
        return x[k] + gc.einsum("hmk,hk->hm", weights, h[t - 1])

    f, i, o, z = (gate(k) for k in range(4))
    c[t] = gc.sigmoid(f) * c[t - 1] + gc.sigmoid(i) * gc.tanh(z)
    h[t] = gc.sigmoid(o) * gc.tanh(c)
    return h


def seconds(run: Callable[[], object], wait: Callable[[], None]) -> float:
    run()
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def torch_layer(layer: Layer, x: np.ndarray, backward: bool) -> Any:
    """A layer of this kind and size of PyTorch's, and how to wait for it; None where there is none."""
    try:
        import torch
    except ImportError:
        return None
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(layer.cell)
    if kind is None or layer.heads > 1 or not torch.cuda.is_available():
        return None
    dtype = {"float32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[layer.precision]
    module = kind(layer.units, layer.units).cuda().to(dtype)
    given = torch.as_tensor(x).cuda().to(dtype)

    def run() -> Any:
        h, _ = module(given)
        if backward:
            module.zero_grad(set_to_none=True)
            (h * h).sum(-1).mean().backward()
        return h

    return run, torch.cuda.synchronize


def measure(layer: Layer, backward: bool, rounds: int) -> str:
    g = layer_graph(layer, backward)
    device = nvidia_device()
    f: CompiledCuda = gc.compile(g, target="cuda", precision=layer.precision)
    rng = np.random.default_rng(0)
    event = g.inputs["x"].shape
    x = rng.normal(size=(layer.steps, layer.batch, *event)).astype(np.float32)
    weights = dict(gc.initialize(g, seed=0))
    short = {"x": x[:4], **weights}
    expected, found = gc.compile(g)(**short)["h"], f(**short)["h"]
    tolerance = 2e-4 if layer.precision == "float32" else 5e-2
    np.testing.assert_allclose(found, expected, atol=tolerance)
    there = f.upload({"x": x, **weights})
    theirs = torch_layer(layer, x, backward)
    own, other = [], []
    for _ in range(rounds):
        own.append(seconds(lambda: f(**there), device.synchronize))
        if theirs is not None:
            other.append(seconds(*theirs))
    step = 1e6 * statistics.median(own) / layer.steps
    line = f"{layer!s:36} {'train' if backward else 'forward':8} {step:7.2f} µs a step"
    if other:
        peer = 1e6 * statistics.median(other) / layer.steps
        line += f"; PyTorch {peer:7.2f}, {peer / step:.2f} times as long"
    return line


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.cuda", description="Recurrent layers on a GPU.")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each (default: 7)")
    given = parser.parse_args(arguments)
    try:
        device = nvidia_device()
    except UnsupportedError as error:
        print(f"nothing was measured: {error.reason}", file=sys.stderr)
        return 1
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {device.arch}, {device.sms} SMs")
    for layer in LAYERS:
        for backward in (False, True):
            print(measure(layer, backward, given.rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
