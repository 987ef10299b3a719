"""One problem on the GPU: every peer's results are compared with the CPU's, and only then are times taken.

In: a problem and peers. Out: a `Row`: seconds of a call by peer, the peers that could not be compared and why, and the
kernels that cuDNN took, and the launches that graphc made, each with its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc as gc
from benchmarks.compare import check
from benchmarks.cuda.problems import TOLERANCES, Problem, Work
from benchmarks.images import Images
from benchmarks.peers.peer import Call
from benchmarks.problems import Arrays
from benchmarks.timing import Effort, Timing, interleaved
from graphc.codegen.target import Precision
from graphc.reporting.cuda_profile import CudaProfile


@dataclass(frozen=True)
class Row:
    """A problem and what was measured. A call makes `steps`; `failed` says why a peer was not timed; `kernels` are
    those that took most of a peer's time, where that is known; `profile` is graphc's."""

    name: str
    work: Work
    sizes: str
    steps: int
    timings: Mapping[str, Timing]
    failed: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, list[str]] = field(default_factory=dict)
    profile: CudaProfile | None = None

    def __str__(self) -> str:
        own = self.timings["graphc"].median
        times = [f"graphc {_time(own, self.steps)}"]
        for name, timing in self.timings.items():
            if name != "graphc":
                times.append(f"{name} {_time(timing.median, self.steps)}, {timing.median / own:.2f} times as long")
        lines = [f"{self.name}, {self.sizes}, {self.work}: {'; '.join(times)}"]
        lines += [f"  {name} is not timed: {why}" for name, why in self.failed.items()]
        lines += [f"  {name} ran {', '.join(names)}" for name, names in self.kernels.items()]
        if self.profile is not None and self.profile.parts:
            most = max(self.profile.parts, key=lambda part: part.seconds)
            lines.append(f"  {most.seconds / self.profile.seconds:.0%} of graphc's is {most.what}")
        return "\n".join(lines)


def _time(seconds: float, steps: int) -> str:
    return f"{1e6 * seconds / steps:.2f} µs a step" if steps > 1 else f"{1e3 * seconds:.2f} ms"


def layer(problem: Problem, work: Work, own: Any, rivals: Iterable[Any], effort: Effort) -> Row:
    """A recurrent layer. Results are compared over a few steps. Raises `Mismatch` if it is graphc's that differ."""
    short = problem.short
    made = gc.compile(short.graph(work))(x=short.x, **short.params)
    expected = {name: np.array(a) for name, a in made.items()}
    return _row(
        Row(problem.name, work, problem.sizes, problem.steps, {}),
        [own, *rivals],
        lambda peer: peer.prepare(short, work),
        lambda peer: peer.prepare(problem, work),
        (expected, problem.tolerance),
        effort,
    )


def image_training(problem: Images, precision: Precision, own: Any, rivals: Iterable[Any], effort: Effort) -> Row:
    """A step of training the image model. Compared are its loss and the running means, on a small batch."""
    small = problem.tiny
    step = small.training_step
    state = {name: a.copy() for name, a in {**gc.initialize(step), **small.params}.items()}
    loss = gc.compile(step)(image=small.photographs, label=small.labels, **state)["loss"]
    expected = {"loss": np.array(loss)} | {name: a for name, a in state.items() if name.endswith("_mean")}
    return _row(
        Row(problem.name, "training", f"{problem.sizes} {precision}", problem.steps, {}),
        [own, *(rival for rival in rivals if hasattr(rival, "image_training"))],
        lambda peer: peer.image_training(small, precision),
        lambda peer: peer.image_training(problem, precision),
        (expected, TOLERANCES[precision]),
        effort,
    )


Prepare = Callable[[Any], Call | None]


def _row(
    row: Row, peers: list[Any], short: Prepare, whole: Prepare, expected: tuple[Arrays, float], effort: Effort
) -> Row:
    """Compare, then time. What goes wrong with the first peer, graphc, ends the run; with another, that is left out."""
    calls: dict[str, Call] = {}
    failed: dict[str, str] = {}
    kernels: dict[str, list[str]] = {}
    for peer in peers:
        try:
            compared = short(peer)
            if compared is None:
                continue
            check(f"{row.name}, {row.sizes}, {row.work}: {peer.name}", compared.results(), *expected)
            made = whole(peer)
            if made is None:
                continue
            names = peer.path(made) if hasattr(peer, "path") else []
            if names:
                kernels[peer.name] = names
            calls[peer.name] = made
        except Exception as error:  # a library that is not ours fails in ways of its own
            if peer is peers[0]:
                raise
            failed[peer.name] = f"{type(error).__name__}: {error}".splitlines()[0]
    timings = interleaved({name: call.run for name, call in calls.items()}, effort)
    ask = calls[peers[0].name].profile
    profile = None if ask is None else ask(effort.rounds)
    return Row(row.name, row.work, row.sizes, row.steps, timings, failed, kernels, profile)
