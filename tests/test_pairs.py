"""Operands in bfloat16 lie in pairs: the Program computes the same to the last bit, and compiled code reads both halves
of a pair at once, and packs pairs whole, on every machine and for every size."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cpu.jit import emit
from graphc.codegen.passes.pack import pack
from graphc.codegen.passes.pairs import pairs
from graphc.codegen.passes.round_operands import round_operands
from graphc.codegen.program import Kernel, Let, Program, Reduce, Ref, Store
from graphc.codegen.target import Target
from graphc.codegen.verify_program import verify
from graphc.scalar import Scalar, call, index
from tests.test_cpu import TARGETS, N, T, at, check, dims, k, n, one_sum, product, program, t, total, u

AVX512 = Target("x86_64-unknown-linux-gnu", "skylake-avx512")


def twice(
    terms: int, columns: int, rows: Scalar | int = N, weights: str = "bfloat16", values: str = "float32"
) -> Program:
    """Two sums over one k that share a name, then one of the other dim of the same weights, for T times N rows."""
    shared = Let("a", call("max", at("x", t, n, k), at("x", t, n, index(0))))
    both = (
        total("s", product(at("W", u, k), Ref("a", "float32"))),
        total("r", call("add", product(Ref("a", "float32"), at("V", u, k)), product(at("W", u, k), at("x", t, n, k)))),
    )
    first = Kernel(
        "first",
        dims(t=T, n=rows, u=columns),
        (Reduce(dims(k=terms), both, (shared,)),),
        (Store("h", (t, n, u), call("sub", Ref("s", "float32"), Ref("r", "float32"))),),
    )
    back = Kernel(
        "back",
        dims(t=T, n=rows, u=terms),
        (one_sum(product(at("W", k, u), at("h", t, n, k)), k=columns),),
        (Store("y", (t, n, u), Ref("s", "float32")),),
    )
    return program(
        [
            ("input", "x", values, (T, rows, terms)),
            ("param", "W", weights, (columns, terms)),
            ("param", "V", weights, (columns, terms)),
            ("output", "h", "float32", (T, rows, columns)),
            ("output", "y", "float32", (T, rows, terms)),
        ],
        first,
        back,
    )


def paired(made: Program) -> set[str]:
    return {b.name for b in made.buffers if b.kind == "temp" and b.dims[-1] == index(2)}


extents = st.sampled_from([1, 2, 4, 7, 16, 17, 18, 32, 34, 48, 66, 130, 200])


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25)
@given(extents, extents, st.sampled_from([1, 2, 3, 7, 8]), st.sampled_from(["float32", "bfloat16"]), st.booleans())
def test_the_program_with_pairs_computes_the_same(
    target: str, terms: int, columns: int, rows: int, values: str, end: bool
) -> None:
    made = pairs(pack(twice(terms, columns, values=values)))
    verify(made)
    check(made, {"N": rows, "T": 2, "K": 0, "U": 0}, target=TARGETS[target], at_end=end)


@pytest.mark.parametrize(
    ("terms", "columns", "names"), [(34, 66, {"V.last0", "W.last0"}), (33, 66, set()), (4, 5, {"V.last0", "W.last0"})]
)
def test_what_lies_in_pairs(terms: int, columns: int, names: set[str]) -> None:
    """The weights of a sum with an even number of terms, where they are laid out anew; those of the other sum lie along
    its lanes already."""
    assert paired(pairs(pack(twice(terms, columns)))) == names


def test_panels_in_pairs() -> None:
    assert paired(pairs(pack(twice(128, 256)))) == {"V.panels0", "W.panels0", "W.panels1"}


@pytest.mark.parametrize("weights", ["float32", "float16"])
def test_other_dtypes_stay(weights: str) -> None:
    packed = pack(twice(64, 64, weights=weights))
    assert pairs(packed) is packed


def test_a_maximum_and_a_condition_on_the_terms_stay() -> None:
    """Two terms of a maximum are not one term; and of two terms, one may not count."""
    value = product(at("W", u, k), at("x", n, k))
    for reduce in (one_sum(value, op="max", k=64), one_sum(value, call("lt", k, n), k=64)):
        kernel = Kernel("one", dims(n=N, u=48), (reduce,), (Store("y", (n, u), Ref("s", "float32")),))
        buffers = [
            ("input", "x", "float32", (N, 64)),
            ("param", "W", "bfloat16", (48, 64)),
            ("output", "y", "float32", (N, 48)),
        ]
        packed = pack(program(buffers, kernel))
        assert any(b.kind == "temp" for b in packed.buffers)
        assert pairs(packed) is packed
        check(packed, {"N": 5, "U": 0, "K": 0, "T": 0})


def test_a_reduction_over_one_point_stays() -> None:
    """It may have no dims at all."""
    alone = Reduce((), (total("s", product(at("W", u, index(0)), at("x", n, index(0)))),))
    kernel = Kernel("one", dims(n=N, u=48), (alone,), (Store("y", (n, u), Ref("s", "float32")),))
    buffers = [
        ("input", "x", "float32", (N, 2)),
        ("param", "W", "float32", (48, 2)),
        ("output", "y", "float32", (N, 48)),
    ]
    made = program(buffers, kernel)
    assert pairs(round_operands(made)) == made


def test_code_reads_words_and_packs_words() -> None:
    """One load brings both halves; nothing is gathered, scattered or widened element by element."""
    code = emit(pairs(pack(twice(64, 64, rows=1))), AVX512)
    assert not re.search(r"(gather|scatter)\.v\d+i16", code.llvm_ir)
    assert re.search(r"gather\.v16i32", code.llvm_ir)
    function = re.search(r"^test\.first:.*?^\s*\.size", code.assembly, re.DOTALL | re.MULTILINE)
    assert function is not None
    loads = len(re.findall(r"vpslld\s+\$16", function[0]))
    halves = len(re.findall(r"vp?and", function[0]))
    assert loads > 0
    assert halves >= loads
    assert "vpmovzxwd" not in function[0]


def test_products_of_pairs_are_one_instruction() -> None:
    """Also where one factor is the state before, chosen between memory and zero; not without the instruction."""

    def assembly(cpu: str, dtype: str) -> str:
        g = gc.Graph("cell")
        t, n = g.axis("t"), g.axis("n")
        h = g.state("h", (64,), over=(t, n), dtype=dtype)
        h[t] = gc.tanh(g.param("U", (64, 64), dtype="bfloat16") @ h[t - 1] + g.input("x", (64,), over=(t, n))[t])
        g.output("h", h)
        return gc.emit(g, triple="x86_64-unknown-linux-gnu", arch=cpu).assembly

    for cpu, dtype, expected in (
        ("znver4", "bfloat16", True),
        ("sapphirerapids", "bfloat16", True),
        ("znver4", "float32", False),
        ("skylake-avx512", "bfloat16", False),
        ("x86-64-v3", "bfloat16", False),
    ):
        assert ("vdpbf16ps" in assembly(cpu, dtype)) == expected, (cpu, dtype)


def test_special_values_pass_through_pairs() -> None:
    """Infinities, NaN and numbers of both signs, in either half."""
    g = gc.Graph("product")
    n = g.axis("n")
    x = g.input("x", (64,), over=n, dtype="bfloat16")
    g.output("y", g.param("W", (48, 64), dtype="bfloat16") @ x)
    rng = np.random.default_rng(0)
    W, x = (rng.normal(size=shape).astype(ml_dtypes.bfloat16) for shape in ((48, 64), (48, 64)))
    specials = [np.inf, -np.inf, np.nan, 1e37, -0.0, 1.2e-38]
    for row, special in enumerate(specials):
        W[row, row], W[row + 6, row + 1], x[row + 20, row], x[row + 30, row + 1] = 4 * (special,)
    with np.errstate(all="ignore"):
        expected = gc.interpret(g, W=W, x=x)["y"]
    np.testing.assert_allclose(gc.compile(g)(W=W, x=x)["y"], expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=40)
@given(
    st.integers(1, 70),
    st.integers(1, 40).map(lambda half: 2 * half),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from(["float32", "bfloat16"]),
)
def test_products_with_weights_in_bfloat16(units: int, inputs: int, rows: int, threads: int, dtype: str) -> None:
    """Compiled, frozen or not, they are the interpreter's: operands are what memory holds, the rest is float32."""
    g = gc.Graph("product")
    n = g.axis("n")
    W = g.param("W", (units, inputs), dtype="bfloat16")
    x = g.input("x", (inputs,), over=n, dtype=dtype)
    g.output("y", W @ x)
    g.output("loss", gc.sum(gc.sum(gc.tanh(W @ x)), over=n))
    g = gc.grad(g, "loss", wrt=["W", "x"])
    rng = np.random.default_rng(units)
    arrays = {
        "W": rng.normal(size=(units, inputs)).astype(ml_dtypes.bfloat16),
        "x": rng.normal(size=(rows, inputs)).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype),
    }
    expected, f = gc.interpret(g, **arrays), gc.compile(g, threads=threads)
    for found in (f(**arrays), f.freeze(W=arrays["W"])(x=arrays["x"])):
        for name, array in expected.items():
            np.testing.assert_allclose(
                found[name].astype("float32"),
                array.astype("float32"),
                rtol=1e-2 if name == "grad_W" else 1e-4,
                atol=1e-4,
            )


def test_explanations_speak_of_elements() -> None:
    """Not of pairs, nor of how they are packed."""

    def explained(dtype: str) -> str:
        g = gc.Graph("cell")
        t, n = g.axis("t"), g.axis("n")
        x, h = g.input("x", (64,), over=(t, n)), g.state("h", (64,), over=(t, n))
        W, U = g.param("W", (64, 64), dtype=dtype), g.param("U", (64, 64), dtype=dtype)
        h[t] = gc.tanh(W @ x[t] + U @ h[t - 1])
        g.output("h", h)
        return "\n".join(str(gc.explain(g, {"t": 8, "n": 1})).split("\n  schedule:")[:1])

    assert "product over 64 elements" in explained("bfloat16")
    assert explained("bfloat16") == explained("float32")
