"""Graph: the tables that make expressions a system of recurrence equations.

A graph is built by its methods (`g.input`, `g.state`, `h[t] = …`) or returned by a pass. A pass never changes the
graph that it is given. Beside the equations a graph remembers, outside its identity, on which of the user's lines
each value was made (`locations`) and at which step of an unrolled axis it stands (`steps`), for errors and drawings,
and where a state is reset (`resets`), for further reads of it; `==` does not see these.
"""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphc.errors import (
    AxisError,
    DefinitionError,
    DtypeError,
    Location,
    MissingAttributeError,
    ProtocolError,
    ShapeError,
    meant,
    user_location,
)
from graphc.integers import is_whole
from graphc.ir import FLOATING, FLOATS, MOST_POINTS, Axis, Node, Shape, check_dtype, check_shape
from graphc.language import network
from graphc.language.habits import INSTEAD
from graphc.language.initialisers import initialiser
from graphc.language.value import State, Value, as_value, assigned, several
from graphc.notation import text
from graphc.ops.leaves import INPUT, PARAM, STATE, leaf
from graphc.ops.reduction import broadcast

if TYPE_CHECKING:
    import networkx
    import numpy.typing as npt

LONGEST_NAME = 200  # characters; LLVM would take two names of thousands for one


@dataclass(frozen=True, slots=True)
class Param:
    """A learned array: its value in the graph, what it is at first (an initialiser's name, or a constant), and whether
    training moves it."""

    node: Node
    init: str | Node
    trainable: bool = True

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> str:
        return self.node.dtype


@dataclass(frozen=True, slots=True)
class Equation:
    """A state: its leaf, what defines it (None: nothing yet), and its value before the first step."""

    node: Node
    body: Node | None
    initial: Node

    def mapped(self, made: Mapping[Node, Node]) -> Equation:
        """The equation of what its values have become; a leaf that is not in the table has stayed itself."""
        body = None if self.body is None else made[self.body]
        return Equation(made.get(self.node, self.node), body, made[self.initial])


@dataclass(eq=False)
class Graph:
    """A recurrent network's equations.

    `dtype` is the default of inputs, params and states: "float32" or "float64". Any of them can have another: those,
    "int32", "bool", and "float16" and "bfloat16", which only store. Whatever is computed of such a value is computed in
    float32, and so are its gradients. It is rounded, to the nearest number and the even one of two, where it is
    assigned: by an equation or an initial value to a state, by an update to a param or an input, and by `gc.cast`.
    Reading it at another point (`x[t - 1]`, `h[t.last]`) keeps its dtype; any other operation gives a float32. Arrays
    are of `np.float16` and `ml_dtypes.bfloat16`.
    """

    name: str = "graph"
    dtype: str = "float32"
    axes: dict[str, Axis] = field(default_factory=dict)
    inputs: dict[str, Node] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    states: dict[str, Equation] = field(default_factory=dict)
    outputs: dict[str, Node] = field(default_factory=dict)
    updates: dict[str, Node] = field(default_factory=dict)
    locations: dict[Node, Location] = field(default_factory=dict, repr=False)
    steps: dict[Node, tuple[int, ...]] = field(default_factory=dict, repr=False)
    resets: dict[Node, Node] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        self.dtype = check_dtype(self.dtype)
        if self.dtype not in FLOATS:
            raise DtypeError(f"a graph's default dtype is float32 or float64, got {self.dtype}")

    if not TYPE_CHECKING:  # else every attribute would have a type

        def __getattr__(self, name: str) -> NoReturn:
            being_copied = "outputs" not in vars(self)
            if name.startswith("_") or being_copied:  # Python asks, not the user
                raise AttributeError(f"'Graph' object has no attribute {name!r}")
            raise MissingAttributeError(f"a graph has no attribute {name!r}{self._where(name)}")

    def __getitem__(self, name: object) -> NoReturn:
        raise ProtocolError(f"a graph has no items{self._where(str(name))}")

    def _where(self, name: str) -> str:
        """Where something is that a graph was asked for: in one of its tables, or among the functions."""
        for table in ("outputs", "inputs", "params", "states", "axes"):
            if name in getattr(self, table):
                return f"; g.{table}[{name!r}] is its entry"
        if name in dir(sys.modules["graphc"]):
            return f"; write gc.{name}(g, …)"
        if name in ("backward", "gradients"):
            return f"; write {INSTEAD[name]}"
        return meant(name, [known for known in dir(self) if not known.startswith("_")])

    # Declarations.

    def axis(self, name: str, length: int | Value | Axis | None = None) -> Axis:
        """An axis: its length comes with the data (None), is fixed (an int), differs per example, or is another's.

        One that differs is an int32 value without this axis, such as
        `g.input("lengths", (), over=(n,), dtype="int32")`. With another axis in its place, `s = g.axis("s", t)`, the
        two are indices of the same points: `k[s]` is the value k, which varies over t, at each of them.
        """
        _check_name(name)
        if name in self.axes:
            raise DefinitionError(
                f"axis {name!r} is declared twice; a cell that is used more than once names its axes as it names its "
                f'params, g.axis(f"{{name}}_{name}"); g.axes[{name!r}] is the one that there is'
            )
        if isinstance(length, Axis):
            if self.axes.get(length.name) != length:
                raise AxisError(f"axis {name!r} is to be as long as {length.name!r}, which graph {self.name!r} lacks")
            self.axes[name] = Axis(name, length.length, self.dtype, length.root)
            return self.axes[name]
        if isinstance(length, Value):
            if length.dtype != "int32" or length.shape:
                raise DtypeError(f"the lengths of axis {name!r} are one int32 per example, got {length.node.type}")
            self._own(length)
        elif length is not None and not (is_whole(length) and 1 <= length <= MOST_POINTS):
            raise AxisError(
                f"the length of axis {name!r} is a whole number from 1 to {MOST_POINTS:,}; one for each example is an "
                f'input, g.input("lengths", (), over=n, dtype="int32"). Got {length!r}'
            )
        known = length.node if isinstance(length, Value) else length and int(length)
        self.axes[name] = Axis(name, known, self.dtype)
        return self.axes[name]

    def input(self, name: str, shape: Shape, over: Axis | Iterable[Axis] = (), dtype: str | None = None) -> Value:
        """An array given with each call, of shape (lengths of the axes `over`, in that order) + `shape`."""
        node = leaf(INPUT, self._name(name), self._over(over), check_shape(shape), check_dtype(dtype or self.dtype))
        self.inputs[name] = node
        return Value(self, node)

    def param(
        self,
        name: str,
        shape: Shape,
        init: str | float | npt.ArrayLike | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> Value:
        """A learned array of `shape`; it varies over no axis.

        `init` names what `gc.initialize` fills it with (see there); by default matrices get "glorot_uniform",
        vectors, numbers and integers zeros. A number is that constant, and an array of the param's shape its elements;
        the graph's text has them, too.
        """
        node = leaf(PARAM, self._name(name), (), check_shape(shape), check_dtype(dtype or self.dtype))
        if init is None:
            init = "glorot_uniform" if len(node.shape) >= 2 and node.dtype in FLOATING else "zeros"
        chosen = init if isinstance(init, str) else _constant_init(name, init, node)
        if isinstance(chosen, str):
            initialiser(name, chosen, node)  # raises if there is none
        self.params[name] = Param(node, chosen, trainable and node.dtype in FLOATING)
        return Value(self, node)

    def state(
        self,
        name: str,
        shape: Shape,
        over: Axis | Iterable[Axis],
        initial: Any = 0.0,
        reset: Value | None = None,
        dtype: str | None = None,
    ) -> State:
        """A value on a cycle: declare it, read it at other points, and define it by `h[t] = …`.

        `initial` is what a delay reads before the first step: a number, an array, or a value that does not vary over
        the axis. Where `reset` (a bool value) is true, a delay that reaches back past that step reads it too.
        """
        node = leaf(STATE, self._name(name), self._over(over), check_shape(shape), check_dtype(dtype or self.dtype))
        if not node.axes:
            raise AxisError(f"state {name!r} varies over no axis; a state without one is just a value")
        start = assigned(initial, self, node.dtype)
        self._own(start)
        if start.dtype != node.dtype:
            raise DtypeError(f"state {name!r} is {node.dtype}, its initial value {start.dtype}")
        if start.shape not in ((), node.shape):
            batch = len(start.shape) > len(node.shape) and start.shape[-len(node.shape) or None :] == node.shape
            hint = f"; one that differs per example is g.input({name + '0'!r}, {node.shape}, over=n)" if batch else ""
            raise ShapeError(f"state {name!r} has events of shape {node.shape}, its initial value {start.shape}{hint}")
        if reset is not None:
            reset = as_value(reset, self)
            if reset.dtype != "bool" or reset.shape:
                raise DtypeError(
                    f"the reset of state {name!r} is one bool per point, got {reset.node.type}; compare it: flag > 0"
                )
            self.resets[node] = reset.node
        self.states[name] = Equation(node, None, start.node)
        return State(self, node, initial=start.node, reset=self.resets.get(node))

    def define(self, name: str, value: Value) -> None:
        """Close the cycle: what `h[t] = value` does."""
        known = self.states.get(name)
        if known is None:
            raise DefinitionError(f"graph {self.name!r} has no state {name!r}")
        if known.body is not None:
            where = self.locations.get(known.body)
            raise DefinitionError(f"state {name!r} is defined twice; the first time at {where}")
        node = known.node
        value = assigned(value, self, node.dtype)
        self._own(value)
        if value.shape != node.shape:
            raise ShapeError(f"state {name!r} has events of shape {node.shape}, but is defined by {value.node.type}")
        if value.dtype != node.dtype:
            raise DtypeError(f"state {name!r} is {node.dtype}, but is defined by a value of dtype {value.dtype}")
        for axis in value.axes:
            if axis not in node.axes:
                raise AxisError(
                    f"state {name!r} varies over {_names(node.axes)}, but is defined by a value that also varies "
                    f"over {axis.name!r}; add it to over=, or reduce it first"
                )
        self.states[name] = Equation(node, value.node, known.initial)

    def output(self, name: str, value: Value, over: Axis | Iterable[Axis] | None = None) -> None:
        """Name a result of a call: an array of shape (lengths of the value's axes) + its event shape.

        `over` gives the axes of the value in the order that the array shall have; by default that of `value.axes`.
        """
        _check_name(name)
        if name in self.outputs:
            raise DefinitionError(f"output {name!r} is declared twice")
        value = as_value(value, self)
        self._own(value)
        axes = value.axes if over is None else self._over(over)
        if set(axes) != set(value.axes):
            raise AxisError(
                f"output {name!r} varies over {_names(value.axes)}; over= takes all its axes, in any order, "
                f"got {_names(axes)}"
            )
        self.outputs[name] = ordered = broadcast(value.node, axes, value.shape)
        if ordered is not value.node:
            self.remember(ordered)

    def update(self, target: Value | str, value: Value) -> None:
        """A call writes `value` into the array of a param or an input, in place, after everything has been read."""
        name = target.name if isinstance(target, Value) else target
        if name not in self.params and name not in self.inputs:
            raise DefinitionError(f"a call updates params and inputs, and {name!r} is neither in graph {self.name!r}")
        if name in self.updates:
            raise DefinitionError(f"{name!r} is updated twice")
        node = self.params[name].node if name in self.params else self.inputs[name]
        if any(axis.length is node for axis in self.axes.values()):
            raise DefinitionError(f"{name!r} holds the lengths of an axis, which are checked before a call, not after")
        value = assigned(value, self, node.dtype)
        self._own(value)
        if (value.shape, value.dtype) != (node.shape, node.dtype) or not set(value.axes) <= set(node.axes):
            raise ShapeError(f"{name!r} is {node.type}, its update is {value.node.type}")
        self.updates[name] = broadcast(value.node, node.axes, node.shape)

    # Looking.

    def value(self, name: str) -> Value:
        """The input, param, state or output of a name, to go on building with.

        A state is read as where it was declared, with its resets; a graph's text has these in its equations alone, so
        that a further delay of a state in a graph that was parsed or pickled is one without them.
        """
        if name in self.inputs:
            return Value(self, self.inputs[name])
        if name in self.params:
            return Value(self, self.params[name].node)
        if name in self.states:
            node = self.states[name].node
            return State(self, node, initial=self.states[name].initial, reset=self.resets.get(node))
        if name in self.outputs:
            return Value(self, self.outputs[name])
        raise DefinitionError(f"graph {self.name!r} has nothing called {name!r}; it has {', '.join(self.names())}")

    def names(self) -> list[str]:
        return [*self.inputs, *self.params, *self.states, *(o for o in self.outputs if o not in self.states)]

    def copy(self, name: str | None = None) -> Graph:
        """A graph of its own with the same equations."""
        return Graph(
            name or self.name,
            self.dtype,
            dict(self.axes),
            dict(self.inputs),
            dict(self.params),
            dict(self.states),
            dict(self.outputs),
            dict(self.updates),
            dict(self.locations),
            dict(self.steps),
            dict(self.resets),
        )

    def __copy__(self) -> Graph:
        return self.copy()

    def __deepcopy__(self, memo: object) -> Graph:
        return self.copy()  # nodes are immutable

    def __reduce__(self) -> tuple[Callable[[str], Graph], tuple[str]]:
        """A pickle holds the graph's text, and loading it runs nothing but the parser."""
        from graphc.notation.parse import parse

        return parse, (str(self),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._tables() == other._tables()

    def __hash__(self) -> int:
        return hash((self.name, self.dtype, tuple(self.inputs), tuple(self.params), tuple(self.outputs)))

    def _tables(self) -> tuple[object, ...]:
        tables = self.axes, self.inputs, self.params, self.states, self.outputs, self.updates
        return (self.name, self.dtype, *tables)

    def __str__(self) -> str:
        return text.print_graph(self)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The nodes and edges; each edge has `delay` (a dict from axis names to steps), each node `op` and `label`."""
        return network.to_networkx(self)

    # Checks.

    def _name(self, name: str) -> str:
        _check_name(name)
        if name in self.inputs or name in self.params or name in self.states:
            raise DefinitionError(
                f"the name {name!r} is taken already in graph {self.name!r}; cells and layers take name="
            )
        return name

    def _over(self, over: Axis | Iterable[Axis]) -> tuple[Axis, ...]:
        if isinstance(over, str):
            raise AxisError(f"over= takes axes, not their names: {over} = g.axis({over!r}), over={over}; got {over!r}")
        axes = several(over)
        for axis in axes:
            if not isinstance(axis, Axis):
                hint = f": {axis} = g.axis({axis!r})" if isinstance(axis, str) else ""
                raise AxisError(f"over= takes axes of the graph, got {axis!r}{hint}")
            if self.axes.get(axis.name) != axis:
                raise AxisError(
                    f"axis {axis.name!r} is not one of graph {self.name!r}; make it with g.axis({axis.name!r})"
                )
        if len(set(axes)) != len(axes):
            raise AxisError(f"over= names an axis twice: {_names(axes)}")
        return axes

    def _own(self, value: Value) -> None:
        if value.owner is not None and value.owner is not self:
            raise DefinitionError(f"a value of graph {value.owner.name!r} is used in graph {self.name!r}")
        for axis in value.axes:
            if self.axes.get(axis.name) != axis:
                raise AxisError(f"axis {axis.name!r} is not one of graph {self.name!r}")

    def remember(self, node: Node) -> None:
        """Note the user's line on which a value was first made."""
        if node not in self.locations:
            location = user_location()
            if location is not None:
                self.locations[node] = location


def _constant_init(name: str, init: Any, node: Node) -> str | Node:
    """What a param is at first, given as a number or an array."""
    if callable(init) or isinstance(init, Value):
        raise DefinitionError(
            f"init= of param {name!r} is the name of an initialiser, a number or an array, not {init!r}: it is printed "
            "with the graph; call a function yourself, and give the array that it returns"
        )
    try:
        array = np.asarray(init)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(f"init= of param {name!r} does not make an array: {error}") from None
    if array.ndim == 0 and array.dtype.kind in "biuf":
        return repr(float(array))
    if array.dtype.kind not in {"bool": "b", "int32": "biu"}.get(node.dtype, "biuf"):
        raise DtypeError(f"param {name!r} is {node.dtype}, its init= {array.dtype.name}")
    if array.shape != node.shape:
        raise ShapeError(f"param {name!r} has shape {node.shape}, its init= {array.shape}")
    return as_value(array, None, dtype=node.dtype).node


def _names(axes: Iterable[Axis]) -> str:
    return ", ".join(a.name for a in axes) or "no axis"


def declared_arrays(graph: Graph) -> dict[str, Node]:
    """The inputs and params of a graph, by name: what a call takes an array for."""
    return {**graph.inputs, **{name: param.node for name, param in graph.params.items()}}


def unused_name(name: str, taken: set[str]) -> str:
    """A name that is not taken, and is from now on: this one, with as many `_` behind it as it takes."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def check_graph(given: object) -> None:
    """Check that a function of graphs was given one."""
    if not isinstance(given, Graph):
        found = repr(given)
        text = found if len(found) <= 60 else f"{found[:57]}..."
        raise DefinitionError(f"expected a graph, gc.Graph(…), got {type(given).__name__}: {text}")


def _check_name(name: str) -> None:
    if isinstance(name, str) and keyword.iskeyword(name):
        raise DefinitionError(f"{name!r} is a keyword of Python, and calls take names as f({name}=…); use another name")
    if not isinstance(name, str) or not name.isidentifier():
        raise DefinitionError(f"{name!r} is not a name; use letters, digits and _, not starting with a digit")
    if len(name) > LONGEST_NAME:
        raise DefinitionError(f"a name has at most {LONGEST_NAME} characters; {name[:30]!r}… has {len(name)}")
