"""The numpy interpreter: what a graph means, point by point. Slow, and obviously right: the oracle of all else.

The value of a node at a point is `node.op.compute` of the values that `node.op.reads` names; a state's value is its
equation's. Nothing is scheduled: values are computed when they are asked for, and remembered.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.checks.arguments import Arguments, check_arguments, check_by_name, check_updated
from graphc.checks.verify import verify
from graphc.errors import CausalityError
from graphc.ir import Axis, Node, Point, lengths_within
from graphc.language.graph import Graph
from graphc.ops.leaves import EXTENT, INDEX, INPUT, PARAM, STATE

Key = tuple[Node, tuple[int, ...]]  # a value, and the point at which it is asked for


def interpret(graph: Graph, /, *unnamed: Any, **arrays: Any) -> dict[str, np.ndarray]:
    """Run a graph: every output, by name, as an array of shape (axes…, event…).

    Params that the graph updates are changed in place. Points past an example's length hold 0.
    Raises `ArgumentError` if the arrays do not fit the graph, and what `verify` does.
    """
    verify(graph)
    check_by_name(graph, unnamed)
    arguments = check_arguments(graph, arrays)
    check_updated(graph.updates, arrays, arguments)
    return run(graph, arguments)


def run(graph: Graph, arguments: Arguments) -> dict[str, np.ndarray]:
    """Run a verified graph on checked arguments. Updates are written once everything has been read."""
    evaluation = Evaluation(graph, arguments)
    with np.errstate(all="ignore"):
        results = {name: evaluation.array(node) for name, node in graph.outputs.items()}
        updates = {name: evaluation.array(node) for name, node in graph.updates.items()}
    for name, value in updates.items():
        arguments.arrays[name][...] = value
    return results


class Evaluation:
    """The values of one call, and the domain they live on."""

    def __init__(self, graph: Graph, arguments: Arguments) -> None:
        self.graph = graph
        self.arguments = arguments
        self.known: dict[Key, np.ndarray] = {}

    def array(self, node: Node) -> np.ndarray:
        """A value at all of its points."""
        extents = [self.arguments.sizes[a] for a in node.axes]
        result = np.zeros((*extents, *node.shape), node.dtype)
        for point in self.points(node.axes):
            result[tuple(point[a] for a in node.axes)] = self.at(node, point)
        return result

    def points(self, axes: Sequence[Axis]) -> Iterator[Point]:
        for position in itertools.product(*(range(self.arguments.sizes[a]) for a in axes)):
            point = dict(zip(axes, position, strict=True))
            if all(point[a] < self.length(a, axes, point) for a in axes):
                yield point

    def length(self, axis: Axis, axes: Sequence[Axis], point: Point) -> int:
        """How many points a value over `axes` has along `axis`, at a point."""
        lengths = lengths_within(axis, axes)
        return self.arguments.sizes[axis] if lengths is None else int(self._leaf(lengths, point))

    def at(self, node: Node, point: Point) -> np.ndarray:
        """The event of a node at a point, by an explicit stack: graphs nest deeper than Python's calls may."""
        goal = _key(node, point)
        stack: list[tuple[Key, list[Key]]] = []
        active: set[Key] = set()
        self._visit(goal, stack, active)
        while stack:
            key, needed = stack[-1]
            waiting = next((k for k in needed if k not in self.known), None)
            if waiting is not None:
                if waiting in active:
                    raise CausalityError(f"the value of {waiting[0]!r} at {waiting[1]} depends on itself")
                self._visit(waiting, stack, active)
                continue
            stack.pop()
            active.discard(key)
            self.known[key] = self._compute(key, [self.known[k] for k in needed])
        return self.known[goal]

    def _visit(self, key: Key, stack: list[tuple[Key, list[Key]]], active: set[Key]) -> None:
        if key not in self.known:
            active.add(key)
            stack.append((key, self._needs(key)))

    def _needs(self, key: Key) -> list[Key]:
        node, position = key
        point = dict(zip(node.axes, position, strict=True))
        if node.op is STATE:
            body = self.graph.states[node["name"]].body
            assert body is not None
            return [_key(body, point)]
        return [_key(value, p) for value, p in node.op.reads(node, point, self)]

    def _compute(self, key: Key, values: list[np.ndarray]) -> np.ndarray:
        node, position = key
        if node.op is STATE:
            return values[0]
        if node.op in (INPUT, PARAM):
            return self._leaf(node, dict(zip(node.axes, position, strict=True)))
        if node.op is INDEX:
            return np.asarray(position[0], np.int32)
        if node.op is EXTENT:
            return np.asarray(self.arguments.sizes[node["axis"]], np.int32)
        assert node.op.compute is not None, node.op
        return np.asarray(node.op.compute(node, values), dtype=node.dtype)

    def _leaf(self, node: Node, point: Point) -> np.ndarray:
        return np.asarray(self.arguments.arrays[node["name"]][tuple(point[a] for a in node.axes)])


def _key(node: Node, point: Mapping[Axis, int]) -> Key:
    return node, tuple(point[a] for a in node.axes)
