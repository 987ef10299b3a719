"""export: a graph as an object file and a C header, for programs without Python and processors without a system.

In: a graph, the lengths of its open axes, and params to build in. Out: an `Exported`. The object has one function,
which allocates nothing and calls nothing outside (`graphc.codegen.cpu.c_function`). What a call makes of built-in
params alone is made here, and lies in read-only data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.checks.arguments import call_lengths
from graphc.codegen.cpu.c_function import built_in, c_function, fields
from graphc.codegen.cpu.jit import Emitted
from graphc.codegen.cpu.machine import pointer_bits, target_named
from graphc.codegen.lengths import buffer_shape
from graphc.codegen.memory.arena import ALIGNMENT, arena, buffer_bytes
from graphc.codegen.parallel.partition import partition
from graphc.codegen.passes.specialize import specialize
from graphc.codegen.program import Buffer
from graphc.codegen.target import Precision, Target
from graphc.codegen.verify_program import verify
from graphc.compiling.c_memory import Field, memory
from graphc.compiling.c_names import identifier, is_function
from graphc.compiling.compile import Compiled, compile
from graphc.errors import ArgumentError, no_ptx
from graphc.files import write_whole
from graphc.language.graph import Graph, check_graph

_BLOCK = "workspace"


@dataclass(frozen=True)
class Exported:
    """A C function `name`: the header that declares it, and the code that `object` holds.

    `workspace` is how many bytes it needs for temporaries, `constants` how many lie in its read-only data; `fields` are
    the caller's arrays.
    """

    name: str
    header: str
    workspace: int
    constants: int
    emitted: Emitted
    fields: tuple[Field, ...]

    def __repr__(self) -> str:
        """Not the code, which would fill a screen."""
        return f"<C function {self.name}: {self.constants} bytes of constants, {self.workspace} of workspace>"

    if not TYPE_CHECKING:  # else every attribute would have a type
        __getattr__ = no_ptx

    @property
    def object(self) -> bytes:
        """The object file."""
        return self.emitted.object

    @property
    def assembly(self) -> str:
        """The assembly of the function."""
        return self.emitted.assembly

    @property
    def llvm_ir(self) -> str:
        """The LLVM IR, before LLVM's own passes."""
        return self.emitted.llvm_ir

    def memory(self, arrays: Mapping[str, Any]) -> str:
        """A further header, to be included once, with memory for all arrays of a call as they are at first.

        `arrays` are those of params, and of what else a call changes: `gc.initialize(step) | gc.initial_carry(…)`.
        Inputs and outputs may be among them; at first they are 0.
        """
        return memory(self.name, self.fields, self.workspace, arrays)

    def save(self, folder: Path | str, arrays: Mapping[str, Any] | None = None) -> tuple[Path, ...]:
        """Write `name.h` and `name.o` into a folder, which is made if it is missing, and, if arrays are given,
        `name_memory.h`; gives their paths."""
        written = {f"{self.name}.h": self.header.encode(), f"{self.name}.o": self.object}
        if arrays is not None:
            written[f"{self.name}_memory.h"] = self.memory(arrays).encode()
        for file, content in written.items():
            write_whole(Path(folder) / file, content)
        return tuple(Path(folder) / file for file in written)


def export(
    graph: Graph,
    lengths: Mapping[str, int] | None = None,
    params: Mapping[str, Any] | None = None,
    name: str = "",
    triple: str | None = None,
    arch: str = "",
    features: str = "",
    precision: Precision = "float32",
) -> Exported:
    """A graph as a C function: `gc.export(gc.step(g, over=t), {"n": 1}, params).save("build")`.

    `lengths` of the axes that the graph leaves open are fixed. `params` are built in; those that are not given are the
    caller's arrays, like inputs, outputs, and what a call updates. `name` is the function's, the graph's if none is
    given. `triple`, `arch` and `features` name the processor as in `gc.emit`; without them, it is this one.
    `precision` is as in `gc.compile`: with "bf16", params that are built in take half of the bytes. Lengths
    and indices that a call reads are not checked: an index that is not there counts as the nearest that is.

    Raises `AxisError` unless the length of every open axis is given, and `ArgumentError` for params that do not fit the
    graph, a name that is none in C, a processor that LLVM does not know, or arrays that it cannot address.
    """
    check_graph(graph)
    name = name or graph.name
    if not isinstance(name, str) or not is_function(name):
        raise ArgumentError(
            f"{name!r} is no name of a C function, or one that C has already; give another: "
            "export(graph, ..., name='model')"
        )
    target = target_named(triple, arch, features)
    known = call_lengths(graph, lengths or {})
    made = compile(graph, threads=1, precision=precision)
    if params:
        made = made.freeze(**params)
    program = specialize(made.program, {size: known[size] for size in made.program.sizes})
    verify(program)
    constants = {**made.stages.lowered.constants, **made.fixed}
    placed = arena(program, {})
    workspace = -(-placed.size // ALIGNMENT) * ALIGNMENT  # as `aligned_alloc` asks for it
    _check_addresses(workspace + sum(buffer_bytes(b, {}) for b in program.buffers if b.kind != "temp"), target)
    emitted = Emitted(c_function(program, constants, placed.offsets, name, target), target, partition(program, target))
    used = sum(buffer_bytes(b, {}) for b in built_in(program, constants))
    taken = {_BLOCK, f"{name.upper()}_H", f"{name.upper()}_WORKSPACE"}
    given = tuple(_field(graph, made, buffer, taken) for buffer in fields(program, constants))
    header = "\n".join(_header(graph, given, known, name, workspace, target))
    return Exported(name, header, workspace, used, emitted, given)


def _check_addresses(needed: int, target: Target) -> None:
    bits = pointer_bits(target)
    if needed >= 2 ** (bits - 1):
        raise ArgumentError(
            f"the arrays of a call take {needed / 2**30:.1f} GiB, more than a program for {target.triple} can hold, "
            f"whose addresses have {bits} bits"
        )


def _header(
    graph: Graph,
    given: tuple[Field, ...],
    lengths: Mapping[str, int],
    name: str,
    workspace: int,
    target: Target,
) -> Iterator[str]:
    fixed = {axis.name for axis in graph.axes.values() if isinstance(axis.length, int)}
    sizes = "".join(f"{axis} = {length}, " for axis, length in lengths.items() if axis not in fixed)
    guard = f"{name.upper()}_H"
    processor = f"{target.triple} {target.cpu}".strip()
    yield f"/* {graph.name}, as graphc compiled it: {sizes}{processor}. */"
    yield from (f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>", "")
    yield from ("#ifdef __cplusplus", 'extern "C" {', "#endif", "")
    if workspace:
        yield f"/* Bytes of {_BLOCK}, which begins at a multiple of {ALIGNMENT}. It keeps nothing between calls. */"
        yield f"#define {name.upper()}_WORKSPACE {workspace}"
        yield ""
    yield f"struct {name}_arrays {{"
    for field in given:
        yield f"    {field.declaration}"
    if workspace:
        yield f"    void *{_BLOCK};"
    yield from ("};", "", f"void {name}(const struct {name}_arrays *arrays);", "")
    yield from ("#ifdef __cplusplus", "}", "#endif", "", f"#endif /* {guard} */", "")


def _field(graph: Graph, made: Compiled, buffer: Buffer, taken: set[str]) -> Field:
    outputs = [name for name, held in made.stages.lowered.outputs.items() if held == buffer.name]
    names = tuple(outputs or [buffer.name])
    kind = "output" if outputs else "input" if buffer.name in graph.inputs else "param"
    shape = tuple(int(extent) for extent in buffer_shape(buffer, {}))
    updated = buffer.name in graph.updates
    return Field(identifier(names[0], taken), names, kind, buffer.dtype, shape, updated)
