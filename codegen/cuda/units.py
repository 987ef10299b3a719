"""What a Program becomes on a GPU: units, each the work of one launch.

In: a Program. Out: its units, in order. A kernel at the top becomes a grid of its own. A loop becomes one persistent
kernel, however many steps it has. The kernel has a version for each kind of group that its CTAs may form
(`graphc.codegen.cuda.loops.versions`); which of them runs is chosen when lengths are known
(`graphc.codegen.cuda.launches`). Where points never need each other, a thread computes one of them in all steps
(`graphc.codegen.cuda.loops.pointwise_unit`). The statements inside a host loop (`graphc.codegen.cuda.host_loop`) are
units themselves, launched in each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graphc.codegen.cuda.host_loop import is_host_loop
from graphc.codegen.cuda.isa.arch import WARP, Arch
from graphc.codegen.cuda.isa.mma import Fragments
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.cuda.loops.pointwise_unit import PointwiseUnit, pointwise_unit
from graphc.codegen.cuda.loops.slices import slicings
from graphc.codegen.cuda.loops.thread_mapping import map_threads
from graphc.codegen.cuda.loops.versions import stationary_products, versions
from graphc.codegen.cuda.points_unit import PointsUnit, lanes_of, points_unit
from graphc.codegen.program import Kernel, Loop, Program, Statement, kernels
from graphc.codegen.uses import touched

__all__ = ["Unit", "units"]

Unit = PointsUnit | PointwiseUnit | LoopUnit


def units(program: Program, arch: Arch, fragments: Fragments | None) -> tuple[Unit, ...]:
    """The units of a program. `fragments`: how operands of products are rounded for the tensor cores; None: products
    are made without tensor cores."""
    return tuple(_units(program.body, "", (), program, arch, fragments))


def _units(
    body: tuple[Statement, ...],
    numbers: str,
    around: tuple[Loop, ...],
    program: Program,
    arch: Arch,
    fragments: Fragments | None,
) -> Iterator[Unit]:
    """`numbers`: the positions of the loops around the body, a prefix of the names of all units inside."""
    for position, statement in enumerate(body):
        place = f"{numbers}{position}_"
        if isinstance(statement, Loop) and is_host_loop(statement):
            yield from _units(statement.body, place, (*around, statement), program, arch, fragments)
        else:
            yield _unit(place, statement, around, program, arch, fragments)


def _unit(
    place: str,
    statement: Statement,
    around: tuple[Loop, ...],
    program: Program,
    arch: Arch,
    fragments: Fragments | None,
) -> Unit:
    buffers = tuple(touched((statement,)))
    if isinstance(statement, Kernel):
        return replace(points_unit(_symbol(place, statement.name), statement, program, arch, fragments), around=around)
    symbol = _symbol(place, f"loop_{statement.index}")
    sliced = slicings(statement, program)
    pointwise = pointwise_unit(symbol, statement, around, sliced, program)
    if pointwise is not None:
        return pointwise
    products = stationary_products(statement, sliced, program)
    lanes = {k.name: WARP if k.name in products else lanes_of(k, program, alone=False) for k in kernels((statement,))}
    mapping = map_threads(statement, products, lanes, sliced, program)
    made = versions(statement, sliced, products, mapping, lanes, program, arch, fragments)
    return LoopUnit(symbol, statement, buffers, sliced, mapping.barriers, lanes, mapping.epilogues, made, around)


def _symbol(place: str, name: str) -> str:
    """A name that PTX accepts, and that no other kernel of the module has."""
    return f"k{place}" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
