"""What each layer of the image model takes: `python -m benchmarks.layers [forward | training]`.

Every kernel of the program runs alone, on one thread, and its time counts to the layer whose params it reads or moves,
of several the one with the most; without params, as in pooling, to the layer whose results it reads. Rates are those
of the multiplications and additions in products, beside the most that a core can do, and of the memory that a kernel
touches.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from rich.box import HORIZONTALS
from rich.console import Console
from rich.progress import track
from rich.table import Table

import graphc as gc
from benchmarks.images import Images
from benchmarks.report.table import significant
from graphc.codegen.cpu.jit import load, native
from graphc.codegen.lengths import evaluate
from graphc.codegen.llvm.builder import vector_type
from graphc.codegen.memory.arena import buffer_bytes
from graphc.codegen.program import Call, Kernel, Loop, Program, Reduce, Statement, kernels
from graphc.codegen.target import Target
from graphc.codegen.uses import loaded, stored
from graphc.pipeline.stages import Stages, stages
from graphc.scalar import walk

REPEATS = 3
CHAINS, ROUNDS = 24, 1 << 20  # of fused multiply-adds: independent ones side by side, and how often


@dataclass
class Layer:
    """Seconds, floating-point operations in products, and bytes touched."""

    seconds: float = 0.0
    operations: float = 0.0
    touched: float = 0.0


def layers(made: Stages, sizes: dict[str, int]) -> dict[str, Layer]:
    """Every layer's share, in the order in which the program comes to them."""
    program, arrays = made.program, _arrays(made, sizes)
    params = {name: (_layer_of(name), prod(p.node.shape)) for name, p in made.graph.params.items()}
    own: dict[str, str] = {}  # the layer that stored a buffer
    found: dict[str, Layer] = {}
    for statement in track(program.body, "kernels", transient=True):
        read, written = loaded((statement,)), stored((statement,))
        sized = Counter[str]()
        for layer_name, size in (params[buffer] for buffer in sorted(read | written) if buffer in params):
            sized[layer_name] += size
        earlier = sorted(own[buffer] for buffer in read if buffer in own)
        name = next(iter([*(name for name, _ in sized.most_common()), *earlier]), "input")
        if read and read <= set(params) and not written & set(params):
            params |= dict.fromkeys(written, (name, sized[name]))  # weights in another order
        own |= {buffer: name for buffer in written if buffer not in params}
        layer = found.setdefault(name, Layer())
        layer.seconds += _seconds(replace(program, body=(statement,)), arrays, sizes)
        layer.operations += operations(statement, sizes)
        layer.touched += sum(touched(kernel, program, sizes) for kernel in kernels((statement,)))
    return found


def _layer_of(param: str) -> str:
    """Params are named LAYER_NUMBER_…, and what an optimiser keeps of them after them."""
    return "_".join(param.removeprefix("momentum_").split("_")[:2])


def operations(statement: Statement, sizes: dict[str, int]) -> float:
    """Two for each product that a reduction adds up."""
    if isinstance(statement, Loop):
        return evaluate(statement.extent, sizes) * sum(operations(inner, sizes) for inner in statement.body)
    points = _points(statement, sizes)
    return sum(
        2.0 * points * _points(step, sizes)
        for step in statement.body
        if isinstance(step, Reduce)
        for total in step.sums
        for part in walk(total.value)
        if isinstance(part, Call) and part.fn == "mul" and part.dtype != "index"
    )


def touched(kernel: Kernel, program: Program, sizes: dict[str, int]) -> float:
    """Bytes of the buffers that a kernel loads or stores; of one that it has fewer points than elements of, so many."""
    points = _points(kernel, sizes) * max([_points(s, sizes) for s in kernel.body if isinstance(s, Reduce)], default=1)
    found = [program.buffer(name) for name in loaded((kernel,)) | stored((kernel,))]
    return sum(min(buffer_bytes(b, sizes), points * np.dtype(b.dtype).itemsize) for b in found)


def _points(nest: Kernel | Reduce, sizes: dict[str, int]) -> int:
    return int(np.prod([evaluate(dim.extent, sizes) for dim in nest.dims], dtype=np.int64))


def _arrays(made: Stages, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Something for every buffer: constants as they are, indices 0, and numbers about 0."""
    random, found = np.random.default_rng(0), {}
    for buffer in made.program.buffers:
        count = max(1, buffer_bytes(buffer, sizes) // np.dtype(buffer.dtype).itemsize)
        if buffer.name in made.lowered.constants:
            found[buffer.name] = np.ascontiguousarray(made.lowered.constants[buffer.name])
        elif buffer.dtype == "float32":
            found[buffer.name] = random.standard_normal(count, np.float32)
        else:
            found[buffer.name] = np.zeros(count, buffer.dtype)
    return found


def _seconds(program: Program, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> float:
    """The least of a few runs."""
    program = replace(program, buffers=tuple(replace(b, kind="param") for b in program.buffers))
    code = load(program)
    args = (ctypes.c_void_p * len(program.buffers))(*(arrays[b.name].ctypes.data for b in program.buffers))
    lengths = (ctypes.c_int64 * max(1, len(program.sizes)))(*(sizes[name] for name in program.sizes))
    return _least(lambda: code(args, lengths))


def _least(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def peak() -> float:
    """The operations a second of fused multiply-adds that need nothing but registers."""
    target = Target.host()
    lanes = target.lanes(4)
    type = vector_type("float", lanes)
    one = f"<{', '.join(['float 1.0'] * lanes)}>"
    chains = range(CHAINS)
    lines = [
        f'define void @peak(ptr %out) "target-cpu"="{target.cpu}" "target-features"="{target.features}"'
        ' "prefer-vector-width"="512" "min-legal-vector-width"="512" {',
        "entry:",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %j, %loop ]",
        *(f"  %a{k} = phi {type} [ zeroinitializer, %entry ], [ %b{k}, %loop ]" for k in chains),
        *(f"  %b{k} = call {type} @llvm.fma({type} %a{k}, {type} {one}, {type} {one})" for k in chains),
        "  %j = add i64 %i, 1",
        f"  %more = icmp ult i64 %j, {ROUNDS}",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *(f"  %p{k} = getelementptr {type}, ptr %out, i64 {k}" for k in chains),
        *(f"  store {type} %b{k}, ptr %p{k}, align 4" for k in chains),
        "  ret void",
        "}",
        f"declare {type} @llvm.fma({type}, {type}, {type})",
    ]
    suffix = f"v{lanes}f32" if lanes > 1 else "f32"
    code = native("\n".join(lines).replace("@llvm.fma", f"@llvm.fma.{suffix}"), target, "peak")
    out = np.zeros(CHAINS * lanes, np.float32)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code["peak"])
    return 2.0 * lanes * CHAINS * ROUNDS / _least(lambda: run(out.ctypes.data))


def table(title: str, found: dict[str, Layer], most: float) -> Table:
    columns = ("", "ms", "share", "GFLOP", "GFLOP/s", "of peak", "GB", "GB/s")
    result = Table(title=title, box=HORIZONTALS)
    for name in columns:
        result.add_column(name, justify="right" if name else "left")
    total = Layer(*(sum(getattr(layer, part) for layer in found.values()) for part in Layer.__dataclass_fields__))
    for name, layer in {**found, "all": total}.items():
        rate = layer.operations / layer.seconds
        result.add_row(
            name,
            significant(1e3 * layer.seconds),
            f"{layer.seconds / total.seconds:.1%}",
            significant(layer.operations / 1e9),
            significant(rate / 1e9),
            f"{rate / most:.0%}",
            significant(layer.touched / 1e9),
            significant(layer.touched / layer.seconds / 1e9),
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.layers", description="What each layer takes, on one thread.")
    parser.add_argument("work", choices=("forward", "training"), nargs="?", default="training")
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    problem = Images(given.batch)
    graph = (
        gc.select(gc.inference(problem.model), "probabilities") if given.work == "forward" else problem.training_step
    )
    lengths = {axis.name: axis.length for axis in graph.axes.values() if isinstance(axis.length, int)}
    found = layers(stages(graph), {**lengths, "n": problem.batch})
    most = peak()
    title = f"{problem.name} {given.work}, {problem.sizes}, one thread; a core's peak: {most / 1e9:.0f} GFLOP/s"
    Console().print(table(title, found, most))


if __name__ == "__main__":
    main()
