"""The command line: demo, draw, show, check, train.

A FILE is a Python file of yours. It is run, so name only files that you trust; it defines `graph()`, which returns a
graph, or any one function that is annotated `-> gc.Graph` and needs no arguments.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import graphc as gc
from graphc import checkpoint
from graphc.compile import STAGES, emit_stage
from graphc.errors import ArgumentError, GraphError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="graphc: a symbolic autodiff compiler for recurrent networks. Equations in, fused native code out.",
)

File = Annotated[Path, typer.Argument(help="A Python file that defines graph() -> gc.Graph. It is run.")]
Function = Annotated[str, typer.Option(help="The function of FILE that returns the graph.")]
OPTIMIZERS = {"adam": gc.optim.Adam, "adamw": gc.optim.AdamW, "momentum": gc.optim.Momentum, "sgd": gc.optim.SGD}


def main() -> None:
    """Run the command line; a mistake in a graph or a file is shown without a traceback, with exit status 1."""
    try:
        app()
    except GraphError as error:
        # a mistake in the user's file has a line there; one in the arguments was made on the command line
        in_file = error.location is not None and "site-packages" not in Path(error.location.file).parts
        Console(stderr=True).print(f"error: {error if in_file else error.reason}", markup=False, highlight=False)
        sys.exit(1)
    except OSError as error:
        Console(stderr=True).print(f"error: {error.filename or ''}: {error.strerror}", markup=False, highlight=False)
        sys.exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The folder for drawings, learning curve and weights.")] = Path("out/demo"),
    epochs: Annotated[int | None, typer.Option(min=1, help="How often to go through the training utterances.")] = None,
) -> None:
    """Train an LSTM to tell nine speakers apart, on real recordings that ship with graphc, and draw it.

    Example: `graphc demo --out pictures`
    """
    from graphc.demo import run

    run(out, epochs)


@app.command()
def draw(
    file: File,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="An .svg or .dot file; FILE.svg by default.")] = None,
    unroll: Annotated[list[str] | None, typer.Option(help="AXIS=STEPS: write the axis out. May be repeated.")] = None,
    grad: Annotated[str | None, typer.Option(help="Draw the gradient of this output, too.")] = None,
    engine: Annotated[str, typer.Option(help="graphviz-pure, which needs no system package, or dot.")] = "graphviz-pure",
    function: Function = "",
) -> None:
    """Draw a graph as SVG: folded, with its cycles; or unrolled, one column for each step.

    Example: `graphc draw examples/lstm.py --unroll t=4 -o lstm.svg`
    """
    graph = load_graph(file, function)
    if grad:
        graph = gc.grad(graph, grad)
    if unroll:
        graph = gc.unroll(graph, **dict(_steps(item) for item in unroll))
    target = output or Path(file.stem + ".svg")
    gc.draw(graph, engine=engine).save(target)
    typer.echo(target)


def _steps(item: str) -> tuple[str, int]:
    axis, _, steps = item.partition("=")
    if not axis or not steps.isdecimal():
        raise ArgumentError(f"--unroll takes AXIS=STEPS, such as t=4, not {item!r}")
    return axis, int(steps)


@app.command()
def show(
    file: File,
    emit: Annotated[str, typer.Option(help=f"The stage: {', '.join(STAGES)}.")] = "graph",
    grad: Annotated[str | None, typer.Option(help="Differentiate this output first.")] = None,
    function: Function = "",
) -> None:
    """Print what a graph is at one stage of compilation.

    Example: `graphc show examples/gru.py --emit program --grad loss`
    """
    graph = load_graph(file, function)
    typer.echo(emit_stage(gc.grad(graph, grad) if grad else graph, emit))


@app.command()
def check(
    file: File,
    of: Annotated[str, typer.Option(help="The output to differentiate.")] = "loss",
    seed: Annotated[int, typer.Option(help="Of the random arrays.")] = 0,
    tolerance: Annotated[float, typer.Option(help="The largest relative error that passes.")] = 1e-6,
    function: Function = "",
) -> None:
    """Check the gradients of a graph: against central differences, and forward against reverse mode.

    Interpreted and compiled, in float64, on random arrays. Example: `graphc check my_cell.py`
    """
    from graphc.testing import check_gradients

    graph = load_graph(file, function)
    table = Table("by", "interpreted", "compiled", title=f"relative error of the gradient of {of}")
    try:
        interpreted = check_gradients(graph, of, seed=seed, tolerance=tolerance)
        compiled = check_gradients(graph, of, seed=seed, tolerance=tolerance, run=_compiled)
    except AssertionError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    for name, difference in interpreted.items():
        table.add_row(name, f"{difference:.1e}", f"{compiled[name]:.1e}")
    Console().print(table)


def _compiled(graph: gc.Graph, **arrays: Any) -> Mapping[str, np.ndarray]:
    return gc.compile(graph)(**arrays)


@app.command()
def train(
    file: File,
    data: Annotated[str, typer.Option(help="'vowels', or an .npz file with one array for each input.")] = "",
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a batch.")] = 32,
    batch_axis: Annotated[str, typer.Option(help="The axis that numbers the examples.")] = "n",
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.")] = "adam",
    lr: Annotated[float, typer.Option(help="The learning rate.")] = 3e-3,
    clip: Annotated[float | None, typer.Option(help="Bound the norm of the gradient.")] = None,
    loss: Annotated[str, typer.Option(help="The output to make small.")] = "loss",
    seed: Annotated[int, typer.Option(help="Of the initial params and of the order of the examples.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Checkpoint; training resumes from it.")] = None,
    function: Function = "",
) -> None:
    """Train the params of a graph.

    Without --data, FILE's own function `data(seed)` gives the arrays of each epoch. With `--data vowels` the graph's
    inputs are named x, lengths and y, speaker or label. Example: `graphc train examples/lstm.py --epochs 5`
    """
    module = load_module(file)
    graph = graph_of(module, function)
    if optimizer not in OPTIMIZERS:
        raise ArgumentError(f"no optimizer {optimizer!r}; there is {', '.join(OPTIMIZERS)}")
    step = gc.training_step(graph, loss, OPTIMIZERS[optimizer](lr=lr, clip=clip))
    arrays = _arrays(module, graph, data)

    def batches(epoch: int) -> Iterator[dict[str, Any]]:
        yield from _cut(graph, arrays(epoch), batch_axis, batch_size, np.random.default_rng((seed, epoch)))

    result = gc.fit(step, batches, epochs=epochs, seed=seed, checkpoint=output)
    if output is not None:
        typer.echo(f"{output}: {len(checkpoint.load(output)[0])} arrays")
    elif not result.history:
        typer.echo("nothing was trained")


def _arrays(module: ModuleType, graph: gc.Graph, data: str) -> Callable[[int], Mapping[str, np.ndarray]]:
    """What gives an epoch's arrays: the file's own data(seed), a data set by name, or an archive."""
    if not data:
        own = getattr(module, "data", None)
        if not callable(own):
            raise ArgumentError("the file has no function data(seed); name the data by --data")
        return lambda epoch: dict(own(epoch))
    if data == "vowels":
        known = gc.datasets.japanese_vowels().train
        by_name = {"x": known.values, "lengths": known.lengths, **dict.fromkeys(("y", "speaker", "label"), known.speaker)}
    elif data.endswith(".npz"):
        with np.load(data, allow_pickle=False) as archive:
            by_name = {name: archive[name] for name in archive.files}
    else:
        raise ArgumentError(f"--data is 'vowels' or an .npz file, not {data!r}")
    missing = [name for name in graph.inputs if name not in by_name]
    if missing:
        raise ArgumentError(f"{data} has no array for input {', '.join(missing)}; it has {', '.join(by_name)}")
    chosen = {name: by_name[name] for name in graph.inputs}
    return lambda epoch: chosen


def _cut(
    graph: gc.Graph, arrays: Mapping[str, np.ndarray], axis: str, size: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Batches of examples in random order; inputs without the batch axis are the same in each."""
    where = {n: [a.name for a in v.axes].index(axis) for n, v in graph.inputs.items() if axis in [a.name for a in v.axes]}
    counts = {name: np.shape(arrays[name])[k] for name, k in where.items() if np.ndim(arrays[name]) > k}
    if not where:
        yield dict(arrays)
        return
    if len(set(counts.values())) != 1 or len(counts) < len(where):
        raise ArgumentError(f"the arrays do not agree on the number of examples: {counts}")
    order = rng.permutation(next(iter(counts.values())))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield {
            name: np.ascontiguousarray(np.take(array, chosen, axis=where[name])) if name in where else array
            for name, array in arrays.items()
        }


# The user's file.


def load_graph(file: Path, function: str = "") -> gc.Graph:
    return graph_of(load_module(file), function)


def load_module(file: Path) -> ModuleType:
    """Run a Python file and return what it defines."""
    if not file.is_file():
        raise ArgumentError(f"there is no file {file}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ArgumentError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def graph_of(module: ModuleType, function: str = "") -> gc.Graph:
    """The graph that a file's function returns."""
    name = function or ("graph" if hasattr(module, "graph") else _only_graph_function(module))
    made = getattr(module, name, None)
    if not callable(made):
        raise ArgumentError(f"{module.__file__} has no function {name!r}")
    graph = made()
    if not isinstance(graph, gc.Graph):
        raise ArgumentError(f"{name}() of {module.__file__} returned {type(graph).__name__}, expected a Graph")
    return graph


def _only_graph_function(module: ModuleType) -> str:
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and _gives_graph(value)
    ]
    if len(found) != 1:
        listed = f"several functions that return graphs ({', '.join(found)})" if found else "no function graph()"
        raise ArgumentError(f"{module.__file__} has {listed}; name one by --function")
    return found[0]


def _gives_graph(function: Callable[..., Any]) -> bool:
    signature = inspect.signature(function)
    result = signature.return_annotation
    named = result is gc.Graph or str(result) in ("gc.Graph", "Graph", "graphc.Graph")
    return named and all(p.default is not inspect.Parameter.empty for p in signature.parameters.values())
