"""training_step: a graph, its gradient and an optimiser as one graph, whose call makes one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.differentiation.grad import Wrt, gradients, zeros
from graphc.errors import DefinitionError, ShapeError, listed
from graphc.ir import Node, Type
from graphc.language.functions import cast, minimum, sqrt, sum
from graphc.language.graph import Graph, check_graph
from graphc.language.value import Value
from graphc.optim import Optimizer, Rate, rate_at
from graphc.scalar import computed
from graphc.simplification.simplify import simplify

STEP = "step"  # the param that counts the steps; `step_OF` where the graph has a name like that already


def training_step(graph: Graph, of: str | Mapping[str, str], optimizer: Optimizer, wrt: Wrt = None) -> Graph:
    """The graph with updates that move its params down the gradient of output `of`, a number.

    Where outputs hold the gradient already, as those of `gc.rtrl`, `of` names them by param: `{"W": "grad_W"}`. They
    are outputs no more, but what the optimiser takes for the gradient.

    `wrt` gives the params that move, as `gc.grad` takes them; by default every trainable one. What the optimiser
    remembers becomes further params, such as `momentum_W`, at first 0; param `step` counts the steps. A param of
    float16 or bfloat16 is rounded after each step; what is remembered of it is float32. The graph's own updates stay,
    so a graph with two losses, for some params each, is trained by a training step of a training step.
    """
    check_graph(graph)
    _check_optimizer(optimizer)
    _check_rate(optimizer.lr, graph)
    result, found = _given(graph, of, wrt) if isinstance(of, Mapping) else _derived(graph, of, wrt)
    for name in found:
        if name in graph.updates:
            raise DefinitionError(f"param {name!r} has an update of its own; name the others as those to train")
    values = {name: Value(result, node) for name, node in found.items()}
    if optimizer.clip is not None:
        values = clipped(values, optimizer.clip)
    taken = {*result.inputs, *result.params, *result.states}
    own = of if isinstance(of, str) else next(iter(of))
    counter = result.param(STEP if STEP not in taken else f"{STEP}_{own}", (), init="zeros", dtype="int32")
    rate = rate_at(optimizer.lr, cast(counter, graph.dtype))
    for name, gradient in values.items():
        param = Value(result, result.params[name].node)
        dtype = computed(param.dtype)
        slots = {
            slot: result.param(f"{slot}_{name}", param.shape, init="zeros", dtype=dtype, trainable=False)
            for slot in optimizer.slots
        }
        lr = cast(rate, dtype) if isinstance(rate, Value) else rate
        move = optimizer.move(param, gradient, slots, lr, cast(counter, dtype))
        result.update(name, move.param)
        for slot, value in move.slots.items():
            result.update(slots[slot], value)
    result.update(counter, counter + 1)
    return replace(simplify(result), name=f"{graph.name}_step")


def _derived(graph: Graph, of: str, wrt: Wrt) -> tuple[Graph, dict[str, Node]]:
    """A copy of the graph, and the derivatives of its output `of` by params."""
    result, found = gradients(graph, of, wrt)
    if all(node is zeros(node) for node in found.values()):
        names = f": {listed(found)} do not reach it" if found else f"; graph {graph.name!r} has none"
        location = graph.locations.get(graph.outputs[of])
        raise DefinitionError(f"output {of!r} depends on no param that training moves{names}", location)
    for name in found:
        if name not in graph.params:
            raise DefinitionError(f"training moves params, and {name!r} is an input of graph {graph.name!r}")
    return result, found


def _given(graph: Graph, of: Mapping[str, str], wrt: Wrt) -> tuple[Graph, dict[str, Node]]:
    """A copy of the graph without the outputs that are gradients, and these by param."""
    if wrt is not None:
        raise DefinitionError("wrt= names what to differentiate by; gradients that are given name their params")
    if not of:
        raise DefinitionError('expected gradients by param, such as {"W": "grad_W"}, got none')
    found = {}
    for name, output in of.items():
        if name not in graph.params:
            raise DefinitionError(f"graph {graph.name!r} has no param {name!r}; it has {listed(graph.params)}")
        if output not in graph.outputs:
            raise DefinitionError(f"graph {graph.name!r} has no output {output!r}; it has {listed(graph.outputs)}")
        node, param = graph.outputs[output], graph.params[name].node
        expected = Type((), param.shape, computed(param.dtype))
        if node.type != expected:
            over = "; reduce it over its axes, or step the graph" if node.axes else ""
            raise ShapeError(
                f"the gradient of param {name!r} is {expected}, but output {output!r} is {node.type}{over}",
                graph.locations.get(node),
            )
        found[name] = node
    rest = {name: node for name, node in graph.outputs.items() if name not in of.values()}
    return replace(graph.copy(), outputs=rest), found


def clipped(gradients: Mapping[str, Value], norm: float) -> dict[str, Value]:
    """The gradients, scaled down together where their common norm exceeds `norm` (Pascanu et al. 2013)."""
    total = None
    for gradient in gradients.values():
        square = sum(gradient * gradient)
        total = square if total is None else total + square
    if total is None:
        return {}
    scale = minimum(norm / (sqrt(total) + 1e-6), 1.0)
    return {name: gradient * cast(scale, gradient.dtype) for name, gradient in gradients.items()}


def _check_optimizer(optimizer: object) -> None:
    if isinstance(optimizer, type) or not all(hasattr(optimizer, name) for name in ("lr", "clip", "slots", "move")):
        name, shown = "Adam", repr(optimizer)
        if isinstance(optimizer, type):
            name, shown = optimizer.__name__, f"the class {optimizer.__name__}"
        raise DefinitionError(f"expected an optimiser, such as gc.optim.{name}(lr=1e-3), got {shown}")


def _check_rate(lr: Rate, graph: Graph) -> None:
    if isinstance(lr, Value) and lr.graph not in (None, graph):
        raise DefinitionError(f"the learning rate is a value of another graph than {graph.name!r}")
