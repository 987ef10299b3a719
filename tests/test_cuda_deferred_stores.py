"""Stores to global memory after the step's parts have been sent: where they are, and that results stay the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.access import Access
from graphc.codegen.cuda.cost_model import Grouping, groupings
from graphc.codegen.cuda.kernel.scalars import Scalars
from graphc.codegen.cuda.loops.all_gather import ClusterAllGather, MemoryAllGather
from graphc.codegen.cuda.loops.deferred_stores import DeferredStores
from graphc.codegen.cuda.loops.loop import LoopEmitter
from graphc.codegen.llvm.builder import Function, Value
from graphc.codegen.program import Const, Dim, Index, Kernel, Load, Program, Scalar, Store
from graphc.compiling.cuda_compile import CompiledCuda
from tests.cuda_emulated import arrays_of, compiled, loops_of, recurrent

SIZES = {"t": 4, "n": 3}


def alone(f: CompiledCuda, exchanges: bool) -> list[dict[str, Grouping]]:
    """The groupings in which each group has one row of the batch, of versions with exchanges or without."""
    chosen: list[dict[str, Grouping]] = [{}]
    for unit in loops_of(f):
        ways = groupings(unit, f.program, f.code.arch, SIZES)
        found = [way for way in ways if way.groups == SIZES["n"] and bool(way.version.exchanges) == exchanges]
        chosen = [{**others, unit.symbol: way} for others in chosen for way in found]
    return chosen


@pytest.mark.parametrize("cluster", [1, 16])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "lem", "slstm"])
def test_results_with_one_row_a_group(cell: str, cluster: int) -> None:
    """In clusters and, without clusters, over the grid; also with two exchanges a step (LEM)."""
    g = recurrent(cell, 16)
    f, arrays = compiled(g, cluster=cluster), arrays_of(g, **SIZES)
    expected = gc.interpret(g, **arrays)
    chosen = alone(f, exchanges=True)
    assert chosen
    for way in chosen:
        found = f.runner(arrays, way)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=f"{name} {way}")


@pytest.mark.parametrize("cluster", [1, 16])
def test_the_order_of_the_code(cluster: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward loop stores c, h and four gates for the gradient. Its code is there twice: for several rows a group,
    whose stores come before it sends, and for one row, whose stores come after."""
    events: list[str] = []
    for owner, name in ((Scalars, "store_global"), (ClusterAllGather, "send"), (MemoryAllGather, "send")):
        monkeypatch.setattr(owner, name, recorded(getattr(owner, name), lambda _, name=name: name, events))
    monkeypatch.setattr(LoopEmitter, "emit", recorded(LoopEmitter.emit, lambda x: x.unit.symbol_of(x.version), events))
    f = compiled(recurrent("lstm", 16), cluster=cluster)
    unit = loops_of(f)[0]
    version = next(version for version in unit.versions if version.exchanges)
    stores = sum(len(kernel.stores) for kernel in unit.loop.body if isinstance(kernel, Kernel))
    assert stores >= 2
    start = events.index(unit.symbol_of(version)) + 1
    assert events[start : start + 2 * stores + 1] == [*["store_global"] * stores, "send", *["store_global"] * stores]


def recorded(method: Callable[..., Any], event: Callable[[Any], str], events: list[str]) -> Callable[..., Any]:
    """A method that appends an event to a list, and then does what it did."""

    def call(self: Any, *arguments: Any) -> Any:
        events.append(event(self))
        return method(self, *arguments)

    return call


class _Stub(Function):
    """Enough of a function to keep values in."""

    def __init__(self) -> None:
        self.kept: list[tuple[Value, Value]] = []

    def variable(self, type: str, count: int = 1) -> Value:
        return Value(f"%{len(self.kept)}", "ptr")

    def put(self, value: Value, pointer: Value, align: int | None = None) -> None:
        self.kept.append((value, pointer))


def kernel(name: str, reads: Sequence[Load], stores: Sequence[str]) -> Kernel:
    value: Scalar = reads[0] if reads else Const(1.0, "float32")
    dims = (Dim("e", Const(8, "index")),)
    return Kernel(name, dims, (), tuple(Store(buffer, (Index("e"),), value) for buffer in stores))


def test_what_is_pending_is_stored_before_it_is_touched() -> None:
    a, b = Load("a", (Index("e"),), "float32"), Load("b", (Index("e"),), "float32")
    deferred = DeferredStores(_Stub())  # type: ignore[arg-type]
    maker = kernel("maker", [b], ["a"])
    assert not deferred.are_touched_by(kernel("reader", [a], ["c"]), ())
    deferred.defer(maker, maker.stores[0], Value("%x", "float"))
    assert deferred.kernels() == ("maker",)
    assert deferred.are_touched_by(kernel("reader", [a], ["c"]), ())
    assert deferred.are_touched_by(kernel("writer", [b], ["a"]), ())
    assert not deferred.are_touched_by(kernel("reader", [a], ["c"]), [a])  # the value is in a register
    assert not deferred.are_touched_by(kernel("other", [b], ["c"]), ())


def test_what_has_to_be_looked_up_or_added_to_is_not_deferred() -> None:
    program = Program("p", (), (), ())
    place = Load("place", (Index("e"),), "int32")
    access = Access(kernel("k", (), ()), program)
    deferred, one = DeferredStores(_Stub()), Const(1.0, "float32")  # type: ignore[arg-type]
    assert deferred.can_wait(Store("a", (Index("e"),), one), access)
    assert not deferred.can_wait(Store("a", (Index("e"),), one, accumulate=True), access)
    assert not deferred.can_wait(Store("a", (place,), one), access)
