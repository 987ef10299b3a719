"""The clock by which a call's time is told apart, as text of the module whose code reads it.

A thread that is given clocks adds to that of each top-level statement the ticks for which it runs. What a tick is, only
differences tell (`graphc.codegen.team.measure`).
"""

from __future__ import annotations

from graphc.codegen.target import Target

__all__ = ["NOW", "TICK", "clock", "has_clock"]

TICK = "tick"
NOW = "llvm.readcyclecounter"


def has_clock(target: Target) -> bool:
    """Whether the processor has a clock that any program may read."""
    return target.is_x86 or target.is_arm64


def clock(attributes: str) -> tuple[str, str]:
    """The function `void tick(ptr clocks, i64 statement, i64 sign)`, which adds the time to a clock, or with a sign of
    -1 subtracts it; and the line that declares what it uses."""
    return (
        f"""\
define internal void @{TICK}(ptr %clocks, i64 %statement, i64 %sign) noinline {attributes} {{
  %now = call i64 @{NOW}()
  %signed = mul i64 %now, %sign
  %place = getelementptr i64, ptr %clocks, i64 %statement
  %before = load i64, ptr %place
  %after = add i64 %before, %signed
  store i64 %after, ptr %place
  ret void
}}""",
        f"declare i64 @{NOW}()",
    )
