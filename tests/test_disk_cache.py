"""Code that earlier processes made: taken only if it is what was asked for, whole, and nobody else's."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import disk_cache
from graphc.codegen.cpu.jit import Emitted
from graphc.codegen.disk_cache import VARIABLE, code

ROOT = Path(__file__).parent.parent
CONTENT = bytes(range(256)) * 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where entries are, of this test alone."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """What makes an entry, and counts how often."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content, self.times = content, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.content


def only(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def recurrence() -> gc.Graph:
    g = gc.Graph("kept")
    t = g.axis("t")
    h = g.state("h", (3,), over=t)
    h[t] = gc.tanh(g.param("W", (3, 3)) @ h[t - 1] + g.input("x", (3,), over=t))
    g.output("h", h)
    return g


def test_what_was_made_is_not_made_again(folder: Path) -> None:
    make = Maker()
    assert [code(("a",), make) for _ in range(3)] == [CONTENT] * 3
    assert make.times == 1
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("other", [("ab",), ("a",), ("", "ab"), ("a", "b", ""), ("b", "a")])
def test_every_part_counts(folder: Path, other: tuple[str, ...]) -> None:
    code(("a", "b"), Maker())
    assert code(other, Maker(b"other")) == b"other"


def test_so_does_the_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code(("a",), Maker())
    monkeypatch.setattr(disk_cache, "_version", lambda: "another")
    assert code(("a",), Maker(b"other")) == b"other"


def test_source_that_was_changed_since_it_was_imported_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is the source as it was."""
    assert disk_cache._version.__wrapped__() is not None
    changed = (ROOT / "codegen" / "disk_cache.py").stat()
    monkeypatch.setattr(disk_cache, "_STARTED", max(changed.st_mtime_ns, changed.st_ctime_ns) - 1)
    assert disk_cache._version.__wrapped__() is None


def test_the_version_is_of_all_that_code_is_made_by() -> None:
    """The back ends import no other module that could change what they make."""
    imported = set()
    for path in (ROOT / "codegen").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("graphc"):
                imported.add(str(node.module))
    outside = {module for module in imported if not module.startswith("graphc.codegen")}
    assert outside <= {"graphc", "graphc.errors", "graphc.machine", "graphc.scalar"}


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "short": lambda data: data[:20],
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "zeros": lambda data: bytes(len(data)),
    "no digest": lambda data: data[32:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew(folder: Path, damage: str) -> None:
    make = Maker()
    code(("a",), make)
    path = only(folder)
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert code(("a",), make) == CONTENT
    assert make.times == 2
    assert only(folder).read_bytes() == whole


def test_an_entry_under_the_name_of_another_is_none(folder: Path) -> None:
    code(("a",), Maker(b"of a"))
    first = only(folder)
    code(("b",), Maker(b"of b"))
    (second,) = (path for path in folder.iterdir() if path != first)
    first.replace(second)
    assert code(("b",), Maker(b"of b")) == b"of b"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such bits")
class TestOthers:
    """Nothing is taken that another user could have written."""

    def test_in_the_folder(self, folder: Path) -> None:
        code(("a",), Maker())
        folder.chmod(0o770)
        make = Maker()
        code(("a",), make)
        assert make.times == 1

    def test_in_the_file(self, folder: Path) -> None:
        code(("a",), Maker())
        only(folder).chmod(0o622)
        make = Maker()
        code(("a",), make)
        assert make.times == 1
        assert only(folder).stat().st_mode & 0o777 == 0o600

    def test_of_another_owner(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        code(("a",), Maker())
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        make = Maker()
        code(("a",), make)
        assert make.times == 1

    def test_behind_a_link(self, folder: Path, tmp_path: Path) -> None:
        code(("a",), Maker())
        path = only(folder)
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        make = Maker()
        code(("a",), make)
        assert make.times == 1
        assert not path.is_symlink()


def test_where_no_folder_can_be_code_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.write_text("a file")
    make = Maker()
    assert code(("a",), make) == code(("a",), make) == CONTENT
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(disk_cache, "_usual_folder", lambda: Path("~no such user").expanduser())
    assert code(("a",), make) == CONTENT
    assert make.times == 3


def test_a_full_disk_is_no_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert code(("a",), Maker()) == CONTENT
    assert list(folder.iterdir()) == []


def test_set_to_nothing_no_code_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(disk_cache, "_usual_folder", lambda: tmp_path / "usual")
    make = Maker()
    code(("a",), make)
    code(("a",), make)
    assert make.times == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="its folder is another")
def test_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE)
    for stated, expected in (("", ".cache"), ("relative", ".cache"), (str(tmp_path / "own"), "own")):
        monkeypatch.setenv("XDG_CACHE_HOME", stated)
        code((stated,), Maker())
        assert (tmp_path / expected / "graphc").is_dir()


def test_what_was_used_last_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "MOST", 5 * len(CONTENT))
    monkeypatch.setattr(disk_cache, "KEPT", 3 * len(CONTENT))
    folder.mkdir(mode=0o700)
    (folder / "mine.txt").write_bytes(CONTENT * 9)
    makers = {name: Maker() for name in "abcde"}
    for age, name in enumerate("abcd"):
        before = set(folder.iterdir())
        code((name,), makers[name])
        (path,) = set(folder.iterdir()) - before
        os.utime(path, (1000 + age, 1000 + age))
    code(("a",), makers["a"])
    code(("e",), makers["e"])  # one too many
    assert (folder / "mine.txt").exists()
    for name in "ae":
        code((name,), makers[name])
    assert {name: made.times for name, made in makers.items()} == dict.fromkeys("abcde", 1)
    code(("b",), makers["b"])
    assert makers["b"].times == 2


SCRIPT = """
import sys
import numpy as np
import graphc as gc
from graphc.codegen.cpu import jit
from graphc.codegen.cuda import ptx
from tests.test_disk_cache import recurrence

def never(*_):
    raise AssertionError("made again")

if sys.argv[1] == "again":
    jit.llvm_ir = ptx._compiled = never
f = gc.compile(recurrence())
print(f(x=np.ones((4, 3), np.float32), W=np.eye(3, dtype=np.float32))["h"].tobytes().hex())
print(hash(gc.emit(recurrence(), target="cuda").ptx))
"""


def test_another_process_takes_the_code(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    first, again = (
        subprocess.run(
            [sys.executable, "-c", SCRIPT, which],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout
        for which in ("first", "again")
    )
    assert first == again
    assert len(first.split()) == 2


def test_code_of_one_dtype_is_not_taken_for_another(folder: Path) -> None:
    """The text of these two programs, in which a constant is a number without its dtype, is the same."""
    from graphc.codegen.cpu.jit import load
    from graphc.pipeline.stages import stages

    def counted(dtype: str) -> gc.Graph:
        g = gc.Graph("counted", dtype=dtype)
        t = g.axis("t")
        large = g.input("x", (), over=t, dtype="int32") > 0
        g.output("count", gc.cast(gc.sum(gc.where(large, 1.0, 0.0), over=t), "int32"))
        return g

    programs = [stages(counted(dtype), "float32").program for dtype in ("float64", "float32")]
    assert str(programs[0]) == str(programs[1])
    for made in map(load, programs):
        assert "emitted" in vars(made)
    assert len(list(folder.iterdir())) == 2


def test_code_that_was_kept_is_the_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked from a file; its text is made when it is asked for."""
    from graphc.codegen.cpu.jit import load
    from graphc.pipeline.stages import stages

    program = stages(recurrence(), "float32").program
    made, kept = load(program), load(program)
    assert "emitted" in vars(made)
    assert "emitted" not in vars(kept)
    assert kept.partition == made.partition
    assert isinstance(kept.emitted, Emitted)
    assert kept.emitted.llvm_ir == made.emitted.llvm_ir
    assert only(folder).read_bytes()[32:] == kept.emitted.object
    f = gc.compile(recurrence())
    arrays = {"x": np.ones((4, 3), np.float32), "W": np.eye(3, dtype=np.float32)}
    np.testing.assert_allclose(f(**arrays)["h"], gc.interpret(recurrence(), **arrays)["h"], rtol=1e-5)
