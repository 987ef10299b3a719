"""Hypothesis strategies that draw well-formed recurrent graphs, with arguments for a call of each.

Graphs have one to three states on one or two recurrent axes, with delays of 1 to 3 in both directions, initial values
of every kind, resets, lengths that differ per example, reads of any other point, and a float64 output "loss".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from graphc.ir import Axis, Node, topological
from graphc.language import functions as fn
from graphc.language import probabilities, randomness
from graphc.language.einsum import outer
from graphc.language.graph import Graph
from graphc.language.value import State, Value
from graphc.scalar import STORED
from graphc.testing.gradient_check import Arrays, random_arrays

__all__ = ["Example", "graphs"]

CLASSES = 3
EVENTS = ((), (2,), (3,))


@dataclass(frozen=True)
class Example:
    """A graph and the arguments of a call of it."""

    graph: Graph
    arrays: Arrays

    @property
    def lengths(self) -> dict[str, int]:
        """How long its recurrent axes are in these arrays: what `gc.unroll` takes."""
        x = self.graph.inputs["x"]
        known = dict(zip(x.axes, self.arrays["x"].shape, strict=False))
        return {name: known[a.root] for name, a in self.graph.axes.items() if name != "n"}

    def __repr__(self) -> str:
        arrays = "\n".join(f"{name} = {array!r}" for name, array in self.arrays.items())
        return f"\n{self.graph}\n{arrays}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis shows of an example that fails."""
        printer.text(repr(self))


def graphs(
    smooth: bool = False,
    most_states: int = 3,
    dtype: str = "float64",
    ragged: bool | None = None,
    causal: bool = False,
    storing: bool = False,
) -> st.SearchStrategy[Example]:
    """Random recurrent graphs with random arrays.

    `smooth` leaves out what finite differences cannot follow: kinks (relu, max, comparisons) and stop_gradient.
    `ragged` says whether the lengths of axis t differ per example; None: sometimes. `causal` leaves out what needs
    later points of axis t, so that `gc.step` takes the graph; "loss" then is a number at each step. `storing`: some
    inputs, params and states are float16 or bfloat16.
    """
    return _examples(smooth, most_states, dtype, bool(ragged) if causal else ragged, causal, storing)


@st.composite
def _examples(
    draw: Callable[..., Any],
    smooth: bool,
    most_states: int,
    dtype: str,
    ragged: bool | None,
    causal: bool,
    storing: bool,
) -> Example:
    author = _Author(draw, smooth, dtype, ragged, causal, storing)
    left = draw(st.integers(1, most_states))
    while left:
        count = draw(st.integers(1, left))
        author.component(count)
        left -= count
    author.results()
    sizes = {name: draw(st.integers(1, 4 if name == "t" else 2)) for name in author.g.axes}
    arrays = random_arrays(author.g, draw(st.integers(0, 2**16)), **sizes)
    return Example(author.g, arrays)


@dataclass(frozen=True)
class _Direction:
    """The delays that the states of one component may read each other by: along each axis, of one sign."""

    axes: tuple[Axis, ...]
    signs: tuple[int, ...]


@dataclass
class _Author:
    """Writes a graph: draws every choice, and keeps the values that later choices may use."""

    draw: Callable[..., Any]
    smooth: bool
    dtype: str
    ragged: bool | None
    causal: bool
    storing: bool
    closed: list[Value] = field(default_factory=list)  # values that depend on no state that is being defined
    open: set[Node] = field(default_factory=set)  # the states that are

    def __post_init__(self) -> None:
        self.g = g = Graph("drawn", dtype=self.dtype)
        self.n = g.axis("n")
        ragged = self.draw(st.booleans()) if self.ragged is None else self.ragged
        lengths = g.input("lengths", (), over=self.n, dtype="int32") if ragged else None
        fixed = self.draw(st.sampled_from([None, 3])) if lengths is None else None
        self.t = g.axis("t", lengths if lengths is not None else fixed)
        self.recurrent = (self.t, g.axis("j")) if self.draw(st.integers(0, 3)) == 3 else (self.t,)
        axes = self.draw(st.permutations([*self.recurrent, self.n]))
        self.closed.append(g.input("x", self.event(), over=axes, dtype=self.lying()))
        self.closed.append(g.input("a", (), over=self.t, dtype=self.lying()))
        self.label = g.input("label", (), over=(self.t, self.n), dtype="int32")
        self.closed.append(fn.embedding(self.param((CLASSES, 2)), self.label))

    def is_causal(self, axis: Axis) -> bool:
        """Whether no value may depend on later points of an axis."""
        return self.causal and axis == self.t

    # Choices.

    def pick(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def chance(self, one_in: int) -> bool:
        return bool(self.draw(st.integers(1, one_in)) == one_in)

    def one_of(self, *makers: Callable[[], Value]) -> Value:
        return self.draw(st.sampled_from(makers))()  # type: ignore[no-any-return]

    def event(self) -> tuple[int, ...]:
        return tuple(self.pick(EVENTS))

    def param(self, shape: tuple[int, ...]) -> Value:
        return self.g.param(f"p{len(self.g.params)}", shape, dtype=self.lying())

    def lying(self) -> str:
        """The dtype that an array or a state has in memory."""
        return str(self.pick((self.dtype, *STORED))) if self.storing else self.dtype

    # States.

    def component(self, count: int) -> None:
        """Several states that may read each other, with all delays in one direction along each axis."""
        direction = self._direction()
        pool = list(self.closed)
        states = []
        for _ in range(count):
            state = self._declare(direction)
            self.open.add(state.node)
            states.append(state)
        pool += [self._delayed(state, direction) for state in states]
        for state in states:
            if self.chance(2):
                pool.append(self._delayed(self.pick(states), direction))
            pool += [self._operation(pool) for _ in range(self.draw(st.integers(1, 3)))]
            terms = [self._fit(v, state.shape, state.axes) for v in (self.pick(pool), pool[-1], self.pick(pool))]
            value = fn.tanh(terms[0] + 0.5 * terms[1] - terms[2] * self._delayed(state, direction))
            self.g.define(state.name, fn.cast(value, state.dtype))
            pool.append(Value(self.g, state.node))  # those that follow may read it at the same point
        self.open.clear()
        self.closed += [Value(self.g, s.node) for s in states]
        self.closed += [self._operation(self.closed) for _ in range(self.draw(st.integers(1, 3)))]

    def _direction(self) -> _Direction:
        axes = self.recurrent if self.chance(2) else (self.pick(self.recurrent),)
        return _Direction(axes, tuple(-1 if self.is_causal(a) else self.pick((-1, 1)) for a in axes))

    def _declare(self, direction: _Direction) -> State:
        axes = {*direction.axes, *(a for a in (*self.recurrent, self.n) if self.chance(2))}
        if isinstance(self.t.length, Node) and self.t in axes:
            axes.add(self.n)
        shape = self.event()
        name = f"s{len(self.g.states)}"
        dtype = self.lying()
        initial: Any = self.pick((0.0, 0.75))
        if self.chance(3):
            initial = fn.cast(fn.sin(self.param(self.pick(((), shape)))), dtype)
        elif self.chance(3) and self.n in axes:
            initial = self.g.input(f"initial_{name}", shape, over=self.n, dtype=dtype)
        reset = fn.index(self.t) % 2 > 0 if self.t in axes and self.chance(4) else None
        if reset is not None and not self.smooth and {*self.label.axes} <= axes:
            reset = self.label > 0
        over = self.draw(st.permutations(_sorted(axes)))
        return self.g.state(name, shape, over=over, initial=initial, reset=reset, dtype=dtype)

    def _delayed(self, state: State, direction: _Direction) -> Value:
        moved = [(a, s) for a, s in zip(direction.axes, direction.signs, strict=True) if self.chance(2)]
        moved = moved or [(direction.axes[0], direction.signs[0])]
        return state[tuple(a + s * self.draw(st.integers(1, 3)) for a, s in moved)]

    # Values.

    def _operation(self, pool: Sequence[Value]) -> Value:
        """One value made of others."""
        a = self.pick(pool)
        is_open = any(node in self.open for node in topological([a.node]))
        rules = _RULES + (() if self.smooth else _KINKED) + (() if is_open else _ANYWHERE)
        rule: _Rule = self.pick(rules)
        return rule(self, a, self.pick(pool))

    def _fit(self, value: Value, shape: tuple[int, ...], axes: Sequence[Axis] | None = None) -> Value:
        """The value reduced to some axes, and brought to an event shape: by a product, a slice, a sum or repetition."""
        while outside := [axis for axis in value.axes if axes is not None and axis not in axes]:
            axis = outside[0]
            measured = any(isinstance(a.length, Node) and axis in a.length.axes for a in value.axes)
            reduce = fn.sum if measured else fn.mean  # where no example is left, a mean is no number
            value = value[axis.first] if self.is_causal(axis) else reduce(value, over=axis)
        if value.shape == shape:
            return value
        if not value.shape:
            return value + np.zeros(shape)
        flat = value.reshape(-1)
        if not shape:
            return self.one_of(lambda: fn.mean(flat), lambda: fn.sum(flat))
        if flat.shape[0] > shape[0] and self.chance(2):
            return flat[:: -1 if self.chance(2) else 1][: shape[0]]
        return self.param((shape[0], flat.shape[0])) @ flat

    def _elementwise(self, a: Value, b: Value) -> Value:
        b = self._fit(b, a.shape) if a.shape and b.shape else b
        return self.one_of(
            lambda: fn.tanh(a) * b,
            lambda: fn.sigmoid(a - b),
            lambda: a / (2.0 + fn.cos(b)),
            lambda: fn.exp(-a * a) + fn.softplus(b),
            lambda: fn.log(2.0 + fn.sin(a)) - fn.sqrt(1.0 + b * b),
            lambda: (a if self.smooth else fn.stop_gradient(a)) * fn.erf(b),
        )

    def _kinked(self, a: Value, b: Value) -> Value:
        b = self._fit(b, a.shape)
        return self.one_of(
            lambda: fn.relu(a - b),
            lambda: fn.maximum(a, b),
            lambda: fn.where(a < b, fn.sin(a), b),
            lambda: fn.max(self._fit(b, (3,))) + fn.abs(a),
        )

    def _rearranged(self, a: Value, b: Value) -> Value:
        a, b = self._fit(a, (2,)), self._fit(b, (2,))
        return self.one_of(
            lambda: fn.concat([a, b[1:]]),
            lambda: fn.stack([a, b]).T.reshape(4)[0:4:2],
            lambda: outer(a, b)[1],
            lambda: probabilities.softmax(a * b),
            lambda: probabilities.log_softmax(fn.concat([a, b]))[:3],
            lambda: self.param((3, 2)) @ a,
            lambda: self.param((3, 2)) @ a + self.param((3, 2)) @ a,  # terms whose adjoints are one value
        )

    def _classified(self, a: Value, b: Value) -> Value:
        return self.one_of(
            lambda: probabilities.cross_entropy(self._fit(a, (CLASSES,)), self.label),
            lambda: self._fit(b, ()) * fn.one_hot(self.label, CLASSES),
            lambda: randomness.dropout(a, 0.25, seed=3, salt=len(self.g.params)),
        )

    def _shifted(self, a: Value, b: Value) -> Value:
        """Any value at another point; between examples only if they are equally long."""
        axes = [x for x in a.axes if x != self.n or self.t not in a.axes or not isinstance(self.t.length, Node)]
        if not axes:
            return a
        fill = self.pick((0.0, fn.cast(self._fit(b, a.shape, a.axes), a.dtype) if self._is_closed(b) else 0.5))
        axis = self.pick(axes)
        return a.shift(axis, self.draw(st.integers(-3, 0 if self.is_causal(axis) else 3)), fill=fill)

    def _is_closed(self, value: Value) -> bool:
        return not any(node in self.open for node in topological([value.node]))

    def _reduced(self, a: Value, b: Value) -> Value:
        """Over an axis, whole: the value at one of its ends, or of all of its points."""
        axes = [x for x in a.axes if x in self.recurrent]
        if not axes or set(_varied(a.axes)) > set(a.axes):
            alone = not a.axes or any(self.is_causal(axis) for axis in a.axes)
            return fn.sin(a) if alone else fn.sum(a, over=_varied(a.axes))
        axis = self.pick(axes)
        if self.is_causal(axis):
            return a[axis.first]
        return self.one_of(
            lambda: a[axis.first],
            lambda: a[axis.last],
            lambda: a[axis.at(1)],
            lambda: fn.mean(a, over=axis),
            lambda: fn.sum(a * a, over=axis),
        )

    def _paired(self, a: Value, b: Value) -> Value:
        """Values at two points of one axis, or at a computed one."""
        if self.t not in a.axes or self.is_causal(self.t):
            return a
        t, u = self.t, self.g.axes.get("u") or self.g.axis("u", self.t)
        b = self._fit(b, a.shape)
        position = self.one_of(lambda: fn.index(self.n) - 1, lambda: fn.length(t) - 1)
        return self.one_of(
            lambda: fn.sum(fn.sin(a[u]) * fn.where(fn.index(u) <= fn.index(t), b, 0.5), over=u),
            lambda: fn.sum(probabilities.softmax(fn.sum(a[u] * b), over=u) * a[u - 1], over=u),
            lambda: fn.tanh(a[u] * 2)[t],
            lambda: a[t.at(position)],
            lambda: a[t.at(self.label[u] - 1)][t],
        )

    def results(self) -> None:
        """The outputs: some values as they are, and a number made of all that was written."""
        for k, value in enumerate(self.closed[-3:]):
            self.g.output(f"o{k}", value)
            if self.causal and self.t in value.axes:
                self.g.output(f"last{k}", value[self.t.last])
                self.g.output(f"at{k}", value[self.t.at(k)])
        total: Value | None = None
        for value in [*self.closed[-4:], *(self.g.value(name) for name in self.g.states)]:
            axes = _varied(a for a in value.axes if not self.is_causal(a))
            number = fn.mean(fn.sum(fn.sin(value)), over=axes) if axes else fn.sum(fn.sin(value))
            total = number if total is None else total + number
        assert total is not None
        self.g.output("loss", total)


def _varied(axes: Iterable[Axis]) -> tuple[Axis, ...]:
    """The axes of which a sum over all leaves none: these, and what their lengths vary over."""
    own = tuple(axes)
    lengths = [axis.length for axis in own if isinstance(axis.length, Node)]
    return tuple(dict.fromkeys((*own, *(axis for length in lengths for axis in length.axes))))


def _sorted(axes: set[Axis]) -> list[Axis]:
    return sorted(axes, key=lambda a: a.name)


_Rule = Callable[[_Author, Value, Value], Value]
_RULES: tuple[_Rule, ...] = (_Author._elementwise, _Author._rearranged, _Author._classified)
_KINKED: tuple[_Rule, ...] = (_Author._kinked,)
# These read other points: not of what is still open.
_ANYWHERE: tuple[_Rule, ...] = (_Author._shifted, _Author._reduced, _Author._paired)
