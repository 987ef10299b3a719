"""contract: the one product of tensors. Matrix products, outer products, batched products and weight gradients are
all the same op: multiply, and sum over some event dimensions and some axes.

`a`, `b`, `out` name the dimensions of the operands' events and of the result's by letters, as in einsum; a letter
that is missing from `out` is summed, and so are the axes `over`. Each letter of an operand stands in the other
operand or in the result, and each axis of `over` in both operands, so a contraction's gradients are contractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DtypeError, ShapeError
from graphc.ir import FLOATS, Axis, Node, Op, Type, broadcast_shapes, make, merge_axes
from graphc.ops.event import reshape
from graphc.ops.leaves import LEAVES
from graphc.ops.reduction import broadcast, over_delays, reads_of_pairs, sum_
from graphc.ops.site import Event, Site
from graphc.scalar import Scalar, call


def _infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (left, right), over = inputs, attrs["over"]
    if left.dtype != right.dtype or left.dtype not in FLOATS:
        raise DtypeError(f"a product takes two values of one floating dtype, got {left.dtype} and {right.dtype}")
    extents: dict[str, int] = {}
    for letters, node in ((attrs["a"], left), (attrs["b"], right)):
        if len(letters) != len(node.shape) or len(set(letters)) != len(letters):
            raise ShapeError(f"a product names the dimensions of an event of shape {node.shape} by {letters!r}")
        for letter, extent in zip(letters, node.shape, strict=True):
            if extents.setdefault(letter, extent) != extent:
                raise ShapeError(
                    f"a product of events {left.shape} and {right.shape}: a dimension of {extents[letter]} "
                    f"meets one of {extent}"
                )
    for letters, other in ((attrs["a"], attrs["b"]), (attrs["b"], attrs["a"])):
        if not set(letters) <= set(other + attrs["out"]):
            raise ShapeError(f"a product sums a dimension of one operand alone: {attrs['a']},{attrs['b']}")
    letters, out = attrs["a"] + attrs["b"], attrs["out"]
    plain = not letters or (letters.isascii() and letters.isalpha())
    if not plain or not set(out) <= set(letters) or len(set(out)) < len(out):
        raise ShapeError(f"a product names dimensions by letters, those of its result once; got {letters!r}, {out!r}")
    if not set(over) <= set(left.axes) & set(right.axes) or len(set(over)) < len(over):
        raise ShapeError("a product sums over an axis that one operand lacks, or over one twice")
    axes = tuple(x for x in merge_axes(left.axes, right.axes) if x not in over)
    return Type(axes, tuple(extents[letter] for letter in attrs["out"]), left.dtype)


def summed_letters(node: Node) -> str:
    """The letters of the dimensions that a contraction sums, in the order of its first operand."""
    return "".join(letter for letter in node["a"] if letter not in node["out"])


def _compute(node: Node, arrays: Sequence[np.ndarray]) -> np.ndarray:
    total = np.zeros(node.shape, node.dtype)
    formula = f"{node['a']},{node['b']}->{node['out']}"
    for left, right in zip(arrays[::2], arrays[1::2], strict=True):
        total = total + np.einsum(formula, left, right)
    return total


def _gradient(node: Node, d: Node) -> Sequence[Node]:
    left, right = node.inputs
    a, b, out = node["a"], node["b"], node["out"]
    return _to(left, contract(d, right, out, b, a, ())), _to(right, contract(left, d, a, out, b, ()))


def _to(operand: Node, contribution: Node) -> Node:
    """The contribution over all of the operand's axes, and summed over those that the operand lacks."""
    summed = sum_over(contribution, tuple(x for x in contribution.axes if x not in operand.axes))
    return broadcast(summed, merge_axes(summed.axes, operand.axes), summed.shape)


def sum_over(value: Node, over: Sequence[Axis]) -> Node:
    """A sum over axes; a product that varies over them in both operands sums them itself."""
    if value.op is CONTRACT:
        inside = tuple(x for x in over if all(x in i.axes for i in value.inputs))
        left, right = value.inputs
        value = contract(left, right, value["a"], value["b"], value["out"], (*value["over"], *inside))
        over = tuple(x for x in over if x not in inside)
    return sum_(value, over=over)


def _lower(node: Node, site: Site) -> Scalar:
    summed = summed_letters(node)
    extents = dict(zip(node["a"], node.inputs[0].shape, strict=True))

    def element(inner: Site, events: Event) -> Scalar:
        subscripts = dict(zip(node["out"], site.event, strict=True)) | dict(zip(summed, events, strict=True))
        left = inner.read(0, event=tuple(subscripts[letter] for letter in node["a"]))
        right = inner.read(1, event=tuple(subscripts[letter] for letter in node["b"]))
        return call("mul", left, right)

    return site.reduce("sum", node["over"], [extents[letter] for letter in summed], element)


CONTRACT = Op(
    "contract",
    _infer,
    _compute,
    _gradient,
    _lower,
    reads=reads_of_pairs,
    delays=over_delays,
    reduces=True,
    attributes=("a", "b", "out", "over"),
)


def contract(left: Node, right: Node, a: str, b: str, out: str, over: Sequence[Axis] = ()) -> Node:
    return make(CONTRACT, (left, right), a=a, b=b, out=out, over=tuple(over))


def _shown(operand: Node) -> str:
    """An operand of a product for a message: its type, and its name if it has one."""
    return f"{operand['name']} {operand.type}" if operand.op in LEAVES else str(operand.type)


def matmul(left: Node, right: Node) -> Node:
    """`left @ right` on events, as numpy's matmul: vectors, matrices, and stacks of matrices that broadcast."""
    if not left.shape or not right.shape:
        axes = (left if not left.shape else right).axes
        steps = f". Steps are named by an axis, x[{axes[0].name}]; x[0] is an element, at every step" if axes else ""
        raise ShapeError(f"@ takes vectors and matrices; use * for numbers: {_shown(left)} @ {_shown(right)}{steps}")
    k = left.shape[-1]
    if k != right.shape[-2 if len(right.shape) > 1 else 0]:
        rows = right.shape[-2 if len(right.shape) > 1 else 0]
        raise ShapeError(f"{k} columns meet {rows} rows: {_shown(left)} @ {_shown(right)}")
    batch = broadcast_shapes([left.shape[:-2], right.shape[:-2]], "@ of stacked matrices")
    names = "abcdefgh"[: len(batch)]

    def letters(node: Node, matrix: str) -> tuple[Node, str]:
        """The operand without the batch dimensions of length 1, which broadcast, and the letters of the rest."""
        lead = node.shape[:-2]
        own = names[len(names) - len(lead) :]
        kept = [n for n, s, full in zip(own, lead, batch[len(batch) - len(lead) :], strict=True) if s == full]
        shape = (*(s for n, s in zip(own, lead, strict=True) if n in kept), *node.shape[len(lead) :])
        return reshape(node, shape), "".join(kept) + matrix

    left, a = letters(left, "mk" if len(left.shape) > 1 else "k")
    right, b = letters(right, "kn" if len(right.shape) > 1 else "k")
    out = names + "".join(x for x in a + b if x in "mn")
    return contract(left, right, a, b, out)
