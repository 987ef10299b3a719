"""`atom` and `red`: read-modify-write, one thread after the other where several meet at one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.ptx import kinds
from tests.ptx.access import Kind, Part, resolve, state_error
from tests.ptx.elementwise import Builder, only, type_of
from tests.ptx.floats import in_pairs, maximum, minimum
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Step
from tests.ptx.rounding import bfloat_bits, from_bfloat
from tests.ptx.syntax import Address, Instruction
from tests.ptx.transfers import SCOPES, SPACES, address_reader, kind_of

Update = Callable[..., Array]


def _increment(old: Array, limit: Array) -> Array:
    return np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1))


def _decrement(old: Array, limit: Array) -> Array:
    return np.where((old == 0) | (old > limit), limit, old - old.dtype.type(1))


_UPDATES: dict[str, Update] = {
    "add": np.add,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
    "inc": _increment,
    "dec": _decrement,
    "cas": lambda old, compare, new: np.where(old == compare, new, old),
}


def _update(name: str, kind: str) -> Update:
    if name in ("min", "max"):
        if kind.startswith("f") and not kind.endswith("x2"):
            return minimum if name == "min" else maximum
        return np.minimum if name == "min" else np.maximum
    if name == "add" and kind.startswith("bf16"):
        add = lambda a, b: bfloat_bits(from_bfloat(a).astype(np.float64) + from_bfloat(b))  # noqa: E731
        return in_pairs(add, "bf16") if kind.endswith("x2") else add
    return in_pairs(np.add, "f16") if name == "add" and kind == "f16x2" else _UPDATES[name]


def atomic(i: Instruction, d: Decoder) -> Step:
    only(i, d, *_UPDATES, "min", "max", *SCOPES, *SPACES, "relaxed", "acquire", "release", "acq_rel", "noftz")
    name = i.one_of("add", "and", "or", "xor", "exch", "inc", "dec", "cas", "min", "max")
    kind_name = type_of(i, d)
    returns = i.opcode == "atom"
    address = i.operands[1 if returns else 0]
    if not isinstance(address, Address):
        raise d.unknown(i, "it needs an address in brackets")
    dtype = kinds.dtype(kind_name)
    plain = kind_of(i, d, address, dtype.itemsize)
    kind = replace(plain, strong=True)
    read = address_reader(d, address)
    sources = [d.reader(o, kind_name) for o in i.operands[2 if returns else 1 :]]
    write = d.writer(i.operands[0]) if returns else lambda g, values: None
    update = _update(name, kind_name)

    def step(g: Group) -> None:
        addresses = g.spread(read(g))
        write(g, _apply(g, kind, addresses, dtype, update, name, [g.spread(s(g)) for s in sources]))

    return step


def _apply(
    g: Group, kind: Kind, addresses: Array, dtype: np.dtype, update: Update, name: str, sources: list[Array]
) -> Array:
    """The old values; memory is updated, in the order of the threads' numbers."""
    old = np.zeros(g.count, dtype)
    for part in resolve(g, kind, addresses):
        offsets = np.broadcast_to(part.offsets, (g.count,)) if part.lanes is None else part.offsets
        bad = part.space.faults(offsets, kind.size, (2,))
        if bad is not None:
            raise state_error(g, kind, part, addresses, bad)
        whole = Part(part.space, part.lanes, offsets)
        g.machine.races.write(g, kind, whole)
        g.machine.races.synchronise(g, kind, whole, reads=True, writes=True)
        lanes = np.arange(g.count) if part.lanes is None else part.lanes
        mine = [s[lanes] for s in sources]
        view = part.space.data.view(dtype)
        places = offsets // dtype.itemsize
        before = view[places]
        if name == "add" and dtype.kind in "iu":
            old[lanes] = _add_integers(view, places, mine[0])
        else:
            old[lanes] = _one_by_one(view, places, update, mine)
        if (view[places].view(np.uint8) != before.view(np.uint8)).any():
            g.machine.still = 0
    return old


def _add_integers(view: Array, places: Array, amounts: Array) -> Array:
    """Sums of all threads at once: what a thread finds is what those before it have added."""
    order = np.argsort(places, kind="stable")
    where, added = places[order], amounts[order]
    total = np.cumsum(added, dtype=added.dtype)
    first = np.concatenate([[True], where[1:] != where[:-1]])
    start = np.maximum.accumulate(np.where(first, np.arange(len(where)), 0))
    before = total - added
    found = view[where] + (before - before[start])
    last = np.concatenate([first[1:], [True]])
    old = np.empty_like(found)
    old[order] = found
    view[where[last]] = (found + added)[last]
    return old


def _one_by_one(view: Array, places: Array, update: Update, sources: list[Array]) -> Array:
    """The n-th thread of each place, for n = 0, 1, …"""
    order = np.argsort(places, kind="stable")
    where = places[order]
    first = np.concatenate([[True], where[1:] != where[:-1]])
    rank = np.arange(len(where)) - np.maximum.accumulate(np.where(first, np.arange(len(where)), 0))
    old = np.empty(len(places), view.dtype)
    for n in range(int(rank.max()) + 1):
        lanes = order[rank == n]
        old[lanes] = view[places[lanes]]
        view[places[lanes]] = update(old[lanes], *(s[lanes] for s in sources))
    return old


def fence(i: Instruction, d: Decoder) -> Step:
    """`fence`, `membar`: orders what a thread did before with what it does after."""
    scope = i.one_of("cta", "cluster", "gpu", "gl", "sys", default="sys")
    return lambda g: g.machine.races.fence(g, scope)


def wait(i: Instruction, d: Decoder) -> Step:
    """`nanosleep`."""
    return lambda g: None


INSTRUCTIONS: dict[str, Builder] = {"atom": atomic, "red": atomic, "fence": fence, "membar": fence, "nanosleep": wait}
