"""Statements that need little memory run as soon as they can, so that what they read is needed no longer.

In: a Program. Out: a Program with the same statements in another order. A statement that reads temporaries whose size
comes with the data, and stores to none, moves ahead of those that do, up to what it depends on: the sum of an adjoint,
a bias's gradient, then runs before that adjoint is copied for other gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.codegen.program import Loop, Program, Statement
from graphc.codegen.uses import loaded, stored


@dataclass(frozen=True, slots=True)
class _Placed:
    statement: Statement
    loaded: frozenset[str]
    stored: frozenset[str]


def reorder(program: Program) -> Program:
    """The program with its statements in the order that needs the least memory."""
    large = {b.name for b in program.buffers if b.kind == "temp" and b.sizes}
    return replace(program, body=_ordered(program.body, large))


def _ordered(body: tuple[Statement, ...], large: set[str]) -> tuple[Statement, ...]:
    order: list[_Placed] = []
    for statement in body:
        if isinstance(statement, Loop) and any(isinstance(inner, Loop) for inner in statement.body):
            statement = replace(statement, body=_ordered(statement.body, large))
        placed = _Placed(statement, frozenset(loaded((statement,))), frozenset(stored((statement,))))
        position = len(order)
        if placed.loaded & large and not placed.stored & large:
            first = _earliest(placed, order)
            position = next((k for k in range(first, len(order)) if order[k].stored & large), len(order))
        order.insert(position, placed)
    return tuple(placed.statement for placed in order)


def _earliest(placed: _Placed, order: Sequence[_Placed]) -> int:
    """The place behind the last statement that must come before."""
    for position in range(len(order), 0, -1):
        before = order[position - 1]
        if placed.loaded & before.stored or placed.stored & (before.stored | before.loaded):
            return position
    return 0
