"""A thread's position among those that compute a kernel together, and which points it computes.

In: the special registers, and how many CTAs share the work. Out: for any number of points, the first that is this
thread's and the stride to its next. Points are mapped to CTAs warp by warp: so few points keep all CTAs busy, and the
lanes of a warp have neighbouring points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.codegen.cuda.isa.arch import WARP
from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.llvm.builder import Value, i64
from graphc.codegen.program import Dim

__all__ = ["Part", "Place", "digits", "named", "place"]

# The first point of a dim that is this group's, and the end.
Part = tuple[Value, Value]


@dataclass(frozen=True, slots=True)
class Place:
    """A thread's position: it is number `thread` of the `threads` of its CTA, and lane `lane` of warp `warp`. Its CTA
    has rank `cta` among the `ctas` CTAs of its group. `parts`: the group's part of each dim that is cut, by index."""

    threads: int
    thread: Value
    warp: Value
    lane: Value
    cta: Value
    ctas: Value
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def warps(self) -> int:
        """The warps of the CTA."""
        return self.threads // WARP

    def grid_stride(self, f: DeviceFunction, lanes: int) -> tuple[Value, Value]:
        """This thread's first point, and the stride to its next, if `lanes` threads (1, a warp, or a CTA) share one."""
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
    """The position of the running thread. `cta`: its CTA's rank in the group; `ctas`: the CTAs of the group."""
    thread = f.register("tid.x")
    warp, lane = f.binary("lshr", thread, Value("5", "i32")), f.binary("and", thread, Value("31", "i32"))
    return Place(threads, f.wide(thread), f.wide(warp), f.wide(lane), cta, ctas, parts or {})


def named(dims: Iterable[Dim], values: Iterable[Value]) -> dict[str, Value]:
    """The indices of dims, by name, given their values in order."""
    return {dim.index: value for dim, value in zip(dims, values, strict=True)}


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
