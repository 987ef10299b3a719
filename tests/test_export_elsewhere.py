"""export for other processors: what their code computes, under QEMU or in Node, where those are at hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import testing
from graphc.compiling.export import Exported


@dataclass(frozen=True)
class Machine:
    """A processor; what links a C program for it, and what runs that here."""

    triple: str
    arch: str
    features: str
    link: tuple[str, ...]
    run: tuple[str, ...]


M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-nostartfiles", "-Wl,-Tboard.ld")
BOARD = (
    *("qemu-system-arm", "-M", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"),
    *("-chardev", "stdio,id=out", "-semihosting-config", "enable=on,chardev=out", "-kernel"),
)
MACHINES = {
    "Arm 64": Machine("aarch64-unknown-linux-gnu", "", "", ("aarch64-linux-gnu-gcc", "-static"), ("qemu-aarch64",)),
    "Arm 32, NEON": Machine(
        "armv7-unknown-linux-gnueabihf", "cortex-a9", "+neon", ("arm-linux-gnueabihf-gcc", "-static"), ("qemu-arm",)
    ),
    "Cortex-M4": Machine("thumbv7em-none-eabihf", "cortex-m4", "", ("arm-none-eabi-gcc", *M4), BOARD),
    "RISC-V 64": Machine(
        "riscv64-unknown-linux-gnu",
        "generic-rv64",
        "+m,+a,+f,+d",
        ("riscv64-linux-gnu-gcc", "-static"),
        ("qemu-riscv64",),
    ),
    "RISC-V 64, vectors": Machine(
        "riscv64-unknown-linux-gnu",
        "generic-rv64",
        "+m,+a,+f,+d,+v",
        ("riscv64-linux-gnu-gcc", "-static"),
        ("qemu-riscv64", "-cpu", "rv64,v=true,vlen=128"),
    ),
    "WebAssembly": Machine("wasm32-unknown-unknown", "", "", ("wasm-ld",), ("node",)),
    "WebAssembly, vectors": Machine("wasm32-unknown-unknown", "", "+simd128", ("wasm-ld",), ("node",)),
}


def machine(name: str) -> Machine:
    found = MACHINES[name]
    for command in (found.link[0], found.run[0]):
        if shutil.which(command) is None:
            pytest.skip(f"there is no {command} here")
    return found


@dataclass(frozen=True)
class Field:
    """An array of the function's: the name in C, what it is in the graph, and its type."""

    place: str
    name: str
    given: bool
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def fields(exported: Exported) -> list[Field]:
    found = re.findall(r"\*(\w+); /\* (\w+) ([^:]+): (\w+)((?:\[\d+\])*)", exported.header)
    return [
        Field(place, name.split(", ")[0], kind != "output", dtype, tuple(map(int, re.findall(r"\d+", shape))))
        for place, kind, name, dtype, shape in found
    ]


def called(on: Machine, exported: Exported, arrays: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """The outputs of one call there."""
    exported.save(folder)
    known = fields(exported)
    memory = {f.place: np.ascontiguousarray(arrays[f.name]).tobytes() if f.given else bytes(f.size) for f in known}
    run = _in_node if on.run == ("node",) else _in_c
    lines = run(on, exported, known, memory, folder).split()
    outputs = [f for f in known if not f.given]
    return {
        f.name: np.frombuffer(bytes.fromhex(line), f.dtype).reshape(f.shape)
        for f, line in zip(outputs, lines, strict=True)
    }


def _linked(on: Machine, main: str, exported: Exported, folder: Path) -> str:
    """What a C program prints there."""
    put = PUT if on.run == BOARD else "#include <stdio.h>\n#define put putchar\n"
    (folder / "board.ld").write_text(LAYOUT, encoding="utf-8")
    (folder / "main.c").write_text(put + main, encoding="utf-8")
    standard = ("-std=c11", "-Wall", "-Werror", "-o", "main", "main.c", f"{exported.name}.o")
    subprocess.run([*on.link, *standard], cwd=folder, check=True, timeout=60)
    return _printed([*on.run, "./main"], folder)


def _in_c(on: Machine, exported: Exported, known: list[Field], memory: dict[str, bytes], folder: Path) -> str:
    aligned, name = "static __attribute__((aligned(64))) unsigned char", exported.name
    text = [f'#include "{name}.h"']
    text += [f"{aligned} of_{place}[] = {{{', '.join(map(str, data)) or 0}}};" for place, data in memory.items()]
    text += [f"{aligned} block[{exported.workspace + 1}];", "int main(void) {"]
    places = [f"(void *)of_{place}" for place in memory] + ["block"] * bool(exported.workspace)
    text += [f"    static const struct {name}_arrays arrays = {{{', '.join(places)}}};", f"    {name}(&arrays);"]
    for f in known:
        if not f.given:
            digits = (f'put("0123456789abcdef"[of_{f.place}[k] {half}]);' for half in (">> 4", "& 15"))
            text += [f"    for (unsigned k = 0; k < {f.size}; k++) {{ {' '.join(digits)} }}", "    put('\\n');"]
    return _linked(on, "\n".join([*text, "    return 0;", "}", ""]), exported, folder)


# A board without a system: where its memory lies, how it starts, and how its debugger is asked to print and to stop.
LAYOUT = """\
MEMORY { code (rx) : ORIGIN = 0, LENGTH = 4M  data (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } > code
  .data : { *(.data*) } > data
  .bss : { *(.bss*) *(COMMON) } > data
}
"""
PUT = """
static void ask(int what, const void *about) {
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = about;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
static void put(char c) { ask(3, &c); }
int main(void);
static void start(void) {
    *(volatile unsigned *)0xe000ed88 |= 0xf << 20; /* lets the floating-point unit run */
    main();
    ask(0x18, (void *)0x20026);
}
__attribute__((section(".vectors"), used)) static void *const vectors[] = {(void *)0x20400000, (void *)start};
"""


NODE = """\
const fs = require("fs");
const { name, known, memory, workspace } = JSON.parse(fs.readFileSync("call.json"));
const code = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync("main.wasm"))).exports;
let end = code.__heap_base.value;
const place = (size) => { end = (end + 63) & ~63; const here = end; end += size; return here; };
const at = memory.map((hex) => place(hex.length / 2)), block = place(workspace), table = place(4 * (at.length + 1));
code.memory.grow((end >> 16) + 1);
const bytes = new Uint8Array(code.memory.buffer), words = new Uint32Array(code.memory.buffer);
memory.forEach((hex, k) => bytes.set(Buffer.from(hex, "hex"), at[k]));
words.set([...at, block], table / 4);
code[name](table);
known.forEach((given, k) => given || console.log(
  Buffer.from(bytes.slice(at[k], at[k] + memory[k].length / 2)).toString("hex")));
"""


def _in_node(on: Machine, exported: Exported, known: list[Field], memory: dict[str, bytes], folder: Path) -> str:
    call = {
        "name": exported.name,
        "known": [f.given for f in known],
        "memory": [data.hex() for data in memory.values()],
        "workspace": exported.workspace,
    }
    (folder / "call.json").write_text(json.dumps(call), encoding="utf-8")
    (folder / "main.cjs").write_text(NODE, encoding="utf-8")
    exported_names = [f"--export={exported.name}", "--export=__heap_base", "--no-entry"]
    command = [*on.link, *exported_names, "-o", "main.wasm", f"{exported.name}.o"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    return _printed([*on.run, "main.cjs"], folder)


def _printed(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_step(name: str, dtype: str, tmp_path: Path) -> None:
    """Products of every tail, loops in both directions, exponentials, and a softmax."""
    on = machine(name)
    g = gc.Graph("net", dtype=dtype)
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (5,), over=(t, n))
    h = gc.cells.bidirectional(g, x, gc.cells.lstm, 19, over=t).h
    scores = g.param("V", (3, 38)) @ h[t.last]
    g.output("loss", gc.mean(gc.cross_entropy(scores, g.input("y", (), over=n, dtype="int32")), over=n))
    g.output("p", gc.softmax(scores))
    dg = gc.grad(g, "loss")
    arrays = testing.random_arrays(dg, t=4, n=7)
    exported = gc.export(dg, {"t": 4, "n": 7}, triple=on.triple, arch=on.arch, features=on.features)
    expected = gc.compile(dg)(**arrays)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for output, array in called(on, exported, arrays, tmp_path).items():
        np.testing.assert_allclose(array, expected[output], rtol=tolerance, atol=tolerance / 10, err_msg=output)


@pytest.mark.parametrize("name", MACHINES)
@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_graphs(name: str, data: st.DataObject, tmp_path: Path) -> None:
    on = machine(name)
    dtype, tolerance = ("float32", 1e-3) if on.run == BOARD else ("float64", 1e-9)
    example = data.draw(testing.graphs(most_states=2, dtype=dtype))
    graph = gc.grad(example.graph, "loss", wrt="x")
    sizes = {a.name: n for a, n in lengths_of(graph, example).items() if a.is_open}
    exported = gc.export(graph, sizes, triple=on.triple, arch=on.arch, features=on.features)
    expected = gc.interpret(graph, **example.arrays)
    for output, array in called(on, exported, example.arrays, tmp_path).items():
        np.testing.assert_allclose(array, expected[output], rtol=tolerance, atol=tolerance, err_msg=output)


def lengths_of(graph: gc.Graph, example: testing.Example) -> dict[gc.Axis, int]:
    shown = {"n": example.arrays["label"].shape[1], **example.lengths}
    return {axis: shown[name] for name, axis in graph.axes.items()}


LEARNING = """
#include "learner_memory.h"

int main(void) {
    for (int k = 0; k < 50; k++) {
        learner_x[0] = (float)(k % 7) / 7;
        learner(&learner_memory);
        const unsigned char *bytes = (const unsigned char *)learner_loss;
        for (unsigned i = 0; i < sizeof(float); i++) {
            put("0123456789abcdef"[bytes[i] >> 4]);
            put("0123456789abcdef"[bytes[i] & 15]);
        }
    }
    return 0;
}
"""


@pytest.mark.parametrize("name", [name for name, on in MACHINES.items() if on.run != ("node",)])
def test_a_network_learns_there(name: str, tmp_path: Path) -> None:
    """Step by step, by gradients carried forward, from memory that the exported headers bring."""
    on = machine(name)
    g = gc.Graph("forecast")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (1,), over=(t, n))
    h = gc.cells.gru(g, x[t - 1], 6, over=t).h
    g.output("loss", gc.mean((g.param("V", (1, 6)) @ h - x)[0] ** 2, over=n))
    forward = gc.rtrl(g, "loss")
    learn = gc.training_step(gc.step(forward, over=t), {p: f"grad_{p}" for p in g.params}, gc.optim.SGD(0.1))
    arrays = gc.initialize(learn) | gc.initial_carry(forward, over=t, n=1)
    exported = gc.export(learn, {"n": 1}, name="learner", triple=on.triple, arch=on.arch, features=on.features)
    exported.save(tmp_path, arrays)
    found = np.frombuffer(bytes.fromhex(_linked(on, LEARNING, exported, tmp_path)), np.float32)
    now, run = np.zeros((1, 1), np.float32), gc.compile(learn)
    expected = []
    for k in range(50):
        now[...] = np.float32(k % 7) / np.float32(7)
        expected.append(run(x=now, **arrays)["loss"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert expected[-1] < expected[6]
