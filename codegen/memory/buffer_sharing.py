"""Temporaries that take the place of others, which nothing reads any more.

In: a Program. Out: a Program with fewer buffers that computes the same. A kernel stores in the place of a value that it
is the last to read, if each of its points reads of that value only the element in whose place it stores: an LSTM's
gates take the place of their input products, and the gates' adjoints take that of the gates. Kernels that stand before
it in the same step of a loop may have read more of that step: x - mean(x) takes the place of x.

In a loop over chunks (`graphc.codegen.memory.chunk`), what is needed at different times of an iteration shares a place
too. Everything else is left to `graphc.codegen.memory.arena`, which knows the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from graphc.codegen.program import Buffer, Kernel, Loop, Program, Statement, map_kernel, map_kernels, nested_kernels
from graphc.codegen.uses import Touch, touches
from graphc.scalar import Index, Load, map_loads, walk


@dataclass(frozen=True, slots=True)
class Life:
    """The units from the first to the last that needs a value. With `local`, each iteration of the loop around them
    makes a value of its own."""

    first: int
    last: int
    local: bool


@dataclass
class Place:
    """A buffer, and the names of those that lie in it at different times."""

    buffer: Buffer
    members: list[str] = field(default_factory=list)


def share_buffers(program: Program) -> Program:
    """The program with one buffer in the place of several that are needed at different times."""
    units = list(_units(program.body))
    touched: dict[str, list[int]] = {}
    for position, unit in enumerate(units):
        for name in unit.touches:
            touched.setdefault(name, []).append(position)
    lives = {b.name: _lives(b, units, touched.get(b.name, ())) for b in program.buffers if b.kind in ("temp", "output")}
    places: list[Place] = []
    ending: dict[int, set[int]] = {}  # the places, by number, with a member whose last unit this is
    for buffer in sorted((b for b in program.buffers if lives.get(b.name)), key=lambda b: lives[b.name][0].first):
        first = lives[buffer.name][0]
        candidates = range(len(places)) if first.local else sorted(ending.get(first.first, ()))
        number = next((k for k in candidates if _fits(buffer, places[k], lives, units)), len(places))
        if number == len(places):
            places.append(Place(buffer))
        place = places[number]
        place.members.append(buffer.name)
        place.buffer = max((buffer, place.buffer), key=lambda b: (b.kind == "output", _weight(lives[b.name])))
        for life in lives[buffer.name]:
            ending.setdefault(life.last, set()).add(number)
    names = {member: place.buffer.name for place in places for member in place.members}
    buffers = tuple(b for b in program.buffers if names.get(b.name, b.name) == b.name)
    return replace(program, buffers=buffers, body=map_kernels(program.body, lambda kernel: _renamed(kernel, names)))


# When values are needed.


@dataclass(frozen=True, slots=True)
class Placed(Touch):
    """A load or store by the kernel at this `position` in its unit, and the indices of the loops around that kernel
    inside the unit."""

    position: int
    loops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A statement, as a unit of time: its loads and stores, by buffer; and the loop `around` it, of which it is a
    part."""

    touches: Mapping[str, list[Placed]]
    around: Loop | None


def _units(body: tuple[Statement, ...]) -> Iterator[Unit]:
    """The statements; but in the place of a loop around loops, the statements inside it."""
    for statement in body:
        if isinstance(statement, Loop) and any(isinstance(inner, Loop) for inner in statement.body):
            yield from (_unit(inner, statement) for inner in statement.body)
        else:
            yield _unit(statement, None)


def _unit(statement: Statement, around: Loop | None) -> Unit:
    found: dict[str, list[Placed]] = {}
    for position, (kernel, loops) in enumerate(nested_kernels((statement,))):
        names = tuple(loop.index for loop in loops)
        for touch in touches(kernel):
            placed = Placed(touch.buffer, touch.at, touch.store, position, names)
            found.setdefault(touch.buffer, []).append(placed)
    return Unit(found, around)


def _lives(buffer: Buffer, units: list[Unit], touched: Iterable[int]) -> list[Life]:
    """When a buffer is needed: once for every loop in which each iteration makes its own value, otherwise once in
    all."""
    found: dict[int, list[int]] = {}  # for each loop, or unit outside of one, where the buffer is touched
    for position in touched:
        around = units[position].around
        found.setdefault(id(around) if around else -position, []).append(position)
    if not found:
        return []
    if buffer.kind == "temp" and all(_is_local(buffer.name, [units[p] for p in own]) for own in found.values()):
        return [Life(own[0], own[-1], True) for own in found.values()]
    loops = {id(units[own[0]].around) for own in found.values() if units[own[0]].around}
    every = [p for own in found.values() for p in own]
    if loops:
        every += [p for p, unit in enumerate(units) if id(unit.around) in loops]
    return [Life(min(every), len(units) if buffer.kind == "output" else max(every), False)]


def _weight(lives: list[Life]) -> int:
    """How long a buffer is needed. A place is named after the buffer that needs it the longest."""
    return sum(life.last - life.first for life in lives)


def _is_local(buffer: str, units: list[Unit]) -> bool:
    """Whether each iteration stores a buffer before it loads it, and the next one needs nothing of it."""
    around = units[0].around
    if around is None:
        return False
    first = units[0].touches[buffer]
    begins = all(touch.store for touch in first if touch.position == first[0].position)
    subscripts = [s for unit in units for touch in unit.touches[buffer] for s in touch.at]
    return begins and not any(p == Index(around.index) for s in subscripts for p in walk(s))


# Who fits where.


def _fits(buffer: Buffer, place: Place, lives: Mapping[str, list[Life]], units: list[Unit]) -> bool:
    """Whether a buffer can lie in a place: it has the same shape, and takes over from every member whose life its own
    meets. One that meets none fits where all are local; everything else is left to the arena."""
    if (buffer.dtype, buffer.dims) != (place.buffer.dtype, place.buffer.dims):
        return False
    if buffer.kind == place.buffer.kind == "output":
        return False
    meeting = [
        (other, theirs, own)
        for other in place.members
        for theirs in lives[other]
        for own in lives[buffer.name]
        if theirs.first <= own.last and own.first <= theirs.last
    ]
    if meeting:
        return all(_takes_over(buffer.name, own, other, theirs, units) for other, theirs, own in meeting)
    return all(life.local for name in (buffer.name, *place.members) for life in lives[name])


def _takes_over(new: str, own: Life, old: str, theirs: Life, units: list[Unit]) -> bool:
    """Whether `new` begins in the unit in which `old` ends, and in its place; both local, or both outside of loops
    around loops."""
    unit = units[own.first]
    alike = theirs.local == own.local and (own.local or unit.around is None)
    return theirs.last == own.first and alike and _in_place(old, new, unit)


def _in_place(old: str, new: str, unit: Unit) -> bool:
    """Whether `new` can take the place of `old` in a unit. One kernel stores to `new`, and at every point loads of
    `old` only the element that it stores. All other loads of `old` come before it, in the same step."""
    reads = unit.touches[old]
    writes = [touch for touch in unit.touches[new] if touch.store]
    if not writes or any(touch.store for touch in reads):
        return False
    store = writes[0]
    one = all(touch.position == store.position and touch.at == store.at for touch in writes)
    own = [touch for touch in reads if touch.position == store.position]
    kept = all(touch.at == store.at for touch in own) and all(Index(loop) in store.at for loop in store.loops)
    return one and bool(own) and kept and all(touch in own or _is_before(touch, store) for touch in reads)


def _is_before(load: Placed, store: Placed) -> bool:
    """Whether a load comes before a store, in the same step of each loop around the two."""
    steps = [dim for dim, part in enumerate(store.at) if any(part == Index(loop) for loop in store.loops)]
    same = load.loops == store.loops and all(load.at[dim] == store.at[dim] for dim in steps)
    return same and load.position < store.position


def _renamed(kernel: Kernel, names: Mapping[str, str]) -> Kernel:
    def moved(load: Load) -> Load:
        return replace(load, buffer=names.get(load.buffer, load.buffer))

    kernel = map_kernel(kernel, lambda scalar: map_loads(scalar, moved))
    return replace(kernel, stores=tuple(replace(s, buffer=names.get(s.buffer, s.buffer)) for s in kernel.stores))
