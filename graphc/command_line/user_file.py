"""The Python file that a user names on the command line: run, it gives a module, and one of its functions a graph."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from graphc.errors import ArgumentError, GraphError, InternalError
from graphc.language.graph import Graph


def load_graph(file: Path, function: str = "") -> Graph:
    return graph_of(load_module(file), function)


def load_module(file: Path) -> ModuleType:
    """Run a Python file, which may import those beside it, and return what it defines."""
    if not file.is_file():
        raise ArgumentError(f"there is no file {file}")
    file = file.absolute()
    spec = importlib.util.spec_from_file_location(f"graphc file {file.stem}", file)  # no import has such a name
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    sys.path.insert(0, str(file.parent))
    with users_code(file):
        spec.loader.exec_module(module)
    return module


@contextmanager
def users_code(file: Path) -> Iterator[None]:
    """A mistake in the user's own code becomes one line that says where in the file it showed."""
    try:
        yield
    except (GraphError, InternalError):
        raise
    except SystemExit as error:
        raise ArgumentError(
            f"{file} ended by sys.exit({error.code!r}); what is only for running it goes under "
            'if __name__ == "__main__":'
        ) from None
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        if isinstance(error, SyntaxError) and error.filename == str(file):
            lines.append(error.lineno)
        where = f"{file}:{lines[-1]}" if lines else str(file)
        raise ArgumentError(f"{where}: {type(error).__name__}: {error}") from error


def graph_of(module: ModuleType, function: str = "", **sizes: Any) -> Graph:
    """The graph that a file's function returns, called with those of the `sizes` that it has parameters for."""
    name = function or ("graph" if hasattr(module, "graph") else _only_graph_function(module))
    made = getattr(module, name, None)
    if not callable(made):
        raise ArgumentError(f"{module.__file__} has no function {name!r}")
    with users_code(Path(str(module.__file__))):
        accepted = inspect.signature(made).parameters
        graph = made(**{parameter: size for parameter, size in sizes.items() if parameter in accepted})
    if not isinstance(graph, Graph):
        raise ArgumentError(f"{name}() of {module.__file__} returned {type(graph).__name__}, expected a Graph")
    return graph


def _only_graph_function(module: ModuleType) -> str:
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and _gives_graph(value)
    ]
    if len(found) != 1:
        listed = f"several functions that return graphs ({', '.join(found)})" if found else "no function graph()"
        raise ArgumentError(f"{module.__file__} has {listed}; name one by --function")
    return found[0]


def _gives_graph(function: Callable[..., Any]) -> bool:
    signature = inspect.signature(function)
    result = signature.return_annotation
    named = result is Graph or str(result) in ("gc.Graph", "Graph", "graphc.Graph")
    return named and all(p.default is not inspect.Parameter.empty for p in signature.parameters.values())
