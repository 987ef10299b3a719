"""The list of all public functions, as docs/functions.md has it: their signatures and the first sentence of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

import graphc as gc
from graphc.compiling.compile import Compiled
from graphc.compiling.cuda_compile import CompiledCuda

TITLE = "# Every function"
INTRODUCTION = """\
Written from the code's own words by `make golden`; `help(gc.softmax)` says all of it. Values take operators as numpy's
arrays do (`+ - * / // % ** @`, comparisons, `& | ~` on bools), slices of their events (`v[0:8]`), and points of axes
(`h[t - 1]`, `h[t.last]`). Reductions take `over=` axes or `dim=` event dimensions.

| a value | is |
|---|---|
| `x[t - 1]`, `x[t + 2]` | x so many steps earlier or later; where no such point is, 0, or a state's initial value |
| `x.shift(t, -1, fill)` | the same with `fill` where no such point is; if none is given 0, for a state, too |
| `x[t.first]`, `x[t.last]`, `x[t.at(3)]` | x at one point, whatever the current one; the last of each example's own |
| `x[t.at(p)]` | x at the point that p, an int32 value, says |
| `k[s]`, where `s = g.axis("s", t)` | k at another point of its own axis: each meets all, `gc.sum(q * k[s])` |
| `v[0]`, `v[2:5]`, `A[:, None]`, `a, b = v` | parts of the event, as numpy's |
| `v[[2, 0, 1]]`, `A[:, order]` | the elements at fixed positions, named by ints in a list or an array, or by bools |
| `A.T`, `v.reshape(2, -1)`, `A @ v` | its transpose, its elements in another shape, a product |
| `gc.index(t)`, `gc.length(t)` | the position, counted from 0, and the number of points: int32 |
| `k ** 2`, `k // 2`, `k / 2` of an int32 | int32, int32, a float |
| `2 ** k`, `k ** -1` of an int32 | a float, as k may be negative |
| `1 - flag` of a bool | int32 |

`t` itself is no number: compare `gc.index(t)`. `x.shape`, `x.dtype` and `x.axes` are known while the graph is built."""

# In the order of the page: a heading, and what it is about: names of graphc's, or a module whose all it is.
SECTIONS: tuple[tuple[str, tuple[str, ...] | ModuleType], ...] = (
    ("Graphs", ("Graph", "verify", "parse", "select", "step", "initial_carry", "unroll", "inference")),
    ("Derivatives", ("grad", "vjp", "jvp", "gradient", "stop_gradient", "custom_gradient")),
    ("Running", ("compile", "interpret", "emit", "export", "explain", "draw", "initialize")),
    ("Training", ("training_step", "fit", "save", "load")),
    ("Optimisers", gc.optim),
    ("Cells", gc.cells),
    ("Layers with params of their own", gc.layers),
)
METHODS = {
    "What a graph does": gc.Graph,
    "What compiled code does": Compiled,
    "What code compiled for a GPU does besides": CompiledCuda,
    "What an exported function does": gc.Exported,
    "What a drawing does": gc.Drawing,
}
INSIDE = {"remember"}  # public for other modules' sake
REST = "Functions of values"
ERRORS = """\
Each is a `gc.GraphError`, but for the last. A file that cannot be written is an `OSError`, as Python's own; one that
cannot be read, or is damaged, is an `ArgumentError`."""


def page() -> str:
    """The whole page."""
    lines = [TITLE, "", INTRODUCTION]
    told: set[str] = set()
    for heading, what in SECTIONS:
        module = what if isinstance(what, ModuleType) else gc
        names = tuple(_public(what)) if isinstance(what, ModuleType) else what
        told |= set(names) if module is gc else set()
        lines += ["", f"## {heading}", "", *_entries(module, [name for name in names if hasattr(module, name)])]
    for heading, whole in METHODS.items():
        known = Compiled if whole is CompiledCuda else object
        lines += ["", f"## {heading}", "", *_methods(whole, known)]
    functions = [n for n in gc.__all__ if n not in told and inspect.isfunction(getattr(gc, n))]
    lines += ["", f"## {REST}", "", *_entries(gc, sorted(functions))]
    lines += ["", "## Errors", "", ERRORS, "", *_errors()]
    return "\n".join(lines) + "\n"


def _errors() -> Iterator[str]:
    """The exceptions: the base of all, its kinds, and the one that is none of them."""
    found = [getattr(gc.errors, name) for name in gc.errors.__all__]
    for error in sorted(found, key=lambda e: (e is not gc.GraphError, not issubclass(e, gc.GraphError))):
        kinds = " and ".join(base.__name__ for base in error.__bases__ if base is not gc.GraphError)
        yield f"- `gc.errors.{error.__name__}`{kinds and f', also {kinds}'}: {_sentence(error)}"


def _public(module: ModuleType) -> Iterator[str]:
    for name in getattr(module, "__all__", None) or sorted(vars(module)):
        thing = getattr(module, name)
        own = getattr(thing, "__module__", "").startswith(module.__name__)
        made = inspect.isfunction(thing) or (module is gc.optim and is_dataclass(thing))
        if own and made and not name.startswith("_"):
            yield name


def _entries(module: ModuleType, names: list[str]) -> Iterator[str]:
    prefix = "gc" if module is gc else f"gc.{module.__name__.removeprefix('graphc.')}"
    for name in names:
        thing = getattr(module, name)
        yield f"- `{prefix}.{name}{signature(thing)}`: {_sentence(thing)}"


def _methods(whole: type, known: type) -> Iterator[str]:
    """Of a class, its methods and properties; but for those of another class that take the same."""
    for name, thing in vars(whole).items():
        if name.startswith("_") or name in INSIDE or not inspect.getdoc(thing):
            continue
        other = getattr(known, name, None)
        if other is not None and not (inspect.isfunction(thing) and signature(thing) != signature(other)):
            continue
        if inspect.isfunction(thing):
            yield f"- `.{name}{signature(thing)}`: {_sentence(thing)}"
        elif isinstance(thing, property):
            yield f"- `.{name}`: {_sentence(thing)}"


def signature(thing: Any) -> str:
    """The names of what it takes, and their defaults, without types; before a slash, what is given without its name."""
    taken: list[str] = []
    slash = False  # whether one is due
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.name == "self" or str(parameter.default) == "<factory>":
            continue
        if slash and parameter.kind is not parameter.POSITIONAL_ONLY:
            taken.append("/")
        slash = parameter.kind is parameter.POSITIONAL_ONLY
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_plain(parameter.default)}"
        taken.append(f"{star}{parameter.name}{default}")
    return f"({', '.join(taken)})"


def _plain(default: Any) -> str:
    return getattr(default, "__name__", None) or repr(default)


def _sentence(thing: Any) -> str:
    """The first of its documentation."""
    text = re.sub(r"\s+", " ", (inspect.getdoc(thing) or "").split("\n\n")[0])
    return re.split(r"(?<=[.])\s+(?=[A-Z`(])", text)[0].rstrip(".:")
