"""Fits the polynomials of `graphc.codegen.llvm.polynomials`, and measures their errors. Run it to print the tables.

    python -m tests.fit_polynomials

Each fit minimises the largest weighted error on an interval: weighted least squares at Chebyshev points, each weight
multiplied by the error it left until the errors are level (Lawson's algorithm, 1961). The degree is the smallest whose
error is under the target, a small part of half a unit in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np

__all__ = ["FITS", "Fit", "fit", "largest_error", "rounded"]

_POINTS = 120
_ROUNDS = 10
_DIGITS = 60
_HALF_ULP = {"float32": 2.0**-24, "float64": 2.0**-53}
_SHARE = {"float32": 1 / 32, "float64": 1 / 16}  # of half an ulp

Real = Any  # an mpmath number


@dataclass(frozen=True, slots=True)
class Fit:
    """Approximate `function` on `interval` so that `weight` times the error, the error that the polynomial
    causes in the elementary function relative to its value, is small."""

    name: str
    dtype: str
    function: Callable[[Real], Real]
    weight: Callable[[Real], Real]
    interval: tuple[float, float]
    target: float


def _log_series(z: Real) -> Real:
    """(log((1 + s) / (1 - s)) - 2 s) / s³ with z = s²."""
    s = mp.sqrt(z)
    return (mp.log1p(s) - mp.log1p(-s) - 2 * s) / (s * z)


def _fits(dtype: str) -> list[Fit]:
    target = _HALF_ULP[dtype] * _SHARE[dtype]
    half_log2, quarter_pi, log_z = 0.3467, 0.61686, 0.02944  # log(2)/2, (pi/4)^2, (3 - sqrt(8))^2
    middle, last = (2.5, 4.0) if dtype == "float32" else (3.5, 6.0)
    return [
        Fit("expm1", dtype, lambda r: (mp.expm1(r) - r) / r**2, abs, (-half_log2, half_log2), target),
        Fit("log", dtype, _log_series, lambda z: z / 2, (0, log_z), target),
        Fit("sin", dtype, lambda z: mp.sin(mp.sqrt(z)) / mp.sqrt(z) / z - 1 / z, lambda z: z, (0, quarter_pi), target),
        Fit("cos", dtype, lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, lambda z: z**2, (0, quarter_pi), target),
        Fit("erf", dtype, lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, lambda z: 1, (0, 1), target),
        Fit("log_erfc", dtype, lambda t: mp.log(mp.erfc(t + middle)), lambda t: mp.erfc(t + middle),
            (1 - middle, last - middle), target),
    ]  # fmt: skip


FITS = [
    *_fits("float32"),
    *_fits("float64"),
    # where 2^x is one instruction: only for small arguments
    Fit("tanh", "float32", lambda z: (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z, (0, 0.3025),
        _HALF_ULP["float32"] * _SHARE["float32"]),
    # for pow: the same series beyond its first term, to twice the precision less what its size makes up for
    Fit("log_pow", "float64", lambda z: (_log_series(z) - mp.mpf(2) / 3) / z, lambda z: z**2 / 2, (0, 0.02944),
        2.0**-68),
]  # fmt: skip


def _value(coefficients: Sequence[Real], x: Real) -> Real:
    """The polynomial at x: coefficients lowest power first (Horner's rule)."""
    value = mp.mpf(0)
    for c in reversed(coefficients):
        value = value * x + c
    return value


def _points(interval: tuple[float, float], count: int) -> list[Real]:
    low, high = map(mp.mpf, interval)
    return [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (i + 0.5) / count) for i in range(count)]


def fit(problem: Fit, degree: int) -> tuple[Real, ...]:
    """The coefficients, lowest power first, not rounded."""
    points = _points(problem.interval, _POINTS)
    powers = [[x**k for k in range(degree + 1)] for x in points]
    values = [problem.function(x) for x in points]
    scale = [problem.weight(x) ** 2 for x in points]
    emphasis = [mp.mpf(1)] * _POINTS
    coefficients: list[Real] = []
    for _ in range(_ROUNDS):
        weights = [a * b for a, b in zip(scale, emphasis, strict=True)]
        normal = mp.matrix(degree + 1, degree + 1)
        right = mp.matrix(degree + 1, 1)
        moments = [mp.fsum(w * x**k for w, x in zip(weights, points, strict=True)) for k in range(2 * degree + 1)]
        for i in range(degree + 1):
            right[i] = mp.fsum(w * p[i] * v for w, p, v in zip(weights, powers, values, strict=True))
            for j in range(degree + 1):
                normal[i, j] = moments[i + j]
        coefficients = list(mp.lu_solve(normal, right))
        errors = [abs(problem.weight(x) * (_value(coefficients, x) - v)) for x, v in zip(points, values, strict=True)]
        total = mp.fsum(e * m for e, m in zip(errors, emphasis, strict=True))
        emphasis = [m * e / total * _POINTS for e, m in zip(errors, emphasis, strict=True)]
    return tuple(coefficients)


def rounded(coefficients: tuple[Real, ...], dtype: str) -> tuple[float, ...]:
    """The coefficients as numbers of a dtype."""
    return tuple(float(np.dtype(dtype).type(float(c))) for c in coefficients)


def largest_error(problem: Fit, coefficients: tuple[Real, ...], points: int = 301) -> float:
    """The largest weighted error of the polynomial in exact arithmetic."""
    with mp.workdps(_DIGITS):
        return float(
            max(
                abs(problem.weight(x) * (_value(coefficients, x) - problem.function(x)))
                for x in _points(problem.interval, points)
            )
        )


def main() -> None:
    """Print the tables."""
    with mp.workdps(_DIGITS):
        for problem in FITS:
            degree = 1
            while largest_error(problem, coefficients := fit(problem, degree), 101) > problem.target:
                degree += 1
            table = rounded(coefficients, problem.dtype)
            print(f'    ("{problem.name}", "{problem.dtype}"): (  # {largest_error(problem, table):.1e}')
            print("".join(f"        {c!r},\n" for c in table) + "    ),", flush=True)


if __name__ == "__main__":
    main()
