"""float16 and bfloat16 on the GPU, run in the PTX emulator, against the interpreter: every conversion, persistent loops
in every way in which their CTAs may be grouped, products of every kind, and arrays that other libraries hand over."""

from __future__ import annotations

import re
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc import testing
from graphc.codegen.cuda.driver.dlpack import DeviceArray, foreign
from graphc.codegen.target import Precision
from graphc.errors import ArgumentError
from graphc.scalar import STORED, nearest
from tests.cuda_emulated import EmulatedDevice, arrays_of, check, compiled, loops_of, ways
from tests.ptx import ptxas
from tests.test_cuda_assembly import check_loops, needs_ptxas
from tests.test_half_precision import around_boundaries, bits, every, wide
from tests.test_storing import floating


def recurrent(gated: bool, units: int, inputs: int, *, x: str, weights: str, state: str) -> gc.Graph:
    """The gradient of the run of an Elman cell, or of one with a gate, of which these are stored so."""
    g = gc.Graph("recurrent")
    t, n = g.axis("t"), g.axis("n")
    seen = g.input("x", (inputs,), over=(t, n), dtype=x)
    W = {k: g.param(f"W_{k}", (units, inputs), dtype=weights) for k in "zh"}
    U = {k: g.param(f"U_{k}", (units, units), dtype=weights) for k in "zh"}
    b = g.param("b", (units,))
    h = g.state("h", (units,), over=(t, n), initial=0.25, dtype=state)
    if not gated:
        h[t] = gc.tanh(W["h"] @ seen + U["h"] @ h[t - 1] + b)
    else:
        z = gc.sigmoid(W["z"] @ seen + U["z"] @ h[t - 1] + b)
        h[t] = (1 - z) * h[t - 1] + z * gc.tanh(W["h"] @ seen + U["h"] @ (z * h[t - 1]))
    g.output("h", h)
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return gc.grad(g, "loss")


# Conversions.


@pytest.mark.parametrize("dtype", STORED)
def test_every_number_is_loaded(dtype: str) -> None:
    g = gc.Graph("load")
    n = g.axis("n")
    g.output("y", gc.cast(g.input("x", (), over=n, dtype=dtype), "float32"))
    x = every(dtype)
    np.testing.assert_array_equal(bits(compiled(g)(x=x)["y"]), bits(wide(x)))


@pytest.mark.parametrize("dtype", STORED)
def test_stores_round_to_the_nearest(dtype: str) -> None:
    g = gc.Graph("store")
    n = g.axis("n")
    y = gc.cast(g.input("x", (), over=n), dtype)
    g.output("y", y)
    g.output("z", gc.cast(y, "float32"))
    x = around_boundaries(dtype)
    found = compiled(g)(x=x)
    np.testing.assert_array_equal(bits(found["y"]), bits(nearest(x, dtype)))
    np.testing.assert_array_equal(bits(found["z"]), bits(wide(nearest(x, dtype))))


# Loops.

KINDS = [
    {"x": "bfloat16", "weights": "float32", "state": "float32"},
    {"x": "float32", "weights": "bfloat16", "state": "float32"},
    {"x": "float32", "weights": "float32", "state": "bfloat16"},
    {"x": "float16", "weights": "float16", "state": "float16"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ".".join(kind.values()))
@pytest.mark.parametrize(("gated", "units", "inputs", "n"), [(False, 6, 3, 2), (True, 40, 5, 3)])
def test_loops(gated: bool, units: int, inputs: int, n: int, kind: dict[str, str]) -> None:
    g = recurrent(gated, units, inputs, **kind)
    check(g, arrays_of(g, t=3, n=n), {"t": 3, "n": n}, 2e-2)


@pytest.mark.parametrize(
    ("precision", "kind"),
    [("bf16", KINDS[1]), ("bf16", KINDS[2]), ("bf16", KINDS[3]), ("f16", KINDS[3]), ("tf32", KINDS[2])],
    ids=lambda x: x if isinstance(x, str) else ".".join(x.values()),
)
@pytest.mark.parametrize(("units", "inputs", "n"), [(24, 37, 7), (64, 5, 2)])
def test_loops_on_tensor_cores(units: int, inputs: int, n: int, precision: Precision, kind: dict[str, str]) -> None:
    tolerance = 4e-2 if precision == "bf16" else 2e-2
    g = recurrent(True, units, inputs, **kind)
    check(g, arrays_of(g, t=2, n=n), {"t": 2, "n": n}, tolerance, precision=precision)


def test_what_a_step_exchanges_has_two_bytes() -> None:
    """A state that is pushed to the CTAs of a cluster takes half of the shared memory there."""
    taken = {}
    for state in ("float32", "bfloat16"):
        g = recurrent(False, 64, 8, x="float32", weights="float32", state=state)
        f = compiled(g, precision="bf16")
        found = [m for unit in loops_of(f) for v in unit.versions for m in v.mirrors if m.buffer.name == "h"]
        assert found
        taken[state] = {m.line_bytes - 16 for m in found}  # which keep lines in different banks
    assert {size // 2 for size in taken["float32"]} == taken["bfloat16"]


# Products.


@pytest.mark.parametrize("precision", ["float32", "bf16", "f16", "tf32"])
@pytest.mark.parametrize(
    ("left", "right", "result"), [("bfloat16", "bfloat16", "bfloat16"), ("float16", "float32", "float16")]
)
@pytest.mark.parametrize(("rows", "depth", "n"), [(33, 70, 50), (64, 64, 96)])
def test_products(rows: int, depth: int, n: int, left: str, right: str, result: str, precision: Precision) -> None:
    """Small integers: exact in all of the dtypes, so any element in a wrong place would show."""
    g = gc.Graph("product")
    batch = g.axis("n")
    x, w = g.input("x", (depth,), over=batch, dtype=right), g.param("w", (rows, depth), dtype=left)
    g.output("y", gc.cast(w @ x, result))
    g.output("s", gc.sum(gc.outer(x, x[:16]), over=batch))
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.integers(-1, 2, (n, depth)).astype(right),
        "w": rng.integers(-1, 2, (rows, depth)).astype(left),
    }
    check(g, arrays, {"n": n}, 0.0, precision=precision)


TENSOR: list[tuple[Precision, str]] = [("bf16", "bfloat16"), ("f16", "float16")]


def conversions(ptx: str) -> list[int]:
    """How many there are to or from 16 bits in each kernel with products on the tensor cores."""
    kernels = [text for text in ptx.split(".visible .entry ") if "mma.sync" in text]
    assert kernels
    return [len(re.findall(r"cvt\.\S*f16", text)) for text in kernels]


@pytest.mark.parametrize(("precision", "dtype"), TENSOR)
def test_a_product_takes_what_is_rounded_already_as_it_lies(precision: Precision, dtype: str) -> None:
    """The same bits as of float32 arrays of the same numbers, and nothing is converted."""
    made = {}
    for stored in (dtype, "float32"):
        g = gc.Graph("product")
        n = g.axis("n")
        g.output("y", g.param("W", (40, 70), dtype=stored) @ g.input("x", (70,), over=n, dtype=stored))
        made[stored] = compiled(g, precision=precision), g
    arrays = arrays_of(made[dtype][1], n=33)
    low = made[dtype][0](**arrays)["y"]
    single = made["float32"][0](**{name: wide(array) for name, array in arrays.items()})["y"]
    assert low.tobytes() == single.tobytes()
    assert max(conversions(made[dtype][0].ptx)) == 0
    assert min(conversions(made["float32"][0].ptx)) > 0


@pytest.mark.parametrize(("precision", "dtype"), TENSOR)
def test_a_loop_takes_what_is_rounded_already_as_it_lies(precision: Precision, dtype: str) -> None:
    """The state alone is converted, where a step stores it."""
    made = {}
    for stored in (dtype, "float32"):
        g = gc.Graph("fed_back")
        t, n = g.axis("t"), g.axis("n")
        h = g.state("h", (32,), over=(t, n), initial=g.input("start", (32,), over=n, dtype=stored), dtype=stored)
        h[t] = gc.tanh(g.param("W", (32, 32), dtype=stored) @ h[t - 1] + g.input("x", (32,), over=(t, n)))
        g.output("y", gc.cast(h[t.last], dtype))
        made[stored] = compiled(g, precision=precision), g
    arrays, sizes = arrays_of(made[dtype][1], t=3, n=5), {"t": 3, "n": 5}
    single = made["float32"][0](**{name: wide(array) for name, array in arrays.items()})["y"]
    for chosen in ways(made[dtype][0], sizes):
        assert made[dtype][0].runner(arrays, chosen)["y"].tobytes() == single.tobytes()
    assert max(conversions(made[dtype][0].ptx)) <= 2
    assert min(conversions(made["float32"][0].ptx)) > 4


def test_neighbouring_elements_are_loaded_together() -> None:
    """As those of float32: eight of 16 bits in one instruction."""
    g = gc.Graph("product")
    batch = g.axis("n")
    g.output("y", g.param("w", (64, 64), dtype="bfloat16") @ g.input("x", (64,), over=batch, dtype="bfloat16"))
    assert gc.emit(g, target="cuda", precision="bf16").ptx.count("ld.global.nc.v4.b32") == 3


@settings(max_examples=4)
@given(testing.graphs(smooth=True, storing=True, dtype="float32"))
def test_random_graphs(example: testing.Example) -> None:
    g = gc.grad(example.graph, "loss", wrt=floating(example.graph))
    sizes = {**example.lengths, "n": len(example.arrays["label"][0])}
    check(g, example.arrays, sizes, 3e-2)


# Arrays of other libraries.


@pytest.mark.parametrize("dtype", STORED)
def test_arrays_go_through_dlpack(dtype: str) -> None:
    """Code 2 with 16 bits, or code 4; and back."""
    device = EmulatedDevice()
    array = np.arange(6).reshape(2, 3).astype(dtype)
    made = DeviceArray.copy_of(array, device)
    taken = SimpleNamespace(__dlpack_device__=made.__dlpack_device__, __dlpack__=made.__dlpack__)
    found = foreign("x", taken, device.stream)
    assert found is not None
    assert (found.dtype, found.shape, found.address, found.bytes) == (dtype, (2, 3), made.address, 12)
    np.testing.assert_array_equal(made.numpy(), array)


def test_the_cuda_array_interface_has_no_word_for_bfloat16() -> None:
    device = EmulatedDevice()
    half = DeviceArray.copy_of(np.zeros(3, np.float16), device)
    assert half.__cuda_array_interface__["typestr"] == "<f2"
    brain = DeviceArray.copy_of(np.zeros(3, ml_dtypes.bfloat16), device)
    assert not hasattr(brain, "__cuda_array_interface__")
    with pytest.raises(AttributeError, match="DLPack"):
        brain.__cuda_array_interface__  # noqa: B018
    opaque = {"shape": (3,), "typestr": "<V2", "data": (brain.address, False), "version": 3}
    with pytest.raises(ArgumentError, match=r"x is an array of <V2 .* no word for bfloat16; .* DLPack"):
        foreign("x", SimpleNamespace(__cuda_array_interface__=opaque), device.stream)
    both = SimpleNamespace(
        __cuda_array_interface__=opaque, __dlpack_device__=brain.__dlpack_device__, __dlpack__=brain.__dlpack__
    )
    found = foreign("x", both, device.stream)
    assert found is not None
    assert found.dtype == "bfloat16"


@pytest.mark.parametrize("dtype", STORED)
def test_calls_with_arrays_on_the_gpu(dtype: str) -> None:
    g = gc.Graph("there")
    n = g.axis("n")
    x, p = g.input("x", (8,), over=n, dtype=dtype), g.param("p", (8,), dtype=dtype)
    g.output("y", gc.cast(x * p, dtype))
    g.update(p, p * 0.7)
    arrays = arrays_of(g, n=5)
    f = compiled(g)
    there = {name: DeviceArray.copy_of(array, f.runner.device) for name, array in arrays.items()}
    found = f(**there)
    expected = gc.interpret(g, **arrays)
    np.testing.assert_array_equal(found["y"].numpy(), expected["y"])
    np.testing.assert_array_equal(there["p"].numpy(), arrays["p"])
    with pytest.raises(ArgumentError, match=f"x is an array of float32, expected {dtype}"):
        f(**{**there, "x": DeviceArray.copy_of(np.zeros((5, 8), np.float32), f.runner.device)})


@pytest.mark.parametrize("dtype", STORED)
def test_bound_and_frozen_calls(dtype: str) -> None:
    g = recurrent(True, 8, 3, x=dtype, weights=dtype, state=dtype)
    arrays = arrays_of(g, t=3, n=2)
    expected = compiled(g)(**arrays)
    weights = {name: arrays[name] for name in g.params}
    for found in (compiled(g).bind(**arrays)(), compiled(g).freeze(**weights)(x=arrays["x"])):
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


# NVIDIA's assembler.


@needs_ptxas
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: ".".join(kind.values()))
def test_kernels_assemble(kind: dict[str, str]) -> None:
    """For the oldest architecture, too."""
    for precision in ("float32", "bf16"):
        made = gc.emit(recurrent(True, 64, 16, **kind), target="cuda", arch="sm_80", precision=precision)
        ptxas.assemble(made.ptx, "sm_80")


@needs_ptxas
@pytest.mark.parametrize("kind", [KINDS[1], KINDS[3]], ids=lambda kind: ".".join(kind.values()))
def test_persistent_kernels_do_not_spill(kind: dict[str, str]) -> None:
    check_loops(gc.emit(recurrent(True, 256, 64, **kind), target="cuda", precision="bf16"))
