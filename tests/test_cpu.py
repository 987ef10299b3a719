"""The CPU back end against the interpreter of the loop IR, on programs that each stand for one kind of access,
loop or reduction, at sizes around every tile's edges, on the host and on machines with fewer vectors."""

from __future__ import annotations

import ctypes
import functools
import mmap
import subprocess
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.cpu.jit import Loaded, emit, load
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.lengths import buffer_shape
from graphc.codegen.llvm.math import ULP_BOUNDS
from graphc.codegen.program import (
    Accumulate,
    Buffer,
    Call,
    Const,
    Dim,
    Index,
    Kernel,
    Let,
    Load,
    Loop,
    Program,
    Reduce,
    Ref,
    Ring,
    Scalar,
    Size,
    Store,
)
from graphc.codegen.target import Target
from graphc.scalar import DTYPES, FLOATS, FUNCTIONS, call, cast, index

HOST = Target.host()
X86 = HOST.architecture == "x86_64"
TARGETS = {"host": HOST}
if X86:
    TARGETS["sse2"] = Target(HOST.triple, "x86-64")
    if HOST.has("avx2"):
        TARGETS["avx2"] = Target(HOST.triple, "x86-64-v3")
ELEMENTARY = sorted({fn for fn, _ in ULP_BOUNDS})

n, u, k, t, c = (Index(name) for name in "nuktc")
N, U, K, T = (Size(name) for name in "NUKT")


def f32(value: float) -> Const:
    return Const(value, "float32")


def at(buffer: str, *subscripts: Scalar, dtype: str = "float32", when: Scalar | None = None) -> Load:
    return Load(buffer, subscripts, dtype, when)


def dims(**extents: Scalar | int) -> tuple[Dim, ...]:
    return tuple(Dim(name, index(e) if isinstance(e, int) else e) for name, e in extents.items())


def program(buffers: list[tuple[str, str, str, tuple[Scalar | Ring | int, ...]]], *body: Kernel | Loop) -> Program:
    """Buffers as (kind, name, dtype, dims)."""
    made = tuple(
        Buffer(name, dtype, tuple(index(d) if isinstance(d, int) else d for d in shape), kind)  # type: ignore[arg-type]
        for kind, name, dtype, shape in buffers
    )
    return Program("test", ("N", "U", "K", "T"), made, body)


@functools.cache
def loaded(program: Program, target: Target) -> Loaded:
    return load(program, target)


def run(program: Program, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int], target: Target) -> None:
    function = loaded(program, target)
    addresses = (ctypes.c_void_p * len(arrays))(*(arrays[b.name].ctypes.data for b in program.buffers))
    function(addresses, (ctypes.c_int64 * len(program.sizes))(*(sizes[s] for s in program.sizes)))


def check(
    program: Program,
    sizes: Mapping[str, int],
    given: Mapping[str, np.ndarray] | None = None,
    target: Target = HOST,
    tolerance: float = 1e-5,
    at_end: bool = True,
) -> None:
    """Run on random arrays, and the given ones: what the interpreter computes is computed. The arrays end (or begin)
    at pages that fault when touched."""
    rng = np.random.default_rng(0)
    arrays = dict(given or {})
    for buffer in program.buffers:
        if buffer.name not in arrays and buffer.kind in ("input", "param"):
            drawn = rng.normal(size=buffer_shape(buffer, sizes))
            arrays[buffer.name] = (np.round(2 * drawn) / 2).astype(buffer.dtype)  # so that most sums are exact
    arrays = allocate(program, arrays, sizes)
    placed = {name: _between_pages(array, at_end) for name, array in arrays.items()}
    run(program, placed, sizes, target)
    expected = {name: array.copy() for name, array in arrays.items()}
    interpret(program, expected, sizes)
    for buffer in program.buffers:
        if buffer.kind != "temp":
            scale = max(1.0, float(np.abs(np.nan_to_num(expected[buffer.name])).max(initial=0)))
            np.testing.assert_allclose(
                placed[buffer.name], expected[buffer.name], rtol=tolerance, atol=tolerance * scale, err_msg=buffer.name
            )


def _between_pages(array: np.ndarray, at_end: bool) -> np.ndarray:
    """A copy of the array whose last (or first) byte borders on a page that cannot be touched."""
    page = mmap.PAGESIZE
    room = -(-array.nbytes // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    for forbidden in (0, page + room):
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + forbidden), page, 0) == 0
    start = page + (room - array.nbytes if at_end else 0)
    inside = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside


def product(a: Scalar, b: Scalar) -> Scalar:
    return call("mul", a, b)


def total(name: str, value: Scalar, op: str = "sum") -> Accumulate:
    return Accumulate(name, op, value)  # type: ignore[arg-type]


def one_sum(value: Scalar, when: Scalar | None = None, op: str = "sum", **extents: Scalar | int) -> Reduce:
    return Reduce(dims(**extents), (total("s", value, op),), when=when)


# Programs


def matmul(dtype: str, rows: Scalar | int = N, columns: Scalar | int = U, depth: Scalar | int = K) -> Program:
    a, b = at("a", n, k, dtype=dtype), at("b", k, u, dtype=dtype)
    biased = call("max", call("add", Ref("s", dtype), at("bias", u, dtype=dtype)), Const(0.0, dtype))
    return program(
        [
            ("input", "a", dtype, (rows, depth)),
            ("input", "b", dtype, (depth, columns)),
            ("input", "bias", dtype, (columns,)),
            ("output", "y", dtype, (rows, columns)),
        ],
        Kernel(
            "product",
            dims(n=rows, u=columns),
            (one_sum(product(a, b), k=depth),),
            (Store("y", (n, u), biased),),
        ),
    )


def weights(dtype: str) -> Program:
    """The gradient of a weight: the product of two values, summed over steps and examples."""
    value = product(at("g", t, k, n, dtype=dtype), at("h", t, k, u, dtype=dtype))
    return program(
        [
            ("input", "g", dtype, (T, K, N)),
            ("input", "h", dtype, (T, K, U)),
            ("output", "y", dtype, (N, U)),
        ],
        Kernel("weights", dims(n=N, u=U), (one_sum(value, t=T, k=K),), (Store("y", (n, u), Ref("s", dtype)),)),
    )


def gates() -> Program:
    """Four sums that share an operand, read from a blocked layout, and two stores."""
    quotient, rest = call("floordiv", u, index(16)), call("mod", u, index(16))
    sums = tuple(total(f"z{g}", product(at("x", n, k), at("w", quotient, k, index(g), rest))) for g in range(4))
    z = [Ref(f"z{g}", "float32") for g in range(4)]
    return program(
        [
            ("input", "x", "float32", (N, K)),
            ("input", "w", "float32", (3, K, 4, 16)),
            ("output", "c", "float32", (N, 48)),
            ("output", "h", "float32", (N, 48)),
        ],
        Kernel(
            "gates",
            dims(n=N, u=48),
            (Reduce(dims(k=K), sums), Let("m", product(z[0], z[1]))),
            (
                Store("c", (n, u), call("add", Ref("m", "float32"), z[2])),
                Store("h", (n, u), call("sub", Ref("m", "float32"), z[3])),
            ),
        ),
    )


def normalised() -> Program:
    """Reductions that do not depend on the vector dimension, the second reading the first."""
    centred = call("sub", at("x", n, c), Ref("m", "float32"))
    body = (
        Reduce(dims(c=U), (total("m", at("x", n, c), "max"),)),
        Reduce(dims(c=U), (total("s", product(Ref("d", "float32"), Ref("d", "float32"))),), (Let("d", centred),)),
    )
    value = call("div", call("sub", at("x", n, u), Ref("m", "float32")), call("add", Ref("s", "float32"), f32(1)))
    return program(
        [("input", "x", "float32", (N, U)), ("output", "y", "float32", (N, U))],
        Kernel("normalise", dims(n=N, u=U), body, (Store("y", (n, u), value),)),
    )


def two_contractions() -> Program:
    """A tiled reduction that reads the result of another tiled one, and a maximum."""
    first = one_sum(product(at("a", n, k), at("b", k, u)), k=K)
    second = Reduce(
        dims(c=K),
        (total("far", call("abs", call("sub", at("b", c, u), Ref("s", "float32"))), "max"),),
    )
    return program(
        [
            ("input", "a", "float32", (N, K)),
            ("input", "b", "float32", (K, U)),
            ("output", "y", "float32", (N, U)),
        ],
        Kernel("farthest", dims(n=N, u=U), (first, second), (Store("y", (n, u), Ref("far", "float32")),)),
    )


def ragged(scalar: bool) -> Program:
    """Sums over points inside each example's length: of everything, or for every weight."""
    when = call("lt", t, cast(at("lengths", n, dtype="int32"), "index"))
    g, h = at("g", t, n, u), at("h", t, n, k)
    loads = (
        dims(t=T, n=N, u=U, k=K) if scalar else dims(t=T, n=N),
        dims() if scalar else dims(u=U, k=K),
    )
    reduce = Reduce(loads[0], (total("s", product(g, h)),), when=when)
    return program(
        [
            ("input", "lengths", "int32", (N,)),
            ("input", "g", "float32", (T, N, U)),
            ("input", "h", "float32", (T, N, K)),
            ("output", "y", "float32", () if scalar else (U, K)),
        ],
        Kernel("ragged", loads[1], (reduce,), (Store("y", () if scalar else (u, k), Ref("s", "float32")),)),
    )


def triangle(by: Scalar) -> Program:
    """A reduction whose condition varies with the given index, and whose load is out of range outside of it."""
    when = call("le", k, by)
    value = product(at("x", n, call("sub", by, k)), at("w", k, u))
    return program(
        [
            ("input", "x", "float32", (N, K)),
            ("input", "w", "float32", (K, K)),
            ("output", "y", "float32", (N, K)),
        ],
        Kernel("triangle", dims(n=N, u=K), (one_sum(value, when, k=K),), (Store("y", (n, u), Ref("s", "float32")),)),
    )


def limited() -> Program:
    """A value shared by the lanes that is out of range where no lane wants it."""
    when = call("lt", k, cast(at("limits", u, dtype="int32"), "index"))
    value = product(at("z", n, k), at("w", u))
    return program(
        [
            ("input", "limits", "int32", (U,)),
            ("input", "z", "float32", (N, K)),
            ("input", "w", "float32", (U,)),
            ("output", "y", "float32", (N, U)),
        ],
        Kernel(
            "limited",
            dims(n=N, u=U),
            (one_sum(value, when, k=call("mul", K, index(2000))),),
            (Store("y", (n, u), Ref("s", "float32")),),
        ),
    )


def chosen(by: Scalar) -> Program:
    """A sum under a condition, of what lies at an address that memory chooses, or of a constant in its place."""
    where = call("le", index(3), cast(at("limits", n, dtype="int32"), "index"))
    value = call("select", where, at("x", k, n, u), f32(0))
    reduce = one_sum(value, call("le", by, k), k=K)
    return program(
        [
            ("input", "limits", "int32", (U,)),
            ("input", "x", "float32", (K, U, U)),
            ("output", "y", "float32", (U, U)),
        ],
        Kernel("chosen", dims(n=U, u=U), (reduce,), (Store("y", (n, u), Ref("s", "float32")),)),
    )


def convolution() -> Program:
    position = call("sub", call("add", k, t), index(1))
    inside = call("and", call("le", index(0), position), call("lt", position, K))
    x = call("select", inside, at("x", n, position, c, when=inside), f32(0))
    value = product(x, at("w", t, c, u))
    return program(
        [
            ("input", "x", "float32", (N, K, 3)),
            ("input", "w", "float32", (3, 3, U)),
            ("output", "y", "float32", (N, K, U)),
        ],
        Kernel(
            "convolve",
            dims(n=N, k=K, u=U),
            (one_sum(value, t=3, c=3),),
            (Store("y", (n, k, u), Ref("s", "float32")),),
        ),
    )


def recurrence(reverse: bool, ring: bool, initial: bool, delay: int = 1) -> Program:
    """h[t] = x[t] + W h[t - delay], from h0 or from 0; the state is kept whole or in a ring."""
    before = call("add" if reverse else "sub", t, index(delay))
    inside = call("lt", before, T) if reverse else call("le", index(0), before)
    boundary = at("h0", n, k) if initial else f32(0)
    state = call("select", inside, at("state", before, n, k, when=inside), boundary)
    step = Kernel(
        "step",
        dims(n=N, u=U),
        (one_sum(product(at("w", k, u), state), k=U), Let("h", call("add", Ref("s", "float32"), at("x", t, n, u)))),
        (Store("state", (t, n, u), Ref("h", "float32")), Store("y", (t, n, u), Ref("h", "float32"))),
    )
    return program(
        [
            ("input", "w", "float32", (U, U)),
            ("input", "x", "float32", (T, N, U)),
            ("input", "h0", "float32", (N, U)),
            ("temp", "state", "float32", (Ring(delay + 1) if ring else T, N, U)),
            ("output", "y", "float32", (T, N, U)),
        ],
        Loop("t", T, reverse, (step,)),
    )


def shifted() -> Program:
    """A shift along the vector dimension, a reversal, a transposition and a broadcast."""
    inside = call("le", index(1), u)
    before = call("select", inside, at("x", n, call("sub", u, index(1)), when=inside), f32(7))
    flipped = at("x", n, call("sub", call("sub", U, index(1)), u))
    value = call("add", call("add", before, flipped), call("sub", at("z", u, n), at("v", n)))
    return program(
        [
            ("input", "x", "float32", (N, U)),
            ("input", "z", "float32", (U, N)),
            ("input", "v", "float32", (N,)),
            ("output", "y", "float32", (N, U)),
            ("output", "transposed", "float32", (U, N)),
        ],
        Kernel("shift", dims(n=N, u=U), (), (Store("y", (n, u), value), Store("transposed", (u, n), value))),
    )


def gathered() -> Program:
    """Subscripts read from memory, and those of a reshape, in lanes and not; a guard that all lanes share."""
    row = cast(at("rows", n, dtype="int32"), "index")
    pick = cast(at("picks", u, dtype="int32"), "index")
    flat = call("add", product(n, U), u)
    reshaped = at("square", call("floordiv", flat, index(7)), call("mod", flat, index(7)))
    blocked = at("blocks", call("mod", u, index(24)), call("floordiv", u, index(24)))
    later = call("le", index(1), n)
    previous = call("select", later, at("v", call("sub", n, index(1)), when=later), f32(3))
    picked = call("add", call("add", at("table", row, u), at("table", row, pick)), previous)
    value = call("add", picked, call("mul", reshaped, blocked))
    return program(
        [
            ("input", "rows", "int32", (N,)),
            ("input", "picks", "int32", (U,)),
            ("input", "table", "float32", (5, U)),
            ("input", "blocks", "float32", (24, 3)),
            ("input", "v", "float32", (N,)),
            ("input", "square", "float32", (product(N, U), 7)),
            ("output", "y", "float32", (N, U)),
        ],
        Kernel("gather", dims(n=N, u=U), (), (Store("y", (n, u), value),)),
    )


def accumulated(vector: bool) -> Program:
    """Rows, or single elements, added up where an input says."""
    row = cast(at("rows", n, dtype="int32"), "index")
    place = (row, u) if vector else (row,)
    return program(
        [
            ("input", "rows", "int32", (N,)),
            ("input", "x", "float32", (N, U) if vector else (N,)),
            ("param", "y", "float32", (5, U) if vector else (5,)),
        ],
        Kernel(
            "scatter",
            dims(n=N, u=U) if vector else dims(n=N),
            (),
            (Store("y", place, at("x", n, u) if vector else at("x", n), accumulate=True),),
        ),
    )


def updated() -> Program:
    """A param overwritten at the point that read it, twice in one kernel."""
    value = call("sub", at("p", u), product(f32(0.1), at("q", u)))
    return program(
        [("param", "p", "float32", (U,)), ("param", "q", "float32", (U,))],
        Kernel("update", dims(u=U), (), (Store("p", (u,), value), Store("q", (u,), at("p", u)))),
    )


PROGRAMS = {
    "gates": gates(),
    "normalised": normalised(),
    "two contractions": two_contractions(),
    "triangle by column": triangle(u),
    "triangle by row": triangle(n),
    "limited": limited(),
    "chosen, by a constant": chosen(index(2)),
    "chosen, by row": chosen(n),
    "chosen, by column": chosen(u),
    "convolution": convolution(),
    "ragged weights": ragged(scalar=False),
    "ragged sum": ragged(scalar=True),
    "shifted": shifted(),
    "gathered": gathered(),
    "accumulated rows": accumulated(vector=True),
    "accumulated elements": accumulated(vector=False),
    "updated": updated(),
}


def indices(sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Integers that stay in range, for the programs that read subscripts or lengths."""
    rng = np.random.default_rng(1)
    return {
        "rows": rng.integers(0, 5, sizes["N"], dtype=np.int32),
        "picks": rng.integers(0, max(1, sizes["U"]), sizes["U"], dtype=np.int32),
        "lengths": rng.integers(0, sizes["T"] + 1, sizes["N"], dtype=np.int32),
        "limits": rng.integers(0, sizes["K"] + 1, sizes["U"], dtype=np.int32),
    }


SIZES = st.fixed_dictionaries(
    {"N": st.integers(0, 16), "U": st.integers(0, 70), "K": st.integers(0, 19), "T": st.integers(0, 4)}
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, target: str) -> None:
    made = PROGRAMS[name]

    @settings(max_examples=12)
    @given(SIZES, st.booleans())
    def every_size(sizes: dict[str, int], at_end: bool) -> None:
        if name == "triangle by row":
            sizes = sizes | {"N": min(sizes["N"], sizes["K"])}
        known = {b.name for b in made.buffers}
        chosen = {name: array for name, array in indices(sizes).items() if name in known}
        check(made, sizes, chosen, TARGETS[target], at_end=at_end)

    every_size()


@pytest.mark.parametrize("dtype", FLOATS)
@given(rows=st.integers(0, 40), columns=st.integers(0, 140), depth=st.integers(0, 9))
@settings(max_examples=40)
def test_matmul_at_every_tail(dtype: str, rows: int, columns: int, depth: int) -> None:
    check(matmul(dtype), {"N": rows, "U": columns, "K": depth, "T": 0})


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5, 8, 10, 16, 20, 80])
@pytest.mark.parametrize("rows", [1, 5, 13])
def test_matmul_of_constant_extents(rows: int, columns: int) -> None:
    check(matmul("float32", rows, columns, 7), {"N": 0, "U": 0, "K": 0, "T": 0})


@pytest.mark.parametrize("dtype", FLOATS)
@given(st.fixed_dictionaries({k: st.integers(0, most) for k, most in {"N": 80, "U": 20, "T": 30, "K": 90}.items()}))
@example({"N": 40, "U": 33, "T": 2, "K": 1100})
@example({"N": 40, "U": 33, "T": 1100, "K": 1})
@settings(max_examples=25)
def test_reductions_in_pieces(dtype: str, sizes: dict[str, int]) -> None:
    """Reductions too long for the cache, over two dims, at every edge of a piece and of a block of rows."""
    check(weights(dtype), sizes, tolerance=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("name", ["two contractions", "ragged weights", "gates"])
@pytest.mark.parametrize("target", TARGETS)
def test_programs_in_pieces(name: str, target: str) -> None:
    sizes = {"N": 75, "U": 35, "K": 530, "T": 40}
    check(PROGRAMS[name], sizes, indices(sizes), TARGETS[target], tolerance=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("delay", [1, 2])
def test_recurrence(reverse: bool, ring: bool, initial: bool, delay: int) -> None:
    made = recurrence(reverse, ring, initial, delay)
    for rows, units, steps in [(1, 3, 5), (7, 33, 4), (2, 16, 1), (0, 5, 2), (3, 0, 2), (3, 4, 0)]:
        check(made, {"N": rows, "U": units, "K": 0, "T": steps}, tolerance=1e-4)


def test_one_machine_without_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    scalar = Target(HOST.triple, HOST.cpu, HOST.features + ",+cmov")
    monkeypatch.setattr(Target, "vector_bits", property(lambda self: 0))
    for sizes in ({"N": 3, "U": 5, "K": 4, "T": 3}, {"N": 0, "U": 1, "K": 1, "T": 0}):
        for made in (matmul("float64"), *PROGRAMS.values()):
            known = {b.name for b in made.buffers}
            check(made, sizes, {a: b for a, b in indices(sizes).items() if a in known}, scalar)


# Functions


def pointwise(fn: str, dtype: str, result: str, arity: int) -> Program:
    names = ["condition", "x", "y"] if fn == "select" else ["x", "y"][:arity]
    args = tuple(at(name, u, dtype="bool" if name == "condition" else dtype) for name in names)
    return program(
        [("input", name, arg.dtype, (U,)) for name, arg in zip(names, args, strict=True)]
        + [("output", "out", result, (U,))],
        Kernel("apply", dims(u=U), (), (Store("out", (u,), Call(fn, args, result)),)),
    )


def samples(dtype: str, fn: str) -> np.ndarray:
    """Values that exercise signs, zeros, halves, extremes and, of floats, infinities and NaN."""
    if dtype == "bool":
        return np.array([False, True, True, False, True])
    if dtype in ("int32", "index"):
        limits = np.iinfo(np.int32 if dtype == "int32" else np.int64)
        return np.array([0, 1, -1, 7, -7, 31, 32, 33, 100, limits.max, limits.min + 1], limits.dtype)
    many = np.concatenate([np.linspace(-30, 30, 41), [0.0, -0.0, 0.5, -0.5, 1e-8, 1e20, -1e20, np.inf, -np.inf]])
    return np.append(many, np.nan).astype(dtype)


CASES = [
    (fn, dtype) for fn, function in FUNCTIONS.items() for dtype in function.accepts if fn not in ("cast", *ELEMENTARY)
]


@pytest.mark.parametrize(("fn", "dtype"), CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_functions(fn: str, dtype: str, target: str) -> None:
    function = FUNCTIONS[fn]
    values = samples(dtype, fn)
    grid = np.meshgrid(values, values) if function.arity >= 2 else [values]
    x, y = (grid[0].ravel().copy(), grid[-1].ravel().copy())
    if fn in ("floordiv", "mod") and dtype == "index":
        x, y = x[y > 0], y[y > 0]
    elif fn in ("floordiv", "mod"):  # the lowest number has no opposite
        x, y = np.append(x, [np.iinfo(np.int32).min] * 4), np.append(y, np.array([-1, 0, 1, -3]))
        x, y = x.astype(dtype), y.astype(dtype)
    if fn in ("shl", "shr"):
        x, y = x[y >= 0], y[y >= 0]
    given = {"x": x} if function.arity == 1 else {"x": x, "y": y}
    if fn == "select":
        given["condition"] = np.arange(len(x)) % 3 == 0
    sizes = {"N": 0, "U": len(x), "K": 0, "T": 0}
    result = "bool" if function.result == "bool" else dtype
    check(pointwise(fn, dtype, result, function.arity), sizes, given, TARGETS[target], tolerance=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("result", DTYPES)
def test_casts(dtype: str, result: str) -> None:
    values = samples(dtype, "cast")
    if dtype in FLOATS and result not in FLOATS:
        values = values[np.abs(values) < 1e6]  # numpy leaves the others open
    check(pointwise("cast", dtype, result, 1), {"N": 0, "U": len(values), "K": 0, "T": 0}, {"x": values}, tolerance=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("fn", ELEMENTARY)
def test_elementary_functions(fn: str, dtype: str) -> None:
    x = np.linspace(0.01 if fn in ("log", "log1p", "pow") else -20, 20, 333).astype(dtype)
    given = {"x": x} | ({"y": np.linspace(-2, 3, 333).astype(dtype)} if fn == "pow" else {})
    sizes = {"N": 0, "U": 333, "K": 0, "T": 0}
    check(pointwise(fn, dtype, dtype, len(given)), sizes, given, tolerance=1e-5 if dtype == "float32" else 1e-12)


# Emitted code

CROSS = {
    "avx512": (Target("x86_64-unknown-linux-gnu", "x86-64-v4"), "zmm"),
    "avx2": (Target("x86_64-unknown-linux-gnu", "x86-64-v3"), "ymm"),
    "sse2": (Target("x86_64-unknown-linux-gnu", "x86-64"), "xmm"),
    "neon": (Target("aarch64-unknown-linux-gnu"), ".4s"),
    "riscv": (Target("riscv64-unknown-linux-gnu", "generic-rv64", "+m,+f,+d"), "fmul.s"),
}


@pytest.mark.parametrize("name", CROSS)
def test_emits_for_other_machines(name: str) -> None:
    target, expected = CROSS[name]
    assembly = emit(matmul("float32"), target).assembly
    assert expected in assembly
    assert "test.product" in assembly


def every_function() -> Program:
    kernels = []
    for dtype in FLOATS:
        for fn, function in FUNCTIONS.items():
            if dtype in function.accepts and fn not in ("select", "cast") and function.result == "same":
                value = call(fn, *[at(f"x_{dtype}", u, dtype=dtype)] * function.arity)
                kernels.append(Kernel(f"{fn}_{dtype}", dims(u=U), (), (Store(f"y_{dtype}", (u,), value),)))
    return program(
        [("input", f"x_{d}", d, (U,)) for d in FLOATS] + [("output", f"y_{d}", d, (U,)) for d in FLOATS], *kernels
    )


@pytest.mark.parametrize("name", ["avx512", "sse2", "neon"])
def test_objects_call_nothing(name: str, tmp_path: object) -> None:
    """Copies and fills must not become memcpy and memset, nor functions calls into libm."""
    target = CROSS[name][0]
    fill = program(
        [("input", "x", "float32", (U,)), ("output", "y", "float32", (U,)), ("output", "z", "float32", (U,))],
        Kernel("copy", dims(u=U), (), (Store("y", (u,), at("x", u)), Store("z", (u,), f32(0)))),
    )
    path = f"{tmp_path}/code.o"
    for made in (fill, every_function(), *PROGRAMS.values()):
        with open(path, "wb") as file:
            file.write(emit(made, target).object)
        listed = subprocess.run(["nm", "-u", path], capture_output=True, text=True, check=True)
        assert listed.stdout.strip() == ""


@settings(max_examples=40)
@example(144, 3, 1, "float64", 1)  # vectors in tiles of 8 for a single row, of 3 for several
@given(
    st.integers(1, 260) | st.integers(1, 48).map(lambda vectors: 8 * vectors),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from(["float32", "float64"]),
    st.integers(1, 3),
)
def test_products_of_any_size(units: int, inputs: int, rows: int, dtype: str, threads: int) -> None:
    """Tiles of every width and height cover a product, for one row, a few, and parts of threads."""
    g = gc.Graph("product", dtype=dtype)
    n = g.axis("n")
    g.output("y", g.param("W", (units, inputs)) @ g.input("x", (inputs,), over=n))
    rng = np.random.default_rng(units)
    W, x = rng.normal(size=(units, inputs)).astype(dtype), rng.normal(size=(rows, inputs)).astype(dtype)
    f = gc.compile(g, threads=threads)
    np.testing.assert_allclose(f(W=W, x=x)["y"], x @ W.T, rtol=1e-4 if dtype == "float32" else 1e-10, atol=1e-4)


# The error of long sums.


@pytest.mark.parametrize("shape", [(1 << 17, 16), (512, 256, 16), (64, 64, 32, 3)])
def test_the_error_of_a_long_sum_grows_slowly(shape: tuple[int, ...]) -> None:
    """Terms of one sign, added up one after another in float32, would be off by 1e-4 and more."""
    g = gc.Graph("long")
    x = g.input("x", shape)
    g.output("sum", gc.sum(x, dim=tuple(range(len(shape) - 1))))
    value = np.random.default_rng(0).uniform(0.1, 0.2, shape).astype(np.float32)
    expected = value.sum(tuple(range(len(shape) - 1)), dtype=np.float64)
    np.testing.assert_allclose(gc.compile(g)(x=value)["sum"], expected, rtol=2e-6)


@pytest.mark.parametrize("rows", [1, 5, 40])
def test_the_error_of_a_long_product_grows_slowly(rows: int) -> None:
    g = gc.Graph("long")
    n = g.axis("n")
    x, y = g.input("x", (rows,), over=n), g.input("y", (24,), over=n)
    g.output("product", gc.sum(gc.outer(x, y), over=n))
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0.1, 0.2, (1 << 16, size)).astype(np.float32) for size in (rows, 24))
    expected = a.astype(np.float64).T @ b.astype(np.float64)
    np.testing.assert_allclose(gc.compile(g)(x=a, y=b)["product"], expected, rtol=2e-6)
