"""The tensor cores: products of 16 × k by k × 8 elements, in one instruction of a warp (`mma.sync`).

In: a precision. Out: a `Fragments`. It says which elements of the factors each lane has in its registers, rounds and
packs them, and multiplies. Sums are float32. The layouts are those of the PTX manual, "Matrix fragments for
mma.m16n8k16" and "mma.m16n8k8": with g = lane // 4 and t = lane mod 4,

    A: rows g and g + 8;  B: column g;  sums: rows g and g + 8, columns 2t and 2t + 1
    k of register j, for 16-bit elements: 2t, 2t + 1 (+ 8);  for tf32: t (+ 4)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.codegen.cuda.isa.device import DeviceFunction
from graphc.codegen.llvm.builder import Value
from graphc.codegen.target import PRECISIONS, Precision
from graphc.errors import UnsupportedError

__all__ = ["COLUMNS", "ROWS", "Fragments", "fragments"]

ROWS, COLUMNS = 16, 8  # of a product's sums


@dataclass(frozen=True, slots=True)
class Fragments:
    """How the lanes of a warp have the factors in registers: `depth` is k, `packed` the elements of one register."""

    precision: Precision
    depth: int
    packed: int

    @property
    def left(self) -> tuple[tuple[int, int], ...]:
        """For each register of the left factor its row, counted from g, and its k, counted from the lane's first."""
        half = self.depth // 2
        return (0, 0), (8, 0), (0, half), (8, half)

    @property
    def right(self) -> tuple[int, ...]:
        """For each register of the right factor its k, counted from the lane's first."""
        return 0, self.depth // 2

    @property
    def element(self) -> str:
        """The type of a rounded element."""
        return {"bf16": "bfloat", "f16": "half", "tf32": "i32"}[self.precision]

    @property
    def dtype(self) -> str | None:
        """The dtype that elements are rounded to; None if no array has it (tf32)."""
        return {"bf16": "bfloat16", "f16": "float16"}.get(self.precision)

    def rounded(self, f: DeviceFunction, value: Value) -> Value:
        """A float32 element, rounded to the nearest; a rounded one as it is."""
        if value.type == self.element:
            return value
        if self.precision == "tf32":
            return f.emit("i32", f'call i32 asm "cvt.rna.tf32.f32 $0, $1;", "=r,f"({value})')
        return f.emit(self.element, f"fptrunc {value} to {self.element}")

    def pack(self, f: DeviceFunction, values: Sequence[Value]) -> Value:
        """Neighbouring elements, rounded, as one register."""
        if self.packed == 1:
            return self.rounded(f, values[0])
        type = f"<2 x {self.element}>"
        low, high = (self.rounded(f, value) for value in values)
        first = f.emit(type, f"insertelement {type} poison, {low}, i64 0")
        both = f.emit(type, f"insertelement {type} {first.text}, {high}, i64 1")
        return f.emit("i32", f"bitcast {both} to i32")

    def multiply(
        self, f: DeviceFunction, left: Sequence[Value], right: Sequence[Value], sums: Sequence[Value]
    ) -> list[Value]:
        """sums + left · right. All lanes of the warp take part."""
        name = f"mma.sync.aligned.m16n8k{self.depth}.row.col.f32.{self.precision}.{self.precision}.f32"
        text = f"{name} {{$0,$1,$2,$3}}, {{$4,$5,$6,$7}}, {{$8,$9}}, {{$10,$11,$12,$13}};"
        type = "{ float, float, float, float }"
        given = ", ".join(map(str, (*left, *right, *sums)))
        places = "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f"
        made = f.emit(type, f'call {type} asm sideeffect "{text}", "{places}"({given})')
        return [f.emit("float", f"extractvalue {made}, {k}") for k in range(4)]


def fragments(precision: Precision) -> Fragments | None:
    """The fragments of a precision. None for "float32": its products are made by multiply-adds, without tensor
    cores."""
    if precision not in PRECISIONS:
        raise UnsupportedError(f"no precision {precision!r}; there is {', '.join(PRECISIONS)}")
    if precision == "float32":
        return None
    return Fragments(precision, 8, 1) if precision == "tf32" else Fragments(precision, 16, 2)
