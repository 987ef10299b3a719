"""Instructions of a whole warp: shuffles, votes, matches, reductions. They wait for all lanes of their mask.

In a CTA whose last warp is not full, the lanes that do not exist take no part, whatever the mask says; reading from
such a lane, or from one outside the mask, is an error, since PTX leaves the result undefined.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx import kinds
from tests.ptx.elementwise import Builder, only, type_of
from tests.ptx.errors import BarrierDivergence, UndefinedResult
from tests.ptx.flow import GONE, Control, ControlBuilder
from tests.ptx.geometry import WARP
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Step
from tests.ptx.syntax import Instruction

_IN_WARP, _EXITED = 3, 5


def lane_masks(machine_count: int, threads: Array | None) -> Array:
    """For each warp, the lanes among these threads, as bits."""
    present = np.zeros(machine_count, bool)
    present[slice(None) if threads is None else threads] = True
    return np.packbits(present.reshape(-1, WARP), axis=1, bitorder="little").view(np.uint32).reshape(-1)


def converged(i: Instruction, g: Group, mask: Array, place: int) -> bool:
    """Whether all lanes that each thread's mask names are in the group; else those threads wait for the others."""
    machine = g.machine
    if g.threads is None and (mask == 0xFFFFFFFF).all():
        return True
    exists = lane_masks(machine.count, np.flatnonzero(machine.geometry.exists))
    warp = g.numbers // WARP
    here = lane_masks(machine.count, g.threads)
    lane = (g.numbers % WARP).astype(np.uint32)
    if (mask >> lane & np.uint32(1) == 0).any():
        first = int(np.flatnonzero(np.broadcast_to(mask, (g.count,)) >> lane & np.uint32(1) == 0)[0])
        raise machine.error(UndefinedResult, i, int(g.numbers[first]), "is not in the mask it gives")
    if not (mask & exists[warp] & ~here[warp]).any():
        return True
    gone = lane_masks(machine.count, np.flatnonzero((machine.status == _EXITED) & machine.geometry.exists))
    lost = mask & gone[warp]
    if lost.any():
        thread = int(g.numbers[np.flatnonzero(lost)[0]])
        raise machine.error(
            BarrierDivergence, i, thread, f"waits for lanes of its warp that have exited (0x{int(lost.max()):x})"
        )
    machine.warp_masks[g.numbers] = mask
    machine.block(g, g.numbers, place, _IN_WARP)
    together = np.flatnonzero((machine.status == _IN_WARP) & (machine.resume == place))
    assembled = lane_masks(machine.count, together)
    missing = machine.warp_masks[together] & exists[together // WARP] & ~assembled[together // WARP]
    machine.release(together[missing == 0])
    return False


def _in_lanes(g: Group, values: Array, fill: int = 0) -> Array:
    """Per-thread values of the group as (warps of the group, 32); other lanes hold `fill`."""
    values = g.spread(values)
    if g.threads is None:
        return values.reshape(-1, WARP)
    whole = np.full(g.machine.count, fill, values.dtype)
    whole[g.threads] = values
    return whole.reshape(-1, WARP)


def _of_group(g: Group, lanes: Array) -> Array:
    """Back from (warps, 32) to the group's threads."""
    flat = lanes.reshape(-1)
    return flat if g.threads is None else flat[g.threads]


def shuffle(i: Instruction, d: Decoder, place: int) -> Control:
    """`shfl.sync`: the value of another lane of the segment, and whether that lane lay within it."""
    only(i, d, "sync", "up", "down", "bfly", "idx")
    mode = i.one_of("up", "down", "bfly", "idx")
    value, b, c = (d.reader(o, "u32") for o in i.operands[1:4])
    mask = d.reader(i.operands[4], "u32")
    write, write_predicate = d.pair(i.operands[0])

    def step(g: Group) -> int:
        members = mask(g)
        if not converged(i, g, members, place):
            return GONE
        offset, clamp = b(g), c(g)
        if g.count % WARP == 0 and len(members) == len(offset) == len(clamp) == 1 and members[0] == 0xFFFFFFFF:
            source, valid = _source(mode, np.arange(WARP), offset, clamp)  # the same in every warp
            lanes = g.spread(value(g)).reshape(-1, WARP)
            write(g, lanes[:, source].reshape(-1))
            write_predicate(g, np.tile(valid, len(lanes)))
            return place + 1
        source, valid = _source(mode, g.numbers % WARP, offset, clamp)
        present = lane_masks(g.machine.count, g.threads)[_row(g)]
        absent = (members & present) >> source.astype(np.uint32) & np.uint32(1) == 0
        if absent.any():
            first = int(np.flatnonzero(absent)[0])
            why = f"reads lane {int(source[first])}, which takes no part"
            raise g.machine.error(UndefinedResult, i, int(g.numbers[first]), why)
        write(g, _in_lanes(g, value(g))[_row(g), source])
        write_predicate(g, valid)
        return place + 1

    return step


def _source(mode: str, lane: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """The lane that each lane reads, and whether it lies in the same segment (else a lane reads itself)."""
    offset, clamp = b.astype(np.int64) & 31, c.astype(np.int64)
    segment, last = clamp >> 8 & 31, clamp & 31
    low, limit = lane & segment, (lane & segment) | (last & ~segment)
    match mode:
        case "up":
            source = lane - offset
        case "down":
            source = lane + offset
        case "bfly":
            source = lane ^ offset
        case _:
            source = low | (offset & ~segment)
    valid = source >= limit if mode == "up" else source <= limit
    return np.where(valid, source, lane), valid


def _row(g: Group) -> Array:
    return g.numbers // WARP


def vote(i: Instruction, d: Decoder, place: int) -> Control:
    """`vote.sync`: all, any, uni, ballot over the mask's lanes."""
    only(i, d, "sync", "all", "any", "uni", "ballot")
    predicate, mask, write = d.reader(i.operands[1], "pred"), d.reader(i.operands[2], "u32"), d.writer(i.operands[0])

    def step(g: Group) -> int:
        members = mask(g)
        if not converged(i, g, members, place):
            return GONE
        votes = lane_masks(g.machine.count, g.numbers[g.spread(predicate(g))])[_row(g)] & members
        here = lane_masks(g.machine.count, g.threads)[_row(g)] & members
        answers = {"all": votes == here, "any": votes != 0, "uni": (votes == here) | (votes == 0), "ballot": votes}
        write(g, answers[i.one_of(*answers)])
        return place + 1

    return step


def match(i: Instruction, d: Decoder, place: int) -> Control:
    """`match.any.sync`, `match.all.sync`: which lanes hold the same value."""
    only(i, d, "sync", "any", "all")
    value, mask = d.reader(i.operands[1], f"b{kinds.bits(type_of(i, d))}"), d.reader(i.operands[2], "u32")
    write, write_predicate = d.pair(i.operands[0])

    def step(g: Group) -> int:
        members = mask(g)
        if not converged(i, g, members, place):
            return GONE
        lanes = _in_lanes(g, value(g))
        equal = lanes[:, :, None] == lanes[:, None, :]
        same = np.packbits(equal, axis=2, bitorder="little").view(np.uint32).reshape(-1)
        here = lane_masks(g.machine.count, g.threads)[_row(g)] & members
        found = _of_group(g, same.reshape(-1, WARP)) & here
        if i.has("all"):
            write(g, np.where(found == here, here, np.uint32(0)))
            write_predicate(g, found == here)
        else:
            write(g, found)
        return place + 1

    return step


_REDUCTIONS: dict[str, tuple[Callable[..., Array], int]] = {
    "add": (np.add.reduce, 0),
    "and": (np.bitwise_and.reduce, -1),
    "or": (np.bitwise_or.reduce, 0),
    "xor": (np.bitwise_xor.reduce, 0),
}


def reduce(i: Instruction, d: Decoder, place: int) -> Control:
    """`redux.sync`: a reduction over the mask's lanes."""
    only(i, d, "sync", "add", "min", "max", "and", "or", "xor", "abs", "NaN")
    kind = type_of(i, d)
    value, mask, write = d.reader(i.operands[1], kind), d.reader(i.operands[2], "u32"), d.writer(i.operands[0])
    dtype = kinds.dtype(kind)
    name = i.one_of("add", "min", "max", "and", "or", "xor")

    def step(g: Group) -> int:
        members = g.spread(mask(g))
        if not converged(i, g, members, place):
            return GONE
        lanes = _in_lanes(g, value(g))
        member = (_in_lanes(g, members)[:, :, None] >> np.arange(WARP, dtype=np.uint32) & np.uint32(1)).astype(bool)
        here = _in_lanes(g, np.ones(g.count, bool))
        chosen = np.where(member & here[:, None, :], lanes[:, None, :], _neutral(name, dtype))
        function = {"min": np.minimum.reduce, "max": np.maximum.reduce}.get(name) or _REDUCTIONS[name][0]
        write(g, _of_group(g, function(chosen, axis=2).astype(dtype)))
        return place + 1

    return step


def _neutral(name: str, dtype: np.dtype) -> Array:
    if name in _REDUCTIONS:
        return np.array(_REDUCTIONS[name][1]).astype(dtype)
    if dtype.kind == "f":
        return np.array(np.inf if name == "min" else -np.inf, dtype)
    limits = np.iinfo(dtype)
    return np.array(limits.max if name == "min" else limits.min, dtype)


def elect(i: Instruction, d: Decoder, place: int) -> Control:
    """`elect.sync`: the lowest lane of the mask is the leader."""
    write, write_predicate = d.pair(i.operands[0])
    mask = d.reader(i.operands[1], "u32")

    def step(g: Group) -> int:
        members = mask(g)
        if not converged(i, g, members, place):
            return GONE
        here = lane_masks(g.machine.count, g.threads)[_row(g)] & members
        leader = np.bitwise_count((here & (~here + np.uint32(1))) - np.uint32(1)).astype(np.uint32)
        write(g, leader)
        write_predicate(g, leader == (g.numbers % WARP).astype(np.uint32))
        return place + 1

    return step


def active(i: Instruction, d: Decoder) -> Step:
    """`activemask`: the lanes that execute this instruction together."""
    write = d.writer(i.operands[0])
    return lambda g: write(g, lane_masks(g.machine.count, g.threads)[_row(g)])


CONTROLS: dict[str, ControlBuilder] = {
    "shfl": shuffle,
    "vote": vote,
    "match": match,
    "redux": reduce,
    "elect": elect,
}
INSTRUCTIONS: dict[str, Builder] = {"activemask": active}
