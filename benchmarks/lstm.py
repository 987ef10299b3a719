"""LSTM and GRU against PyTorch, forward and training, and compile time against the sequence's length.

    python benchmarks/lstm.py [--quick]

Both run in this process on one thread, in turn (A B A B …), float32, after their results were found equal. A ratio
above 1 means that graphc is faster. Medians of the runs; machines are noisy, so the ratio is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import graphc as gc

CASES = (  # name, steps, batch, inputs, units
    ("LSTM", 128, 32, 256, 256),
    ("GRU", 128, 32, 256, 256),
    ("LSTM", 128, 64, 512, 512),
    ("LSTM", 128, 1, 256, 256),
    ("GRU", 64, 1, 64, 64),
)


def model(kind: str, inputs: int, units: int) -> gc.Graph:
    g = gc.Graph(kind.lower())
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    if kind == "LSTM":
        h = gc.cells.lstm(g, x, units, over=t, name="cell").h
    else:
        h = gc.cells.gru(g, x, units, over=t, name="cell", reset="after", update="old").h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g


def compare(kind: str, steps: int, batch: int, inputs: int, units: int, repeats: int) -> list[tuple[str, float, float]]:
    """Medians in milliseconds of graphc and PyTorch, forward and training."""
    g = model(kind, inputs, units)
    theirs = getattr(torch.nn, kind)(inputs, units)
    weights = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    params = gc.cells.from_torch(weights, kind.lower(), name="cell")
    data = np.random.default_rng(0).normal(size=(steps, batch, inputs)).astype(np.float32)
    frames = torch.tensor(data)

    def their_forward() -> Any:
        with torch.no_grad():
            return (theirs(frames)[0] ** 2).sum(-1).mean()

    def their_training() -> Any:
        theirs.zero_grad()
        loss = (theirs(frames)[0] ** 2).sum(-1).mean()
        loss.backward()
        return loss.detach()

    forward = gc.compile(g).bind(x=data, **params)
    training = gc.compile(gc.grad(g, "loss")).bind(x=data, **params)
    for ours, peer in ((forward, their_forward), (training, their_training)):
        np.testing.assert_allclose(ours()["loss"], peer().numpy(), rtol=1e-4)
    return [
        ("forward", *medians(forward, their_forward, repeats)),
        ("training", *medians(training, their_training, repeats)),
    ]


def medians(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, kept in zip((first, second), times, strict=True):
            begun = time.perf_counter()
            call()
            kept.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times[0]), statistics.median(times[1])


def compile_times(console: Console) -> None:
    """One compilation serves every length, so there is one time to tell; the runs show that it does."""
    dg = gc.grad(model("LSTM", 256, 256), "loss")
    begun = time.perf_counter()
    f = gc.compile(dg)
    console.print(f"\nLSTM 256, forward and backward: compiled in {time.perf_counter() - begun:.2f} s, once")
    params = gc.initialize(dg, seed=0)
    for steps in (16, 256, 4096, 16384):
        x = np.zeros((steps, 1, 256), np.float32)
        begun = time.perf_counter()
        f(x=x, **params)
        console.print(f"  T = {steps:6}: {1e3 * (time.perf_counter() - begun):9.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs of the first case only")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    console = Console()
    table = Table("work", "T", "N", "H", "graphc ms", "PyTorch ms", "ratio", title="one thread, float32")
    for kind, steps, batch, inputs, units in CASES[: 1 if quick else None]:
        for what, ours, theirs in compare(kind, steps, batch, inputs, units, repeats=3 if quick else 9):
            figures = (f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}")
            table.add_row(f"{kind} {what}", str(steps), str(batch), str(units), *figures)
    console.print(table)
    compile_times(console)


if __name__ == "__main__":
    main()
