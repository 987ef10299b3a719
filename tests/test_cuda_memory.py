"""A limit on the memory of calls on a GPU: chunks that the host walks compute what the interpreter does, and keep to
it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.codegen.cuda.host_loop import is_host_loop
from graphc.codegen.cuda.launches import launched
from graphc.codegen.cuda.loops.loop_unit import LoopUnit
from graphc.codegen.lengths import evaluate, step_name
from graphc.codegen.memory.arena import memory_use
from graphc.codegen.program import Index, Loop
from graphc.command_line.user_file import load_graph
from graphc.compiling.cuda_compile import CompiledCuda
from graphc.errors import ArgumentError, GraphError, UnsupportedError
from graphc.runtime.cuda_layout import Chosen
from graphc.scalar import call, index
from graphc.testing.gradient_check import random_arrays
from tests.cuda_emulated import EmulatedDevice, arrays_of, compiled, loops_of, recurrent, ways
from tests.test_cuda_loops import CELLS

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
MUCH = 1 << 40  # bytes


def in_chunks(
    g: gc.Graph, lengths: Mapping[str, int], chunks: int, number: int = 0, **options: str
) -> tuple[CompiledCuda, dict[str, int]]:
    """Compiled to run calls of these lengths in so many chunks of one of the axes; and the sizes of such a call."""
    f = compiled(g, memory=MUCH, **options)
    loaded, version = list(f._versions.chunked.items())[number]
    f._versions.chunked = {loaded: version}
    sizes = {**lengths, **version.sizes(lengths[version.axis], chunks)}
    f.runner.choose = lambda _: Chosen(loaded, sizes)
    return f, sizes


def close(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float = 2e-5) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
def test_a_gradient_in_chunks_in_every_way_to_group_ctas(cell: str) -> None:
    """The last chunk is shorter, and every version of every loop begins with what the chunk before has left."""
    g, lengths = recurrent(cell, 4), {"t": 7, "n": 3}
    arrays, (f, sizes) = arrays_of(g, **lengths), in_chunks(g, lengths, 3)
    assert (sizes["t.chunk"], sizes["t.chunks"]) == (3, 3)
    expected = gc.interpret(g, **arrays)
    for chosen in ways(f, sizes):
        close(f.runner(arrays, chosen), expected)


def bidirectional(units: int) -> gc.Graph:
    """Both directions, and what both come to at their ends."""
    g = gc.Graph("both")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    forward = gc.cells.lstm(g, x, units, over=t, name="f").h
    backward = gc.cells.gru(g, x, units, over=t, name="b", reverse=True).h
    g.output("ends", forward[t.last] * backward[t.first])
    g.output("loss", gc.mean(gc.sum(gc.tanh(forward * backward)), over=(t, n)))
    return gc.grad(g, "loss", wrt=[*g.params, "x"])


@pytest.mark.parametrize(("steps", "chunks"), [(6, 2), (5, 3), (5, 5), (4, 1), (0, 1)])
def test_both_directions(steps: int, chunks: int) -> None:
    """Three sweeps: up, down, and up again, from checkpoints of either side."""
    g, lengths = bidirectional(4), {"t": steps, "n": 2}
    arrays, (f, sizes) = arrays_of(g, **lengths), in_chunks(g, lengths, chunks)
    expected = gc.interpret(g, **arrays) if steps else gc.compile(g)(**arrays)
    for chosen in ways(f, sizes) if steps else [None]:
        close(f.runner(arrays, chosen), expected)


def test_states_that_are_outputs() -> None:
    """These have their full length, so that each chunk goes on from where the one before has stored it; its steps are
    exchanged as those of others are."""
    g = gc.Graph("kept")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    up = gc.cells.gru(g, x, 4, over=t, name="up").h
    down = gc.cells.elman(g, up, 4, over=t, name="down", reverse=True).h
    for name, value in (("up", up), ("down", down), ("last", up[t.last]), ("largest", gc.max(gc.max(down), over=t))):
        g.output(name, value)
    lengths = {"t": 8, "n": 3}
    arrays, (f, sizes) = arrays_of(g, **lengths), in_chunks(g, lengths, 3)
    for name in ("up", "down"):
        found = [m for unit in loops_of(f) for v in unit.versions for m in v.mirrors if m.buffer.name == name]
        assert found
        assert all(mirror.filled for mirror in found)
    for chosen in ways(f, sizes):
        close(f.runner(arrays, chosen), gc.interpret(g, **arrays))


@pytest.mark.parametrize("number", [0, 1])
def test_two_axes(number: int) -> None:
    """Chunks along either of two axes that are looped over, one inside the other."""
    g = gc.Graph("plane")
    i, j, n = g.axis("i"), g.axis("j"), g.axis("n")
    x, w = g.input("x", (4,), over=(i, j, n)), g.param("W", (4, 4))
    o = g.state("o", (4,), over=(i, j, n))
    o[i, j] = gc.tanh(x + w @ o[i - 1] - 0.5 * (w @ o[j - 1]))
    other = gc.cells.elman(g, x, 3, over=j, name="along").h
    g.output("loss", gc.mean(gc.sum(o * o) + gc.sum(other * other), over=(i, j, n)))
    dg, lengths = gc.grad(g, "loss"), {"i": 5, "j": 3, "n": 2}
    arrays, (f, sizes) = arrays_of(dg, **lengths), in_chunks(dg, lengths, 2, number)
    for chosen in ways(f, sizes):
        close(f.runner(arrays, chosen), gc.interpret(dg, **arrays))


@settings(max_examples=10)
@given(testing.graphs(most_states=2), st.integers(1, 3), st.booleans())
def test_random_graphs(example: testing.Example, chunks: int, differentiate: bool) -> None:
    g = gc.grad(example.graph, "loss") if differentiate else example.graph
    lengths = {a.name: a.length for a in g.axes.values() if isinstance(a.length, int)}
    for name, node in g.inputs.items():
        lengths |= {a.name: n for a, n in zip(node.axes, example.arrays[name].shape, strict=False)}
    if not compiled(g, memory=MUCH)._versions.chunked:
        return
    f, _ = in_chunks(g, lengths, chunks)
    close(f(**example.arrays), gc.interpret(g, **example.arrays), 1e-9)


def test_products_on_the_tensor_cores() -> None:
    """Their mirrors are filled with numbers that are rounded as the loop rounds its own."""
    g, lengths = recurrent("gru", 32), {"t": 5, "n": 3}
    arrays, (f, sizes) = arrays_of(g, **lengths), in_chunks(g, lengths, 2)
    rounded, _ = in_chunks(g, lengths, 2, precision="bf16")
    for chosen in ways(rounded, sizes):
        close(rounded.runner(arrays, chosen), f(**arrays), 2e-2)


# What is launched.


def test_an_index_is_an_argument_and_a_last_chunk_is_shorter() -> None:
    f, sizes = in_chunks(recurrent("gru", 4), {"t": 7, "n": 3}, 3)
    first = next(unit for unit in f.code.units if unit.around and isinstance(unit, LoopUnit))
    own = [one for one in launched(f.code, sizes) if one.unit is first]
    place = len(first.buffers) + len(f.program.sizes)
    assert [one.launch.arguments[place] for one in own] == [0, 1, 2]
    assert [evaluate(first.loop.extent, one.sizes) for one in own] == [3, 3, 1]
    order = [one.unit.statement for one in launched(f.code, sizes) if one.unit.around == first.around]
    inside = list(first.around[0].body)
    assert order == inside * 3  # one chunk after another, all of its statements in each


def test_a_descending_sweep_goes_from_the_last_chunk_to_the_first() -> None:
    f, sizes = in_chunks(recurrent("gru", 4), {"t": 7, "n": 3}, 3)
    steps: dict[str, list[int]] = {}
    for one in launched(f.code, sizes):
        if one.unit.around:
            steps.setdefault(one.unit.symbol, []).append(one.sizes[step_name("t.chunk")])
    descending = {unit.symbol for unit in f.code.units if unit.around and unit.around[0].reverse}
    assert descending
    assert all(found == ([2, 1, 0] if symbol in descending else [0, 1, 2]) for symbol, found in steps.items())


def test_long_sums_of_a_chunk_are_added_in_parts() -> None:
    f = compiled(recurrent("gru", 4), memory=MUCH)
    parts = [unit.symbol for unit in f.code.units if unit.around and "partials" in unit.symbol]
    assert len(parts) >= 3  # W, U and b


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_without_chunks_there_is_no_host_loop(path: Path) -> None:
    g = load_graph(path, "")
    code = gc.emit(gc.grad(g, "loss") if "loss" in g.outputs else g, target="cuda")
    assert all(unit.around == () for unit in code.units)


def test_which_loops_are_host_loops() -> None:
    f = compiled(recurrent("gru", 4), memory=MUCH)
    loops = [s for s in f.program.body if isinstance(s, Loop)]
    assert [is_host_loop(loop) for loop in loops] == [True, True]
    inner = [s for loop in loops for s in loop.body if isinstance(s, Loop)]
    assert [is_host_loop(loop) for loop in inner] == [False] * 3
    extent = call("sub", index(9), Index("t.chunk"))
    assert [evaluate(extent, sizes) for sizes in ({}, {step_name("t.chunk"): 2})] == [9, 7]


# The limit.


def test_a_call_keeps_to_its_limit() -> None:
    g, lengths = bidirectional(4), {"t": 100, "n": 2}
    arrays = arrays_of(g, **lengths)
    whole = compiled(g).memory(**lengths)
    limit = whole.peak // 2
    f = compiled(g, memory=limit)
    device = f.runner.device
    assert isinstance(device, EmulatedDevice)
    before = device._free
    close(f(**arrays), gc.compile(g)(**arrays), 1e-4)
    given = sum(array.nbytes for array in arrays.values())
    assert before - device._free <= limit + given
    assert f.memory(**lengths).peak <= limit < whole.peak


def test_chunks_are_as_long_as_the_limit_allows() -> None:
    """Every chunk takes launches of its own: there are no more than needed."""
    f = compiled(recurrent("lstm", 16), memory="1 MiB")
    chosen = f._versions.choose({"t": 2000, "n": 4})
    (version,) = f._versions.chunked.values()
    longer = chosen.sizes | version.sizes(2000, chosen.sizes["t.chunks"] // 2)
    assert f.memory(t=2000, n=4).peak <= 1 << 20 < memory_use(version.program, longer).peak


def test_what_fits_runs_in_one_piece() -> None:
    g = recurrent("gru", 4)
    arrays = arrays_of(g, t=5, n=2)
    found, expected = compiled(g, memory="1 GiB"), compiled(g)
    for name, value in expected(**arrays).items():
        assert found(**arrays)[name].tobytes() == value.tobytes()
    launches = [[one.symbol for one in f.runner.device.launched] for f in (found, expected)]  # type: ignore[attr-defined]
    assert launches[0][: len(launches[1])] == launches[1]


def test_a_limit_that_is_too_low_says_what_it_takes() -> None:
    g = bidirectional(8)
    arrays = random_arrays(g, 0, t=300, n=2)
    f = compiled(g, memory="20 KiB")
    device = f.runner.device
    assert isinstance(device, EmulatedDevice)
    before = device._free
    for ask in (lambda: f(**arrays), lambda: f.memory(t=300, n=2), lambda: f.bind(**arrays)):
        with pytest.raises(ArgumentError, match=r"at least .* limited to 20\.0 KiB.*grad_x"):
            ask()
    assert device._free == before
    with pytest.raises(ArgumentError) as error:
        f.memory(t=300, n=2)
    wanted = str(error.value).split("memory='")[1].split("'")[0]
    assert compiled(g, memory=wanted).memory(t=300, n=2).peak > 20 << 10


def test_without_a_state_there_are_no_chunks() -> None:
    g = gc.Graph("g")
    n = g.axis("n")
    g.output("y", gc.tanh(g.input("x", (64,), over=n)))
    f = compiled(g, memory="4 KiB")
    x = np.ones((8, 64), np.float32)
    np.testing.assert_allclose(f(x=x)["y"], np.tanh(x), rtol=1e-5)
    with pytest.raises(ArgumentError, match="no state"):
        f(x=np.ones((80, 64), np.float32))


def test_what_is_refused() -> None:
    g = recurrent("gru", 4)
    f = compiled(g, memory="1 MiB")
    with pytest.raises(UnsupportedError, match="memory limit cannot be frozen"):
        f.freeze(**{name: array for name, array in arrays_of(g, t=1, n=1).items() if name in g.params})
    with pytest.raises(GraphError, match="memory is"):
        compiled(g, memory="much")


# What else a call can be.


def test_a_training_step_updates_the_same() -> None:
    g = gc.Graph("net")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.gru(g, g.input("x", (3,), over=(t, n)), 4, over=t, name="cell").h
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    step, lengths = gc.training_step(g, "loss", gc.optim.Adam(lr=0.1)), {"t": 7, "n": 2}
    arrays, (f, _) = random_arrays(step, 0, **lengths), in_chunks(step, lengths, 3)
    states = [{name: array.copy() for name, array in arrays.items()} for _ in range(2)]
    f(**states[0])
    gc.compile(step)(**states[1])
    close(states[0], states[1])


def test_bound_on_the_gpu_and_profiled() -> None:
    g, lengths = recurrent("lstm", 8), {"t": 7, "n": 2}
    arrays, (f, _) = arrays_of(g, **lengths), in_chunks(g, lengths, 3)
    expected, bound = gc.interpret(g, **arrays), f.bind(**f.upload(arrays))
    for _ in range(2):
        close({name: array.numpy() for name, array in bound(stream=7).items()}, expected)
    made = f.profile(1, **arrays)
    loops = [part for part in made.parts if part.what.startswith("loop along t from")]
    assert [part.launches for part in loops] == [3, 3, 3]
    once = compiled(g).profile(1, **arrays)
    assert sum(p.operations for p in loops) == pytest.approx(
        sum(p.operations * (2 if "start" in p.what else 1) for p in once.parts if p.what.startswith("loop"))
    )  # forward twice, backward once
    assert f"3 times {loops[0].exchange}" in str(made)
