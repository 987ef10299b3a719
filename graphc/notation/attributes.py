"""What kind of thing each attribute of an op is, for texts: there anything can stand in any place.

An op checks what its attributes say. That they are numbers, or axes, it takes for granted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.errors import ParseError
from graphc.ir import MOST_ELEMENTS, Axis, Op

__all__ = ["check_attributes"]

_WHOLE = {"dim", "start", "step", "count", "extent", "rows", "salt"}
_WHOLES = {"dims", "shape", "perm", "sizes", "counts", "strides", "dilations", "starts", "divisors"}
_NUMBER = {"rate", "eps"}
_AXIS, _AXES = {"axis"}, {"over", "axes"}
_TEXT = {"a", "b", "out", "name", "dtype"}


def check_attributes(op: Op, attributes: Mapping[str, Any]) -> None:
    """Raise `ParseError` if an attribute is not of its kind. Which ones an op has, `graphc.ir.make` checks."""
    for name, value in ((name, attributes[name]) for name in op.attributes if name in attributes):
        expected = _expected(name, value)
        if expected:
            raise ParseError(f"expected {expected} for {name}=, found {value!r}")


def _expected(name: str, value: Any) -> str:
    """What should stand there; nothing if it does."""
    if name in _WHOLE:
        return "" if _is_whole(value) else "a whole number"
    if name in _WHOLES:
        return "" if isinstance(value, tuple) and all(map(_is_whole, value)) else "a tuple of whole numbers"
    if name in _NUMBER:
        return "" if type(value) in (int, float) else "a number"
    if name in _AXIS:
        return "" if isinstance(value, Axis) else "an axis"
    if name in _AXES:
        return "" if isinstance(value, tuple) and all(isinstance(a, Axis) for a in value) else "a tuple of axes"
    if name in _TEXT:
        return "" if isinstance(value, str) else "a string"
    if name == "position":
        return "" if isinstance(value, str) or _is_whole(value) else "'first', 'last' or a whole number"
    if name == "offsets":
        return "" if isinstance(value, tuple) and all(map(_is_offset, value)) else "pairs of an axis and a whole number"
    return ""


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= MOST_ELEMENTS


def _is_offset(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Axis) and _is_whole(value[1])
