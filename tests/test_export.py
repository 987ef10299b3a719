"""export: what C programs compute with an object file and its header, and what the object asks of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from typer.testing import CliRunner

import graphc as gc
from graphc import checkpoint, testing
from graphc.codegen.cpu.c_function import c_function
from graphc.codegen.interpret_program import allocate, interpret
from graphc.codegen.memory.arena import arena
from graphc.codegen.passes.specialize import specialize
from graphc.codegen.target import Target
from graphc.codegen.verify_program import verify
from graphc.command_line.cli import app
from graphc.compiling.export import Exported
from graphc.errors import ArgumentError, AxisError
from graphc.pipeline.stages import stages

needs_c = pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler here")
needs_nm = pytest.mark.skipif(shutil.which("nm") is None, reason="nothing here reads symbols")


def listener(units: int = 20) -> gc.Graph:
    g = gc.Graph("listener")
    t, n = g.axis("t"), g.axis("n")
    h = gc.cells.lstm(g, g.input("x", (12,), over=(t, n)), units, over=t, name="cell").h
    g.output("p", gc.softmax(g.param("V", (5, units)) @ h))
    return g


@settings(max_examples=20)
@given(testing.graphs())
def test_a_program_of_known_sizes_computes_the_same(example: testing.Example) -> None:
    made = stages(gc.grad(example.graph, "loss", wrt="x"))
    sizes = {"n": len(example.arrays["label"].T), **example.lengths}
    known = specialize(made.program, {name: sizes[name] for name in made.program.sizes})
    verify(known)
    assert known.sizes == ()
    arrays = {**example.arrays, **made.lowered.constants}
    whole = allocate(made.program, {n: np.asarray(a).copy() for n, a in arrays.items()}, sizes)
    interpret(made.program, whole, sizes)
    found = allocate(known, {n: np.asarray(a).copy() for n, a in arrays.items()}, {})
    interpret(known, found, {})
    for name in made.lowered.outputs.values():
        np.testing.assert_array_equal(found[name], whole[name], err_msg=name)


def built(folder: Path, exported: Exported, main: str) -> str:
    """What a C program prints that is built with nothing but the object and the header."""
    exported.save(folder)
    (folder / "main.c").write_text(main, encoding="utf-8")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-nodefaultlibs", "-lc"]
    command = ["gcc", *flags, "-o", "main", "main.c", f"{exported.name}.o", "-lc"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    done = subprocess.run([folder / "main"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


STREAM = """
#include <stdio.h>
#include "listener_step.h"

static _Alignas(64) unsigned char workspace[LISTENER_STEP_WORKSPACE];
static float h[20], c[20], p[5];

int main(void) {
    float x[12];
    struct listener_step_arrays arrays = {x, h, c, p, workspace};
    for (int t = 0; t < 7; t++) {
        for (int k = 0; k < 12; k++) x[k] = (float)(t - 3) * 0.25f + (float)k * 0.125f;
        listener_step(&arrays);
        for (int k = 0; k < 5; k++) printf("%.9g ", p[k]);
    }
    return 0;
}
"""


@needs_c
def test_a_c_program_streams_what_the_interpreter_computes(tmp_path: Path) -> None:
    graph = listener()
    params = gc.initialize(graph, seed=1)
    x = (np.arange(7)[:, None, None] - 3) * 0.25 + np.arange(12) * 0.125
    expected = gc.interpret(graph, x=x.astype(np.float32), **params)["p"]
    exported = gc.export(gc.step(graph, over="t"), {"n": 1}, params)
    text = built(tmp_path, exported, STREAM.replace("_Alignas(64)", "__attribute__((aligned(64)))"))
    found = np.array(text.split(), np.float32).reshape(7, 1, 5)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


WHOLE = """
#include <stdio.h>
#include "trained.h"

static __attribute__((aligned(64))) unsigned char workspace[TRAINED_WORKSPACE];
static float x[WHAT], W[16], seen;
static int32_t step;
static int32_t lengths[3] = {4, 1, 2};

int main(void) {
    float loss, h[3 * 4];
    for (int k = 0; k < WHAT; k++) x[k] = (float)(k % 7) * 0.25f - 0.5f;
    for (int k = 0; k < 16; k++) W[k] = (float)(k % 5) * 0.125f;
    struct trained_arrays arrays = {ARRAYS, workspace};
    for (int k = 0; k < 3; k++) {
        trained(&arrays);
        printf("%.9g %.9g ", loss, seen);
    }
    for (int k = 0; k < 16; k++) printf("%.9g ", W[k]);
    for (int k = 0; k < 12; k++) printf("%.9g ", h[k]);
    return 0;
}
"""


def ragged() -> gc.Graph:
    g = gc.Graph("trained")
    n = g.axis("n")
    t = g.axis("t", g.input("lengths", (), over=n, dtype="int32"))
    h = g.state("h", (4,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (4, 4)) @ h[t - 1] + g.input("x", (4,), over=(t, n)))
    g.output("last", h[t.last])
    g.output("loss", gc.sum(gc.sum(h[t.last] ** 2), over=n))
    seen = g.param("seen", (), trainable=False, init="zeros")
    g.update(seen, seen + 1.0)
    return gc.training_step(g, "loss", gc.optim.SGD(lr=0.25))


@needs_c
def test_a_c_program_trains(tmp_path: Path) -> None:
    """Lengths that differ, params that are the caller's and change, and no constants."""
    step = ragged()
    exported = gc.export(step, {"t": 4, "n": 3}, name="trained")
    fields = [line.split("*")[1].split(";")[0] for line in exported.header.splitlines() if line.startswith("    ")]
    places = {"lengths": "lengths", "x": "x", "W": "W", "seen": "&seen", "loss": "&loss", "last": "h", "step": "&step"}
    text = WHOLE.replace("ARRAYS", ", ".join(places[name] for name in fields[:-1])).replace("WHAT", "48")
    found = np.array(built(tmp_path, exported, text).split(), np.float32)
    state = {name: np.zeros_like(array) for name, array in gc.initialize(step).items()}
    state["W"][...] = (np.arange(16) % 5 * 0.125).reshape(4, 4)
    x = (np.arange(48) % 7 * 0.25 - 0.5).reshape(4, 3, 4).astype(np.float32)
    run, expected = gc.compile(step), []
    for _ in range(3):
        results = run(x=x, lengths=np.array([4, 1, 2], np.int32), **state)
        expected += [results["loss"], state["seen"].copy()]
    np.testing.assert_allclose(found[:6], expected, rtol=1e-5)
    np.testing.assert_allclose(found[6:22], state["W"].ravel(), rtol=1e-5)
    np.testing.assert_allclose(found[22:], results["last"].ravel(), rtol=1e-5)


LEARN = """
#include <stdio.h>
#include "learner_memory.h"

int main(void) {
    for (int k = 0; k < 40; k++) {
        learner_x[0] = (float)(k % 5) * 0.25f;
        learner(&learner_memory);
        printf("%.9g ", learner_loss[0]);
    }
    return 0;
}
"""


def learner() -> tuple[gc.Graph, dict[str, np.ndarray]]:
    """A network that learns at each step, and its arrays as they are at first."""
    g = gc.Graph("learner")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (1,), over=(t, n))
    h = gc.cells.gru(g, x[t - 1], 4, over=t, initial=gc.tanh(g.param("h0", (4,), init=1.0))).h
    y = g.param("V", (1, 4), dtype="bfloat16") @ h
    g.output("loss", gc.mean(gc.sum((y - x) ** 2), over=n))
    forward = gc.rtrl(g, "loss")
    step = gc.step(forward, over=t)
    learn = gc.training_step(step, {p: f"grad_{p}" for p in g.params}, gc.optim.Adam(1e-2))
    state = gc.initialize(learn, seed=0)
    return learn, state | gc.initial_carry(forward, over=t, n=1, h0=state["h0"])


@needs_c
def test_a_c_program_learns_while_it_runs(tmp_path: Path) -> None:
    """From memory that its headers bring; what begins at 0 takes no room in the file."""
    learn, start = learner()
    exported = gc.export(learn, {"n": 1}, name="learner")
    paths = exported.save(tmp_path, start)
    assert [path.name for path in paths] == ["learner.h", "learner.o", "learner_memory.h"]
    text = exported.memory(start)
    assert "static float learner_mean_gru_U_r[16];" in text
    assert re.search(r"static uint16_t learner_x?_?V\[4\] = {\n", text)
    found = np.array(built(tmp_path, exported, LEARN).split(), np.float32)
    x = np.zeros((1, 1), np.float32)
    call, expected = gc.compile(learn).bind(x=x, **start), []
    for k in range(40):
        x[...] = k % 5 * 0.25
        expected.append(call()["loss"].copy())
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert expected[-1] < expected[4]


@needs_c
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int32", "bool"])
def test_memory_holds_every_number(dtype: str, tmp_path: Path) -> None:
    values = np.array([0, 1, -1, 2.5, 0.1, 3e4, 1e-5, -7], np.float32).astype(np.dtype(dtype))
    if dtype == "int32":
        values[3:5] = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    elif dtype != "bool":
        values[3:6] = np.inf, -np.inf, np.nan
    g = gc.Graph("kept")
    held = g.param("held", (8,), dtype=dtype, init="zeros", trainable=False)
    g.output("same", held)
    exported = gc.export(g)
    exported.save(tmp_path, {"held": values})
    size = values.dtype.itemsize
    main = f"""
#include <stdio.h>
#include "kept_memory.h"

int main(void) {{
    const unsigned char *bytes = (const unsigned char *)kept_held;
    kept(&kept_memory);
    for (int k = 0; k < 8 * {size}; k++) printf("%d ", bytes[k]);
    return 0;
}}
"""
    found = np.array(built(tmp_path, exported, main).split(), np.uint8).view(values.dtype)
    np.testing.assert_array_equal(found.astype(np.float64), values.astype(np.float64))


def test_memory_for_no_points_is_no_array_of_none() -> None:
    """C has none; nothing reads or writes the one element."""
    exported = gc.export(listener(), {"t": 3, "n": 0})
    text = exported.memory(gc.initialize(listener()))
    assert "[1];" in text
    assert "[0]" not in re.sub(r"/\*.*?\*/", "", text)


def test_memory_needs_what_a_call_changes() -> None:
    learn, start = learner()
    exported = gc.export(learn, {"n": 1}, name="learner")
    with pytest.raises(ArgumentError, match=r"no array for input gru_h_back1: float32\[1\]\[4\].*gc.initial_carry"):
        exported.memory({name: array for name, array in start.items() if name != "gru_h_back1"})
    with pytest.raises(ArgumentError, match=r"float32\[5\] was given for param gru_b_r: float32\[4\]"):
        exported.memory(start | {"gru_b_r": np.zeros(5, np.float32)})


@needs_c
def test_the_header_is_c_plus_plus_too(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler here")
    gc.export(listener(), {"t": 3, "n": 2}).save(tmp_path, gc.initialize(listener()))
    main = '#include "listener_memory.h"\nint main() { listener(&listener_memory); return 0; }\n'
    (tmp_path / "main.cpp").write_text(main, encoding="utf-8")
    subprocess.run(["g++", "-Wall", "-Werror", "-fsyntax-only", "main.cpp"], cwd=tmp_path, check=True, timeout=60)


PROCESSORS = {
    "this one": (None, "", ""),
    "x86": ("x86_64-unknown-linux-gnu", "", ""),
    "AVX2": ("x86_64-unknown-linux-gnu", "x86-64-v3", ""),
    "Arm 64": ("aarch64-unknown-linux-gnu", "", ""),
    "Cortex-M4": ("thumbv7em-none-eabihf", "cortex-m4", ""),
    "Cortex-M7": ("thumbv7em-none-eabihf", "cortex-m7", ""),
    "RISC-V 32": ("riscv32-unknown-elf", "generic-rv32", "+m,+f"),
    "RISC-V 64": ("riscv64-unknown-elf", "generic-rv64", "+m,+f,+d"),
}


@needs_nm
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("graph", [gc.step(listener(), over="t"), ragged()], ids=lambda graph: graph.name)
def test_objects_ask_for_nothing_but_their_arrays(graph: gc.Graph, processor: str, tmp_path: Path) -> None:
    triple, arch, features = PROCESSORS[processor]
    lengths = {name: 3 for name, axis in graph.axes.items() if not isinstance(axis.length, int)}
    exported = gc.export(graph, lengths, triple=triple, arch=arch, features=features)
    _, code = exported.save(tmp_path)
    asked = subprocess.run(["nm", "--undefined-only", code], capture_output=True, text=True, check=True, timeout=60)
    assert asked.stdout == ""
    brought = subprocess.run(["nm", "--extern-only", code], capture_output=True, text=True, check=True, timeout=60)
    assert [line.split()[-1] for line in brought.stdout.splitlines()] == [exported.name]


@needs_nm
@pytest.mark.parametrize(
    ("function", "dtype", "processor", "asks"),
    [
        (gc.sin, "float32", "Cortex-M4", True),  # in doubles, which it lacks
        (lambda x: gc.abs(x) ** 1.7, "float32", "Cortex-M4", True),
        (gc.tanh, "float64", "Cortex-M4", True),
        *((f, "float32", "Cortex-M4", False) for f in (gc.tanh, gc.exp, gc.log, gc.sqrt, gc.erf, gc.softmax, gc.floor)),
        *((f, dtype, "Arm 64", False) for f in (gc.sin, gc.exp, gc.sqrt) for dtype in ("float32", "float64")),
    ],
)
def test_what_a_processor_lacks_is_asked_of_the_c_compiler(
    function: Callable[..., gc.Value], dtype: str, processor: str, asks: bool, tmp_path: Path
) -> None:
    g = gc.Graph("one", dtype=dtype)
    g.output("y", function(g.input("x", (70,))))
    triple, arch, features = PROCESSORS[processor]
    _, code = gc.export(g, triple=triple, arch=arch, features=features).save(tmp_path)
    command = ["nm", "--undefined-only", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    asked = {word for word in found if word != "U"}
    assert bool(asked) == asks
    assert all(name.startswith("__aeabi_") or name == "sqrt" for name in asked), asked


@pytest.mark.parametrize(
    ("triple", "second"),
    [
        ("thumbv7em-none-eabihf", r"ldr\S*\s+r\d+, \[r0, #4\]|ldrd?\s+r\d+, r\d+, \[r0\]|ldm\S*\s+r0"),
        ("wasm32", r"i32.load\s+4|i32.const\s+4\s+i32.add\s+i32.load"),
    ],
)
def test_pointers_are_as_wide_as_the_processor_has_them(triple: str, second: str) -> None:
    """The second array's address stands right after the first's."""
    g = gc.Graph("sum")
    g.output("y", g.input("a", ()) + g.input("b", ()))
    assert re.search(second, gc.export(g, triple=triple).assembly)


def test_a_triple_without_a_vendor_is_what_compilers_take_it_for() -> None:
    """In Arm's, that numbers are passed in registers: a linker refuses an object that says otherwise."""
    assert Target("thumbv7em-none-eabihf").triple == "thumbv7em-unknown-none-eabihf"
    assert Target("aarch64-linux-gnu").triple == "aarch64-unknown-linux-gnu"
    for triple in ("wasm32", "wasm32-unknown-unknown", "x86_64-pc-windows-msvc", "arm64-apple-darwin23.1.0"):
        assert Target(triple).triple == triple
    hard = ".eabi_attribute\t28, 1"  # Tag_ABI_VFP_args
    assert hard in gc.export(listener(), {"t": 1, "n": 1}, triple="thumbv7em-none-eabihf", arch="cortex-m4").assembly


def test_web_assembly_imports_nothing() -> None:
    exported = gc.export(gc.step(listener(), over="t"), {"n": 1}, triple="wasm32-unknown-unknown")
    assert exported.object[:4] == b"\0asm"
    assert ".import_module" not in exported.assembly


def test_params_are_in_the_object_and_not_among_the_arrays() -> None:
    graph = gc.step(listener(), over="t")
    params = gc.initialize(listener(), seed=0)
    without, with_all = gc.export(graph, {"n": 1}), gc.export(graph, {"n": 1}, params)
    weights = sum(array.nbytes for array in params.values())
    assert with_all.constants >= weights > without.constants
    assert len(with_all.object) > weights
    for name in params:
        assert f"*{name};" in without.header
        assert name not in with_all.header


def test_an_object_holds_nothing_that_lay_in_memory_before() -> None:
    """Rows of laid-out weights that nothing is stored to are zeros, whatever the memory held."""
    g = gc.Graph("wide")
    n = g.axis("n")
    g.output("y", g.param("W", (64, 128)) @ g.input("x", (128,), over=n))
    params, objects = gc.initialize(g, seed=0), set()
    for what in (1, 2):
        junk = [np.full(64 * 128 + 4096, what, np.float32) for _ in range(50)]
        del junk
        objects.add(gc.export(g, {"n": 1}, params).object)
    assert len(objects) == 1


def test_names_that_c_cannot_have_are_changed() -> None:
    g = gc.Graph("odd")
    n = g.axis("n")
    value = g.input("größe", (2,), over=n) + g.input("int", (2,), over=n) + g.input("workspace", (2,), over=n)
    value = value + g.input("this", (2,), over=n)  # the header is for C++, too
    g.output("whole", value)
    g.output("static", 2 * value)
    g.output("also", value)
    header = gc.export(g, {"n": 4}, name="odd").header
    names = [line.split("*")[1].split(";")[0] for line in header.splitlines() if line.startswith("    ")]
    assert len(names) == len(set(names))
    assert all(name.isascii() and name.isidentifier() for name in names)
    assert {"gr__e", "_int", "_static", "_this", "workspace_"} <= set(names)
    assert "output whole, also: float32[4][2]" in header


def test_mistakes_are_named() -> None:
    graph = gc.step(listener(), over="t")
    with pytest.raises(gc.GraphError, match="n=…"):
        gc.export(graph)
    with pytest.raises(gc.GraphError, match="'my-model' is no name of a C function"):
        gc.export(graph, {"n": 1}, name="my-model")
    with pytest.raises(gc.GraphError, match="'while'"):
        gc.export(graph, {"n": 1}, name="while")
    with pytest.raises(gc.GraphError, match="'namespace'"):
        gc.export(graph, {"n": 1}, name="namespace")
    with pytest.raises(gc.GraphError, match="not W"):
        gc.export(graph, {"n": 1}, {"W": np.zeros((2, 2))})


def test_constants_keep_every_bit() -> None:
    """Not numbers, infinities, and every byte that a string could end at."""
    program = specialize(stages(listener()).program, {"t": 1, "n": 1})
    odd = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    weights = {"V": np.resize(odd, (5, 20))}
    text = c_function(program, weights, arena(program, {}).offsets, "f", Target.host())
    assert "\\00\\00\\c0\\7f\\00\\00\\80\\7f\\00\\00\\00\\80\\01\\00\\00\\00" in text


MODEL = """
import graphc as gc

def graph() -> gc.Graph:
    g = gc.Graph("model")
    t, n = g.axis("t"), g.axis("n")
    h = g.state("h", (4,), over=(t, n))
    h[t] = gc.tanh(g.param("W", (4, 4)) @ h[t - 1] + g.input("x", (4,), over=(t, n)))
    g.output("p", gc.softmax(h))
    g.output("loss", gc.mean(gc.sum(h * h), over=(t, n)))
    return g
"""


def test_the_command_exports_a_checkpoint(tmp_path: Path) -> None:
    path, trained, folder = tmp_path / "model.py", tmp_path / "trained.safetensors", tmp_path / "build"
    path.write_text(MODEL, encoding="utf-8")
    checkpoint.save(trained, {"W": np.ones((4, 4), np.float32), "momentum_W": np.zeros((4, 4), np.float32)})
    kept = ["export", str(path), "--select", "p", "--step", "t", "--length", "n=1", "-o", str(folder)]
    done = CliRunner().invoke(app, [*kept, "--params", str(trained), "--name", "model"])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in folder.iterdir()) == ["model.h", "model.o"]
    assert "*W;" not in (folder / "model.h").read_text(encoding="utf-8")
    checkpoint.save(trained, {"V": np.ones((4, 4), np.float32)})
    failed = CliRunner().invoke(app, [*kept, "--params", str(trained)])
    assert "has no W; it has V" in str(failed.exception)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"triple": "pdp11"}, "no code can be made for triple='pdp11'"),
        ({"triple": ""}, "no code can be made for triple=''"),
        ({"triple": "x86_64-linux-gnu", "arch": "skylacke"}, "'skylacke' is not a recognized processor"),
        ({"triple": "aarch64-linux-gnu", "features": "+nein"}, r"'\+nein' is not a recognized feature"),
        ({"arch": "skylacke"}, "'skylacke' is not a recognized processor"),
        ({"triple": "aarch64-linux-gnu", "features": "neon"}, r"write '\+neon'"),
        ({"triple": "s390x-linux-gnu"}, "high byte first"),
        ({"triple": "nvptx64-nvidia-cuda"}, "target='cuda'"),
        ({"triple": "bpf"}, "no processor that a C function is made for"),
        # What would be read as more than a name, by LLVM or by a C compiler.
        ({"triple": 'x86_64-linux-gnu"\nmodule asm "nop'}, "no name of LLVM's"),
        ({"triple": "x86_64-linux-gnu*/ int more; /*"}, "no name of LLVM's"),
        ({"triple": "x86_64-linux-gnu\0"}, "no name of LLVM's"),
        ({"triple": "x86_64-linux-gnu", "arch": 'x86-64" "y"="'}, "no name of LLVM's"),
        ({"features": '+avx2" "y"="'}, "no name of LLVM's"),
        ({"triple": b"x86_64"}, "no name of LLVM's"),
    ],
)
def test_processors_that_llvm_does_not_know_are_refused_before_it_sees_them(
    options: dict[str, str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """LLVM would end the process over some of them, and overlook the others."""
    for make in (lambda: gc.export(listener(), {"t": 1, "n": 1}, **options), lambda: gc.emit(listener(), **options)):
        with pytest.raises(gc.GraphError, match=expected):
            make()
    assert not capfd.readouterr().err


@pytest.mark.parametrize("lengths", [{"t": 2.0, "n": 1}, {"t": True, "n": 1}, {"t": 2**60, "n": 1}, 3])
def test_lengths_are_whole_numbers_by_name(lengths: object) -> None:
    with pytest.raises(AxisError, match="lengths"):
        gc.export(listener(), lengths)


def test_what_a_processor_cannot_address_is_refused() -> None:
    with pytest.raises(ArgumentError, match="addresses have 32 bits"):
        gc.export(listener(), {"t": 2**26, "n": 1}, triple="thumbv7em-none-eabihf", arch="cortex-m4")
    with pytest.raises(ArgumentError, match="addresses have 16 bits"):
        gc.export(listener(), {"t": 1000, "n": 1}, triple="msp430")
    with pytest.raises(ArgumentError, match="addresses have 64 bits"):
        gc.export(listener(), {"t": 2**31 - 1, "n": 2**31 - 1})


@pytest.mark.parametrize(
    "name",
    [
        "main",
        "int32_t",
        "_Bool",
        "__x",
        "unix",
        "NULL",
        "INT32_MAX",
        "errno",
        "memcpy",
        "tanhf",
        "free",
        "gamma",
        "read",
    ],
)
def test_names_that_c_keeps_for_itself_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="no name of a C function"):
        gc.export(listener(), {"t": 1, "n": 1}, name=name)


@needs_c
def test_arrays_may_have_names_that_c_or_the_header_keeps(tmp_path: Path) -> None:
    g = gc.Graph("names")
    t = g.axis("t")
    names = ("_Bool", "_Alignas", "__attribute__", "int32_t", "NAMES_H", "NAMES_WORKSPACE", "x_Bool")
    g.output("sum", sum(g.input(name, (), over=t) for name in names))
    main = '#include "names.h"\nint main(void) { return sizeof(struct names_arrays) == 8 * sizeof(void *) ? 0 : 1; }\n'
    built(tmp_path, gc.export(g, {"t": 1}), main)


MACROS = ("linux", "unix", "INT32_MAX", "UINT_FAST8_MAX", "SIZE_MAX", "NULL", "EOF", "errno", "stdin", "I", "complex")
MACROS += ("M_PI", "INFINITY", "RAND_MAX", "INT_MAX", "CHAR_BIT", "FLT_MAX", "SIGINT", "EDOM", "EXIT_FAILURE", "FP_NAN")
MACROS += ("M_SQRT2", "M_PI_2", "EIO", "ENOENT", "SIGKILL", "WEOF", "PRIu64", "SCNxPTR")
HEADERS = ("assert", "complex", "errno", "fenv", "float", "inttypes", "limits", "locale", "math", "signal", "stdalign")
HEADERS += ("stdbool", "stddef", "stdint", "stdio", "stdlib", "string", "tgmath", "time", "wchar", "unistd")


@needs_c
@pytest.mark.parametrize("standard", ["c99", "gnu11"])
def test_a_header_may_come_after_all_others(standard: str, tmp_path: Path) -> None:
    """What those define as macros may be names of arrays."""
    g = gc.Graph("after")
    t = g.axis("t")
    g.output("sum", sum(g.input(name, (), over=t) for name in MACROS))
    gc.export(g, {"t": 1}).save(tmp_path)
    main = "".join(f"#include <{name}.h>\n" for name in HEADERS) + '#include "after.h"\n'
    (tmp_path / "main.c").write_text(main, encoding="utf-8")
    flags = [f"-std={standard}", "-Wall", "-Werror", "-fsyntax-only"]
    subprocess.run(["gcc", *flags, "main.c"], cwd=tmp_path, check=True, timeout=60)


def test_the_block_is_a_multiple_of_what_it_is_aligned_to() -> None:
    """`aligned_alloc` asks for that."""
    exported = gc.export(listener(19), {"t": 3, "n": 1})
    assert exported.workspace
    assert exported.workspace % 64 == 0
    assert f"WORKSPACE {exported.workspace}\n" in exported.header
