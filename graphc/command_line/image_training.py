"""Training a network on photographs: from a data set and a graph to params, an accuracy and pictures.

The graph is as `graphc.command_line.image_model` says; its own image shape says what photographs are resized to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import track

import graphc as gc
from graphc.command_line.confusion import confusion_matrix
from graphc.command_line.curve import learning_curve
from graphc.command_line.image_model import Arguments, image_shape, predictor, with_accuracy
from graphc.command_line.prediction_sheet import prediction_sheet
from graphc.command_line.predictions import Predictions
from graphc.datasets import ImageLoader, Photographs
from graphc.datasets.image_loader import KEPT
from graphc.errors import ArgumentError
from graphc.files import write_whole
from graphc.optim import Optimizer
from graphc.training.best import Record
from graphc.training.terminal import say

# The lecture's settings, of which the command line's options replace those that are given.
OPTIMIZER = gc.optim.Momentum(lr=0.01, momentum=0.9, weight_decay=5e-4)
EPOCHS = 90
BATCH = 128

FEWEST_STEPS = 20  # of an epoch: a small data set is cut into smaller batches
THREADS = 2  # that decode; training uses every core itself


@dataclass(frozen=True, slots=True)
class ImageTraining:
    """How to train. `batch_size` None is the lecture's, or less for a small data set. `out` is a folder: it takes the
    checkpoint, from which training resumes, and the pictures."""

    out: Path
    optimizer: Optimizer = OPTIMIZER
    epochs: int = EPOCHS
    batch_size: int | None = None
    augment: bool = True
    skip_unreadable: bool = False
    loss: str = "loss"
    seed: int = 0
    quiet: bool = False
    target: str = "cpu"
    memory: str | int | None = None
    precision: str = "float32"


def batch_size(photographs: int) -> int:
    """The lecture's 128, halved (to 8 at least) while an epoch would have fewer than 20 steps."""
    size = BATCH
    while size > 8 and photographs < FEWEST_STEPS * size:
        size //= 2
    return size


def train(graph: gc.Graph, data: Photographs, how: ImageTraining) -> Predictions | None:
    """Train, draw, and return what the network says of the held-out photographs; None if there are none."""
    if how.out.exists() and not how.out.is_dir():
        raise ArgumentError(f"{how.out} is a file; what training on photographs leaves is a folder")
    console = Console(quiet=how.quiet)
    how = replace(how, batch_size=how.batch_size or batch_size(len(data.train)))
    _introduce(console, graph, data, how)
    begun = time.perf_counter()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="photographs") as pool:
        parts = [ImageLoader(part, image_shape(graph), pool, how.skip_unreadable) for part in (data.train, data.test)]
        if sum(loader.kept_bytes for loader in parts) <= KEPT:
            _keep(console, parts)
        history, predictions = _fit(graph, data, how, *parts)
    _tell_skipped(console, [reason for loader in parts for reason in loader.skipped.values()])
    if predictions is not None:
        say(console, f"{predictions}, after {time.perf_counter() - begun:.0f} s")
    for file in leave(how.out, data.name, history, predictions):
        say(console, f"  {file}")
    return predictions


def _fit(
    graph: gc.Graph, data: Photographs, how: ImageTraining, learnt: ImageLoader, held_out: ImageLoader
) -> tuple[list[Record], Predictions | None]:
    """The history of all epochs, and what is said of the held-out photographs after the last."""
    size = how.batch_size or BATCH
    predict = predictor(graph, data, held_out, size) if data.test else None
    result = gc.fit(
        gc.training_step(with_accuracy(graph), how.loss, how.optimizer),
        lambda epoch: Arguments(learnt.shuffled(size, how.seed, epoch, how.augment)),
        epochs=how.epochs,
        seed=how.seed,
        evaluate=(lambda state: _metrics(predict(state))) if predict else None,
        checkpoint=how.out / "checkpoint.safetensors",
        settings={"photographs": data.fingerprint, "batch_size": str(size), "augment": str(how.augment)},
        quiet=how.quiet,
        target=how.target,
        memory=how.memory,
        precision=how.precision,  # type: ignore[arg-type]
    )
    return result.history, predict(result.state) if predict else None


def _introduce(console: Console, graph: gc.Graph, data: Photographs, how: ImageTraining) -> None:
    shape = "×".join(map(str, image_shape(graph)))
    counts = f"{len(data.train):,} photographs to learn from, {len(data.test):,} held out"
    say(console, f"{data.name}: {len(data.classes):,} classes, {counts}, each as {shape}")
    for note in data.notes:
        say(console, f"  {note}")
    steps = -(-len(data.train) // (how.batch_size or BATCH))
    say(console, f"{how.epochs} epochs of {steps:,} steps, batches of up to {how.batch_size}; {how.optimizer}")


def _tell_skipped(console: Console, reasons: Sequence[str]) -> None:
    for reason in reasons[:5]:
        say(console, f"skipped {reason}")
    if reasons:
        say(console, f"{len(reasons):,} photographs that cannot be read were skipped")


def _keep(console: Console, loaders: Sequence[ImageLoader]) -> None:
    total = sum(map(len, loaders))
    steps = (step for loader in loaders for step in loader.keep())
    hidden = console.quiet or not console.is_terminal
    for _ in track(steps, "reading photographs", total, console=console, transient=True, disable=hidden):
        pass


def _metrics(predictions: Predictions) -> dict[str, float]:
    return {"test_loss": predictions.loss, "test_accuracy": predictions.accuracy}


def leave(out: Path, name: str, history: list[Record], predictions: Predictions | None) -> Iterator[Path]:
    """Write the pictures; yields each file as it is there."""
    pictures = {"learning_curve.svg": learning_curve(history)}
    if predictions:
        title = f"{name[:40]}: {predictions}"
        pictures["confusion.svg"] = confusion_matrix(predictions, title)
        pictures["predictions.svg"] = prediction_sheet(predictions, title)
    for file, svg in pictures.items():
        write_whole(out / file, svg.encode())
        yield out / file
