"""A recurrent network that reads an image: in blocks, down and up its columns, then along its rows both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.cells.compose import Bidirectional, Cell, bidirectional
from graphc.cells.elman import elman
from graphc.errors import DefinitionError
from graphc.ir import Axis
from graphc.language.geometry import Sizes
from graphc.language.graph import Graph, check_graph
from graphc.language.image_blocks import blocks, grid, image
from graphc.language.value import Value, check_value


@dataclass(frozen=True, eq=False)
class Spatial:
    """The result as an image (2 · units, H / h, W / w), the axes of its blocks, and both sweeps.

    The value at a block is `second.h`, over the axes rows and columns.
    """

    image: Value
    rows: Axis
    columns: Axis
    first: Bidirectional
    second: Bidirectional


def spatial_rnn(
    g: Graph,
    x: Value,
    units: int,
    size: Sizes = 2,
    cell: Cell = elman,
    name: str = "spatial",
    axes: tuple[Axis, Axis] | None = None,
    vertical_first: bool = True,
    order: str = "chw",
    **options: Any,
) -> Spatial:
    """The layer of ReNet and ReSeg (Visin et al. 2015, 2016): an image (C, H, W) is cut into blocks of `size` pixels
    (see `gc.blocks`), and with p[i, j] the block in row i and column j,

        v[i, j] = concat(f↓(v↓[i - 1, j], p[i, j]), f↑(v↑[i + 1, j], p[i, j]))
        h[i, j] = concat(f→(h→[i, j - 1], v[i, j]), f←(h←[i, j + 1], v[i, j]))

    The second sweep reads what the first made of the whole column, so every h[i, j] has seen the whole image. With
    `vertical_first=False` the rows are read first. The cells are called `{name}_vertical_forward` (down),
    `{name}_vertical_backward` (up), `{name}_horizontal_forward` and `{name}_horizontal_backward`; `cell` is any cell
    (the lecture's is `elman`, the papers' `gru`) and takes the further options.
    """
    check_graph(g)
    check_value(x, f"layer {name!r} takes")
    if axes is None:
        free = [f"{name}_{letter}" for letter in "ij"]
        if any(a in g.axes for a in free):
            raise DefinitionError(f"graph {g.name!r} has axes called {' and '.join(free)} already; give another name=")
        lengths = grid(x.shape, size)
        axes = (g.axis(free[0], lengths[0]), g.axis(free[1], lengths[1]))
    value, sweeps = blocks(x, size, axes, order), []
    rows, columns = axes
    directions = [("vertical", rows), ("horizontal", columns)]
    for direction, axis in directions if vertical_first else directions[::-1]:
        sweep = bidirectional(g, value, cell, units, axis, f"{name}_{direction}", **options)
        sweeps.append(sweep)
        value = sweep.h
    return Spatial(image(value, axes), rows, columns, *sweeps)
