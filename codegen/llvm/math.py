"""Elementary functions as LLVM IR: exp, log, tanh and their kin on vectors of any width, without library calls.

In: requests (function, dtype, width). Out: the text of internal functions, marked `alwaysinline`, that take and give
`<width x float>` or `<width x double>`, or scalars where the width is 1; and the `declare` lines of the LLVM
intrinsics they use, all of which are instructions.

Each function reduces its argument to a small interval, evaluates a polynomial of `graphc.codegen.llvm.polynomials`, and
puts the result together so that it keeps its relative accuracy: near zero, in the tails, through denormals. Specials
are those of C's <math.h>. The methods are the standard ones: J.-M. Muller, "Elementary Functions", 2016; P. T. P. Tang,
"Table-driven implementation of the exponential function", 1989; the formulas for the logarithm and the trigonometric
functions follow K. C. Ng's analysis in fdlibm.

`ULP_BOUNDS` holds the largest error of each, in units in the last place of the result, on a target with a fused
multiply-add. `sin` and `cos` are NaN beyond |x| = `TRIGONOMETRIC_LIMIT`: reducing larger arguments would take many
more digits of pi, and a wrong number would not show.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from math import inf, nan

from graphc.codegen.llvm.builder import mangled, vector_type
from graphc.codegen.llvm.polynomials import POLYNOMIALS
from graphc.codegen.llvm.vector_expressions import (
    Vector,
    copysign,
    fma,
    function,
    polynomial,
    select,
    two_product,
    two_sum,
)

__all__ = ["APPROXIMATE_ULP", "TRIGONOMETRIC_LIMIT", "ULP_BOUNDS", "definitions", "intrinsic_name"]

TRIGONOMETRIC_LIMIT = 1e6

ULP_BOUNDS: dict[tuple[str, str], float] = {
    ("exp", "float32"): 1.0,
    ("exp", "float64"): 1.25,
    ("expm1", "float32"): 1.5,
    ("expm1", "float64"): 2.0,
    ("log", "float32"): 1.0,
    ("log", "float64"): 1.0,
    ("log1p", "float32"): 1.0,
    ("log1p", "float64"): 1.0,
    ("softplus", "float32"): 2.0,
    ("softplus", "float64"): 2.0,
    ("tanh", "float32"): 2.5,
    ("tanh", "float64"): 2.5,
    ("sigmoid", "float32"): 2.5,
    ("sigmoid", "float64"): 2.5,
    ("sin", "float32"): 2.0,
    ("sin", "float64"): 1.0,
    ("cos", "float32"): 2.0,
    ("cos", "float64"): 1.0,
    ("erf", "float32"): 2.0,
    ("erf", "float64"): 2.5,
    ("pow", "float32"): 1.0,
    ("pow", "float64"): 1.5,
}
APPROXIMATE_ULP = 6.0  # of those that may be approximate

_ELEMENTS = {"float32": "float", "float64": "double"}
_DTYPES = {"float": "float32", "double": "float64"}

_LOG2E = 1.4426950408889634
# log(2) and pi/2 as sums of parts; all but the last end in zeros, so that small multiples of them are exact.
_LOG2 = {
    "float": (0.693359375, -2.1219444005469057e-04),
    "double": (6.93147180369123816490e-01, 1.9082149292705877e-10),
}
_HALF_PI = (1.57079632673412561417e00, 6.07710050630396597660e-11, 2.0222662487959506e-21)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
# Beyond these bounds exp is infinite or 0; expm1 is -1; tanh is 1; erf is 1.
_EXP_RANGE = {"float": (-104.0, 89.0), "double": (-746.0, 710.0)}
_EXPM1_LOW = {"float": -18.0, "double": -38.0}
_TANH_ONE = {"float": 9.1, "double": 19.1}
_TANH_SMALL = 0.55  # up to here the polynomial for tanh is fitted
_ERF_TAIL = {"float": (2.5, 4.0), "double": (3.5, 6.0)}  # the middle of the fit, and its end


def intrinsic_name(fn: str, dtype: str, width: int) -> str:
    """The symbol of a function, without the @: exp.v16f32, or exp.f32 for a scalar."""
    return f"{fn}.{mangled(vector_type(_ELEMENTS[dtype], width))}"


def definitions(requests: Iterable[tuple[str, str, int]], fused: bool = True, approximate: bool = False) -> str:
    """Each requested function once, then each `declare` they need once. No function calls another.

    Without `fused`, multiplications and additions stay apart: errors grow by a few ulp. If they may be `approximate`,
    exp, tanh, sigmoid, softplus and logarithms of float32, and what is made of exp, take a GPU's instructions for 2^x
    and 1/x, are up to `APPROXIMATE_ULP` off, and results below 2^-126 may be 0.
    """
    texts, declarations = [], set()
    for fn, dtype, width in sorted(set(requests)):
        formula = _FORMULAS[fn]
        arity = 2 if fn == "pow" else 1
        name = intrinsic_name(fn, dtype, width)
        text, declared = function(name, _ELEMENTS[dtype], width, arity, fused, approximate, formula)
        texts.append(text)
        declarations |= declared
    return "\n\n".join([*texts, *sorted(declarations)])


def _coefficients(name: str, x: Vector) -> tuple[float, ...]:
    return POLYNOMIALS[name, _DTYPES[x.element]]


# Float formats. Adding _round_constant to a float of moderate size leaves the nearest integer in its low bits.


def _mantissa_bits(x: Vector) -> int:
    return 23 if x.element == "float" else 52


def _bias(x: Vector) -> int:
    return 127 if x.element == "float" else 1023


def _round_constant(x: Vector) -> float:
    return 1.5 * 2.0 ** _mantissa_bits(x)


def _power_of_two(exponent: Vector, bits: int) -> Vector:
    """2^n from an integer whose low bits are n plus the format's bias."""
    return (exponent << bits).as_float()


# Exponentials


def _expm1_reduced(x: Vector, steps: Vector, tail: Vector | None = None) -> Vector:
    """exp(r) - 1 for r = x - steps · log(2) + tail, |r| at most about log(2) / 2 (Cody & Waite's reduction)."""
    high, low = _LOG2[x.element]
    r = fma(steps, -low, fma(steps, -high, x))
    if tail is not None:
        r = r + tail
    return fma(r * r, polynomial(r, _coefficients("expm1", x)), r)


def _exp(x: Vector, tail: Vector | None = None) -> Vector:
    """exp(x + tail), |tail| below an ulp of x.

    2^n is applied as the product of two halves, so that results below the smallest normal number round once.
    """
    low, high = _EXP_RANGE[x.element]
    x = x.at_least(low).at_most(high)
    if x.is_approximate and tail is None:
        return _through_exp2(x)
    bits, bias, shift = _mantissa_bits(x), _bias(x), _round_constant(x)
    whole = fma(x, _LOG2E, shift + 2 * bias)
    half = fma(x, _LOG2E / 2, shift + bias)
    q = _expm1_reduced(x, whole - (shift + 2 * bias), tail)
    first = _power_of_two(half.bits(), bits)
    second = _power_of_two(whole.bits() - half.bits(), bits)
    return fma(q, first, first) * second


def _through_exp2(x: Vector) -> Vector:
    """2^t (1 + δ log(2)) for x log2(e) = t + δ, of float32 in the range of exp."""
    t = x * _LOG2E
    rest = fma(x, _LOG2E - _in_float32(_LOG2E), fma(x, _LOG2E, -t))
    return t.exp2() * fma(rest, sum(_LOG2["double"]), 1.0)


def _in_float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _expm1(x: Vector) -> Vector:
    """2 (2^(n-1) (exp(r) - 1) + (2^(n-1) - 1/2)): halved, so that 2^n need not be finite."""
    bounded = x.at_least(_EXPM1_LOW[x.element]).at_most(_EXP_RANGE[x.element][1])
    shift = _round_constant(x) + _bias(x) - 1
    whole = fma(bounded, _LOG2E, shift)
    q = _expm1_reduced(bounded, whole - shift)
    half = _power_of_two(whole.bits(), _mantissa_bits(x))
    result = fma(half, q, half - 0.5)
    tiny = abs(x) < 2.0 ** -(_mantissa_bits(x) + 2)  # where expm1(x) rounds to x, also the sign of 0
    return select(tiny, x, result + result)


def _tanh(x: Vector) -> Vector:
    """m / (m + 2) with m = expm1(2 |x|)."""
    if x.is_approximate:
        return _tanh_through_exp2(x)
    doubled = abs(x).at_most(_TANH_ONE[x.element])
    doubled = doubled + doubled
    shift = _round_constant(x) + _bias(x)
    whole = fma(doubled, _LOG2E, shift)
    q = _expm1_reduced(doubled, whole - shift)
    scale = _power_of_two(whole.bits(), _mantissa_bits(x))
    m = fma(scale, q, scale - 1.0)
    return copysign(m.ratio(m + 2.0), x)


def _tanh_through_exp2(x: Vector) -> Vector:
    """1 - 2 / (1 + exp(2 |x|)) of float32; near 0, where that loses digits, a polynomial."""
    size = abs(x)
    large = x.constant(-2.0).ratio((size * (2 * _LOG2E)).exp2() + 1.0) + 1.0
    square = x * x
    small = fma(size * square, polynomial(square, _coefficients("tanh", x)), size)
    return copysign(select(size < _TANH_SMALL, small, large), x)


def _sigmoid(x: Vector) -> Vector:
    """1 / (1 + e) or e / (1 + e) with e = exp(-|x|), so that the lower tail keeps its digits."""
    below = -abs(x)
    e = _exp_of_negative(below)
    return select(x >= 0.0, x.constant(1.0), e).ratio(e + 1.0)


def _exp_of_negative(x: Vector) -> Vector:
    """exp(x) for x <= 0."""
    return _through_exp2(x.at_least(_EXP_RANGE["float"][0])) if x.is_approximate else _exp(x)


# Logarithms


def _split(x: Vector) -> tuple[Vector, Vector]:
    """k and m with x = 2^k m, sqrt(1/2) <= m < sqrt(2), for positive finite x. k is a float."""
    bits, bias = _mantissa_bits(x), _bias(x)
    root_half = 0x3F3504F3 if x.element == "float" else 0x3FE6A09E667F3BCD
    denormal = x < 2.0 ** (1 - bias)
    offset = (select(denormal, x * 2.0 ** (bits + 2), x)).bits() - root_half
    m = ((offset & ((1 << bits) - 1)) + root_half).as_float()
    shift = _round_constant(x)
    k = ((offset >> bits) + x.constant(shift).bits()).as_float() - shift
    return select(denormal, k - (bits + 2.0), k), m


def _log_formula(k: Vector, f: Vector, correction: Vector | float) -> Vector:
    """k log(2) + log(1 + f) + correction.

    With s = f / (2 + f), log(1 + f) = 2 s + s R(s²) = f - f²/2 + s (f²/2 + R): f stays exact.
    """
    high, low = _LOG2[f.element]
    s = f.ratio(f + 2.0)
    z = s * s
    remainder = z * polynomial(z, _coefficients("log", f))
    half_square = f * f * 0.5
    small = half_square - fma(s, half_square + remainder, fma(k, low, correction))
    return fma(k, high, f - small)


def _log_specials(x: Vector, result: Vector, zero: float) -> Vector:
    """Infinity at infinity, minus infinity at `zero`, NaN below it."""
    result = select(x.equals(inf), x, result)
    result = select(x.equals(zero), x.constant(-inf), result)
    return select(x.below_or_nan(zero), x.constant(nan), result)


def _log(x: Vector) -> Vector:
    k, m = _split(x)
    return _log_specials(x, _log_formula(k, m - 1.0, 0.0), 0.0)


def _log1p(x: Vector) -> Vector:
    """log(u) + c / u, where u = 1 + x as rounded and c is the rounding error. Near 0 (k = 0) f is x itself."""
    u = x + 1.0
    k, m = _split(u)
    error = select(x > 1.0, 1.0 - (u - x), x - (u - 1.0))
    near = k.equals(0.0)
    f = select(near, x, m - 1.0)
    correction = select(near, x.constant(0.0), error.ratio(u))
    result = _log_specials(x, _log_formula(k, f, correction), -1.0)
    return select(x.equals(0.0), x, result)


def _softplus(x: Vector) -> Vector:
    """max(x, 0) + log(1 + e) with e = exp(-|x|).

    As e is in [0, 1], 1 + e is 1 + f, or 2 (1 + f) where that is nearer to 1: no other power of two can be, and
    neither a special value, and f needs no correction.
    """
    e = _exp_of_negative(-abs(x))
    doubled = e > 2.0**0.5 - 1.0
    f = select(doubled, fma(e, 0.5, -0.5), e)
    k = select(doubled, x.constant(1.0), 0.0)
    return x.at_least(0.0) + _log_formula(k, f, 0.0)


# Trigonometric functions


def _reduce_angle(x: Vector) -> tuple[Vector, Vector, Vector]:
    """high + low = x - n · pi/2 with |high| <= pi/4, and an integer whose low bits are those of n; x is double."""
    first, second, third = _HALF_PI
    shift = _round_constant(x)
    rounded = fma(x, 2 / 3.141592653589793, shift)
    n = rounded - shift
    rest = x - n * first  # exact: n has at most 20 bits and the first two parts 33
    difference, error = two_sum(rest, n * -second)
    low = error - n * third
    high = difference + low
    return high, (difference - high) + low, rounded.bits()


def _circular(x: Vector, quadrant: int) -> tuple[Vector, Vector]:
    """|sin| or |cos| of the angle up to a sign, and the integer whose bit 1 is that sign.

    `quadrant` is 0 for the sine of |x| and 1 for its cosine.
    """
    high, low, n = _reduce_angle(abs(x).to_double())
    if x.element == "float":
        high = high.to_float()
    z = high * high
    c, s = polynomial(z, _coefficients("cos", x)), polynomial(z, _coefficients("sin", x))
    cube = high * z
    if x.element == "float":
        sine, cosine = fma(cube, s, high), fma(z, fma(z, c, -0.5), 1.0)
    else:
        half = z * 0.5
        sine = high + fma(cube, s, fma(-half, low, low))
        main = 1.0 - half
        cosine = main + (((1.0 - main) - half) + fma(z * z, c, -(high * low)))
    turned = n + quadrant
    value = select((turned & 1).differs(0), cosine, sine)
    return select(abs(x) <= TRIGONOMETRIC_LIMIT, value, nan), turned


def _flip(value: Vector, turned: Vector) -> Vector:
    """Move bit 1 into the sign."""
    bits = value.bits()
    sign = (turned.to_bits_of(bits) & 2) << (_mantissa_bits(value) + (7 if value.element == "float" else 10))
    return (bits ^ sign).as_float()


def _sin(x: Vector) -> Vector:
    value, turned = _circular(x, 0)
    bits = _flip(value, turned).bits()
    sign_bit = -(2**31) if x.element == "float" else -(2**63)
    return (bits ^ (x.bits() & sign_bit)).as_float()


def _cos(x: Vector) -> Vector:
    return _flip(*_circular(x, 1))


# The error function


def _erf(x: Vector) -> Vector:
    """|x| + |x| P(x²) below 1; above, 1 - exp(Q(|x|)), Q being fitted to the logarithm of 1 - erf."""
    middle, end = _ERF_TAIL[x.element]
    a = abs(x)
    near = fma(a, polynomial(a * a, _coefficients("erf", x)), a)
    tail = polynomial(a.at_most(end) - middle, _coefficients("log_erfc", x))
    return copysign(select(a < 1.0, near, 1.0 - _exp(tail)), x)


# Powers


def _log_double(x: Vector) -> tuple[Vector, Vector]:
    """log(x) as an unevaluated sum of two doubles, relative error about 2^-65; x positive and finite.

    2 s + s³ (2/3 + z P(z)) with s = f / (2 + f) and z = s²; all but z P(z) in two doubles.
    """
    k, m = _split(x)
    f = m - 1.0
    denominator, denominator_error = two_sum(f.constant(2.0), f)
    s = f / denominator
    product, product_error = two_product(s, denominator)
    s_low = (((f - product) - product_error) - s * denominator_error) / denominator
    z, z_low = _multiply((s, s_low), (s, s_low))
    series = z * polynomial(z, _coefficients("log_pow", x))
    factor, factor_low = two_sum(x.constant(_TWO_THIRDS[0]), series)
    cube = _multiply((s, s_low), (z, z_low))
    rest, rest_low = _multiply(cube, (factor, factor_low + _TWO_THIRDS[1]))
    high, low = two_sum(s + s, rest)
    low = low + (s_low + s_low + rest_low)
    log2_high, log2_low = _LOG2[x.element]
    total, error = two_sum(k * log2_high, high)
    scaled, scaled_error = two_product(k, k.constant(log2_low))
    total, second_error = two_sum(total, scaled)
    return total, (error + second_error) + (scaled_error + low)


def _multiply(a: tuple[Vector, Vector], b: tuple[Vector, Vector]) -> tuple[Vector, Vector]:
    high, low = two_product(a[0], b[0])
    return high, low + (a[0] * b[1] + a[1] * b[0])


def _positive_power(a: Vector, y: Vector) -> Vector:
    """a^y for a >= 0: exp(y log a), the logarithm and the product in two doubles."""
    log, log_low = _log_double(a)
    product, error = two_product(log, y)
    low = fma(log_low, y, error)
    plain = _log_specials(a, log, 0.0)
    product = select(plain.equals(log), product, plain * y)
    inside = abs(product) < -_EXP_RANGE["double"][0]
    return _exp(product, select(inside, low, 0.0))


def _integral(y: Vector) -> tuple[Vector, Vector]:
    """Whether a double is an integer, and whether it is an odd one. From 2^52 on all are integers, from 2^53 even."""
    a = abs(y)
    large = a >= 2.0**52
    shifted = select(large, a, a + 2.0**52)
    integral = select(large, a, shifted - 2.0**52).equals(a)
    odd = (shifted.bits() & 1).differs(0) & (a < 2.0**53) & integral
    return integral, odd


def _pow(x: Vector, y: Vector) -> Vector:
    """C's pow. float32 is computed in double, where log and exp are good enough without a second word."""
    if x.element == "float":
        return _power(x.to_double(), y.to_double(), lambda a, b: _exp(_log(a) * b)).to_float()
    return _power(x, y, _positive_power)


def _power(x: Vector, y: Vector, positive: Callable[[Vector, Vector], Vector]) -> Vector:
    """The signs and specials of pow around a^y for a >= 0."""
    a = abs(x)
    magnitude = positive(a, y)
    magnitude = select(a.equals(1.0) & y.equals(y), x.constant(1.0), magnitude)  # also 1 to an infinite power
    integral, odd = _integral(y)
    negative = x < 0.0
    zero_or_negative = x.bits() < 0
    signed = select(odd & zero_or_negative, -magnitude, magnitude)
    undefined = negative & x.differs(-inf) & integral.differs(1)
    result = select(undefined, x.constant(nan), signed)
    return select(y.equals(0.0) | x.equals(1.0), x.constant(1.0), result)


_FORMULAS: dict[str, Callable[..., Vector]] = {
    "exp": _exp,
    "expm1": _expm1,
    "log": _log,
    "log1p": _log1p,
    "softplus": _softplus,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "sin": _sin,
    "cos": _cos,
    "erf": _erf,
    "pow": _pow,
}
