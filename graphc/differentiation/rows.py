"""rows: values of which each element depends on one row of another alone.

Of `h = f(h′) + W @ x`, with a diagonal f, element i depends on row i of W and on no other. So all rows of W can move at
once, and each element of h shows the derivative by its own: columns of a Jacobian that meet no row together need one
product (Curtis, Powell & Reid 1974). Read off the ops on the way, for every value of what else they read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphc.ir import Node, topological
from graphc.ops.axis import AS_AXIS, AS_DIM, AT, SHIFT, STACK
from graphc.ops.contraction import CONTRACT
from graphc.ops.elementwise import ELEMENTWISE
from graphc.ops.event import CONCAT, PLACE, RESHAPE, SLICE, TRANSPOSE
from graphc.ops.reduction import BROADCAST, SUM
from graphc.ops.take import TAKE


def row_dims(roots: Sequence[Node], equations: Mapping[Node, Node], of: Node, dim: int) -> dict[Node, int] | None:
    """For each value that depends on `of`, the dimension of its event along which element i depends on element i of
    dimension `dim` of `of` alone; None if there is a value without one. `equations` are those of states."""
    found = {of: dim}
    order = topological([*roots, *equations.values()])
    size, rows = 0, of.shape[dim]
    while len(found) > size:  # states on cycles learn of each other
        size = len(found)
        for node in order:
            dims: list[int | None]
            if node in equations:
                dims = [found[body] for body in (equations[node],) if body in found]
            else:
                dims = [_moved(node, k, found[operand]) for k, operand in enumerate(node.inputs) if operand in found]
            for here in dims:
                if here is None or node.shape[here] != rows or found.setdefault(node, here) != here:
                    return None
    return found


def _moved(node: Node, k: int, dim: int) -> int | None:
    """Where dimension `dim` of operand k is in the node's event; None if its elements meet, or change their places."""
    shape = node.inputs[k].shape
    if node.op in ELEMENTWISE or node.op in (BROADCAST, SHIFT, AT, TAKE, STACK):
        return dim + len(node.shape) - len(shape)
    if node.op is CONTRACT:
        letter, out = str(node["ab"[k]])[dim], str(node["out"])
        return out.index(letter) if letter in out else None
    if node.op is SUM:
        return None if dim in node["dims"] else dim - sum(d < dim for d in node["dims"])
    if node.op is TRANSPOSE:
        return int(node["perm"].index(dim))
    if node.op is RESHAPE:
        before = math.prod(shape[:dim])
        same = (d for d, s in enumerate(node.shape) if (math.prod(node.shape[:d]), s) == (before, shape[dim]))
        return next(same, None)
    if node.op is AS_DIM:
        return dim + int(node["dim"] <= dim)
    if node.op in (AS_AXIS, SLICE, PLACE, CONCAT):
        cut = int(node["dim"])
        return None if dim == cut else dim - (node.op is AS_AXIS and cut < dim)
    return None
