"""reciprocal: a root that many points are divided by is inverted once.

    x / √v = x · (1 / √v)

where x varies over axes or dimensions that v does not: a normalisation then multiplies. A root is far from the largest
and the smallest numbers, so its reciprocal is neither infinite nor flushed to 0 unless the root is 0 or infinite, and
then both forms are the same. Of other divisors that is not known.
"""

from __future__ import annotations

from graphc.ir import Node, size
from graphc.ops.elementwise import DIV, SQRT, div, mul
from graphc.ops.leaves import const


def reciprocal_node(node: Node) -> Node:
    """The node itself, unless it divides by a root that is the same for many of its points."""
    if node.op is not DIV:
        return node
    value, root = node.inputs
    wider = size(value.shape) > size(root.shape) or not set(value.axes) <= set(root.axes)
    if root.op is not SQRT or not wider or value.type != node.type:
        return node
    return mul(value, div(const(1, root.dtype), root))
