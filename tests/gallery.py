"""Every cell with its equations and its drawing, as docs/cells.md has them; and the guide's pictures."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import graphc as gc
from tests.reference import signature

TITLE = "# Every cell"
INTRODUCTION = """\
Written by `make golden` from the words of `gc.cells`, and drawn by `gc.draw`. A cell takes a graph, an input, the
number of its units and the axis along which it runs, and returns its states by name:

    t, n = g.axis("t"), g.axis("n")
    cell = gc.cells.lstm(g, g.input("x", (3,), over=(t, n)), units=4, over=t)      # cell.h, cell.c

In the equations ⊙ is the product of elements, σ the logistic function, and ′ marks the step before. In the drawings
states are green, params yellow, and a dashed arrow is a delay: it brings the value of the step before. `@` is a product
of a matrix. A cell of your own is a function that does the same: [graphc/cells/](../graphc/cells) has these, most in
ten lines."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "Simple": ("elman", "jordan", "indrnn"),
    "With a memory": ("lstm", "peephole_lstm", "layer_norm_lstm", "projected_lstm", "slstm"),
    "Gated": ("gru", "mgu", "ugrnn"),
    "Without a product on the cycle": ("min_gru", "min_lstm", "rg_lru", "selective_ssm"),
    "With a matrix for a memory": ("mlstm", "delta_net", "gla", "rwkv7"),
    "From differential equations": ("cornn", "lem"),
    "Made of other cells": ("stack", "bidirectional", "spatial_rnn"),
}
UNDRAWN = ("spatial_rnn",)  # the guide shows it
MADE_OF = {
    "stack": functools.partial(gc.cells.stack, cell=gc.cells.elman, layers=2),
    "bidirectional": functools.partial(gc.cells.bidirectional, cell=gc.cells.elman),
}
PICTURES = "images/cells"  # in docs/


def page() -> str:
    """The whole page."""
    lines = [TITLE, "", INTRODUCTION, "", "All cells take these options:", "", *_options()]
    for heading, names in SECTIONS.items():
        lines += ["", f"## {heading}"]
        for name in names:
            lines += ["", f"### {name}", "", *_words(name)]
            if name not in UNDRAWN:
                lines += ["", f"![{name}, drawn]({PICTURES}/{name}.svg)"]
    return "\n".join(lines) + "\n"


def pictures() -> Iterator[tuple[str, gc.Graph]]:
    """The graphs to draw, by their files in docs/: each cell, of four units on three numbers, and influences."""
    yield "images/rtrl", _influence()
    for name in (name for names in SECTIONS.values() for name in names if name not in UNDRAWN):
        g = gc.Graph(name)
        t, n = g.axis("t"), g.axis("n")
        cell: Callable[..., Any] = MADE_OF.get(name, getattr(gc.cells, name))
        made = cell(g, g.input("x", (3,), over=(t, n)), units=4, over=t)
        g.output("h", made.y if name == "jordan" else made.h)
        yield f"{PICTURES}/{name}", g


def _influence() -> gc.Graph:
    """Of a matrix on an Elman network."""
    g = gc.Graph("rtrl")
    t = g.axis("t")
    x, y = g.input("x", (3,), over=t), g.input("y", (4,), over=t)
    h = g.state("h", (4,), over=t)
    h[t] = gc.tanh(g.param("U", (4, 3)) @ x + g.param("W", (4, 4)) @ h[t - 1])
    g.output("loss", gc.sum((h - y) ** 2))
    return gc.select(gc.rtrl(g, "loss", wrt=["W"]), "loss", "grad_W")


def _words(name: str) -> Iterator[str]:
    cell = getattr(gc.cells, name)
    yield f"`gc.cells.{name}{signature(cell)}`"
    for paragraph in (inspect.getdoc(cell) or "").split("\n\n"):
        yield ""
        yield paragraph


def _options() -> Iterator[str]:
    """A list of the options, each of which has its lines to itself in the class's words."""
    table = (inspect.getdoc(gc.cells.Options) or "").split("\n\n")[1]
    for entry in re.split(r"\n(?=\S)", table):
        name, _, words = entry.partition(" ")
        yield f"- `{name}`: {' '.join(words.split())}"
