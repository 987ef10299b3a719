"""What a peer is: a library, and the ways in which it computes a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.images import Images
from benchmarks.problems import Arrays, Linear, Sequence
from graphc.codegen.target import Precision

Work = Literal["forward", "training", "step"]


@dataclass(frozen=True)
class Call:
    """`run` does the work once and returns when it is done; `results` does it too, and gives numpy arrays by name;
    `profile`, for a peer that can tell, says where the time of so many calls goes."""

    run: Callable[[], Any]
    results: Callable[[], Arrays]
    profile: Callable[[int], Any] | None = None


Calls = dict[str, Call]
"""By the name that the table shows: a peer may have several ways to do the same, or none."""


class Peer:
    """A library. Each method prepares a problem, compiling it where the library does that, and gives its calls.

    forward   "h" at every step
    training  "loss" and its gradient "grad_…" by every param, or by a and b of a linear recurrence
    step      one step, the states kept between calls; `results` makes a step for each of the problem's, from 0

    Of images, forward gives "probabilities"; training is a whole step, which moves the params (`benchmarks.images`).
    """

    name = ""
    version = ""
    note = ""
    precisions: tuple[Precision, ...] = ("float32",)  # of products in sequences

    def forward(self, problem: Sequence) -> Calls:
        return {}

    def training(self, problem: Sequence) -> Calls:
        return {}

    def step(self, problem: Sequence) -> Calls:
        return {}

    def linear_forward(self, problem: Linear) -> Calls:
        return {}

    def linear_training(self, problem: Linear) -> Calls:
        return {}

    def image_forward(self, problem: Images) -> Calls:
        return {}

    def image_training(self, problem: Images) -> Calls:
        return {}

    def prepare(self, work: Work, problem: Sequence | Linear | Images) -> Calls:
        """The calls for a work on a problem of any kind."""
        if isinstance(problem, Linear):
            return self.linear_training(problem) if work == "training" else self.linear_forward(problem)
        if isinstance(problem, Images):
            return self.image_training(problem) if work == "training" else self.image_forward(problem)
        if problem.precision not in self.precisions:
            return {}
        methods = {"forward": self.forward, "training": self.training, "step": self.step}
        return methods[work](problem)
