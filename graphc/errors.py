"""Errors. Each names the user's line, what was found, what was expected, and a way out."""

from __future__ import annotations

import difflib
import linecache
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

__all__ = [
    "ArgumentError",
    "AxisError",
    "CausalityError",
    "DefinitionError",
    "DivergenceError",
    "DtypeError",
    "GraphError",
    "InternalError",
    "MissingAttributeError",
    "ParseError",
    "ProtocolError",
    "ShapeError",
    "UnsupportedError",
]

_HERE = Path(__file__).parent
_PACKAGES = tuple(
    f"{folder.resolve()}/" for folder in (_HERE, _HERE / "../ops", _HERE / "../codegen", Path(np.__file__).parent)
)
_CALLERS = ("torch", "jax")  # packages that, where they are loaded, call graphc on the user's behalf


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's program."""

    file: str
    line: int

    def __str__(self) -> str:
        source = linecache.getline(self.file, self.line).strip()
        return f"{self.file}:{self.line}" + (f"\n    {source}" if source else "")


def user_location() -> Location | None:
    """The innermost line on the call stack that is neither graphc's own nor numpy's, PyTorch's or JAX's."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        generated = file == "<string>" and frame.f_globals.get("__name__", "").startswith("graphc.")  # by dataclass
        if not (_is_own(file) or generated):
            return Location(file, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return None


_own: dict[str, bool] = {}


def _is_own(file: str) -> bool:
    known = _own.get(file)
    if known is None:
        found = (getattr(sys.modules.get(name), "__file__", None) for name in _CALLERS)
        packages = (*_PACKAGES, *(f"{Path(path).parent.resolve()}/" for path in found if path))
        known = _own[file] = file.startswith("<frozen") or str(Path(file).resolve()).startswith(packages)
    return known


class GraphError(ValueError):
    """A mistake in a graph or in a call: the base of all below. The message begins with the user's line.

    `location` is that line, if there is one, and `reason` the message without it.
    """

    def __init__(self, message: str, location: Location | None = None) -> None:
        self.location = location or user_location()
        self.reason = message
        super().__init__(f"{self.location}\n{message}" if self.location else message)


class ShapeError(GraphError):
    """Event shapes that do not fit each other."""


class DtypeError(GraphError):
    """An element type that does not fit."""


class AxisError(GraphError):
    """An axis that is unknown, missing, or has another length than expected."""


class DefinitionError(GraphError):
    """A name that is unknown or taken twice, a state never or twice defined, an option that there is not."""


class CausalityError(GraphError):
    """A cycle that passes no delay, or delays against each other."""


class ArgumentError(GraphError):
    """What a call was given, an array, an option or a file, is missing, unknown, or does not fit."""


class ParseError(GraphError):
    """A text that is not a graph."""


class DivergenceError(GraphError, ArithmeticError):
    """Training whose params are no longer finite numbers."""


class ProtocolError(GraphError, TypeError):
    """A protocol of Python, such as len() or iteration, used on something that does not support it."""


class MissingAttributeError(GraphError, AttributeError):
    """A method or a function that graphc does not have."""


class UnsupportedError(GraphError):
    """Something that graphc does not do yet."""


def no_ptx(self: object, name: str) -> NoReturn:
    """The `__getattr__` of code for a CPU."""
    if name == "ptx":
        raise MissingAttributeError(
            "code for a CPU has no .ptx: its forms are .llvm_ir, .assembly and .object; "
            'gc.emit(g, target="cuda").ptx is that of a GPU'
        )
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def no_object(self: object, name: str) -> NoReturn:
    """The `__getattr__` of code for a GPU."""
    if name in ("assembly", "object"):
        raise MissingAttributeError(
            f"code for a GPU has no .{name}: its forms are .llvm_ir and .ptx; gc.emit(g).{name} is that of a CPU"
        )
    raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def no_copy(self: object) -> NoReturn:
    """The `__reduce__` of what holds machine code: neither copied nor pickled."""
    raise UnsupportedError(
        f"a {type(self).__name__} is code in this process: pickle str(graph), and compile where it is loaded"
    )


def listed(names: Collection[str], most: int = 5) -> str:
    """Names for a message: the first few, and how many more there are."""
    shown = ", ".join(list(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


COMPLEX = "; a complex value is two, its real and its imaginary part: a product is a * c - b * d, a * d + b * c"


def meant(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The end of a message about an unknown name: the known name that it resembles most, if any."""
    by_letters = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_letters, n=1, cutoff=likeness)
    return f"; did you mean {by_letters[close[0]]!r}?" if close else ""


class InternalError(RuntimeError):
    """An invariant of the compiler does not hold: always a bug in graphc, never in the graph."""
