"""Golden texts: what examples are at every stage. A change that alters code on purpose updates them; read the diff."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import graphc as gc
from graphc.compiling.emit import STAGES, emit_stage

ROOT = Path(__file__).parent.parent
CASES = [
    ("elman", "graph"),
    ("elman", "grad"),
    ("elman", "schedule"),
    ("elman", "program"),
    ("elman", "llvm"),
    ("lstm", "grad"),
    ("lstm", "program"),
    ("gru", "program"),
    ("bidirectional", "schedule"),
]


def _text(example: str, stage: str) -> str:
    graph: gc.Graph = runpy.run_path(str(ROOT / "examples" / f"{example}.py"))["graph"]()
    if stage == "llvm":  # for one machine, whichever this is
        return gc.emit(graph, triple="x86_64-unknown-linux-gnu", arch="skylake-avx512").llvm_ir
    if stage in ("schedule", "program"):
        graph = gc.grad(graph, "loss")
    return emit_stage(graph, stage)


@pytest.mark.parametrize(("example", "stage"), CASES)
def test_stage_prints_as_recorded(example: str, stage: str, update_golden: bool) -> None:
    path = ROOT / "tests" / "golden" / f"{example}.{stage}.txt"
    now = _text(example, stage).rstrip() + "\n"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
    assert now == path.read_text(encoding="utf-8"), "run `make golden` and read the difference"


def test_printing_twice_prints_the_same() -> None:
    """Texts do not depend on addresses, on hashing, or on what was printed before."""
    for stage in STAGES:
        if stage != "asm":
            assert emit_stage(_graph(), stage) == emit_stage(_graph(), stage)


def _graph() -> gc.Graph:
    graph: gc.Graph = runpy.run_path(str(ROOT / "examples" / "gru.py"))["graph"]()
    return graph
