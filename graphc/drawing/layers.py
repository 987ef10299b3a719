"""The layers of a network: which operations, params and updates belong together, seen from the arrows alone.

In: a picture. Out: for each vertex the one that it is folded into. A layer is an operation that sums over what it reads
by a param (a product, a convolution, a normalisation), with what is made of its result alone until the next layer or
until dimensions are turned into axes. A state takes all that is on its cycle, and the products that only it reads. What
keeps a param up to date belongs to the layer that reads the param. Folding adds no cycle to the picture.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import networkx

from graphc.drawing.picture import Picture, Vertex

Owners = Mapping[str, str]  # into which vertex each vertex is folded; those that stay own themselves


def layers(picture: Picture) -> Owners:
    """The owners of a folded graph's vertices; those of a picture with columns stay what they are."""
    if any(vertex.step is not None for vertex in picture.vertices):
        return {vertex.key: vertex.key for vertex in picture.vertices}
    found = _Layers(picture)
    found.add_equations()
    found.add_updates()
    found.add_followers()
    found.add_params()
    return found.owner


class _Layers:
    """The owners so far. `flow` has the arrows within a step, `arrows` those of delays too."""

    def __init__(self, picture: Picture) -> None:
        self.vertices: dict[str, Vertex] = {v.key: v for v in picture.vertices}
        self.owner = {key: key for key in self.vertices}
        self.arrows = networkx.DiGraph()
        self.flow = networkx.DiGraph()
        for network in (self.arrows, self.flow):
            network.add_nodes_from(self.vertices)
        for arrow in picture.arrows:
            self.arrows.add_edge(arrow.tail, arrow.head)
            if arrow.kind == "flow":
                self.flow.add_edge(arrow.tail, arrow.head)

    def add_equations(self) -> None:
        """Into each state go the operations of its cycle, and then what only it reads, back to the first products."""
        states = [key for key, vertex in self.vertices.items() if vertex.kind == "state"]
        cycles = list(networkx.strongly_connected_components(self.arrows))
        for state in states:
            self.absorb(state, [state], next(c for c in cycles if state in c), shared=True)
        sums = {key for key, vertex in self.vertices.items() if vertex.reduces}
        for state in states:
            members = [key for key, owner in self.owner.items() if owner == state]
            self.absorb(state, members, self.vertices, last=sums)

    def add_updates(self) -> None:
        """Updates go where their params are read. One that depends on what is read there, as a training step's does,
        stays apart."""
        updates = {key: vertex.target for key, vertex in self.vertices.items() if vertex.target}
        named = {v.lines[0]: key for key, v in self.vertices.items() if v.kind in ("param", "input")}
        keeping = set(updates)  # what is there only for updates
        for key in reversed(self.order()):
            if self.is_free(key) and keeping.issuperset(self.arrows.successors(key)):
                keeping.add(key)
        for update, target in updates.items():
            readers = [r for r in self.arrows.successors(named[target]) if r not in keeping] if target in named else []
            if readers and not networkx.has_path(self.arrows, readers[0], update):
                self.owner[update] = owner = self.owner[readers[0]]
                self.absorb(owner, [update], keeping)

    def add_followers(self) -> None:
        """An operation goes into the layer that all of its operands but params come from, if it begins no other."""
        for key in self.order():
            tails = list(self.arrows.predecessors(key))
            sources = {self.owner[t] for t in tails if self.vertices[t].kind != "param"}
            if self.is_free(key) and len(sources) == 1 and len(tails) == self.flow.in_degree(key):
                source = self.vertices[sources.pop()]
                begins = self.vertices[key].reduces and any(self.vertices[t].kind == "param" for t in tails)
                if source.kind == "op" and not begins and self.vertices[key].turns in (False, source.turns):
                    self.owner[key] = source.key

    def add_params(self) -> None:
        """A param goes into the only vertex that reads it."""
        for key, vertex in self.vertices.items():
            readers = {self.owner[head] for head in self.arrows.successors(key)}
            if vertex.kind == "param" and len(readers) == 1:
                self.owner[key] = readers.pop()

    def absorb(
        self, owner: str, members: list[str], among: Container[str], last: Container[str] = (), shared: bool = False
    ) -> None:
        """Fold into the owner the operations that members are made of, and go on from each that is not a last one.

        What others read too is left out unless it may be shared.
        """
        while members:
            for key in self.arrows.predecessors(members.pop()):
                if self.is_free(key) and key in among and (shared or self.is_only_for(key, owner)):
                    self.owner[key] = owner
                    members += [] if key in last else [key]

    def order(self) -> list[str]:
        """The vertices, each after what it is made of in the same step."""
        return list(networkx.topological_sort(self.flow))

    def is_free(self, key: str) -> bool:
        return self.vertices[key].kind == "op" and self.owner[key] == key

    def is_only_for(self, key: str, owner: str) -> bool:
        return all(self.owner[head] == owner for head in self.arrows.successors(key))
