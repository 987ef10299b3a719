"""Making large pictures small: vertices are folded into the equation that they belong to, and counted there.

In goes a picture, out comes one of at most about `MAX_VERTICES`. Four ways are tried, each on top of those before:
operations go into the state or output that they compute, params and inputs into the only vertex that uses them, the
vertices of a step into one, and runs of steps into one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace

from graphc.picture import Arrow, Picture, Vertex

MAX_VERTICES = 250
MAX_COLUMNS = 40

Owners = Mapping[str, str]  # into which vertex each vertex is folded; those that stay own themselves


def collapse(picture: Picture, limit: int = MAX_VERTICES) -> Picture:
    """The picture itself if it is small enough, otherwise a smaller one."""
    owners: Owners = {v.key: v.key for v in picture.vertices}
    small = picture
    for way in WAYS:
        tuple[Callable[[Picture], Owners], ...] = (_operations, _leaves, _steps, _runs_of_steps)
