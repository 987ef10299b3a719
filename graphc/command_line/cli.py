"""The command line: demo, draw, show, explain, profile, check, train, export.

A FILE is a Python file of yours. It is run, so name only files that you trust; it defines `graph()`, which returns a
graph, or any one function that is annotated `-> gc.Graph` and needs no arguments.
"""

from __future__ import annotations

import math
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

import graphc as gc
from graphc.checkpoint import load as load_arrays
from graphc.command_line.image_command import PhotographOptions, train_on_photographs
from graphc.command_line.training_command import OPTIMIZERS, Given, train_on_arrays
from graphc.command_line.user_file import load_graph
from graphc.compiling.emit import STAGES, emit_stage
from graphc.drawing.collapse import MAX_COLUMNS
from graphc.errors import ArgumentError, GraphError, Location
from graphc.testing.gradient_check import random_arrays

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="graphc: a symbolic autodiff compiler for recurrent networks. Equations in, fused native code out.",
)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A Python file that defines graph() -> gc.Graph. It is run: name only what you trust."
    ),
]
Function = Annotated[str, typer.Option(help="The function of FILE that returns the graph.")]
Seed = Annotated[int, typer.Option(min=0, help="The seed of all that is drawn at random.")]
Grad = Annotated[str | None, typer.Option(help="Differentiate this output first; without a name, loss.")]
Length = Annotated[
    list[str] | None,
    typer.Option(help="AXIS=LENGTH, for an axis whose length comes with the data; by default 64. May be repeated."),
]
Precision = Annotated[
    str,
    typer.Option(help="What operands of products are rounded to: float32, bf16, or on a GPU f16 or tf32."),
]
Memory = Annotated[
    str | None,
    typer.Option(help="The most that a call may take beside its arrays, such as '64 MiB'; unlimited by default."),
]

_LENGTH = 64  # of axes, where none is named
_MOST_DIGITS = 18
_MOST_STEPS = 1000  # that are drawn: they take seconds


def main() -> None:
    """Run the command line; a mistake in a graph or a file is shown without a traceback, with exit status 1."""
    try:
        app()
    except GraphError as error:
        _fail(str(error) if _is_users(error.location) else error.reason)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError as error:
        _fail(f"out of memory{f': {error}' if str(error) else ''}")


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def _is_users(location: Location | None) -> bool:
    """Whether a mistake was made on a line of the user's: one in the arguments shows where they are handled."""
    if location is None:
        return False
    file, libraries = Path(location.file), [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    installed = not {"site-packages", "dist-packages"}.isdisjoint(file.parts)
    return not installed and not any(file.is_relative_to(folder) for folder in libraries)


class GradCommand(TyperCommand):
    """A command whose `--grad` may stand alone: what follows it is an output only if it could be the name of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = [following.isidentifier() for following in [*args, ""][1:]]
        alone = (arg == "--grad" and not name for arg, name in zip(args, named, strict=True))
        return super().parse_args(ctx, ["--grad=loss" if a else arg for a, arg in zip(alone, args, strict=True)])


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for drawings, learning curve and weights.")] = Path("out/demo"),
    epochs: Annotated[int | None, typer.Option(min=1, help="How often to go through the training utterances.")] = None,
) -> None:
    """Train an LSTM to tell nine speakers apart, on real recordings that ship with graphc, and draw it.

    Example: `graphc demo --out pictures`
    """
    from graphc.command_line.demo import run

    run(out, epochs)


@app.command(cls=GradCommand)
def draw(
    file: File,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="An .svg or .dot file; FILE.svg by default.")
    ] = None,
    unroll: Annotated[
        list[str] | None,
        typer.Option(
            help=f"AXIS=STEPS: write this axis out. May be repeated. Of more than {MAX_COLUMNS} steps several share a "
            "column."
        ),
    ] = None,
    grad: Grad = None,
    engine: Annotated[
        str, typer.Option(help="graphviz-pure, which needs no system package, or dot.")
    ] = "graphviz-pure",
    function: Function = "",
) -> None:
    """Draw a graph as SVG: folded, with its cycles; or unrolled, one column for each step.

    Example: `graphc draw examples/lstm.py --unroll t=4 -o lstm.svg`
    """
    steps = _numbers("--unroll", "STEPS", unroll or [])
    if math.prod(steps.values()) > _MOST_STEPS:
        raise ArgumentError(
            f"--unroll asks for {math.prod(steps.values()):,} steps; of more than {MAX_COLUMNS} several share a column "
            f"of the drawing, and more than {_MOST_STEPS:,} are not drawn. A few show the network: {_few(steps)}"
        )
    graph = _graph(file, function, grad)
    target = output or Path(file.stem + ".svg")
    with Console(stderr=True).status("drawing"):  # on a terminal
        if steps:
            graph = gc.unroll(graph, **steps)
        gc.draw(graph, engine=engine).save(target)
    typer.echo(target)


def _graph(file: Path, function: str, grad: str | None) -> gc.Graph:
    """The graph of a file, with the gradient of an output if one is named."""
    graph = load_graph(file, function)
    return gc.grad(graph, grad) if grad else graph


def _few(steps: Mapping[str, int]) -> str:
    return " ".join(f"--unroll {axis}={min(count, 4)}" for axis, count in steps.items())


def _numbers(option: str, what: str, items: list[str]) -> dict[str, int]:
    """What `AXIS=NUMBER` says, several times."""
    chosen: dict[str, int] = {}
    for item in items:
        axis, _, number = item.partition("=")
        if not axis or not number.isdecimal() or len(number) > _MOST_DIGITS:
            raise ArgumentError(f"{option} takes AXIS={what}, such as t=4, not {item!r}")
        if axis in chosen:
            raise ArgumentError(f"{option} names axis {axis!r} twice")
        chosen[axis] = int(number)
    return chosen


@app.command(cls=GradCommand)
def show(
    file: File,
    emit: Annotated[str, typer.Option(help=f"The stage: {', '.join(STAGES)}.")] = "graph",
    grad: Grad = None,
    function: Function = "",
) -> None:
    """Print what a graph is at one stage of compilation.

    Example: `graphc show examples/gru.py --emit program --grad`
    """
    typer.echo(emit_stage(_graph(file, function, grad), emit))


@app.command(cls=GradCommand)
def explain(
    file: File,
    length: Length = None,
    grad: Grad = None,
    target: Annotated[str, typer.Option(help="What it is compiled for: cpu, or cuda for an NVIDIA GPU.")] = "cpu",
    memory: Memory = None,
    precision: Precision = "float32",
    function: Function = "",
) -> None:
    """Say in words what the compiler makes of each cycle, and why: its edges, what left its loop, what is kept, how it
    runs.

    Example: `graphc explain examples/gru.py --grad --length t=1024 --target cuda`
    """
    graph = _graph(file, function, grad)
    lengths = _lengths(graph, _numbers("--length", "LENGTH", length or []))
    options = {"target": target, "memory": memory, "precision": precision}
    typer.echo(gc.explain(graph, lengths, **options))  # type: ignore[call-overload]


@app.command(cls=GradCommand)
def profile(
    file: File,
    length: Length = None,
    grad: Grad = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="The most threads to use; by default, one for each core.")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="How many calls to measure.")] = 20,
    target: Annotated[str, typer.Option(help="Where to run it: cpu, or cuda for an NVIDIA GPU.")] = "cpu",
    memory: Memory = None,
    precision: Precision = "float32",
    seed: Seed = 0,
    function: Function = "",
) -> None:
    """Measure where the time of a call goes, on random arrays: its loops and kernels, and how fast their products are.

    Example: `graphc profile examples/gru.py --grad --length t=128 --length n=32`
    """
    graph = _graph(file, function, grad)
    arrays = random_arrays(graph, seed, **_lengths(graph, _numbers("--length", "LENGTH", length or [])))
    options = {"target": target, "threads": threads, "memory": memory, "precision": precision}
    compiled: Any = gc.compile(graph, **options)  # type: ignore[call-overload]
    typer.echo(compiled.profile(calls, **arrays))


def _lengths(graph: gc.Graph, given: Mapping[str, int]) -> dict[str, int]:
    """The length of each axis whose does not stand in the graph."""
    open_axes = [axis.name for axis in graph.axes.values() if axis.is_open]
    wrong = [name for name in given if name not in open_axes]
    if wrong:
        known = ", ".join(open_axes) or "none"
        raise ArgumentError(f"--length names {wrong[0]!r}; the axes whose length comes with the data are: {known}")
    return {name: given.get(name, _LENGTH) for name in open_axes}


@app.command()
def check(
    file: File,
    of: Annotated[str, typer.Option(help="The output to differentiate.")] = "loss",
    seed: Seed = 0,
    tolerance: Annotated[float, typer.Option(min=1e-12, help="The largest relative error that passes.")] = 1e-6,
    function: Function = "",
) -> None:
    """Check the gradients of a graph: against central differences, and forward against reverse mode.

    Interpreted and compiled, in float64, on random arrays.

    Example: `graphc check my_cell.py`
    """
    from graphc.testing import check_gradients

    graph = load_graph(file, function)
    title, caption = f"relative error of the gradient of {of}", f"all are right to {tolerance:g}"
    table = Table("by", "interpreted", "compiled", title=title, caption=caption)
    try:
        interpreted = check_gradients(graph, of, seed=seed, tolerance=tolerance)
        compiled = check_gradients(graph, of, seed=seed, tolerance=tolerance, run=_compiled)
    except AssertionError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for name, difference in interpreted.items():
        table.add_row(name, f"{difference:.1e}", f"{compiled[name]:.1e}")
    Console().print(table)


def _compiled(graph: gc.Graph, /, **arrays: Any) -> Mapping[str, np.ndarray]:
    return gc.compile(graph)(**arrays)


@app.command()
def train(
    file: File,
    data: Annotated[
        str, typer.Option(help="'vowels', 'orl', or an .npz or .safetensors file with one array for each input.")
    ] = "",
    images: Annotated[
        Path | None, typer.Option(help="A folder of photographs, one subfolder a class; or IMDB-WIKI's.")
    ] = None,
    image_size: Annotated[
        str, typer.Option(help="What photographs are resized to: SIDE, HEIGHTxWIDTH or CHANNELSxHEIGHTxWIDTH.")
    ] = "",
    held_out: Annotated[
        float | None,
        typer.Option(
            help="The share of the examples to measure on, not to learn from; for photographs by default 0.2, if there "
            "is no folder test/."
        ),
    ] = None,
    augment: Annotated[
        bool | None,
        typer.Option("--augment/--no-augment", help="Mirror and shift photographs at random; the default."),
    ] = None,
    skip_unreadable: Annotated[
        bool | None, typer.Option("--skip-unreadable", help="Leave out photographs that cannot be read.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="By default 20; for photographs 90, for orl 30.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Examples in a batch; by default 32, for photographs up to 128."),
    ] = None,
    batch_axis: Annotated[str, typer.Option(help="The axis that numbers the examples; by default n.")] = "",
    optimizer: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(OPTIMIZERS)}; by default adam, for photographs momentum with decay 5e-4."
        ),
    ] = "",
    lr: Annotated[
        float | None, typer.Option(min=0, help="The learning rate; by default 3e-3, for photographs 1e-2.")
    ] = None,
    clip: Annotated[
        float | None, typer.Option(min=0, help="The largest norm of the gradient; unlimited by default.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="By default 0; adamw's 1e-2; for photographs 5e-4.")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="End when so many epochs have passed since the best, on what is held out if any is."),
    ] = None,
    loss: Annotated[str, typer.Option(help="The output to minimise.")] = "loss",
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="A checkpoint, or for photographs a folder; training resumes from it. The best epoch's arrays are in "
            "NAME.best.safetensors.",
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="Where to train: cpu, or cuda for an NVIDIA GPU.")] = "cpu",
    memory: Memory = None,
    precision: Precision = "float32",
    function: Function = "",
) -> None:
    """Train the params of a graph.

    Without --data or --images, FILE's own function `data(seed)` gives the arrays of each epoch, with a seed that
    follows from --seed and the epoch, and its `held_out()`, if there is one, arrays to measure on. With `--data vowels`
    the graph's inputs are named x, lengths and y, speaker or label. For photographs they are image and label, an output
    is named probabilities, and FILE's function may take `classes=` and `image=`.

    Example: `graphc train examples/reseg.py --images FOLDER -o out/faces`
    """
    given = Given(epochs, batch_size, optimizer, lr, clip, weight_decay, loss, seed, output, target, memory, precision)
    photographs = PhotographOptions(images, data, image_size, held_out, augment, skip_unreadable)
    if photographs.named and batch_axis:
        raise ArgumentError("--batch-axis is for arrays; photographs lie along the axis of input image")
    if photographs.named and patience:
        raise ArgumentError("--patience is for arrays; training on photographs goes through all --epochs")
    if photographs.named:
        train_on_photographs(file, function, given, photographs)
    else:
        photographs.refuse_others()
        train_on_arrays(file, function, given, data, batch_axis, held_out, patience)


@app.command()
def export(
    file: File,
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder for NAME.h and NAME.o.")] = Path("."),
    params: Annotated[
        Path | None, typer.Option(help="A .safetensors file whose arrays are built in, such as a checkpoint.")
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option(help="An output to keep; may be repeated. All, if none is.")
    ] = None,
    step: Annotated[str, typer.Option(help="The axis along which a call makes one step.")] = "",
    length: Annotated[
        list[str] | None, typer.Option(help="AXIS=LENGTH, for each axis whose length comes with the data.")
    ] = None,
    name: Annotated[str, typer.Option(help="The name of the C function; by default, the graph's.")] = "",
    triple: Annotated[
        str, typer.Option(help="LLVM's target triple of the processor; by default, this machine's.")
    ] = "",
    arch: Annotated[str, typer.Option(help="The processor's model, such as cortex-m4.")] = "",
    features: Annotated[str, typer.Option(help="Further features of it, such as +avx2,+fma.")] = "",
    precision: Precision = "float32",
    with_memory: Annotated[
        bool,
        typer.Option("--with-memory", help="Write NAME_memory.h, too: memory for the arrays, as they are at first."),
    ] = False,
    seed: Seed = 0,
    function: Function = "",
) -> None:
    """Make a C function of a graph: an object file that calls no library and allocates nothing, and its header.

    Example: `graphc export my_model.py --select p --step t --length n=1 --params trained.safetensors -o build`
    """
    whole = load_graph(file, function)
    arrays = load_arrays(params) if params else {}
    if select:
        whole = gc.select(whole, *select)
    graph = gc.step(whole, over=step) if step else whole
    lacking = [given for given in graph.params if params and given not in arrays]
    if lacking:
        raise ArgumentError(f"{params} has no {', '.join(lacking)}; it has {', '.join(arrays) or 'no arrays'}")
    own = {given: array for given, array in arrays.items() if given in graph.params}
    lengths = _numbers("--length", "LENGTH", length or [])
    made = gc.export(graph, lengths, own, name, triple or None, arch, features, precision)  # type: ignore[arg-type]
    start = None
    if with_memory:
        start = gc.initialize(graph, seed) | own
        start |= gc.initial_carry(whole, over=step, **lengths, **start) if step else {}
    for path in made.save(output, start):
        typer.echo(path)
