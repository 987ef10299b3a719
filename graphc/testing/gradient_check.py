"""Gradient checks: derivatives of a graph against central differences, and its two modes against each other.

Everything runs in float64, whatever the graph's own dtype, so that a step of 10⁻⁵ tells a wrong rule from rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.checks.causality import reachable
from graphc.differentiation.grad import jvp, vjp
from graphc.errors import DefinitionError, listed
from graphc.interpreter import interpret
from graphc.ir import FLOATING, FLOATS, Axis, Node, topological
from graphc.language.graph import Graph
from graphc.machine import check_memory
from graphc.ops.composite import CROSS_ENTROPY
from graphc.ops.gradient import CUSTOM_GRADIENT
from graphc.ops.leaves import INPUT
from graphc.ops.table import GATHER
from graphc.training.initialize import initialize
from graphc.transforms.precision import to_dtype

Arrays = dict[str, Any]
"""The arguments of a call: arrays, and numbers for the lengths of axes that no array shows."""
Run = Callable[..., Mapping[str, np.ndarray]]

STEP = 1e-5
ROUNDING = 1e-14  # of an output that was computed by some dozens of operations, relative to its size
SIZES = (4, 2, 3)  # of axes whose length comes with the data, in turn: unequal, so that a mixed-up axis shows


ELSEWHERE = (
    "pass arrays=…, a point at which it is moderate and smooth, such as dict(gc.initialize(g), x=…), or let init= of "
    "the params lead to one"
)


class GradientError(AssertionError):
    """A derivative that is not the one measured, or cannot be measured."""


def check_gradients(
    graph: Graph,
    of: str = "loss",
    wrt: Sequence[str] | None = None,
    arrays: Mapping[str, Any] | None = None,
    seed: int = 0,
    run: Run = interpret,
    tolerance: float = 1e-6,
) -> dict[str, float]:
    """Check the derivatives of output `of` by the named params and inputs; by default, by all that have one.

    Along random directions the reverse-mode gradient must agree with central differences, and with forward mode
    (`gc.jvp`) to rounding. `arrays` are the arguments of a call, lengths of axes among them; if none are given they
    are random, and params begin near `gc.initialize` (`random_arrays`). `run` evaluates a graph: `gc.interpret`, or
    `lambda graph, **arrays: gc.compile(graph)(**arrays)`.

    Returns the relative error found for each name. Raises `GradientError`, which names the element that is most
    wrong, if an error is above the tolerance; it says so where the output is so large, or so curved, that differences
    measure nothing. Values at a kink (relu at 0) have no derivative to compare. Differences see neither
    `gc.stop_gradient` nor the rules of `gc.custom_gradient`; the error names the lines of these. Both modes take them
    as they are, and have agreed by then.
    """
    double = replace(to_dtype(graph, "float64"), updates={})
    declared = {**double.inputs, **{name: p.node for name, p in double.params.items() if p.trainable}}
    names = list(wrt) if wrt is not None else [n for n, node in declared.items() if node.dtype in FLOATS]
    given = _double(double, arrays or random_arrays(double, seed))
    check = _Check(double, of, run, given, np.random.default_rng([seed, 1]))  # other numbers than those of the arrays
    gradients = check.gradients(names)
    check.forward_mode(gradients)
    return {name: check.differences(name, gradient, tolerance) for name, gradient in gradients.items()}


def random_arrays(graph: Graph, /, seed: int = 0, **sizes: int) -> Arrays:
    """Arguments for a call of a graph: normal floats, labels and indices inside their ranges, lengths from 1 up.

    Params are those of `gc.initialize`, each element moved by about a tenth of itself, and by about 0.1 where it is 0.
    `sizes` gives the lengths of axes by name; the others are small.
    """
    rng = np.random.default_rng(seed)
    roots = dict.fromkeys(axis.root for axis in graph.axes.values())
    own = {axis: _extent(axis, k, sizes) for k, axis in enumerate(roots)}
    extents = {axis: own[axis.root] for axis in graph.axes.values()}
    bounds = _bounds(graph)
    longest = {a.length["name"]: extents[a] for a in extents if isinstance(a.length, Node) and a.length.op is INPUT}
    arrays: Arrays = {}
    shapes = {name: (*(extents[a] for a in node.axes), *node.shape) for name, node in graph.inputs.items()}
    check_memory(8 * sum(map(math.prod, shapes.values())), f"the inputs of graph {graph.name!r} at these lengths")
    for name, node in graph.inputs.items():
        shape = shapes[name]
        if node.dtype in FLOATING:
            arrays[name] = rng.normal(0.0, 0.7, shape).astype(node.dtype)
        elif name in longest:
            arrays[name] = rng.integers(1, longest[name] + 1, shape).astype(node.dtype)
        else:
            arrays[name] = rng.integers(0, bounds.get(name, 2), shape).astype(node.dtype)
    for name, array in initialize(graph, seed).items():
        arrays[name] = _moved(array, rng) if array.dtype.name in FLOATING else array
    shown = {axis.root for node in graph.inputs.values() for axis in node.axes}
    return arrays | {axis.name: n for axis, n in own.items() if axis.length is None and axis not in shown}


def _moved(array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The array with each element moved a little, its sign kept: a rate that begins positive stays so."""
    scale = np.where(array == 0, 1.0, np.abs(array.astype(np.float64)))
    return np.array(array + 0.1 * scale * rng.normal(size=array.shape), array.dtype)


def _extent(axis: Axis, k: int, sizes: Mapping[str, int]) -> int:
    if isinstance(axis.length, int):
        return axis.length
    return sizes.get(axis.name, SIZES[k % len(SIZES)])


def _bounds(graph: Graph) -> dict[str, int]:
    """How many classes or rows the integers of an input may name."""
    bounds: dict[str, int] = {}
    for node in reachable(graph):
        if node.op in (CROSS_ENTROPY, GATHER):
            choices = node.inputs[0].shape[-1 if node.op is CROSS_ENTROPY else 0]
            for source in topological([node.inputs[1]]):
                if source.op is INPUT:
                    bounds[source["name"]] = min(choices, bounds.get(source["name"], choices))
    return bounds


def _double(graph: Graph, arrays: Mapping[str, Any]) -> Arrays:
    """The arrays, those of floats in float64; lengths of axes as they are."""
    lengths = graph.axes.keys() - graph.inputs.keys() - graph.params.keys()
    converted = {name: given if name in lengths else np.array(given) for name, given in arrays.items()}
    floating = [name for name, a in converted.items() if name not in lengths and a.dtype.name in FLOATING]
    return converted | {name: converted[name].astype(np.float64) for name in floating}


class _Check:
    """One point at which derivatives are taken, and the direction in the space of the output: its cotangent."""

    def __init__(self, graph: Graph, of: str, run: Run, arrays: Arrays, rng: np.random.Generator) -> None:
        if of not in graph.outputs:
            raise DefinitionError(
                f"graph {graph.name!r} has no output {of!r}; it has {', '.join(graph.outputs) or 'none'}"
            )
        self.value = next(f"value{k}" for k in itertools.count() if f"cotangent_value{k}" not in graph.inputs)
        self.graph = replace(graph, outputs={self.value: graph.outputs[of]})
        self.of = of
        self.run = run
        self.arrays = arrays
        self.rng = rng

    def gradients(self, names: Sequence[str]) -> Arrays:
        value = self._value(self.arrays)
        if not np.isfinite(value).all():
            raise GradientError(f"output {self.of!r} is not finite, and has no derivatives to measure; {ELSEWHERE}")
        self.cotangent = self.rng.normal(size=value.shape)
        self.size = float(np.abs(self.cotangent * value).sum())
        reverse = vjp(self.graph, self.value, names)
        results = self.run(reverse, **self.arrays, **{f"cotangent_{self.value}": self.cotangent})
        return {name: results[f"grad_{name}"] for name in names}

    def forward_mode(self, gradients: Arrays) -> None:
        """<cotangent, J v> = <Jᵀ cotangent, v>."""
        directions = {name: self.rng.normal(size=g.shape) for name, g in gradients.items()}
        tangents = {f"tangent_{name}": v for name, v in directions.items()}
        results = self.run(jvp(self.graph, self.value, list(gradients)), **self.arrays, **tangents)
        forward = float(np.vdot(self.cotangent, results[f"tangent_{self.value}"]))
        terms = [float(np.vdot(g, directions[name])) for name, g in gradients.items()]
        if not _error(forward, sum(terms), sum(map(abs, terms)) + 1e-5 * (1 + self.size)) < 1e-9:
            raise GradientError(
                f"forward and reverse mode disagree on the derivative of {self.of!r} along a random direction: "
                f"{forward:.10g} by jvp, {sum(terms):.10g} by vjp"
            )

    def differences(self, name: str, gradient: np.ndarray, tolerance: float) -> float:
        direction = self.rng.normal(size=gradient.shape)
        direction /= max(float(np.linalg.norm(direction)), 1e-300)
        measured = self._slope(name, direction)
        found = float(np.vdot(gradient, direction))
        error = _error(found, measured, 1.0)
        if error <= tolerance:
            return error
        doubt = self._doubt(name, direction, measured)
        if abs(found - measured) <= doubt or not np.isfinite(doubt):
            raise GradientError(
                f"differences cannot measure the derivative of {self.of!r} by {name} at this point: {measured:.3g} is "
                f"right to {doubt:.1g} only, where the output is of size {self.size:.3g}; {ELSEWHERE}"
            )
        raise GradientError(self._report(name, gradient, found, measured))

    def _value(self, arrays: Arrays) -> np.ndarray:
        return np.asarray(self.run(self.graph, **arrays)[self.value])

    def _slope(self, name: str, direction: np.ndarray, step: float = STEP) -> float:
        """The derivative of <cotangent, output> along a direction, by a central difference."""
        ends = [self._value({**self.arrays, name: self.arrays[name] + s * step * direction}) for s in (1, -1)]
        with np.errstate(invalid="ignore"):  # where an end is infinite
            return float(np.vdot(self.cotangent, ends[0] - ends[1])) / (2 * step)

    def _doubt(self, name: str, direction: np.ndarray, measured: float) -> float:
        """How far from the derivative a difference may be: by rounding of the output, and by its curvature, which the
        difference over half of the step shows."""
        return ROUNDING * self.size / STEP + 2 * abs(measured - self._slope(name, direction, STEP / 2))

    def _report(self, name: str, gradient: np.ndarray, found: float, measured: float) -> str:
        worst, at, values = -1.0, (), (found, measured)
        for position in list(np.ndindex(gradient.shape))[:200]:
            direction = np.zeros_like(gradient)
            direction[position] = 1.0
            pair = (float(gradient[position]), self._slope(name, direction))
            error = _error(*pair, 1.0)
            if not error <= worst:
                worst, at, values = error, position, pair
        subscript = f"[{', '.join(map(str, at))}]" if at else ""
        return (
            f"the derivative of {self.of!r} by {name}{subscript} is {values[0]:.10g}, but central differences measure "
            f"{values[1]:.10g} (along a random direction: {found:.10g} and {measured:.10g})" + self._told()
        )

    def _told(self) -> str:
        """Where the graph says what a derivative is, as a spike's surrogate does."""
        lines = {self.graph.locations.get(node) for node in reachable(self.graph) if node.op is CUSTOM_GRADIENT}
        shown = sorted(f"{line.file}:{line.line}" for line in lines if line is not None)
        return (
            f"; differences do not see the rule of gc.custom_gradient ({listed(shown)}): a surrogate is not meant to "
            "be what they measure, and forward and reverse mode agree on it"
            if shown
            else ""
        )


def _error(a: float, b: float, scale: float) -> float:
    return abs(a - b) / max(abs(a), abs(b), scale, 1e-300)
