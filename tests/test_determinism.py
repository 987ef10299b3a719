"""The same graph gives the same text at every stage, whatever Python's hashes and addresses are in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = """
import hashlib, runpy, sys
import graphc as gc
from graphc.pipeline.stages import stages

filler = [object() for _ in range(int(sys.argv[2]))]  # other addresses for all that follows
made = runpy.run_path(sys.argv[1])
g = made[sys.argv[3]]()
graphs = [g] + ([gc.grad(g, "loss")] if "loss" in g.outputs else [])
target = {"triple": "x86_64-unknown-linux-gnu", "arch": "znver4"}
for graph in graphs:
    texts = [str(graph), str(stages(graph).program), gc.emit(graph, **target).llvm_ir, gc.draw(graph).dot]
    texts += [str(gc.explain(graph, **target)), gc.emit(graph, target="cuda", precision="bf16").llvm_ir]
    print(*(hashlib.sha256(text.encode()).hexdigest()[:12] for text in texts))
"""


def texts(example: str, function: str, seed: int) -> str:
    """Digests of a graph's text, Program, LLVM IR, drawing, explanation and code for a GPU, and of its gradient's."""
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "examples" / f"{example}.py"), str(1000 * seed), function]
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.parametrize(
    ("example", "function"), [("lstm", "graph"), ("stack", "graph"), ("reseg_segmentation", "segment")]
)
def test_every_process_makes_the_same_text(example: str, function: str) -> None:
    first, second = (texts(example, function, seed) for seed in (1, 2))
    assert len(first.split()) >= 6
    assert first == second
