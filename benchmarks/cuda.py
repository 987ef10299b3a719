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


@dataclass(frozen=True)
class Layer:
    """One recurrent layer: a cell of the library's, its sizes, and what products are rounded to."""

    cell: str
    units: int
    steps: int
    batch: int
    precision: Precision

    def __str__(self) -> str:
        return f"{self.cell} {self.units} T{self.steps} B{self.batch} {self.precision}"


LAYERS = (
    Layer("lstm", 768, 1024, 16, "f16"),
    Layer("lstm", 768, 1024, 16, "bf16"),
    Layer("gru", 512, 1024, 64, "bf16"),
    Layer("lstm", 256, 1024, 16, "float32"),
    Layer("lstm", 64, 1024, 512, "bf16"),
    Layer("peephole_lstm", 128, 256, 16, "float32"),
    Layer("slstm", 128, 256, 16, "float32"),
)


def layer_graph(layer: Layer, backward: bool) -> gc.Graph:
    g = gc.Graph("layer")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (layer.units,), over=(t, n))
    cell = getattr(gc.cells, layer.cell)(g, x, layer.units, over=t, name="cell")
    g.output("h", cell.h)
    if not backward:
        return g
    g.output("loss", gc.mean(gc.sum(cell.h * cell.h), over=(t, n)))
    return gc.grad(g, "loss")


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
    if kind is None or not torch.cuda.is_available():
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
    x = rng.normal(size=(layer.steps, layer.batch, layer.units)).astype(np.float32)
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
