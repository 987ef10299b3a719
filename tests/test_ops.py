"""Every op, from one table: its value against plain numpy, its first and second derivatives against central
differences, its machine code against the interpreter, and operands that it must refuse."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import testing
from graphc.errors import ArgumentError, AxisError, DtypeError, GraphError, ShapeError
from graphc.ir import DTYPES, FLOATING, FLOATS, Axis, Node, make, widen
from graphc.language.graph import declared_arrays
from graphc.language.value import Value
from graphc.ops import TABLE, axis, composite, contraction, event, leaves, normalization, random, reduction, table, take
from graphc.ops import elementwise as ew
from graphc.ops import window as windows
from graphc.scalar import STORED, computed, nearest

T = 3


@dataclass(frozen=True)
class Operand:
    """An input over axis t with random events of this shape; a param, without the axis, if `over` is false."""

    shape: tuple[int, ...]
    kind: str = "normal"
    below: int = 2
    over: bool = True

    def dtype(self, floating: str) -> str:
        return {"int": "int32", "bool": "bool"}.get(self.kind, floating)

    def array(self, rng: np.random.Generator, dtype: str) -> np.ndarray:
        shape = (T, *self.shape) if self.over else self.shape
        if self.kind in ("int", "bool") or dtype not in FLOATS:
            return rng.integers(1 if self.kind == "positive" else 0, max(self.below, 2), shape).astype(dtype)
        drawn = rng.normal(size=shape)
        return (0.3 + np.abs(drawn) if self.kind == "positive" else drawn).astype(dtype)


def normal(*shape: int) -> Operand:
    return Operand(shape)


def positive(*shape: int) -> Operand:
    return Operand(shape, "positive")


def param(*shape: int) -> Operand:
    return Operand(shape, over=False)


def ints(below: int, *shape: int) -> Operand:
    return Operand(shape, "int", below)


def bools(*shape: int) -> Operand:
    return Operand(shape, "bool")


@dataclass(frozen=True)
class Case:
    """A graph with one op on some operands."""

    g: gc.Graph
    t: Axis
    nodes: tuple[Node, ...]

    def value(self, k: int) -> Value:
        return Value(self.g, self.nodes[k])


@dataclass(frozen=True)
class Row:
    """`build` applies the op to a case; `numpy` gives what it should be, from whole arrays; `bad` are refused."""

    operands: tuple[Operand, ...]
    build: Callable[[Case], Node]
    numpy: Callable[..., Any]
    bad: dict[type[GraphError], Callable[[Case], Node]] = field(default_factory=dict)


def unary(function: Callable[[Node], Node], reference: Callable[..., Any], operand: Operand = Operand((2, 3))) -> Row:
    return Row(
        (operand,),
        lambda c: function(c.nodes[0]),
        reference,
        {DtypeError: lambda c: function(leaves.const(1, "int32" if operand.kind == "bool" else "bool"))},
    )


OTHER = {"float64": "int32", "int32": "bool", "bool": "int32"}  # for each dtype, one that does not go with it


def binary(
    function: Callable[[Node, Node], Node],
    reference: Callable[..., Any],
    operands: tuple[Operand, Operand] = (normal(2, 3), normal(1, 3)),
) -> Row:
    return Row(
        operands,
        lambda c: function(c.nodes[0], c.nodes[1]),
        reference,
        {
            DtypeError: lambda c: function(c.nodes[0], leaves.const(1, OTHER[c.nodes[0].dtype])),
            ShapeError: lambda c: function(c.nodes[0], leaves.const(np.ones(7), c.nodes[0].dtype)),
        },
    )


def scan(c: Case) -> Node:
    s = c.g.state("s", (2,), over=c.t, initial=c.value(1))
    s[c.t] = 0.5 * s[c.t - 1] + c.value(0)
    return s.node


def scan_reference(a: np.ndarray, start: np.ndarray) -> np.ndarray:
    steps = []
    for x in a:
        start = 0.5 * start + x
        steps.append(start)
    return np.array(steps)


@gc.custom_gradient
def sine(x: gc.Value) -> Any:
    return gc.sin(x), lambda d: d * gc.cos(x)


def softmax_reference(a: np.ndarray) -> np.ndarray:
    e = np.exp(a)
    return e / e.sum(-1, keepdims=True)


def entropy_reference(a: np.ndarray, label: np.ndarray) -> np.ndarray:
    return -np.take_along_axis(np.log(softmax_reference(a)), label[..., None], -1)[..., 0]


def placed(a: np.ndarray) -> np.ndarray:
    result = np.zeros((T, 2, 7))
    result[:, :, 5::-2] = a
    return result


def scattered(a: np.ndarray, rows: np.ndarray) -> np.ndarray:
    result = np.zeros((4, 2))
    np.add.at(result, rows, a)
    return result


FRAMES = (windows.Frame(0, 3, 3, stride=2, start=-1), windows.Frame(2, 2, 4, dilation=-2, start=1, divisor=2))


def seen(a: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """Every element of every frame, one by one."""
    result = np.full((T, 3, a.shape[2], 4, 3, 2), fill)
    for o, p, s, k in np.ndindex(3, 4, 3, 2):
        row, column = 2 * o + s - 1, (p - 2 * k + 1) / 2
        if 0 <= row < a.shape[1] and column in range(a.shape[3]):
            result[:, o, :, p, s, k] = a[:, row, :, int(column)]
    return result


def positions(start: Node) -> Node:
    """From a place, every second point, along the fixed axis."""
    return ew.add(ew.mul(leaves.index(FIXED), leaves.const(2, "int32")), start)


def folded(a: np.ndarray) -> np.ndarray:
    result = np.zeros((T, 5, 2, 3))
    for o, p, s, k in np.ndindex(3, 4, 3, 2):
        row, column = 2 * o + s - 1, (p - 2 * k + 1) / 2
        if 0 <= row < 5 and column in range(3):
            result[:, row, :, int(column)] += a[:, o, :, p, s, k]
    return result


def standardized(a: np.ndarray, *_: np.ndarray) -> np.ndarray:
    return (a - a.mean((0, 2), keepdims=True)) / np.sqrt(a.var((0, 2), keepdims=True) + 0.1)


def threefry_reference(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Threefry-2x32-20 on Python integers; (0, 0) under key (0, 0) is Salmon et al.'s known answer 6b200159 …"""

    def one(k: int, n: int) -> int:
        mask, keys = 0xFFFFFFFF, (k, 5, k ^ 5 ^ 0x1BD11BDA)
        a, b = (n + keys[0]) & mask, keys[1]
        for r in range(20):
            turn = (13, 15, 26, 6, 17, 29, 16, 24)[r % 8]
            a = (a + b) & mask
            b = ((b << turn | b >> (32 - turn)) & mask) ^ a
            if r % 4 == 3:
                a, b = (a + keys[(r // 4 + 1) % 3]) & mask, (b + keys[(r // 4 + 2) % 3] + r // 4 + 1) & mask
        return a

    pairs = np.broadcast_arrays(key, counter)
    words = [one(int(k), int(n)) for k, n in zip(*(p.ravel() for p in pairs), strict=True)]
    return np.array(words, np.uint32).astype(np.int32).reshape(pairs[0].shape)


FIXED = Axis("f", 2)
ROWS: dict[str, Row] = {
    "input": Row((normal(2),), lambda c: c.nodes[0], lambda a: a),
    "param": Row((param(2),), lambda c: c.nodes[0], lambda a: a),
    "state": Row((normal(2), param(2)), scan, scan_reference),
    "cotangent": Row((normal(2),), lambda c: sine(c.value(0)).node, np.sin),
    "custom_gradient": Row(
        (normal(2),),
        lambda c: sine(c.value(0) * 2.0).node,
        lambda a: np.sin(2 * a),
        {ShapeError: lambda c: make(TABLE["custom_gradient"], (c.nodes[0], c.nodes[0]))},
    ),
    "const": Row((), lambda c: leaves.const(np.eye(2, 3), "float64"), lambda: np.eye(2, 3)),
    "index": Row((normal(),), lambda c: ew.add(c.nodes[0], ew.cast(leaves.index(c.t), c.nodes[0].dtype)),
                 lambda a: a + np.arange(T)),
    "extent": Row((normal(),), lambda c: ew.mul(c.nodes[0], ew.cast(leaves.length(c.t), c.nodes[0].dtype)),
                  lambda a: a * T),
    "add": binary(ew.add, np.add),
    "sub": binary(ew.sub, np.subtract),
    "mul": binary(ew.mul, np.multiply),
    "div": binary(ew.div, np.divide, (normal(2, 3), positive(2, 1))),
    "pow": binary(ew.pow, np.power, (positive(2, 3), normal(2, 3))),
    "floordiv": binary(ew.floordiv, np.floor_divide, (ints(20, 2), Operand((2,), "int", 2))),
    "mod": binary(ew.mod, np.mod, (ints(20, 2), ints(2, 2))),
    "maximum": binary(ew.maximum, np.maximum),
    "minimum": binary(ew.minimum, np.minimum),
    "lt": binary(ew.lt, np.less),
    "le": binary(ew.le, np.less_equal, (ints(3, 4), ints(3, 4))),
    "eq": binary(ew.eq, np.equal, (ints(3, 4), ints(3, 4))),
    "ne": binary(ew.ne, np.not_equal, (ints(3, 4), ints(3, 4))),
    "logical_and": binary(ew.logical_and, np.logical_and, (bools(4), bools(4))),
    "logical_or": binary(ew.logical_or, np.logical_or, (bools(4), bools(4))),
    "logical_not": unary(ew.logical_not, np.logical_not, bools(4)),
    "neg": unary(ew.neg, np.negative),
    "abs": unary(ew.abs, np.abs),
    "sign": unary(ew.sign, np.sign),
    "floor": unary(ew.floor, np.floor),
    "exp": unary(ew.exp, np.exp),
    "expm1": unary(ew.expm1, np.expm1),
    "log": unary(ew.log, np.log, positive(2, 3)),
    "log1p": unary(ew.log1p, np.log1p, positive(2, 3)),
    "sqrt": unary(ew.sqrt, np.sqrt, positive(2, 3)),
    "sin": unary(ew.sin, np.sin),
    "cos": unary(ew.cos, np.cos),
    "tanh": unary(ew.tanh, np.tanh),
    "sigmoid": unary(ew.sigmoid, lambda a: 1 / (1 + np.exp(-a))),
    "erf": unary(ew.erf, np.vectorize(math.erf)),
    "relu": unary(ew.relu, lambda a: np.maximum(a, 0)),
    "softplus": unary(ew.softplus, lambda a: np.log(1 + np.exp(a))),
    "stop_gradient": Row((normal(2, 3),), lambda c: ew.stop_gradient(c.nodes[0]), lambda a: a),
    "where": Row(
        (bools(2, 1), normal(2, 3), normal(3)),
        lambda c: ew.where(*c.nodes),
        lambda k, a, b: np.where(k, a, b[:, None]),
        {DtypeError: lambda c: ew.where(c.nodes[1], c.nodes[1], c.nodes[2]),
         ShapeError: lambda c: ew.where(c.nodes[0], c.nodes[1], leaves.const(np.ones(7), c.nodes[1].dtype))},
    ),
    "widen": Row((normal(2, 3),), lambda c: widen(ew.cast(c.nodes[0], "bfloat16")),
                 lambda a: nearest(a, "bfloat16").astype(np.float32),
                 {DtypeError: lambda c: make(TABLE["widen"], c.nodes)}),
    "cast": Row((normal(2, 3),), lambda c: ew.cast(ew.mul(c.nodes[0], leaves.const(3, c.nodes[0].dtype)), "int32"),
                lambda a: (3 * a).astype(np.int32)),
    "reshape": Row((normal(2, 6),), lambda c: event.reshape(c.nodes[0], (3, 4)), lambda a: a.reshape(T, 3, 4),
                   {ShapeError: lambda c: event.reshape(c.nodes[0], (5, 2))}),
    "transpose": Row((normal(2, 3, 4),), lambda c: event.transpose(c.nodes[0], (2, 0, 1)),
                     lambda a: a.transpose(0, 3, 1, 2),
                     {ShapeError: lambda c: event.transpose(c.nodes[0], (0, 0, 1))}),
    "slice": Row((normal(2, 7),), lambda c: event.slice_(c.nodes[0], 1, 5, -2, 3), lambda a: a[:, :, 5::-2],
                 {ShapeError: lambda c: event.slice_(c.nodes[0], 1, 5, 2, 2)}),
    "place": Row((normal(2, 3),), lambda c: event.place(c.nodes[0], 1, 5, -2, 7), placed,
                 {ShapeError: lambda c: event.place(c.nodes[0], 1, 3, -2, 7)}),
    "concat": Row((normal(2, 1), normal(2, 3)), lambda c: event.concat([*c.nodes, c.nodes[0]], 1),
                  lambda a, b: np.concatenate([a, b, a], 2),
                  {ShapeError: lambda c: event.concat(c.nodes, 0)}),
    "shift": Row((normal(2), param(2)), lambda c: axis.shift(c.nodes[0], {c.t: -1}, c.nodes[1]),
                 lambda a, p: np.concatenate([p[None], a[:-1]]),
                 {AxisError: lambda c: axis.shift(c.nodes[1], {c.t: -1}, c.nodes[1]),
                  ShapeError: lambda c: axis.shift(c.nodes[0], {c.t: 1}, leaves.const(np.ones(3), c.nodes[0].dtype))}),
    "at": Row((normal(2),), lambda c: ew.add(axis.at(c.nodes[0], c.t, "last"), axis.at(c.nodes[0], c.t, 1)),
              lambda a: a[-1] + a[1],
              {AxisError: lambda c: axis.at(leaves.const(1, "float64"), c.t, "first")}),
    "stack": Row((normal(2), param(2)), lambda c: axis.stack(c.nodes, FIXED),
                 lambda a, p: np.stack([a, np.broadcast_to(p, a.shape)]),
                 {AxisError: lambda c: axis.stack(c.nodes[:1], FIXED)}),
    "as_axis": Row((normal(3, 2), param(2, 2)), lambda c: axis.as_axis(ew.mul(*c.nodes[:1] * 2), 1, FIXED),
                   lambda a, p: (a * a).transpose(2, 0, 1),
                   {AxisError: lambda c: axis.as_axis(axis.as_axis(c.nodes[1], 0, FIXED), 0, FIXED),
                    ShapeError: lambda c: axis.as_axis(c.nodes[0], 0, FIXED)}),
    "as_dim": Row((normal(3), normal(3)), lambda c: axis.as_dim(axis.stack(c.nodes, FIXED), FIXED, 1),
                  lambda a, b: np.stack([a, b], 2),
                  {AxisError: lambda c: axis.as_dim(c.nodes[0], c.t, 0),
                   ShapeError: lambda c: axis.as_dim(axis.stack(c.nodes, FIXED), FIXED, 2)}),
    "window": Row((normal(5, 2, 3),),
                  lambda c: windows.window(c.nodes[0], FRAMES, leaves.const(7, computed(c.nodes[0].dtype))),
                  lambda a: seen(a, 7.0),
                  {ShapeError: lambda c: windows.window(c.nodes[0], FRAMES[::-1]),
                   DtypeError: lambda c: windows.window(c.nodes[0], FRAMES, leaves.const(True, "bool"))}),
    "fold": Row((normal(3, 2, 4, 3, 2),), lambda c: windows.fold(c.nodes[0], FRAMES, (5, 2, 3)), folded,
                {ShapeError: lambda c: windows.fold(c.nodes[0], FRAMES, (5, 2, 3, 2)),
                 DtypeError: lambda c: windows.fold(ew.lt(c.nodes[0], c.nodes[0]), FRAMES, (5, 2, 3))}),
    "standardize": Row((normal(2, 3),), lambda c: normalization.standardize(c.nodes[0], (1,), (c.t,), 0.1),
                       standardized,
                       {ShapeError: lambda c: normalization.standardize(c.nodes[0], (2,), (c.t,), 0.1),
                        AxisError: lambda c: normalization.standardize(c.nodes[0], (1,), (FIXED,), 0.1),
                        DtypeError: lambda c: normalization.standardize(leaves.const([1, 2], "int32"), (0,), (), 0.1)}),
    "batch_norm": Row((normal(2, 3), param(2, 1), param(2, 1)),
                      lambda c: normalization.batch_norm(*c.nodes, (1,), (c.t,), 0.1), standardized,
                      {ShapeError: lambda c: normalization.batch_norm(*c.nodes[:2], c.nodes[0], (), (), 0.1),
                       AxisError: lambda c: normalization.batch_norm(
                           c.nodes[1], event.slice_(c.nodes[0], 1, 0, 1, 1), c.nodes[2], (1,), (), 0.1)}),
    "dropout": Row((normal(4, 3), Operand((4, 3), "positive")),
                   lambda c: composite.dropout(c.nodes[0], ew.stop_gradient(c.nodes[1]), 0.8),
                   lambda a, draw: np.where(draw >= 0.8, a / (1 - 0.8), 0),
                   {ShapeError: lambda c: composite.dropout(c.nodes[0], leaves.const(0.5, c.nodes[0].dtype), 0.5)}),
    "broadcast": Row((param(3),), lambda c: reduction.broadcast(c.nodes[0], (c.t,), (2, 3)),
                     lambda p: np.broadcast_to(p, (T, 2, 3)),
                     {ShapeError: lambda c: reduction.broadcast(c.nodes[0], (c.t,), (2, 4))}),
    "sum": Row((normal(2, 3),), lambda c: reduction.sum_(c.nodes[0], (1,), (c.t,)), lambda a: a.sum((0, 2)),
               {ShapeError: lambda c: reduction.sum_(c.nodes[0], (2,)),
                DtypeError: lambda c: reduction.sum_(ew.lt(c.nodes[0], c.nodes[0]), (0,)),
                AxisError: lambda c: reduction.sum_(c.nodes[0], (), (FIXED,))}),
    "max": Row((normal(2, 3),), lambda c: reduction.max_(c.nodes[0], (0,), (c.t,)), lambda a: a.max((0, 1)),
               {ShapeError: lambda c: reduction.max_(c.nodes[0], (2,)),
                AxisError: lambda c: reduction.max_(c.nodes[0], (), (FIXED,))}),
    "contract": Row((normal(2, 3), normal(3, 4)), lambda c: contraction.contract(*c.nodes, "mk", "kn", "nm", (c.t,)),
                    lambda a, b: np.einsum("tmk,tkn->nm", a, b),
                    {ShapeError: lambda c: contraction.matmul(c.nodes[0], c.nodes[0]),
                     DtypeError: lambda c: contraction.matmul(c.nodes[0], leaves.const(np.ones((3, 1)), "int32"))}),
    "gather": Row((param(4, 2), ints(4, 3)), lambda c: table.gather(*c.nodes), lambda p, rows: p[rows],
                  {DtypeError: lambda c: table.gather(c.nodes[0], c.nodes[0]),
                   ShapeError: lambda c: table.gather(leaves.const(1, "float64"), c.nodes[1])}),
    "scatter": Row((normal(3, 2), ints(4, 3)), lambda c: make(TABLE["scatter"], c.nodes, rows=4, over=(c.t,)),
                   scattered,
                   {ShapeError: lambda c: make(TABLE["scatter"], c.nodes[::-1], rows=4, over=()),
                    DtypeError: lambda c: make(TABLE["scatter"], (c.nodes[0], c.nodes[0]), rows=4, over=())}),
    "take": Row((normal(2, 3), Operand((), "int", 2, over=False), param(3)),
                lambda c: take.take(c.nodes[0], positions(c.nodes[1]), c.t, c.nodes[2]),
                lambda a, start, fill: np.stack([a[p] if p < T else np.broadcast_to(fill, (2, 3))
                                                 for p in (start, start + 2)]),
                {AxisError: lambda c: take.take(c.nodes[0], leaves.index(c.t), c.t),
                 DtypeError: lambda c: take.take(c.nodes[0], c.nodes[2], c.t),
                 ShapeError: lambda c: take.take(c.nodes[0], c.nodes[1], c.t, leaves.const(True, "bool"))}),
    "softmax": Row((normal(2, 3),), lambda c: composite.softmax(c.nodes[0]), softmax_reference,
                   {ShapeError: lambda c: composite.softmax(leaves.const(1, "float64"))}),
    "log_softmax": Row((normal(2, 3),), lambda c: composite.log_softmax(c.nodes[0]),
                       lambda a: np.log(softmax_reference(a)),
                       {ShapeError: lambda c: composite.log_softmax(leaves.const(1, "float64"))}),
    "cross_entropy": Row((normal(2, 3), ints(3, 2)), lambda c: composite.cross_entropy(*c.nodes), entropy_reference,
                         {DtypeError: lambda c: composite.cross_entropy(c.nodes[0], c.nodes[0]),
                          ShapeError: lambda c: composite.cross_entropy(c.nodes[0], leaves.const([1, 2, 3], "int32"))}),
    "hash": Row((ints(9, 2), ints(9, 2)), lambda c: random.hash_(*c.nodes, 5), threefry_reference,
                {DtypeError: lambda c: random.hash_(c.nodes[0], leaves.const(1, "bool"), 5)}),
}  # fmt: skip
NAMES = sorted(TABLE)


def case(operands: tuple[Operand, ...], floating: str = "float64") -> Case:
    g = gc.Graph("case", dtype="float64")
    t = g.axis("t")
    g.axes["f"] = FIXED
    g.input("along", (), over=t)
    made = []
    for k, operand in enumerate(operands):
        dtype = operand.dtype(floating)
        declare = partial(g.input, over=t) if operand.over else g.param
        made.append(declare(f"x{k}", operand.shape, dtype=dtype).node)
    return Case(g, t, tuple(made))


def arguments(row: Row, floating: str = "float64") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    given = {f"x{k}": o.array(rng, o.dtype(floating)) for k, o in enumerate(row.operands)}
    return {"along": np.zeros(T), **given}


def graph_of(name: str) -> gc.Graph:
    c = case(ROWS[name].operands)
    c.g.output("value", Value(c.g, ROWS[name].build(c)))
    return c.g


def moved(g: gc.Graph) -> list[str]:
    """The operands that have a derivative."""
    declared = declared_arrays(g)
    return [name for name, node in declared.items() if node.dtype in FLOATS and name != "along"]


def differentiable(name: str) -> bool:
    g = graph_of(name)
    return g.outputs["value"].dtype in FLOATS and bool(moved(g)) and name != "stop_gradient"


def test_every_op_has_a_row() -> None:
    assert set(ROWS) == set(TABLE)


@pytest.mark.parametrize("name", NAMES)
def test_value(name: str) -> None:
    given = arguments(ROWS[name])
    value = gc.interpret(graph_of(name), **given)["value"]
    with np.errstate(divide="ignore"):  # 0, of integers
        expected = ROWS[name].numpy(*(a for k, a in given.items() if k != "along"))
    assert value.shape == np.shape(expected)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [n for n in NAMES if differentiable(n)])
def test_derivatives(name: str) -> None:
    g, given = graph_of(name), arguments(ROWS[name])
    testing.check_gradients(g, "value", moved(g), given, tolerance=1e-7)
    once = gc.vjp(g, "value", moved(g))
    cotangent = np.random.default_rng(1).normal(size=gc.interpret(g, **given)["value"].shape)
    for target in moved(g):
        twice = [*moved(g), "cotangent_value"]
        testing.check_gradients(once, f"grad_{target}", twice, {**given, "cotangent_value": cotangent}, tolerance=1e-6)


@pytest.mark.parametrize("name", ["floor", "sign", "stop_gradient"])
def test_held_constant(name: str) -> None:
    g = graph_of(name)
    assert not gc.interpret(gc.vjp(g, "value", ["x0"]), **arguments(ROWS[name]), cotangent_value=np.ones((T, 2, 3)))[
        "grad_x0"
    ].any()


@pytest.mark.parametrize("name", NAMES)
def test_compiled(name: str) -> None:
    g, given = graph_of(name), arguments(ROWS[name])
    if differentiable(name):
        g = gc.vjp(g, "value", moved(g))
        value = gc.interpret(graph_of(name), **given)["value"]
        given["cotangent_value"] = np.random.default_rng(1).normal(size=value.shape).astype(value.dtype)
    expected = gc.interpret(g, **given)
    found = gc.compile(g)(**given)
    for output, value in expected.items():
        assert found[output].dtype == value.dtype
        np.testing.assert_allclose(found[output], value, rtol=1e-12, atol=1e-14, err_msg=output)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_compiles_or_is_refused(dtype: str) -> None:
    """All ops that accept a dtype, in one graph."""
    g = gc.Graph("all", dtype="float64")
    t = g.axis("t")
    g.axes["f"] = FIXED
    g.input("along", (), over=t)
    given: dict[str, np.ndarray] = {"along": np.zeros(T)}
    for name in NAMES:
        row = ROWS[name]
        nodes = []
        for k, (operand, array) in enumerate(zip(row.operands, list(arguments(row, dtype).values())[1:], strict=True)):
            declare = partial(g.input, over=t) if operand.over else g.param
            nodes.append(declare(f"{name}{k}", operand.shape, dtype=array.dtype.name))
            given[f"{name}{k}"] = array
        if name != "state" and nodes:
            try:
                g.output(f"out_{name}", Value(g, row.build(Case(g, t, tuple(v.node for v in nodes)))))
            except (DtypeError, ShapeError):
                assert dtype not in FLOATING, name
    expected = gc.interpret(g, **given)
    found = gc.compile(g)(**given)
    tolerance = 1e-5 if dtype in ("float32", *STORED) else 1e-12
    for output, value in expected.items():
        assert found[output].dtype == value.dtype
        np.testing.assert_allclose(found[output], value, rtol=tolerance, atol=tolerance, err_msg=output)


REFUSED = [(name, kind) for name in NAMES for kind in ROWS[name].bad]


@pytest.mark.parametrize(("name", "kind"), REFUSED, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_bad_operands(name: str, kind: type[GraphError]) -> None:
    """The error is of the right kind, and begins with the user's line: here, the line of the table."""
    build = ROWS[name].bad[kind]
    c = case(ROWS[name].operands)
    with pytest.raises(kind) as error:
        build(c)
    location = error.value.location
    assert location is not None
    assert (location.file, location.line) == (__file__, build.__code__.co_firstlineno)
    assert str(error.value).startswith(f"{__file__}:{location.line}")


@pytest.mark.parametrize(("name", "position"), [("gather", 1), ("cross_entropy", 1)])
@pytest.mark.parametrize("index", [-1, 4])
def test_indices_out_of_range(name: str, position: int, index: int) -> None:
    g, given = graph_of(name), arguments(ROWS[name])
    given[f"x{position}"][0, 0] = index
    for run in (gc.interpret, lambda graph, **arrays: gc.compile(graph)(**arrays)):
        with pytest.raises(ArgumentError, match=str(index)):
            run(g, **given)


ARITHMETIC = (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow)
COMPARISONS = (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne)
LOGIC = (operator.and_, operator.or_)


@pytest.mark.parametrize("apply", [*ARITHMETIC, *COMPARISONS, *LOGIC, operator.matmul], ids=lambda f: f.__name__)
def test_arrays_on_the_left_of_an_operator(apply: Callable[[Any, Any], Any]) -> None:
    left, right = np.array([0.5, 2.0, 1.5]), np.array([2.0, 0.5, 1.5])
    if apply in LOGIC:
        left, right = left > 1, right > 1
    g = gc.Graph("left", dtype="float64")
    x = g.input("x", (3,), dtype=str(right.dtype))
    g.output("y", apply(left, x))
    np.testing.assert_allclose(gc.interpret(g, x=right)["y"], apply(left, right), rtol=1e-15)
