"""The text of a program's LLVM module for the GPU: one device function for each unit, and for each version of a loop.

In: a Program and its units. Out: LLVM IR, as a `Module`. Its length depends on the program's text only, never on sizes.
The parameters of a function are the addresses of the buffers that its unit touches, in the order of their appearance,
all sizes, and the steps of the host loops around it. A loop's function also takes the number of parts of each slicing
and, if its groups are grids, the address of the barriers' counters; exchanged words lie behind these. Units whose
functions have the same text share one function: layers of equal size, both directions of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.access import Access
from graphc.codegen.cuda.gemm.fma_product import FmaProduct
from graphc.codegen.cuda.gemm.mma_blocking import MmaBlocking
from graphc.codegen.cuda.gemm.mma_product import MmaProduct
from graphc.codegen.cuda.isa.arch import TRIPLE, Arch
from graphc.codegen.cuda.isa.device import DYNAMIC, GLOBAL, DeviceFunction
from graphc.codegen.cuda.isa.place import place
from graphc.codegen.cuda.kernel.parameters import counters_value, parts_value, scan_values, size_value, steps_around
from graphc.codegen.cuda.kernel.points import PARTIALS, compute_points, compute_runs
from graphc.codegen.cuda.kernel.scalars import NOWHERE, NOWHERE_BYTES, Scalars
from graphc.codegen.cuda.kernel.search import compute_search
from graphc.codegen.cuda.loops.loop import LoopEmitter
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.pointwise import PartTotals, PointwiseLoop
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit
from graphc.codegen.cuda.loops.versions import Version
from graphc.codegen.cuda.points_unit import PointsUnit
from graphc.codegen.cuda.units import Unit
from graphc.codegen.llvm.builder import Value
from graphc.codegen.llvm.functions import STORAGE
from graphc.codegen.llvm.math import definitions
from graphc.codegen.program import Buffer, Const, Program, Ring
from graphc.codegen.uses import stored

__all__ = ["ALIGNMENT", "Module", "module"]

ALIGNMENT = 16  # bytes: the most that one instruction loads

_GLOBALS = f"""\
@{NOWHERE} = internal addrspace(1) global [{NOWHERE_BYTES} x i8] zeroinitializer, align 16
@{DYNAMIC} = external addrspace(3) global [0 x i8], align 16
@{PARTIALS} = internal addrspace(3) global [32 x i64] undef, align 16
"""
_METADATA = """\
!0 = distinct !{!0, !1}
!1 = !{!"llvm.loop.unroll.disable"}
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """A function's text and what its module must hold for it."""

    name: str
    text: str
    declarations: frozenset[str]
    elementary: frozenset[tuple[str, str, int]]


@dataclass(frozen=True, slots=True)
class Module:
    """The pieces of a module, by name. `shared` maps the name of a function that was left out to the equal one."""

    pieces: Mapping[str, Piece]
    shared: Mapping[str, str]

    def llvm_ir(self, names: Collection[str]) -> str:
        """The text of a module with these functions, before LLVM's own passes."""
        return _text([piece for name, piece in self.pieces.items() if name in names])


def module(program: Program, units: tuple[Unit, ...], arch: Arch, aligned: bool) -> Module:
    """The module of these units. `aligned`: a call's arguments begin at multiples of `ALIGNMENT`."""
    made = ((f, unit) for unit in units for f in _functions(unit, program, arch, aligned))
    pieces, shared = _distinct(_piece(f, _attributes(unit)) for f, unit in made)
    return Module({piece.name: piece for piece in pieces}, shared)


def _piece(f: DeviceFunction, attributes: str) -> Piece:
    return Piece(f.name, f.text(attributes), frozenset(f.declarations), frozenset(f.functions.elementary))


def _distinct(pieces: Iterable[Piece]) -> tuple[list[Piece], dict[str, str]]:
    """The pieces whose texts differ in more than their names; and, for each other piece, the name of an equal one."""
    first: dict[str, Piece] = {}
    shared = {}
    for piece in pieces:
        nameless = piece.text.replace(f"@{piece.name}(", "@(", 1)
        found = first.setdefault(nameless, piece)
        if found is not piece:
            shared[piece.name] = found.name
    return list(first.values()), shared


def _text(pieces: Sequence[Piece]) -> str:
    elementary = sorted(frozenset().union(*(piece.elementary for piece in pieces)))
    functions = definitions(elementary, approximate=True).splitlines()
    declared = {line for line in functions if line.startswith("declare ")}
    return "\n".join(
        [
            f'target triple = "{TRIPLE}"\n',
            _GLOBALS,
            *(f"{piece.text}\n" for piece in pieces),
            *(line for line in functions if line not in declared),
            "",
            *sorted(declared.union(*(piece.declarations for piece in pieces))),
            _METADATA,
        ]
    )


def _functions(unit: Unit, program: Program, arch: Arch, aligned: bool) -> Iterator[DeviceFunction]:
    if isinstance(unit, PointsUnit):
        yield _points(unit, program, arch, aligned)
    elif isinstance(unit, PointwiseUnit):
        yield from _pointwise(unit, program, arch)
    else:
        yield from (_loop(unit, version, program, arch) for version in unit.versions)


def _points(unit: PointsUnit, program: Program, arch: Arch, aligned: bool) -> DeviceFunction:
    # No point needs what another stores, so loaded memory may be taken as constant. Alignment is promised to products
    # alone: elsewhere LLVM would load three neighbouring elements as four.
    aligned = aligned and unit.product is not None
    f = DeviceFunction(unit.symbol, _parameters(unit, program, "noalias ", aligned), _addresses(unit), arch.target)
    scalars = Scalars(f, Access(unit.kernel, program), steps_around(unit.around))
    cta, ctas = f.wide(f.register("ctaid.x")), f.wide(f.register("nctaid.x"))
    where = place(f, unit.threads, cta, ctas)
    if unit.search is not None:
        compute_search(scalars, unit.kernel, unit.search, where)
    elif unit.run > 1:
        compute_runs(scalars, unit.kernel, unit.run, where)
    elif unit.product is None:
        compute_points(scalars, unit.kernel, unit.lanes, where)
    else:
        factors, block = unit.product
        if isinstance(block, MmaBlocking):
            MmaProduct(scalars, unit.kernel, factors, block, where).compute()
        else:
            FmaProduct(scalars, unit.kernel, factors, block, where).compute()
    return f


def _pointwise(unit: PointwiseUnit, program: Program, arch: Arch) -> Iterator[DeviceFunction]:
    # No thread needs what another stores.
    parameters = _parameters(unit, program, "noalias ", aligned=False)
    writers: dict[str, type[PointwiseLoop | PartTotals]] = {unit.symbol: PointwiseLoop}
    if unit.linear is not None:
        parameters += map(str, scan_values())
        writers[unit.totals_symbol] = PartTotals
    for symbol, writer in writers.items():
        f = DeviceFunction(symbol, parameters, _addresses(unit), arch.target)
        writer(f, unit, program).emit()
        yield f


def _loop(unit: LoopUnit, version: Version, program: Program, arch: Arch) -> DeviceFunction:
    # Other threads change what the loop stores between two barriers, so nothing is promised of it.
    parameters = _parameters(unit, program, "", aligned=False)
    parameters += [str(parts_value(k)) for k in range(len(unit.slicings))]
    if version.kind == "grid":
        parameters.append(str(counters_value()))
    f = DeviceFunction(unit.symbol_of(version), parameters, _addresses(unit), arch.target)
    LoopEmitter(f, unit, version, program, arch).emit()
    return f


def _parameters(unit: Unit, program: Program, of_stored: str, aligned: bool) -> list[str]:
    """Buffers, sizes, steps. `of_stored`: the attributes of buffers that the unit stores to. Temporaries and outputs
    begin at multiples of `ALIGNMENT`, and arguments of a call too if `aligned`."""
    written = stored((unit.statement,))
    placed = {b.name for b in program.buffers if (aligned or b.kind in ("temp", "output")) and _is_whole(b)}
    pointers = []
    for name, address in _addresses(unit).items():
        attributes = of_stored if name in written else "noalias readonly "
        attributes += f"align {ALIGNMENT} " if name in placed else ""
        pointers.append(f"{GLOBAL} {attributes}{address.text}")
    sizes = [str(size_value(name)) for name in program.sizes]
    return pointers + sizes + [str(step) for step in steps_around(unit.around).values()]


def _addresses(unit: Unit) -> dict[str, Value]:
    """The parameters that are addresses of buffers. They are numbered, so that equal units have equal texts."""
    return {name: Value(f"%buffer.{k}", GLOBAL) for k, name in enumerate(unit.buffers)}


def _attributes(unit: Unit) -> str:
    resident = 1 if not isinstance(unit, PointsUnit) or unit.product is None else unit.product[1].resident
    return f'nounwind "nvvm.maxntid"="{unit.threads}" "nvvm.minctasm"="{resident}"'


def _is_whole(buffer: Buffer) -> bool:
    """Whether a buffer of known size ends at a multiple of `ALIGNMENT`. LLVM would load three aligned numbers as four,
    past the end of the buffer."""
    known = [dim.slots if isinstance(dim, Ring) else dim.value for dim in buffer.dims if isinstance(dim, Const | Ring)]
    count = math.prod(map(int, known))
    return len(known) < len(buffer.dims) or count * STORAGE[buffer.dtype][1] % ALIGNMENT == 0
