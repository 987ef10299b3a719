"""The CPU back end: from a Program to the text of an LLVM module.

The module exports one function, `void name(ptr args, ptr sizes)`: `args` holds the address of each buffer in the
order of the program's buffers, `sizes` each size as an i64. It runs the program's loops and calls one internal
function for each kernel. Nothing is allocated and nothing outside the module is called.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphc.codegen.access import Access
from graphc.codegen.cpu_functions import Functions
from graphc.codegen.cpu_kernel import Parameters, Piece, kernel_function
from graphc.codegen.cpu_values import Values
from graphc.codegen.llvm import Function, Value, i64, quoted
from graphc.codegen.math import definitions
from graphc.codegen.program import Call, Kernel, Let, Load, Program, Scalar, Statement
from graphc.codegen.target import Target

__all__ = ["llvm_ir"]

_METADATA = """\
!0 = distinct !{!0, !1}
!1 = !{!"llvm.loop.unroll.disable"}
"""


def llvm_ir(program: Program, target: Target) -> str:
    """The module's text. Its length depends on the program's text only, never on sizes."""
    attributes = _attributes(target)
    entry = _Entry(program, target, attributes)
    pieces = entry.emit()
    elementary = sorted(frozenset().union(*(piece.elementary for piece in pieces)))
    functions = definitions(elementary, fused=target.has_fma).splitlines()
    declared = {line for line in functions if line.startswith("declare ")}
    return "\n".join(
        [
            f'target triple = "{target.triple}"\n',
            *sorted(frozenset().union(*(piece.constants for piece in pieces))),
            *(f"\n{piece.text}" for piece in pieces),
            *(line for line in functions if line not in declared),
            "",
            *sorted(declared.union(*(piece.declarations for piece in pieces))),
            _METADATA,
        ]
    )


def _attributes(target: Target) -> str:
    words = ["nounwind", '"no-builtins"']
    if target.cpu:
        words.append(f'"target-cpu"="{target.cpu}"')
    if target.features:
        words.append(f'"target-features"="{target.features}"')
    if target.vector_bits == 512:
        words += ['"prefer-vector-width"="512"', '"min-legal-vector-width"="512"']
    return " ".join(words)


class _Entry:
    """The exported function, and with it the kernels in the order of the text."""

    def __init__(self, program: Program, target: Target, attributes: str) -> None:
        self.program, self.target, self.attributes = program, target, attributes
        self.function = Function(program.name, ["ptr %args", "ptr %sizes"], "dso_local")
        access = Access(Kernel("entry", (), (), ()), program)
        self.values = Values(self.function, Functions(self.function, target), access)
        self.pieces: list[Piece] = []

    def emit(self) -> list[Piece]:
        f = self.function
        for position, buffer in enumerate(self.program.buffers):
            slot = f.offset(Value("%args", "ptr"), "ptr", i64(position))
            f.effect(f"{quoted('%', f'buffer.{buffer.name}')} = load ptr, {slot}")
        for position, size in enumerate(self.program.sizes):
            slot = f.offset(Value("%sizes", "ptr"), "i64", i64(position))
            f.effect(f"{quoted('%', f'size.{size}')} = load i64, {slot}")
        self._statements(self.program.body, ())
        own = Piece(
            f.text(self.attributes),
            frozenset(f.declarations),
            frozenset(self.values.constants.values()),
            frozenset(self.values.functions.elementary),
        )
        return [*self.pieces, own]

    def _statements(self, statements: tuple[Statement, ...], indices: tuple[str, ...]) -> None:
        for statement in statements:
            if isinstance(statement, Kernel):
                self._kernel(statement, indices)
                continue
            f, values = self.function, self.values
            extent = values.value(statement.extent)
            counter = f"({statement.index})"
            with values.loop(counter, i64(0), extent, 1, unroll=False):
                step = values.index(counter)
                if statement.reverse:
                    step = f.binary("sub", f.binary("sub", extent, i64(1)), step)
                with values.scope(f.block, {statement.index: step}):
                    self._statements(statement.body, (*indices, statement.index))

    def _kernel(self, kernel: Kernel, indices: tuple[str, ...]) -> None:
        name = f"{self.program.name}.{kernel.name}"
        used = _buffers(kernel)
        buffers = tuple(b.name for b in self.program.buffers if b.name in used)
        parameters = Parameters(buffers, self.program.sizes, indices)
        attributes = f"noinline {self.attributes}"
        self.pieces.append(kernel_function(quoted("", name), kernel, parameters, self.program, self.target, attributes))
        integers = [Value(quoted("%", f"size.{size}"), "i64") for size in self.program.sizes]
        arguments = [
            *(f"ptr {quoted('%', f'buffer.{buffer}')}" for buffer in buffers),
            *map(str, integers + [self.values.index(index) for index in indices]),
        ]
        self.function.effect(f"call void {quoted('@', name)}({', '.join(arguments)})")


def _buffers(kernel: Kernel) -> set[str]:
    """The names of the buffers that a kernel touches."""
    scalars: list[Scalar] = [dim.extent for dim in kernel.dims]
    for step in kernel.body:
        if isinstance(step, Let):
            scalars.append(step.value)
            continue
        scalars += [dim.extent for dim in step.dims]
        scalars += [let.value for let in step.body] + [total.value for total in step.sums]
        scalars += [] if step.when is None else [step.when]
    for store in kernel.stores:
        scalars += [store.value, *store.at]
    return {store.buffer for store in kernel.stores} | {name for s in scalars for name in _loaded(s)}


def _loaded(scalar: Scalar) -> Iterator[str]:
    match scalar:
        case Load(buffer, at, _, when):
            yield buffer
            for part in at if when is None else (*at, when):
                yield from _loaded(part)
        case Call(_, args):
            for argument in args:
                yield from _loaded(argument)
