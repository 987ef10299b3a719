"""Arithmetic on vectors, written in Python's operators and recorded as LLVM IR.

In: vectors (or scalars: width 1) of floats, integers or conditions, and Python numbers, which stand for a constant
in every lane. Out: the instructions, in the order they were written, in the `Body` they share. Nothing here
calls a library: `fabs`, `copysign` and, on a `fused` target, `fma` are instructions of the machine.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from graphc.codegen.llvm.builder import mangled, vector_type

__all__ = ["Body", "Vector", "copysign", "fma", "function", "polynomial", "select", "two_product", "two_sum"]

_FLOATS = {"float": "i32", "double": "i64"}
_SPLITTER = {"float": 2.0**12 + 1, "double": 2.0**27 + 1}


@dataclass(slots=True)
class Body:
    """The instructions of one function. Where the target has no fused multiply-add, `fma` rounds twice. With
    `approximate`, the instructions of a GPU that are nearly right may be used."""

    fused: bool
    approximate: bool = False
    lines: list[str] = field(default_factory=list)
    declarations: set[str] = field(default_factory=set)

    def emit(self, element: str, width: int, instruction: str) -> Vector:
        """Append an instruction; the result is its value."""
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {instruction}")
        return Vector(self, name, element, width)

    def call(self, name: str, *arguments: Vector) -> Vector:
        """An intrinsic whose arguments and result have one type."""
        first = arguments[0]
        symbol = f"@llvm.{name}.{mangled(first.type)}"
        self.declarations.add(f"declare {first.type} {symbol}({', '.join([first.type] * len(arguments))})")
        return self.emit(first.element, first.width, f"call {first.type} {symbol}({', '.join(map(str, arguments))})")


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """`width` values of one LLVM type: float, double, i32, i64 or i1. Integers wrap around."""

    body: Body
    text: str
    element: str
    width: int

    def __str__(self) -> str:
        return f"{self.type} {self.text}"

    @property
    def type(self) -> str:
        """The LLVM type."""
        return vector_type(self.element, self.width)

    def constant(self, value: float) -> Vector:
        """A number of this vector's type in every lane."""
        if self.element in _FLOATS:
            single = value if self.element == "double" else struct.unpack("f", struct.pack("f", value))[0]
            text = f"0x{struct.unpack('>Q', struct.pack('>d', single))[0]:016X}"
        else:
            text = str(int(value))
        every = text if self.width == 1 else f"splat ({self.element} {text})"
        return Vector(self.body, every, self.element, self.width)

    def operand(self, value: Vector | float) -> Vector:
        """A vector as it is; a number in every lane."""
        return value if isinstance(value, Vector) else self.constant(value)

    def _binary(self, op: str, other: Vector | float) -> Vector:
        return self.body.emit(self.element, self.width, f"{op} {self}, {self.operand(other).text}")

    def __add__(self, other: Vector | float) -> Vector:
        return self._binary("fadd" if self.element in _FLOATS else "add", other)

    def __sub__(self, other: Vector | float) -> Vector:
        return self._binary("fsub" if self.element in _FLOATS else "sub", other)

    def __rsub__(self, other: float) -> Vector:
        return self.constant(other) - self

    def __mul__(self, other: Vector | float) -> Vector:
        return self._binary("fmul", other)

    def __truediv__(self, other: Vector | float) -> Vector:
        return self._binary("fdiv", other)

    def ratio(self, other: Vector) -> Vector:
        """The quotient by a number between 1 and 2^100."""
        return self * other._approximation("rcp") if self.is_approximate else self / other

    def exp2(self) -> Vector:
        """2 to the power of it, as a GPU approximates that: to 2^-22.5. What is smaller than 2^-126 becomes 0."""
        return self._approximation("ex2")

    def _approximation(self, name: str) -> Vector:
        symbol = f"@llvm.nvvm.{name}.approx.ftz.f"
        self.body.declarations.add(f"declare float {symbol}(float)")
        return self.body.emit(self.element, self.width, f"call float {symbol}({self})")

    @property
    def is_approximate(self) -> bool:
        """Whether the GPU's approximate instructions may be used for this type."""
        return self.body.approximate and self.type == "float"

    def __rtruediv__(self, other: float) -> Vector:
        return self.constant(other) / self

    def __neg__(self) -> Vector:
        return self.body.emit(self.element, self.width, f"fneg {self}")

    def __abs__(self) -> Vector:
        return self.body.call("fabs", self)

    def __and__(self, other: Vector | int) -> Vector:
        return self._binary("and", other)

    def __or__(self, other: Vector | int) -> Vector:
        return self._binary("or", other)

    def __xor__(self, other: Vector | int) -> Vector:
        return self._binary("xor", other)

    def __lshift__(self, count: int) -> Vector:
        return self._binary("shl", count)

    def __rshift__(self, count: int) -> Vector:
        """Arithmetic: the sign enters from the left."""
        return self._binary("ashr", count)

    def _compare(self, floats: str, integers: str, other: Vector | float) -> Vector:
        op = f"fcmp {floats}" if self.element in _FLOATS else f"icmp {integers}"
        return self.body.emit("i1", self.width, f"{op} {self}, {self.operand(other).text}")

    def __lt__(self, other: Vector | float) -> Vector:
        return self._compare("olt", "slt", other)

    def __le__(self, other: Vector | float) -> Vector:
        return self._compare("ole", "sle", other)

    def __gt__(self, other: Vector | float) -> Vector:
        return self._compare("ogt", "sgt", other)

    def __ge__(self, other: Vector | float) -> Vector:
        return self._compare("oge", "sge", other)

    def equals(self, other: Vector | float) -> Vector:
        """False where either is NaN."""
        return self._compare("oeq", "eq", other)

    def differs(self, other: Vector | float) -> Vector:
        """True also where either is NaN."""
        return self._compare("une", "ne", other)

    def below_or_nan(self, other: Vector | float) -> Vector:
        """Less than the other; for floats also true where either is NaN."""
        return self._compare("ult", "slt", other)

    def at_most(self, bound: float) -> Vector:
        """The smaller of the two; NaN stays."""
        return select(self > bound, self.constant(bound), self)

    def at_least(self, bound: float) -> Vector:
        """The larger of the two; NaN stays."""
        return select(self < bound, self.constant(bound), self)

    def _convert(self, op: str, element: str) -> Vector:
        return self.body.emit(element, self.width, f"{op} {self} to {vector_type(element, self.width)}")

    def bits(self) -> Vector:
        """The float's bit pattern as an integer."""
        return self._convert("bitcast", _FLOATS[self.element])

    def as_float(self) -> Vector:
        """The float with this bit pattern."""
        return self._convert("bitcast", {"i32": "float", "i64": "double"}[self.element])

    def to_double(self) -> Vector:
        """The float as a double."""
        return self if self.element == "double" else self._convert("fpext", "double")

    def to_float(self) -> Vector:
        """The double, rounded to a float."""
        return self._convert("fptrunc", "float")

    def to_bits_of(self, like: Vector) -> Vector:
        """This 64-bit integer, cut to the width of another integer vector."""
        return self if self.element == like.element else self._convert("trunc", like.element)


def select(condition: Vector, then: Vector, otherwise: Vector | float) -> Vector:
    """`then` where the condition holds, and `otherwise` elsewhere."""
    other = then.operand(otherwise)
    return then.body.emit(then.element, then.width, f"select {condition}, {then}, {other}")


def fma(a: Vector, b: Vector | float, c: Vector | float) -> Vector:
    """a · b + c, rounded once where the target can."""
    if not a.body.fused:
        return a * b + c
    return a.body.call("fma", a, a.operand(b), a.operand(c))


def copysign(magnitude: Vector, sign: Vector) -> Vector:
    """The magnitude of one with the sign of another."""
    return magnitude.body.call("copysign", magnitude, sign)


def polynomial(x: Vector, coefficients: tuple[float, ...]) -> Vector:
    """Horner's rule; the coefficient of the lowest power comes first."""
    result = x.constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = fma(result, x, coefficient)
    return result


def two_sum(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """a + b, rounded, and the exact rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """a · b, rounded, and the exact rounding error; by Dekker's splitting where there is no fma."""
    product = a * b
    if a.body.fused:
        return product, fma(a, b, -product)
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return product, a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)


def _halves(a: Vector) -> tuple[Vector, Vector]:
    """Two numbers of half the digits whose sum is a (Veltkamp)."""
    scaled = a * _SPLITTER[a.element]
    high = scaled - (scaled - a)
    return high, a - high


def function(
    name: str, element: str, width: int, arity: int, fused: bool, approximate: bool, formula: Callable[..., Vector]
) -> tuple[str, set[str]]:
    """The definition of an internal function, and the lines that declare what it uses."""
    body = Body(fused, approximate)
    arguments = [Vector(body, f"%x{i}", element, width) for i in range(arity)]
    result = formula(*arguments)
    header = f"define internal {result.type} @{name}({', '.join(map(str, arguments))}) alwaysinline nounwind {{"
    return "\n".join([header, *body.lines, f"  ret {result}", "}"]), body.declarations
