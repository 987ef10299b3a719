"""What each layer of the image model takes: `python -m benchmarks.layers [forward | training]`.

A call is profiled on one thread. The time of each of its loops and kernels counts to the layer whose params it reads or
moves, of several the one with the most; without params, as in pooling, to the layer whose results it reads. Rates are
those of the multiplications and additions in products, beside the most that a core can do, and of the memory that a
kernel touches.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from math import prod
from typing import Any

import numpy as np
from rich.box import HORIZONTALS
from rich.console import Console
from rich.table import Table

import graphc as gc
from benchmarks.images import Images
from benchmarks.report.table import significant
from graphc.codegen.lengths import evaluate, points_of
from graphc.codegen.memory.arena import buffer_bytes
from graphc.codegen.program import Loop, Program, Statement
from graphc.codegen.uses import loaded, stored
from graphc.compiling.compile import Compiled
from graphc.testing import random_arrays

CALLS = 3


@dataclass
class Layer:
    """Seconds, floating-point operations in products, and bytes touched."""

    seconds: float = 0.0
    operations: float = 0.0
    touched: float = 0.0


def layers(compiled: Compiled, arrays: Mapping[str, Any]) -> tuple[dict[str, Layer], float]:
    """Every layer's share of a call, in the order in which the program comes to them; and the most operations a second
    that a core makes in products."""
    profile, program = compiled.profile(CALLS, **arrays), compiled.program
    params = {name: (_layer_of(name), prod(p.shape)) for name, p in compiled.stages.graph.params.items()}
    own: dict[str, str] = {}  # the layer that stored a buffer
    found: dict[str, Layer] = {}
    for statement, part in zip(program.body, profile.parts, strict=True):
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
        layer.seconds += part.seconds
        layer.operations += part.operations
        layer.touched += touched(statement, program, profile.lengths)
    return found, profile.peak


def _layer_of(param: str) -> str:
    """Params are named LAYER_NUMBER_…, and what an optimiser keeps of them after them."""
    return "_".join(param.removeprefix("momentum_").split("_")[:2])


def touched(statement: Statement, program: Program, sizes: Mapping[str, int]) -> float:
    """Bytes of the buffers that a kernel loads or stores; of one that it has fewer points than elements of, so many."""
    if isinstance(statement, Loop):
        return evaluate(statement.extent, sizes) * sum(touched(inner, program, sizes) for inner in statement.body)
    terms = max((points_of(reduce.dims, sizes) for reduce in statement.reduces), default=1)
    points = points_of(statement.dims, sizes) * terms
    found = [program.buffer(name) for name in loaded((statement,)) | stored((statement,))]
    return sum(min(buffer_bytes(b, sizes), points * np.dtype(b.dtype).itemsize) for b in found)


def table(title: str, found: dict[str, Layer], most: float) -> Table:
    columns = ("", "ms", "share", "GFLOP", "GFLOP/s", "of peak", "GB", "GB/s")
    result = Table(title=title, box=HORIZONTALS)
    for name in columns:
        result.add_column(name, justify="right" if name else "left")
    total = Layer(*map(sum, zip(*map(astuple, found.values()), strict=True)))
    for name, layer in {**found, "all": total}.items():
        if not layer.seconds:  # less than the clock can tell
            continue
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
    found, most = layers(gc.compile(graph, threads=1), random_arrays(graph, n=problem.batch))
    title = f"{problem.name} {given.work}, {problem.sizes}, one thread; a core's peak: {most / 1e9:.0f} GFLOP/s"
    Console().print(table(title, found, most))


if __name__ == "__main__":
    main()
