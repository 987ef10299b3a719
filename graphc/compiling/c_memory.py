"""c_memory: the arrays of an exported function's caller, and memory for them in C, with what they hold at first.

Arrays that begin at 0 take no room in a program's file: a compiler puts them where memory is cleared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.memory.arena import ALIGNMENT
from graphc.compiling.c_names import identifier
from graphc.errors import ArgumentError
from graphc.ir import size

# C has no name for half a float that all compilers know; its bits are a number's.
_TYPES = {
    "float32": "float",
    "float64": "double",
    "int32": "int32_t",
    "bool": "uint8_t",
    "float16": "uint16_t",
    "bfloat16": "uint16_t",
}
_SHOWN = 8  # numbers in a line


@dataclass(frozen=True)
class Field:
    """An array of the caller's: its name in C, those in the graph, and what it is there."""

    identifier: str
    names: tuple[str, ...]
    kind: str
    dtype: str
    shape: tuple[int, ...]
    updated: bool

    @property
    def type(self) -> str:
        return _TYPES[self.dtype]

    @property
    def declaration(self) -> str:
        """Of a pointer to it, as part of a struct."""
        const = "" if self.updated or self.kind == "output" else "const "
        return f"{const}{self.type} *{self.identifier}; /* {self.note} */"

    @property
    def note(self) -> str:
        shape = "".join(f"[{extent}]" for extent in self.shape)
        after = ", which each call replaces with what the next one reads" if self.updated else ""
        return f"{self.kind} {', '.join(self.names)}: {self.dtype}{shape}{after}"


def memory(name: str, fields: Sequence[Field], workspace: int, arrays: Mapping[str, Any]) -> str:
    """A header with memory for the arrays of a function, and a struct `name_memory` that points to them."""
    return "\n".join(_lines(name, fields, workspace, arrays))


def _lines(name: str, fields: Sequence[Field], workspace: int, arrays: Mapping[str, Any]) -> Iterator[str]:
    guard = f"{name.upper()}_MEMORY_H"
    yield f"/* Memory for the arrays of {name}, as they are at first. For one file of a program. */"
    yield from (f"#ifndef {guard}", f"#define {guard}", "", "#include <math.h>", f'#include "{name}.h"', "")
    taken = {name, f"{name}_memory", f"{name}_arrays"}
    places = []
    for field in fields:
        place = identifier(f"{name}_{field.identifier}", taken)
        places.append(place)
        yield f"static {field.type} {place}[{max(1, size(field.shape))}]{_initial(field, arrays)};"
    if workspace:
        place = identifier(f"{name}_workspace", taken)
        places.append(place)
        for condition, align in (("ifdef __cplusplus", "alignas"), ("else", "_Alignas")):
            yield from (f"#{condition}", f"{align}({ALIGNMENT}) static unsigned char {place}[{workspace}];")
        yield "#endif"
    yield from ("", f"static const struct {name}_arrays {name}_memory = {{")
    yield from (f"    {place}," for place in places)
    yield from ("};", "", f"#endif /* {guard} */", "")


def _initial(field: Field, arrays: Mapping[str, Any]) -> str:
    """What an array holds at first, as C writes it; nothing if that is 0."""
    given = next((arrays[name] for name in field.names if name in arrays), None)
    if given is None:
        if field.kind == "param" or field.updated:
            raise ArgumentError(
                f"no array for {field.note}; params begin as gc.initialize(graph) says, and what a step keeps as "
                "gc.initial_carry does: save(folder, gc.initialize(step) | gc.initial_carry(g, over=t, …))"
            )
        return ""
    array = np.asarray(given)
    if array.shape != field.shape or array.dtype != np.dtype(field.dtype):
        raise ArgumentError(f"an array of {array.dtype}{list(array.shape)} was given for {field.note}")
    if not any(array.tobytes()):
        return ""
    texts = [_number(item, field.dtype) for item in array.ravel()]
    lines = [", ".join(texts[k : k + _SHOWN]) for k in range(0, len(texts), _SHOWN)]
    return " = {\n    " + ",\n    ".join(lines) + ",\n}"


def _number(item: Any, dtype: str) -> str:
    if dtype in ("float16", "bfloat16"):
        return str(item.view(np.uint16))
    if dtype in ("int32", "bool"):
        return "INT32_MIN" if int(item) == -(2**31) else str(int(item))
    if np.isnan(item):
        return "NAN"
    if np.isinf(item):
        return "-INFINITY" if item < 0 else "INFINITY"
    return f"{item!s}f" if dtype == "float32" else str(item)
