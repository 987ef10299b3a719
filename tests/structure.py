"""The picture of the project's folders: an arrow to each that one imports from, but for what other arrows say.

Names of folders are those below `graphc.`; modules that stand beside folders are left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

import networkx

from graphc.drawing.layout import svg

Edge = tuple[str, str]

_STYLE = """
    rankdir=BT; ranksep=0.35; nodesep=0.25; bgcolor="transparent"; fontname="Helvetica"; compound=true;
    node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#5b7083", fontname="Helvetica", fontsize=11];
    edge [color="#8a99a8", arrowsize=0.6];
"""
_GROUPS = {"codegen.cuda": "#e8f1e4", "codegen": "#e6eef7", "": "#f6f3ea"}


def reduced(edges: Iterable[Edge]) -> set[Edge]:
    """The edges between different folders that no path through others replaces."""
    return set(networkx.transitive_reduction(networkx.DiGraph((a, b) for a, b in edges if a != b)).edges)


def picture(edges: set[Edge]) -> str:
    """As SVG: the folders of the front end, of the back ends, and of the one for GPUs."""
    folders = sorted({folder for edge in edges for folder in edge})
    lines = ["digraph structure {", _STYLE]
    for group, colour in _GROUPS.items():
        inside = [f for f in folders if _group(f) == group]
        lines.append(f'subgraph "cluster_{group}" {{ style="rounded,filled"; color="{colour}"; fillcolor="{colour}";')
        lines.append(f'label="{group.replace(".", "/") or "graphc"}/"; labeljust=l; labelloc=b; fontsize=12;')
        lines += [f'"{folder}" [label="{_label(folder)}"];' for folder in inside]
        lines.append("}")
    lines += [f'"{a}" -> "{b}";' for a, b in sorted(edges)]
    return svg("\n".join([*lines, "}"]))


def drawn(picture: str) -> set[Edge]:
    """The edges that a picture shows."""
    titles = (html.unescape(title) for title in re.findall(r"<title>(.*?)</title>", picture))
    return {(a, b) for a, arrow, b in (title.partition("->") for title in titles) if arrow}


def _group(folder: str) -> str:
    return next(group for group in _GROUPS if f"{folder}.".startswith(f"{group}." if group else ""))


def _label(folder: str) -> str:
    return {"codegen": "the loop IR", "codegen.cuda": "units, PTX, launches"}.get(folder, folder.rpartition(".")[2])
