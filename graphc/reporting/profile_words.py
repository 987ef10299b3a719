"""What a profile says of the statements of a program, by the names that its values had before they shared memory.

In: a compiled graph's stages, and its Program with a place of its own for each value. Out: words for a statement, and
the operations of its products.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.checks.causality import components
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.program import Kernel, Loop, Program, Statement, kernels
from graphc.pipeline.stages import Stages
from graphc.reporting.loop_summary import loop_summary


class Words:
    """What to call the statements of one program."""

    def __init__(self, made: Stages, arranged: Program) -> None:
        graph, names = made.scheduled.graph, made.lowered.names
        self.summary = loop_summary(arranged, made)
        self.kernels = {kernel.name: kernel for kernel in kernels(arranged.body)}
        self.states: dict[str, list[str]] = {}  # of the cycle that a buffer is part of
        for part in components(graph):
            if part.axis is not None:
                states = sorted(part.states)
                self.states |= {names[node]: states for node in part.nodes if node in names}

    def statement(self, statement: Statement) -> str:
        """What a statement does, in words."""
        inside = [self.kernels.get(kernel.name, kernel) for kernel in kernels((statement,))]
        if isinstance(statement, Kernel):
            return str(self.summary.work(inside[0]))
        stored = [store.buffer for kernel in inside for store in kernel.stores]
        states = dict.fromkeys(state for name in stored for state in self.states.get(name, ()))
        where = "end" if statement.reverse else "start"
        return f"loop along {statement.index} from its {where}: {', '.join(states or dict.fromkeys(stored))}"

    def operations(self, statement: Statement, sizes: Mapping[str, int]) -> float:
        """The operations of a statement's products; a multiply-add is two."""
        if isinstance(statement, Loop):
            return evaluate(statement.extent, sizes) * sum(self.operations(s, sizes) for s in statement.body)
        points = points_of(statement.dims, sizes)
        products = self.summary.work(statement).products
        lengths = [points_of(reduce.dims, sizes) for reduce in statement.reduces]
        return 2.0 * points * sum(p.count * p.together * length for p, length in zip(products, lengths, strict=True))
