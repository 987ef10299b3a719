"""PTX as NVIDIA's assembler sees it: it takes every kernel, for every architecture, and none spills."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.codegen.cuda.isa.arch import ARCHS
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.mma_geometry import MmaGeometry
from graphc.codegen.cuda.ptx import CudaCode
from graphc.codegen.target import Precision
from graphc.errors import UnsupportedError
from tests import test_ops
from tests.cuda_emulated import EmulatedDevice, recurrent
from tests.ptx import ptxas

needs_ptxas = pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on the PATH")


@needs_ptxas
def test_all_ops_assemble() -> None:
    """Every op and its derivative, in one module for each dtype that they are defined for."""
    for name in test_ops.NAMES:
        g = test_ops.graph_of(name)
        if test_ops.differentiable(name):
            g = gc.vjp(g, "value", test_ops.moved(g))
        ptxas.assemble(gc.emit(g, target="cuda").ptx)


@needs_ptxas
@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_every_architecture_assembles(arch: str) -> None:
    found = ptxas.assemble(gc.emit(recurrent("elman", 8), target="cuda", arch=arch).ptx, arch)
    assert any("_cluster" in name for name in found) == (ARCHS[arch].cluster > 1)


@needs_ptxas
@pytest.mark.parametrize(
    ("cell", "units", "precision"),
    [
        ("elman", 64, "float32"),
        ("lstm", 256, "float32"),
        ("gru", 256, "float32"),
        ("slstm", 128, "float32"),
        ("mlstm", 64, "float32"),
        ("lstm", 64, "bf16"),
        ("lstm", 512, "bf16"),
        ("gru", 128, "f16"),
        ("gru", 512, "bf16"),
        ("slstm", 256, "bf16"),
        ("mgu", 192, "bf16"),
    ],
)
def test_persistent_kernels_do_not_spill(cell: str, units: int, precision: Precision) -> None:
    check_loops(gc.emit(recurrent(cell, units, 64), target="cuda", precision=precision))


@needs_ptxas
def test_sweeps_over_images_do_not_spill() -> None:
    """One of the image model's recurrent layers, as large as there."""
    g = gc.Graph("sweeps")
    n = g.axis("n")
    image = g.input("image", (128, 4, 4), over=n)
    swept = gc.cells.spatial_rnn(g, image, units=256, size=2, cell=gc.cells.gru).image
    g.output("loss", gc.mean(gc.mean(swept * swept), over=n))
    check_loops(gc.emit(gc.grad(g, "loss"), target="cuda", precision="bf16"))


@needs_ptxas
def test_chunks_assemble() -> None:
    for cell, precision in (("lstm", "float32"), ("gru", "bf16")):
        g = recurrent(cell, 128, 64)
        f = gc.compile(g, target="cuda", device=EmulatedDevice(), precision=precision, memory="64 MiB")  # type: ignore[call-overload]
        assert any(unit.around for unit in f.code.units)
        check_loops(f.code)


# Bytes that NVIDIA's assembler may spill where weights are loaded of which registers can hold only a part. In its
# machine code these spills are before the loop, and read again there.
_BEFORE_THE_LOOP = 64


def check_loops(code: CudaCode) -> None:
    used = ptxas.assemble(code.ptx)
    loops = [unit for unit in code.units if isinstance(unit, LoopUnit)]
    assert loops
    for unit in loops:
        for version in unit.versions:
            filled = any(isinstance(g, MmaGeometry) and g.spilled for g in version.geometries.values())
            most = _BEFORE_THE_LOOP if filled else 0
            assert used[code.function(unit.symbol_of(version))].spills <= most, unit.symbol_of(version)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="sm_80"):
        gc.emit(recurrent("elman", 8), target="cuda", arch="sm_20")
