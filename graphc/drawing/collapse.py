"""Making large pictures small: vertices are folded into the equation that they belong to, and counted there.

In goes a picture, out comes one of at most about `MAX_VERTICES`. Five ways are tried, each on top of those before:
what belongs to a layer goes into one vertex, operations into the state or output that they compute, params and inputs
into the only vertex that uses them, the vertices of a step into one, and runs of steps into one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import takewhile

from graphc.drawing.layers import Owners, layers
from graphc.drawing.picture import Arrow, Picture, Vertex

MAX_VERTICES = 150
MAX_COLUMNS = 40
SAID = 3  # operations of a layer that are named


def collapse(picture: Picture, limit: int = MAX_VERTICES) -> Picture:
    """The picture itself if it is small enough, otherwise a smaller one."""
    owners: Owners = {v.key: v.key for v in picture.vertices}
    small = picture
    for way in (layers, _operations, _leaves, _steps, _runs_of_steps):
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
    results = {arrow.tail for arrow in picture.arrows if owners[arrow.tail] != owners[arrow.head]}
    vertices = [_folded(v, members[v.key], results) for v in picture.vertices if owners[v.key] == v.key]
    arrows: dict[tuple[str, ...], Arrow] = {}
    for arrow in picture.arrows:
        moved = replace(arrow, tail=owners[arrow.tail], head=owners[arrow.head])
        if moved.tail != moved.head or moved.kind == "delay":
            arrows.setdefault((moved.tail, moved.head, moved.kind, moved.label), moved)
    return replace(picture, vertices=tuple(vertices), arrows=tuple(arrows.values()))


def _folded(vertex: Vertex, members: list[Vertex], results: set[str]) -> Vertex:
    """The vertex with the numbers of what was folded into it; an operation with what it is called and makes, too."""
    if len(members) == 1:
        return vertex
    kinds = Counter("update" if member.target else member.kind for member in members)
    counts = {"op": kinds["op"] + kinds["state"], **{word: kinds[word] for word in ("param", "input", "update")}}
    said = ", ".join(f"{n} {word}{'s' * (n > 1)}" for word, n in counts.items() if n)
    steps = len({member.step for member in members if member.step is not None})
    if kinds["state"] + kinds["output"] > 1 or steps > 1:
        return replace(vertex, kind="group", lines=(f"{steps} steps" if steps > 1 else "step", said), row="")
    if vertex.kind == "op":
        lines = _layer(vertex, members, results)
        return replace(vertex, kind="group", lines=lines, tooltip=f"{vertex.tooltip}, {said}")
    return replace(vertex, lines=(vertex.lines[0], said))


def _layer(vertex: Vertex, members: list[Vertex], results: set[str]) -> tuple[str, ...]:
    """The name that a layer's params have in common, its operation and those that sum after it, and what it makes."""
    name = _common([m.lines[0] for m in members if m.kind == "param"])
    sums = [m.lines[0] for m in members if m is not vertex and (m.turns or (m.reduces and m.key in results))]
    made = [[extent for extent in m.event if extent > 1] for m in members if m.kind == "op" and m.key in results]
    shape = str(made[-1]) if made and made[-1] else ""
    return tuple(filter(None, (name, vertex.lines[0], *sums[:SAID], shape)))


def _common(names: list[str]) -> str:
    """How all names begin."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike).rstrip("_")


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
                if kinds[tail] in ("op", "group") and tail not in taken:
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
