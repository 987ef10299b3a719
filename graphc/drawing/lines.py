"""Where the vertices of a long, narrow picture stand: from left to right in lines, like text.

In: a picture without columns. Out: the centre of each vertex in points, or None where one line is enough, the picture
is too wide to be read like text, or a cycle would be torn.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate

import networkx

from graphc.drawing.columns import width
from graphc.drawing.picture import Picture

LONGEST = 14  # places that fit into one line without a break
LINE = 960.0  # points: the length of a line,
BETWEEN = 70.0  # from line to line,
STEP = 74.0  # from one vertex to the one below it,
GAP = 30.0  # and from one place in a line to the next
CROWD = 1.75  # vertices a place, on average, that still read like text


def lines(picture: Picture) -> Mapping[str, tuple[float, float]] | None:
    """The centres, with y upwards."""
    flow = networkx.DiGraph()
    flow.add_nodes_from(vertex.key for vertex in picture.vertices)
    flow.add_edges_from((a.tail, a.head) for a in picture.arrows if a.kind != "delay" and a.tail != a.head)
    if not networkx.is_directed_acyclic_graph(flow):
        return None
    places = _places(flow)
    if len(places) <= LONGEST or len(picture.vertices) > CROWD * len(places):
        return None
    widths = {vertex.key: width(vertex) for vertex in picture.vertices}
    centres: dict[str, tuple[float, float]] = {}
    top = 0.0
    broken = _broken(places, widths)
    if _torn(picture, broken):
        return None
    for line in broken:
        tallest = max(map(len, line))
        left, middle = 0.0, top - STEP * (tallest - 1) / 2
        for place in line:
            wide = max(widths[key] for key in place)
            for k, key in enumerate(_upper_first(place, flow, centres)):
                centres[key] = (left + wide / 2, middle + STEP * ((len(place) - 1) / 2 - k))
            left += wide + GAP
        top -= STEP * (tallest - 1) + BETWEEN + STEP / 2
    return centres


def _places(flow: networkx.DiGraph) -> list[list[str]]:
    """The vertices by the longest path to them; one without operands stands just before what it goes into."""
    level: dict[str, int] = {}
    order = list(networkx.topological_sort(flow))
    for key in order:
        level[key] = max((level[tail] + 1 for tail in flow.predecessors(key)), default=0)
    for key in order:
        if not flow.in_degree(key) and flow.out_degree(key):
            level[key] = min(level[head] for head in flow.successors(key)) - 1
    found: dict[int, list[str]] = defaultdict(list)
    for key in order:
        found[level[key]].append(key)
    return [found[k] for k in sorted(found)]


def _broken(places: Sequence[list[str]], widths: Mapping[str, float]) -> list[list[list[str]]]:
    """The places in lines of about the same length."""
    wide = [max(widths[key] for key in place) + GAP for place in places]
    ends = list(accumulate(wide))
    count = math.ceil(ends[-1] / LINE)
    found: list[list[list[str]]] = [[] for _ in range(count)]
    for place, end, w in zip(places, ends, wide, strict=True):
        found[int((end - w / 2) / ends[-1] * count)].append(place)
    return [line for line in found if line]


def _torn(picture: Picture, broken: Sequence[list[list[str]]]) -> bool:
    """Whether a cycle goes from one line to another: delays would run back across the lines between."""
    line = {key: k for k, places in enumerate(broken) for place in places for key in place}
    network = networkx.DiGraph((arrow.tail, arrow.head) for arrow in picture.arrows)
    return any(len({line[key] for key in loop}) > 1 for loop in networkx.strongly_connected_components(network))


def _upper_first(place: list[str], flow: networkx.DiGraph, centres: Mapping[str, tuple[float, float]]) -> list[str]:
    """The vertices of a place, those first whose operands stand higher."""

    def height(key: str) -> float:
        heights = [centres[tail][1] for tail in flow.predecessors(key)]
        return sum(heights) / len(heights) if heights else -float("inf")

    return sorted(place, key=height, reverse=True)
