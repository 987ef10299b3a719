"""The demo: a bidirectional LSTM learns to tell nine speakers apart, and leaves its drawings behind.

Training sees the 270 training utterances alone. The settings are ordinary ones, picked by hand among a handful that all
name 96 to 98 % of the held-out utterances right, so the figure shows that training works; it is no benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import graphc as gc
from graphc.checkpoint import save
from graphc.curve import learning_curve
from graphc.datasets import Utterances, japanese_vowels
from graphc.datasets.vowels import COEFFICIENTS, SPEAKERS

UNITS = 64
EPOCHS = 40
BATCH = 30
DROPOUT = 0.5


def graph() -> gc.Graph:
    """Speaker from utterance: a bidirectional LSTM, its mean over each utterance's own frames, and a softmax."""
    g = gc.Graph("speaker")
    n = g.axis("n")
    lengths = g.input("lengths", (), over=(n,), dtype="int32")
    t = g.axis("t", lengths)
    x = g.input("x", (COEFFICIENTS,), over=(t, n))
    speaker = g.input("speaker", (), over=(n,), dtype="int32")
    seed = g.input("seed", (), dtype="int32")
    rate = g.input("rate", ())

    h = gc.cells.bidirectional(g, x, gc.cells.lstm, UNITS, over=t).h
    features = gc.mean(h, over=t)
    kept = gc.where(gc.random(seed, (n,), features.shape) >= rate, features / (1 - rate), 0.0)
    V, c = g.param("V", (SPEAKERS, 2 * UNITS)), g.param("c", (SPEAKERS,))
    logits = V @ kept + c

    g.output("accuracy", gc.mean(gc.cast(gc.argmax(logits) == speaker, "float32"), over=n))
    g.output("loss", gc.mean(gc.cross_entropy(logits, speaker), over=n))
    return g


def arguments(batch: Utterances, seed: int = 0, rate: float = 0.0) -> dict[str, Any]:
    """A batch as the graph's inputs; dropout has a rate of 0 unless it is given."""
    return {
        "x": batch.values,
        "lengths": batch.lengths,
        "speaker": batch.speaker,
        "seed": np.int32(seed),
        "rate": np.float32(rate),
    }


def run(out: Path, epochs: int | None = None, quiet: bool = False) -> float:
    """Train, draw, and return the share of the held-out utterances that are named right. Files go to `out`."""
    console = Console(quiet=quiet)
    out.mkdir(parents=True, exist_ok=True)
    epochs = EPOCHS if epochs is None else epochs
    data = japanese_vowels()
    model = graph()
    steps = epochs * -(-len(data.train) // BATCH)
    optimizer = gc.optim.AdamW(lr=gc.optim.cosine(5e-3, steps), weight_decay=0.01)
    step = gc.training_step(model, "loss", optimizer)
    held_out = gc.compile(model)

    def batches(epoch: int) -> Iterator[dict[str, Any]]:
        rng = np.random.default_rng(epoch)
        for k, batch in enumerate(data.train.batches(BATCH, rng)):
            yield arguments(batch, seed=1000 * epoch + k, rate=DROPOUT)

    def evaluate(state: Mapping[str, np.ndarray]) -> dict[str, float]:
        params = {name: state[name] for name in model.params}
        return {"test_accuracy": float(held_out(**arguments(data.test), **params)["accuracy"])}

    console.print(f"{len(data.train)} utterances to learn from, {len(data.test)} held out, {epochs} epochs")
    begun = time.perf_counter()
    result = gc.fit(step, batches, epochs=epochs, seed=0, evaluate=evaluate, quiet=quiet)
    seconds = time.perf_counter() - begun
    accuracy = float(result.history[-1]["test_accuracy"])
    console.print(f"{accuracy:.1%} of the held-out utterances named right, after {seconds:.0f} s")

    for file in leave(out, model, result.state, result.history):
        console.print(f"  {file}")
    return accuracy


def leave(
    out: Path, model: gc.Graph, state: Mapping[str, np.ndarray], history: list[dict[str, float]]
) -> Iterator[Path]:
    """Write the drawings, the learning curve and the weights; yields each file as it is there."""
    gc.draw(model).save(out / "graph.svg")
    yield out / "graph.svg"
    gc.draw(gc.unroll(model, t=3)).save(out / "unrolled.svg")
    yield out / "unrolled.svg"
    (out / "learning_curve.svg").write_text(learning_curve(history), encoding="utf-8")
    yield out / "learning_curve.svg"
    save(out / "weights.safetensors", {name: state[name] for name in model.params})
    yield out / "weights.safetensors"
