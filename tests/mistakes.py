"""Mistakes that a user makes, and what is said about each: a decorator registers them, `check` makes them.

Each is a function that makes one mistake, on the line that ends in `# here`; the decorator says what the error says.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable

import pytest

from graphc.errors import GraphError

Mistake = Callable[[], object]


class Mistakes(list[tuple[Mistake, type[GraphError], tuple[str, ...]]]):
    """All mistakes of a file: `@refused(kind, *says)`, where `refused = Mistakes()`."""

    def __call__(self, kind: type[GraphError], *says: str) -> Callable[[Mistake], Mistake]:
        def register(mistake: Mistake) -> Mistake:
            self.append((mistake, kind, says))
            return mistake

        return register


def check(mistake: Mistake, kind: type[GraphError], says: tuple[str, ...]) -> None:
    """The error is of the kind, says all that, and begins with the line of the mistake."""
    with pytest.raises(GraphError) as raised:
        mistake()
    error, file = raised.value, mistake.__code__.co_filename
    assert type(error) is kind
    for text in says:
        assert text in str(error), str(error)
    assert error.location is not None
    assert error.location.file == file
    line = linecache.getline(file, error.location.line)
    assert line.rstrip().endswith("# here"), line
    assert str(error).startswith(f"{file}:{error.location.line}\n    {line.strip()}\n")
