"""How long a Program's dims are: in one call, whose sizes are known, or as far as it is known without them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping

from graphc.codegen.program import Buffer, Call, Const, Dim, Index, Ring, Scalar, Size
from graphc.scalar import FUNCTIONS, walk

__all__ = ["buffer_shape", "evaluate", "known_length", "known_lengths", "length_of", "points_of", "reach", "step_name"]

_EXACT: dict[str, Callable[..., int]] = {  # numpy's integers wrap around
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "min": min,
    "max": max,
}


def step_name(index: str) -> str:
    """The name under which `sizes` hold at which step a loop is."""
    return f"step of {index}"


def evaluate(extent: Scalar, sizes: Mapping[str, int]) -> int:
    """The value of a length. `sizes` hold the lengths that come with the data, and may hold the steps at which loops
    are (`step_name`); a loop whose step they do not hold is at step 0."""
    match extent:
        case Const(value):
            return int(value)
        case Size(name):
            return sizes[name]
        case Index(name):
            return sizes.get(step_name(name), 0)
        case Call(fn, args):
            values = [evaluate(a, sizes) for a in args]
            exact = _EXACT.get(fn)
            return int(FUNCTIONS[fn].numpy(*values) if exact is None else exact(*values))
    raise TypeError(f"a length made of numbers and sizes was expected, not {extent}")


def buffer_shape(buffer: Buffer, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of the array behind a buffer. A ring has as many places as it has slots."""
    return tuple(dim.slots if isinstance(dim, Ring) else evaluate(dim, sizes) for dim in buffer.dims)


def points_of(dims: Iterable[Dim], sizes: Mapping[str, int]) -> int:
    """How many points these dims have together."""
    return math.prod(evaluate(dim.extent, sizes) for dim in dims)


def length_of(dims: Iterable[Dim], unknown: int = 1) -> int:
    """How many points these dims have together, where one whose length comes with the data counts as `unknown`."""
    return math.prod(unknown if dim.length is None else dim.length for dim in dims)


def known_length(dims: Iterable[Dim]) -> int | None:
    """How many points these dims have together; None if one's length comes with the data."""
    dims = tuple(dims)
    return None if any(dim.length is None for dim in dims) else length_of(dims)


def known_lengths(dims: Iterable[Dim]) -> dict[str, int]:
    """The lengths that do not come with the data, by index."""
    return {dim.index: dim.length for dim in dims if dim.length is not None}


def reach(scalar: Scalar, lengths: Mapping[str, int]) -> tuple[int, int] | None:
    """The least and the greatest value of a sum of indices, each once and times or by a constant; None of anything
    else, or where an index has no point."""
    match scalar:
        case Const(value):
            return int(value), int(value)
        case Index(name) if lengths.get(name, 0) > 0:
            return 0, lengths[name] - 1
        case Call("mul", (a, Const(value))) | Call("mul", (Const(value), a)):
            ends = sorted(end * int(value) for end in reach(a, lengths) or ())
            return (ends[0], ends[1]) if ends else None
        case Call("floordiv", (a, Const(value))):
            ends = [end // int(value) for end in reach(a, lengths) or ()]
            return (ends[0], ends[1]) if ends else None
        case Call("add" | "sub" as fn, (a, b)):
            first, second = reach(a, lengths), reach(b, lengths)
            if first is None or second is None or _indices(a) & _indices(b):
                return None
            low, high = second if fn == "add" else (-second[1], -second[0])
            return first[0] + low, first[1] + high
    return None


def _indices(scalar: Scalar) -> set[str]:
    return {part.name for part in walk(scalar) if isinstance(part, Index)}
