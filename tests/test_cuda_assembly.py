"""PTX as NVIDIA's assembler sees it: it takes every kernel, for every architecture, and none spills."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphc as gc
from graphc.codegen.cuda.arch import ARCHS
from graphc.codegen.cuda.units import LoopUnit
from graphc.errors import UnsupportedError
from tests import cuda_assembler, test_ops

needs_ptxas = pytest.mark.skipif(cuda_assembler.find() is None, reason="no ptxas on the PATH")


def elman(units: int = 8, dtype: str = "float32") -> gc.Graph:
    g = gc.Graph("elman", dtype=dtype)
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    cell = gc.cells.elman(g, x, units, over=t, name="cell")
    g.output("loss", gc.mean(gc.sum(cell.h * cell.h), over=(t, n)))
    return g


def recurrent(cell: str, units: int, inputs: int = 3) -> gc.Graph:
    """The gradient of one of the library's cells."""
    g = gc.Graph("recurrent")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    made = getattr(gc.cells, cell)(g, x, units, over=t, name="cell")
    g.output("loss", gc.mean(gc.sum(made.h * made.h), over=(t, n)))
    return gc.grad(g, "loss")


@needs_ptxas
def test_all_ops_assemble(tmp_path: Path) -> None:
    """Every op and its derivative, in one module for each dtype that they are defined for."""
    for name in test_ops.NAMES:
        g = test_ops.graph_of(name)
        if test_ops.differentiable(name):
            g = gc.vjp(g, "value", test_ops.moved(g))
        cuda_assembler.assemble(gc.emit(g, target="cuda").ptx, "sm_90", tmp_path)


@needs_ptxas
@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_every_architecture_assembles(arch: str, tmp_path: Path) -> None:
    found = cuda_assembler.assemble(gc.emit(gc.grad(elman(), "loss"), target="cuda", arch=arch).ptx, arch, tmp_path)
    assert any("_cluster" in name for name in found) == (ARCHS[arch].cluster > 1)


@needs_ptxas
@pytest.mark.parametrize(
    ("cell", "units"), [("elman", 64), ("lstm", 64), ("lstm", 256), ("gru", 256), ("slstm", 128), ("peephole_lstm", 96)]
)
def test_persistent_kernels_do_not_spill(cell: str, units: int, tmp_path: Path) -> None:
    code = gc.emit(recurrent(cell, units, 64), target="cuda")
    used = cuda_assembler.assemble(code.ptx, "sm_90", tmp_path)
    loops = [unit for unit in code.units if isinstance(unit, LoopUnit)]
    assert loops
    for unit in loops:
        for version in unit.versions:
            assert used[unit.symbol_of(version)].spilled == 0


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="sm_80"):
        gc.emit(elman(), target="cuda", arch="sm_20")
