"""Recurrent layers drawn at random, whose products read states of this step and of the one before: in every way to
group CTAs, with clusters and without, they compute what the interpreter does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.target import Precision
from graphc.ir import AxisPoint
from tests.cuda_emulated import arrays_of, check

SIZES = (3, 8, 12, 20, 40)  # units of a state: of which some fill no CTA, and some several


@dataclass(frozen=True)
class Drawn:
    """`sizes` of the states, and `sources` of each: other states, of this step (0) or the one before (1). A state that
    is `gated` is mixed with its own step before. `beside` are states of its size that it adds as they are, of this step
    or up to two before."""

    sizes: tuple[int, ...]
    sources: tuple[tuple[tuple[int, int], ...], ...]
    gated: tuple[bool, ...]
    beside: tuple[tuple[tuple[int, int], ...], ...]
    reverse: bool
    differentiated: bool

    @property
    def graph(self) -> gc.Graph:
        g = gc.Graph("drawn")
        t, n = g.axis("t"), g.axis("n")
        x = g.input("x", (5,), over=(t, n))
        states = [g.state(f"s{k}", (size,), over=(t, n)) for k, size in enumerate(self.sizes)]

        def ago(age: int) -> AxisPoint:
            return t + age if self.reverse else t - age

        for k, state in enumerate(states):
            units = self.sizes[k]
            total = g.param(f"W{k}", (units, 5)) @ x[t]
            for other, age in self.sources[k]:
                read = states[other][ago(age)]
                total = total + g.param(f"U{k}_{other}_{age}", (units, self.sizes[other])) @ read
            made = gc.tanh(total)
            if self.gated[k]:
                z = gc.sigmoid(total + g.param(f"b{k}", (units,)))
                made = z * made + (1 - z) * state[ago(1)]
            for other, age in self.beside[k]:
                made = made + 0.3 * states[other][ago(age)]
            state[t] = made
        g.output("loss", sum(gc.mean(gc.sum(state * state), over=(t, n)) for state in states))
        for k, state in enumerate(states):
            g.output(f"last{k}", state)
        return gc.grad(g, "loss") if self.differentiated else g


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    some = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=2))  # so that states are often of one size
    sizes = tuple(draw(st.lists(st.sampled_from(some), min_size=1, max_size=3)))
    sources = []
    for k in range(len(sizes)):
        possible = [(other, age) for other in range(len(sizes)) for age in ((0, 1) if other < k else (1,))]
        sources.append(tuple(draw(st.lists(st.sampled_from(possible), min_size=1, max_size=3, unique=True))))
    gated = tuple(draw(st.booleans()) for _ in sizes)
    beside = []
    for k, size in enumerate(sizes):
        alike = [other for other in range(len(sizes)) if sizes[other] == size]
        possible = [(other, age) for other in alike for age in ((0, 1, 2) if other < k else (1, 2))]
        beside.append(tuple(draw(st.lists(st.sampled_from(possible), max_size=2, unique=True))))
    return Drawn(sizes, tuple(sources), gated, tuple(beside), draw(st.booleans()), draw(st.booleans()))


@given(drawn(), st.sampled_from([1, 16]), st.sampled_from(["float32", "bf16"]), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=8)
def test_drawn_layers(layer: Drawn, cluster: int, precision: Precision, steps: int, batch: int) -> None:
    g, lengths = layer.graph, {"t": steps, "n": batch}
    check(
        g, arrays_of(g, **lengths), lengths, 6e-2 if precision == "bf16" else 1e-4, cluster=cluster, precision=precision
    )


def test_such_layers_have_exchanges() -> None:
    """The draws reach what they are for."""
    layer = Drawn((20, 12), (((0, 1), (1, 1)), ((0, 0),)), (True, False), ((), ()), False, True)
    code = gc.emit(layer.graph, target="cuda", arch="sm_80")
    loops = [unit for unit in code.units if isinstance(unit, LoopUnit)]
    assert len(loops) == 2
    assert all(any(version.exchanges for version in unit.versions) for unit in loops)
    other = dataclasses.replace(layer, reverse=True).graph
    arrays = arrays_of(layer.graph, t=3, n=2)
    turned = gc.interpret(other, **{**arrays, "x": arrays["x"][::-1].copy()})
    np.testing.assert_allclose(turned["loss"], gc.interpret(layer.graph, **arrays)["loss"], rtol=1e-5)
