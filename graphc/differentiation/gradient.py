"""gradient: the derivatives of a function of values by its arguments, as values to go on building with.

A network may itself descend a gradient at each step: a memory that learns what it is shown (Sun et al. 2024; Behrouz et
al. 2025), activities that settle where an energy is low, a motion that a Hamiltonian gives. The rules are those of
`gc.grad`, but the sweep ends at the arguments. They are leaves of their own while it runs, so that what else is made
alike is no part of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import overload

from graphc.differentiation.grad import propagate, zeros
from graphc.errors import DefinitionError, DtypeError, ShapeError
from graphc.ir import FLOATING, Node, topological
from graphc.language.graph import Graph
from graphc.language.value import Value, as_value, promote
from graphc.ops.elementwise import balanced_sum
from graphc.ops.gradient import substitute
from graphc.ops.leaves import COTANGENT, const, leaf
from graphc.ops.reduction import broadcast
from graphc.scalar import computed

_numbers = itertools.count()  # no two arguments are the same leaf, of a gradient within a gradient either


@overload
def gradient(function: Callable[[Value], Value], at: Value, /) -> Value: ...
@overload
def gradient(function: Callable[..., Value], /, *at: Value) -> tuple[Value, ...]: ...
def gradient(function: Callable[..., Value], /, *at: Value) -> Value | tuple[Value, ...]:
    """The derivative of a function at a value, or at several, a tuple: `gc.gradient(error, W[t - 1])`.

    The function makes a number of its arguments at each point; what else it reads, states too, is held constant. Its
    number is summed over the axes that an argument lacks. The result is a value like any other, and has a gradient.
    """
    if not callable(function) or not at or not all(isinstance(value, Value) for value in at):
        given = ", ".join(type(item).__name__ for item in (function, *at))
        raise DefinitionError(
            f"gc.gradient takes a function and the values of its arguments, gc.gradient(energy, q), got {given}; "
            'gc.grad(g, "loss") is the graph with its derivatives as outputs'
        )
    for value in at:
        if value.dtype not in FLOATING:
            raise DtypeError(f"a value of dtype {value.dtype} has no derivative: {value!r}")
    graph = promote(*at)[0].graph
    arguments = [leaf(COTANGENT, f"argument{next(_numbers)}", v.axes, v.shape, v.dtype) for v in at]
    result = as_value(function(*(Value(graph, node) for node in arguments)), graph)
    if result.shape or result.dtype not in FLOATING:
        raise ShapeError(f"gc.gradient differentiates a number, but the function gives {result.node.type}; sum it")
    found = adjoints_of(at[0].owner, result.node, arguments)
    replaced = substitute(found, dict(zip(arguments, (value.node for value in at), strict=True)))
    made = tuple(Value(graph, node) for node in replaced)
    return made if len(made) > 1 else made[0]


def adjoints_of(graph: Graph | None, of: Node, arguments: Sequence[Node]) -> list[Node]:
    """The derivatives of a node by leaves, along all that lies between."""
    active = set(arguments)
    for node in topological([of]):
        if node.op.gradient is not None and any(i in active and i.dtype in FLOATING for i in node.inputs):
            active.add(node)
    contributions: dict[Node, list[Node]] = {node: [] for node in topological([of]) if node in active}
    contributions[of] = [broadcast(const(1, computed(of.dtype)), of.axes, ())]
    for node in reversed(topological([of])):
        if contributions.get(node):
            propagate(graph, node, balanced_sum(contributions[node]), contributions)
    found = [balanced_sum(contributions[a]) if contributions.get(a) else zeros(a) for a in arguments]
    return [broadcast(node, a.axes, a.shape) for node, a in zip(found, arguments, strict=True)]
