"""float16 and bfloat16 in memory: every conversion against numpy's, on machines with instructions for it and without,
and every kind of access, loop or reduction of `tests.test_cpu` on buffers of such dtypes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from graphc.codegen.cpu.jit import emit
from graphc.codegen.program import Kernel, Program, Store, kernels
from graphc.codegen.target import Target
from graphc.scalar import STORED, call, holds, nearest
from tests.test_cpu import (
    HOST,
    PROGRAMS,
    TARGETS,
    U,
    at,
    check,
    dims,
    every_function,
    indices,
    program,
    recurrence,
    run,
    u,
)

NUMPY = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def bits(array: np.ndarray) -> np.ndarray:
    """The bit patterns, where every NaN is one."""
    unsigned = np.ascontiguousarray(array).view({2: np.uint16, 4: np.uint32}[array.itemsize])
    return np.where(np.isnan(wide(array)), unsigned.dtype.type(-1 & (2 ** (8 * array.itemsize) - 1)), unsigned)


def wide(array: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a NaN that signals
        return array.astype(np.float32)


def every(dtype: str) -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(NUMPY[dtype])


def numbers(dtype: str) -> np.ndarray:
    """All finite ones, in order."""
    found = wide(every(dtype))
    return np.sort(found[np.isfinite(found)].astype(np.float64))


def around_boundaries(dtype: str) -> np.ndarray:
    """Each number of the dtype, and what lies halfway to the next, with float32's neighbours on both sides of each;
    what is larger than all of them; NaNs of several payloads; denormals of float32; and any bits."""
    finite = numbers(dtype)
    largest = finite[-1]
    halfway = (finite[1:] + finite[:-1]) / 2
    beyond = largest + (finite[-1] - finite[-2]) / 2  # rounds to infinity, as it is even
    with np.errstate(over="ignore"):
        exact = np.concatenate([finite, halfway, [beyond, -beyond, 2 * largest, -2 * largest, np.inf, -np.inf]])
        exact = exact.astype(np.float32)
    near = [np.nextafter(exact, np.float32(towards)) for towards in (-np.inf, np.inf)]
    special = np.array(
        [0x7F800001, 0x7F80FFFF, 0xFFC00000, 0x7FFFFFFF, 1, 0x80000001, 0x007FFFFF, 0x80008000], np.uint32
    )
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 1 << 17, np.uint32, endpoint=False)
    return np.concatenate([exact, *near, special.view(np.float32), drawn.view(np.float32)])


def copied(source: str, target: str, rounding: str = "") -> Program:
    value = at("x", u)
    kernel = Kernel("copy", dims(u=U), (), (Store("y", (u,), call(rounding, value) if rounding else value),))
    return program([("input", "x", source, (U,)), ("output", "y", target, (U,))], kernel)


def converted(x: np.ndarray, made: Program, target: Target) -> np.ndarray:
    y = np.zeros(x.shape, NUMPY.get(made.buffer("y").dtype, np.float32))
    run(made, {"x": np.ascontiguousarray(x), "y": y}, {"N": 0, "U": len(x), "K": 0, "T": 0}, target)
    return y


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", STORED)
def test_every_number_is_loaded(dtype: str, target: str) -> None:
    """Whatever the length of the last vector: of one element, too."""
    x = every(dtype)
    found = converted(x, copied(dtype, "float32"), TARGETS[target])
    np.testing.assert_array_equal(bits(found), bits(wide(x)))
    for count in (1, 3, 15, 17, 31):
        np.testing.assert_array_equal(
            bits(converted(x[-count:], copied(dtype, "float32"), TARGETS[target])), bits(wide(x[-count:]))
        )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", STORED)
def test_stores_round_to_the_nearest(dtype: str, target: str) -> None:
    x = around_boundaries(dtype)
    expected = nearest(x, dtype)
    np.testing.assert_array_equal(bits(converted(x, copied("float32", dtype), TARGETS[target])), bits(expected))
    rounded = converted(x, copied("float32", "float32", f"round.{dtype}"), TARGETS[target])
    np.testing.assert_array_equal(bits(rounded), bits(wide(expected)))


@pytest.mark.parametrize("dtype", STORED)
def test_nearest_is_the_nearest(dtype: str) -> None:
    """The oracle itself: of the two neighbours in the dtype, the closer one, and at a tie the even one."""
    ordered = numbers(dtype)
    x = around_boundaries(dtype)
    x = x[np.abs(x) < ordered[-1]].astype(np.float64)
    above = ordered[np.searchsorted(ordered, x)]
    below = ordered[np.searchsorted(ordered, x, side="right") - 1]
    found = nearest(x.astype(np.float32), dtype)
    even = found.view(np.uint16) % 2 == 0
    gap = np.abs(found.astype(np.float64) - x)
    assert (gap <= np.minimum(above - x, x - below)).all()
    assert even[(above - x == x - below) & (above != below)].all()


def stored(made: Program, dtype: str) -> Program:
    """The program with all of its float32 buffers of another dtype that only stores, but those that are added to."""
    added = {s.buffer for kernel in kernels(made.body) for s in kernel.stores if s.accumulate}
    buffers = tuple(
        replace(b, dtype=dtype) if b.dtype == "float32" and b.name not in added else b for b in made.buffers
    )
    return replace(made, buffers=buffers)


def sizes() -> Iterator[dict[str, int]]:
    for n, u_, k, t in [(1, 1, 1, 1), (3, 17, 5, 2), (7, 33, 16, 3), (2, 64, 9, 4), (9, 5, 40, 1)]:
        yield {"N": n, "U": u_, "K": k, "T": t}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, dtype: str, target: str) -> None:
    made = stored(PROGRAMS[name], dtype)
    known = {b.name for b in made.buffers}
    for chosen in sizes():
        if name == "triangle by row":
            chosen = chosen | {"N": min(chosen["N"], chosen["K"])}
        given = {key: array for key, array in indices(chosen).items() if key in known}
        for at_end in (False, True):
            check(made, chosen, given, TARGETS[target], tolerance=2.0**-7, at_end=at_end)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("initial", [False, True])
def test_recurrence(dtype: str, ring: bool, initial: bool) -> None:
    """What a step reads before the first one is an element of memory, too; or no number of the dtype at all."""
    made = stored(recurrence(False, ring, initial, 1), dtype)
    for rows, units, steps in [(1, 3, 5), (7, 33, 4), (2, 16, 1)]:
        check(made, {"N": rows, "U": units, "K": 0, "T": steps}, tolerance=2.0**-6)


def test_what_memory_holds() -> None:
    assert holds("bfloat16", 0.5)
    assert not holds("bfloat16", 0.1)
    assert holds("float16", float("-inf"))
    assert not holds("float16", 65536.0)
    assert holds("float32", 0.1)


TRIPLES = {
    "sse2": Target("x86_64-unknown-linux-gnu", "x86-64"),
    "avx2": Target("x86_64-unknown-linux-gnu", "x86-64-v3"),
    "avx512": Target("x86_64-unknown-linux-gnu", "skylake-avx512"),
    "neon": Target("aarch64-unknown-linux-gnu"),
    "cortex-m": Target("thumbv7em-none-eabi", "cortex-m7"),
    "riscv": Target("riscv64-unknown-linux-gnu", "generic-rv64", "+m,+f,+d"),
    "wasm": Target("wasm32-unknown-unknown"),
}


LIBRARY = (b"extendhf", b"truncsf", b"truncdf", b"gnu_h2f", b"gnu_f2h", b"aeabi_h2f", b"aeabi_f2h")


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("name", TRIPLES)
def test_no_library_converts(name: str, dtype: str, tmp_path: Path) -> None:
    """Nor computes: LLVM may narrow an operation between two conversions."""
    path = tmp_path / "code.o"
    programs = [copied(dtype, "float32"), copied("float32", dtype), copied("float32", "float32", f"round.{dtype}")]
    for made in (*programs, stored(every_function(), dtype)):
        code = emit(made, TRIPLES[name]).object
        path.write_bytes(code)
        assert not [function for function in LIBRARY if function in code]
        if code[:4] == b"\x7fELF" and (made in programs or name in ("sse2", "avx2", "avx512", "neon")):
            assert not symbols(path)


@pytest.mark.parametrize(("name", "instruction"), [("avx2", "vcvtph2ps"), ("avx512", "vcvtps2ph"), ("neon", "fcvtl")])
def test_machines_with_instructions_use_them(name: str, instruction: str) -> None:
    assembly = emit(stored(PROGRAMS["gates"], "float16"), TRIPLES[name]).assembly
    assert instruction in assembly


def symbols(path: Path) -> set[str]:
    """What an object leaves to others."""
    listed = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in listed.stdout.splitlines()}


def test_the_host_is_tested_both_ways() -> None:
    """Where the host is an x86 with float16 instructions, one target goes without."""
    if HOST.is_x86 and HOST.has_half:
        assert any(not target.has_half for target in TARGETS.values())
