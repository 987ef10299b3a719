"""The command line, as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.compile import STAGES

ROOT = Path(__file__).parent.parent
LSTM = str(ROOT / "examples" / "lstm.py")

CELL = """
import graphc as gc

def graph():
    g = gc.Graph("cell")
    t, n = g.axis("t"), g.axis("n")
    x, y = g.input("x", (2,), over=(t, n)), g.input("y", (), over=n)
    h = g.state("h", (3,), over=(t, n))
    h[t] = gc.tanh(g.param("U", (3, 2)) @ x + g.param("W", (3, 3)) @ h[t - 1])
    g.output("loss", gc.mean(gc.square(gc.sum(h[t.last]) - y), over=n))
    return g
"""


def graphc(*arguments: str, cwd: Path, status: int = 0) -> str:
    """Run the command; what it printed, on either stream."""
    done = subprocess.run(
        [sys.executable, "-m", "graphc", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    path = tmp_path / "cell.py"
    path.write_text(CELL, encoding="utf-8")
    return path


def test_draw(tmp_path: Path) -> None:
    graphc("draw", LSTM, "--unroll", "t=3", "-o", "lstm.svg", cwd=tmp_path)
    svg = (tmp_path / "lstm.svg").read_text(encoding="utf-8")
    assert svg.lstrip().startswith("<")
    assert "t = 2" in svg
    assert "t = 3" not in svg


def test_draw_the_gradient_beside_the_file(cell: Path) -> None:
    assert "cell.svg" in graphc("draw", str(cell), "--grad", "loss", cwd=cell.parent)
    assert "adjoint" in (cell.parent / "cell.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("stage", "shows"),
    [
        ("graph", "h[t] = tanh(U @ x + W @ h[t - 1])"),
        ("grad", "output grad_W ="),
        ("schedule", "loop t up"),
        ("program", "kernel h("),
        ("llvm", "define"),
        ("asm", ".text"),
    ],
)
def test_show(cell: Path, stage: str, shows: str) -> None:
    assert stage in STAGES
    assert shows in graphc("show", str(cell), "--emit", stage, cwd=cell.parent)


def test_check(cell: Path) -> None:
    printed = graphc("check", str(cell), cwd=cell.parent)
    assert "compiled" in printed
    assert "U" in printed


def test_check_finds_a_wrong_gradient(cell: Path) -> None:
    wrong = CELL.replace("def graph", "@gc.custom_gradient\ndef twice(v):\n    return v * 2, lambda d: d\n\ndef graph")
    cell.write_text(wrong.replace("gc.square(", "twice("), encoding="utf-8")
    assert "loss" in graphc("check", str(cell), cwd=cell.parent, status=1)


def test_train_on_an_archive_and_resume(cell: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(cell.parent / "data.npz", x=rng.normal(size=(4, 20, 2)).astype("f"), y=rng.normal(size=20).astype("f"))
    arguments = ("train", str(cell), "--data", "data.npz", "--batch-size", "8", "-o", "state.safetensors")
    assert "epoch 2/2" in graphc(*arguments, "--epochs", "2", cwd=cell.parent)
    later = graphc(*arguments, "--epochs", "3", cwd=cell.parent)
    assert "epoch 3/3" in later
    assert "epoch 1/3" not in later


def test_train_on_the_files_own_data(tmp_path: Path) -> None:
    assert "epoch 1/1  loss" in graphc("train", LSTM, "--epochs", "1", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "missing.py"), "there is no file missing.py"),
        (("show", "cell.py", "--emit", "soup"), "no stage 'soup'"),
        (("draw", "cell.py", "--unroll", "t"), "AXIS=STEPS"),
        (("draw", "cell.py", "--unroll", "z=3"), "'z'"),
        (("show", "cell.py", "--function", "nothing"), "no function 'nothing'"),
        (("train", "cell.py"), "no function data(seed)"),
        (("train", "cell.py", "--data", "vowels"), "lengths"),
        (("train", "cell.py", "--data", "soup"), "not 'soup'"),
        (("train", "cell.py", "--data", "missing.npz"), "missing.npz"),
        (("train", "cell.py", "--optimizer", "soup"), "no optimizer 'soup'"),
    ],
)
def test_mistakes_are_explained(cell: Path, arguments: tuple[str, ...], message: str) -> None:
    if message == "lengths":  # a graph whose inputs the data set does not have
        cell.write_text(CELL.replace('"x"', '"frames"'), encoding="utf-8")
        message = "no array for input frames"
    printed = graphc(*arguments, cwd=cell.parent, status=1)
    assert message in " ".join(printed.split())
    assert "site-packages" not in printed


def test_a_mistake_in_the_file_names_its_line(cell: Path) -> None:
    cell.write_text(CELL.replace("h[t - 1]", "h[t]"), encoding="utf-8")
    printed = " ".join(graphc("show", str(cell), "--emit", "program", cwd=cell.parent, status=1).split())
    assert "cell.py:8" in printed.replace(" ", "")
    assert "no delay" in printed


def test_help_names_every_command(tmp_path: Path) -> None:
    printed = graphc("--help", cwd=tmp_path)
    for command in ("demo", "draw", "show", "check", "train"):
        assert command in printed
        assert "Example:" in graphc(command, "--help", cwd=tmp_path)
