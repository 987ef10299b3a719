"""What a core of a processor can do, as far as the choice between ways of running a program depends on it.

A `Core`'s figures are in its own cycles. `TYPICAL` is a server's; those of the machine that a process runs on are
measured (`graphc.codegen.team.measure`).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TYPICAL", "Core"]

_KEPT = 3 / 4  # of a cache, for what is read again and again; the rest passes through


@dataclass(frozen=True, slots=True)
class Core:
    """`level_1` and `level_2` are the bytes of its own caches. From the second come `within` bytes a cycle, from
    further away `beyond`. So many vector `products`, added to sums, start in a cycle. A `barrier` with another core
    takes so many cycles, with what the two then read of each other. The `clock` makes so many cycles a second."""

    level_1: int
    level_2: int
    within: float
    beyond: float
    products: float
    barrier: float
    clock: float

    def reading(self, bytes: float) -> float:
        """Cycles to read again so many bytes that were read before. What fits the first-level cache is free."""
        if bytes <= _KEPT * self.level_1:
            return 0.0
        return bytes / (self.within if bytes <= _KEPT * self.level_2 else self.beyond)

    def meeting(self, threads: int) -> float:
        """Cycles of a barrier (`graphc.codegen.cpu.barrier`), in which the threads meet in log2 rounds."""
        return self.barrier * (threads - 1).bit_length()


TYPICAL = Core(level_1=48 << 10, level_2=2 << 20, within=48.0, beyond=8.0, products=2.0, barrier=1000.0, clock=3e9)
