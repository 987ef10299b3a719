"""Calls of compiled graphs: what arrays they take, what they check each time, and what they leave alone."""

from __future__ import annotations

import gc as cycles
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArgumentError, DtypeError, GraphError
from graphc.runtime.cpu import Runner
from graphc.testing import check_gradients


def counter() -> gc.Graph:
    """A running sum of x, whose last value is added to the param `total`."""
    g = gc.Graph("counter")
    t = g.axis("t")
    x, total = g.input("x", (3,), over=t), g.param("total", (3,))
    h = g.state("h", (3,), over=t)
    h[t] = h[t - 1] + x
    g.output("h", h)
    g.output("again", h)
    g.update(total, total + h[t.last])
    return g


def test_any_layout_of_an_input_gives_the_same() -> None:
    f = gc.compile(counter())
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 3)
    for same in (x, np.asfortranarray(x), x[::-1].copy()[::-1], unaligned):
        total = np.zeros(3, np.float32)
        r = f(x=same, total=total)
        np.testing.assert_array_equal(r["h"], np.cumsum(x, axis=0))
        np.testing.assert_array_equal(r["again"], r["h"])
        np.testing.assert_array_equal(total, x.sum(axis=0))
    assert f(x=x.tolist(), total=np.zeros(3, np.float32))["h"][-1, 0] == 18


def test_what_becomes_an_array_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is as good as an array of it, at every call: nothing is planned again."""
    g = gc.Graph("decay")
    t = g.axis("t")
    h, rate = g.state("h", (), over=t, initial=1.0), g.input("rate", ())
    h[t] = rate * h[t - 1]
    g.output("h", h)
    f = gc.compile(g)
    first = f(rate=np.float32(0.5), t=3)["h"]
    monkeypatch.setattr(Runner, "_layout", lambda *_: pytest.fail("laid out again"))
    for same in (0.5, np.float32(0.5), np.array(0.5, np.float32)):
        np.testing.assert_array_equal(f(rate=same, t=3)["h"], first)


def test_lengths_change_from_call_to_call() -> None:
    f = gc.compile(counter())
    for steps in (4, 0, 1, 100, 4):
        total = np.zeros(3, np.float32)
        assert f(x=np.ones((steps, 3), np.float32), total=total)["h"].shape == (steps, 3)
        assert (total == steps).all()


@pytest.mark.parametrize(
    "total",
    [
        np.zeros(6, np.float32)[::2],
        np.frombuffer(bytes(12), np.float32),
        np.zeros(13, np.uint8)[1:].view(np.float32),
    ],
    ids=["strided", "read-only", "unaligned"],
)
def test_a_param_that_cannot_be_updated_in_place_is_refused(total: np.ndarray) -> None:
    f = gc.compile(counter())
    for _ in range(2):
        with pytest.raises(ArgumentError, match="total is updated in place"):
            f(x=np.ones((2, 3), np.float32), total=total)


def test_no_more_layouts_are_kept_than_there_is_room_for() -> None:
    g = gc.Graph("g")
    n = g.axis("n")
    g.output("y", 2 * g.input("x", (), over=n))
    f = gc.compile(g)
    for length in range(1, 300):
        x = np.arange(length, dtype=np.float32)
        np.testing.assert_array_equal(f(x=x)["y"], 2 * x)
    assert len(f._runner._layouts) == 256


def test_bytes_in_the_other_order_are_refused() -> None:
    g = counter()
    x = np.ones((2, 3), np.float32)
    f = gc.compile(g)
    f(x=x, total=np.zeros(3, np.float32))
    for call in (f, lambda **arrays: gc.interpret(g, **arrays)):
        with pytest.raises(ArgumentError, match="astype"):
            call(x=x.astype(x.dtype.newbyteorder()), total=np.zeros(3, np.float32))


def test_a_bound_call_reads_its_arrays_anew_and_reuses_its_results() -> None:
    x, total = np.ones((2, 3), np.float32), np.zeros(3, np.float32)
    call = gc.compile(counter()).bind(x=x, total=total)
    first = call()
    assert first["h"][-1, 0] == 2
    x[:] = 5
    assert call()["h"] is first["h"]
    assert first["h"][-1, 0] == 10
    assert (total == 12).all()


def test_a_bound_call_serves_one_thread_at_a_time() -> None:
    """Two calls at once would share memory and results: one of them is refused, and the other is right."""
    x = np.ones((200_000, 3), np.float32)
    call = gc.compile(counter(), threads=1).bind(x=x, total=np.zeros(3, np.float32))
    start, refused = threading.Barrier(2), []

    def calls() -> None:
        start.wait()
        for _ in range(20):
            try:
                call()
            except GraphError as error:
                refused.append(error)

    callers = [threading.Thread(target=calls) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert refused
    assert refused[0].reason.startswith("this bound call is running on another thread")
    assert str(refused[0]).startswith(f"{__file__}:")
    assert str(refused[0]).splitlines()[1:] == ["    call()", refused[0].reason]
    np.testing.assert_array_equal(call()["h"], np.cumsum(x, axis=0))


def test_what_a_bound_call_reads_lives_as_long_as_it_can_be_called() -> None:
    """The compiled function with its constants, and the bound call itself, may go before; memory goes with the last."""
    g = gc.Graph("table")
    n = g.axis("n")
    table = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    g.output("y", g.input("x", (1000,), over=n) @ table)
    x = np.ones((2, 1000), np.float32)
    expected = gc.compile(g)(x=x)["y"].copy()
    bound = gc.compile(g).bind(x=x)
    workspace, call = weakref.ref(bound.workspace.base), bound.__call__
    del bound, g, n, table
    cycles.collect()
    junk = [np.full(3000, 7, np.float32) for _ in range(100)]  # which takes the place of what has gone
    np.testing.assert_array_equal(call()["y"], expected)
    assert len(junk) == 100
    assert workspace() is not None
    del call
    assert workspace() is None, "a bound call that is no longer used holds memory until Python looks for cycles"


def test_a_bound_call_takes_no_arguments() -> None:
    call = gc.compile(counter()).bind(x=np.ones((2, 3), np.float32), total=np.zeros(3, np.float32))
    with pytest.raises(TypeError, match="takes no arguments"):
        call(1)  # type: ignore[call-arg]


def test_values_are_checked_at_every_call() -> None:
    """The layout is the same as in the call before; the lengths and the classes are not."""
    g = gc.Graph("g")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x, y = g.input("x", (4,), over=(t, n)), g.input("y", (), over=(t, n), dtype="int32")
    g.output("loss", gc.mean(gc.cross_entropy(x, y), over=(t, n)))
    f = gc.compile(g)
    x_, lengths = np.zeros((3, 2, 4), np.float32), np.array([3, 1], np.int32)
    labels = np.zeros((3, 2), np.int32)
    labels[1:, 1] = 77  # past the second example's length: never looked at
    assert f(x=x_, y=labels, lengths=lengths)["loss"] == pytest.approx(np.log(4))
    with pytest.raises(ArgumentError, match="lengths from 1 to 4"):
        f(x=x_, y=labels, lengths=np.array([4, 1], np.int32))
    with pytest.raises(ArgumentError, match="y names rows or classes 0 to 3"):
        f(x=x_, y=labels, lengths=np.array([3, 2], np.int32))


def test_memory_that_is_not_there_is_not_asked_for() -> None:
    g = gc.Graph("g")
    t = g.axis("t")
    h = g.state("h", (1 << 20,), over=t)
    h[t] = h[t - 1] + 1.0
    g.output("h", h)
    with pytest.raises(ArgumentError, match=r"the call needs .* GiB"):
        gc.compile(g)(t=1 << 30)


def test_a_missing_result_names_those_there_are() -> None:
    r = gc.compile(counter())(x=np.ones((1, 3), np.float32), total=np.zeros(3, np.float32))
    with pytest.raises(KeyError, match="the outputs are h, again"):
        r["loss"]


def test_code_for_other_machines() -> None:
    g = gc.Graph("g")
    t = g.axis("t")
    h = g.state("h", (32,), over=t)
    h[t] = gc.tanh(g.param("W", (32, 32)) @ h[t - 1] + g.input("x", (32,), over=t))
    g.output("h", h)
    assert b"ELF" in gc.emit(g, triple="aarch64-unknown-linux-gnu").object[:4]
    assert "zmm" in gc.emit(g, triple="x86_64-unknown-linux-gnu", arch="skylake-avx512").assembly
    assert "zmm" not in gc.emit(g, triple="x86_64-unknown-linux-gnu", arch="haswell").assembly


@pytest.mark.parametrize("total", [[0.0, 0.0, 0.0], (0.0, 0.0, 0.0)], ids=["list", "tuple"])
def test_what_is_not_an_array_cannot_be_updated(total: object) -> None:
    """The update would go to a copy that nobody sees."""
    g = counter()
    for call in (gc.compile(g), lambda **arrays: gc.interpret(g, **arrays)):
        with pytest.raises(ArgumentError, match="total is updated in place, so it must be a numpy array"):
            call(x=np.ones((2, 3), np.float32), total=total)


def test_arrays_that_are_updated_have_memory_of_their_own() -> None:
    g = gc.Graph("two")
    n = g.axis("n")
    x, a, b = g.input("x", (4,), over=n), g.param("a", (4,)), g.param("b", (4,))
    g.update(a, a + gc.sum(x, over=n))
    g.update(b, b - gc.sum(x, over=n))
    f, shared = gc.compile(g), np.zeros(12, np.float32)
    arrays = {"x": np.ones((2, 4), np.float32)}
    for first, second in ((shared[:4], shared[:4]), (shared[:4], shared[3:7]), (shared[5:9], shared[4:8])):
        for call in (f, f.bind, lambda **given: gc.interpret(g, **given)):
            with pytest.raises(ArgumentError, match="share memory"):
                call(**arrays, a=first, b=second)
    f(**arrays, a=shared[:4], b=shared[4:8])
    np.testing.assert_array_equal(shared, [2] * 4 + [-2] * 4 + [0] * 4)


def test_a_mask_is_not_overlooked() -> None:
    """Also when a call with arrays of these shapes has been made before, and where an array is updated."""
    g = counter()
    f, x, total = gc.compile(g), np.ones((2, 3), np.float32), np.zeros(3, np.float32)
    f(x=x, total=total)
    hidden = np.ma.masked_array(x, mask=[[0, 0, 1], [1, 0, 0]])
    for call in (f, f.bind, lambda **given: gc.interpret(g, **given)):
        with pytest.raises(ArgumentError, match=r"x is a masked array, .* pass x\.filled\(0\)"):
            call(x=hidden, total=total)
        with pytest.raises(ArgumentError, match="total is a masked array"):
            call(x=x, total=np.ma.masked_array(total))


def test_what_is_read_does_not_lie_in_what_is_updated() -> None:
    """Another statement may read it after it has changed."""
    g = gc.Graph("sliding")
    n = g.axis("n")
    x, h = g.input("x", (4,), over=n), g.input("h", (4,), over=n)
    g.update(h, gc.tanh(x + h))
    g.output("y", g.param("W", (4, 4)) @ gc.tanh(x))
    f, shared = gc.compile(g), np.ones((5, 4), np.float32)
    weights = {"W": np.ones((4, 4), np.float32)}
    for first in (0, 1, 2):
        for call in (f, f.bind, lambda **given: gc.interpret(g, **given)):
            with pytest.raises(ArgumentError, match="h is written to, but shares memory with x; copy one"):
                call(x=shared[:3], h=shared[first : first + 3], **weights)
    f(x=shared[:2], h=shared[2:4], **weights)
    f(x=shared[::2], h=shared[:3], **weights)  # one that has gaps is copied


@pytest.mark.parametrize("kind", ["list", "Fortran", "strided", "unaligned"])
def test_bound_arrays_are_the_callers(kind: str) -> None:
    """A copy would never see what the caller writes."""
    x = np.ones((4, 3), np.float32)
    given = {
        "list": x.tolist(),
        "Fortran": np.asfortranarray(x),
        "strided": np.repeat(x, 2, axis=0)[::2],
        "unaligned": np.frombuffer(bytearray(b"\0" + x.tobytes()), np.uint8)[1:].view(np.float32).reshape(4, 3),
    }[kind]
    f, total = gc.compile(counter()), np.zeros(3, np.float32)
    with pytest.raises(ArgumentError, match=r"x is read at each call.*np.ascontiguousarray\(x, np.float32\)"):
        f.bind(x=given, total=total)
    bound = f.bind(x=x, total=total)
    x[...] = 5
    assert (bound()["h"][-1] == 20).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_lengths_changed_after_binding_stay_inside_the_arrays(threads: int) -> None:
    g = gc.Graph("ragged")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x = g.input("x", (2,), over=(t, n))
    h = g.state("h", (2,), over=(t, n))
    h[t] = 0.5 * h[t + 1] + x
    g.output("last", x[t.last])
    g.output("next", x[t + 1])
    g.output("h", h)
    f = gc.compile(g, threads=threads)
    arrays = {"x": np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)}
    lengths = np.array([5, 2, 3], np.int32)
    bound = f.bind(**arrays, lengths=lengths)
    for changed, nearest in ((6, 5), (4000, 5), (2**31 - 1, 5), (-1, 0), (-(2**31), 0)):
        lengths[0] = changed
        found = {name: array.copy() for name, array in bound().items()}
        for name, array in f(**arrays, lengths=np.array([nearest, 2, 3], np.int32)).items():
            np.testing.assert_array_equal(found[name], array)


def test_integers_that_do_not_fit_are_refused() -> None:
    g = gc.Graph("whole")
    n = g.axis("n")
    x = g.input("x", (), over=n, dtype="int32")
    g.output("y", x + 1)
    f = gc.compile(g)
    for value in (2**31, 2**33, -(2**31) - 1, 2**62):
        for call in (f, lambda **arrays: gc.interpret(g, **arrays)):
            with pytest.raises(ArgumentError, match=r"x (holds|does not make an array)"):
                call(x=[value, 1])
        with pytest.raises(DtypeError, match="integers are int32"):
            _ = x + value
    np.testing.assert_array_equal(f(x=[2**31 - 2, -(2**31)])["y"], [2**31 - 1, -(2**31) + 1])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int16, np.dtype(">i4")])
def test_integers_of_any_size_that_fit_are_taken(dtype: type | np.dtype) -> None:
    """Of numpy's and PyTorch's own size, int64; but not where the caller's array is updated, or read at each call."""
    g = gc.Graph("whole")
    n = g.axis("n")
    x, count = g.input("x", (), over=n, dtype="int32"), g.param("count", (), dtype="int32", init=0)
    g.output("y", x + count)
    g.update("count", count + 1)
    f, x_ = gc.compile(g), np.array([3, 100], dtype)
    for call in (f, lambda **arrays: gc.interpret(g, **arrays)):
        np.testing.assert_array_equal(call(x=x_, count=np.array(2, np.int32))["y"], [5, 102])
        assert call(x=x_[:0], count=np.array(2, np.int32))["y"].shape == (0,)
        with pytest.raises(ArgumentError, match=r"count is updated in place.*np.array\(count, np.int32, order="):
            call(x=x_, count=np.zeros((), dtype))
    with pytest.raises(ArgumentError, match=r"x is read at each call.*np.ascontiguousarray\(x, np.int32\)"):
        f.bind(x=x_, count=np.zeros((), np.int32))


def test_lengths_of_axes_are_whole_numbers_each_time() -> None:
    g = gc.Graph("counted")
    t = g.axis("t")
    h = g.state("h", (), over=t)
    h[t] = h[t - 1] + 1.0
    g.output("last", h[t.last])
    f = gc.compile(g)
    assert f(t=3)["last"] == 3
    for wrong in (3.0, True, np.float32(3), "3", 2**64 + 3, -1):
        with pytest.raises(ArgumentError, match="axis 't'"):
            f(t=wrong)
    assert f(t=np.int64(4))["last"] == 4


def test_zeros_of_both_signs_are_two_numbers() -> None:
    g = gc.Graph("zeros")
    n = g.axis("n")
    x = g.input("x", (), over=n)
    g.output("plus", 1 / gc.where(x > 0, 0.0, x))
    g.output("minus", 1 / gc.where(x > 0, -0.0, x))
    found = gc.compile(g)(x=np.ones(3, np.float32))
    assert (found["plus"] == np.inf).all()
    assert (found["minus"] == -np.inf).all()


# Indices.


def classified(ragged: bool) -> gc.Graph:
    """Words of two numbers: a row of one table, and, of the next word, a class."""
    g = gc.Graph("classified", dtype="float64")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32") if ragged else None)
    word = g.input("word", (2,), over=(t, n), dtype="int32")
    scores = g.param("O", (6, 4)) @ gc.embedding(g.param("E", (10, 4)), word[0])
    g.output("loss", gc.sum(gc.cross_entropy(scores, word[1][t + 1]), over=(t, n)))
    return g


@pytest.mark.parametrize(("ragged", "unrolled"), [(False, False), (True, False), (False, True)])
def test_indices_are_checked_where_they_are_read(ragged: bool, unrolled: bool) -> None:
    g, rng = classified(ragged), np.random.default_rng(0)
    f = gc.compile(gc.unroll(g, t=5) if unrolled else g)
    word = np.stack([rng.integers(0, 10, (5, 3)), rng.integers(0, 6, (5, 3))], -1).astype(np.int32)
    params = {"O": rng.normal(size=(6, 4)), "E": rng.normal(size=(10, 4))}
    lengths = {"lengths": np.array([5, 2, 4], np.int32)} if ragged else {}
    expected = f(word=word, **params, **lengths)["loss"]
    never_read = [(0, slice(None), 1)] + ([(2, 1, 0), (2, 1, 1), (4, 2, 0)] if ragged else [])
    for place in never_read:
        word[place] = rng.choice([-1, 100])
    assert f(word=word, **params, **lengths)["loss"] == expected
    for place, bound in (((0, 1, 0), 10), ((1, 1, 1), 6), ((4, 0, 0), 10), ((4, 0, 1), 6)):
        for wrong in (bound, -1):
            kept, word[place] = word[place], wrong
            with pytest.raises(ArgumentError, match=f"word names rows or classes 0 to {bound - 1}"):
                f(word=word, **params, **lengths)
            word[place] = kept


@pytest.mark.parametrize("position", ["first", "last", 2])
def test_indices_at_one_step(position: str | int) -> None:
    g = gc.Graph("one_step")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    word = g.input("word", (), over=(t, n), dtype="int32")
    at = {"first": t.first, "last": t.last}.get(str(position), position)
    g.output(
        "row", gc.embedding(g.param("E", (10, 4)), word[at] if isinstance(position, str) else word[t + 2][t.first])
    )
    f = gc.compile(g)
    given = {"E": np.ones((10, 4), np.float32), "lengths": np.array([5, 3, 0], np.int32)}
    read = {"first": [0, 0], "last": [4, 2], 2: [2, 2]}[position]
    for step in range(5):
        for example in range(3):
            word_array = np.zeros((5, 3), np.int32)
            word_array[step, example] = 10
            if example < 2 and read[example] == step:
                with pytest.raises(ArgumentError, match="word names rows"):
                    f(word=word_array, **given)
            else:
                assert f(word=word_array, **given)["row"].shape == (3, 4)


@pytest.mark.parametrize("name", ["self", "graph", "arrays", "unnamed", "calls", "seed", "given", "lengths"])
def test_an_array_may_have_any_name_whatever_a_calls_own_words_are(name: str) -> None:
    g = gc.Graph("named")
    t = g.axis("t")
    h = g.state("h", (2,), over=t)
    h[t] = h[t - 1] + g.param("W", (2, 2), init="identity") @ g.input(name, (2,), over=t)
    g.output("h", h)
    x = np.ones((3, 2), np.float32)
    arrays = {name: x, **gc.initialize(g)}
    f, one = gc.compile(g), gc.compile(gc.step(g, over=t))
    for made in (gc.interpret(g, **arrays), f(**arrays), f.bind(**arrays)()):
        np.testing.assert_array_equal(made["h"], np.cumsum(x, axis=0))
    assert gc.initial_carry(g, over=t, **arrays).keys() == {"h_back1"}
    assert "h" in one(**{**arrays, name: x[0]}, h_back1=np.zeros(2, np.float32))
    f.shares(**arrays)
    f.profile(1, **arrays)
    g.output("loss", gc.sum(gc.sum(h**2), over=t))
    check_gradients(g, "loss")


def test_an_axis_may_have_any_name_too() -> None:
    g = gc.Graph("named")
    axes = [g.axis(name) for name in ("self", "graph")]
    g.output("y", 2 * g.input("x", (), over=axes))
    f = gc.compile(g)
    assert f.memory(self=3, graph=4).given == 48
    assert gc.unroll(g, self=3, graph=2).outputs


@pytest.mark.parametrize("offset", [0, 4])
def test_results_in_the_caller_s_arrays(offset: int) -> None:
    """Aligned, so that code writes to them, and not; an output that is an input; two outputs that are one value."""
    g = gc.Graph("g")
    n = g.axis("n")
    x = g.input("x", (3,), over=n)
    for name, value in {"y": 2 * x, "same": 2 * x, "x_again": x}.items():
        g.output(name, value)
    f, given = gc.compile(g), np.arange(12, dtype=np.float32).reshape(4, 3)
    results = {}
    for name in g.outputs:
        raw = np.zeros(48 + 64 + 64, np.uint8)
        start = -raw.ctypes.data % 64 + offset
        results[name] = raw[start : start + 48].view(np.float32).reshape(4, 3)
    assert not f.run({"x": given}, into=results)
    for name, array in f(x=given).items():
        np.testing.assert_array_equal(results[name], array)
    others = f.run({"x": given}, into={"y": results["y"]})
    assert list(others) == ["same", "x_again"]
    results["y"][...] = 0
    np.testing.assert_array_equal(others["same"], 2 * given)  # not in the caller's array


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.zeros((2, 3)), "y is written to, so it must be a numpy array of float32 and shape \\(2, 3\\)"),
        (np.zeros((3, 3), np.float32), "y is written to"),
        (np.zeros((3, 2), np.float32).T, "y is written to"),
        ([[0.0] * 3] * 2, "y is written to"),
        (np.frombuffer(bytes(24), np.float32).reshape(2, 3), "y is written to"),
    ],
    ids=["dtype", "shape", "order", "list", "read-only"],
)
def test_arrays_that_results_do_not_fit_in_are_refused(y: Any, said: str) -> None:
    g = gc.Graph("g")
    x = g.input("x", (3,), over=g.axis("n"))
    g.output("y", 2 * x)
    given = np.ones((2, 3), np.float32)
    with pytest.raises(ArgumentError, match=said):
        gc.compile(g).run({"x": given}, into={"y": y})
    with pytest.raises(ArgumentError, match="has no output 'z'"):
        gc.compile(g).run({"x": given}, into={"z": given.copy()})
    with pytest.raises(ArgumentError, match="y is written to, but shares memory with x"):
        gc.compile(g).run({"x": given}, into={"y": given})
    with pytest.raises(ArgumentError, match="run takes into= as a dict of arrays by name"):
        gc.compile(g).run({"x": given}, into=given)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="run takes arrays= as a dict of arrays by name"):
        gc.compile(g).run([given])  # type: ignore[arg-type]
