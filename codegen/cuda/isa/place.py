"""Where a thread stands among those that compute a kernel together, and which points fall to it.

In: the special registers, and how many CTAs share the work. Out: for any number of points, the first that is this
thread's and the step to the next. Points are dealt to CTAs warp by warp, so that few points keep all CTAs busy while
the lanes of a warp have neighbouring ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.llvm.builder import Value, i64

__all__ = ["Part", "Place", "digits", "place"]

# The first point of a dim that is this group's, and the one after the last.
Part = tuple[Value, Value]


@dataclass(frozen=True, slots=True)
class Place:
    """This thread (`thread` of `threads` in its CTA; `warp` and `lane` are its digits), its CTA's rank among the CTAs
    of its group, how many those are, and the parts of dims that are the group's."""

    threads: int
    thread: Value
    warp: Value
    lane: Value
    cta: Value
    ctas: Value
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def warps(self) -> int:
        return self.threads // WARP

    def dealt(self, f: DeviceFunction, lanes: int) -> tuple[Value, Value]:
        """Of points that take `lanes` threads each (1, a warp, or a CTA): this thread's first, and the step."""
        if lanes == self.threads:
            return self.cta, self.ctas
        first = f.binary("add nsw", f.binary("mul nsw", self.warp, self.ctas), self.cta)
        step = f.binary("mul nsw", self.ctas, i64(self.warps))
        if lanes == WARP:
            return first, step
        first = f.binary("add nsw", f.binary("mul nsw", first, i64(WARP)), self.lane)
        return first, f.binary("mul nsw", step, i64(WARP))

    def among(self, lanes: int) -> Value:
        """This thread's number among the `lanes` that compute a point together."""
        return i64(0) if lanes == 1 else self.lane if lanes == WARP else self.thread


def place(f: DeviceFunction, threads: int, cta: Value, ctas: Value, parts: Mapping[str, Part] | None = None) -> Place:
    """`cta` and `ctas` are the CTA's rank in its group and their number."""
    thread = f.register("tid.x")
    warp, lane = f.binary("lshr", thread, Value("5", "i32")), f.binary("and", thread, Value("31", "i32"))
    return Place(threads, f.wide(thread), f.wide(warp), f.wide(lane), cta, ctas, parts or {})


def digits(f: DeviceFunction, number: Value, lengths: Sequence[Value]) -> list[Value]:
    """The indices of a point, given its number in row-major order. Numbers fit in 32 bits, where division is cheap."""
    result: list[Value] = []
    rest = number
    for length in reversed(lengths[1:]):
        if length.text == "1":
            result.append(i64(0))
            continue
        a, b = f.narrow(rest), f.narrow(length)
        result.append(f.wide(f.binary("urem", a, b)))
        rest = f.wide(f.binary("udiv", a, b))
    return [rest, *reversed(result)] if lengths else []
