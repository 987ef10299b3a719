"""Site: what an op's lowering rule may ask of the kernel that it becomes part of.

A rule computes one element of a node: at `point` along the axes, at `event` in the event. It reads elements of
its inputs, at the same place unless it says otherwise, and never sees whether they are loaded from memory or
computed on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from graphc.ir import Axis
from graphc.scalar import Scalar

Event = tuple[Scalar, ...]
Place = Mapping[Axis, Scalar]
Reduction = Literal["sum", "max"]


class Site(Protocol):
    @property
    def point(self) -> Place: ...

    @property
    def event(self) -> Event: ...

    def read(
        self, k: int, *, event: Event | None = None, point: Place | None = None, when: Scalar | None = None
    ) -> Scalar:
        """An element of input k.

        By default the one at this place, broadcast as in numpy. Where `when` is false it is not computed and
        what comes back is to be discarded. `point` overrides the coordinates of the axes that it names.
        """

    def extent(self, axis: Axis) -> Scalar:
        """The length of the arrays along an axis."""

    def length(self, axis: Axis, axes: Sequence[Axis]) -> Scalar:
        """How many points a value over `axes` has along `axis`, here."""

    def reduce(
        self,
        op: Reduction,
        over: Sequence[Axis],
        extents: Sequence[int],
        value: Callable[[Site, Event], Scalar],
    ) -> Scalar:
        """The sum or the maximum of `value(site, event)` over all points of the axes and all events below `extents`."""

    def constant(self, array: np.ndarray) -> Scalar:
        """The element of a constant array at this event."""

    def let(self, value: Scalar) -> Scalar:
        """Name a value that is used more than once."""
