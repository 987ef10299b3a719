"""A picture as DOT text, the language of Graphviz.

Colours are those of Okabe & Ito (2008), which people with any colour vision tell apart; kinds differ in shape too.
A folded graph runs from left to right, a long one in several lines; its delays are dashed arrows back. An unrolled
graph has one column per step, time from left to right, and data flows upwards in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import graphviz
import networkx

from graphc.drawing.columns import grid
from graphc.drawing.lines import STEP, lines
from graphc.drawing.picture import Arrow, Picture, Vertex

FONT = "Arial"  # whose metrics every layout engine knows
GREY, BLUE, GREEN, ORANGE, RED, PURPLE = "#666666", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#A6558B"
BELOW, ABOVE = 56.0, 28.0  # points from an unrolled graph's lowest and highest row to the edge of the drawing
PANEL = "#F4F4F4"
CORNERS = 400  # of vertices: arrows go round so many in about a second
STRAIGHT = {"splines": "line", "outputorder": "edgesfirst"}  # behind the vertices
STEPPED = {"splines": "ortho"}  # round the vertices, in no time
STYLES = {
    "input": {"shape": "box", "style": "filled,rounded", "fillcolor": "#DCEBF5", "color": BLUE},
    "param": {"shape": "box", "style": "filled", "fillcolor": "#FCF0D9", "color": ORANGE},
    "state": {"shape": "ellipse", "style": "filled", "fillcolor": "#D9F0E9", "color": GREEN, "penwidth": "2"},
    "output": {"shape": "cds", "style": "filled", "fillcolor": "#F9E4D8", "color": RED, "margin": "0.16,0.08"},
    "op": {"shape": "ellipse", "style": "filled", "fillcolor": "white", "color": GREY},
    "group": {"shape": "box", "style": "filled,rounded", "fillcolor": "white", "color": GREY},
}
BACKWARD = {"fillcolor": "#F4E3EE", "color": PURPLE}
ARROWS = {
    "flow": {"color": GREY},
    "delay": {"color": RED, "fontcolor": RED, "style": "dashed", "penwidth": "1.4"},
    "initial": {"color": GREEN, "fontcolor": GREEN, "style": "dotted"},
}


def dot_source(picture: Picture) -> str:
    """DOT text. It is the same for the same picture."""
    drawing = graphviz.Digraph(name=picture.name)
    drawing.attr("graph", fontname=FONT, bgcolor="white", tooltip=picture.name)
    drawing.attr("node", fontname=FONT, fontsize="12", height="0.36", width="0.36", margin="0.14,0.04")
    drawing.attr("edge", fontname=FONT, fontsize="11", arrowsize="0.65", color=GREY)
    if any(vertex.step is not None for vertex in picture.vertices):
        _unrolled(drawing, picture)
    else:
        _folded(drawing, picture)
    return str(drawing.source)


def _folded(drawing: graphviz.Digraph, picture: Picture) -> None:
    loops, places = _loops(picture), lines(picture)
    flows = {(arrow.tail, arrow.head) for arrow in picture.arrows if arrow.kind == "flow"}
    if places is None:
        drawing.attr("graph", rankdir="LR", nodesep="0.25", ranksep="0.35")
    else:
        round_itself = any(arrow.tail == arrow.head for arrow in picture.arrows)  # which no stepped arrow can go
        drawing.attr("graph", **_pinned(picture, STRAIGHT if round_itself else STEPPED))
    for vertex in picture.vertices:
        pinned = {} if places is None else {"pos": "{:.1f},{:.1f}!".format(*places[vertex.key])}
        drawing.node(vertex.key, **_look(vertex), **pinned)
    for arrow in picture.arrows:
        back = arrow.kind == "delay" and loops[arrow.tail] == loops[arrow.head]
        # A delay straight against a flow would cover it.
        apart = {"tailport": "sw", "headport": "se"} if back and (arrow.head, arrow.tail) in flows else {}
        if places is not None and arrow.tail == arrow.head and _alone(arrow.tail, places):
            apart = {"tailport": "n", "headport": "n"}  # not in the way of what goes on to the right
        drawing.edge(arrow.tail, arrow.head, **_line(arrow), **({"constraint": "false"} if back else {}), **apart)


def _alone(key: str, places: Mapping[str, tuple[float, float]]) -> bool:
    """Whether nothing stands right above or below a vertex."""
    x, y = places[key]
    return not any(there == x and 0 < abs(height - y) <= STEP for there, height in places.values())


def _unrolled(drawing: graphviz.Digraph, picture: Picture) -> None:
    """Every vertex is pinned to its place in the columns; neato only draws the arrows."""
    layout = grid(picture)
    drawing.attr("graph", **_pinned(picture, STRAIGHT))
    panels = []
    for name, x, y in (("origin", 0.0, 0.0), ("corner", layout.columns[-1].right, layout.height + BELOW + ABOVE)):
        drawing.node(name, style="invis", shape="point", width="0", height="0", pos=f"{x:.1f},{y:.1f}!")
    for column in layout.columns:
        if column.step is not None:
            panels.append(_panel(column.left, column.right, layout.height + BELOW + ABOVE))
            title = f"{picture.steps} = " * bool(picture.steps) + ", ".join(map(str, column.step))
            place = f"{(column.left + column.right) / 2:.1f},{BELOW / 4:.1f}!"
            drawing.node(f"column {title}", _text(title), shape="plaintext", fontcolor=GREY, pos=place)
    drawing.attr("graph", _background=" ".join(panels))
    for vertex in picture.vertices:
        x, y = layout.places[vertex.key]
        look = _look(vertex) | ({"shape": "house", "margin": "0.02,0.02"} if vertex.kind == "output" else {})
        drawing.node(vertex.key, pos=f"{x:.1f},{y + BELOW:.1f}!", **look)
    steps = {v.key: v.step for v in picture.vertices}
    for arrow in picture.arrows:
        start, end = steps[arrow.tail], steps[arrow.head]
        line = _line(arrow)
        if start is not None and end is not None and start != end:
            line |= {"color": RED, "penwidth": "1.4"}
        elif start is None and end is not None:
            line |= {"color": ORANGE, "penwidth": "0.6"}
        drawing.edge(arrow.tail, arrow.head, **line)


def _pinned(picture: Picture, many: dict[str, str]) -> dict[str, str]:
    """Vertices stand where they are put, and arrows go round them in curves. Where these are too `many`, as that says.

    The time to go round them grows with the third power of their corners, of which Graphviz gives an ellipse eight.
    """
    corners = sum(8 if "ellipse" in STYLES[vertex.kind].values() else 4 for vertex in picture.vertices)
    return {"layout": "neato", "inputscale": "72", **({"splines": "true"} if corners <= CORNERS else many)}


def _panel(left: float, right: float, top: float) -> str:
    """A filled rectangle behind the vertices, as xdot operations."""
    corners = " ".join(f"{x:.1f} {y:.1f}" for x, y in ((left, 0), (right, 0), (right, top), (left, top)))
    return f"c 7 -{PANEL} C 7 -{PANEL} P 4 {corners}"


def _loops(picture: Picture) -> dict[str, int]:
    """A number for each vertex; vertices that are on one cycle have the same."""
    network = networkx.DiGraph((arrow.tail, arrow.head) for arrow in picture.arrows)
    network.add_nodes_from(vertex.key for vertex in picture.vertices)
    return {key: k for k, loop in enumerate(networkx.strongly_connected_components(network)) for key in loop}


def _look(vertex: Vertex) -> dict[str, str]:
    look = {**STYLES[vertex.kind], **(BACKWARD if vertex.backward else {})}
    return {"label": _text(*vertex.lines), "tooltip": _text(vertex.tooltip), **look}


def _line(arrow: Arrow) -> dict[str, str]:
    label = {"label": _text(arrow.label)} if arrow.label else {}
    return {**label, "tooltip": _text(arrow.tooltip), **ARROWS[arrow.kind]}


def _text(*lines: str) -> str:
    """Lines of plain text as a DOT string: nothing in them is markup, an escape or an entity."""
    shown = ("".join(c if c.isprintable() else "�" for c in line).replace("&", "&amp;") for line in lines)
    text: str = graphviz.nohtml(r"\n".join(str(graphviz.escape(line)) for line in shown))
    return text
