"""Laying out DOT text as SVG, by the embedded Graphviz or by the system's.

The package graphviz-pure brings one program of that name, so drawings need nothing that pip does not install. The
program reads standard input, writes standard output, and runs without a shell.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from graphc.errors import ArgumentError, UnsupportedError

EMBEDDED = "graphviz-pure"
TIMEOUT = 120.0  # seconds


def svg(source: str, engine: str = EMBEDDED, timeout: float = TIMEOUT) -> str:
    """The drawing as an SVG element. `engine` is "graphviz-pure" or "dot", the system's.

    Raises `UnsupportedError` where the program is missing, fails or takes longer than `timeout` seconds.
    """
    command = [program(engine), "-Tsvg"]
    try:
        done = subprocess.run(command, input=source.encode(), capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise UnsupportedError(
            f"{engine} took longer than {timeout:g} s to lay out a drawing; save it as .dot"
        ) from None
    except OSError as error:
        raise UnsupportedError(f"{command[0]} cannot be run: {error}") from None
    text = done.stdout.decode("utf-8", errors="replace")
    start = text.find("<svg")
    if done.returncode or start < 0:
        reason = done.stderr.decode("utf-8", errors="replace").strip()[-500:]
        raise UnsupportedError(f"{engine} failed with status {done.returncode}: {reason or 'it wrote no drawing'}")
    return text[start:]


def check_engine(engine: str) -> None:
    """Raise `ArgumentError` for a layout engine that there is not."""
    if engine not in (EMBEDDED, "dot"):
        hint = f"; to write it to a file: gc.draw(g).save({str(engine)!r})" if Path(str(engine)).suffix else ""
        raise ArgumentError(f"engine= is {EMBEDDED!r} or 'dot' (the system's Graphviz), got {engine!r}{hint}")


def program(engine: str = EMBEDDED) -> str:
    """The path of a layout engine's program."""
    check_engine(engine)
    found = _embedded() if engine == EMBEDDED else shutil.which("dot")
    if found is None:
        wanted = "pip install graphviz-pure" if engine == EMBEDDED else f"install Graphviz, or use engine={EMBEDDED!r}"
        raise UnsupportedError(f"drawing needs the program {engine}, which is not here: {wanted}")
    return found


def _embedded() -> str | None:
    """Where pip put the program: beside this Python's other programs."""
    try:
        files = metadata.files(EMBEDDED) or []
    except metadata.PackageNotFoundError:
        files = []
    installed = [Path(str(f.locate())) for f in files if f.stem == EMBEDDED]
    beside = [Path(sys.executable).parent / name for name in (EMBEDDED, f"{EMBEDDED}.exe")]
    return next((str(p) for p in [*installed, *beside] if p.is_file()), shutil.which(EMBEDDED))
