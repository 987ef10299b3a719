"""What a kernel costs: an estimate in cycles of one core, good enough to choose between ways of running it.

In: a kernel and the lanes that its vectors have. Out: its `Cost`, which gives cycles for known sizes. Counted are the
instructions of every point and of every point of its reductions; two of them start in a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.program import Call, Const, Dim, Index, Kernel, Let, Load, Scalar, Size
from graphc.scalar import FUNCTIONS, walk

__all__ = ["Cost", "Operand", "cost", "evaluate"]

_PER_CYCLE = 2
_STORE = 2
_INSTRUCTIONS = {"div": 8, "sqrt": 8, "floordiv": 20, "mod": 20, "pow": 120} | dict.fromkeys(
    ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sin", "cos", "erf"), 40
)


@dataclass(frozen=True, slots=True)
class Operand:
    """A buffer that reductions read, and the indices that its elements move with."""

    buffer: str
    moving: frozenset[str]


@dataclass(frozen=True, slots=True)
class Cost:
    """Cycles at each point of some dims, and those of reductions inside it; and what the reductions read."""

    dims: tuple[Dim, ...]
    each: float
    inside: tuple[Cost, ...] = ()
    operands: frozenset[Operand] = frozenset()

    def cycles(self, sizes: Mapping[str, int]) -> float:
        """Of all points, given the lengths that come with the data."""
        points = 1
        for dim in self.dims:
            points *= evaluate(dim.extent, sizes)
        return points * (self.each + sum(reduce.cycles(sizes) for reduce in self.inside))


def cost(kernel: Kernel, lanes: int) -> Cost:
    """The cost of a kernel whose points, or whose reductions' points, run in vectors of `lanes` lanes."""
    each = _STORE * len(kernel.stores) + _instructions([store.value for store in kernel.stores])
    inside: list[Cost] = []
    operands: set[Operand] = set()
    for step in kernel.body:
        if isinstance(step, Let):
            each += _instructions([step.value])
            continue
        values = [*(let.value for let in step.body), *(total.value for total in step.sums)]
        inside.append(Cost(step.dims, _instructions(values) / (_PER_CYCLE * lanes)))
        operands |= {_operand(p) for value in values for p in walk(value) if isinstance(p, Load)}
    return Cost(kernel.dims, each / (_PER_CYCLE * lanes), tuple(inside), frozenset(operands))


def _operand(load: Load) -> Operand:
    return Operand(load.buffer, frozenset(p.name for s in load.at for p in walk(s) if isinstance(p, Index)))


def _instructions(scalars: Sequence[Scalar]) -> float:
    """Loads in products are free: they start beside the multiplications, and a tile shares them."""
    total = 0.0
    for scalar in scalars:
        for part in walk(scalar):
            if isinstance(part, Call) and part.dtype != "index":
                total += _INSTRUCTIONS.get(part.fn, 1)
    return max(1.0, total)


def evaluate(extent: Scalar, sizes: Mapping[str, int]) -> int:
    """A length, given those that come with the data; in a loop, that at its first step."""
    match extent:
        case Const(value):
            return int(value)
        case Size(name):
            return sizes[name]
        case Index():
            return 0
        case Call(fn, args):
            return int(FUNCTIONS[fn].numpy(*(evaluate(a, sizes) for a in args)))
    raise TypeError(f"a length made of numbers and sizes was expected, not {extent}")
