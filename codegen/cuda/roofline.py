"""What a launch should take on a GPU, by counting.

In: a unit, and the sizes of a call. Out: a `Count`. A loop takes the time of the best grouping by the cost model
(`graphc.codegen.cuda.cost_model`); a pointwise loop that of its loads and operations, one after another in each thread,
or of memory. Any other kernel takes its operations at the full rate of the chip or its bytes at the full rate of
memory, whichever is longer. The time of a launch is added to each. Real products outside of loops are slower than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.cuda.cost_model import LATENCY, TENSOR, groupings, step_of
from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.kernel.search import Search
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.cuda.units import Unit
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.memory.arena import buffer_bytes
from graphc.codegen.program import Kernel, Program, Statement
from graphc.codegen.uses import loaded, stored

__all__ = ["LAUNCH", "Count", "count"]

LAUNCH = 2e-6  # seconds from one kernel of a CUDA graph to the next
_DEPENDENT = 4  # cycles from one operation to the next that needs its result
_SCHEDULERS = 4  # of an SM, each of which issues an instruction in a cycle


@dataclass(frozen=True, slots=True)
class Count:
    """The seconds of a launch, its operations, and the bytes of the arrays that it touches, each counted once."""

    seconds: float
    flops: int
    bytes: int


def count(unit: Unit, code: CudaCode, sizes: Mapping[str, int]) -> Count:
    """What one launch of a unit should take."""
    if isinstance(unit, LoopUnit):
        return _loop(unit, code, sizes)
    if isinstance(unit, PointwiseUnit):
        return _pointwise(unit, code, sizes)
    return _points(unit, code, sizes)


def _loop(unit: LoopUnit, code: CudaCode, sizes: Mapping[str, int]) -> Count:
    best, step = groupings(unit, code.program, code.arch, sizes)[0], step_of(unit, code.program, sizes)
    touched = _touched(unit.loop, code.program, sizes)
    return Count(LAUNCH + max(best.seconds, touched / code.arch.memory), step.flops * step.steps, touched)


def _pointwise(unit: PointwiseUnit, code: CudaCode, sizes: Mapping[str, int]) -> Count:
    """A step takes what its share of a load's latency and its operations take. In parts, each operand is read twice."""
    arch, steps, points = code.arch, evaluate(unit.loop.extent, sizes), unit.points(sizes)
    parts, touched = unit.parts(sizes, arch), _touched(unit.loop, code.program, sizes)
    times = 1 if parts == 1 else 2
    warps = -(-points * parts // WARP)
    issue = unit.operations * max(_DEPENDENT, warps / (arch.sms * _SCHEDULERS)) / (arch.clock * 1e9)
    seconds = (times * steps / parts + (times - 1) * parts) * (LATENCY / unit.together + issue)
    return Count(
        times * LAUNCH + max(seconds, times * touched / arch.memory), points * steps * unit.operations, touched
    )


def _points(unit: PointsUnit, code: CudaCode, sizes: Mapping[str, int]) -> Count:
    flops = _operations(unit.kernel, sizes) if unit.search is None else _searching(unit.kernel, unit.search, sizes)
    touched = _touched(unit.kernel, code.program, sizes)
    rate = code.arch.flops * code.arch.sms * (TENSOR if unit.on_tensor_cores else 1)
    return Count(LAUNCH + max(flops / rate, touched / code.arch.memory), flops, touched)


def _operations(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    """Two for each multiply-add of the kernel's products, one for each point besides."""
    points = points_of(kernel.dims, sizes)
    terms = sum(len(reduce.sums) * points_of(reduce.dims, sizes) for reduce in kernel.reduces)
    return points * (2 * terms + 1)


def _searching(kernel: Kernel, search: Search, sizes: Mapping[str, int]) -> int:
    """A comparison for each term and row, and an addition for each term and column."""
    terms, columns = points_of(search.choice.reduce.dims, sizes), points_of((search.column,), sizes)
    return terms * (points_of(kernel.dims, sizes) // columns + columns)


def _touched(statement: Statement, program: Program, sizes: Mapping[str, int]) -> int:
    names = loaded((statement,)) | stored((statement,))
    return sum(buffer_bytes(program.buffer(name), sizes) for name in names)
