"""A Program as one C function, with what it needs beside its arguments inside the object.

In: a Program without sizes, its constants, where its temporaries lie, and a target. Out: the text of an LLVM module
that exports `void name(const struct *arrays)`. The struct has a pointer to each array of the caller's, in the order of
`fields`, and a last one to a block of memory for temporaries, if there are any. Constants are read-only data. Nothing
is allocated, and no function outside the module is called, but those of the C compiler and its <math.h> that stand for
instructions which the processor lacks: for arithmetic of doubles, say, in which sin, cos and pow of float32 compute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from graphc.codegen.cpu.module import attributes_of, llvm_ir
from graphc.codegen.llvm.builder import Function, Value, i64, quoted
from graphc.codegen.memory.arena import ALIGNMENT
from graphc.codegen.parallel.partition import partition
from graphc.codegen.program import Buffer, Program
from graphc.codegen.target import Target
from graphc.codegen.uses import touched

__all__ = ["built_in", "c_function", "fields"]

_STRUCT = Value("%arrays", "ptr")


def fields(program: Program, constants: Mapping[str, np.ndarray]) -> tuple[Buffer, ...]:
    """The arrays that the caller brings: all that the program touches, except temporaries and constants."""
    return tuple(b for b in _touched(program) if b.kind != "temp" and b.name not in constants)


def built_in(program: Program, constants: Mapping[str, np.ndarray]) -> tuple[Buffer, ...]:
    """The constants that the program touches."""
    return tuple(b for b in _touched(program) if b.name in constants)


def _touched(program: Program) -> Iterator[Buffer]:
    names = set(touched(program.body))
    return (buffer for buffer in program.buffers if buffer.name in names)


def c_function(
    program: Program, constants: Mapping[str, np.ndarray], offsets: Mapping[str, int], name: str, target: Target
) -> str:
    """The module's text; `offsets` are those of the temporaries in their block, in bytes."""
    inner = replace(program, name=f"{name}.program")
    own = {b.name: constants[b.name] for b in built_in(program, constants)}
    body = llvm_ir(inner, target, partition(inner, target), part=True)
    return "\n".join([body, *(_constant(*item) for item in own.items()), _function(inner, own, offsets, name, target)])


def _symbol(buffer: str) -> str:
    return quoted("@", f"constant.{buffer}")


def _constant(buffer: str, array: np.ndarray) -> str:
    """An array, byte by byte. The order of bytes is that of all processors that code is made for."""
    data = np.ascontiguousarray(array)
    text = "\\" + data.astype(data.dtype.newbyteorder("<")).tobytes().hex("\\")
    return f'{_symbol(buffer)} = internal constant [{data.nbytes} x i8] c"{text}", align {ALIGNMENT}'


def _function(
    program: Program, constants: Mapping[str, np.ndarray], offsets: Mapping[str, int], name: str, target: Target
) -> str:
    f = Function(name, [str(_STRUCT)], "dso_local")
    args = f.variable("ptr", max(1, len(program.buffers)))
    given = fields(program, constants)
    places = {buffer.name: f.offset(_STRUCT, "ptr", i64(k)) for k, buffer in enumerate(given)}
    block = f.get(f.offset(_STRUCT, "ptr", i64(len(given))), "ptr") if offsets else Value("null", "ptr")
    for k, buffer in enumerate(program.buffers):
        if buffer.name in constants:
            address = Value(_symbol(buffer.name), "ptr")
        elif buffer.name in places:
            address = f.get(places[buffer.name], "ptr")
        elif buffer.name in offsets:
            address = f.offset(block, "i8", i64(offsets[buffer.name]))
        else:
            address = Value("null", "ptr")
        f.put(address, f.offset(args, "ptr", i64(k)))
    f.effect(f"call void {quoted('@', program.name)}({args}, ptr null)")
    return f.text(attributes_of(target))
