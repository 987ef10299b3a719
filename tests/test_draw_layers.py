"""Drawings of deep networks: what is written on windows, how operations become layers, and lines of them."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.command_line.user_file import load_graph
from graphc.drawing import layout
from graphc.drawing.collapse import MAX_VERTICES, collapse
from graphc.drawing.columns import grid, width
from graphc.drawing.dot import dot_source
from graphc.drawing.layers import layers
from graphc.drawing.lines import LINE, LONGEST, STEP, lines
from graphc.drawing.picture import Arrow, Picture, Vertex, picture
from graphc.testing import Example, graphs

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def reseg() -> gc.Graph:
    return load_graph(EXAMPLES / "reseg.py")


def named(p: Picture) -> list[tuple[str, ...]]:
    return [v.lines for v in p.vertices]


# Labels.


@pytest.mark.parametrize(
    ("build", "label"),
    [
        (lambda x: gc.conv(x, np.ones((2, 4, 3, 3))), "conv 3×3"),
        (lambda x: gc.conv(x, np.ones((2, 4, 1, 3)), stride=2), "conv 1×3, stride 2"),
        (
            lambda x: gc.conv(x, np.ones((2, 2, 3, 3)), stride=(2, 1), dilation=2, groups=2),
            "conv 3×3, stride 2×1, dilation 2",
        ),
        (lambda x: gc.conv_transpose(x, np.ones((4, 2, 2, 2)), stride=2), "transposed conv 2×2, stride 2"),
        (lambda x: gc.max_pool(x, 3, stride=2, padding=1), "max 3×3, stride 2"),
        (lambda x: gc.avg_pool(x, 2), "Σ 2×2, stride 2"),
        (lambda x: gc.blocks(x, 2), "dim 3 → j"),
        (lambda x: gc.standardize(x), "standardize"),
        (lambda x: gc.batch_norm(x, 0.0, 1.0, over=x.axes), "batch norm(·, 0.0, 1.0)"),
        (lambda x: gc.mean(x, over=x.axes), "÷ |n|"),
        (lambda x: gc.sum(x, over=x.axes) / (gc.cast(gc.length(x.axes[0]), "float32") * 48), "÷ |n|·48.0"),
    ],
)
def test_what_is_written(build: Any, label: str) -> None:
    g = gc.Graph("labels")
    g.output("y", build(g.input("x", (4, 6, 8), over=g.axis("n"))))
    p = picture(g)
    assert label in [v.lines[0] for v in p.vertices], named(p)
    assert not any("window" in v.lines[0] or "length of" in v.lines[0] for v in p.vertices)


def test_a_window_with_two_readers_has_a_vertex() -> None:
    """The gradient of pooling compares what is seen with the maximum of it."""
    g = gc.Graph("twice")
    g.output("y", gc.sum(gc.max_pool(g.input("x", (4, 6, 8)), 2)))
    assert "window 2×2, stride 2" in [v.lines[0] for v in picture(gc.grad(g, "y", ["x"])).vertices]


# Layers.


def test_the_layers_of_the_lectures_model(reseg: gc.Graph) -> None:
    whole = picture(reseg)
    small = collapse(whole)
    assert len(whole.vertices) > MAX_VERTICES
    first = {v.lines[0]: v.lines[1:] for v in small.vertices}
    assert first["conv_1"] == ("conv 3×3, dilation 2", "[32, 128, 128]")
    assert first["norm_1"] == ("batch norm", "max 3×3, stride 2", "[32, 64, 64]")
    assert first["norm_4"] == ("batch norm", "[256, 16, 16]")
    assert first["rnn_6_horizontal_backward_h"] == ("4 ops, 3 params",)
    assert first["conv_7"] == ("conv 1×1", "[2]")
    assert sum(v.kind == "param" for v in small.vertices) == 0
    name = {v.key: v.lines[0] for v in small.vertices}
    flow = [(name[a.tail], name[a.head]) for a in small.arrows if a.kind == "flow"]
    chain = ["÷ 128.0", "norm_0", "conv_1", "norm_1", "conv_2", "norm_2", "conv_3", "norm_3", "conv_4", "norm_4"]
    assert set(pairwise(chain)) <= set(flow)
    assert len(flow) == len(set(flow)) == 37


def test_a_param_that_two_layers_read_stays_apart() -> None:
    g = gc.Graph("shared")
    W = g.param("W", (4, 4))
    h = gc.tanh(W @ gc.tanh(W @ g.input("x", (4,))))
    g.output("y", h)
    g.output("z", 2 * h)
    owner, name = layers(picture(g)), {v.key: v.lines[0] for v in picture(g).vertices}
    assert {name[key] for key, o in owner.items() if key == o} == {"W", "x", "@", "y", "z"}


def test_updates_go_to_the_layer_that_reads_them_unless_they_depend_on_it() -> None:
    """Running statistics do; a step of training, which depends on the loss, does not."""
    g = gc.Graph("norm")
    n = g.axis("n")
    y = gc.layers.batch_norm(g, g.input("x", (3, 4), over=n), over=n)
    g.output("loss", gc.mean(gc.sum(y * y), over=n))
    kept = {v.lines[0] for v in picture(g).vertices if v.target}
    assert kept == {"norm_mean ←", "norm_var ←"}
    for graph, apart in ((g, set()), (gc.training_step(g, "loss", gc.optim.SGD(0.1)), {"gamma", "beta", "step"})):
        p = picture(graph)
        owner = layers(p)
        alone = {v.target.removeprefix("norm_") for v in p.vertices if v.target and owner[v.key] == v.key}
        assert alone == apart


@settings(max_examples=25)
@given(graphs())
def test_folding_into_layers_adds_no_cycle(example: Example) -> None:
    for g in (example.graph, gc.training_step(example.graph, "loss", gc.optim.SGD(0.1))):
        p = picture(g)
        owner = layers(p)
        assert set(owner) == {v.key for v in p.vertices}
        assert all(owner[o] == o for o in owner.values())
        kinds = {v.key: v.kind for v in p.vertices}
        assert all(kinds[key] in ("op", "param") or owner[key] == key or key.startswith("u_") for key in owner)
        arrows = [(a.tail, a.head) for a in p.arrows]
        loops = {frozenset(c) for c in networkx.strongly_connected_components(networkx.DiGraph(arrows))}
        found = networkx.DiGraph((owner[tail], owner[head]) for tail, head in arrows if owner[tail] != owner[head])
        for cycle in networkx.strongly_connected_components(found):
            assert any(cycle <= {owner[key] for key in loop} for loop in loops)


def test_unrolled_graphs_keep_their_columns() -> None:
    p = picture(gc.unroll(load_graph(EXAMPLES / "gru.py"), t=3))
    assert all(key == o for key, o in layers(p).items())


def test_what_several_columns_share_stands_before_them() -> None:
    """A strip of an image is cut along j first, and then read at each i."""
    g = gc.Graph("sweeps")
    x = g.input("image", (1, 4, 4))
    g.output("y", gc.cells.spatial_rnn(g, x, 3, name="rnn").image)
    p = picture(gc.unroll(g, rnn_i=2, rnn_j=2))
    assert {len(v.step) for v in p.vertices if v.step is not None} == {2}
    assert [c.step for c in grid(p).columns] == [None, (0, 0), (0, 1), (1, 0), (1, 1), None]


# Lines.


def chain(length: int, beside: int = 0, letters: int = 8) -> Picture:
    vertices = [Vertex(f"v{k}", "op", ("m" * letters,)) for k in range(length)]
    vertices += [Vertex(f"b{k}", "param", ("p",)) for k in range(beside)]
    arrows = [Arrow(f"v{k}", f"v{k + 1}") for k in range(length - 1)]
    arrows += [Arrow(f"b{k}", f"v{k % (length - 1) + 1}") for k in range(beside)]
    return Picture("chain", tuple(vertices), tuple(arrows))


@pytest.mark.parametrize(("length", "beside", "letters"), [(15, 0, 8), (40, 20, 20), (100, 30, 3), (20, 0, 200)])
def test_a_chain_is_read_like_text(length: int, beside: int, letters: int) -> None:
    p = chain(length, beside, letters)
    places = lines(p)
    assert places is not None
    assert set(places) == {v.key for v in p.vertices}
    for k in range(length - 1):  # to the right, or further down
        (x, y), (right, below) = places[f"v{k}"], places[f"v{k + 1}"]
        assert right > x or below < y - STEP
    boxes = [(*places[v.key], width(v)) for v in p.vertices]
    for k, (x, y, wide) in enumerate(boxes):
        assert x + wide / 2 <= max(LINE * 1.5, wide)
        for other_x, other_y, other in boxes[:k]:
            assert abs(x - other_x) >= (wide + other) / 2 or abs(y - other_y) >= STEP / 2


def test_what_fits_or_is_too_wide_is_left_to_graphviz() -> None:
    assert lines(chain(LONGEST)) is None
    assert lines(chain(20, beside=40)) is None
    assert "neato" in gc.draw(load_graph(EXAMPLES / "reseg.py")).dot
    assert "neato" not in gc.draw(load_graph(EXAMPLES / "lstm.py")).dot


@pytest.mark.parametrize(
    ("length", "loops", "shows"), [(20, False, "true"), (100, False, "ortho"), (20, True, "true"), (100, True, "line")]
)
def test_arrows_of_lines(length: int, loops: bool, shows: str) -> None:
    """In curves round few vertices; round many in steps, which show what skips a vertex; but these cannot go back."""
    p = chain(length)
    skips = Arrow("v3", "v5"), *([Arrow("v7", "v7", "delay", "z⁻¹")] if loops else [])
    source = dot_source(replace(p, arrows=(*p.arrows, *skips)))
    assert f"splines={shows}" in source
    assert ("headport=n" in source) == loops
    assert xml.fromstring(layout.svg(source)) is not None


def test_a_cycle_is_not_torn() -> None:
    p = chain(40)
    assert lines(p) is not None
    assert lines(replace(p, arrows=(*p.arrows, Arrow("v2", "v2", "delay"), Arrow("v5", "v3", "delay")))) is not None
    assert lines(replace(p, arrows=(*p.arrows, Arrow("v30", "v3", "delay")))) is None
    assert lines(picture(load_graph(EXAMPLES / "gru.py"))) is None


def test_the_committed_picture_is_the_models(reseg: gc.Graph) -> None:
    committed = (EXAMPLES.parent / "docs" / "images" / "reseg.svg").read_text(encoding="utf-8")
    texts = {(e.text or "").replace("\xa0", " ") for e in xml.fromstring(committed).iter() if e.tag.endswith("text")}
    assert {line for vertex in collapse(picture(reseg)).vertices for line in vertex.lines} <= texts
