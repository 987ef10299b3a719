"""fit: a training step, again and again: epochs, progress, evaluation, checkpoints, and exact resume."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import checkpoint as checkpoint_files
from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.codegen.target import Precision
from graphc.compiling.compile import Compiled, compile
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import ArgumentError, DivergenceError, listed, meant
from graphc.files import Claim
from graphc.integers import is_whole
from graphc.language.graph import Graph, check_graph
from graphc.training.best import ANEW, Best, Record, Score, check_best, unknown_score
from graphc.training.divergence import check_finite, finite_names
from graphc.training.initialize import initialize
from graphc.training.terminal import progress_bar, say

if TYPE_CHECKING:
    from rich.progress import Progress

PROGRESS = ("epoch", "history")  # what a checkpoint says of how far it is; all else, of what it belongs to

Batch = Mapping[str, Any]
Batches = Sequence[Batch] | Callable[[int], Iterable[Batch]]


@dataclass(frozen=True, slots=True)
class Fit:
    """What training came to: every array (params and the optimiser's), and one record of numbers for each epoch.

    `best` are the arrays after the epoch that `best=` of `fit` says is the best; without it, after the last.
    """

    state: dict[str, np.ndarray]
    history: list[Record]
    best: dict[str, np.ndarray]

    def __repr__(self) -> str:
        """Not the arrays, which would fill a screen."""
        last = f", the last {self.history[-1]}" if self.history else ""
        return f"<fit: {len(self.state)} arrays, {len(self.history)} epochs{last}>"


def fit(
    step: Graph,
    batches: Batches,
    *,
    epochs: int = 1,
    state: Mapping[str, np.ndarray] | None = None,
    seed: int = 0,
    evaluate: Callable[[Mapping[str, np.ndarray]], Mapping[str, float]] | None = None,
    best: Score | None = None,
    patience: int | None = None,
    checkpoint: Path | str | None = None,
    resume: bool = True,
    settings: Mapping[str, object] | None = None,
    quiet: bool = False,
    target: str = "cpu",
    memory: str | int | None = None,
    precision: Precision = "float32",
) -> Fit:
    """Run a training step (see `gc.training_step`) on every batch of every epoch.

    `batches` gives each epoch's dicts of input arrays: a list, or a function of the epoch's number, from 0. What is
    random in it should follow from that number; then a run that is stopped and resumed is, bit for bit, one that was
    not. Training begins at `gc.initialize(step, seed)`, but for the params that `state` has. Each record of the history
    has `epoch`, the mean over the epoch's batches of every output that is a number, and what `evaluate(state)` returns.

    `best` names the number of a record by which epochs are compared, the lower the better, or is a function of a record
    (`lambda record: -record["accuracy"]`). The arrays after the best epoch are `.best` of the result, and with a
    checkpoint `run.safetensors` in `run.best.safetensors`. With `patience` training ends when so many epochs have
    passed since the best one.

    `checkpoint` names a safetensors file that is written before the first epoch and after each, whole or not at all;
    if it exists and `resume` is true, training goes on from there. Raises `ArgumentError` if it belongs to another
    training step or seed, was begun with other `settings`, such as the batches' size, or is being written by another
    process, and then leaves it alone. A terminal shows progress; elsewhere each epoch is a line, and with `quiet`
    there is nothing.

    Raises `DivergenceError` when a trained param is no longer finite; the checkpoint then has the epochs before.

    With `target="cuda"` steps run on the GPU, where the state stays from one to the next. `memory` limits what a step
    takes, and `precision` is that of its products, as in `gc.compile`; a run may be resumed with others, by which sums
    are added up in another order, or of other numbers.
    """
    check_graph(step)
    if not step.updates:
        raise ArgumentError(
            f"graph {step.name!r} updates no param, so it learns nothing; fit takes a training step, as "
            'gc.training_step(g, "loss", gc.optim.Adam()) makes it'
        )
    _check_given(step, batches, epochs, {"state": state, "settings": settings}, evaluate)
    check_best(best, patience)
    if checkpoint is not None:
        checkpoint_files.check_ending(checkpoint)
    steps = _steps(step, target, memory, precision)
    arrays = {n: np.array(a) for n, a in {**initialize(step, seed=seed), **(state or {})}.items()}
    history: list[Record] = []
    owner = {
        **{k: str(v) for k, v in (settings or {}).items()},
        "graph": hashlib.sha256(str(step).encode()).hexdigest(),
        "seed": str(seed),
    }
    if isinstance(best, str) and evaluate is None and best not in steps.numbers:
        raise unknown_score(best, dict.fromkeys(steps.numbers))
    kept = None if best is None else Best(best, patience, checkpoint, owner)
    from rich.console import Console

    console = Console(quiet=quiet)
    tell = partial(say, console)
    with _claim(checkpoint) as claim:
        if claim is not None and resume and claim.path.exists():
            arrays, history = _resumed(claim.path, arrays, owner)
            tell(f"{checkpoint}: {len(history)} epochs are done already")
        elif claim is not None:
            _write(claim, arrays, history, owner)
        if kept is not None:
            kept.resume(history, arrays)
        try:
            with progress_bar(console) as progress:
                for epoch in range(len(history), epochs):
                    if kept is not None and kept.given_up:
                        tell(f"epoch {kept.epoch + 1} was the best; {len(history) - 1 - kept.epoch} after it were not")
                        break
                    chosen = batches(epoch) if callable(batches) else batches
                    record = {"epoch": float(epoch), **steps.epoch(chosen, arrays, epoch, epochs, progress)}
                    record |= _measured(evaluate(arrays)) if evaluate else {}
                    history.append(record)
                    if claim is not None:
                        _write(claim, arrays, history, owner)
                    if kept is not None:
                        kept.add(record, arrays)
                    tell(_line(record, epochs))
        except (KeyboardInterrupt, DivergenceError):
            if claim is not None:
                tell(f"{checkpoint} holds {len(history)} epochs")
            raise
    return Fit(arrays, history, arrays if kept is None or kept.arrays is None else kept.arrays)


def _measured(found: Any) -> Record:
    """What `evaluate` returned, as numbers of Python's."""
    try:
        return {str(name): float(number) for name, number in dict(found).items()}
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"evaluate= returns numbers by name, {{'accuracy': 0.9}}, got {found!r}: {error}") from None


def _claim(checkpoint: Path | str | None) -> AbstractContextManager[Claim | None]:
    return nullcontext() if checkpoint is None else Claim(checkpoint)


def _check_given(
    step: Graph, batches: object, epochs: object, named: Mapping[str, Mapping[str, object] | None], evaluate: object
) -> None:
    if not is_whole(epochs) or epochs < 0:
        raise ArgumentError(f"epochs= is how often to go through the batches, a whole number, got {epochs!r}")
    if isinstance(batches, Mapping) or not (callable(batches) or isinstance(batches, Iterable)):
        raise ArgumentError("batches= is a list of dicts, or a function of the epoch that gives one: [{'x': …, …}]")
    if callable(batches) and not _takes_epoch(batches):
        raise ArgumentError(
            "batches= is called with the epoch's number, which this function does not take: lambda epoch: …"
        )
    for option, things in named.items():
        if things is not None and not isinstance(things, Mapping):
            raise ArgumentError(f"{option}= is a dict by name, {{'W': …}}, got {things!r}")
    if evaluate is not None and not callable(evaluate):
        raise ArgumentError(f"evaluate= is a function of the state that gives numbers by name, got {evaluate!r}")
    known = {*step.params, *step.inputs, *step.axes}
    unknown = [str(name) for name in named["state"] or {} if name not in known]
    if unknown:
        raise ArgumentError(
            f"state= names what graph {step.name!r} has not: {listed(unknown)}{meant(unknown[0], known)}"
        )


def _takes_epoch(batches: Callable[..., object]) -> bool:
    try:
        inspect.signature(batches).bind(0)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not say
        pass
    return True


@dataclass(frozen=True, slots=True)
class _Steps:
    """A compiled training step, the outputs that are `numbers`, and the params that it moves (`learned`)."""

    run: Compiled | CompiledCuda
    numbers: tuple[str, ...]
    learned: tuple[str, ...]

    def epoch(
        self, batches: Iterable[Batch], arrays: dict[str, np.ndarray], epoch: int, epochs: int, progress: Progress
    ) -> Record:
        """Make a step for every batch, which changes the arrays; the mean of each number."""
        there = self.run.upload(arrays) if isinstance(self.run, CompiledCuda) else {}
        finite = finite_names({name: arrays[name] for name in self.learned})
        means = self._means(batches, {**arrays, **there}, finite, f"epoch {epoch + 1}/{epochs}", progress)
        for name, array in there.items():
            arrays[name] = array.numpy()
        check_finite(f"in epoch {epoch + 1}", arrays, finite, means)
        return means

    def _means(
        self,
        batches: Iterable[Batch],
        arrays: Mapping[str, np.ndarray | DeviceArray],
        finite: list[str],
        title: str,
        progress: Progress,
    ) -> Record:
        totals = dict.fromkeys(self.numbers, 0.0)
        count = 0
        if not isinstance(batches, Iterable):
            raise ArgumentError(f"batches(epoch) gives the dicts of an epoch, but returned {type(batches).__name__}")
        known = len(batches) if isinstance(batches, Sized) else None
        task = progress.add_task(title, total=known)
        for batch in batches:
            if not isinstance(batch, Mapping):
                raise ArgumentError(f"a batch is a dict of arrays by name, {{'x': …, …}}, got {type(batch).__name__}")
            results = self.run(**batch, **arrays)
            count += 1
            found = {name: float(results[name]) for name in self.numbers}
            if not all(map(math.isfinite, found.values())):
                check_finite(f"in batch {count} of {title}", arrays, finite, found, batch)
            for name, number in found.items():
                totals[name] += number
            progress.advance(task)
        progress.remove_task(task)
        if not count:
            raise ArgumentError(
                "an epoch has no batches; a generator is used up by one epoch, so pass a function of the epoch"
            )
        return {name: total / count for name, total in totals.items()}


def _steps(step: Graph, target: str, memory: str | int | None, precision: Precision) -> _Steps:
    run: Any = compile(step, target=target, memory=memory, precision=precision)  # type: ignore[call-overload]
    numbers = tuple(name for name, node in step.outputs.items() if not node.axes and not node.shape)
    return _Steps(run, numbers, tuple(name for name, param in step.params.items() if param.trainable))


def _line(record: Record, epochs: int) -> str:
    parts = [f"{name} {value:.4g}" for name, value in record.items() if name != "epoch"]
    warning = "  (not finite)" if not all(math.isfinite(v) for v in record.values()) else ""
    return f"epoch {int(record['epoch']) + 1}/{epochs}  {'  '.join(parts)}{warning}"


def _write(claim: Claim, arrays: Mapping[str, np.ndarray], history: list[Record], owner: Mapping[str, str]) -> None:
    metadata = {**owner, "epoch": str(len(history)), "history": json.dumps(history)}
    claim.write(checkpoint_files.serialized(arrays, metadata))


def _resumed(
    path: Path, expected: Mapping[str, np.ndarray], owner: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], list[Record]]:
    """The arrays and the history of a checkpoint, if it belongs to this training step, seed and settings."""
    arrays, metadata = checkpoint_files.read(path)
    for name, array in expected.items():
        found = arrays.get(name)
        if found is None or found.shape != array.shape or found.dtype != array.dtype:
            what = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise ArgumentError(
                f"checkpoint {path} belongs to another graph: {name} is {array.dtype}{list(array.shape)}, "
                f"there {what}; {ANEW}"
            )
    extra = [name for name in arrays if name not in expected]
    if extra:
        raise ArgumentError(f"checkpoint {path} belongs to another graph: it holds {listed(extra)}; {ANEW}")
    if metadata.get("graph") != owner["graph"]:
        raise ArgumentError(
            f"checkpoint {path} was made by another training step: other equations, or another optimiser, "
            f"learning rate or clip; {ANEW}"
        )
    for name in dict.fromkeys((*owner, *metadata)):
        begun, now = metadata.get(name), owner.get(name)
        if begun != now and name not in PROGRESS:
            raise ArgumentError(f"checkpoint {path} was begun with {_difference(name, begun, now)}; {ANEW}")
    return arrays, _history(path, metadata)


def _difference(name: str, begun: str | None, now: str | None) -> str:
    """How a setting differs, and what to do about it; values that are hashes nobody can read."""
    readable = not any(re.fullmatch("[0-9a-f]{64}", value) for value in (begun, now) if value is not None)
    if begun is None:
        return f"no {name}; leave it out"
    if now is None:
        return f"{name}={begun}; give that" if readable else f"{name}; give what it had"
    return f"{name}={begun}, not {now}; give that {name}" if readable else f"other {name}; give what it had"


def _history(path: Path, metadata: Mapping[str, str]) -> list[Record]:
    try:
        history = json.loads(metadata["history"])
        return [{str(k): float(v) for k, v in record.items()} for record in history]
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentError(f"checkpoint {path} has no readable history: {error}") from None
