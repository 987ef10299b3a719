"""draw: a graph as a picture, folded, unrolled or with its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from graphc.drawing import layout
from graphc.drawing.collapse import collapse
from graphc.drawing.dot import dot_source
from graphc.drawing.picture import picture
from graphc.errors import ArgumentError
from graphc.files import write_whole
from graphc.language.graph import Graph, check_graph


@dataclass(frozen=True)
class Drawing:
    """A picture of a graph, laid out when it is first looked at. Notebooks show it by themselves."""

    dot: str
    engine: str = layout.EMBEDDED

    @cached_property
    def svg(self) -> str:
        """The drawing as an SVG element."""
        return layout.svg(self.dot, self.engine)

    def __repr__(self) -> str:
        """Not the text, which would fill a screen."""
        return f"<drawing: {self.dot.count(' -> ')} edges; .svg, .dot, .save(path)>"

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write a file: `.svg`, or `.dot` or `.gv` for the text that Graphviz lays out. Folders on the way are made."""
        path = Path(path)
        if path.suffix not in (".svg", ".dot", ".gv"):
            raise ArgumentError(f"a drawing is saved as .svg, .dot or .gv, not as {path.name!r}")
        write_whole(path, (self.svg + "\n" if path.suffix == ".svg" else self.dot).encode())
        return path


def draw(graph: Graph, engine: str = layout.EMBEDDED) -> Drawing:
    """The graph's drawing; `gc.draw(g).save("g.svg")`.

    Delays are dashed arrows marked z⁻¹. An unrolled graph has a column for each step. What only the gradient needs is
    purple. A graph of more than about 150 values is drawn by its layers, a larger one by its states and outputs.
    `engine` is "graphviz-pure", which comes with graphc, or "dot", the system's Graphviz.
    """
    check_graph(graph)
    layout.check_engine(engine)
    return Drawing(dot_source(collapse(picture(graph))), engine)
