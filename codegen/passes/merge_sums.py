"""Joins sums that are only added up: afterwards they are one sum, in one accumulator.

In: a Program. Out: a Program that computes the same, up to rounding:

    Σ a + Σ b  =  Σ (a + b)

where both sums run over the same points of one `Reduce` and nothing else uses them. The gradient of an LSTM's hidden
state is such a sum over its four gates: joined, a tile holds four times as many elements of it in registers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from graphc.codegen.program import Accumulate, Call, Kernel, Let, Program, Reduce, Ref, map_kernels
from graphc.codegen.uses import name_counts
from graphc.scalar import call

__all__ = ["merge_sums"]


def merge_sums(program: Program) -> Program:
    """The program with one sum in the place of two that are only added up."""
    return replace(program, body=map_kernels(program.body, _kernel))


def _kernel(kernel: Kernel) -> Kernel:
    uses = name_counts(kernel)
    body: list[Let | Reduce] = []
    for step in kernel.body:
        joined = _joined(body, step, uses) if isinstance(step, Let) else None
        if joined is None:
            body.append(step)
        else:
            body[joined[0]] = joined[1]
    return replace(kernel, body=tuple(body))


def _joined(before: Sequence[Let | Reduce], let: Let, uses: Counter[str]) -> tuple[int, Reduce] | None:
    """For a let that adds two sums of one reduction, and alone uses them: the reduction's place, and the reduction with
    one sum in their place."""
    match let.value:
        case Call("add", (Ref(a), Ref(b))) if a != b and uses[a] == uses[b] == 1:
            for position, step in enumerate(before):
                if isinstance(step, Reduce):
                    values = {s.name: s.value for s in step.sums if s.op == "sum"}
                    if a in values and b in values:
                        total = Accumulate(let.name, "sum", call("add", values[a], values[b]))
                        return position, replace(step, sums=(*(s for s in step.sums if s.name not in (a, b)), total))
    return None
