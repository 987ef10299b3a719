"""The elementary functions against wider arithmetic: every error is measured in units in the last place."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.codegen.llvm.math import TRIGONOMETRIC_LIMIT, ULP_BOUNDS, definitions, intrinsic_name
from graphc.codegen.llvm.polynomials import POLYNOMIALS
from graphc.scalar import FUNCTIONS

UNARY = [fn for fn, dtype in ULP_BOUNDS if dtype == "float32" and fn != "pow"]
WIDTH = {"float32": 16, "float64": 8}
SPECIALS = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, -3.0, np.inf, -np.inf, np.nan, 1e-320, 1e-40, 1e308, 88.8, -1e30]

Array = np.ndarray[Any, Any]

_DRIVER = """
define void @run(ptr %a, ptr %b, ptr %out, i64 %n) #0 {{
start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
  %pa = getelementptr {type}, ptr %a, i64 %i
  %pb = getelementptr {type}, ptr %b, i64 %i
  %po = getelementptr {type}, ptr %out, i64 %i
  %x = load {type}, ptr %pa, align 8
  %y = load {type}, ptr %pb, align 8
  %r = call {type} @{name}({arguments})
  store {type} %r, ptr %po, align 8
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
attributes #0 = {{ "target-cpu"="{cpu}" "target-features"="{features}" }}
"""

_engines: dict[tuple[Any, ...], tuple[Any, Callable[..., None]]] = {}


def compiled(fn: str, dtype: str, width: int, fused: bool = True) -> Callable[..., None]:
    """A loop over arrays whose length is a multiple of the width."""
    key = (fn, dtype, width, fused)
    if key not in _engines:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        element = {"float32": "float", "float64": "double"}[dtype]
        kind = element if width == 1 else f"<{width} x {element}>"
        text = definitions([(fn, dtype, width)], fused) + _DRIVER.format(
            type=kind,
            name=intrinsic_name(fn, dtype, width),
            arguments=f"{kind} %x, {kind} %y" if fn == "pow" else f"{kind} %x",
            cpu=llvm.get_host_cpu_name(),
            features=llvm.get_host_cpu_features().flatten(),
        )
        module = llvm.parse_assembly(text)
        module.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(cpu=llvm.get_host_cpu_name(), opt=2)
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        linker = llvm.create_lljit_compiler(machine, use_jit_link=True)
        library = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module)).add_current_process()
        code = library.export_symbol("run").link(linker, "code")
        pointers = [ctypes.c_void_p] * 3 + [ctypes.c_int64]
        _engines[key] = code, ctypes.CFUNCTYPE(None, *pointers)(code["run"])
    return _engines[key][1]


def evaluate(fn: str, x: Array, y: Array | None = None, width: int = 0, fused: bool = True) -> Array:
    width = width or WIDTH[str(x.dtype)]
    padded = [np.resize(a, -(-x.size // width) * width) for a in (x, x if y is None else y)]
    result = np.empty_like(padded[0])
    addresses = [a.ctypes.data for a in (*padded, result)]
    compiled(fn, str(x.dtype), width, fused)(*addresses, len(result) // width)
    return result[: x.size]


def spacing(value: Array, dtype: str) -> Array:
    """One unit in the last place of a float of the given dtype near the value."""
    digits, smallest = {"float32": (24, -149), "float64": (53, -1074)}[dtype]
    return np.ldexp(1.0, np.maximum(np.frexp(value)[1] - digits, smallest))


def assert_same_specials(got: Array, expected: Array) -> None:
    """NaN, infinity and zero, with its sign, where they should be."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    exact = np.isinf(expected) | (expected == 0)
    np.testing.assert_array_equal(got[exact], expected[exact])
    zero = expected == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


def worst_ulp(got: Array, exact: Array, dtype: str) -> float:
    """The largest error, where neither the result nor its rounding to the dtype overflows."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        finite = np.isfinite(exact.astype(dtype)) & np.isfinite(got)
    errors = np.abs(got[finite].astype(np.float64) - exact[finite]) / spacing(exact[finite], dtype)
    return float(errors.max(initial=0))


def wide(fn: str, x: Array, y: Array | None = None) -> Array:
    """The function in float64, good to far below an ulp of float32."""
    with np.errstate(all="ignore"):
        if fn in ("sin", "cos"):
            x = np.where(np.abs(x) <= TRIGONOMETRIC_LIMIT, x, np.nan)
        arguments = (x,) if y is None else (x, y)
        return np.asarray(FUNCTIONS[fn].numpy(*(a.astype(np.float64) for a in arguments)))


def precise(fn: str, *arguments: float) -> tuple[float, float]:
    """The function in 40 digits, as a float64 and the rest that it leaves."""
    mp = pytest.importorskip("mpmath")
    if not all(map(math.isfinite, arguments)):
        return float(wide(fn, *(np.array([a]) for a in arguments))[0]), 0.0
    with mp.workdps(40):
        x = mp.mpf(arguments[0])
        exact = {
            "exp": mp.exp, "expm1": mp.expm1, "tanh": mp.tanh, "sin": mp.sin, "cos": mp.cos, "erf": mp.erf,
            "log": lambda x: mp.log(x) if x > 0 else mp.mpf(math.nan if x else -math.inf),
            "log1p": lambda x: mp.log1p(x) if x > -1 else mp.mpf(math.nan if x < -1 else -math.inf),
            "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
            "softplus": lambda x: mp.log1p(mp.exp(x)),
            "pow": lambda x: mp.power(x, mp.mpf(arguments[1])),
        }[fn](x)  # fmt: skip
        with np.errstate(all="ignore"):
            near = float(exact)
        return near, float(exact - near) if math.isfinite(near) else 0.0


def bit_patterns(everything: bool) -> Iterator[Array]:
    """Every float32, or a million of them evenly over the bit patterns, in pieces."""
    stride, piece = (1, 2**22) if everything else (4093, 2**32)
    for start in range(0, 2**32, piece):
        yield np.arange(start, min(start + piece, 2**32), stride, dtype=np.uint64).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("fn", UNARY)
def test_float32_error_is_within_its_bound(fn: str, request: pytest.FixtureRequest) -> None:
    worst = 0.0
    for x in bit_patterns(request.config.getoption("--every-float32")):
        got, exact = evaluate(fn, x), wide(fn, x)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            rounded = exact.astype(np.float32)
        overflow = np.isinf(rounded) & np.isfinite(exact)
        assert_same_specials(got[~overflow & (exact == rounded)], exact[~overflow & (exact == rounded)])
        worst = max(worst, worst_ulp(got, exact, "float32"))
    assert worst <= ULP_BOUNDS[fn, "float32"]


def float64_arguments(fn: str) -> Array:
    """Every binade, the range where the function is interesting, and the edges of its cases."""
    rng = np.random.default_rng(0)
    every = rng.integers(0, 2**64, 1500, dtype=np.uint64).view(np.float64)
    small = np.ldexp(rng.uniform(-1, 1, 1500), rng.integers(-60, 10, 1500))
    limits = {"exp": 745, "expm1": 710, "tanh": 20, "sigmoid": 745, "erf": 6.5, "sin": 1e6, "cos": 1e6}
    usual = rng.uniform(-1, 1, 2000) * limits.get(fn, 3)
    quarters = np.round(rng.uniform(0, 1e6, 300)) * (np.pi / 2)  # where sin or cos nearly vanishes
    edges = np.nextafter([1.0, 1.0, np.sqrt(0.5), np.sqrt(2), 0.0, 0.0], [0, 2, 0, 2, 1, -1])
    return np.concatenate([every[np.isfinite(every)], small, usual, quarters, edges])


@pytest.mark.parametrize("fn", UNARY)
def test_float64_error_is_within_its_bound(fn: str) -> None:
    x = float64_arguments(fn)
    if fn in ("sin", "cos"):
        x = x[np.abs(x) <= TRIGONOMETRIC_LIMIT]
    if fn == "tanh":  # mpmath's own tanh is slow far out
        x = x[np.abs(x) < 1000]
    exact, rest = np.array([precise(fn, value) for value in x.tolist()]).T
    got = evaluate(fn, x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(exact))
    assert_same_specials(got[np.isinf(exact)], exact[np.isinf(exact)])
    assert worst_float64(got, exact, rest) <= ULP_BOUNDS[fn, "float64"]


def worst_float64(got: Array, exact: Array, rest: Array) -> float:
    finite = np.isfinite(exact)
    errors = np.abs((got[finite] - exact[finite]) - rest[finite]) / spacing(exact[finite], "float64")
    return float(errors.max())


def powers(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Bases in every binade and near 1, with exponents that leave the result finite and that take it to the edge."""
    base = np.concatenate([np.exp2(rng.uniform(-126, 126, count)), 1 + rng.uniform(-1e-3, 1e-3, count)])
    exponent = rng.uniform(-1, 1, 2 * count) * 87 / np.maximum(np.abs(np.log(base)), 1e-6)
    return base, exponent


def test_float32_pow_error_is_within_its_bound() -> None:
    rng = np.random.default_rng(1)
    x, y = (a.astype(np.float32) for a in powers(rng, 200_000))
    y[::3] = np.round(y[::3])
    x[::6] *= -1  # with an exponent that is an integer
    assert worst_ulp(evaluate("pow", x, y), wide("pow", x, y), "float32") <= ULP_BOUNDS["pow", "float32"]


def test_float64_pow_error_is_within_its_bound() -> None:
    rng = np.random.default_rng(2)
    x, y = powers(rng, 2000)
    y *= rng.uniform(1, 8, y.size)  # up to the ends of float64's range
    exact, rest = np.array([precise("pow", *pair) for pair in zip(x.tolist(), y.tolist(), strict=True)]).T
    got = evaluate("pow", x, y)
    assert worst_float64(got, exact, rest) <= ULP_BOUNDS["pow", "float64"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", UNARY)
def test_specials(fn: str, dtype: str) -> None:
    x = np.array(SPECIALS, np.float64)
    with np.errstate(all="ignore"):
        x = x.astype(dtype)
        expected = wide(fn, x).astype(dtype)
    assert_same_specials(evaluate(fn, x), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pow_treats_specials_as_c_does(dtype: str) -> None:
    values = [*SPECIALS, 0.25, 4503599627370497.0, -4503599627370497.5, 9007199254740994.0, -0.3, 5.0]
    with np.errstate(all="ignore"):
        x, y = (a.ravel() for a in np.meshgrid(np.array(values).astype(dtype), np.array(values).astype(dtype)))
        expected = np.power(x.astype(np.float64), y.astype(np.float64)).astype(dtype)
    got = evaluate("pow", x, y)
    assert_same_specials(got, expected)
    usual = np.isfinite(expected)
    np.testing.assert_allclose(got[usual], expected[usual], rtol=1e-6 if dtype == "float32" else 1e-14)


def test_odd_functions_are_odd() -> None:
    x = np.random.default_rng(3).normal(size=4096).astype(np.float32)
    for fn in ("tanh", "sin", "erf"):
        np.testing.assert_array_equal(evaluate(fn, -x), -evaluate(fn, x))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("fn", "width"), [(fn, w) for fn in (*UNARY, "pow") for w in (1, 4)])
def test_every_width_computes_the_same_bits(fn: str, dtype: str, width: int) -> None:
    x = np.random.default_rng(4).normal(size=400).astype(dtype) * 10
    np.testing.assert_array_equal(evaluate(fn, x, x), evaluate(fn, x, x, width))


@pytest.mark.parametrize("fn", UNARY)
def test_without_fma_errors_stay_small(fn: str) -> None:
    x = np.random.default_rng(5).normal(size=200_000).astype(np.float32) * 20
    assert worst_ulp(evaluate(fn, x, fused=False), wide(fn, x), "float32") <= 2 + ULP_BOUNDS[fn, "float32"]


def test_definitions_are_complete_and_each_occurs_once() -> None:
    requests = [(fn, dtype, 4) for fn, dtype in ULP_BOUNDS]
    text = definitions(requests + requests)
    llvm.parse_assembly(text).verify()
    assert all(line.split("@")[1].startswith("llvm.") for line in text.splitlines() if line.startswith("declare"))
    assert "fma" not in definitions(requests, fused=False)


def test_polynomials_are_as_good_as_their_fits() -> None:
    pytest.importorskip("mpmath")
    from tests.fit_polynomials import FITS, largest_error

    for problem in FITS:
        error = largest_error(problem, POLYNOMIALS[problem.name, problem.dtype], points=41)
        assert error < 16 * problem.target, problem.name  # half an ulp; rounding the coefficients costs most
