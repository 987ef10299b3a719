"""What is computed: a recurrent cell over a sequence, or a linear recurrence, with its arrays.

A problem is sizes and a name; `arrays()` makes its data, the same for every peer. Results are compared by name: the
state "h", and in training "loss" and "grad_…" of every param.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import graphc as gc
from benchmarks.cells import CELLS, Cell
from graphc.codegen.target import Precision

Arrays = dict[str, np.ndarray]
TOLERANCE = 5e-4  # of an array's largest element: float32 sums over thousands of terms in different orders
ROUNDED = 5e-2  # where operands have the three digits of bfloat16, and each library rounds what it likes


@dataclass(frozen=True)
class Sequence:
    """A cell of `units` units over an input of as many features: h at every step, and in training the mean over t, n
    of Σ h²; or where one class is said of a whole sequence (`at_end`), of the last step's. With `precision` "bf16"
    products may be of bfloat16."""

    cell: str
    steps: int
    batch: int
    units: int
    at_end: bool = False
    precision: Precision = "float32"

    @property
    def tolerance(self) -> float:
        return TOLERANCE if self.precision == "float32" else ROUNDED

    @property
    def name(self) -> str:
        rounded = "" if self.precision == "float32" else ", bfloat16"
        return f"{self.cell}{rounded}{', loss at the end' if self.at_end else ''}"

    @property
    def sizes(self) -> str:
        return f"T {self.steps} N {self.batch} H {self.units}"

    @property
    def tiny(self) -> Sequence:
        """The smallest of the kind, for what a library does once."""
        return replace(self, steps=2, batch=1, units=8)

    @property
    def kind(self) -> Cell:
        return CELLS[self.cell]

    @cached_property
    def x(self) -> np.ndarray:
        """(T, N, H), float32."""
        shape = (self.steps, self.batch, self.units)
        return np.random.default_rng(1).standard_normal(shape, np.float32)

    @cached_property
    def params(self) -> Arrays:
        """The params by graphc's names without the cell's, as "W_f", "U_f", "b_f". None is 0, so that all matter."""
        random = np.random.default_rng(2)
        start = gc.initialize(self.graph("h"), seed=0)
        return {
            name.removeprefix("cell_"): (a + 0.05 * random.standard_normal(a.shape)).astype(np.float32)
            for name, a in start.items()
        }

    def make(self) -> None:
        """Make the arrays, which are made once."""
        _ = self.x, self.params

    @property
    def named(self) -> Arrays:
        """The params by graphc's full names."""
        return {f"cell_{name}": a for name, a in self.params.items()}

    def graph(self, *outputs: str) -> gc.Graph:
        """The cell as graphc has it, with outputs among "h" and "loss"."""
        g = gc.Graph("benchmark")
        t, n = g.axis("t"), g.axis("n")
        h = self.kind.add(g, g.input("x", (self.units,), over=(t, n)), self.units, t)
        values = {
            "h": lambda: h,
            "loss": lambda: gc.mean(gc.sum(self.asked(h) ** 2), over=n if self.at_end else (t, n)),
        }
        for name in outputs:
            g.output(name, values[name]())
        return g

    def asked(self, h: Any) -> Any:
        """What the loss is of: the last step, or all. Of any library's arrays whose first dim is time."""
        if not self.at_end:
            return h
        return h[h.axes[0].last] if isinstance(h, gc.Value) else h[-1]


@dataclass(frozen=True)
class Linear:
    """h[t] = a[t] ⊙ h[t-1] + b[t] over T steps, a batch and channels, from h = 0; in training the loss is mean h²."""

    steps: int
    batch: int
    channels: int

    tolerance = TOLERANCE

    @property
    def name(self) -> str:
        return "a h′ + b"

    @property
    def sizes(self) -> str:
        return f"T {self.steps} N {self.batch} C {self.channels}"

    @cached_property
    def a(self) -> np.ndarray:
        """(T, N, C), float32, between 0.5 and 1."""
        return self._random(3) * np.float32(0.5) + np.float32(0.5)

    @cached_property
    def b(self) -> np.ndarray:
        """(T, N, C), float32."""
        return self._random(4)

    def _random(self, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random((self.steps, self.batch, self.channels), np.float32)

    def graph(self, *outputs: str) -> gc.Graph:
        """The recurrence in graphc, with outputs among "h" and "loss"."""
        g = gc.Graph("linear")
        t, n = g.axis("t"), g.axis("n")
        a, b = (g.input(name, (self.channels,), over=(t, n)) for name in "ab")
        h = g.state("h", (self.channels,), over=(t, n))
        h[t] = a * h[t - 1] + b
        values = {"h": lambda: h, "loss": lambda: gc.mean(gc.mean(h * h), over=(t, n))}
        for name in outputs:
            g.output(name, values[name]())
        return g


Problem = Sequence | Linear
