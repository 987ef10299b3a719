"""The project's structure: every package is installed, and imports point one way."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import networkx
import pytest

import graphc
from tests.structure import drawn, picture, reduced

ROOT = Path(__file__).parent.parent

# From the ground up: folders, and modules that stand by themselves. A module imports from its own line and those above
# it, never from below.
LAYERS = (
    ("errors", "files", "machine", "integers", "recent", "scalar"),
    ("ir",),
    ("ops",),
    ("language", "notation"),  # a graph is written in Python or as text
    ("layers", "cells"),
    ("checks",),
    ("interpreter",),
    ("simplification",),
    ("differentiation",),
    ("transforms",),
    ("optim",),
    ("codegen",),  # the loop IR
    ("codegen.llvm",),
    ("codegen.tiling",),
    ("codegen.passes",),
    ("codegen.memory",),
    ("codegen.parallel",),
    ("codegen.cpu",),
    ("codegen.team",),
    ("codegen.cuda.driver",),
    ("codegen.cuda.isa",),
    ("codegen.cuda.kernel",),
    ("codegen.cuda.gemm",),
    ("codegen.cuda.loops",),
    ("codegen.cuda",),
    ("scheduling",),
    ("drawing",),
    ("runtime",),
    ("pipeline",),
    ("reporting",),
    ("checkpoint",),
    ("compiling",),
    ("training",),
    ("testing",),
    ("datasets",),
    ("jax", "torch"),
    ("",),  # what `import graphc` gives
    ("command_line", "__main__"),
)


def _sources() -> dict[str, Path]:
    """Every module of graphc, by its name below `graphc.`."""
    found = {}
    for folder, prefix in ((ROOT / "graphc", ""), (ROOT / "ops", "ops."), (ROOT / "codegen", "codegen.")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).parts
            if folder.name == "graphc" and parts[0] in ("ops", "codegen"):
                continue
            name = prefix + ".".join(parts)[: -len(".py")]
            found[name.removesuffix("__init__").removesuffix(".")] = path
    return found


def _layer(module: str) -> int:
    """The line of a module itself, or else of the innermost folder that has one."""
    name = module
    while True:
        for rank, names in enumerate(LAYERS):
            if name in names:
                return rank
        assert "." in name, f"module graphc.{module} is in no layer of tests/test_layout.py"
        name = name.rpartition(".")[0]


def _imports(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The graphc modules that a module imports when it is loaded."""
    found = set()
    for node in _run_at_import(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            base = str(node.module)
            names = [
                f"{base}.{a.name}" if f"{base}.{a.name}".removeprefix("graphc.") in known else base for a in node.names
            ]
        else:
            continue
        assert not any(n.split(".")[0] in ("ops", "codegen") for n in names), f"{path}: imports ops or codegen directly"
        found |= {n.removeprefix("graphc").removeprefix(".") for n in names if n.split(".")[0] == "graphc"}
    return found - {module}


def _run_at_import(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements that run when a module is imported: not those of functions or of type checking."""
    result: list[ast.stmt] = []
    for node in body:
        result.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            result += _run_at_import([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            result += _run_at_import([*node.body, *(s for h in node.handlers for s in h.body)])
    return result


def test_imports_point_one_way() -> None:
    sources = _sources()
    wrong = [
        f"graphc.{module} imports graphc.{other}"
        for module, path in sources.items()
        for other in _imports(module, path, sources)
        if _layer(other) > _layer(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_cycle() -> None:
    sources = _sources()
    graph = networkx.DiGraph((m, other) for m, path in sources.items() for other in _imports(m, path, sources))
    cycles = [c for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert not cycles


def _folder(module: str, sources: dict[str, Path]) -> str:
    """The folder of a module; two that are one layer are drawn as one."""
    folder = module if sources[module].name == "__init__.py" else module.rpartition(".")[0]
    return "language" if folder == "notation" else folder


def test_the_picture_shows_the_folders(request: pytest.FixtureRequest) -> None:
    sources = _sources()
    edges = reduced(
        (_folder(module, sources), _folder(other, sources))
        for module, path in sources.items()
        for other in _imports(module, path, sources)
        if _folder(module, sources) and _folder(other, sources)
    )
    path = ROOT / "docs" / "images" / "structure.svg"
    if request.config.getoption("--update-golden"):
        path.write_text(picture(edges), encoding="utf-8")
    assert drawn(path.read_text(encoding="utf-8")) == edges, "make golden draws it anew"


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = {"graphc." + m if m else "graphc" for m, p in _sources().items() if p.name == "__init__.py"}
    assert set(settings["packages"]) == packages
    assert settings["package-dir"] == {"graphc": "graphc", "graphc.ops": "ops", "graphc.codegen": "codegen"}


def test_top_level_folders() -> None:
    """Only graphc is a package of its own; ops and codegen are linked into it."""
    for name in ("ops", "codegen"):
        link = ROOT / "graphc" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_the_compiler_names_no_cell() -> None:
    """No pass, kernel or schedule knows a cell by name: no identifier has one as a part, and no text is one."""
    networks = {"bidirectional", "stack", "spatial_rnn"}  # of any cell; the last two words are those of ops, too
    conversions = ("from_", "to_")
    cells = {name for name in graphc.cells.__all__ if name.islower() and not name.startswith(conversions)} - networks
    assert {"lstm", "gru", "elman"} <= cells
    use = _layer("testing")
    for module, path in _sources().items():
        if module and not module.startswith("cells") and _layer(module) < use:
            named = [w for w in _words(path) if any(f"_{cell}_" in f"_{w.lower()}_" for cell in cells)]
            assert not named, f"{path} names a cell: {named}"


def _words(path: Path) -> set[str]:
    """The identifiers of a module, and those of its texts that are one word."""
    words: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "name", "arg", "asname", "value"):
            word = getattr(node, field, None)
            if isinstance(word, str) and word.isidentifier():
                words.add(word)
    return words


def test_completion_shows_what_is_public() -> None:
    assert set(dir(graphc)) == {*graphc.__all__, "testing", "datasets"}
    with pytest.raises(AttributeError, match="no attribute 'tahn'; did you mean 'tanh'"):
        graphc.tahn  # noqa: B018
