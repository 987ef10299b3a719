"""How many instructions it takes to compute scalars: an estimate, good enough to choose between ways of doing so."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.codegen.program import Call, Scalar
from graphc.scalar import walk

__all__ = ["instructions"]

_INSTRUCTIONS = {"div": 8, "sqrt": 8, "floordiv": 20, "mod": 20, "pow": 120} | dict.fromkeys(
    ("exp", "expm1", "log", "log1p", "softplus", "tanh", "sigmoid", "sin", "cos", "erf"), 40
)


def instructions(scalars: Iterable[Scalar]) -> float:
    """Those of the arithmetic, not of addresses or loads: loads in products start beside the multiplications, and a
    tile shares them."""
    total = 0.0
    for scalar in scalars:
        for part in walk(scalar):
            if isinstance(part, Call) and part.dtype != "index":
                total += _INSTRUCTIONS.get(part.fn, 1)
    return total
