"""Habits of numpy, PyTorch and Python that a value of a graph cannot serve: each is refused with what is written here.

A value has no numbers until a call, so there is nothing that `len`, `float` or `if` could ask. The errors are of the
kinds that Python's own protocols expect: `hasattr`, `list` and `copy` work as ever.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import numpy as np

from graphc.errors import GraphError, MissingAttributeError, ProtocolError, meant

P = ParamSpec("P")
R = TypeVar("R")

NO_ARRAY = (
    "computes arrays, not values of a graph; graphc has functions of its own, as gc.tanh and gc.sum, and operators "
    "take values"
)
_CALL = "a value has numbers in a call alone: name it by g.output, and run gc.compile(g) or gc.interpret(g, …)"
_CONSTANT = "numbers and numpy arrays are constants as they are: x + np.ones(3)"
_CAST = 'gc.cast(x, "float32")'
_GRAD = 'gc.grad(g, "loss", wrt=["x"])'
INSTEAD = {  # of a method or a function that numpy or PyTorch has, and graphc has not by that name
    **dict.fromkeys(("dot", "matmul", "mm", "bmm", "mv"), "x @ y"),
    **dict.fromkeys(("astype", "to", "type", "float", "double", "int", "long", "half"), _CAST),
    **dict.fromkeys(("item", "numpy", "tolist", "cpu", "cuda", "eval", "data"), _CALL),
    **dict.fromkeys(("array", "asarray", "tensor", "constant", "zeros", "ones", "full", "eye"), _CONSTANT),
    **dict.fromkeys(("backward", "grad", "gradients"), _GRAD),
    **dict.fromkeys(("view", "flatten", "ravel"), "x.reshape(-1)"),
    **dict.fromkeys(("permute", "swapaxes", "t"), "x.T, or gc.transpose(x, 1, 0)"),
    **dict.fromkeys(("unsqueeze", "expand_dims"), "x[None]"),
    **dict.fromkeys(("ndim", "size", "numel"), "x.shape, the event's, and x.axes"),
    **dict.fromkeys(("cumsum", "scan"), "a state: s[t] = s[t - 1] + x"),
    "squeeze": "x[0], where the dimension has length 1",
    "detach": "gc.stop_gradient(x)",
    "requires_grad": "g.param(…, trainable=True)",
    "std": "gc.sqrt(gc.var(x))",
    "norm": "gc.sqrt(gc.sum(x * x))",
    "round": "gc.floor(x + 0.5)",
    "pow": "x ** y",
    "swish": "gc.silu(x)",
    "amax": "gc.max(x)",
    "amin": "gc.min(x)",
    "concatenate": "gc.concat([x, y])",
    "cat": "gc.concat([x, y])",
}


class Symbolic:
    """What a value is not: a number, a sequence of numbers, an array."""

    __slots__ = ()

    def __bool__(self) -> NoReturn:
        raise GraphError(
            "a value has no truth value while the graph is built; use gc.where(condition, then, otherwise)"
        )

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise GraphError(f"numpy {NO_ARRAY}")

    def __len__(self) -> NoReturn:
        raise ProtocolError(
            "a value has no len; x.shape is the shape of its event, and gc.length(t) the number of points of an axis"
        )

    def __float__(self) -> NoReturn:
        raise ProtocolError(f"float and the functions of math take numbers; gc.exp(x) computes on values, and {_CALL}")

    def __int__(self) -> NoReturn:
        raise ProtocolError(f'int takes numbers; gc.cast(x, "int32") computes on values, and {_CALL}')

    def __index__(self) -> NoReturn:
        raise ProtocolError(
            "a value is no index of a list or an array; gc.embedding(table, x) is the row of a table that it names"
        )

    if not TYPE_CHECKING:  # else every attribute would have a type

        def __getattr__(self, name: str) -> NoReturn:
            kind = type(self).__name__
            if name.startswith("_"):  # a question of Python's, a notebook's or a library's, not of the user's
                raise AttributeError(f"{kind!r} object has no attribute {name!r}")
            known = [*dir(type(self)), *dir(sys.modules["graphc"])]
            raise MissingAttributeError(f"a {kind.lower()} has no attribute {name!r}{_advice(name, known)}")


def missing_function(name: str) -> str:
    """The message about a function that graphc has not."""
    public = sys.modules["graphc"]
    return f"module 'graphc' has no attribute {name!r}{_advice(name, dir(public))}"


def _advice(name: str, known: list[str]) -> str:
    """What to write instead, and if nothing is known, which name is like it."""
    if name in INSTEAD:
        return f"; write {INSTEAD[name]}"
    function = getattr(sys.modules["graphc"], name, None) if name in dir(sys.modules["graphc"]) else None
    if inspect.isfunction(function):
        return f"; write gc.{name}(x, …)"
    return meant(name, [other for other in known if not other.startswith("_")])


def by_dim(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose dimensions are called `dim`, which tells so when they are called `axis`, as numpy does."""

    @functools.wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> R:
        if "axis" in options:
            over = ", and axes, such as time, by over=t" if "over" in inspect.signature(function).parameters else ""
            raise ProtocolError(f"gc.{function.__name__} takes no axis=; dimensions of the event go by dim=0{over}")
        return function(*args, **options)

    return checked
