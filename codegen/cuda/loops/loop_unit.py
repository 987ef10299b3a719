"""A loop as the work of one launch: its slices, which threads compute which points, and the versions of its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.codegen.cuda.isa.arch import THREADS
from graphc.codegen.cuda.isa.device import GLOBAL
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.cuda.loops.versions import Version
from graphc.codegen.llvm.builder import Value, quoted
from graphc.codegen.program import Loop, Statement

__all__ = ["LoopUnit", "counters_value", "parts_value", "steps_around"]


def parts_value(slicing: int) -> Value:
    """The parameter that says into how many parts the dims of a slicing are cut."""
    return Value(f"%parts.{slicing}", "i64")


def counters_value() -> Value:
    """The parameter that holds the counters of the grid's barriers."""
    return Value("%counters", GLOBAL)


def steps_around(around: tuple[Loop, ...]) -> dict[str, Value]:
    """The parameters that hold the steps of the loops that the host walks around a unit, by their indices."""
    return {loop.index: Value(quoted("%", f"step.{loop.index}"), "i64") for loop in around}


@dataclass(frozen=True)
class LoopUnit:
    """A loop, with those `around` it that the host walks: its slicings, the kernels that need a barrier before them,
    the lanes that compute a point of each, and the versions of its code. `visited` are kernels whose points are
    computed by the threads that end with a product's sums at those points, by that product's kernel."""

    symbol: str
    loop: Loop
    buffers: tuple[str, ...]
    slicings: tuple[Slicing, ...]
    barriers: frozenset[str]
    lanes: Mapping[str, int]
    visited: Mapping[str, str]
    versions: tuple[Version, ...]
    around: tuple[Loop, ...] = ()
    threads: int = THREADS

    @property
    def statement(self) -> Statement:
        return self.loop

    def symbol_of(self, version: Version) -> str:
        return f"{self.symbol}_{version.kind}{version.ctas}" + ("_told" if version.is_told else "")
