"""What a call is given: arrays checked against the graph's declarations, and the lengths of the axes that follow.

Every way of running a graph, interpreted or compiled, begins here, so all of them accept and refuse the same.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AxisError, UnsupportedError, listed, meant
from graphc.integers import is_whole
from graphc.ir import FLOATING, MOST_POINTS, Axis, Node
from graphc.language.graph import Graph, declared_arrays
from graphc.ops.leaves import INPUT

_SPELLED = {"bool": "np.bool_", "bfloat16": "ml_dtypes.bfloat16"}  # other dtypes: np. and their names
Span = tuple[int, int, str]  # an array's address, its bytes, and its name
SHOWN = 12  # names of arrays in a message


@dataclass(frozen=True)
class Arguments:
    """Checked arrays by name, and the length of every axis of the graph (for a ragged one, of its arrays)."""

    arrays: dict[str, np.ndarray]
    sizes: dict[Axis, int]

    @cached_property
    def addresses(self) -> dict[str, int]:
        """Where the arrays begin. For a few of them numpy takes longer to tell than the checks of a call do."""
        return {name: array.ctypes.data for name, array in self.arrays.items()}


def check_arguments(graph: Graph, given: Mapping[str, Any]) -> Arguments:
    """Check names, dtypes, shapes and lengths. Axes that no array shows take their length from `name=length`."""
    declared = declared_arrays(graph)
    missing = [name for name in declared if name not in given]
    extra = [name for name in given if name not in declared and name not in graph.axes]
    if missing or extra:
        raise ArgumentError(_names_message(graph, missing, extra, declared))
    arrays = {name: _as_array(name, node, given[name]) for name, node in declared.items()}
    for axis in graph.axes.values():
        if isinstance(axis.length, Node) and axis.length.op is not INPUT:
            raise UnsupportedError(
                f"the lengths of axis {axis.name!r} are computed ({axis.length.op.name}) and cannot be checked; "
                "compute them before the call and declare them as an input",
                graph.locations.get(axis.length),
            )
    sizes = _sizes(graph, declared, arrays, given)
    for axis in graph.axes.values():
        if isinstance(axis.length, Node):
            _check_lengths(axis, axis.length, arrays, sizes)
    return Arguments(arrays, sizes)


def check_by_name(graph: Graph, given: Sequence[object]) -> None:
    """Check that no array was given without its name."""
    if given:
        names = ", ".join(f"{name}=…" for name in (*graph.inputs, *graph.params))
        unpacked = "; a dict of them is given as f(**arrays)" if isinstance(given[0], Mapping) else ""
        raise ArgumentError(f"arrays are given by name, f({names}){unpacked}")


def check_run(graph: Graph, arrays: object, into: object) -> None:
    """Check that `run` was given dicts, and for `into` the names of outputs."""
    for option, given in {"arrays": arrays, "into": {} if into is None else into}.items():
        if not isinstance(given, Mapping):
            raise ArgumentError(f"run takes {option}= as a dict of arrays by name, {{'x': …}}, got {given!r}")
    for name in into if isinstance(into, Mapping) else ():
        if name not in graph.outputs:
            raise ArgumentError(f"graph {graph.name!r} has no output {name!r}{meant(str(name), graph.outputs)}")


def check_calls(graph: Graph, calls: object) -> None:
    """Check how many calls a profile is to make; arrays that are given without names come in that place."""
    if not is_whole(calls):
        check_by_name(graph, [calls])
    elif calls < 1:
        raise ArgumentError(f"a profile takes at least one call, got {calls}")


def _order(declared: Mapping[str, Node], *names: str) -> str:
    """In which order the axes of arrays lie, where one has several: a batch often stands first elsewhere."""
    shown = [f"{name} over ({', '.join(a.name for a in declared[name].axes)})" for name in names if name in declared]
    several = any(name in declared and len(declared[name].axes) > 1 for name in names)
    return f"; an array's first dimensions are its axes in their order: {', '.join(shown)}" if several else ""


def call_lengths(graph: Graph, lengths: Mapping[str, int]) -> dict[str, int]:
    """The lengths of all axes, given those that the graph leaves open."""
    wanted = [name for name, axis in graph.axes.items() if axis.is_open]
    if not isinstance(lengths, Mapping):
        raise AxisError(f"lengths are given by the names of axes, {{'t': 1, …}}, not as {lengths!r}")
    if set(lengths) != set(wanted) or not all(is_whole(n) and 0 <= n <= MOST_POINTS for n in lengths.values()):
        expected = ", ".join(f"{name}=…" for name in wanted) or "no axis"
        given = ", ".join(f"{name}={length}" for name, length in lengths.items()) or "none"
        extra = [str(name) for name in lengths if name not in wanted]
        raise AxisError(
            f"a call of graph {graph.name!r} needs a length of at least 0 for: {expected}; given: {given}"
            + (f"; its lengths are not open along {listed(extra)}{meant(extra[0], wanted)}" if extra else "")
            + (f"; at most {MOST_POINTS}" if any(is_whole(n) and n > MOST_POINTS for n in lengths.values()) else "")
        )
    return {n: a.length if isinstance(a.length, int) else int(lengths[a.root.name]) for n, a in graph.axes.items()}


def check_bound(declared: Mapping[str, Node], given: Mapping[str, Any]) -> None:
    """Check the host's arrays that bound calls read: arrays, not what would be copied to one."""
    for name, node in declared.items():
        array = given[name]
        plain = isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.aligned
        if not plain or array.dtype != np.dtype(node.dtype):
            raise ArgumentError(
                f"{name} is read at each call, so it must be a numpy array of {node.dtype}, contiguous and aligned; "
                f"make one and keep it: {name} = np.ascontiguousarray({name}, {_spelled(node)})"
            )


def check_updated(updates: Mapping[str, Node], given: Mapping[str, Any], arguments: Arguments | None = None) -> None:
    """Check the host's arrays that a call changes: arrays, not what would be copied to one, each with memory of its
    own. `arguments` are all that the call reads; an array that does not lie in one piece is copied before."""
    spans, read = [], []
    for name, node in updates.items():
        array = given[name]
        kept = isinstance(array, np.ndarray) and array.flags.carray
        if not kept or (node.dtype == "int32" and array.dtype != np.int32):
            kind = ", np.int32" if node.dtype == "int32" else ""
            raise ArgumentError(
                f"{name} is updated in place, so it must be a numpy array, contiguous, aligned and writeable; "
                f"make one and keep it: {name} = np.array({name}{kind}, order='C')"
            )
        address = array.ctypes.data if arguments is None else arguments.addresses[name]
        spans.append((address, array.nbytes, name))
    if updates and arguments is not None:
        whole = ((n, a) for n, a in arguments.arrays.items() if n not in updates and a.flags.c_contiguous)
        read = [(arguments.addresses[name], array.nbytes, name) for name, array in whole]
    check_apart(spans, read)


def check_apart(written: Sequence[Span], read: Sequence[Span] = ()) -> None:
    """Check that what is written to overlaps with nothing: with nothing else that is, and with nothing that is read."""
    changed = {name for _, _, name in written}
    spans = sorted(span for span in (*written, *read) if span[1])
    for k, (first, size, name) in enumerate(spans, start=1):
        while k < len(spans) and spans[k][0] < first + size:
            _check_shared(name, spans[k][2], changed)
            k += 1


def _check_shared(one: str, other: str, changed: Container[str]) -> None:
    if one in changed and other in changed:
        raise ArgumentError(f"{one} and {other} are both written to, but share memory; copy one of them")
    for name, beside in ((one, other), (other, one)):
        if name in changed:
            raise ArgumentError(f"{name} is written to, but shares memory with {beside}; copy one of them")


def _names_message(graph: Graph, missing: list[str], extra: list[str], declared: Mapping[str, Node]) -> str:
    parts = []
    if missing:
        hint = (
            "; gc.initialize makes arrays of params: f(…, **gc.initialize(g))"
            if set(missing) >= set(graph.params)
            else ""
        )
        shown = listed([f"{m} ({declared[m].type})" for m in missing], SHOWN)
        parts.append(f"missing: {shown}{hint if graph.params else ''}")
    if extra:
        near = meant(extra[0], missing or declared)
        if len(extra) > 1 and not missing and graph.params:  # what an optimiser remembers, or params of a larger graph
            near = "; the params of this graph alone are {name: state[name] for name in g.params}"
        parts.append(f"unknown: {listed(extra, SHOWN)}{near}")
    return f"a call of graph {graph.name!r} takes {listed(declared, SHOWN) or 'no arrays'}; {'; '.join(parts)}"


def _as_array(name: str, node: Node, given: Any) -> np.ndarray:
    if isinstance(given, np.ndarray) and type(given) is not np.ndarray and isinstance(given, np.ma.MaskedArray):
        raise ArgumentError(f"{name} is a masked array, whose mask would be ignored; pass {name}.filled(0)")
    if isinstance(given, np.ndarray | np.generic):
        array = np.asarray(given)
        if node.dtype == "int32" and array.dtype.kind in "iu" and array.dtype != np.int32:
            _check_fits(name, array)  # whole numbers are those of numpy and PyTorch, int64, more often than not
            return array.astype(np.int32)
        if array.dtype.name != node.dtype or not array.dtype.isnative:
            found = array.dtype.name if array.dtype.isnative else array.dtype
            raise ArgumentError(
                f"{name} is an array of {found}, expected {node.dtype}; pass {name}.astype({_spelled(node)})"
            )
    else:
        try:
            array = np.asarray(given)
            exact = array.dtype.kind in ("biuf" if node.dtype in FLOATING else "biu")
            if exact and node.dtype == "int32":
                _check_fits(name, array)
            array = array.astype(node.dtype) if exact else array
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            own = f"it has a gradient of its own; pass {name}.detach()"
            reason = own if getattr(given, "requires_grad", False) else error
            raise ArgumentError(f"{name} does not make an array: {reason}") from None
        if array.dtype.name != node.dtype:
            raise ArgumentError(f"{name} holds {array.dtype.name}, expected {node.dtype}")
    rank = len(node.axes) + len(node.shape)
    if array.ndim != rank or array.shape[len(node.axes) :] != node.shape:
        raise ArgumentError(f"{name} has shape {array.shape}, expected {_expected(node)}")
    return array


def _spelled(node: Node) -> str:
    """A node's dtype as numpy's users write it."""
    return _SPELLED.get(node.dtype, f"np.{node.dtype}")


def _check_fits(name: str, array: np.ndarray) -> None:
    limits = np.iinfo(np.int32)
    for value in (array.min(), array.max()) if array.size else ():
        if not limits.min <= int(value) <= limits.max:
            raise ArgumentError(f"{name} holds {value}, which is no int32: those are {limits.min} to {limits.max}")


def _expected(node: Node) -> str:
    parts = [f"{a.name}" if not isinstance(a.length, int) else str(a.length) for a in node.axes]
    text = ", ".join([*parts, *map(str, node.shape)])
    return f"({text}{',' if len(parts) + len(node.shape) == 1 else ''})"


def _sizes(
    graph: Graph, declared: Mapping[str, Node], arrays: Mapping[str, np.ndarray], given: Mapping[str, Any]
) -> dict[Axis, int]:
    sizes: dict[Axis, int] = {a.root: a.length for a in graph.axes.values() if isinstance(a.length, int)}
    source = dict.fromkeys(sizes, "the graph")
    for name, node in declared.items():
        for axis, extent in zip((a.root for a in node.axes), arrays[name].shape, strict=False):
            if sizes.setdefault(axis, extent) != extent:
                raise ArgumentError(
                    f"axis {axis.name!r} is {extent} long in {name} (shape {arrays[name].shape}), "
                    f"but {sizes[axis]} in {source[axis]}{_order(declared, name, source[axis])}"
                )
            source.setdefault(axis, name)
    for axis in graph.axes.values():
        if axis.name in given and axis.name not in declared:
            extent = given[axis.name]
            if not is_whole(extent):
                raise ArgumentError(f"the length of axis {axis.name!r} is a whole number, got {extent!r}")
            if extent > MOST_POINTS:
                raise ArgumentError(f"axis {axis.name!r} cannot be {extent} long; the longest is {MOST_POINTS}")
            if extent < 0 or sizes.setdefault(axis.root, int(extent)) != extent:
                raise ArgumentError(f"axis {axis.name!r} is {sizes.get(axis.root, 'at least 0')} long, not {extent}")
        elif axis.root not in sizes and isinstance(axis.length, Node):
            lengths = arrays[str(axis.length["name"])]
            sizes[axis] = int(lengths.max(initial=0))
        elif axis.root not in sizes:
            raise ArgumentError(f"no array shows how long axis {axis.name!r} is; pass {axis.name}=… as a number")
    return {axis: sizes[axis.root] for axis in graph.axes.values()}


def _check_lengths(axis: Axis, lengths: Node, arrays: Mapping[str, np.ndarray], sizes: Mapping[Axis, int]) -> None:
    array = arrays[str(lengths["name"])]
    if array.size and (array.min() < 0 or array.max() > sizes[axis]):
        padded = any(isinstance(outer.length, Node) for outer in lengths.axes)
        raise ArgumentError(
            f"{lengths['name']} holds lengths from {array.min()} to {array.max()}, "
            f"but axis {axis.name!r} of the arrays has {sizes[axis]} points"
            + ("; what lies in its padding is a length, too: let it be 0" if padded else "")
        )
