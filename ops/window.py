"""Windows: an event seen through a small frame at many places, which is what convolution and pooling read.

    window(value, fill)[…, o, …, s] = value[…, p, …]    with p = (o · stride + s · dilation + start) / divisor

for each of some dims of the event: o counts the places of the frame, s the elements inside it, and where p is no
whole number or no element there is the fill. `fold` is the adjoint: it adds every element of every frame to the place
that it was seen at. A convolution is a contraction of a window, and so are both of its gradients, as folding a product
gives a product with a window whose stride and divisor have changed places.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.errors import DtypeError, ShapeError
from graphc.ir import MOST_POINTS, Node, Op, Shape, Type, make, rebuild, topological, widen
from graphc.ops.contraction import CONTRACT, contract
from graphc.ops.elementwise import ADD, ELEMENTWISE, add, where
from graphc.ops.event import reshape
from graphc.ops.leaves import CONST, const
from graphc.ops.reduction import BROADCAST, broadcast, sum_
from graphc.ops.site import Event, Site
from graphc.scalar import Scalar, call, conjunction, index, zero


@dataclass(frozen=True, slots=True)
class Frame:
    """The windows along one dim: `count` places of a frame of `size` elements (see the module's equation)."""

    dim: int
    size: int
    count: int
    stride: int = 1
    dilation: int = 1
    start: int = 0
    divisor: int = 1

    def transposed(self, extent: int) -> Frame:
        """From the positions p < extent and the elements s to the places o: the same equation, solved for o."""
        return Frame(self.dim, self.size, extent, self.divisor, -self.dilation, -self.start, self.stride)

    def positions(self, extent: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions (places, elements), and which of them are elements of a dim of this extent."""
        steps = np.arange(self.count)[:, None] * self.stride + np.arange(self.size) * self.dilation + self.start
        places, rest = np.divmod(steps, self.divisor)
        return places, (rest == 0) & (places >= 0) & (places < extent)

    def position(self, place: Scalar, element: Scalar, extent: int) -> tuple[Scalar, Scalar | None]:
        """A position, and the condition under which it is an element; None: always."""
        steps = call("mul", place, index(self.stride))
        steps = call("add", steps, call("mul", element, index(self.dilation)))
        steps = call("add", steps, index(self.start))
        position = call("floordiv", steps, index(self.divisor))
        lowest = self.start + min(0, self.dilation * (self.size - 1))
        highest = self.start + max(0, self.dilation * (self.size - 1)) + self.stride * (self.count - 1)
        conditions = []
        if self.divisor > 1:
            conditions.append(call("eq", call("mod", steps, index(self.divisor)), index(0)))
        if lowest < 0:
            conditions.append(call("le", index(0), position))
        if highest // self.divisor >= extent:
            conditions.append(call("lt", position, index(extent)))
        return position, conjunction(conditions)


_FIELDS = ("dims", "sizes", "counts", "strides", "dilations", "starts", "divisors")


def _attributes(frames: Sequence[Frame]) -> dict[str, tuple[int, ...]]:
    columns = zip(*((f.dim, f.size, f.count, f.stride, f.dilation, f.start, f.divisor) for f in frames), strict=True)
    return dict(zip(_FIELDS, columns, strict=True))


def frames(given: Node | Mapping[str, Any]) -> tuple[Frame, ...]:
    """The frames of a window or a fold, or of its attributes."""
    return tuple(Frame(*values) for values in zip(*(given[name] for name in _FIELDS), strict=True))


def _checked(attrs: Mapping[str, Any], rank: int) -> tuple[Frame, ...]:
    """The frames, if they make sense for events of this rank."""
    found = frames(attrs)
    dims = [f.dim for f in found]
    if not dims or sorted(set(dims)) != dims or not 0 <= dims[0] <= dims[-1] < rank:
        raise ShapeError(f"windows are along some dims of an event of rank {rank}, in order; got {tuple(dims)}")
    for f in found:
        if max(map(abs, (f.size, f.count, f.stride, f.dilation, f.start, f.divisor))) > MOST_POINTS:
            raise ShapeError(f"a window's places and steps are numbers up to {MOST_POINTS}; got {f}")
        if min(f.size, f.count, f.stride, f.divisor) < 1 or f.dilation == 0:
            raise ShapeError(f"a window has at least one place and one element, and moves by at least 1; got {f}")
    return found


# window(value, fill; dims, sizes, …): the places take the dims' place, the elements are further dims at the end.
def _window_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    value, fill = inputs
    if fill.op is not CONST or fill.shape or fill.dtype != value.dtype:
        raise DtypeError(f"windows of a value of dtype {value.dtype} are filled with a constant number of that dtype")
    shape = list(value.shape)
    for frame in _checked(attrs, len(shape)):
        shape[frame.dim] = frame.count
    return Type(value.axes, (*shape, *attrs["sizes"]), value.dtype)


def _window_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    result, fill = arrays
    for frame in frames(node):
        places, exists = frame.positions(result.shape[frame.dim])
        seen = np.take(result, np.where(exists, places, 0), axis=frame.dim)
        seen = np.moveaxis(seen, frame.dim + 1, -1)
        here = exists.reshape(frame.count, *(1 for _ in seen.shape[frame.dim + 1 : -1]), frame.size)
        result = np.where(here, seen, fill)
    return result


def _window_lower(node: Node, site: Site) -> Scalar:
    rank = len(node.inputs[0].shape)
    event, elements = list(site.event[:rank]), site.event[rank:]
    conditions: list[Scalar] = []
    for frame, element in zip(frames(node), elements, strict=True):
        extent = node.inputs[0].shape[frame.dim]
        event[frame.dim], exists = frame.position(event[frame.dim], element, extent)
        conditions += [] if exists is None else [exists]
    inside = conjunction(conditions)
    if inside is None:
        return site.read(0, event=tuple(event))
    inside = site.let(inside)
    return call("select", inside, site.read(0, event=tuple(event), when=inside), site.read(1))


WINDOW = Op(
    "window",
    _window_infer,
    _window_compute,
    lambda node, d: (fold(d, frames(node), node.inputs[0].shape), None),
    _window_lower,
    cost=2,
    view=True,
    attributes=_FIELDS,
)


def window(value: Node, frames: Sequence[Frame], fill: Node | None = None) -> Node:
    """The value through frames along some of its dims; the fill is 0."""
    value = widen(value)
    return make(WINDOW, (value, fill or const(0, value.dtype)), **_attributes(frames))


# fold(value; dims, sizes, …, shape): every element of every frame, added up where a window would have read it.
def _fold_infer(inputs: tuple[Node, ...], attrs: Mapping[str, Any]) -> Type:
    (value,), shape = inputs, attrs["shape"]
    if value.dtype == "bool":
        raise DtypeError("a fold adds numbers, got bool")
    seen = list(shape)
    for frame in _checked(attrs, len(shape)):
        seen[frame.dim] = frame.count
    if value.shape != (*seen, *attrs["sizes"]):
        raise ShapeError(f"a fold to {shape} takes an event {(*seen, *attrs['sizes'])}, got {value.shape}")
    return Type(value.axes, shape, value.dtype)


def _fold_compute(node: Node, arrays: Sequence[np.ndarray]) -> Any:
    (value,) = arrays
    result = np.zeros(node.shape, node.dtype)
    found = [(f, *f.positions(node.shape[f.dim])) for f in frames(node)]
    first = np.moveaxis(value, range(len(node.shape), value.ndim), range(len(found)))
    for elements in itertools.product(*(range(f.size) for f, _, _ in found)):
        source = [np.arange(n) for n in value.shape[: len(node.shape)]]
        target = [np.arange(n) for n in node.shape]
        for (frame, places, exists), s in zip(found, elements, strict=True):
            source[frame.dim] = np.flatnonzero(exists[:, s])
            target[frame.dim] = places[source[frame.dim], s]
        result[np.ix_(*target)] += first[elements][np.ix_(*source)]
    return result


def _fold_lower(node: Node, site: Site) -> Scalar:
    counted = node.inputs[0].shape

    def element(inner: Site, elements: Event) -> Scalar:
        event = list(site.event)
        conditions: list[Scalar] = []
        for frame, k, s in zip(frames(node), node["dims"], elements, strict=True):
            event[k], exists = frame.transposed(node.shape[k]).position(event[k], s, counted[k])
            conditions += [] if exists is None else [exists]
        inside, at = conjunction(conditions), (*event, *elements)
        if inside is None:
            return inner.read(0, event=at)
        inside = inner.let(inside)
        return call("select", inside, inner.read(0, event=at, when=inside), zero(node.dtype))

    return site.reduce("sum", (), node["sizes"], element)


FOLD = Op(
    "fold",
    _fold_infer,
    _fold_compute,
    lambda node, d: (window(d, frames(node)),),
    _fold_lower,
    reduces=True,
    attributes=("shape", *_FIELDS),
)


def fold(value: Node, frames: Sequence[Frame], shape: Shape) -> Node:
    """The adjoint of a window of an event of this shape. That of a product is a product again, where it can be, and
    that of what was computed from windows a sum over the windows' elements."""
    if value.op is ADD and all(i.type == value.type and i.op is CONTRACT for i in value.inputs):
        first, second = (fold(i, frames, shape) for i in value.inputs)
        return add(first, second)
    if value.op is CONTRACT:
        simpler = _folded_product(value, frames, shape)
    else:
        simpler = _folded_elements(value, frames, shape)
    return simpler if simpler is not None else make(FOLD, (value,), shape=shape, **_attributes(frames))


def _folded_elements(value: Node, frames: Sequence[Frame], shape: Shape) -> Node | None:
    """Σ_s f(x[p], a[o(p, s)]): where a value is computed, element by element, from windows of these frames and from
    values that are the same for all elements of a frame, the first are known at p, the second are seen from there."""
    made: dict[Node, Node | None] = {}
    for node in topological([value]):
        made[node] = _seen_from(node, made, frames, shape, len(value.shape))
    result = made[value]
    if result is None:
        return None
    if result.op is not WINDOW:
        counts = value.shape[: len(shape)]
        inside = window(broadcast(const(True, "bool"), (), counts), _transposed(frames, shape))
        result = where(inside, result, const(0, value.dtype))
    return sum_(result, range(len(shape), len(value.shape)))


def _seen_from(
    node: Node, made: Mapping[Node, Node | None], frames: Sequence[Frame], shape: Shape, rank: int
) -> Node | None:
    """A value at (o(p, s), s) as one at (p, s); None if it has no such form."""
    if not node.shape:
        return node
    elements = node.shape[len(shape) :]
    if node.op is WINDOW and _attributes(frames).items() <= dict(node.attrs).items() and node.inputs[0].shape == shape:
        return reshape(node.inputs[0], (*shape, *(1 for _ in frames)))
    if len(node.shape) == rank and set(elements) == {1}:
        places = reshape(node, node.shape[: len(shape)])
        counted = [places.shape[f.dim] == f.count for f in frames]
        return window(places, _transposed(frames, shape)) if all(counted) else None
    if node.op is BROADCAST:
        return made[node.inputs[0]]
    operands = [made[i] for i in node.inputs]
    if node.op in ELEMENTWISE and all(o is not None for o in operands):
        return rebuild(node, [o for o in operands if o is not None])
    return None


def _transposed(frames: Sequence[Frame], shape: Shape) -> list[Frame]:
    return [f.transposed(shape[f.dim]) for f in frames]


def _folded_product(product: Node, frames: Sequence[Frame], shape: Shape) -> Node | None:
    """Σ_s Σ_k a[o(p, s), k] b[s, k]: where one operand has all places and the other all elements of the frames, the
    first is read through windows and s is summed like any other letter."""
    out = product["out"]
    places, elements = [out[f.dim] for f in frames], out[len(shape) :]
    for k, letters in enumerate((product["a"], product["b"])):
        other = (product["b"], product["a"])[k]
        if set(places) <= set(letters) - set(other) and set(elements) <= set(other) - set(letters):
            dims = {letters.index(place): f for place, f in zip(places, frames, strict=True)}
            turned = {d: replace(f.transposed(shape[f.dim]), dim=d) for d, f in dims.items()}
            order = sorted(turned)
            seen = window(product.inputs[k], [turned[d] for d in order])
            names = letters + "".join(elements[frames.index(dims[d])] for d in order)
            if k == 0:
                return contract(seen, product.inputs[1], names, other, out[: len(shape)], product["over"])
            return contract(product.inputs[0], seen, other, names, out[: len(shape)], product["over"])
    return None
