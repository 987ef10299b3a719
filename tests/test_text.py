"""The printed form: every graph reads back as an equal one, and no text does worse than a ParseError."""

import contextlib
import math
import re
import time

import hypothesis.strategies as st
import networkx
import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import testing
from graphc.differentiation.grad import grad
from graphc.errors import GraphError, ParseError
from graphc.ir import Node, make, topological
from graphc.language.value import Value
from graphc.notation.parse import parse
from graphc.ops import TABLE, leaves
from graphc.ops import elementwise as ew
from graphc.ops.axis import shift
from graphc.ops.contraction import matmul
from graphc.transforms.precision import to_dtype
from graphc.transforms.unroll import unroll


def elman() -> gc.Graph:
    g = gc.Graph("elman")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (8, 3)), g.param("W", (8, 8), init="uniform(-0.1, 0.1)"), g.param("b", (8,))
    V, c = g.param("V", (5, 8)), g.param("c", (5,), trainable=False)
    h = g.state("h", (8,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    o = V @ h[t] + c
    g.output("p", gc.softmax(o))
    g.output("final", h[t.last])
    g.output("loss", gc.mean(gc.sum(gc.cross_entropy(o, y), over=t), over=n))
    g.update("b", b - 0.1)
    return g


def ragged() -> gc.Graph:
    g = gc.Graph("ragged")
    n = g.axis("n")
    lengths = g.input("lengths", (), over=(n,), dtype="int32")
    t = g.axis("t", lengths)
    s = g.axis("s", gc.maximum(lengths - 1, 1))
    i = g.axis("i", 8)
    x = g.input("x", (), over=(t, n, i))
    z = g.input("z", (), over=(s, n))
    h = g.state("h", (), over=(t, n, i), initial=gc.sum(z, over=s))
    h[t] = x + 0.5 * h[t - 1]
    g.output("last", h[t.last])
    g.output("count", gc.length(t) + gc.index(t))
    return g


def reset() -> gc.Graph:
    g = gc.Graph("reset", dtype="float64")
    t, n = g.axis("t"), g.axis("n")
    x, flag = g.input("x", (4,), over=(t, n)), g.input("flag", (), over=(t, n))
    h0 = g.input("h0", (4,), over=(n,))
    h = g.state("h", (4,), over=(t, n), initial=h0, reset=flag > 0)
    h[t] = x - h[t - 2]
    g.output("h", h)
    return g


def two_axes() -> gc.Graph:
    g = gc.Graph("image")
    i, j = g.axis("i"), g.axis("j", 5)
    x = g.input("x", (3,), over=(i, j))
    o = g.state("o", (3,), over=(i, j), initial=-1.5)
    o[i, j] = gc.maximum(x, o[i - 1]) + o[j + 1] * 2.0 ** o[i - 1, j - 1]
    g.output("o", o.shift(j, 2, fill=x[j.at(3)])[i.first])
    return g


def encoder_decoder() -> gc.Graph:
    g = gc.Graph("translate")
    s, t = g.axis("s"), g.axis("t")
    x = g.input("x", (4,), over=s)
    forwards, backwards = g.state("forwards", (4,), over=s), g.state("backwards", (4,), over=s)
    forwards[s] = gc.tanh(x + forwards[s - 1])
    backwards[s] = gc.tanh(x + backwards[s + 1])
    d = g.state("d", (8,), over=t, initial=gc.concat([forwards[s.last], backwards[s.first]]))
    d[t] = gc.relu(d[t - 1])
    g.output("d", d[0:4].reshape(2, 2).T)
    return g


def embedding_and_dropout() -> gc.Graph:
    g = gc.Graph("words")
    t = g.axis("t")
    word = g.input("word", (), over=t, dtype="int32")
    seed = g.input("seed", (), dtype="int32")
    table = g.param("table", (20, 6))
    g.output("e", gc.dropout(gc.embedding(table, word), 0.3, seed))
    g.output("hot", gc.one_hot(word, 20) * np.array([[0.1], [np.inf]], dtype=np.float32))
    return g


def spiking() -> gc.Graph:
    @gc.custom_gradient
    def spike(v):
        return gc.where(v > 0, 1.0, 0.0), lambda d: d / (1 + gc.abs(v)) ** 2

    g = gc.Graph("spiking")
    t = g.axis("t")
    x = g.input("x", (4,), over=t)
    v = g.state("v", (4,), over=t)
    v[t] = 0.9 * v[t - 1] * (1 - spike(v[t - 1] - 1)) + x
    g.output("s", spike(v - 1))
    return g


def begun_by_each_other() -> gc.Graph:
    """Two states whose initial values are made of each other: no order declares everything before its use."""
    g = gc.Graph("knot")
    s, t = g.axis("s"), g.axis("t")
    a = g.state("a", (), over=s)
    b = g.state("b", (), over=t, initial=a[s.last])
    a[s] = a[s - 1] + 1
    b[t] = b[t - 1] + 1
    knotted = g.copy()
    equation = knotted.states["a"]
    knotted.states["a"] = type(equation)(equation.node, equation.body, b[t.last].node)
    return knotted


GRAPHS = [elman, ragged, reset, two_axes, encoder_decoder, embedding_and_dropout, spiking, begun_by_each_other]


def round_trip(graph: gc.Graph) -> None:
    text = str(graph)
    again = parse(text)
    assert again == graph, text
    assert str(again) == text
    for table in ("inputs", "params", "states", "outputs"):
        assert list(getattr(again, table)) == list(getattr(graph, table))


@pytest.mark.parametrize("build", GRAPHS)
def test_round_trip(build):
    round_trip(build())


LENGTHS = {"elman": {"t": 3}, "ragged": {"s": 2, "t": 3}, "reset": {"t": 3}, "image": {"i": 2, "j": 5}}


@pytest.mark.parametrize("build", [elman, ragged, reset, two_axes])
def test_unrolled_graphs_round_trip(build):
    g = build()
    round_trip(unroll(g, **LENGTHS[g.name]))


def test_gradients_round_trip():
    first = grad(elman(), "loss")
    round_trip(first)
    first.output("size", gc.sum(gc.square(first.value("grad_W"))))
    second = grad(first, "size", wrt=["U", "x"])
    round_trip(second)
    round_trip(unroll(second, t=2))


GOLDEN = """\
graph elman float32
axis t
axis n
input x: float32[3] over t, n
input y: int32[] over t, n
param U: float32[8, 3] init glorot_uniform
param W: float32[8, 8] init uniform(-0.1, 0.1)
param b: float32[8] init zeros
param V: float32[5, 8] init glorot_uniform
param c: float32[5] init zeros fixed
state h: float32[8] over t, n initial 0.0

h[t] = tanh(U @ x + W @ h[t - 1] + b)

v1 = V @ h + c
output p = softmax(v1)
output final = h[t.last]
output loss = sum(sum(cross_entropy(v1, y), over=(t,)), over=(n,)) / cast(extent(axis=n), dtype="float32")
update b = b - 0.1
"""


def test_elman_reads_like_the_paper():
    assert str(elman()) == GOLDEN


def test_params_that_begin_with_an_array():
    g = gc.Graph("begun")
    W = g.param("W", (2, 3), init=np.array([[0.1, -0.0, np.inf], [1, 2, 3]]))
    for name, shape, init, dtype in [
        ("b", (2,), [1, 2], None),
        ("ones", (4, 4), np.ones((4, 4)), None),
        ("places", (3,), range(3), "int32"),
        ("flags", (2,), [True, False], "bool"),
        ("long", (1,), [1 / 3], "float64"),
        ("odd", (1,), np.frombuffer(b"\1\0\xc0\x7f", np.float32), None),
    ]:
        g.param(name, shape, init=init, dtype=dtype, trainable=name != "b")
    g.output("y", W)
    round_trip(g)
    assert "param b: float32[2] init const([1.0, 2.0]) fixed" in str(g)
    state, again = gc.initialize(g), gc.initialize(parse(str(g)))
    for name, array in state.items():
        assert array.tobytes() == again[name].tobytes()
        assert array.dtype == g.params[name].node.dtype
        assert array.flags.carray
    np.testing.assert_array_equal(state["W"], np.array([[0.1, -0.0, np.inf], [1, 2, 3]], np.float32))
    assert gc.initialize(g)["W"] is not state["W"]
    double = to_dtype(g, "float64")
    round_trip(double)
    assert gc.initialize(double)["b"].dtype == np.float64


@pytest.mark.parametrize("init", ["const([1.0])", "const([1, 2])", "const([1.0, 2.0", "const(W)", "const(1.0) + 1.0"])
def test_arrays_that_do_not_fit_their_param_are_refused(init):
    with pytest.raises(ParseError, match="line 2 of the text"):
        parse(f"graph g float32\nparam b: float32[2] init {init}\noutput y = b")


def test_names_of_intermediate_values_avoid_the_users():
    g = gc.Graph("clash")
    v1, init = g.input("v1", (2,)), g.param("output", (2,), init="\n normal( .5)\t")
    shared = gc.tanh(v1 + init)
    g.output("v2", shared * shared)
    assert "v3 = tanh(v1 + output)" in str(g)
    round_trip(g)


def test_deep_expressions_are_cut_into_lines():
    g = gc.Graph("deep")
    x = g.input("x", ())
    total = x
    for k in range(5000):
        total = gc.sin(total) + float(k)
    g.output("y", total)
    assert max(map(len, str(g).split("\n"))) < 200
    round_trip(g)


# Constants.

SCALARS = [0.0, -0.0, 1.0, 0.1, -2.5e-30, math.inf, -math.inf, math.nan, 1e-45, 3.4e38]


@pytest.mark.parametrize("default", ["float32", "float64"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bool"])
def test_constants_keep_every_bit(default, dtype):
    rng = np.random.default_rng(0)
    width = np.dtype(dtype).itemsize
    raw = np.frombuffer(rng.bytes(width * 600), np.dtype(dtype) if dtype != "bool" else np.uint8)
    bits = raw % 2 == 0 if dtype == "bool" else raw
    special = np.array(SCALARS, "float64") if dtype.startswith("float") else np.array([0, 1, -(2**31), 2**31 - 1, 5, 6])
    values = np.concatenate([special.astype(dtype), bits])
    g = gc.Graph("constants", dtype=default)
    for k, value in enumerate(values):
        g.output(f"c{k}", Value(None, leaves.const(value, dtype)))
    for k, shape in enumerate([(3, 2), (1,), (6,), (1, 1)]):
        size = math.prod(shape)
        for j, array in enumerate([values[:size], np.repeat(values[1], size), np.arange(size), special[-size:]]):
            g.output(f"a{k}_{j}", Value(None, leaves.const(array.astype(dtype).reshape(shape), dtype)))
    g.output("half", gc.abs(gc.sin(0.5)) - Value(None, ew.neg(leaves.const(2, default))))
    round_trip(g)


def test_a_large_regular_constant_is_short():
    g = gc.Graph("short")
    g.output("positions", Value(None, leaves.const(np.arange(10**6).reshape(1000, 1000), "int32")))
    g.output("ones", Value(None, leaves.const(np.ones((1000, 1000)), "float32")))
    assert len(str(g)) < 200
    round_trip(g)


# Random expressions: precedence, sharing, shifts and calls in all combinations.

FLOAT = ["add", "sub", "mul", "div", "pow", "maximum", "matmul"]
BINARY = [*FLOAT, "floordiv", "mod", "lt", "le", "eq", "ne", "logical_and", "logical_or"]
UNARY = ["neg", "logical_not", "tanh", "cast", "sum", "reshape", "slice", "transpose", "shift", "at", "stop_gradient"]


def apply(draw, name: str, g: gc.Graph, pool: list[Node]) -> Node:
    """A node of the op `name` on nodes of the pool; a GraphError where these do not fit."""
    pick = st.sampled_from(pool)
    a, t = draw(pick), draw(st.sampled_from(list(g.axes.values())))
    match name:
        case "matmul":
            return matmul(a, draw(pick))
        case "cast":
            return make(TABLE[name], (a,), dtype=draw(st.sampled_from(["float32", "float64", "int32", "bool"])))
        case "sum":
            return make(TABLE[name], (a,), dims=(), over=(t,))
        case "reshape":
            return make(TABLE[name], (a,), shape=(*a.shape, 1))
        case "slice":
            return make(TABLE[name], (a,), dim=0, start=1, step=-1, count=2)
        case "transpose":
            return make(TABLE[name], (a,), perm=tuple(range(len(a.shape)))[::-1])
        case "shift":
            fill = draw(st.sampled_from([draw(pick), leaves.const(0, a.dtype), g.states["h"].initial]))
            return shift(a, {t: draw(st.sampled_from([-2, -1, 1]))}, fill)
        case "at":
            position = draw(st.sampled_from(["first", "last", 2]))
            return make(TABLE[name], (a, leaves.const(0, a.dtype)), axis=t, position=position)
    return make(TABLE[name], (a, draw(pick)) if name in BINARY else (a,))


@st.composite
def graphs(draw) -> gc.Graph:
    g = gc.Graph("random", dtype=draw(st.sampled_from(["float32", "float64"])))
    t, n = g.axis("t"), g.axis("n", 4)
    x, k = g.input("x", (2, 2), over=(t, n)), g.input("k", (2,), over=n, dtype="int32")
    w = g.param("w", (2, 2))
    h = g.state("h", (2, 2), over=(t, n), initial=draw(st.sampled_from([0.0, 1.5, w])))
    numbers = [leaves.const(v, d) for v in (-2, 0, 3) for d in ("float32", "float64", "int32")]
    pool = [x.node, k.node, w.node, h.node, *numbers]
    for _ in range(draw(st.integers(1, 25))):
        try:
            pool.append(apply(draw, draw(st.sampled_from([*BINARY, *UNARY])), g, pool))
        except GraphError:
            continue
    for j in range(draw(st.integers(1, 4))):
        g.output(f"o{j}", Value(g, pool[-1 - j]))
    fitting = [p for p in pool if p.type == h.node.type]
    g.define("h", Value(g, fitting[-1]))
    return g


@settings(max_examples=300)
@given(graphs())
def test_random_expressions_round_trip(g):
    round_trip(g)


# Errors.

HEAD = """\
graph g float32
axis t
input x: float32[2] over t
param w: float32[2, 2]
state h: float32[2] over t initial 0.0
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("output y = x +", "expected an expression"),
        ("output y = z", "the name of an input"),
        ("output y = tan(x)", "the name of an op"),
        ("output y = x.T", "expected a number"),
        ("output y = __import__('os')", "the name of an op"),
        ("output y = x[s - 1]", "an axis (t)"),
        ("output y = x[t * 2]", "a point of an axis"),
        ("output y = x[t - 1, t.last]", "points of different axes"),
        ("output y = x + 1", "one dtype"),
        ("output y = x < x < x", "expected a number"),
        ("output y = x @ w @ w @ x[0]", "a point of an axis"),
        ("output y = slice(x)", "slice lacks dim=, start=, step=, count="),
        ("output y = tanh(x, foo=3)", "tanh takes no foo=; it has no attributes"),
        ("output y = softmax(x, dim=0)", "softmax takes no dim="),
        ("output y = sum(x, dim=(0,))", "sum takes no dim=; its attributes are dims, over; did you mean 'dims'?"),
        ("output y = tanhh(x)", "did you mean 'tanh'?"),
        ("output y = x @ W", "did you mean 'w'?"),
        ("param v: float32[2] init zeross", "'zeross'; it is a number or one of"),
        ("param v: float32[2] init zeross", "did you mean 'zeros'?"),
        ("param v: float32[2] init 'uniform (1, 2, 3)'", "write uniform(low, high)"),
        ("param v: float32[2] init orthogonal fixed", "an orthogonal param is a matrix"),
        ('output y = slice(x, dim="a", start=0, step=1, count=1)', "a whole number for dim="),
        ('output y = cast(x, dtype="float17")', "dtype"),
        ("output y = reshape(x, shape=(-1, -2))", "length"),
        ("output y = reshape(x, shape=[2, 1])", "an attribute"),
        ("output y = sum(x, dims=(-0.0,))", "expected a tuple of whole numbers for dims=, found (-0.0,)"),
        ("output y = sum(x, dims=(False,))", "expected a tuple of whole numbers for dims="),
        ("output y = slice(x, dim=0, start=0, step=-0.0, count=1)", "expected a whole number for step="),
        ('output y = contract(x, x, a="i", b="i", out="i", over=(t, t))', "over one twice"),
        ("output y = standardize(x, dims=(0,), over=(t, t), eps=0.1)", "or over one twice"),
        ("output y = slice(x, dim=0, start=0, step=0, count=1)", "does not move"),
        ("output y = place(x, dim=0, start=0, step=0, extent=2)", "place of an event"),
        ('output y = x * cast(extent(axs=t), dtype="float32")', "extent takes no axs=; its attributes are axis"),
        ('output y = x * cast(extent(axis=3), dtype="float32")', "an axis for axis="),
        ("output y = broadcast(x, axes=(t, 1), shape=(2,))", "a tuple of axes for axes="),
        (f"output y = slice(x, dim=0x{'f' * 4000}, start=0, step=1, count=1)", "too large"),
        (f"output y = 0x{'f' * 4000}", "too large"),
        (f"output y = x[t - 0x{'f' * 4000}]", "too large"),
        ("output y = const()", "const(value)"),
        ("output y = const([1, [2]])", "a constant"),
        ("output y = 99999999999", "too large"),
        ("output y = 1e300", "too large"),
        ("output y = 1j", "expected a number"),
        ("output y = const(0.0, shape=(99999, 99999, 99999))", "more than"),
        ("output y = const(range(999999999999))", "expected range"),
        (f"output y = {'(' * 5000}x{')' * 5000}", "nested"),
        (f"output y = {'-' * 50000}x", "nested"),
        (f"output y = {'x + ' * 50000}x", "nested"),
        (f"output y = {'[' * 300}x", "expression"),
        ("input x: float32[2] over t", "taken already"),
        ("input z: float32[2] over s", "expected an axis (t)"),
        ("input z: float8[2]", "float8"),
        ("input z: float32[0]", "at least 1"),
        ("input z: float32[2 3]", "a declaration like"),
        (f"input z: float32[{'1' * 5000}]", "a declaration like"),
        ("axis t", "declared twice"),
        ("axis s 0", "at least 1"),
        ("axis s x", "one int32"),
        ("param v: float32[2] over t", "varies over no axis"),
        ("state s: float32[2] over t initial 1", "initial value"),
        ("state s: float32[2] over t", "no initial value"),
        ("h[s] = x", "expected an axis"),
        ("h[t] = w", "is defined by"),
        ("x[t] = x", "expected a declared state"),
        ("update h = x", "expected a param or an input"),
        ("update w = x", "its update is"),
        ("let us see", "expected a declaration"),
    ],
)
def test_errors_name_the_line(line, expected):
    with pytest.raises(ParseError) as caught:
        parse(HEAD + "\n# a comment\n" + line)
    message = str(caught.value)
    assert expected in message
    assert "line 8 of the text" in message or expected == "no initial value"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("shift(x, 0.0, offsets=((t, 9223372036854775807),))", "whole number"),
        ("shift(x, 0.0, offsets=((t, 2147483648),))", "more steps than any axis has"),
        ("shift(x, 0.0, offsets=((t, 1), (t, 1)))", "twice"),
        ("shift(x, 0.0, offsets=((t, ()),))", "pairs of an axis"),
        ('at(x, 0.0, axis=t, position="x")', "position x"),
        ("at(x, 0.0, axis=t, position=-5)", "position -5"),
        ("sum(x, dims=(0, 0))", "twice"),
        ("sum(x, over=(t, t))", "twice"),
        ("broadcast(x, axes=(t, t), shape=(3,))", "to one twice"),
        ("scatter(x, cast(x, dtype='int32'), rows=2, over=(t, t))", "scatter over an axis twice: t, t"),
        ("reshape(x, shape=(3, True))", "whole numbers"),
        ("slice(x, count=True, dim=0, start=0, step=1)", "a whole number"),
        ('contract(x, x, a="k", b="k", out="kk")', "once"),
        ('contract(x, x, a=",", b=",", out="")', "letters"),
        ("hash(index(axis=t), 1, salt=-1)", "from 0 to 2³² - 1, got -1"),
        ("dropout(x, x, rate=1)", "below 1"),
        ("hash(index(axis=t), 1, salt=(1, 1))", "a whole number"),
        ("place(x, dim=0, extent=9223372036854775807, start=0, step=1)", "whole number"),
        ("broadcast(x, axes=(t,), shape=(20000000, 20000000, 3))", "more than 281,474,976,710,656 elements"),
        (
            "window(x, 7.0, counts=(3,), dilations=(2147483648,), dims=(0,), divisors=(1,), sizes=(3,), starts=(1,), "
            "strides=(1,))",
            "up to 2147483647",
        ),
    ],
)
def test_attributes_are_what_an_op_can_take(expression, expected):
    """Others made wrong numbers, or addresses that no array has."""
    with pytest.raises(ParseError, match=re.escape(expected)):
        parse(f"graph g float32\naxis t\ninput x: float32[3] over t\noutput y = {expression}\n")


@pytest.mark.parametrize(
    "text", ["", "# nothing", "graf g float32", "graph g int32", "graph 1 float32", "graph g float32 x"]
)
def test_a_text_begins_with_its_header(text):
    with pytest.raises(ParseError):
        parse(text)


@settings(max_examples=300)
@given(st.data())
def test_damaged_texts_do_no_worse_than_a_parse_error(data):
    text = str(data.draw(st.sampled_from(DAMAGED)))
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 12))
    noise = data.draw(st.text("tnhx01.-+*@[]()=,:\" \n#'", max_size=8))
    with contextlib.suppress(ParseError):
        parse(text[:at] + noise + text[at + length :])


def test_the_longest_names_compile():
    """LLVM tells local names of a thousand bytes apart, no longer ones: the text has as long ones as can be."""
    long = "ä" * 199
    g = gc.Graph("g" * 200)
    t = g.axis(long + "t")
    x, y, W = g.input(long + "x", (8,), over=t), g.input(long + "y", (8,), over=t), g.param(long + "W", (8, 8))
    h = g.state(long + "h", (8,), over=t)
    h[t] = gc.tanh(W @ h[t - 1] + x - y)
    g.output("loss", gc.sum(gc.sum(h), over=t))
    dg = gc.grad(g, "loss")
    assert parse(str(dg)) == dg
    arrays = {long + "x": np.ones((3, 8), "f"), long + "y": np.zeros((3, 8), "f"), long + "W": np.eye(8, dtype="f")}
    found, expected = gc.compile(dg)(**arrays), gc.interpret(dg, **arrays)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5)
    for keyword in ("axis", "input"):
        with pytest.raises(ParseError):
            parse(f"graph g float32\n{keyword} {'x' * 401}: float32[3]")


def test_a_short_text_cannot_fill_the_memory():
    lines = (f'output o{k} = const({k}.5, shape=(8192, 8192), dtype="bfloat16")' for k in range(60))
    with pytest.raises(ParseError, match="constants of more than 268,435,456 elements"):
        parse("graph g float32\n" + "\n".join(lines))


DAMAGED = [str(build()) for build in GRAPHS]


@settings(max_examples=60)
@given(testing.graphs(most_states=1), st.booleans(), st.data())
def test_a_text_with_another_number_is_refused_or_runs(example, differentiate, data):
    """Attributes come from a text as they stand there: what no function would pass an op is refused by the op."""
    text = str(gc.grad(example.graph, "loss") if differentiate else example.graph)
    number = data.draw(st.sampled_from([m.span() for m in re.finditer(r"(?<=[=( ])-?[0-9]+(?=[,) ])", text)]))
    other = data.draw(st.sampled_from(["0", "1", "-1", "2", "7", "-0.0", "1.0", "True"]))
    with contextlib.suppress(GraphError), np.errstate(all="ignore"):
        g = parse(text[: number[0]] + other + text[number[1] :])
        gc.interpret(g, **testing.random_arrays(g, 0, t=2, j=2, n=1))


def test_errors_of_a_parsed_graph_point_to_its_text():
    g = parse(HEAD + "output y = tanh(x)\n")
    assert g.locations[g.outputs["y"]].line == 6


# networkx.


def test_cycles_of_the_equations_are_cycles_of_the_network():
    network = elman().to_networkx()
    cycles = list(networkx.simple_cycles(networkx.DiGraph(network)))
    assert [set(c) >= {"h"} for c in cycles] == [True]
    delays = [d["delay"] for _, _, d in network.edges(data=True) if d["delay"]]
    assert delays == [{"t": 1}]
    assert network.nodes["h"]["op"] == "tanh"
    assert network.nodes["h"]["kind"] == "state"
    assert network.nodes["x"]["axes"] == ("t", "n")
    assert {"p", "final", "loss"} == {o for _, outputs in network.nodes(data="outputs") for o in outputs}


def test_two_states_of_one_body_stay_apart():
    g = gc.Graph("twins")
    t = g.axis("t")
    a, b, c = (g.state(name, (), over=t) for name in "abc")
    a[t] = b[t] = gc.tanh(a[t - 1] + b[t + 1])
    c[t] = a
    g.output("y", c)
    network = g.to_networkx()
    assert {"a", "b", "c"} <= set(network)
    assert network.nodes["a"]["op"] == "tanh"
    assert list(network.predecessors("b")) == ["a"]
    assert list(network.predecessors("c")) == ["a"]
    assert {d["delay"].get("t", 0) for _, _, d in network.edges(data=True)} == {0, 1, -1}


@pytest.mark.parametrize("build", GRAPHS)
def test_the_network_has_an_edge_for_every_operand(build):
    g = build()
    bodies = [e.body for e in g.states.values()]
    order = topological([*bodies, *g.outputs.values(), *g.updates.values()])
    network = g.to_networkx()
    renamed = sum(network.nodes[name]["op"] == "state" for name in g.states)
    assert network.number_of_edges() == sum(len(node.inputs) for node in order) + renamed


def test_a_shape_of_spaces_is_read_in_one_go():
    """The pattern of a shape has one way to match a space: two took the square of their number."""
    before = time.process_time()
    with pytest.raises(ParseError, match="expected a declaration like"):
        gc.parse(f"graph a float32\ninput x: float32[1{' ' * 100_000}!]")
    assert time.process_time() - before < 5


@pytest.mark.parametrize("given", [None, b"graph a float32", gc.Graph("a")], ids=lambda given: type(given).__name__)
def test_what_is_no_text_is_refused(given):
    with pytest.raises(ParseError, match=f"a text was expected, .* got {type(given).__name__}"):
        gc.parse(given)
