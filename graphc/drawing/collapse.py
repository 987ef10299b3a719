"""Making large pictures small: vertices are folded into the equation that they belong to, and counted there.

In goes a picture, out comes one of at most about `MAX_VERTICES`. Four ways are tried, each on top of those before:
operations go into the state or output that they compute, params and inputs into the only vertex that uses them, the
vertices of a step into one, and runs of steps into one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

from graphc.drawing.picture import Arrow, Picture, Vertex

MAX_VERTICES = 250
MAX_COLUMNS = 40

Owners = Mapping[str, str]  # into which vertex each vertex is folded; those that stay own themselves


def collapse(picture: Picture, limit: int = MAX_VERTICES) -> Picture:
    """The picture itself if it is small enough, otherwise a smaller one."""
    owners: Owners = {v.key: v.key for v in picture.vertices}
    small = picture
    for way in (_operations, _leaves, _steps, _runs_of_steps):
        if len(small.vertices) <= limit:
            break
        further = way(small)
        owners = {key: further[owner] for key, owner in owners.items()}
        small = _fold(picture, owners)
    return small


def _fold(picture: Picture, owners: Owners) -> Picture:
    members: dict[str, list[Vertex]] = defaultdict(list)
    for vertex in picture.vertices:
        members[owners[vertex.key]].append(vertex)
    vertices = [_count(v, members[v.key]) for v in picture.vertices if owners[v.key] == v.key]
    arrows: dict[tuple[str, ...], Arrow] = {}
    for arrow in picture.arrows:
        moved = replace(arrow, tail=owners[arrow.tail], head=owners[arrow.head])
        if moved.tail != moved.head or moved.kind == "delay":
            arrows.setdefault((moved.tail, moved.head, moved.kind, moved.label), moved)
    return replace(picture, vertices=tuple(vertices), arrows=tuple(arrows.values()))


def _count(vertex: Vertex, members: list[Vertex]) -> Vertex:
    """The vertex with the numbers of what was folded into it."""
    if len(members) == 1:
        return vertex
    kinds = Counter(member.kind for member in members)
    steps = len({member.step for member in members if member.step is not None})
    if kinds["state"] + kinds["output"] > 1 or steps > 1:
        name, kind, row = f"{steps} steps" if steps > 1 else "step", "group", ""
    else:
        name, kind, row = vertex.lines[0], vertex.kind, vertex.row
    counts = [("op", kinds["op"] + kinds["state"]), ("param", kinds["param"]), ("input", kinds["input"])]
    lines = [f"{n} {what}{'s' * (n > 1)}" for what, n in counts if n]
    return replace(vertex, kind=kind, lines=(name, *lines), row=row)


def _operations(picture: Picture) -> Owners:
    """Each operation goes into the first equation that it is needed for."""
    kinds = {v.key: v.kind for v in picture.vertices}
    owners = {key: key for key in kinds}
    tails: dict[str, list[str]] = defaultdict(list)
    for arrow in picture.arrows:
        tails[arrow.head].append(arrow.tail)
    taken: set[str] = set()
    for root in (key for key, kind in kinds.items() if kind in ("state", "output")):
        stack = [root]
        while stack:
            for tail in tails[stack.pop()]:
                if kinds[tail] == "op" and tail not in taken:
                    taken.add(tail)
                    owners[tail] = root
                    stack.append(tail)
    return owners


def _leaves(picture: Picture) -> Owners:
    """Each param and input goes into the vertex that uses it, if there is only one."""
    heads: dict[str, set[str]] = defaultdict(set)
    for arrow in picture.arrows:
        heads[arrow.tail].add(arrow.head)
    leaves = {v.key for v in picture.vertices if v.kind in ("param", "input") and len(heads[v.key]) == 1}
    return {v.key: min(heads[v.key]) if v.key in leaves else v.key for v in picture.vertices}


def _steps(picture: Picture) -> Owners:
    """All vertices of a step go into one."""
    return _runs(picture, 1)


def _runs_of_steps(picture: Picture) -> Owners:
    """Equally many steps go into each of `MAX_COLUMNS` columns."""
    steps = len({v.step for v in picture.vertices if v.step is not None})
    return _runs(picture, max(1, -(-steps // MAX_COLUMNS)))


def _runs(picture: Picture, length: int) -> Owners:
    """The vertices of `length` steps go into the first of them, a state if there is one."""
    stepped = [(v.step, v.kind != "state", v.key) for v in picture.vertices if v.step is not None]
    run = {step: k // length for k, step in enumerate(sorted({step for step, _, _ in stepped}))}
    first: dict[int, str] = {}
    for step, _, key in sorted(stepped):
        first.setdefault(run[step], key)
    return {v.key: v.key if v.step is None else first[run[v.step]] for v in picture.vertices}
