"""Skips the points of a sum that add nothing: a sum of select(condition, x, 0) goes through the points where the
condition holds.

In: a Program. Out: a Program that computes the same. The condition becomes the `when` of the reduction, which is
tested once for all lanes, and in the loop of the outermost index that decides it; so it must not differ between lanes,
nor need another sum's result.
A gradient of pooling is such a sum: of the nine elements of a 3 × 3 window with stride 2, at most four are real.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.access import MEMORY, Access
from graphc.codegen.program import (
    Accumulate,
    Call,
    Const,
    Kernel,
    Let,
    Load,
    Program,
    Reduce,
    Scalar,
    map_kernels,
    map_reduces,
)
from graphc.codegen.tiling.vectorize import vector_index
from graphc.codegen.uses import written_out
from graphc.scalar import replaced

__all__ = ["predicate"]


def predicate(program: Program) -> Program:
    """The program with a condition on the points of a reduction in the place of one on its terms."""
    return replace(program, body=map_kernels(program.body, lambda kernel: _kernel(kernel, program)))


def _kernel(kernel: Kernel, program: Program) -> Kernel:
    if not kernel.reduces:
        return kernel
    access, vector = Access(kernel, program), vector_index(kernel, program)
    return map_reduces(kernel, lambda reduce: _guarded(reduce, access, vector))


def _guarded(reduce: Reduce, access: Access, vector: str | None) -> Reduce:
    chosen = [_choice(total, access) for total in reduce.sums]
    conditions = {choice[0] for choice in chosen if choice is not None}
    if reduce.when is not None or None in chosen or len(conditions) != 1 or vector is None:
        return reduce
    (condition,) = conditions
    if ({vector, MEMORY} | access.sums.keys()) & access.dependence(condition):
        return reduce
    sums = [
        Accumulate(total.name, total.op, _assuming(choice[1], condition))
        for total, choice in zip(reduce.sums, chosen, strict=True)
        if choice is not None
    ]
    body = tuple(Let(let.name, _assuming(let.value, condition)) for let in reduce.body)
    when = written_out(condition, access.lets)  # it is tested before names are computed
    return Reduce(reduce.dims, tuple(sums), body, when)


def _choice(total: Accumulate, access: Access) -> tuple[Scalar, Scalar] | None:
    """Of a sum of select(condition, value, 0), the condition and the value."""
    match total.op, access.resolve(total.value):
        case "sum", Call("select", (condition, value, otherwise)):
            if isinstance(otherwise, Const) and otherwise.value == 0:
                return condition, value
    return None


def _assuming(scalar: Scalar, condition: Scalar) -> Scalar:
    """A value at points where the condition holds, without asking for it again."""

    def rule(part: Scalar) -> Scalar | None:
        if isinstance(part, Load) and part.when == condition:
            return _assuming(replace(part, when=None), condition)
        if isinstance(part, Call) and part.fn == "select" and part.args[0] == condition:
            return _assuming(part.args[1], condition)
        return None

    return replaced(scalar, rule)
