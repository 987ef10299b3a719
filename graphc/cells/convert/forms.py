"""The cells that other libraries have, too, and the params of one layer of each, in one direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from graphc.cells.convert.shapes import Arrays, Shapes

GATES = {"elman": "h", "lstm": "figo", "gru": "rzn", "peephole_lstm": "figo", "projected_lstm": "figo"}
RESETS = ("after", "before")


@dataclass(frozen=True)
class Form:
    """What decides which params a cell has; `reset` is a GRU's."""

    cell: str
    bias: bool = True
    reset: str = "after"

    @property
    def inner(self) -> str:
        """The gates that have a bias of their own on U h′: it is multiplied by r, so that the two do not add up."""
        return "n" if self.cell == "gru" and self.reset == "after" else ""

    def params(self) -> Shapes:
        """The params without the cell's name, of I inputs, H units and, of a projection, O outputs."""
        outputs = "O" if self.cell == "projected_lstm" else "H"
        gates = GATES[self.cell]
        shapes = {f"W_{k}": "H, I" for k in gates} | {f"U_{k}": f"H, {outputs}" for k in gates} | self.biases()
        if self.cell == "peephole_lstm":
            shapes |= {f"p_{k}": "H" for k in "fio"}
        if self.cell == "projected_lstm":
            shapes["P"] = "O, H"
        return shapes

    def biases(self) -> Shapes:
        """Those of the params that are biases."""
        return {f"b_{k}": "H" for k in GATES[self.cell]} | {f"c_{k}": "H" for k in self.inner} if self.bias else {}

    def others(self) -> Iterator[Form]:
        """All other forms, those that differ least first."""
        made = [
            Form(cell, bias, reset if cell == "gru" else self.reset)
            for cell, bias, reset in product(GATES, (True, False), RESETS)
        ]
        different = [form for form in dict.fromkeys(made) if form != self]
        yield from sorted(different, key=lambda form: len(self.differences(form)))

    def differences(self, other: Form) -> list[str]:
        """The options that the other has and this has not, as they are written."""
        pairs = ((k, getattr(self, k), getattr(other, k)) for k in ("cell", "bias", "reset"))
        return [f"{k}={theirs!r}" for k, ours, theirs in pairs if ours != theirs]


def with_biases_of_0(own: Arrays, form: Form) -> Arrays:
    """The params of a cell without biases, and those that the form has besides."""
    matrices = {name: own["W" + name[1:]] for name in form.biases()}
    return own | {name: np.zeros(len(W), W.dtype) for name, W in matrices.items()}
