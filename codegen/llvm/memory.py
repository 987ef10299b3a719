"""Reading and writing memory on the CPU: one element, neighbouring elements, scattered elements, under masks.

In: addresses and masks. Out: values as registers hold them. A bool takes a byte in memory and a bit in a register; a
float16 or a bfloat16 is a float32 in a register, and is rounded when it is put.
Vectors are aligned like their elements, since the caller's arrays are. Two bfloat16 side by side can be moved as a
`PAIR`, which is a word in a register; `graphc.codegen.llvm.half_precision` takes it apart.
"""

from __future__ import annotations

from graphc.codegen.llvm.builder import Function, Value, element_type, lane_count, mangled, vector_type
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.llvm.half_precision import rounded, widened
from graphc.scalar import STORED

__all__ = ["PAIR", "gather", "read", "scatter", "write"]

PAIR = "pair"


def read(f: Function, pointer: Value, dtype: str, lanes: int, mask: Value | None) -> Value:
    """`lanes` neighbouring elements. Lanes whose mask is false touch no memory and give 0."""
    element, align = _memory(dtype)
    type = vector_type(element, lanes)
    if mask is None:
        return _from_memory(f, f.get(pointer, type, align), dtype)
    name = f"llvm.masked.load.{mangled(type)}.p0"
    zero = Value("zeroinitializer", type)
    return _from_memory(f, f.call(type, name, pointer, Value(str(align), "i32"), mask, zero), dtype)


def gather(f: Function, pointers: Value, dtype: str, mask: Value | None) -> Value:
    """The element at each of a vector of addresses. Lanes whose mask is false touch no memory and give 0."""
    element, align = _memory(dtype)
    lanes = lane_count(pointers.type)
    type = vector_type(element, lanes)
    name = f"llvm.masked.gather.{mangled(type)}.{mangled(pointers.type)}"
    arguments = (pointers, Value(str(align), "i32"), mask or _every(lanes), Value("zeroinitializer", type))
    return _from_memory(f, f.call(type, name, *arguments), dtype)


def write(f: Function, value: Value, pointer: Value, dtype: str, mask: Value | None) -> None:
    """Store neighbouring elements: all, or those whose mask is true."""
    stored = _to_memory(f, value, dtype)
    _, align = _memory(dtype)
    if mask is None:
        f.put(stored, pointer, align)
    else:
        f.run(f"llvm.masked.store.{mangled(stored.type)}.p0", stored, pointer, Value(str(align), "i32"), mask)


def scatter(f: Function, value: Value, pointers: Value, dtype: str, mask: Value | None) -> None:
    """Store each lane at its own address: all, or those whose mask is true."""
    stored = _to_memory(f, value, dtype)
    name = f"llvm.masked.scatter.{mangled(stored.type)}.{mangled(pointers.type)}"
    chosen = mask or _every(lane_count(pointers.type))
    f.run(name, stored, pointers, Value(str(_memory(dtype)[1]), "i32"), chosen)


def _memory(dtype: str) -> tuple[str, int]:
    """The type of an element in memory, and its alignment."""
    return ("i32", STORAGE["bfloat16"][1]) if dtype == PAIR else STORAGE[dtype]


def _every(lanes: int) -> Value:
    return Value(f"<{', '.join(['i1 true'] * lanes)}>", vector_type("i1", lanes))


def _from_memory(f: Function, stored: Value, dtype: str) -> Value:
    if dtype in STORED:
        return widened(f, stored, dtype)
    if dtype != "bool":
        return stored
    zero = Value("zeroinitializer" if lane_count(stored.type) > 1 else "0", stored.type)
    return f.compare("icmp ne", stored, zero)


def _to_memory(f: Function, value: Value, dtype: str) -> Value:
    if dtype in STORED:
        return rounded(f, value, dtype)
    return f.convert("zext", value, "i8") if element_type(value.type) == "i1" else value
