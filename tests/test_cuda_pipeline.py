"""The pipeline of blocked products, in the PTX emulator: any shape and layout, arguments that begin anywhere, and every
barrier needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cuda.driver.dlpack import DeviceArray
from graphc.codegen.cuda.gemm.mma_blocking import MmaBlocking
from graphc.codegen.cuda.isa.arch import ARCHS
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.target import PRECISIONS, Precision
from graphc.compiling.cuda_compile import CompiledCuda
from tests import ptx
from tests.cuda_emulated import EmulatedDevice, compiled, recurrent
from tests.ptx import PtxError, ptxas

LAYOUTS = ("mk,kn->mn", "mk,nk->mn", "km,kn->nm", "mak,kna->nm", "makb,kbn->mna")
lengths = st.integers(1, 70)


def contraction(layout: str, sizes: Mapping[str, int]) -> gc.Graph:
    """An einsum of two params."""
    g = gc.Graph("contraction")
    operands = layout.split("->")[0].split(",")
    params = [g.param(f"p{k}", tuple(sizes[c] for c in indices)) for k, indices in enumerate(operands)]
    g.output("y", gc.einsum(layout, *params))
    return g


def integers(g: gc.Graph) -> dict[str, np.ndarray]:
    """Params that all precisions hold, and whose products they add up exactly."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(-3, 4, p.node.shape).astype(np.float32) for name, p in g.params.items()}


def is_product(f: CompiledCuda) -> bool:
    return any(isinstance(unit, PointsUnit) and unit.product is not None for unit in f.code.units)


@settings(max_examples=25)
@given(st.sampled_from(LAYOUTS), lengths, lengths, lengths, st.integers(1, 4), st.sampled_from(PRECISIONS))
@example("mk,kn->mn", 64, 128, 64, 1, "bf16")
@example("mk,nk->mn", 130, 132, 100, 1, "f16")
@example("km,kn->nm", 132, 129, 35, 1, "tf32")
@example("km,kn->nm", 68, 260, 33, 1, "bf16")
@example("makb,kbn->mna", 17, 20, 9, 4, "tf32")
def test_any_shape_and_layout(layout: str, m: int, n: int, k: int, a: int, precision: Precision) -> None:
    """Small integers, so any element in a wrong place, missing or counted twice would show."""
    sizes = {"m": m, "n": n, "k": k, "a": a, "b": 3}
    g = contraction(layout, sizes)
    arrays = integers(g)
    f = compiled(g, precision=precision)
    np.testing.assert_array_equal(f(**arrays)["y"], np.einsum(layout, *arrays.values()))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_arguments_may_begin_at_any_element(precision: Precision) -> None:
    g = contraction("mk,kn->mn", {"m": 36, "n": 32, "k": 40})
    arrays = integers(g)
    device = EmulatedDevice()
    f = gc.compile(g, target="cuda", device=device, precision=precision)
    assert is_product(f)
    assert "ld.global.nc.v4" in f.code.ptx
    assert "ld.global.nc.v4" not in f.code.unaligned.ptx
    expected = arrays["p0"] @ arrays["p1"]
    for shift in (0, 1, 3):
        found = f(p0=Shifted(arrays["p0"], device, shift), p1=DeviceArray.copy_of(arrays["p1"], device))
        np.testing.assert_array_equal(found["y"].numpy(), expected)


class Shifted:
    """An array on the device that begins so many elements after a multiple of 256 bytes."""

    def __init__(self, array: np.ndarray, device: EmulatedDevice, shift: int) -> None:
        address = device.allocate(array.nbytes + 4 * shift, device.stream) + 4 * shift
        device.memory.copy_in(address, array)
        device.finish(device.stream)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (address, False),
            "version": 3,
            "strides": None,
        }


class Broken(EmulatedDevice):
    """A device whose kernels are changed before they run; with one SM, so that a CTA computes several tiles."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__(sms=1)
        self.change = change

    def load(self, text: str) -> ptx.Module:
        return super().load(self.change(text))


def without(pattern: str, number: int) -> Callable[[str], str]:
    """Takes one of the instructions that match out of a text."""

    def changed(text: str) -> str:
        found = list(re.finditer(pattern, text))[number]
        return text[: found.start()] + text[found.end() :]

    return changed


BARRIER = r"bar(rier)?(\.cta)?\.sync[^;]*;"


@pytest.mark.parametrize("precision", ["bf16", "tf32", "float32"])
def test_every_barrier_is_needed(precision: Precision) -> None:
    g = contraction("mk,nk->mn", {"m": 260, "n": 264, "k": 64})
    arrays = integers(g)
    whole = gc.compile(g, target="cuda", device=Broken(lambda text: text), precision=precision)
    whole(**arrays)
    barriers = len(re.findall(BARRIER, whole.code.ptx))
    assert barriers == 3
    for number in range(barriers):
        device = Broken(without(BARRIER, number))
        with pytest.raises(PtxError):
            gc.compile(g, target="cuda", device=device, precision=precision)(**arrays)


def test_one_block_is_fetched_while_another_is_multiplied() -> None:
    """In the text of the loop: loads from global memory, then fragments and products, then stores to shared memory."""
    text = compiled(contraction("mk,nk->mn", {"m": 128, "n": 128, "k": 256}), precision="bf16").code.ptx
    text = text[text.index("ld.global.nc.v4") :]
    order = [text.index(name) for name in ("ld.global.nc.v4", "ldmatrix", "mma.sync", "st.shared")]
    assert order == sorted(order)
    assert "ld.shared" not in text[order[0] : order[-1]]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("sizes", [(64, 64, 32), (512, 512, 512), (4096, 3072, 768), (2048, 64, 4096)])
def test_a_tile_fits_and_is_worth_it(arch: str, precision: Precision, sizes: tuple[int, int, int]) -> None:
    """Its memory is there; what has many points reads each element of its factors for at least 64 points of the other;
    and what has few is shared out, rather than one tile computed in one place."""
    g = contraction("mk,kn->mn", dict(zip("mnk", sizes, strict=True)))
    code = gc.emit(g, target="cuda", arch=arch, precision=precision)
    products = [unit.product for unit in code.units if isinstance(unit, PointsUnit) and unit.product is not None]
    assert len(products) == 1
    block = products[0][1]
    assert isinstance(block, MmaBlocking)
    assert block.shared <= ARCHS[arch].shared
    if sizes[0] * sizes[1] > 1 << 20:
        assert min(block.height, block.width) >= 64
    if sizes == (64, 64, 32):
        assert block.tiles(64, 64) > 1


needs_ptxas = pytest.mark.skipif(ptxas.find() is None, reason="no ptxas on the PATH")


@needs_ptxas
@pytest.mark.parametrize(
    ("arch", "precision"), [(a, "bf16") for a in ARCHS] + [("sm_90", "tf32"), ("sm_90", "float32"), ("sm_80", "tf32")]
)
def test_products_do_not_spill(arch: str, precision: Precision) -> None:
    code = gc.emit(recurrent("lstm", 256, 128), target="cuda", arch=arch, precision=precision)
    used = ptxas.assemble(code.ptx, arch)
    products = [unit.symbol for unit in code.units if isinstance(unit, PointsUnit) and unit.product is not None]
    assert len(products) == 3
    assert all(used[symbol].spills == used[symbol].stack == 0 for symbol in products)


@needs_ptxas
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_convolutions_do_not_spill(precision: Precision) -> None:
    """Products whose elements lie where a window stands, and their gradients."""
    g = gc.Graph("convolutions")
    n = g.axis("n")
    x = g.input("x", (32, 32, 32), over=n)
    for k in range(2):
        x = gc.relu(gc.layers.conv(g, x, 128, size=3, padding=1, name=f"conv{k}"))
    g.output("loss", gc.sum(x * x, over=n, dim=(0, 1, 2)))
    code = gc.emit(gc.grad(g, "loss"), target="cuda", precision=precision)
    used = ptxas.assemble(code.ptx)
    products = [unit.symbol for unit in code.units if isinstance(unit, PointsUnit) and unit.product is not None]
    assert len(products) >= 5
    assert all(used[symbol].spills == 0 for symbol in products)
