"""Constants as text and back, bit for bit.

A number that has the dtype that Python would give it stands alone: `2.0` (the graph's default dtype), `2` (int32),
`True`. Everything else is a call, where `dtype` is left out if it is that same one:

    const(2.0, dtype="float64")           another dtype
    const([[1.0, -0.0], [inf, nan]])      an array
    const(0.5, shape=(8, 8))              an array of equal elements
    const(range(6), shape=(2, 3))         0, 1, 2, …
    const("0100c07f", dtype="float32")    the bytes in hexadecimal: a NaN that is not the usual one, or a large array
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.errors import ParseError
from graphc.ir import FLOATING, Node, check_dtype, check_shape, size
from graphc.ops.leaves import array_of, const

LONGEST_LIST = 4096  # elements that are written in decimal: more are read by programs only, and faster in bytes
MAX_ELEMENTS = 1 << 26  # of one array that a text describes by its shape: a short text cannot fill the memory
MAX_DESCRIBED = 1 << 28  # of all of them
_SPECIAL = {"inf": math.inf, "nan": math.nan}


def print_constant(node: Node, default: str, *, explicit: bool = False) -> str:
    """The text of a constant in a graph whose default dtype is `default`; `explicit` asks for the call form."""
    array = array_of(node)
    if node.shape == () and not explicit and node.dtype == _natural_dtype(array, default):
        number = _element(array[()])
        if number is not None and number.lstrip("-") not in _SPECIAL:
            return number
    value, shape = _describe(array)
    arguments = [value]
    if shape is not None:
        arguments.append(f"shape={shape}")
    if value.startswith('"') or node.dtype != _natural_dtype(array, default):
        arguments.append(f'dtype="{node.dtype}"')
    return f"const({', '.join(arguments)})"


def _natural_dtype(array: np.ndarray, default: str) -> str:
    return default if array.dtype.name in FLOATING else array.dtype.name


def _describe(array: np.ndarray) -> tuple[str, tuple[int, ...] | None]:
    """A constant's first argument, and its shape where the argument does not tell it."""
    data = array.tobytes()
    if array.ndim and array.size > 1:
        if data == array.reshape(-1)[:1].tobytes() * array.size:
            element = _element(array.reshape(-1)[0])
            if element is not None:
                return element, array.shape
        if array.dtype == np.int32 and np.array_equal(array.reshape(-1), np.arange(array.size)):
            return f"range({array.size})", array.shape if array.ndim > 1 else None
    text = _nested(array) if array.size <= LONGEST_LIST else None
    return (text, None) if text is not None else (f'"{data.hex()}"', array.shape)


def _nested(array: np.ndarray) -> str | None:
    """An array as nested lists; None where an element has no text that reads back as the same bytes."""
    if array.ndim == 0:
        return _element(array[()])
    parts = [_nested(part) for part in array] if array.ndim > 1 else [_element(x) for x in array]
    if None in parts:
        return None
    return f"[{', '.join(p for p in parts if p is not None)}]"


def _element(x: Any) -> str | None:
    """The shortest text that reads back as this number."""
    if x.dtype.name not in FLOATING:
        return str(x.item())
    for text in (str(x), repr(float(x))):  # the shorter one could be rounded twice on its way back
        if x.dtype.type(float(text)).tobytes() == x.tobytes():
            return text
    return None


def read_number(value: bool | int | float, default: str) -> Node:
    """The constant that a bare Python number stands for."""
    dtype = "bool" if isinstance(value, bool) else "int32" if isinstance(value, int) else default
    return const(_array(value, dtype), dtype)


def read_constant(value: ast.expr, attributes: Mapping[str, Any], default: str) -> Node:
    """The constant that `const(value, **attributes)` stands for."""
    unknown = set(attributes) - {"dtype", "shape"}
    if unknown:
        raise ParseError(f"const takes shape= and dtype=, not {', '.join(sorted(unknown))}=")
    shape = attributes.get("shape")
    if shape is not None and size(check_shape(shape)) > MAX_ELEMENTS:
        raise ParseError(f"a constant of shape {shape} has more than {MAX_ELEMENTS} elements")
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return _from_bytes(value.value, attributes)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
        return _from_range(value, attributes)
    items = read_items(value)
    dtype = check_dtype(attributes.get("dtype", _kind(items, default)))
    array = _array(items, dtype)
    return const(array if shape is None else np.broadcast_to(array, shape), dtype)


def _from_bytes(text: str, attributes: Mapping[str, Any]) -> Node:
    if set(attributes) - {"shape"} != {"dtype"}:
        raise ParseError("a constant given by its bytes names its dtype=")
    dtype = check_dtype(attributes["dtype"])
    array = np.frombuffer(bytes.fromhex(text), np.dtype(dtype))
    if dtype == "bool" and (array.view(np.uint8) > 1).any():
        raise ParseError("the bytes of a bool constant are 00 and 01")
    return const(array.reshape(attributes.get("shape", ())), dtype)


def _from_range(call: ast.Call, attributes: Mapping[str, Any]) -> Node:
    match call.args:
        case [ast.Constant(value=int(stop))] if not call.keywords and 1 <= stop <= MAX_ELEMENTS:
            array = np.arange(stop, dtype=np.int32)
            return const(array.reshape(attributes.get("shape", array.shape)), attributes.get("dtype", "int32"))
    raise ParseError(f"expected range(n) with n from 1 to {MAX_ELEMENTS}")


def read_items(tree: ast.expr, depth: int = 0) -> Any:
    """The number or the nested list of numbers that a syntax tree writes down."""
    match tree:
        case ast.Constant(value=bool() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name(id="inf" | "nan" as name):
            return _SPECIAL[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf" | "nan" as name)):
            return -_SPECIAL[name]
        case ast.List(elts=elements) if depth < 32:
            return [read_items(e, depth + 1) for e in elements]
    raise ParseError("a constant is made of numbers, inf, nan and lists of them")


def _kind(items: Any, default: str) -> str:
    """The dtype of items that do not name theirs."""
    kind = np.asarray(items).dtype.kind
    return {"b": "bool", "f": default}.get(kind, "int32")


def _array(items: Any, dtype: str) -> np.ndarray:
    """The items in a dtype that holds them; an error where one is out of its range."""
    array = np.asarray(items)
    kinds = {"bool": "b", "int32": "i"}.get(dtype, "iuf")
    if array.dtype.kind not in kinds and array.size:
        raise ParseError(f"a constant of dtype {dtype} cannot hold {str(items)[:40]}")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    if dtype in FLOATING:
        fits = bool((np.isfinite(result) == np.isfinite(array)).all())
    else:
        fits = bool((result == array).all())
    if not fits:
        raise ParseError(f"a number is too large for dtype {dtype}: {str(items)[:40]}")
    return result
