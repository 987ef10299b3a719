"""Two indices of one axis, and reads at computed points: `k[s]` and `x[t.at(position)]`."""

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import testing
from graphc.errors import ArgumentError, AxisError, DefinitionError, DtypeError, UnsupportedError

RNG = np.random.default_rng(0)


def runs(graph: gc.Graph, **arrays: Any) -> dict[str, np.ndarray]:
    """The outputs, of which the interpreter, compiled code and the graph that its text reads back into agree."""
    expected = gc.interpret(graph, **arrays)
    for run in (gc.compile(graph), lambda **given: gc.interpret(gc.parse(str(graph)), **given)):
        found = run(**arrays)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    return expected


def attention(lengths: bool) -> gc.Graph:
    """Each point looks back at all before it and at itself."""
    g = gc.Graph("attention")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32") if lengths else None)
    s = g.axis("s", t)
    q, k, v = (g.input(name, (4,), over=(t, n)) for name in "qkv")
    scores = gc.where(gc.index(s) <= gc.index(t), gc.sum(q * k[s]), -np.inf)
    y = gc.sum(gc.softmax(scores, over=s) * v[s], over=s)
    g.output("y", y)
    g.output("loss", gc.mean(gc.sum(y * y), over=(t, n)))
    return g


def test_attention_of_a_sequence_to_itself() -> None:
    lengths = np.array([5, 2, 3], np.int32)
    q, k, v = RNG.normal(size=(3, 5, 3, 4)).astype(np.float32)
    y = runs(attention(lengths=True), q=q, k=k, v=v, lengths=lengths)["y"]
    for example, length in enumerate(lengths):
        for now in range(5):
            scores = k[: now + 1, example] @ q[now, example]
            weights = np.exp(scores - scores.max())
            wanted = (weights / weights.sum()) @ v[: now + 1, example] if now < length else np.zeros(4)
            np.testing.assert_allclose(y[now, example], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [False, True])
def test_gradients_of_attention(lengths: bool) -> None:
    assert max(testing.check_gradients(attention(lengths), "loss").values()) < 1e-6


def test_attention_without_points() -> None:
    empty = np.zeros((0, 2, 4), np.float32)
    assert runs(gc.select(attention(lengths=False), "y"), q=empty, k=empty, v=empty)["y"].shape == (0, 2, 4)


def test_the_second_index_takes_the_place_of_the_first() -> None:
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    s = g.axis("s", t)
    x = g.input("x", (2,), over=(t, n))
    assert x[s].axes == (s, n)
    assert x[s][t].axes == x[t].axes == x.axes
    assert g.axis("r", s).root == t


def test_a_delay_along_the_second_index_begins_as_the_state_does() -> None:
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    s = g.axis("s", t)
    x = g.input("x", (), over=(t, n))
    h = g.state("h", (), over=(t, n), initial=7.0)
    h[t] = 0.5 * h[t - 1] + x
    g.output("h", h)
    g.output("before", h[s - 1])
    g.output("loss", gc.mean(gc.mean(h[s - 1] * x, over=s), over=(t, n)))
    made = runs(g, x=RNG.normal(size=(4, 2)).astype(np.float32))
    np.testing.assert_array_equal(made["before"], np.concatenate([np.full((1, 2), 7.0), made["h"][:-1]]))
    testing.check_gradients(g, "loss")


def test_a_computed_point() -> None:
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (2,), over=(t, n))
    h = g.state("h", (2,), over=(t, n), initial=3.0)
    h[t] = gc.tanh(h[t - 1] + x)
    chosen = g.input("chosen", (), over=n, dtype="int32")
    g.output("h", h)
    g.output("there", h[t.at(chosen)])
    g.output("input", x[t.at(chosen)])
    g.output("loss", gc.mean(gc.sum(h[t.at(chosen)] ** 2), over=n))
    x_given = RNG.normal(size=(4, 5, 2)).astype(np.float32)
    made = runs(g, x=x_given, chosen=np.array([2, 0, 3, -1, 4], np.int32))
    inside = [2, 0, 3], [0, 1, 2]
    np.testing.assert_array_equal(made["there"], [*made["h"][inside], [3, 3], [3, 3]])
    np.testing.assert_array_equal(made["input"], [*x_given[inside], [0, 0], [0, 0]])
    testing.check_gradients(g, "loss")


def test_points_past_the_end_of_an_example_do_not_exist() -> None:
    g = gc.Graph("g")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    x = g.input("x", (), over=(t, n))
    g.output("y", x[t.at(g.input("chosen", (), over=n, dtype="int32"))])
    arrays = {"x": np.ones((3, 3), np.float32), "lengths": np.array([3, 2, 1], np.int32)}
    assert runs(g, **arrays, chosen=np.array([2, 2, 0], np.int32))["y"].tolist() == [1, 0, 1]


def test_a_permutation() -> None:
    """Beams that go on from others: each names its parent."""
    g = gc.Graph("g")
    b, n = g.axis("b"), g.axis("n")
    child = g.axis("child", b)
    x = g.input("x", (2,), over=(b, n))
    parent = g.input("parent", (), over=(b, n), dtype="int32")
    y = x[b.at(parent[child])][b]
    assert y.axes == x.axes
    g.output("y", y)
    g.output("loss", gc.sum(gc.sum(y * y), over=(b, n)))
    x_given, given = RNG.normal(size=(3, 4, 2)).astype(np.float32), RNG.integers(0, 3, (3, 4)).astype(np.int32)
    made = runs(gc.grad(g, "loss"), x=x_given, parent=given)
    np.testing.assert_array_equal(made["y"], np.take_along_axis(x_given, given[..., None], 0))
    testing.check_gradients(g, "loss", ["x"])


def test_a_head_that_moves_over_a_tape() -> None:
    """A position that is a state: the loop itself decides what it reads next."""
    g = gc.Graph("tape")
    s, t, n = g.axis("s"), g.axis("t"), g.axis("n")
    tape = g.input("tape", (), over=(s, n))
    position = g.state("position", (), over=(t, n), dtype="int32")
    total = g.state("total", (), over=(t, n))
    read = tape[s.at(position[t - 1])]
    total[t] = total[t - 1] + read
    position[t] = position[t - 1] + gc.where(read > 0, 1, 2)
    g.output("total", total)
    g.output("loss", gc.sum(total[t.last], over=n))
    given = RNG.normal(size=(9, 3)).astype(np.float32)
    made = runs(gc.grad(g, "loss", wrt="tape"), tape=given, t=5)
    for example in range(3):
        place, wanted, counted = 0, 0.0, np.zeros(9)
        for step in range(5):
            found = given[place, example] if place < 9 else 0.0
            wanted += found
            counted[min(place, 8)] += place < 9
            place += 1 if found > 0 else 2
            np.testing.assert_allclose(made["total"][step, example], wanted, rtol=1e-5)
        np.testing.assert_array_equal(made["grad_tape"][:, example], counted)


def test_what_a_table_is_indexed_by_is_checked_through_a_second_index() -> None:
    g = gc.Graph("g")
    t, n = g.axis("t"), g.axis("n")
    s = g.axis("s", t)
    words = g.input("words", (), over=(t, n), dtype="int32")
    g.output("y", gc.embedding(g.param("E", (5, 2)), words[s][s - 1]))
    arrays = {**gc.initialize(g), "words": np.zeros((3, 2), np.int32)}
    runs(g, **arrays)
    arrays["words"][1] = 5
    with pytest.raises(ArgumentError, match="words names rows or classes 0 to 4, but holds values from 0 to 5"):
        gc.compile(g)(**arrays)
    arrays["words"][1:] = [[0], [5]]  # the last is read by nobody
    gc.compile(g)(**arrays)


def test_unrolled_along_both_indices() -> None:
    g = attention(lengths=True)
    arrays = testing.random_arrays(g, t=3, n=2)
    for flat in (gc.unroll(g, t=3, s=3), gc.unroll(gc.unroll(g, s=3), t=3)):
        for name, array in gc.interpret(g, **arrays).items():
            np.testing.assert_allclose(gc.interpret(flat, **arrays)[name], array, rtol=1e-5, atol=1e-6)
    with pytest.raises(AxisError, match="axis 's' is a second index of axis 't'; unroll 's' as well"):
        gc.unroll(g, t=3)
    with pytest.raises(AxisError, match="axis 's' is as long as axis 't'; unroll both to the same number of steps"):
        gc.unroll(g, t=3, s=4)
    unused = gc.Graph("unused")
    t = unused.axis("t")
    unused.axis("s", t)
    unused.output("y", gc.tanh(unused.input("x", (), over=t)))
    assert "s" not in gc.unroll(unused, t=2).axes


def test_lengths_of_the_second_index() -> None:
    g = gc.Graph("g")
    t = g.axis("t")
    s = g.axis("s", t)
    g.output("y", gc.index(t) - gc.index(s))
    assert gc.compile(g)(t=3)["y"].shape == gc.interpret(g, t=3, s=3)["y"].shape == (3, 3)
    with pytest.raises(ArgumentError, match="axis 's' is 3 long, not 4"):
        gc.compile(g)(t=3, s=4)
    with pytest.raises(ArgumentError, match="no array shows how long axis 't' is; pass t=…"):
        gc.compile(g)()
    fixed = gc.Graph("fixed")
    row = fixed.axis("row", 3)
    assert fixed.axis("column", row).length == 3


def test_text() -> None:
    g = gc.parse("""\
graph g float32
axis t
axis s like t
input x: float32[2] over t

output y = sum(x * x[s])
""")
    assert gc.parse(str(g)) == g
    assert "axis s like t" in str(g)
    assert "x[s]" in str(g)
    with pytest.raises(gc.GraphError, match=r"line 2.*\n?.*expected an axis \(none is declared\), found 't'"):
        gc.parse("graph g float32\naxis s like t\n")


def test_errors() -> None:
    g, other = gc.Graph("g"), gc.Graph("other")
    t, n = g.axis("t"), g.axis("n")
    s, r = g.axis("s", t), g.axis("r", t)
    x = g.input("x", (2,), over=(t, n))
    with pytest.raises(AxisError, match="axis 's' is to be as long as 't', which graph 'other' lacks"):
        other.axis("s", t)
    with pytest.raises(AxisError, match="does not vary over it, but over several indices of it: t, s"):
        (x * x[s])[r]
    with pytest.raises(AxisError, match=r"does not vary over it: float32\[2\]"):
        g.param("W", (2,))[s]
    with pytest.raises(AxisError, match=r"let it vary over a second index of it, s = g.axis\('s', t\)"):
        x[t.at(gc.index(t) - 1)]
    with pytest.raises(DtypeError, match="a position along axis 't' is one int32, got float32"):
        x[t.at(x[0])]
    with pytest.raises(DefinitionError, match="values of two graphs do not mix: 'g' and 'other'"):
        x[t.at(other.input("k", (), dtype="int32"))]
    with pytest.raises(AxisError, match=r"t\.at takes a position counted from 0, a whole number or an int32 value"):
        t.at(-1)
    g.output("y", gc.sum(x[s] * x, over=s))
    with pytest.raises(UnsupportedError, match="axis 's' is a second index of axis 't': at each step"):
        gc.step(g, over=t)
