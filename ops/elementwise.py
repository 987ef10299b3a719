"""Elementwise ops: each element of the result is a formula of the operands' elements at the same place.

Events broadcast as in numpy, axes broadcast by name. Every op is a row of rules: the numpy reference, the
scalar formula, and the gradient in graph ops, where `d` is the adjoint of the result `y`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DtypeError
from graphc.ir import FLOATING, FLOATS, WIDEN, Node, Op, Type, broadcast_shapes, make, merge_axes, widen
from graphc.ops.leaves import CONST, array_of, const
from graphc.ops.site import Site
from graphc.scalar import FUNCTIONS, STORED, Const, Scalar, call, converted, nearest, zero
from graphc.scalar import cast as scalar_cast

NUMBERS = ("int32", *FLOATS)
LOGIC = ("bool", "int32")
ANY = ("bool", *NUMBERS)

Rule = Callable[..., Sequence[Node | None]]
Unary = Callable[[Node], Node]
Binary = Callable[[Node, Node], Node]


def _elementwise(
    name: str,
    arity: int,
    accepts: tuple[str, ...],
    formula: Callable[..., Scalar],
    reference: Callable[..., Any],
    gradient: Rule | None,
    *,
    result: str = "same",
    cost: int = 1,
) -> Op:
    """An op from its rules; `gradient(d, y, *inputs)` gives a contribution per input."""

    def infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
        if len(inputs) != arity:
            raise DtypeError(f"{name} takes {arity} values, got {len(inputs)}")
        dtypes = [i.dtype for i in inputs]
        if dtypes[-1] not in accepts or any(d != dtypes[-1] for d in dtypes):
            raise DtypeError(f"{name} takes values of one dtype out of {', '.join(accepts)}; got {', '.join(dtypes)}")
        shape = broadcast_shapes([i.shape for i in inputs], name)
        return Type(merge_axes(*(i.axes for i in inputs)), shape, dtypes[-1] if result == "same" else result)

    def lower(node: Node, site: Site) -> Scalar:
        return formula(*(site.read(k) for k in range(arity)))

    return Op(
        name,
        infer,
        compute=lambda node, arrays: reference(*arrays),
        gradient=None if gradient is None else lambda node, d: gradient(d, node, *node.inputs),
        lower=lower,
        cost=cost,
    )


def _primitive(name: str, accepts: tuple[str, ...], gradient: Rule | None, *, cost: int = 1, fn: str = "") -> Op:
    """An op that is one function of the scalar language."""
    function = FUNCTIONS[fn or name]
    result = "bool" if function.result == "bool" else "same"

    def formula(*args: Scalar) -> Scalar:
        return call(fn or name, *args)

    return _elementwise(name, function.arity, accepts, formula, function.numpy, gradient, result=result, cost=cost)


def _like(value: float, node: Node) -> Node:
    return const(value, node.dtype)


# Arithmetic.
ADD = _primitive("add", NUMBERS, lambda d, y, a, b: (d, d))
SUB = _primitive("sub", NUMBERS, lambda d, y, a, b: (d, neg(d)))
MUL = _primitive("mul", NUMBERS, lambda d, y, a, b: (mul(d, b), mul(d, a)))
DIV = _primitive("div", FLOATS, lambda d, y, a, b: (div(d, b), neg(div(mul(d, y), b))), cost=4)
NEG = _primitive("neg", NUMBERS, lambda d, y, a: (neg(d),))
ABS = _primitive("abs", NUMBERS, lambda d, y, a: (mul(d, sign(a)),))
FLOORDIV = _primitive("floordiv", ("int32",), None, cost=8)
MOD = _primitive("mod", ("int32",), None, cost=8)


def _pow_gradient(d: Node, y: Node, a: Node, b: Node) -> Sequence[Node]:
    """b aᵇ⁻¹ and aᵇ log a; both are 0 at a = 0 where they are limits or multiples of 0, not NaN."""
    if b.op is CONST:
        exponent = array_of(b)
        below: Node = const(np.where(exponent == 0, 0, exponent - 1), b.dtype)
    else:
        below = where(eq(b, _like(0, b)), _like(0, b), sub(b, _like(1, b)))
    logarithm = log(where(eq(a, _like(0, a)), _like(1, a), a))
    return mul(d, mul(b, pow(a, below))), mul(d, mul(y, logarithm))


POW = _primitive("pow", FLOATS, _pow_gradient, cost=20)


def _extremum(op: Binary) -> Rule:
    """maximum and minimum: the adjoint goes to the operand that wins, half to each at a tie."""

    def gradient(d: Node, y: Node, a: Node, b: Node) -> Sequence[Node]:
        half = where(eq(a, b), mul(d, _like(0.5, d)), _like(0, d))
        return where(op(a, b), d, half), where(op(b, a), d, half)

    return gradient


MAXIMUM = _primitive("maximum", NUMBERS, _extremum(lambda a, b: lt(b, a)), fn="max")
MINIMUM = _primitive("minimum", NUMBERS, _extremum(lambda a, b: lt(a, b)), fn="min")

# Comparisons and logic.
LT = _primitive("lt", ANY, None)
LE = _primitive("le", ANY, None)
EQ = _primitive("eq", ANY, None)
NE = _primitive("ne", ANY, None)
AND = _primitive("logical_and", LOGIC, None, fn="and")
OR = _primitive("logical_or", LOGIC, None, fn="or")
NOT = _primitive("logical_not", ("bool",), None, fn="not")

# Elementary functions.
EXP = _primitive("exp", FLOATS, lambda d, y, a: (mul(d, y),), cost=12)
EXPM1 = _primitive("expm1", FLOATS, lambda d, y, a: (mul(d, add(y, _like(1, y))),), cost=14)
LOG = _primitive("log", FLOATS, lambda d, y, a: (div(d, a),), cost=14)
LOG1P = _primitive("log1p", FLOATS, lambda d, y, a: (div(d, add(a, _like(1, a))),), cost=18)
SQRT = _primitive("sqrt", FLOATS, lambda d, y, a: (div(mul(d, _like(0.5, d)), y),), cost=6)
SIN = _primitive("sin", FLOATS, lambda d, y, a: (mul(d, cos(a)),), cost=16)
COS = _primitive("cos", FLOATS, lambda d, y, a: (neg(mul(d, sin(a))),), cost=16)
TANH = _primitive("tanh", FLOATS, lambda d, y, a: (mul(d, sub(_like(1, y), mul(y, y))),), cost=20)
SIGMOID = _primitive("sigmoid", FLOATS, lambda d, y, a: (mul(d, mul(y, sub(_like(1, y), y))),), cost=16)
SOFTPLUS = _primitive("softplus", FLOATS, lambda d, y, a: (mul(d, sigmoid(a)),), cost=24)
ERF = _primitive(
    "erf", FLOATS, lambda d, y, a: (mul(d, mul(_like(2 / math.sqrt(math.pi), a), exp(neg(mul(a, a))))),), cost=20
)
FLOOR = _primitive("floor", FLOATS, lambda d, y, a: (None,))


def _one(x: Scalar, value: int = 1) -> Scalar:
    return Const(value if x.dtype == "int32" else float(value), x.dtype)


def _relu_formula(x: Scalar) -> Scalar:
    return call("max", x, zero(x.dtype))


RELU = _elementwise(
    "relu",
    1,
    NUMBERS,
    _relu_formula,
    lambda a: np.maximum(a, a.dtype.type(0)),
    lambda d, y, a: (where(lt(_like(0, a), a), d, _like(0, d)),),
)


def _sign_formula(x: Scalar) -> Scalar:
    """The sign; a zero or a NaN is returned as it is, and a number that counts as zero as one."""
    nothing = call("mul", x, zero(x.dtype)) if x.dtype in FLOATS else x
    negative = call("select", call("lt", x, zero(x.dtype)), _one(x, -1), nothing)
    return call("select", call("lt", zero(x.dtype), x), _one(x), negative)


SIGN = _elementwise("sign", 1, NUMBERS, _sign_formula, np.sign, lambda d, y, a: (None,), cost=2)


# where(condition, then, otherwise): the one op whose first operand has a dtype of its own.
def _where_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    condition, then, otherwise = inputs
    if condition.dtype != "bool":
        raise DtypeError(f"the condition of where is bool, got {condition.dtype}; compare it, as in v > 0")
    if then.dtype != otherwise.dtype:
        raise DtypeError(f"where takes two values of one dtype, got {then.dtype} and {otherwise.dtype}")
    shape = broadcast_shapes([i.shape for i in inputs], "where")
    return Type(merge_axes(*(i.axes for i in inputs)), shape, then.dtype)


def _where_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    zero = _like(0, d)
    return None, where(node.inputs[0], d, zero), where(node.inputs[0], zero, d)


def _where_lower(node: Node, site: Site) -> Scalar:
    return call("select", site.read(0), site.read(1), site.read(2))


WHERE = Op("where", _where_infer, lambda node, arrays: np.where(*arrays), _where_gradient, _where_lower, stored=True)


# cast(value; dtype): between floats the adjoint is cast back; integers have none. To a dtype that only stores, a number
# is rounded, a float64 by way of float32; its adjoint is a float32 and passes as it is.
def _cast_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    return Type(inputs[0].axes, inputs[0].shape, attrs["dtype"])


def _cast_gradient(node: Node, d: Node) -> Sequence[Node | None]:
    (value,) = node.inputs
    return (cast(d, value.dtype) if value.dtype in FLOATS and node.dtype in FLOATING else None,)


def _cast_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    return nearest(arrays[0], node.dtype) if node.dtype in STORED else converted(arrays[0], node.dtype)


CAST = Op(
    "cast",
    _cast_infer,
    _cast_compute,
    _cast_gradient,
    lambda node, site: scalar_cast(site.read(0), node.dtype),
    attributes=("dtype",),
)

# stop_gradient(value): the value, held constant by differentiation.
STOP_GRADIENT = _elementwise("stop_gradient", 1, ANY, lambda x: x, lambda a: a, None, cost=0)


# How gradient rules and expressions build nodes.


def _of_one(op: Op) -> Unary:
    def build(a: Node) -> Node:
        return make(op, (a,))

    build.__name__ = op.name
    return build


def _of_two(op: Op) -> Binary:
    def build(a: Node, b: Node) -> Node:
        return make(op, (a, b))

    build.__name__ = op.name
    return build


neg: Unary = _of_one(NEG)
abs: Unary = _of_one(ABS)
sign: Unary = _of_one(SIGN)
floor: Unary = _of_one(FLOOR)
exp: Unary = _of_one(EXP)
expm1: Unary = _of_one(EXPM1)
log: Unary = _of_one(LOG)
log1p: Unary = _of_one(LOG1P)
sqrt: Unary = _of_one(SQRT)
sin: Unary = _of_one(SIN)
cos: Unary = _of_one(COS)
tanh: Unary = _of_one(TANH)
sigmoid: Unary = _of_one(SIGMOID)
erf: Unary = _of_one(ERF)
relu: Unary = _of_one(RELU)
softplus: Unary = _of_one(SOFTPLUS)
stop_gradient: Unary = _of_one(STOP_GRADIENT)
logical_not: Unary = _of_one(NOT)

add: Binary = _of_two(ADD)
sub: Binary = _of_two(SUB)
mul: Binary = _of_two(MUL)
div: Binary = _of_two(DIV)
pow: Binary = _of_two(POW)
maximum: Binary = _of_two(MAXIMUM)
minimum: Binary = _of_two(MINIMUM)
floordiv: Binary = _of_two(FLOORDIV)
mod: Binary = _of_two(MOD)
lt: Binary = _of_two(LT)
le: Binary = _of_two(LE)
eq: Binary = _of_two(EQ)
ne: Binary = _of_two(NE)
logical_and: Binary = _of_two(AND)
logical_or: Binary = _of_two(OR)


def where(condition: Node, then: Node, otherwise: Node) -> Node:
    return make(WHERE, (condition, then, otherwise))


def cast(value: Node, dtype: str) -> Node:
    if value.dtype != dtype:
        value = widen(value)
    return value if value.dtype == dtype else make(CAST, (value,), dtype=dtype)


def balanced_sum(terms: Sequence[Node]) -> Node:
    """The sum as a balanced tree: it is as deep as the logarithm of the number of terms, and rounds as little."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return add(balanced_sum(terms[:half]), balanced_sum(terms[half:]))


ELEMENTWISE = (
    ADD, SUB, MUL, DIV, NEG, ABS, FLOORDIV, MOD, POW, MAXIMUM, MINIMUM, LT, LE, EQ, NE, AND, OR, NOT, EXP, EXPM1,
    LOG, LOG1P, SQRT, SIN, COS, TANH, SIGMOID, ERF, FLOOR, RELU, SOFTPLUS, SIGN, WHERE, CAST, WIDEN, STOP_GRADIENT,
)  # fmt: skip
