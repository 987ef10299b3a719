"""`graphc train` on arrays: a file's own data, a data set of sequences, or an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

import graphc as gc
from graphc import checkpoint
from graphc.command_line.training_data import batches, source
from graphc.command_line.user_file import graph_of, load_module
from graphc.errors import ArgumentError
from graphc.optim import SGD, Adam, AdamW, Momentum

OPTIMIZERS: dict[str, type[SGD | Momentum | Adam]] = {"adam": Adam, "adamw": AdamW, "momentum": Momentum, "sgd": SGD}
OPTIMIZER = Adam(lr=3e-3)
EPOCHS = 20
BATCH = 32


@dataclass(frozen=True, slots=True)
class Given:
    """The options of training as the user gave them; None or "" leaves the choice to the kind of data."""

    epochs: int | None
    batch_size: int | None
    optimizer: str
    lr: float | None
    clip: float | None
    loss: str
    seed: int
    output: Path | None
    target: str = "cpu"
    memory: str | None = None
    precision: str = "float32"

    def optimizer_or(self, default: SGD | Momentum | Adam) -> SGD | Momentum | Adam:
        """The optimiser that the user named, else the default one, with the user's learning rate and bound."""
        if self.optimizer and self.optimizer not in OPTIMIZERS:
            raise ArgumentError(f"no optimizer {self.optimizer!r}; there is {', '.join(OPTIMIZERS)}")
        kind = OPTIMIZERS.get(self.optimizer, type(default))
        chosen = default if kind is type(default) else kind(lr=3e-3)
        return replace(chosen, lr=chosen.lr if self.lr is None else self.lr, clip=self.clip)


def train_on_arrays(file: Path, function: str, given: Given, data: str, batch_axis: str) -> None:
    """Train the graph of a file; says where the checkpoint is."""
    module = load_module(file)
    graph = graph_of(module, function)
    step = gc.training_step(graph, given.loss, given.optimizer_or(OPTIMIZER))
    if batch_axis and batch_axis not in graph.axes:
        raise ArgumentError(f"graph {graph.name!r} has no axis {batch_axis!r}; it has {', '.join(graph.axes)}")
    known = source(module, graph, data)
    size = given.batch_size or BATCH

    def epoch_batches(epoch: int) -> Iterator[dict[str, Any]]:
        seed = np.random.SeedSequence((given.seed, epoch))
        arrays = known.arrays(int(seed.generate_state(1)[0]))
        return batches(graph, arrays, batch_axis or "n", size, np.random.default_rng(seed))

    settings = {"data": known.fingerprint, "batch_size": str(size), "batch_axis": batch_axis or "n"}
    result = gc.fit(
        step,
        epoch_batches,
        epochs=given.epochs or EPOCHS,
        seed=given.seed,
        checkpoint=given.output,
        target=given.target,
        memory=given.memory,
        precision=given.precision,  # type: ignore[arg-type]
        settings=settings,
    )
    if given.output is not None:
        typer.echo(f"{given.output}: {len(checkpoint.load(given.output))} arrays")
    elif not result.history:
        typer.echo("nothing was trained")
