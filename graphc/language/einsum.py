"""einsum: products of events, whose dimensions are named by letters.

In: a formula, such as "ij,j->i", and values. Out: contractions of two operands at a time (`graphc.ops.contraction`),
of which a dimension that one operand alone names is summed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ShapeError
from graphc.ir import Node, Shape
from graphc.language.value import Value, promote
from graphc.ops.contraction import contract
from graphc.ops.event import transpose
from graphc.ops.reduction import sum_


def outer(a: Any, b: Any) -> Value:
    """The outer product of two vectors: (m,) and (n,) give (m, n)."""
    return einsum("i,j->ij", a, b)


def einsum(formula: str, *operands: Any) -> Value:
    """The product of events, summed over the letters that the result does not name: `einsum("ij,j->i", W, x)`.

    Of three or more events the first two are multiplied, then their product with the next; give first what makes the
    smallest product.
    """
    values = promote(*operands, floating=True)
    named, out = _einsum_letters(formula, [value.shape for value in values])
    node, letters = values[0].node, named[0]
    for k, (value, own) in enumerate(zip(values[1:], named[1:], strict=True), start=2):
        later = "".join((*named[k:], out))
        left, a = _sum_lonely(node, letters, own + later)
        right, b = _sum_lonely(value.node, own, letters + later)
        letters = "".join(letter for letter in dict.fromkeys(a + b) if letter in later) if k < len(values) else out
        node = contract(left, right, a, b, letters)
    node, letters = _sum_lonely(node, letters, out)
    return Value(values[0].graph, transpose(node, tuple(letters.index(letter) for letter in out)))


def _einsum_letters(formula: str, shapes: Sequence[Shape]) -> tuple[list[str], str]:
    """The letters of the dimensions of each operand, and of the result."""
    arrow = formula.replace(" ", "").split("->") if isinstance(formula, str) else []
    if len(arrow) != 2 or not all(letter.isalpha() or letter == "," for letter in arrow[0]):
        raise ShapeError(f"einsum takes a formula, such as 'ij,j->i', and then its operands; got {formula!r}")
    named, out = arrow[0].split(","), arrow[1]
    if len(named) != len(shapes):
        raise ShapeError(f"einsum of {len(shapes)} operands takes a formula of as many, got {formula!r}")
    for letters, shape in zip(named, shapes, strict=True):
        if len(letters) != len(shape):
            raise ShapeError(
                f"einsum names an event of shape {shape} by {letters!r}; axes, such as time, have no letter"
            )
        if len(set(letters)) < len(letters):
            raise ShapeError(
                f"einsum names each dimension of an operand by a letter of its own, got {letters!r}; the diagonal of a "
                "matrix A of n rows is gc.sum(A * np.eye(n), dim=1)"
            )
    if len(set(out)) < len(out) or not set(out) <= set(arrow[0].replace(",", "")):
        raise ShapeError(f"the result of einsum has letters of its operands, each once; got {out!r} of {arrow[0]!r}")
    return named, out


def _sum_lonely(node: Node, letters: str, others: str) -> tuple[Node, str]:
    """Sum the dimensions that only this operand names."""
    lonely = [d for d, letter in enumerate(letters) if letter not in others]
    return sum_(node, lonely), "".join(letter for letter in letters if letter in others)
