"""What cannot be convolved, pooled, normalised or cut into blocks is refused: with the user's line, what was found and
what was expected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import AxisError, DefinitionError, GraphError, ShapeError


@dataclass(frozen=True)
class Things:
    """What the mistakes are made with: a graph, and values with events of the shapes that their names say."""

    g: gc.Graph
    i: Any
    j: Any
    n: Any
    image: gc.Value
    kernel: gc.Value
    blocks: gc.Value


def things() -> Things:
    g = gc.Graph("images")
    i, j, n = g.axis("i", 3), g.axis("j", 2), g.axis("n")
    image, blocks = g.input("image", (4, 6, 8), over=n), g.input("blocks", (12,), over=(i, j, n))
    return Things(g, i, j, n, image, g.param("kernel", (5, 4, 3, 3)), blocks)


def vector(m: Things) -> gc.Value:
    return m.g.input("vector", (7,), over=m.n)


MISTAKES: list[tuple[type[GraphError], str, Callable[[Things], object]]] = [
    (ShapeError, "1 to 3 further dimensions, got (7,)", lambda m: gc.conv(vector(m), m.kernel)),
    (ShapeError, "two channel dimensions and (k, k)", lambda m: gc.conv(m.image, np.ones((5, 4, 3)))),
    (ShapeError, "4 channels takes a weight (filters, 4, …)", lambda m: gc.conv(m.image, np.ones((5, 3, 3, 3)))),
    (ShapeError, "takes a weight (filters, 2, …)", lambda m: gc.conv(m.image, m.kernel, groups=2)),
    (ShapeError, "of 4 channels is in groups of equal size", lambda m: gc.conv(m.image, m.kernel, groups=3)),
    (ShapeError, "got groups=True", lambda m: gc.conv(m.image, m.kernel, groups=True)),
    (ShapeError, "the stride of a convolution is one whole number of at least 1", lambda m: conv(m, stride=0)),
    (ShapeError, "or one for each of 2 dimensions; got (1, 2, 3)", lambda m: conv(m, padding=(1, 2, 3))),
    (ShapeError, "got 1.5", lambda m: conv(m, padding=1.5)),
    (ShapeError, "got 'same'", lambda m: conv(m, padding="same")),
    (ShapeError, "spans 9 elements of dimension 1, which has 6", lambda m: conv(m, dilation=4)),
    (ShapeError, "4 channels takes a weight (4, filters", lambda m: gc.conv_transpose(m.image, m.kernel)),
    (ShapeError, "the output_padding", lambda m: gc.conv_transpose(m.image, np.ones((4, 2, 3, 3)), output_padding=1)),
    (
        ShapeError,
        "a padding of 9 takes away 18",
        lambda m: gc.conv_transpose(m.image, np.ones((4, 2, 3, 3)), padding=9),
    ),
    (ShapeError, "the size of pooling", lambda m: gc.max_pool(m.image, 0)),
    (ShapeError, "sees nothing but padding", lambda m: gc.avg_pool(m.image, 2, padding=2)),
    (ShapeError, "pooling takes an event (channels, …)", lambda m: gc.max_pool(vector(m), 2)),
    (ShapeError, "the size of layer 'conv'", lambda m: gc.layers.conv(m.g, m.image, 3, size=(3, 3, 3))),
    (ShapeError, "layer 'conv' of 4 channels", lambda m: gc.layers.conv(m.g, m.image, 3, size=3, groups=3)),
    (ShapeError, "layer 'conv' takes an event", lambda m: gc.layers.conv(m.g, vector(m), 3, size=3)),
    (DefinitionError, "'neon', got 'keras'", lambda m: gc.layers.batch_norm(m.g, m.image, m.n, convention="keras")),
    (ShapeError, "got a single number", lambda m: gc.layers.batch_norm(m.g, gc.sum(m.image), m.n)),
    (ShapeError, "(4, 6, 8) and (4,) do not broadcast", lambda m: gc.batch_norm(m.image, np.zeros(4), np.ones(4), m.n)),
    (ShapeError, "dim=3 is outside an event of shape (4, 6, 8)", lambda m: gc.standardize(m.image, dim=3)),
    (AxisError, "does not vary over", lambda m: gc.standardize(m.image, over=m.i)),
    (ShapeError, "(channels, rows, columns) is cut into blocks, got (7,)", lambda m: gc.blocks(vector(m), 2)),
    (ShapeError, "blocks of (4, 2) pixels do not fill an image of (6, 8)", lambda m: gc.blocks(m.image, (4, 2))),
    (ShapeError, "the size of a block", lambda m: gc.blocks(m.image, 0)),
    (ShapeError, "one of chw, hwc, got 'whc'", lambda m: gc.blocks(m.image, 2, order="whc")),
    (AxisError, "'j' has length 2, but there are 4 columns", lambda m: gc.blocks(m.image, 2, (m.i, m.j))),
    (AxisError, "blocks takes two axes of the graph", lambda m: gc.blocks(m.image, 2, (m.i, m.i))),
    (DefinitionError, "name the axes by axes=", lambda m: gc.blocks(np.ones((1, 2, 2)), 2)),
    (AxisError, "an image takes two axes of the graph", lambda m: gc.image(m.blocks, m.i)),
    (AxisError, "an image takes two axes of the graph", lambda m: gc.image(m.blocks, ("i", "j"))),
    (AxisError, "'n' has no fixed length", lambda m: gc.image(m.blocks, (m.i, m.n))),
    (AxisError, "does not vary over axis 'i'", lambda m: gc.image(m.image[0, 0], (m.i, m.j))),
    (ShapeError, "pixels are events (C·25,), got (12,)", lambda m: gc.image(m.blocks, (m.i, m.j), 5)),
    (ShapeError, "is cut into blocks, got (7,)", lambda m: gc.cells.spatial_rnn(m.g, vector(m), 3)),
    (ShapeError, "do not fill an image", lambda m: gc.cells.spatial_rnn(m.g, m.image, 3, size=5)),
    (AxisError, "'i' has length 3, but there are 6 rows", lambda m: spatial(m, size=1)),
    (DefinitionError, "give another name=", lambda m: (sweeps(m), sweeps(m))),
]


def conv(m: Things, **options: Any) -> gc.Value:
    return gc.conv(m.image, m.kernel, **options)


def spatial(m: Things, size: int) -> object:
    return gc.cells.spatial_rnn(m.g, m.image, 3, size, axes=(m.i, m.j))


def sweeps(m: Things) -> object:
    return gc.cells.spatial_rnn(m.g, m.image, 3, name="rnn")


@pytest.mark.parametrize(("kind", "says", "mistake"), MISTAKES, ids=[says for _, says, _ in MISTAKES])
def test_mistake(kind: type[GraphError], says: str, mistake: Callable[[Things], object]) -> None:
    with pytest.raises(GraphError) as raised:
        mistake(things())
    assert type(raised.value) is kind
    assert says in raised.value.reason, raised.value.reason
    assert raised.value.location is not None
    assert raised.value.location.file == __file__


def test_a_refused_layer_leaves_the_graph_as_it_was() -> None:
    m = things()
    before = m.g.names(), dict(m.g.axes)
    for mistake in (
        lambda: gc.layers.conv(m.g, m.image, 3, size=3, groups=3),
        lambda: gc.cells.spatial_rnn(m.g, m.image, 3, size=5),
    ):
        with pytest.raises(GraphError):
            mistake()
    assert (m.g.names(), dict(m.g.axes)) == before
