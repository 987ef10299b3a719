"""What is computed on the GPU: a layer of a cell or a stack of them, or a cell in heads; with its arrays.

Results are compared by name: the states "h" (T, N, …) of a forward pass; of training the "loss" mean over t, n of Σ h²,
and "grad_…" of every param. `short` is the same problem over a few steps, on which peers are compared: rounding to
bfloat16 moves a long sequence's states further than two right answers may lie apart. Of a linear recurrence these are
so many that its steps are in parts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

import graphc as gc
from benchmarks.cells import CELLS, Cell
from benchmarks.images import Images
from benchmarks.problems import Arrays
from graphc.codegen.target import Precision
from graphc.ir import Axis

Work = Literal["forward", "training"]
WORKS: tuple[Work, ...] = ("forward", "training")
TOLERANCES = {"float32": 1e-3, "tf32": 2e-2, "f16": 2e-2, "bf16": 1e-1}  # of an array's largest element
_COMPARED_STEPS = 4
_COMPARED_LINEAR_STEPS = 256


@dataclass(frozen=True)
class Recurrence(ABC):
    """What all have in common: `units` and an input of as many features; what products are rounded to."""

    cell: str
    units: int
    steps: int
    batch: int
    precision: Precision = "float32"

    @property
    def short(self) -> Self:
        return replace(self, steps=min(self.steps, self.compared))

    @property
    def compared(self) -> int:
        """The steps over which results are compared."""
        return _COMPARED_STEPS

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.precision]

    @property
    def sizes(self) -> str:
        return f"T {self.steps} N {self.batch} {self.precision}"

    @property
    def event(self) -> tuple[int, ...]:
        """The shape of an input of one step."""
        return (self.units,)

    @cached_property
    def x(self) -> np.ndarray:
        """(T, N, *event), float32."""
        shape = (self.steps, self.batch, *self.event)
        return np.random.default_rng(1).standard_normal(shape, np.float32)

    @cached_property
    def params(self) -> Arrays:
        """By graphc's names; moved away from where they start, so that none is 0."""
        random = np.random.default_rng(2)
        start = gc.initialize(self.graph("forward"), seed=0)
        return {k: (a + 0.05 * random.standard_normal(a.shape)).astype(np.float32) for k, a in start.items()}

    @abstractmethod
    def states(self, g: gc.Graph, x: gc.Value, t: Axis, n: Axis) -> gc.Value:
        """The states of a run over the input, as an output of the graph."""

    def graph(self, work: Work) -> gc.Graph:
        g = gc.Graph("benchmark")
        t, n = g.axis("t"), g.axis("n")
        h = self.states(g, g.input("x", self.event, over=(t, n)), t, n)
        if work == "forward":
            g.output("h", h)
            return g
        g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
        return gc.grad(g, "loss")


@dataclass(frozen=True)
class Layer(Recurrence):
    """`layers` of a cell of `benchmarks.cells`, one upon the other, with the products by the input."""

    layers: int = 1

    @property
    def name(self) -> str:
        return f"{self.cell} {self.units}" + (f" × {self.layers} layers" if self.layers > 1 else "")

    @property
    def kind(self) -> Cell:
        return CELLS[self.cell]

    @property
    def compared(self) -> int:
        return _COMPARED_STEPS if self.kind.linear is None else _COMPARED_LINEAR_STEPS

    def states(self, g: gc.Graph, x: gc.Value, t: Axis, n: Axis) -> gc.Value:
        for k in range(self.layers):
            x = self.kind.build(g, x, self.units, over=t, name=f"cell_{k}").h
        return x


@dataclass(frozen=True)
class Heads(Recurrence):
    """An LSTM or sLSTM whose recurrent weights are block-diagonal: each of `heads` sees its own `units` alone. The
    input holds what the gates i, f, z, o are given, products by an input included, as FlashRNN has it.

    Params "R_i", "R_f", "R_z", "R_o": (heads, units, units), the units that are computed first.
    """

    heads: int = 1

    @property
    def name(self) -> str:
        return f"{self.cell} {self.heads} × {self.units}"

    @property
    def event(self) -> tuple[int, ...]:
        return (len(GATES), self.heads, self.units)

    def states(self, g: gc.Graph, x: gc.Value, t: Axis, n: Axis) -> gc.Value:
        shape = (self.heads, self.units)
        h, c = g.state("h", shape, over=(t, n)), g.state("c", shape, over=(t, n))
        weights = [g.param(f"R_{gate}", (*shape, self.units)) for gate in GATES]
        i, f, z, o = (x[k] + gc.einsum("hmk,hk->hm", R, h[t - 1]) for k, R in enumerate(weights))
        if self.cell == "LSTM":
            c[t] = gc.sigmoid(f) * c[t - 1] + gc.sigmoid(i) * gc.tanh(z)
            h[t] = gc.sigmoid(o) * gc.tanh(c)
            return h
        size, most = g.state("size", shape, over=(t, n)), g.state("most", shape, over=(t, n))
        keep = most[t - 1] - gc.softplus(-f)
        most[t] = gc.maximum(keep, i)
        forget, write = gc.exp(keep - most), gc.exp(i - most)
        c[t] = forget * c[t - 1] + write * gc.tanh(z)
        size[t] = forget * size[t - 1] + write
        h[t] = gc.sigmoid(o) * c / size
        return h


GATES = "ifzo"
Problem = Layer | Heads

PROBLEMS: tuple[Problem, ...] = (
    Layer("LSTM", 768, 1024, 16, "f16"),
    Layer("LSTM", 768, 1024, 16, "bf16"),
    Layer("GRU", 512, 1024, 64, "bf16"),
    Layer("LSTM", 512, 1024, 64, "bf16", layers=4),
    Layer("LSTM", 64, 1024, 512, "bf16"),
    Layer("LSTM", 256, 1024, 16),
    *(
        Heads(cell, u, 1024, 16, "bf16", heads=k)
        for cell in ("LSTM", "sLSTM")
        for k, u in ((12, 64), (6, 128), (3, 256))
    ),
    *(Layer(cell, 128, 256, 16) for cell in ("peephole LSTM", "LEM", "sLSTM")),
    *(Layer("minGRU", 256, 16384, n) for n in (1, 16)),
)
IMAGES = Images(128)
IMAGE_PRECISION: Precision = "bf16"
