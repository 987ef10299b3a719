"""gradient and jacobian: the derivatives of a function of values by its arguments, as values to go on building with.

A network may itself descend a gradient at each step: a memory that learns what it is shown (Sun et al. 2024; Behrouz et
al. 2025), activities that settle where an energy is low, a motion that a Hamiltonian gives. The Jacobian of a step
carries a filter's covariance on, and its eigenvalues say how a network forgets. The rules are those of `gc.grad`, but
the sweep ends at the arguments. They are leaves of their own while it runs, so that what else is made alike is no part
of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import overload

from graphc.differentiation.grad import free_name, propagate, zeros
from graphc.differentiation.one_by_one import Along, Sparse, one_by_one, widened
from graphc.errors import DefinitionError, DtypeError, ShapeError, UnsupportedError
from graphc.ir import FLOATING, Axis, Node, merge_axes, topological
from graphc.language.graph import Graph
from graphc.language.value import Value, as_value, promote
from graphc.ops.axis import as_dim
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


def jacobian(function: Callable[[Value], Value], at: Value, /) -> Value:
    """The derivative of each element of a function's event by each of its argument's: `gc.jacobian(step, h[t - 1])`.

    The function makes a value of its argument at each point, such as `lambda h: gc.tanh(U @ h + W @ x)`; what else it
    reads, states too, is held constant. The result has the function's event shape, followed by the argument's, here
    (units, units). It is computed forwards, a column for each element of the argument. Raises `UnsupportedError` if the
    function reads its argument at other points of an axis.
    """
    if not callable(function) or not isinstance(at, Value) or at.owner is None:
        found = ", ".join(type(item).__name__ for item in (function, at))
        raise DefinitionError(
            f"gc.jacobian takes a function and a graph's value, its argument, gc.jacobian(step, h[t - 1]), got {found}"
        )
    if at.dtype not in FLOATING:
        raise DtypeError(f"a value of dtype {at.dtype} has no derivative: {at!r}")
    graph, number = at.owner, next(_numbers)
    given = leaf(COTANGENT, f"argument{number}", at.axes, at.shape, at.dtype)
    made = as_value(function(Value(graph, given)), graph)
    if made.dtype not in FLOATING:
        raise DtypeError(f"gc.jacobian differentiates numbers, but the function gives {made.node.type}")
    axes = merge_axes(made.axes, at.axes)
    _check_point_by_point(made.node, given, axes)
    argument = leaf(COTANGENT, f"wide{number}", axes, at.shape, at.dtype)  # so that nothing is summed over axes
    of = broadcast(widened([made.node], {given: argument})[made.node], axes, made.shape)
    slope = leaf(COTANGENT, f"slope{number}", axes, of.shape, computed(of.dtype))
    velocity = leaf(COTANGENT, f"velocity{number}", axes, at.shape, computed(at.dtype))
    (backward,) = adjoints_of(graph, of, [argument], slope)
    (forward,) = adjoints_of(graph, backward, [slope], velocity)
    (forward,) = substitute([forward], {argument: broadcast(at.node, axes, at.shape)})
    columns = [Axis(free_name(graph, f"column_{k}"), size) for k, size in enumerate(at.shape)]
    graph.axes.update({column.name: column for column in columns})
    along = {k: Along(column) for k, column in enumerate(columns)}
    one = Sparse(at.shape, broadcast(const(1, velocity.dtype), axes, (1,) * len(columns)), along)
    columnwise, _ = one_by_one([forward], {}, {velocity: one}, ())
    result = broadcast(columnwise[forward], (*axes, *columns), of.shape)
    for column in reversed(columns):
        result = as_dim(result, column, len(of.shape))
    return Value(graph, result)


def _check_point_by_point(of: Node, argument: Node, axes: Sequence[Axis]) -> None:
    """Raise `UnsupportedError` if a value is made of its argument at other points of one of the axes."""
    moved = {argument}
    for node in topological([of]):
        for k, operand in enumerate(node.inputs):
            if operand not in moved:
                continue
            moved.add(node)
            for axis in (a for a, delay in node.op.delays(node, k).items() if delay != 0 and a in axes):
                raise UnsupportedError(
                    "gc.jacobian differentiates point by point, but the function reads its argument at other points of "
                    f"axis {axis.name!r} ({node.op.name})"
                )


def adjoints_of(graph: Graph | None, of: Node, arguments: Sequence[Node], seed: Node | None = None) -> list[Node]:
    """The derivatives of a node by leaves, along all that lies between, times the node's own adjoint: by default 1."""
    active = set(arguments)
    for node in topological([of]):
        if node.op.gradient is not None and any(i in active and i.dtype in FLOATING for i in node.inputs):
            active.add(node)
    contributions: dict[Node, list[Node]] = {node: [] for node in topological([of]) if node in active}
    contributions[of] = [broadcast(const(1, computed(of.dtype)), of.axes, of.shape) if seed is None else seed]
    for node in reversed(topological([of])):
        if contributions.get(node):
            propagate(graph, node, balanced_sum(contributions[node]), contributions)
    found = [balanced_sum(contributions[a]) if contributions.get(a) else zeros(a) for a in arguments]
    return [broadcast(node, a.axes, a.shape) for node, a in zip(found, arguments, strict=True)]
