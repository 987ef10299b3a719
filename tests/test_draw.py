"""Drawings: what they show, that nothing breaks out of a label, and that large graphs stay readable."""

import re
import subprocess
import xml.etree.ElementTree as xml
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.differentiation.grad import grad
from graphc.drawing import layout
from graphc.drawing.collapse import MAX_VERTICES, collapse
from graphc.drawing.columns import grid
from graphc.drawing.dot import dot_source
from graphc.drawing.draw import draw
from graphc.drawing.picture import Arrow, Picture, Vertex, picture
from graphc.errors import ArgumentError, UnsupportedError
from graphc.transforms.unroll import unroll


def elman() -> gc.Graph:
    g = gc.Graph("elman")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (3,), over=(t, n))
    U, W, b = g.param("U", (8, 3)), g.param("W", (8, 8)), g.param("b", (8,))
    h = g.state("h", (8,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    g.output("y", gc.softmax(h))
    g.output("loss", gc.sum(gc.sum(h, over=(t, n))))
    return g


def bidirectional() -> gc.Graph:
    g = gc.Graph("bidirectional")
    t = g.axis("t")
    x = g.input("x", (4,), over=t)
    down, up = (g.state(name, (4,), over=t, initial=g.param(f"{name}0", (4,))) for name in ("down", "up"))
    down[t] = gc.tanh(x + down[t - 1])
    up[t] = gc.tanh(x + up[t + 1])
    g.output("y", gc.concat([down, up]))
    return g


def image() -> gc.Graph:
    g = gc.Graph("image")
    i, j = g.axis("i"), g.axis("j")
    x = g.input("x", (), over=(i, j))
    o = g.state("o", (), over=(i, j))
    o[i] = gc.maximum(x, 0.5 * o[i - 1, j - 2])
    g.output("o", o)
    return g


def deep(layers: int) -> gc.Graph:
    g = gc.Graph("deep")
    t = g.axis("t")
    x = g.input("x", (4,), over=t)
    for k in range(layers):
        W, U, b = g.param(f"W{k}", (4, 4)), g.param(f"U{k}", (4, 4)), g.param(f"b{k}", (4,))
        h = g.state(f"h{k}", (4,), over=t)
        h[t] = gc.tanh(W @ x + U @ h[t - 1] + b)
        x = h
    g.output("y", x)
    return g


def texts(svg: str) -> list[str]:
    return [e.text or "" for e in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def label_of(p: Picture) -> dict[str, str]:
    return {v.key: v.lines[0] for v in p.vertices}


def arrows(p: Picture) -> Counter:
    name = label_of(p)
    return Counter((name[a.tail], name[a.head], a.label) for a in p.arrows)


def test_elman_folded():
    p = picture(elman())
    assert Counter(v.kind for v in p.vertices) == {"input": 1, "param": 3, "state": 1, "output": 2, "op": 6}
    shown = arrows(p)
    assert shown["h", "@", "z⁻¹"] == 1
    assert shown["U", "@", ""] == shown["W", "@", ""] == shown["b", "+", ""] == 1
    assert shown["@", "+", ""] == 2  # a + b + c is one sum
    assert shown["+", "h", ""] == 1
    assert not any(v.backward for v in p.vertices)


def test_the_drawing_needs_no_system_graphviz(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    drawing = draw(elman())
    assert {"x", "U", "h", "tanh", "softmax", "z⁻¹", "Σ t, n"} <= set(texts(drawing.svg))
    assert drawing._repr_svg_() == drawing.svg
    assert dot_source(picture(elman())) == drawing.dot  # the same graph gives the same text
    with pytest.raises(UnsupportedError, match="install Graphviz"):
        _ = draw(elman(), engine="dot").svg


def test_reverse_delays_initial_values_and_both_axes():
    shown = arrows(picture(bidirectional()))
    assert shown["down", "+", "z⁻¹"] == shown["up", "+", "z⁺¹"] == 1
    assert shown["down0", "down", "initial"] == shown["up0", "up", "initial"] == 1
    assert arrows(picture(image()))["o", "0.5 ×", "z⁻¹ (i) z⁻² (j)"] == 1


@pytest.mark.parametrize("build", [elman, bidirectional])
def test_an_unrolled_graph_has_a_column_for_each_step(build):
    p = picture(unroll(build(), t=4))
    layout_ = grid(p)
    where = layout_.places
    for vertex in p.vertices:
        column = next((c for c in layout_.columns if c.step == vertex.step), None)
        if vertex.step is not None:
            assert column.left < where[vertex.key][0] < column.right
    assert [c.step for c in layout_.columns if c.step] == [(0,), (1,), (2,), (3,)]
    assert all(a.right < b.left for a, b in pairwise(layout_.columns))
    for name in build().states:
        rows = {where[v.key][1] for v in p.vertices if v.row == name}
        assert len(rows) == 1
    params = [v.lines[0] for v in p.vertices if v.kind == "param"]
    assert sorted(params) == sorted(build().params)
    assert {"t = 0", "t = 3"} <= set(texts(draw(unroll(build(), t=4)).svg))


def test_two_unrolled_axes_count_alike_everywhere():
    p = picture(unroll(image(), i=2, j=3))
    for vertex in p.vertices:
        if vertex.kind in ("input", "state", "output"):
            assert vertex.lines[0].endswith(str(list(vertex.step or ())))
    assert Counter(v.kind for v in p.vertices) == {"input": 6, "state": 6, "output": 6, "op": 1}
    assert arrows(p)["o[0, 0]", "0.5 ×", ""] == 1


def test_vertices_of_a_column_do_not_overlap():
    p = picture(unroll(grad(elman(), "loss"), t=3))
    places = Counter(grid(p).places.values())
    assert set(places.values()) == {1}
    x = sorted((y, x) for x, y in places)
    assert all(b[1] - a[1] >= 30 for a, b in pairwise(x) if a[0] == b[0])


@pytest.mark.parametrize("few", [True, False])
def test_arrows_go_round_vertices_or_behind_them(few):
    """Where vertices touch, Graphviz gives up going round, and says so."""
    drawing = draw(unroll(elman() if few else deep(4), t=4))
    command = [layout.program(), "-Tsvg"]
    said = subprocess.run(command, input=drawing.dot.encode(), capture_output=True, check=True).stderr
    assert ("splines=true" in drawing.dot) == few
    assert ("outputorder=edgesfirst" in drawing.dot) != few
    assert b"touch" not in said


def test_a_delay_against_a_flow_does_not_cover_it():
    vertices = tuple(Vertex(key, "op", (key,)) for key in "abc")
    flows, delay = (Arrow("a", "b"), Arrow("b", "c")), Arrow("b", "a", "delay")
    (line,) = (line for line in dot_source(Picture("p", vertices, (*flows, delay))).splitlines() if "b -> a" in line)
    assert "tailport=sw" in line
    assert "port" not in dot_source(Picture("p", vertices, (*flows, replace(delay, tail="c"))))


def test_gradients_stand_out():
    p = picture(grad(elman(), "loss"))
    backward = {v.lines[0] for v in p.vertices if v.backward}
    assert {"grad_W", "adjoint_h", "⊗ Σ t, n"} <= backward
    assert not {"h", "tanh", "y", "loss", "x", "W"} & backward


# Escaping.

NASTY = '"<b>&amp;\\N\\"</svg><script>\n\t]]>é∑'


@settings(max_examples=15)
@given(st.one_of(st.just(NASTY), st.text(max_size=12)))
def test_nothing_breaks_out_of_a_label(text):
    vertices = (Vertex("a", "input", ("first", text), text), Vertex("b", "op", (text,), text, None, True))
    svg = layout.svg(dot_source(Picture("p", vertices, (Arrow("a", "b", "delay", text, text),))))
    root = xml.fromstring(svg)  # well formed
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if text.strip() and all(c.isascii() or c in NASTY for c in text):
        assert "".join(t.replace("\xa0", " ") for t in texts(svg) if t != "first").count(shown.strip()) >= 2


def test_a_vertex_cannot_write_dot():
    source = dot_source(Picture("p", (Vertex("a", "op", ('"]; evil [label="x', "\\"), 'a"b'),), ()))
    assert len([line for line in source.splitlines() if "evil" in line]) == 1
    assert xml.fromstring(layout.svg(source)) is not None
    assert not any(t == "evil" for t in texts(layout.svg(source)))


# Large graphs.


@pytest.mark.parametrize("build", [lambda: unroll(elman(), t=60), lambda: deep(120), lambda: unroll(elman(), t=400)])
def test_large_graphs_collapse(build):
    whole = picture(build())
    small = collapse(whole)
    assert len(whole.vertices) > MAX_VERTICES >= len(small.vertices)
    said = (text for v in small.vertices for text in (*v.lines, v.tooltip))
    counted = sum(int(number) for text in said for number in re.findall(r"(\d+) ops?\b", text))
    assert counted == sum(v.kind in ("op", "state") for v in whole.vertices)


def test_a_collapsed_graph_keeps_its_cycles_and_its_names():
    g = deep(120)
    small = collapse(picture(g))
    assert {v.lines[0] for v in small.vertices} >= set(g.states)
    assert arrows(small)["h7", "h7", "z⁻¹"] == 1
    assert arrows(small)["h7", "h8", ""] == 1
    assert "4 ops, 3 params" in texts(draw(g).svg)


def test_a_small_graph_is_left_alone():
    p = picture(elman())
    assert collapse(p) is p


# Files and engines.


def test_save(tmp_path):
    drawing = draw(elman())
    assert xml.parse(drawing.save(tmp_path / "g.svg")).getroot().tag.endswith("svg")
    assert drawing.save(str(tmp_path / "g.dot")).read_text(encoding="utf-8") == drawing.dot
    with pytest.raises(ArgumentError, match=r"\.svg"):
        drawing.save(tmp_path / "g.png")


def test_engine_errors():
    with pytest.raises(ArgumentError, match="engine="):
        _ = draw(elman(), engine="neato; rm -rf /").svg
    with pytest.raises(ArgumentError, match=r"gc\.draw\(g\)\.save\('elman\.svg'\)"):
        draw(elman(), "elman.svg")
    with pytest.raises(UnsupportedError, match="failed"):
        layout.svg("this is no graph {")
    with pytest.raises(UnsupportedError, match="longer than"):
        layout.svg(draw(unroll(deep(4), t=8)).dot, timeout=1e-4)
