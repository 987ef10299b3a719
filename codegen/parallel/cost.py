"""What a kernel costs: an estimate in cycles of one core, good enough to choose between ways of running it.

In: a kernel and the lanes that its vectors have. Out: its `Cost`, which gives cycles for known sizes. Counted are the
instructions of every point, two of which start in a cycle, and of every point of its reductions, as many as a core adds
products in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.lengths import points_of
from graphc.codegen.parallel.core import Core
from graphc.codegen.program import Dim, Index, Kernel, Let, Load, Scalar
from graphc.codegen.tiling.instructions import instructions
from graphc.scalar import walk

__all__ = ["Cost", "Operand", "cost"]

_PER_CYCLE = 2
_STORE = 2


@dataclass(frozen=True, slots=True)
class Operand:
    """A buffer that reductions read, and the indices that its elements move with."""

    buffer: str
    moving: frozenset[str]


@dataclass(frozen=True, slots=True)
class Cost:
    """The instructions at `each` point of some dims, the costs of the reductions `inside`, and the operands of
    these."""

    dims: tuple[Dim, ...]
    each: float
    inside: tuple[Cost, ...] = ()
    operands: frozenset[Operand] = frozenset()

    def cycles(self, sizes: Mapping[str, int], core: Core) -> tuple[float, float]:
        """Cycles of all points together, given the lengths that come with the data: those of the points themselves, and
        those of the reductions inside."""
        count = points_of(self.dims, sizes)
        inside = sum(points_of(reduce.dims, sizes) * reduce.each for reduce in self.inside)
        return count * self.each / _PER_CYCLE, count * inside / core.products


def cost(kernel: Kernel, lanes: int) -> Cost:
    """The cost of a kernel whose points, or the points of whose reductions, run in vectors of `lanes` lanes."""
    each = _STORE * len(kernel.stores) + _at_least_one([store.value for store in kernel.stores])
    inside: list[Cost] = []
    operands: set[Operand] = set()
    for step in kernel.body:
        if isinstance(step, Let):
            each += _at_least_one([step.value])
            continue
        inside.append(Cost(step.dims, _at_least_one(step.values) / lanes))
        operands |= {_operand(p) for value in step.values for p in walk(value) if isinstance(p, Load)}
    return Cost(kernel.dims, each / lanes, tuple(inside), frozenset(operands))


def _operand(load: Load) -> Operand:
    return Operand(load.buffer, frozenset(p.name for s in load.at for p in walk(s) if isinstance(p, Index)))


def _at_least_one(scalars: Sequence[Scalar]) -> float:
    """Their instructions; one at least, to load or to store."""
    return max(1.0, instructions(scalars))
