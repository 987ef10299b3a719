"""Kernels that LLVM's NVPTX back end compiled, in the PTX emulator; and how fast it is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.ptx import Race, load, ptxas
from tests.ptx.snippets import HEADER, compiled, elementwise

SOFTMAX = """
@part = internal addrspace(3) global [8 x float] undef, align 16
declare i32 @llvm.nvvm.read.ptx.sreg.tid.x()
declare i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
declare void @llvm.nvvm.barrier0()
declare float @llvm.nvvm.shfl.sync.bfly.f32(i32, float, i32, i32)
declare float @llvm.exp2.f32(float)
define float @all_lanes(float %v) noinline convergent {
  %a = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %v, i32 16, i32 31)
  %b = fadd float %v, %a
  %c = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %b, i32 8, i32 31)
  %d = fadd float %b, %c
  %e = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %d, i32 4, i32 31)
  %f = fadd float %d, %e
  %g = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %f, i32 2, i32 31)
  %h = fadd float %f, %g
  %i = call float @llvm.nvvm.shfl.sync.bfly.f32(i32 -1, float %h, i32 1, i32 31)
  %j = fadd float %h, %i
  ret float %j
}
define ptx_kernel void @softmax(ptr addrspace(1) %x, ptr addrspace(1) %y, i64 %n) "nvvm.maxntid"="256" {
entry:
  %t = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()
  %cta = call i32 @llvm.nvvm.read.ptx.sreg.ctaid.x()
  %t64 = zext i32 %t to i64
  %c64 = zext i32 %cta to i64
  %row = mul i64 %c64, %n
  br label %sum
sum:
  %i = phi i64 [ %t64, %entry ], [ %i2, %more ]
  %s = phi float [ 0.0, %entry ], [ %s2, %more ]
  %in = icmp ult i64 %i, %n
  br i1 %in, label %more, label %reduce
more:
  %at = add i64 %row, %i
  %p = getelementptr float, ptr addrspace(1) %x, i64 %at
  %v = load float, ptr addrspace(1) %p
  %w = fmul float %v, 0x3FF7154760000000
  %e = call afn float @llvm.exp2.f32(float %w)
  %q = getelementptr float, ptr addrspace(1) %y, i64 %at
  store float %e, ptr addrspace(1) %q
  %s2 = fadd float %s, %e
  %i2 = add i64 %i, 256
  br label %sum
reduce:
  %ws = call float @all_lanes(float %s)
  %lane = and i32 %t, 31
  %warp = lshr i32 %t, 5
  %first = icmp eq i32 %lane, 0
  br i1 %first, label %put, label %meet
put:
  %pp = getelementptr float, ptr addrspace(3) @part, i32 %warp
  store float %ws, ptr addrspace(3) %pp
  br label %meet
meet:
  call void @llvm.nvvm.barrier0()
  %parts = load <8 x float>, ptr addrspace(3) @part
  %total = call reassoc float @llvm.vector.reduce.fadd.v8f32(float 0.0, <8 x float> %parts)
  br label %scale
scale:
  %k = phi i64 [ %t64, %meet ], [ %k2, %again ]
  %kin = icmp ult i64 %k, %n
  br i1 %kin, label %again, label %done
again:
  %kat = add i64 %row, %k
  %kq = getelementptr float, ptr addrspace(1) %y, i64 %kat
  %kv = load float, ptr addrspace(1) %kq
  %kd = fdiv float %kv, %total
  store float %kd, ptr addrspace(1) %kq
  %k2 = add i64 %k, 256
  br label %scale
done:
  ret void
}
declare float @llvm.vector.reduce.fadd.v8f32(float, <8 x float>)
"""


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_a_softmax_compiled_by_llvm(arch: str) -> None:
    x = np.random.default_rng(0).normal(size=(5, 1000)).astype(np.float32)
    y = np.zeros_like(x)
    text = compiled(SOFTMAX, arch)
    if ptxas.find() is not None:
        assert ptxas.assemble(text, arch)["softmax"].spills == 0
    load(text).launch("softmax", (5,), (256,), args=[x, y, 1000])
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    broken = text.replace("bar.sync \t0;", "")
    with pytest.raises(Race):
        load(broken).launch("softmax", (5,), (256,), args=[x, y, 1000])


def test_many_threads_take_little_time() -> None:
    """65,536 threads and 50 instructions: well below a second; the test allows ten times that on a busy machine."""
    body = "mov.b32 %d, %a; " + "fma.rn.f32 %d, %d, %b, %a; " * 40
    text = HEADER + elementwise("k", body, ["f32", "f32"], "f32")
    a = np.linspace(-1, 1, 65536).astype(np.float32)
    out = np.zeros_like(a)
    module = load(text)
    start = time.perf_counter()
    module.launch("k", (256,), (256,), args=[a, np.full_like(a, 0.5), out])
    assert time.perf_counter() - start < 10
    np.testing.assert_allclose(out, 2 * a, rtol=1e-6)
