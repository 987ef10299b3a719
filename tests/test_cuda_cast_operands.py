"""Products of copies that were rounded beforehand, in the PTX emulator: any layout, images, sums in parts."""

from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.cuda import cast_operands
from graphc.codegen.target import Precision
from graphc.compiling.cuda_compile import CompiledCuda
from tests.cuda_emulated import arrays_of, check, compiled, recurrent
from tests.ptx import PtxError
from tests.test_cuda_pipeline import BARRIER, Broken, contraction, integers, without


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of small products, too."""
    monkeypatch.setattr(cast_operands, "_WORTH", 0.0)
    monkeypatch.setattr(cast_operands, "_LEAST", 0.0)


def copies(f: CompiledCuda) -> set[str]:
    return {b.name for b in f.program.buffers if b.dtype in ("bfloat16", "float16")}


@pytest.mark.parametrize("layout", ["mk,kn->mn", "mk,nk->mn", "km,kn->nm", "makb,kbn->mna"])
@pytest.mark.parametrize("sizes", [(64, 128, 64), (40, 24, 72), (136, 264, 40), (24, 24, 328)])
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_any_layout(layout: str, sizes: tuple[int, int, int], precision: Precision) -> None:
    """Small integers, so any element in a wrong place, missing or counted twice would show."""
    g = contraction(layout, dict(zip("mnk", sizes, strict=True)) | {"a": 2, "b": 8})
    arrays = integers(g)
    f = compiled(g, precision=precision)
    assert len(copies(f)) == 2
    assert "cp.async" in f.code.ptx
    np.testing.assert_array_equal(f(**arrays)["y"], np.einsum(layout, *arrays.values()))


def test_what_has_no_runs_is_not_copied() -> None:
    for precision in ("bf16", "tf32", "float32"):
        g = contraction("mk,kn->mn", {"m": 24, "n": 36, "k": 30})
        assert not copies(compiled(g, precision=precision))
    g = contraction("mk,kn->mn", {"m": 32, "n": 32, "k": 32})
    assert not copies(compiled(g, precision="tf32"))


def convolution(channels: int, filters: int, side: int) -> gc.Graph:
    """An image that is filtered twice, so that both have gradients, with holes between what a filter reads."""
    g = gc.Graph("convolution")
    n = g.axis("n")
    x = gc.layers.conv(g, g.input("image", (3, side, side), over=n), channels, size=1, name="first")
    y = gc.layers.conv(g, x, filters, size=3, padding=2, dilation=2, name="second")
    g.output("loss", gc.mean(gc.sum(y * y), over=n))
    return gc.grad(g, "loss")


@pytest.mark.parametrize(("channels", "filters", "side"), [(16, 32, 8), (24, 16, 6)])
def test_images_lie_with_channels_last(channels: int, filters: int, side: int) -> None:
    g = convolution(channels, filters, side)
    arrays = arrays_of(g, n=3)
    f = compiled(g, precision="bf16")
    found, expected = f(**arrays), gc.interpret(g, **arrays)
    for name, value in expected.items():
        largest = np.abs(value).max()
        np.testing.assert_allclose(np.asarray(found[name]), value, rtol=0, atol=2e-2 * largest, err_msg=name)
    last = {str(f.program.declared[name].dims[-1]) for name in copies(f) if len(f.program.declared[name].dims) == 4}
    assert {str(channels), str(filters)} <= last


def test_a_cell_and_its_gradients() -> None:
    """Factors that are 0 before the first step; a copy serves all products of what it was made of."""
    g = recurrent("lstm", 32, 32)
    f = check(g, arrays_of(g, t=3, n=5), {"t": 3, "n": 5}, 3e-2, precision="bf16")
    assert copies(f)
    sources = [name.rsplit(".", 1)[0] for name in copies(f)]
    assert len(sources) == len(set(sources))


def test_every_barrier_and_wait_is_needed() -> None:
    g = contraction("mk,nk->mn", {"m": 264, "n": 264, "k": 328})
    arrays = integers(g)
    whole = gc.compile(g, target="cuda", device=Broken(lambda text: text), precision="bf16")
    whole(**arrays)
    for pattern in (BARRIER, r"cp\.async\.wait_group[^;]*;"):
        for number in range(len(re.findall(pattern, whole.code.ptx))):
            f = gc.compile(g, target="cuda", device=Broken(without(pattern, number)), precision="bf16")
            with pytest.raises(PtxError):
                f(**arrays)
