"""A loop as the work of one launch: its slicings, which threads compute which points, and the versions of its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from graphc.codegen.cuda.isa.arch import THREADS
from graphc.codegen.cuda.loops.slices import Slicing
from graphc.codegen.cuda.loops.versions import Version
from graphc.codegen.program import Loop, Statement

__all__ = ["LoopUnit"]


@dataclass(frozen=True)
class LoopUnit:
    """A loop, with the host loops `around` it. `barriers`: the kernels that need a barrier or an exchange before them.
    `lanes`: how many lanes compute a point of each kernel. `epilogues`: kernels whose points are computed by the
    threads that have a product's sums at the same points; by name, with the name of that product's kernel. `versions`:
    the versions of the loop's code."""

    symbol: str
    loop: Loop
    buffers: tuple[str, ...]
    slicings: tuple[Slicing, ...]
    barriers: frozenset[str]
    lanes: Mapping[str, int]
    epilogues: Mapping[str, str]
    versions: tuple[Version, ...]
    around: tuple[Loop, ...] = ()
    threads: ClassVar[int] = THREADS

    @property
    def statement(self) -> Statement:
        """The statement whose work this is."""
        return self.loop

    def symbol_of(self, version: Version) -> str:
        """The name of a version's function."""
        return f"{self.symbol}_{version.kind}{version.ctas}" + ("_words" if version.sends_words else "")
