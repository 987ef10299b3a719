"""The parameters of a device function, beside the addresses of buffers.

In: what a parameter is for. Out: the value that it is in the function's code.
"""

from __future__ import annotations

from graphc.codegen.cuda.isa.device import GLOBAL
from graphc.codegen.llvm.builder import Value, quoted
from graphc.codegen.program import Loop

__all__ = ["counters_value", "parts_value", "scan_values", "size_value", "steps_around"]


def size_value(name: str) -> Value:
    """A size of the program."""
    return Value(quoted("%", f"size.{name}"), "i64")


def steps_around(around: tuple[Loop, ...]) -> dict[str, Value]:
    """The current steps of the host loops around a unit, by the loops' indices."""
    return {loop.index: Value(quoted("%", f"step.{loop.index}"), "i64") for loop in around}


def parts_value(slicing: int) -> Value:
    """Of a persistent loop: into how many parts the dims of a slicing are cut."""
    return Value(f"%parts.{slicing}", "i64")


def counters_value() -> Value:
    """Of a persistent loop over the grid: the address of the counters of its barriers."""
    return Value("%counters", GLOBAL)


def scan_values() -> tuple[Value, Value]:
    """Of a linear recurrence: into how many parts its steps are cut, and the address of their totals."""
    return Value("%parts", "i64"), Value("%totals", GLOBAL)
