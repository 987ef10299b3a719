"""What a Program becomes on a GPU: units, each the work of one launch.

In: a Program. Out: its units, in order. A kernel at the top becomes a grid of its own. A loop becomes one persistent
kernel, however many steps it has, in a version for each kind of group that its CTAs may form
(`graphc.codegen.cuda.loops.barriers`); which of them runs is chosen when lengths are known
(`graphc.codegen.cuda.launches`). Of a loop that the host walks (`graphc.codegen.cuda.host_loop`) the statements inside
are such units, launched in each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.cuda.host_loop import is_walked
from graphc.codegen.cuda.isa.arch import THREADS, WARP, Arch
from graphc.codegen.cuda.isa.mma import Fragments
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.slices import slicings
from graphc.codegen.cuda.loops.thread_mapping import map_threads
from graphc.codegen.cuda.loops.versions import stationary_products, versions
from graphc.codegen.cuda.points_unit import PointsUnit, lanes_of, points_unit
from graphc.codegen.program import Kernel, Loop, Program, Statement, kernels
from graphc.codegen.uses import touched

__all__ = ["Unit", "units"]

Unit = PointsUnit | LoopUnit


def units(program: Program, arch: Arch, fragments: Fragments | None) -> tuple[Unit, ...]:
    """`fragments`: how the tensor cores are to round operands of products; None leaves them alone."""
    return tuple(_units(program.body, "", (), program, arch, fragments))


def _units(
    body: tuple[Statement, ...],
    numbers: str,
    around: tuple[Loop, ...],
    program: Program,
    arch: Arch,
    fragments: Fragments | None,
) -> Iterator[Unit]:
    """`numbers` are the places of the loops around the body, which begin the names of what is inside."""
    for position, statement in enumerate(body):
        place = f"{numbers}{position}_"
        if isinstance(statement, Loop) and is_walked(statement):
            yield from _units(statement.body, place, (*around, statement), program, arch, fragments)
        else:
            yield replace(_unit(place, statement, program, arch, fragments), around=around)


def _unit(place: str, statement: Statement, program: Program, arch: Arch, fragments: Fragments | None) -> Unit:
    buffers = tuple(touched((statement,)))
    if isinstance(statement, Kernel):
        return points_unit(_symbol(place, statement.name), statement, program, arch, fragments)
    symbol = _symbol(place, f"loop_{statement.index}")
    sliced = slicings(statement, program)
    products = stationary_products(statement, sliced, program)
    lanes = {k.name: WARP if k.name in products else lanes_of(k, program, alone=False) for k in kernels((statement,))}
    dealt = map_threads(statement, products, lanes, sliced, program)
    made = versions(statement, sliced, products, dealt, lanes, program, THREADS, arch, fragments)
    return LoopUnit(symbol, statement, buffers, sliced, dealt.barriers, lanes, dealt.visited, made)


def _symbol(place: str, name: str) -> str:
    """A name that PTX accepts, and that no other kernel of the module has."""
    return f"k{place}" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
