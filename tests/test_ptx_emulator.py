"""The PTX emulator's arithmetic: hand-computed cases, and properties against exact rational numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ptx import Module, UnknownInstruction, load, ptxas
from tests.ptx.approximate import ABSOLUTE, EXACT, RELATIVE
from tests.ptx.rounding import fma_double, fma_single, round_to
from tests.ptx.snippets import HEADER, elementwise, kernel

DTYPES = {"u": "u", "s": "i", "f": "f", "b": "u"}


@dataclass(frozen=True)
class Case:
    """An instruction on %a, %b, %c giving %d, with rows of inputs and the expected result."""

    body: str
    inputs: str
    output: str
    rows: list[tuple[Any, ...]]

    @property
    def name(self) -> str:
        return "".join(c if c.isalnum() else "_" for c in self.body.split(";")[0])[:60]


def dtype(kind: str) -> np.dtype[Any]:
    if kind in ("bf16", "tf32"):
        kind = "b16" if kind == "bf16" else "b32"
    return np.dtype(f"{DTYPES[kind[0]]}{int(kind.lstrip('busf')) // 8}")


MAX, TOP = 0xFFFFFFFF, 0x80000000
NAN, INF = math.nan, math.inf
INTEGERS = [
    Case("add.s32 %d, %a, %b;", "s32 s32", "s32", [(1, 2, 3), (2**31 - 1, 1, -(2**31))]),
    Case("add.sat.s32 %d, %a, %b;", "s32 s32", "s32", [(2**31 - 1, 5, 2**31 - 1), (-(2**31), -1, -(2**31))]),
    Case("add.u64 %d, %a, %b;", "u64 u64", "u64", [(2**64 - 1, 2, 1)]),
    Case("sub.u16 %d, %a, %b;", "u16 u16", "u16", [(1, 2, 65535)]),
    Case("mul.lo.u32 %d, %a, %b;", "u32 u32", "u32", [(0x10001, 0x10001, 0x20001)]),
    Case("mul.hi.u32 %d, %a, %b;", "u32 u32", "u32", [(MAX, MAX, MAX - 1), (TOP, 2, 1)]),
    Case("mul.hi.s32 %d, %a, %b;", "s32 s32", "s32", [(-1, 1, -1), (-(2**31), -(2**31), 2**30)]),
    Case("mul.hi.u64 %d, %a, %b;", "u64 u64", "u64", [(2**64 - 1, 2**64 - 1, 2**64 - 2), (2**40, 2**40, 2**16)]),
    Case("mul.hi.s64 %d, %a, %b;", "s64 s64", "s64", [(-1, 5, -1), (-(2**63), 2, -1), (2**62, 4, 1)]),
    Case("mul.wide.s32 %d, %a, %b;", "s32 s32", "s64", [(-3, 2**30, -3 * 2**30)]),
    Case("mul.wide.u16 %d, %a, %b;", "u16 u16", "u32", [(65535, 65535, 65535**2)]),
    Case("mad.lo.s32 %d, %a, %b, %c;", "s32 s32 s32", "s32", [(3, -4, 5, -7)]),
    Case("mad.wide.u32 %d, %a, %b, %c;", "u32 u32 u64", "u64", [(MAX, 2, 7, 2 * MAX + 7)]),
    Case("mad.hi.u32 %d, %a, %b, %c;", "u32 u32 u32", "u32", [(TOP, 4, 5, 7)]),
    Case("div.s32 %d, %a, %b;", "s32 s32", "s32", [(-7, 2, -3), (7, -2, -3), (-8, -2, 4)]),
    Case("div.u64 %d, %a, %b;", "u64 u64", "u64", [(2**63, 3, 2**63 // 3)]),
    Case("rem.s32 %d, %a, %b;", "s32 s32", "s32", [(-7, 2, -1), (7, -2, 1)]),
    Case("rem.u32 %d, %a, %b;", "u32 u32", "u32", [(MAX, 10, 5)]),
    Case("abs.s32 %d, %a;", "s32", "s32", [(-5, 5), (5, 5)]),
    Case("neg.s64 %d, %a;", "s64", "s64", [(-5, 5)]),
    Case("min.s32 %d, %a, %b;", "s32 s32", "s32", [(-1, 1, -1)]),
    Case("min.u32 %d, %a, %b;", "u32 u32", "u32", [(MAX, 1, 1)]),
    Case("max.s16 %d, %a, %b;", "s16 s16", "s16", [(-1, 1, 1)]),
    Case("shl.b32 %d, %a, %b;", "b32 u32", "b32", [(1, 31, TOP), (1, 32, 0), (1, 1000, 0)]),
    Case("shr.u32 %d, %a, %b;", "u32 u32", "u32", [(TOP, 31, 1), (TOP, 32, 0)]),
    Case("shr.s32 %d, %a, %b;", "s32 u32", "s32", [(-8, 1, -4), (-8, 99, -1), (8, 99, 0)]),
    Case("shl.b64 %d, %a, %b;", "b64 u32", "b64", [(1, 63, 2**63), (1, 64, 0)]),
    Case("and.b32 %d, %a, %b;", "b32 b32", "b32", [(0b1100, 0b1010, 0b1000)]),
    Case("or.b32 %d, %a, %b;", "b32 b32", "b32", [(0b1100, 0b1010, 0b1110)]),
    Case("xor.b64 %d, %a, %b;", "b64 b64", "b64", [(0b1100, 0b1010, 0b0110)]),
    Case("not.b16 %d, %a;", "b16", "b16", [(1, 0xFFFE)]),
    Case("lop3.b32 %d, %a, %b, %c, 0xE8;", "b32 b32 b32", "b32", [(0b11110000, 0b11001100, 0b10101010, 0b11101000)]),
    Case("popc.b32 %d, %a;", "b32", "u32", [(0xFF00FF, 16)]),
    Case("popc.b64 %d, %a;", "b64", "u32", [(2**64 - 1, 64)]),
    Case("clz.b32 %d, %a;", "b32", "u32", [(0, 32), (1, 31), (TOP, 0)]),
    Case("clz.b64 %d, %a;", "b64", "u32", [(0, 64), (2**33, 30)]),
    Case("brev.b32 %d, %a;", "b32", "b32", [(1, TOP), (0b1101, 0xB0000000)]),
    Case("bfind.u32 %d, %a;", "u32", "u32", [(0, MAX), (0x100, 8)]),
    Case("bfind.s32 %d, %a;", "s32", "u32", [(-1, MAX), (-257, 8)]),
    Case("bfind.shiftamt.u32 %d, %a;", "u32", "u32", [(0x100, 23)]),
    Case("bfe.u32 %d, %a, %b, %c;", "u32 u32 u32", "u32", [(0xABCD1234, 8, 8, 0x12), (TOP, 31, 5, 1), (5, 0, 0, 0)]),
    Case("bfe.s32 %d, %a, %b, %c;", "s32 u32 u32", "s32", [(0xF0, 4, 4, -1), (0x70, 4, 4, 7), (-1, 0, 0, 0)]),
    Case("bfi.b32 %d, %a, %b, 8, 4;", "b32 b32", "b32", [(0xFF, 0, 0xF00), (0, MAX, 0xFFFFF0FF)]),
    Case("prmt.b32 %d, %a, %b, %c;", "b32 b32 b32", "b32", [
        (0x33221100, 0x77665544, 0x3210, 0x33221100), (0x33221100, 0x77665544, 0x7531, 0x77553311),
        (0x000080FF, 0, 0x9988, 0xFFFFFFFF), (0x0000807F, 0, 0x9988, 0xFFFF0000),
    ]),
    Case("shf.l.wrap.b32 %d, %a, %b, %c;", "b32 b32 u32", "b32", [(TOP, 1, 1, 3), (TOP, 1, 33, 3)]),
    Case("shf.r.clamp.b32 %d, %a, %b, %c;", "b32 b32 u32", "b32", [(0x10, 0xF, 4, 0xF0000001), (1, 7, 40, 7)]),
    Case("cvt.s32.s8 %d, %a;", "b32", "s32", [(0x1FF, -1), (0x7F, 127)]),
    Case("cvt.u64.u32 %d, %a;", "u32", "u64", [(MAX, MAX)]),
    Case("cvt.sat.u8.s32 %d, %a;", "s32", "u32", [(-5, 0), (300, 255), (7, 7)]),
    Case("cvt.sat.s8.s32 %d, %a;", "s32", "s32", [(-500, -128), (300, 127)]),
    Case("setp.lo.u32 %q, %a, %b; selp.u32 %d, 1, 0, %q;", "u32 u32", "u32", [(1, MAX, 1), (MAX, 1, 0)]),
    Case("setp.lt.s32 %q, %a, %b; selp.u32 %d, 1, 0, %q;", "s32 s32", "u32", [(1, -1, 0), (-1, 1, 1)]),
    Case("setp.eq.s32 %q|%t, %a, %b; selp.u32 %d, 1, 0, %t;", "s32 s32", "u32", [(1, 1, 0), (1, 2, 1)]),
    Case("setp.ne.s32 %q, %a, 0; setp.gt.and.s32 %q, %b, 3, !%q; selp.u32 %d, 1, 0, %q;", "s32 s32", "u32", [
        (0, 4, 1), (1, 4, 0), (0, 3, 0),
    ]),
    Case("slct.s32.s32 %d, %a, %b, %c;", "s32 s32 s32", "s32", [(1, 2, 0, 1), (1, 2, -1, 2)]),
    Case("set.gt.u32.s32 %d, %a, %b;", "s32 s32", "u32", [(2, 1, MAX), (1, 2, 0)]),
    Case("mov.b64 %d, {%a, %b};", "b32 b32", "b64", [(1, 2, 2**33 + 1)]),
    Case("{ .reg .b32 %lo; mov.b64 {%lo, %d}, %a; }", "b64", "b32", [(7 * 2**32 + 1, 7)]),
    Case("{ .reg .pred s; setp.lt.u32 s, %a, 10; @s add.u32 %d, %a, 1; @!s mov.u32 %d, 0; }", "u32", "u32", [
        (3, 4), (12, 0),
    ]),
]  # fmt: skip
FLOATS = [
    Case("add.rn.f32 %d, %a, %b;", "f32 f32", "f32", [(1.0, 2.0**-24, 1.0), (INF, -INF, NAN)]),
    Case("add.rp.f32 %d, %a, %b;", "f32 f32", "f32", [
        (1.0, 2.0**-40, 1.0 + 2.0**-23), (-1.0, 2.0**-40, -1.0 + 2.0**-24),
    ]),
    Case("add.rz.f32 %d, %a, %b;", "f32 f32", "f32", [(1.0, 1.75 * 2.0**-23, 1.0 + 2.0**-23)]),
    Case("mul.rm.f32 %d, %a, %b;", "f32 f32", "f32", [(-1.0 - 2.0**-23, 1.0 + 2.0**-23, -1.0 - 3 * 2.0**-23)]),
    Case("mul.rn.ftz.f32 %d, %a, %b;", "f32 f32", "f32", [(2.0**-126, 0.5, 0.0), (2.0**-127, 4.0, 0.0)]),
    Case("mul.rn.f32 %d, %a, %b;", "f32 f32", "f32", [(2.0**-126, 0.5, 2.0**-127)]),
    Case("add.rn.sat.f32 %d, %a, %b;", "f32 f32", "f32", [(1.0, 1.0, 1.0), (-1.0, 0.5, 0.0), (NAN, 1.0, 0.0)]),
    Case("fma.rn.f32 %d, %a, %b, %c;", "f32 f32 f32", "f32", [(1 + 2.0**-12, 1 + 2.0**-12, -1 - 2.0**-11, 2.0**-24)]),
    Case("fma.rn.f64 %d, %a, %b, %c;", "f64 f64 f64", "f64", [(1 + 2.0**-27, 1 + 2.0**-27, -1 - 2.0**-26, 2.0**-54)]),
    Case("div.rn.f32 %d, %a, %b;", "f32 f32", "f32", [(1.0, 3.0, 11184811 * 2.0**-25), (1.0, 0.0, INF)]),
    Case("sqrt.rn.f32 %d, %a;", "f32", "f32", [(2.0, 11863283 * 2.0**-23), (-1.0, NAN)]),
    Case("rcp.rn.f32 %d, %a;", "f32", "f32", [(4.0, 0.25), (0.0, INF)]),
    Case("min.f32 %d, %a, %b;", "f32 f32", "f32", [
        (NAN, 1.0, 1.0), (1.0, NAN, 1.0), (-0.0, 0.0, -0.0), (0.0, -0.0, -0.0),
    ]),
    Case("max.f32 %d, %a, %b;", "f32 f32", "f32", [(NAN, 1.0, 1.0), (-0.0, 0.0, 0.0), (0.0, -0.0, 0.0)]),
    Case("max.NaN.f32 %d, %a, %b;", "f32 f32", "f32", [(NAN, 1.0, NAN), (2.0, 1.0, 2.0)]),
    Case("neg.f32 %d, %a;", "f32", "f32", [(0.0, -0.0)]),
    Case("copysign.f32 %d, %a, %b;", "f32 f32", "f32", [(-2.0, 3.0, -3.0)]),
    Case("setp.ltu.f32 %q, %a, %b; selp.f32 %d, 0f3F800000, 0f00000000, %q;", "f32 f32", "f32", [
        (NAN, 1.0, 1.0), (1.0, 2.0, 1.0), (2.0, 1.0, 0.0),
    ]),
    Case("setp.ne.f32 %q, %a, %b; selp.f32 %d, 0f3F800000, 0f00000000, %q;", "f32 f32", "f32", [
        (NAN, 1.0, 0.0), (1.0, 2.0, 1.0),
    ]),
    Case("setp.neu.f32 %q, %a, %b; selp.f32 %d, 0f3F800000, 0f00000000, %q;", "f32 f32", "f32", [(NAN, 1.0, 1.0)]),
    Case("setp.num.f32 %q, %a, %b; selp.f32 %d, 0f3F800000, 0f00000000, %q;", "f32 f32", "f32", [
        (NAN, 1.0, 0.0), (1.0, 1.0, 1.0),
    ]),
    Case("cvt.rni.s32.f32 %d, %a;", "f32", "s32", [
        (2.5, 2), (-3.5, -4), (1e20, 2**31 - 1), (NAN, 0), (-INF, -(2**31)),
    ]),
    Case("cvt.rzi.u32.f32 %d, %a;", "f32", "u32", [(2.9, 2), (-2.9, 0), (5e9, MAX)]),
    Case("cvt.rmi.f32.f32 %d, %a;", "f32", "f32", [(-1.5, -2.0), (-0.0, -0.0)]),
    Case("cvt.rn.f32.s32 %d, %a;", "s32", "f32", [(2**24 + 1, 2.0**24), (-3, -3.0)]),
    Case("cvt.rp.f32.u64 %d, %a;", "u64", "f32", [(2**40 + 1, 2.0**40 + 2.0**17), (2**40, 2.0**40)]),
    Case("cvt.rn.f32.u64 %d, %a;", "u64", "f32", [(2**63 + 2**39 + 1, 2.0**63 + 2.0**40)]),
    Case("cvt.rn.f32.f64 %d, %a;", "f64", "f32", [(1 + 2.0**-24 + 2.0**-50, 1 + 2.0**-23), (1e300, INF)]),
    Case("cvt.rn.f16.f32 %d, %a;", "f32", "b16", [(1.0, 0x3C00), (65520.0, 0x7C00), (2.0**-24, 1)]),
    Case("cvt.f32.f16 %d, %a;", "b16", "f32", [(0x3C00, 1.0), (1, 2.0**-24)]),
    Case("cvt.rn.bf16.f32 %d, %a;", "f32", "b16", [(1 + 2.0**-8, 0x3F80), (1 + 3 * 2.0**-8, 0x3F82), (NAN, 0x7FFF)]),
    Case("cvt.rz.bf16.f32 %d, %a;", "f32", "b16", [(1 + 1.9 * 2.0**-7, 0x3F81)]),
    Case("cvt.rn.relu.bf16.f32 %d, %a;", "f32", "b16", [(-1.0, 0), (1.0, 0x3F80)]),
    Case("cvt.rn.bf16x2.f32 %d, %a, %b;", "f32 f32", "b32", [(1.0, 2.0, 0x3F804000)]),
    Case("cvt.rn.f16x2.f32 %d, %a, %b;", "f32 f32", "b32", [(1.0, 2.0, 0x3C004000)]),
    Case("cvt.rna.tf32.f32 %d, %a;", "f32", "b32", [(1 + 2.0**-11, 0x3F802000), (1 + 1.9 * 2.0**-12, 0x3F800000)]),
    Case("cvt.f32.bf16 %d, %a;", "b16", "f32", [(0x3F81, 1 + 2.0**-7)]),
    Case("fma.rn.bf16 %d, %a, %b, %c;", "b16 b16 b16", "b16", [(0x3F81, 0x3F81, 0xBF82, 0x3880)]),
    Case("fma.rn.f16x2 %d, %a, %b, %c;", "b32 b32 b32", "b32", [(0x3C004000, 0x40004000, 0x3C003C00, 0x42004500)]),
    Case("add.rn.f16 %d, %a, %b;", "b16 b16", "b16", [(0x3C00, 0x1000, 0x3C00), (0x3C00, 0x1401, 0x3C01)]),
    Case("fma.rn.f32x2 %d, %a, %b, %c;", "b64 b64 b64", "b64", [
        (0x3F80000040000000, 0x4000000040000000, 0, 0x4000000040800000),
    ]),
    Case("min.f16x2 %d, %a, %b;", "b32 b32", "b32", [(0x3C004000, 0x40003C00, 0x3C003C00)]),
]  # fmt: skip
CASES = INTEGERS + FLOATS


@pytest.fixture(scope="module")
def text() -> str:
    return HEADER + "".join(
        elementwise(f"k{n}_{c.name}", c.body, c.inputs.split(), c.output) for n, c in enumerate(CASES)
    )


@pytest.fixture(scope="module")
def module(text: str) -> Module:
    return load(text)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[c.body for c in CASES])
def test_hand_computed(module: Module, number: int) -> None:
    case = CASES[number]
    kinds = case.inputs.split()
    columns = [_array([row[k] for row in case.rows], kind) for k, kind in enumerate(kinds)]
    expected = _array([row[-1] for row in case.rows], case.output)
    out = np.zeros_like(expected)
    module.launch(f"k{number}_{case.name}", (1,), (len(case.rows),), args=[*columns, out])
    np.testing.assert_array_equal(out, expected)
    if expected.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(out[~np.isnan(out)]), np.signbit(expected[~np.isnan(expected)]))


def _array(values: list[Any], kind: str) -> np.ndarray[Any, Any]:
    wanted = dtype(kind)
    if wanted.kind == "f":
        return np.array(values, wanted)
    return np.array([int(v) & ((1 << 8 * wanted.itemsize) - 1) for v in values], f"u{wanted.itemsize}").view(wanted)


@pytest.mark.skipif(ptxas.find() is None, reason="no ptxas")
def test_the_hand_computed_cases_are_ptx(text: str) -> None:
    reports = ptxas.assemble(text, "sm_100")
    assert len(reports) == len(CASES)
    assert all(r.spills == 0 for r in reports.values())


SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(SINGLE, SINGLE, SINGLE), min_size=1, max_size=20))
def test_fma_rounds_once(rows: list[tuple[float, float, float]]) -> None:
    a, b, c = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    with np.errstate(all="ignore"):
        got = fma_single(a, b, c)
    for x, y, z, result in zip(a.tolist(), b.tolist(), c.tolist(), got.tolist(), strict=True):
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        assert result == _nearest_single(exact), (x, y, z)


def _nearest_single(exact: Fraction) -> float:
    """The float32 nearest to a rational number, ties to even, by integers alone."""
    if exact == 0:
        return 0.0
    size = abs(exact)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length(), -126)
    if size >= Fraction(2) ** (exponent + 1):
        exponent += 1
    elif size < Fraction(2) ** exponent and exponent > -126:
        exponent -= 1
    grain = Fraction(2) ** (exponent - 23)
    whole = round(size / grain) * grain  # Python's round is to even
    value = float(whole) if whole < Fraction(2) ** 128 else INF
    return math.copysign(value, exact)


@given(*[st.floats(allow_nan=False, allow_infinity=False)] * 3)
def test_double_fma_rounds_once(a: float, b: float, c: float) -> None:
    with np.errstate(all="ignore"):
        got = float(fma_double(*(np.array([v]) for v in (a, b, c)))[0])
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        assert got == float(exact)
    except OverflowError:
        assert math.isinf(got)


@given(st.floats(width=32, allow_nan=False))
def test_rounding_to_half_is_numpys(value: float) -> None:
    x = np.array([value])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(round_to(x, "f16"), x.astype(np.float16).astype(np.float64))
        np.testing.assert_array_equal(round_to(x, "f32"), x.astype(np.float32).astype(np.float64))


RANGES = {
    "rcp": (0.001, 1000), "sqrt": (0, 1000), "rsqrt": (0.001, 1000), "ex2": (-20, 20), "lg2": (0.001, 1000),
    "tanh": (-10, 10), "sin": (-3, 3), "cos": (-3, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_approximations_stay_within_their_bounds_and_use_them(name: str) -> None:
    text = HEADER + elementwise("k", f"{name}.approx.f32 %d, %a;", ["f32"], "f32")
    x = np.linspace(*RANGES[name], 4096).astype(np.float32)
    out, again = np.zeros_like(x), np.zeros_like(x)
    for result in (out, again):
        load(text).launch("k", (16,), (256,), args=[x, result])
    exact = EXACT[name](x.astype(np.float64))
    error = np.abs(out - exact)
    if (name, "f32") in RELATIVE:
        bound = RELATIVE[name, "f32"] * np.abs(exact)
    else:
        bound = ABSOLUTE[name, "f32"] * np.maximum(1, np.abs(exact))
    assert (error <= bound).all()
    assert (error > bound / 4).mean() > 0.3
    np.testing.assert_array_equal(out, again)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("ex2", [(-INF, 0.0), (0.0, 1.0), (INF, INF)]), ("tanh", [(INF, 1.0), (0.0, 0.0)]), ("rcp", [(0.0, INF)])],
)
def test_approximations_of_special_values(name: str, inputs: list[tuple[float, float]]) -> None:
    text = HEADER + elementwise("k", f"{name}.approx.f32 %d, %a;", ["f32"], "f32")
    x, expected = (np.array(v, np.float32) for v in zip(*inputs, strict=True))
    out = np.zeros_like(x)
    load(text).launch("k", (1,), (len(x),), args=[x, out])
    np.testing.assert_array_equal(out, expected)


def test_an_unknown_instruction_names_its_line() -> None:
    text = kernel("frobnicate.b32 %r3, %r4;")
    with pytest.raises(UnknownInstruction, match=r"kernel k, line \d+: .*`frobnicate.b32 %r3, %r4;`"):
        load(text).launch("k", (1,), (32,), args=[0])
    with pytest.raises(UnknownInstruction, match=r"modifier \.left"):
        load(kernel("add.left.s32 %r3, %r4, %r5;")).launch("k", (1,), (32,), args=[0])
