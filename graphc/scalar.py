"""Scalars: the expressions that compute one element of one value.

They are what an op lowers to and what a kernel of the loop IR (`graphc.codegen.program`) computes at each
point of its domain. A scalar is a small immutable tree; sharing is spelled by name, through `Ref`, so that
hashing and printing stay linear.

    Scalar = Const | Index | Size | Ref | Load | Call

`Index` is a loop variable, `Size` the length of an axis known when the program is called; both have dtype
"index" (a 64-bit integer), and so do the subscripts of a `Load`. Functions are the closed table `FUNCTIONS`.

The dtypes of `STORED` are those of memory alone. An element of such a buffer is loaded as a float32, and a float32 is
rounded where it is stored; so no scalar has such a dtype, and nothing is ever computed in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ml_dtypes  # noqa: F401 - tells numpy what "bfloat16" is
import numpy as np

FLOATS = ("float32", "float64")
DTYPES = ("float32", "float64", "int32", "bool", "index")
STORED = ("float16", "bfloat16")


def computed(dtype: str) -> str:
    """The dtype in which a value that is stored as `dtype` is computed."""
    return "float32" if dtype in STORED else dtype


@dataclass(frozen=True, slots=True)
class Const:
    value: float | int | bool
    dtype: str
    _negative: bool = field(init=False, repr=False)  # 0.0 and -0.0 are two numbers

    def __post_init__(self) -> None:
        object.__setattr__(self, "_negative", math.copysign(1.0, self.value) < 0)

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Index:
    """A loop variable: a dimension of a kernel, of a reduction, or an enclosing `Loop`."""

    name: str

    @property
    def dtype(self) -> str:
        return "index"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Size:
    """A length that comes with the data: one integer per call."""

    name: str

    @property
    def dtype(self) -> str:
        return "index"

    def __str__(self) -> str:
        return f"#{self.name}"


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of an earlier `Let` or accumulator of the same kernel."""

    name: str
    dtype: str

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True, slots=True)
class Load:
    """One element of a buffer.

    Where `when` is false the element is not touched, and the value is unspecified: a `select` on the same
    condition must discard it.
    """

    buffer: str
    at: tuple[Scalar, ...]
    dtype: str
    when: Scalar | None = None
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.buffer, self.at, self.dtype, self.when)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        text = f"{self.buffer}[{', '.join(map(str, self.at))}]"
        return text if self.when is None else f"({text} when {self.when})"


@dataclass(frozen=True, slots=True)
class Call:
    fn: str
    args: tuple[Scalar, ...]
    dtype: str
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.fn, self.args, self.dtype)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        name = f"cast.{self.dtype}" if self.fn == "cast" else self.fn
        return f"{name}({', '.join(map(str, self.args))})"


Scalar = Const | Index | Size | Ref | Load | Call


@dataclass(frozen=True, slots=True)
class Function:
    """A primitive of the scalar language.

    `result` is "same" (the dtype of the last argument) or "bool"; `cast` alone names its result freely.
    `numpy` is its exact meaning up to rounding.
    """

    arity: int
    accepts: tuple[str, ...]
    result: str
    numpy: Callable[..., Any]


_NUMBERS = ("float32", "float64", "int32", "index")
_LOGIC = ("bool", "int32", "index")


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e).astype(e.dtype) / (1 + e)


def _softplus(x: Any) -> Any:
    return np.logaddexp(x, np.zeros_like(x))


def _erf(x: Any) -> Any:
    x = np.asarray(x)
    return np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype)


def nearest(x: Any, dtype: str) -> Any:
    """Floats rounded to a dtype of `STORED`: to the nearest, ties to even, and to infinity past the largest."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(x).astype(np.float32).astype(dtype)


def converted(x: Any, dtype: str) -> Any:
    """Numbers converted to a dtype that is computed with. To integers, floats are truncated towards zero; outside the
    range of the integers they become the nearest one, and NaN becomes 0, as processors do it and NumPy leaves open."""
    array = np.asarray(x)
    if array.dtype.kind != "f" or np.dtype(dtype).kind != "i":
        return array.astype(dtype)
    ends = np.iinfo(np.dtype(dtype))
    low, high = array <= ends.min, array >= ends.max
    result = np.asarray(np.where(low | high | np.isnan(array), 0, array)).astype(dtype)
    result[low], result[high] = ends.min, ends.max
    return result


def _rounding(dtype: str) -> Callable[[Any], Any]:
    return lambda x: nearest(x, dtype).astype(np.float32)


def _shift_left(x: Any, k: Any) -> Any:
    return (np.asarray(x, np.int32).view(np.uint32) << np.asarray(k, np.uint32)).view(np.int32)


def _shift_right(x: Any, k: Any) -> Any:
    return (np.asarray(x, np.int32).view(np.uint32) >> np.asarray(k, np.uint32)).view(np.int32)


FUNCTIONS: dict[str, Function] = {
    # arithmetic; integers wrap around
    "add": Function(2, _NUMBERS, "same", np.add),
    "sub": Function(2, _NUMBERS, "same", np.subtract),
    "mul": Function(2, _NUMBERS, "same", np.multiply),
    "div": Function(2, FLOATS, "same", np.divide),
    "neg": Function(1, _NUMBERS, "same", np.negative),
    "abs": Function(1, _NUMBERS, "same", np.abs),
    "max": Function(2, _NUMBERS, "same", np.maximum),  # NaN if either is
    "min": Function(2, _NUMBERS, "same", np.minimum),
    # the quotient rounded down, and the remainder, which has the divisor's sign; both are 0 where the divisor is; a
    # divisor of dtype "index" is positive
    "floordiv": Function(2, ("int32", "index"), "same", np.floor_divide),
    "mod": Function(2, ("int32", "index"), "same", np.mod),
    # comparisons and logic; `and`, `or`, `xor`, `not` are bitwise on integers
    "lt": Function(2, (*_NUMBERS, "bool"), "bool", np.less),
    "le": Function(2, (*_NUMBERS, "bool"), "bool", np.less_equal),
    "eq": Function(2, (*_NUMBERS, "bool"), "bool", np.equal),
    "ne": Function(2, (*_NUMBERS, "bool"), "bool", np.not_equal),
    "and": Function(2, _LOGIC, "same", np.bitwise_and),
    "or": Function(2, _LOGIC, "same", np.bitwise_or),
    "xor": Function(2, _LOGIC, "same", np.bitwise_xor),
    "not": Function(1, _LOGIC, "same", np.invert),
    "shl": Function(2, ("int32",), "same", _shift_left),
    "shr": Function(2, ("int32",), "same", _shift_right),  # logical: zeros enter from the left
    # select(condition, then, otherwise); cast truncates floats towards zero
    "select": Function(3, DTYPES, "same", np.where),
    "cast": Function(1, DTYPES, "any", None),  # type: ignore[arg-type]
    # the nearest number that memory of this dtype can hold
    "round.float16": Function(1, ("float32",), "same", _rounding("float16")),
    "round.bfloat16": Function(1, ("float32",), "same", _rounding("bfloat16")),
    # elementary functions
    "sqrt": Function(1, FLOATS, "same", np.sqrt),
    "floor": Function(1, FLOATS, "same", np.floor),
    "exp": Function(1, FLOATS, "same", np.exp),
    "expm1": Function(1, FLOATS, "same", np.expm1),
    "log": Function(1, FLOATS, "same", np.log),
    "log1p": Function(1, FLOATS, "same", np.log1p),
    "softplus": Function(1, FLOATS, "same", _softplus),  # log(1 + eˣ)
    "tanh": Function(1, FLOATS, "same", np.tanh),
    "sigmoid": Function(1, FLOATS, "same", _sigmoid),
    "sin": Function(1, FLOATS, "same", np.sin),
    "cos": Function(1, FLOATS, "same", np.cos),
    "erf": Function(1, FLOATS, "same", _erf),
    "pow": Function(2, FLOATS, "same", np.power),
}


def call(fn: str, *args: Scalar) -> Scalar:
    """Apply a function of the table, checking arity and dtypes, and folding index arithmetic on constants and
    select(c, True, False) = c."""
    function = FUNCTIONS[fn]
    dtype = args[-1].dtype
    if len(args) != function.arity or dtype not in function.accepts:
        raise TypeError(f"{fn} takes {function.arity} of {function.accepts}, got {[a.dtype for a in args]}")
    operands = args[1:] if fn == "select" else args
    if any(a.dtype != dtype for a in operands) or (fn == "select" and args[0].dtype != "bool"):
        raise TypeError(f"{fn} takes arguments of one dtype, got {[a.dtype for a in args]}")
    result = "bool" if function.result == "bool" else dtype
    if fn == "select" and operands == (Const(True, "bool"), Const(False, "bool")):
        return args[0]
    if dtype == "index":
        folded = _fold_index(fn, args)
        if folded is not None:
            return folded
    return Call(fn, args, result)


def cast(value: Scalar, dtype: str) -> Scalar:
    if value.dtype == dtype:
        return value
    if isinstance(value, Const) and dtype in ("index", "int32"):
        return Const(int(value.value), dtype)
    if dtype in STORED:
        return call(f"round.{dtype}", cast(value, "float32"))
    return Call("cast", (value,), dtype)


def holds(dtype: str, value: float | int | bool) -> bool:
    """Whether a buffer of a dtype can hold a constant exactly."""
    return dtype not in STORED or float(nearest(value, dtype)) == float(np.float32(value))


def index(value: int) -> Const:
    return Const(value, "index")


def zero(dtype: str) -> Const:
    return Const(False if dtype == "bool" else 0 if dtype in ("int32", "index") else 0.0, dtype)


def lowest(dtype: str) -> Const:
    """The lowest number of a dtype."""
    return Const({"int32": -(2**31), "index": -(2**63)}.get(dtype, -math.inf), dtype)


def conjunction(conditions: Iterable[Scalar]) -> Scalar | None:
    """Whether all conditions hold; None if there are none."""
    result: Scalar | None = None
    for condition in conditions:
        result = condition if result is None else call("and", result, condition)
    return result


def conjuncts(
    condition: Scalar | None, resolve: Callable[[Scalar], Scalar] = lambda scalar: scalar
) -> Iterator[Scalar]:
    """The conditions that `and` joins to this one; `resolve` says what names stand for."""
    if condition is None:
        return
    match resolve(condition):
        case Call("and", (a, b), "bool"):
            yield from conjuncts(a, resolve)
            yield from conjuncts(b, resolve)
        case part:
            yield part


def walk(scalar: Scalar | None) -> Iterator[Scalar]:
    """A scalar and all its parts, subscripts and conditions of loads too."""
    waiting = [scalar]
    while waiting:
        part = waiting.pop()
        if part is None:
            continue
        yield part
        if isinstance(part, Call):
            waiting += part.args[::-1]
        elif isinstance(part, Load):
            waiting += (part.when, *part.at[::-1])


Rule = Callable[["Scalar"], "Scalar | None"]
"""What takes the place of a part of a scalar; None: it stays, and its own parts are asked about."""


def replaced(scalar: Scalar, rule: Rule) -> Scalar:
    """A scalar whose parts are replaced as the rule says."""
    found = rule(scalar)
    if found is not None:
        return found
    match scalar:
        case Call(fn, args, "index") if fn != "cast":
            return call(fn, *(replaced(a, rule) for a in args))
        case Call(fn, args, dtype):
            return Call(fn, tuple(replaced(a, rule) for a in args), dtype)
        case Load():
            return replaced_inside(scalar, rule)
    return scalar


def replaced_inside(load: Load, rule: Rule) -> Load:
    """A load whose subscripts and condition are replaced as the rule says: for rules that change loads, which nest."""
    when = None if load.when is None else replaced(load.when, rule)
    return Load(load.buffer, tuple(replaced(a, rule) for a in load.at), load.dtype, when)


def with_indices(scalar: Scalar, values: Mapping[str, Scalar]) -> Scalar:
    """A scalar with other scalars in the place of some of its indices, by name."""
    return replaced(scalar, lambda part: values.get(part.name) if isinstance(part, Index) else None)


def map_loads(scalar: Scalar, change: Callable[[Load], Load]) -> Scalar:
    """A scalar with each of its loads changed, those in the subscripts and the condition of another before that."""

    def rule(part: Scalar) -> Scalar | None:
        return change(replaced_inside(part, rule)) if isinstance(part, Load) else None

    return replaced(scalar, rule)


def guarded(scalar: Scalar, condition: Scalar) -> Scalar:
    """A scalar that touches memory only where a condition holds."""
    return map_loads(
        scalar,
        lambda load: replace(load, when=condition if load.when is None else call("and", condition, load.when)),
    )


def offset_from(scalar: Scalar, loop: str) -> int | None:
    """How far a subscript is from an index: k for `loop + k`, None for anything else."""
    match scalar:
        case Index(name) if name == loop:
            return 0
        case Call("add", (Index(name), Const(value))) if name == loop:
            return int(value)
    return None


def _fold_index(fn: str, args: tuple[Scalar, ...]) -> Scalar | None:
    """Constants, and the identities x + 0, x · 1, x · 0, 0 // k, 0 mod k of index arithmetic."""
    constant = [isinstance(a, Const) for a in args]
    if not any(constant):
        return None
    if all(constant):
        values = [a.value for a in args if isinstance(a, Const)]
        result = FUNCTIONS[fn].numpy(*values)
        return Const(bool(result), "bool") if isinstance(result, np.bool_) else Const(int(result), "index")
    match fn, args:
        case ("add", (x, Const(0))) | ("add", (Const(0), x)) | ("sub", (x, Const(0))):
            return x
        case ("mul", (x, Const(1))) | ("mul", (Const(1), x)) | ("floordiv", (x, Const(1))):
            return x
        case ("mul", (_, Const(0))) | ("mul", (Const(0), _)) | ("mod", (_, Const(1))):
            return index(0)
        case ("add", (Call("add", (x, Const(a))), Const(b))):
            return call("add", x, index(int(a) + int(b)))
    return None
