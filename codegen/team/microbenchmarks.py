"""Small loops that show what a core can do, as the text of an LLVM module.

Each is a function `void name(ptr block, i64 turns)`. But `read` is told, too, how many times to read the block, and
`meet` takes a thread's share like any program's (`graphc.codegen.cpu.module`). `block` begins at a cache line and has
`WORKED` bytes or more; what a loop makes is stored there, so that none of it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cpu.barrier import BARRIER, barrier
from graphc.codegen.cpu.clock import NOW, has_clock
from graphc.codegen.cpu.module import attributes_of
from graphc.codegen.llvm.builder import Function, Value, i64, vector_type
from graphc.codegen.target import Target

__all__ = ["CHAINED", "LINE", "LOADED", "MET", "MULTIPLIED", "PROBES", "WORKED", "probes"]

CHAINED = 64  # operations of a turn that wait for each other
MULTIPLIED = 12  # products of a turn that are added to sums of their own
LOADED = 8  # vectors of a turn
MET = 8  # lines that each of two threads writes before a barrier, and the other reads after it
LINE = 64  # bytes
WORKED = MULTIPLIED * LINE

PROBES = ("chain", "multiply", "read", "meet", "now")
_BLOCK, _TURNS, _TIMES = Value("%block", "ptr"), Value("%turns", "i64"), Value("%times", "i64")


def probes(target: Target) -> str:
    """The module: a function for each of `PROBES`."""
    functions = [_chain(), _multiply(target), _read(target), _meet(), _now(target)]
    meeting, pausing = barrier(target, attributes_of(target))
    declared = {pausing}.union(*(f.declarations for f in functions))
    texts = [f.text(attributes_of(target)) for f in functions]
    return "\n".join([f'target triple = "{target.triple}"', *texts, meeting, *sorted(declared)])


def _function(name: str, *more: Value) -> Function:
    return Function(name, [str(value) for value in (_BLOCK, _TURNS, *more)], "dso_local")


def _variables(f: Function, type: str, count: int) -> list[Value]:
    """Values that begin as what stands in the block, one after another."""
    places = [f.variable(type) for _ in range(count)]
    for k, place in enumerate(places):
        f.put(f.get(f.offset(_BLOCK, type, i64(k)), type), place)
    return places


def _keep(f: Function, type: str, places: Sequence[Value]) -> None:
    for k, place in enumerate(places):
        f.put(f.get(place, type), f.offset(_BLOCK, type, i64(k)))


def _chain() -> Function:
    """Shifts and sums, each of what the one before made: each takes a cycle."""
    f = _function("chain")
    places = _variables(f, "i64", 1)
    with f.loop(i64(0), _TURNS, i64(1), "turn"):
        value = f.get(places[0], "i64")
        for _ in range(CHAINED // 2):
            value = f.binary("add", f.binary("lshr", value, i64(1)), value)
        f.put(value, places[0])
    _keep(f, "i64", places)
    return f


def _multiply(target: Target) -> Function:
    """Multiply-adds of vectors, as many side by side as hide how long one takes."""
    f = _function("multiply")
    type = vector_type("float", target.lanes(4))
    factor, sums = f.get(_BLOCK, type), _variables(f, type, MULTIPLIED)
    with f.loop(i64(0), _TURNS, i64(1), "turn"):
        for place in sums:
            before = f.get(place, type)
            if target.has_fma:
                after = f.intrinsic("fma", factor, factor, before)
            else:
                after = f.binary("fadd", f.binary("fmul", before, factor), factor)
            f.put(after, place)
    _keep(f, type, sums)
    return f


def _read(target: Target) -> Function:
    """The block from its first vector on, `LOADED` of them in a turn."""
    f = _function("read", _TIMES)
    type = vector_type("i32", target.lanes(4))
    sums = _variables(f, type, LOADED)
    end = f.binary("mul", _TURNS, i64(LOADED))
    with (
        f.loop(i64(0), _TIMES, i64(1), "time"),
        f.loop(i64(0), end, i64(LOADED), "turn") as (vector, _),
    ):
        for k, place in enumerate(sums):
            loaded = f.get(f.offset(_BLOCK, type, f.binary("add", vector, i64(k))), type)
            f.put(f.binary("xor", f.get(place, type), loaded), place)
    _keep(f, type, sums)
    return f


def _meet() -> Function:
    """Two threads write lines of the block, meet, and read each other's, so many times as `sizes` says."""
    f = Function("meet", ["ptr %args", "ptr %sizes", "ptr %row", "ptr %team"], "dso_local")
    block, turns = f.get(Value("%args", "ptr"), "ptr"), f.get(Value("%sizes", "ptr"), "i64")
    thread, team, null = f.get(Value("%row", "ptr"), "i64"), Value("%team", "ptr"), Value("null", "ptr")
    line = vector_type("i64", LINE // 8)
    own, other = (
        f.offset(block, line, f.binary("mul", whose, i64(MET))) for whose in (thread, f.binary("sub", i64(1), thread))
    )
    with f.when(f.compare("icmp ne", team, null)), f.loop(i64(0), turns, i64(1), "turn") as (turn, _):
        for k in range(MET):
            f.put(turn, f.offset(own, line, i64(k)))
        f.effect(f"call void @{BARRIER}({team}, {thread})")
        for k in range(MET):
            seen = f.get(f.offset(other, line, i64(k)), "i64")
            f.put(seen, f.offset(f.offset(own, line, i64(k)), "i64", i64(1)))
    return f


def _now(target: Target) -> Function:
    """The ticks of the clock (`graphc.codegen.cpu.clock`)."""
    f = _function("now")
    f.put(f.call("i64", NOW) if has_clock(target) else i64(0), _BLOCK)
    return f
