"""From a graph to a Program for the CPU, stage by stage.

    verify → prepare → lookahead → schedule → fuse → lower → plan → [chunk]
        → scatter → merge_sums → materialize → split → layout → pad → predicate → split_reduction → fission
        → vector_epilogues → [round_operands] → pack → pairs → collapse → reorder → share_buffers

Each stage is a pure function of the one before, and the Program is checked before code is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from graphc.checks.causality import components
from graphc.checks.verify import verify
from graphc.codegen.memory.buffer_sharing import share_buffers
from graphc.codegen.memory.chunk import Chunked, chunk, loop_axes
from graphc.codegen.memory.plan import plan
from graphc.codegen.memory.reorder import reorder
from graphc.codegen.passes.collapse import collapse
from graphc.codegen.passes.fission import fission
from graphc.codegen.passes.layout import layout
from graphc.codegen.passes.materialize import materialize
from graphc.codegen.passes.merge_sums import merge_sums
from graphc.codegen.passes.pack import pack
from graphc.codegen.passes.padding import pad
from graphc.codegen.passes.pairs import pairs
from graphc.codegen.passes.predication import predicate
from graphc.codegen.passes.round_operands import round_operands
from graphc.codegen.passes.scatter import scatter
from graphc.codegen.passes.split import split
from graphc.codegen.passes.split_reduction import split_reduction
from graphc.codegen.passes.vector_epilogue import vector_epilogues
from graphc.codegen.program import Program
from graphc.codegen.target import Precision
from graphc.codegen.verify_program import verify as verify_program
from graphc.language.graph import Graph
from graphc.scheduling.lookahead import lookahead
from graphc.scheduling.lower import Lowered, lower
from graphc.scheduling.schedule import Schedule, schedule
from graphc.simplification.prepare import prepare

__all__ = ["ARRANGING", "Stages", "in_chunks", "stages"]


@dataclass(frozen=True)
class Stages:
    """What a graph becomes on its way to a back end."""

    graph: Graph
    prepared: Graph
    scheduled: Schedule
    lowered: Lowered
    planned: Program
    arranged: Program  # what each kernel stores still has a place of its own
    program: Program
    precision: Precision


def stages(graph: Graph, precision: Precision = "float32", ahead: bool = True) -> Stages:
    """Everything up to the Program, with the `precision` of its products. `ahead`: some cycles make two steps at once,
    which is faster on a CPU only."""
    verify(graph)
    prepared = prepare(graph)
    scheduled = _scheduled(prepared, ahead)
    lowered = lower(scheduled)
    planned = plan(lowered.program)
    arranged = _arranged(planned, precision)
    return Stages(graph, prepared, scheduled, lowered, planned, arranged, _placed(arranged), precision)


def _scheduled(prepared: Graph, ahead: bool) -> Schedule:
    if not ahead:
        return schedule(prepared, components(prepared))
    found = lookahead(prepared)
    return schedule(found.graph, found.components)


def in_chunks(made: Stages) -> tuple[Chunked, ...]:
    """The program in chunks of each axis that it loops over."""
    versions = (chunk(made.planned, axis) for axis in loop_axes(made.planned))
    return tuple(replace(version, program=_placed(_arranged(version.program, made.precision))) for version in versions)


ARRANGING: tuple[Callable[[Program], Program], ...] = (
    scatter,  # terms go to the rows they name: before all that makes each sum fast
    merge_sums,  # sums that are only added up are one: all that follows sees each contraction once
    materialize,  # copies of blocks: before split, which would make many dims of what is left
    split,  # positions become indices of their own: layout needs dims that stand alone in their subscripts
    layout,  # what runs in lanes lies last: before pad, which fixes addresses
    pad,  # borders lie in memory
    predicate,  # sums skip what adds nothing: the questions that pad has left
    split_reduction,  # sums with few results get points that threads can share
    fission,  # kernels are what their tiles can hold: before pack, which lays operands out for the tiles
    vector_epilogues,  # what is made of horizontal sums runs in vectors: before pack, which asks what does
    round_operands,  # if products are to be in bfloat16: once it is known what they read, before that is laid out
    pack,  # operands lie in panels
    pairs,  # those in bfloat16 two by two
    collapse,  # dims that are walked together are one: once all addresses are known
    reorder,  # statements in the order that needs the least memory
)


def _arranged(program: Program, precision: Precision) -> Program:
    for change in ARRANGING:
        if change is not round_operands or precision == "bf16":
            program = change(program)
    return program


def _placed(program: Program) -> Program:
    program = share_buffers(program)
    verify_program(program)
    return program
