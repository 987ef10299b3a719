"""Programs in chunks against the same programs in one piece, in the interpreter of the loop IR."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.memory.chunk import chunk, loop_axes
from graphc.codegen.program import Loop, Program, Size
from graphc.codegen.verify_program import verify
from graphc.errors import UnsupportedError
from graphc.pipeline.stages import in_chunks, stages
from graphc.scheduling.lower import Lowered
from graphc.testing import Example, graphs, random_arrays

CELLS = (
    *("cornn", "delta_net", "elman", "gla", "gru", "indrnn", "layer_norm_lstm", "lem", "lstm", "mgu"),
    *("min_gru", "min_lstm", "mlstm", "peephole_lstm", "projected_lstm", "rg_lru", "rwkv7", "selective_ssm", "slstm"),
)


def results(
    program: Program, lowered: Lowered, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> dict[str, np.ndarray]:
    given = {name: np.array(array) for name, array in arrays.items()}
    full = allocate(program, {**given, **lowered.constants}, sizes)
    interpret(program, full, sizes)
    params = {f"param {b.name}": full[b.name] for b in program.buffers if b.kind == "param"}
    return {name: full[buffer] for name, buffer in lowered.outputs.items()} | params


def check(
    graph: gc.Graph, arrays: Mapping[str, np.ndarray], chunks: int, exact: tuple[str, ...] = (), **sizes: int
) -> None:
    """The results are the same in chunks, along each axis that is looped over, as chunks are made and as they run; some
    are to the last bit."""
    made = stages(graph)
    expected = results(made.planned, made.lowered, arrays, sizes)
    for axis, running in zip(loop_axes(made.planned), in_chunks(made), strict=True):
        chunked = chunk(made.planned, axis)
        verify(chunked.program)
        for version in (chunked, running):
            found = results(version.program, made.lowered, arrays, {**sizes, **version.sizes(sizes[axis], chunks)})
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=f"{name} along {axis}")
                assert name not in exact or version is running or np.array_equal(found[name], value)


def sequences(ragged: bool = False) -> tuple[gc.Graph, gc.Value]:
    """A graph, and its input x over time and batch."""
    g = gc.Graph("g", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32") if ragged else None)
    return g, g.input("x", (3,), over=(t, n))


def sweeps_of(program: Program, axis: str = "t") -> list[str]:
    loops = [s for s in program.body if isinstance(s, Loop) and s.index == f"{axis}.chunk"]
    return ["down" if loop.reverse else "up" for loop in loops]


def full_length(program: Program) -> list[str]:
    """The temporaries that take memory for all of axis t."""
    return [b.name for b in program.buffers if b.kind == "temp" and Size("t") in b.dims]


@settings(max_examples=30)
@given(graphs(), st.integers(1, 4), st.booleans())
def test_random_graphs_in_chunks(example: Example, chunks: int, differentiate: bool) -> None:
    graph = gc.grad(example.graph, "loss") if differentiate else example.graph
    sizes = {a.name: a.length for a in graph.axes.values() if isinstance(a.length, int)}
    for name, node in graph.inputs.items():
        sizes |= {a.name: n for a, n in zip(node.axes, example.arrays[name].shape, strict=False)}
    check(graph, example.arrays, chunks, **sizes)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("ragged", [False, True], ids=["equal", "ragged"])
def test_cells_in_chunks(name: str, ragged: bool) -> None:
    g, x = sequences(ragged)
    t, n = x.axes
    h = getattr(gc.cells, name)(g, x, 4, over=t, name="cell").h
    g.output("h", h)
    g.output("last", h[t.last])
    g.output("loss", gc.sum(gc.sum(h * h), over=(t, n)) + gc.sum(gc.sum(gc.tanh(h[t.last])), over=n))
    dg = gc.grad(g, "loss", wrt=[*g.params, "x"])
    for steps, chunks in ((7, 2), (5, 5), (5, 3), *(() if ragged else ((7, 1), (0, 2)))):
        arrays = random_arrays(dg, 0, t=steps, n=2)
        check(dg, arrays, chunks, ("h", "last", "grad_x"), t=steps, n=2)


def test_of_a_recurrent_network_no_temporary_has_its_full_length() -> None:
    g, x = sequences()
    t, n = x.axes
    h = gc.cells.stack(g, x, gc.cells.lstm, 4, 2, over=t, name="net").h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    chunked = chunk(stages(gc.grad(g, "loss")).planned, "t").program
    assert sweeps_of(chunked) == ["up", "down"]
    assert full_length(chunked) == []
    assert {b.name for b in chunked.buffers if Size("t.chunks") in b.dims} >= {"net_0_h.before"}


def test_both_directions_are_computed_again_from_checkpoints() -> None:
    g, x = sequences()
    t, n = x.axes
    forward = gc.cells.lstm(g, x, 2, over=t, name="f").h
    backward = gc.cells.lstm(g, x, 2, over=t, name="b", reverse=True).h
    g.output("loss", gc.sum(gc.sum(gc.tanh(forward * backward)), over=(t, n)))
    dg = gc.grad(g, "loss")
    chunked = chunk(stages(dg).planned, "t").program
    assert sweeps_of(chunked) == ["up", "down", "up"]
    assert full_length(chunked) == []
    check(dg, random_arrays(dg, 0, t=7, n=2), 3, t=7, n=2)


@pytest.mark.parametrize("optimizer", [gc.optim.SGD(lr=0.1), gc.optim.Adam(lr=0.1)], ids=["sgd", "adam"])
def test_a_training_step_in_chunks_updates_the_same(optimizer: gc.optim.Optimizer) -> None:
    g, x = sequences()
    t, n = x.axes
    h = gc.cells.gru(g, x, 4, over=t, name="cell").h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    step = gc.training_step(g, "loss", optimizer)
    check(step, random_arrays(step, 0, t=7, n=2), 3, t=7, n=2)


def test_statistics_of_a_whole_sequence_take_a_sweep_of_their_own() -> None:
    g, x = sequences()
    t, n = x.axes
    center = x - gc.mean(x, over=(t, n))
    scaled = center / gc.sqrt(gc.mean(center * center, over=(t, n)) + 1e-5)
    h = gc.cells.elman(g, scaled, 4, over=t, name="cell").h
    g.output("largest", gc.max(gc.max(h), over=t))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    dg = gc.grad(g, "loss", wrt=["x", "cell_W_h"])
    assert full_length(chunk(stages(dg).planned, "t").program) == []
    check(dg, random_arrays(dg, 0, t=7, n=2), 3, ("largest",), t=7, n=2)


def test_sums_of_two_lengths_in_one_kernel_read_the_last_step() -> None:
    """Dims of two reductions may have one name, but not one length."""
    g, x = sequences()
    t = x.axes[0]
    h = gc.cells.elman(g, x, 9, over=t, name="cell").h
    g.output("whole", g.param("V", (3, 9)) @ h[t.last])
    g.output("part", g.param("W", (3, 2)) @ h[t.last][:2])
    check(g, random_arrays(g, 0, t=7, n=2), 3, t=7, n=2)


def test_a_sum_is_stored_to_several_places_of_one_buffer() -> None:
    """A kernel that stores to a buffer does not read the whole sum from another place of it."""
    g, x = sequences()
    t, n = x.axes
    h = gc.cells.elman(g, x, 3, over=t, name="cell").h
    total = gc.sum(gc.sin(h), over=t)
    for name, other in (("twice", total), ("changed", gc.tanh(total)), ("others", gc.sum(h * h, over=t))):
        state = g.state(name, (9,), over=(t, n), initial=gc.concat([total, other, total]))
        g.define(name, 0.5 * state[t - 1] + x[0])
        g.output(name, state)
    check(g, random_arrays(g, 0, t=7, n=2), 3, t=7, n=2)


def test_terms_that_each_step_of_a_chunk_sends_elsewhere() -> None:
    """What they are added up in has room for the steps of one chunk."""
    g, x = sequences(ragged=True)
    t, n = x.axes
    j = g.axis("j")
    k = g.axis("k", j)
    h = gc.cells.elman(g, gc.outer(x, x)[0] + g.input("a", (), over=j), 3, over=t, name="cell").h
    place = g.input("place", (), over=(t, j, n), dtype="int32")
    read = (g.param("W", (2, 3)) @ h)[j.at(place[k])]
    g.output("loss", gc.sum(gc.sum(gc.sin(read)), over=(t, k, n)))
    dg = gc.grad(g, "loss")
    check(dg, random_arrays(dg, 0, t=7, n=2, j=3), 3, t=7, n=2, j=3)


def test_a_param_is_updated_after_all_sweeps_or_not_in_chunks() -> None:
    g, x = sequences()
    t, n = x.axes
    middle = g.param("middle", (3,))
    mean = 0.9 * middle + 0.1 * gc.mean(x - middle, over=(t, n))
    h = gc.cells.elman(g, x - mean - middle, 4, over=t, name="cell").h
    g.output("h", h)
    g.update("middle", mean)
    check(g, random_arrays(g, 0, t=7, n=2), 3, t=7, n=2)


def test_a_param_that_is_updated_between_two_sweeps_that_read_it_is_refused() -> None:
    g, x = sequences()
    t, n = x.axes
    h = gc.cells.elman(g, x, 4, over=t, name="cell").h
    mean = gc.mean(h, over=(t, n))
    g.output("spread", gc.sum(gc.sum((h - mean) ** 2), over=(t, n)))
    g.update("cell_b_h", mean)
    with pytest.raises(UnsupportedError, match="cell_b_h is updated"):
        check(g, random_arrays(g, 0, t=7, n=2), 3, t=7, n=2)
