"""`graphc train` on arrays: a file's own data, a data set of sequences, or an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

import graphc as gc
from graphc import checkpoint
from graphc.command_line.training_data import Source, batches, fingerprint, parted, source
from graphc.command_line.user_file import graph_of, load_module
from graphc.errors import ArgumentError
from graphc.optim import SGD, Adam, AdamW, Momentum, RMSprop
from graphc.training.best import best_path

Rule = SGD | Momentum | RMSprop | Adam
OPTIMIZERS: dict[str, type[Rule]] = {
    "adam": Adam,
    "adamw": AdamW,
    "momentum": Momentum,
    "rmsprop": RMSprop,
    "sgd": SGD,
}
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
    weight_decay: float | None
    loss: str
    seed: int
    output: Path | None
    target: str = "cpu"
    memory: str | None = None
    precision: str = "float32"

    def optimizer_or(self, default: Rule) -> Rule:
        """The optimiser that the user named, else the default one, with the user's learning rate and bound."""
        if self.optimizer and self.optimizer not in OPTIMIZERS:
            raise ArgumentError(f"no optimizer {self.optimizer!r}; there is {', '.join(OPTIMIZERS)}")
        kind = OPTIMIZERS.get(self.optimizer, type(default))
        chosen = default if kind is type(default) else kind(lr=3e-3)
        decay = chosen.weight_decay if self.weight_decay is None else self.weight_decay
        return replace(chosen, lr=chosen.lr if self.lr is None else self.lr, clip=self.clip, weight_decay=decay)


def train_on_arrays(
    file: Path, function: str, given: Given, data: str, batch_axis: str, held_out: float | None, patience: int | None
) -> None:
    """Train the graph of a file; says where the checkpoint is, and the best epoch's arrays."""
    module = load_module(file)
    graph = graph_of(module, function)
    step = gc.training_step(graph, given.loss, given.optimizer_or(OPTIMIZER))
    if batch_axis and batch_axis not in graph.axes:
        raise ArgumentError(f"graph {graph.name!r} has no axis {batch_axis!r}; it has {', '.join(graph.axes)}")
    axis, size = batch_axis or "n", given.batch_size or BATCH
    known = source(module, graph, data)
    if held_out is not None:
        known = _with_held_out(known, graph, data, axis, held_out, given.seed)
    settings = {"data": known.fingerprint, "batch_size": str(size), "batch_axis": axis}
    if known.held_out is not None:
        settings["held_out"] = fingerprint(known.held_out)

    def epoch_batches(epoch: int) -> Iterator[dict[str, Any]]:
        seed = np.random.SeedSequence((given.seed, epoch))
        arrays = known.arrays(int(seed.generate_state(1)[0]))
        return batches(graph, arrays, axis, size, np.random.default_rng(seed))

    measured = None if known.held_out is None else _measure(graph, known.held_out, given)
    best = f"held_out_{given.loss}" if measured else given.loss if patience else None
    result = gc.fit(
        step,
        epoch_batches,
        epochs=given.epochs or EPOCHS,
        seed=given.seed,
        evaluate=measured,
        best=best,
        patience=patience,
        checkpoint=given.output,
        target=given.target,
        memory=given.memory,
        precision=given.precision,  # type: ignore[arg-type]
        settings=settings,
    )
    if given.output is not None:
        for path in (given.output, *([best_path(given.output)] if best else [])):
            typer.echo(f"{path}: {len(checkpoint.load(path))} arrays")
    elif not result.history:
        typer.echo("nothing was trained")


def _with_held_out(known: Source, graph: gc.Graph, data: str, axis: str, share: float, seed: int) -> Source:
    """A data set of which a share is held out; which examples follows from the seed."""
    if not data:
        raise ArgumentError(
            "--held-out is a share of --data; beside data(seed) the file may have held_out(), with arrays"
        )
    learnt, held_out = parted(graph, known.arrays(seed), axis, share, np.random.default_rng(seed))
    return Source(lambda _: learnt, known.fingerprint, held_out)


def _measure(graph: gc.Graph, arrays: Mapping[str, np.ndarray], given: Given) -> Callable[[Any], dict[str, float]]:
    """What the graph's outputs that are numbers come to on the arrays, after training (`gc.inference`)."""
    names = [name for name, node in graph.outputs.items() if not node.axes and not node.shape]
    model = gc.select(gc.inference(graph), *names)
    run: Any = gc.compile(model, target=given.target, memory=given.memory, precision=given.precision)  # type: ignore[call-overload]
    needed = {name: arrays[name] for name in model.inputs}

    def measured(state: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = run(**needed, **{name: state[name] for name in model.params})
        return {f"held_out_{name}": float(found[name]) for name in names}

    return measured
