"""A pointwise loop as the work of one launch: no point of a step needs another point of the step before.

    h[t, n, e] = a[t, n, e] · h[t - 1, n, e] + b[t, n, e]

In: a loop and its slicings. Out: a `PointwiseUnit`, if the loop falls apart along all dims of all its kernels, and none
of them has a reduction. Then each thread takes one point from the first step to the last, and waits for nobody.

If the recurrence is linear and has so few points that most of the chip would be idle, its steps are cut into parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from graphc.codegen.cuda.isa.arch import Arch
from graphc.codegen.cuda.loops.linear import Linear, linear
from graphc.codegen.cuda.loops.prefetch import Prefetch, prefetches
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.lengths import evaluate
from graphc.codegen.program import Call, Kernel, Loop, Program, Statement, kernels, scalars
from graphc.codegen.uses import loads, stored, touched
from graphc.scalar import walk

__all__ = ["PointwiseUnit", "pointwise_unit"]

_THREADS = 64  # of a CTA: few, so that a thousand points are on sixteen SMs
_MOST_STEPS = 16  # whose operands are loaded together
_REGISTERS = 64  # of a thread, for loaded operands
_OPERATIONS = 512  # of these steps: the code has all of them one after another
_THREADS_AN_SM = 128  # that keep memory busy, each with the operands of several steps
_FEWEST = 4  # parts: every operand is read twice, so fewer gain nothing
_SHORTEST = 16  # steps of a part


@dataclass(frozen=True)
class PointwiseUnit:
    """A loop of which each thread computes one point in all steps. The point is given by its place along each of the
    `slicings`. `prefetches`: what is in a register before it is needed. Buffers in `kept` are in registers only.
    `linear`: the recurrence, if it is linear. The operands of `together` steps are loaded before the first of them is
    computed."""

    symbol: str
    loop: Loop
    buffers: tuple[str, ...]
    slicings: tuple[Slicing, ...]
    prefetches: tuple[Prefetch, ...]
    kept: frozenset[str]
    linear: Linear | None
    together: int
    around: tuple[Loop, ...] = ()
    threads: ClassVar[int] = _THREADS

    @property
    def statement(self) -> Statement:
        """The statement whose work this is."""
        return self.loop

    def points(self, sizes: Mapping[str, int]) -> int:
        """The points of a step."""
        return math.prod(evaluate(slicing.extent, sizes) for slicing in self.slicings)

    @property
    def totals_symbol(self) -> str:
        """The name of the function that computes what parts come to."""
        return f"{self.symbol}_totals"

    def parts(self, sizes: Mapping[str, int], arch: Arch) -> int:
        """Into how many parts the steps are cut: enough to fill the chip, but not so many that going through the parts
        would take as long as going through the steps of one."""
        points, steps = self.points(sizes), evaluate(self.loop.extent, sizes)
        if self.linear is None or not points:
            return 1
        parts = min(arch.sms * _THREADS_AN_SM // points, math.isqrt(2 * steps), steps // _SHORTEST)
        return parts if parts >= _FEWEST else 1

    @property
    def operations(self) -> int:
        """What a thread computes in a step: calls of functions, most of them one instruction."""
        return _operations(self.loop)


def pointwise_unit(
    symbol: str, loop: Loop, around: tuple[Loop, ...], slicings: Sequence[Slicing], program: Program
) -> PointwiseUnit | None:
    """The unit of a pointwise loop, with the host loops `around` it; None for any other loop."""
    body = [statement for statement in loop.body if isinstance(statement, Kernel)]
    if len(body) < len(loop.body) or not all(_is_pointwise(kernel, len(slicings)) for kernel in body):
        return None
    found = prefetches(loop, dict.fromkeys((kernel.name for kernel in body), "point"), {body[0].name}, program)
    kept = frozenset() if around else _kept(loop, found, program)
    cut = None if _are_overwritten(loop, found, kept, bool(around), program) else linear(loop, found, program)
    together = _together(loop, found)
    return PointwiseUnit(symbol, loop, tuple(touched((loop,))), tuple(slicings), found, kept, cut, together, around)


def _together(loop: Loop, found: Sequence[Prefetch]) -> int:
    """Of how many steps operands are loaded together: a power of two."""
    loaded = sum(x.wait is not None for x in found)
    most = min(_MOST_STEPS, _REGISTERS // max(1, loaded), _OPERATIONS // max(1, _operations(loop)))
    return 1 << (max(1, most).bit_length() - 1)


def _operations(loop: Loop) -> int:
    return sum(isinstance(part, Call) for k in kernels((loop,)) for x in scalars(k) for part in walk(x))


def _kept(loop: Loop, found: Sequence[Prefetch], program: Program) -> frozenset[str]:
    """The temporaries that only this loop touches, and only reads where it has the value in a register."""
    in_registers = {(x.kernel, x.load) for x in found if x.made_by is not None}
    own = {buffer.name for buffer in program.buffers if buffer.kind == "temp"} & stored((loop,))
    inside = {kernel.name for kernel in kernels((loop,))}
    for kernel in kernels(program.body):
        own -= {load.buffer for load in loads(kernel) if (kernel.name, load) not in in_registers}
        own -= set() if kernel.name in inside else stored((kernel,))
    return frozenset(own)


def _are_overwritten(
    loop: Loop, found: Sequence[Prefetch], kept: frozenset[str], goes_on: bool, program: Program
) -> bool:
    """Whether the first step may read a state that the last ones overwrite: one in a ring that something had stored
    before the loop, or the same loop if it `goes_on` in chunks."""
    states = {x.load for x in found if x.made_by is not None and x.load.buffer not in kept}
    inside = {kernel.name for kernel in kernels((loop,))}
    elsewhere = stored(kernel for kernel in kernels(program.body) if kernel.name not in inside)
    rings = (load for load in states if program.buffer(load.buffer).has_ring)
    return any(goes_on or load.when is None or load.buffer in elsewhere for load in rings)


def _is_pointwise(kernel: Kernel, slicings: int) -> bool:
    """Whether a kernel is sliced along all of its dims, and computes each point by itself."""
    alone = not kernel.reduces and not any(store.accumulate for store in kernel.stores)
    return alone and len(kernel.dims) == slicings
