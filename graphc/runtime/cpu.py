"""Running compiled code: arguments in, results out, and the memory in between.

A call checks its arrays once per layout (names, shapes, dtypes), decides how threads share the work, finds memory for
the program's buffers, runs the compiled code, and returns the outputs. `bind` does all but run the code once.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.checks.arguments import Arguments, check_apart, check_arguments, check_bound, check_updated
from graphc.checks.index_checks import IndexCheck, check_indices
from graphc.codegen.cpu.jit import Loaded
from graphc.codegen.lengths import buffer_shape
from graphc.codegen.memory.arena import ALIGNMENT, PAGE, STAGGER, Arena, arena, buffer_bytes
from graphc.codegen.parallel.core import TYPICAL
from graphc.codegen.parallel.row import CLOCKS
from graphc.codegen.parallel.work_sharing import Shares, shares
from graphc.codegen.program import Program
from graphc.codegen.team.builtin import builtin
from graphc.codegen.team.measure import this_core
from graphc.codegen.team.team import SUPPORTED, Job, team
from graphc.errors import ArgumentError, GraphError, no_copy
from graphc.ir import Axis, Node
from graphc.language.graph import Graph, declared_arrays
from graphc.machine import check_memory, cores
from graphc.recent import Recent
from graphc.runtime.results import Results
from graphc.scheduling.lower import Lowered

_CYCLES_A_SLEEP = 2e6  # a call may lose a tenth of its time to threads that sleep at barriers
_MOST_LAYOUTS = 256  # that are kept
_FEWEST_SLEEPS = 8  # that any call may have
_RUNNING = "this bound call is running on another thread, in the memory that it has; bind one for each thread"


@dataclass(frozen=True, slots=True)
class Code:
    """What a call runs: a program in this process; and its sizes: the lengths of the axes, and what else the program
    asks for.

    `concurrent`: statements may run beside each other, though that takes more memory.
    """

    program: Program
    loaded: Loaded
    sizes: Mapping[str, int]
    concurrent: bool

    def shares(self, threads: int) -> Shares:
        """How a call is shared out among at most so many threads."""
        usable = threads if SUPPORTED else 1
        core = this_core() if usable > 1 else TYPICAL
        return shares(self.program, self.loaded.partition, self.sizes, usable, core, self.concurrent)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of a program's buffers is a caller's array, or a result that the call makes, of this shape and dtype."""

    index: int
    name: str
    made: tuple[tuple[int, ...], np.dtype[Any]] | None


@dataclass(frozen=True, slots=True)
class Layout:
    """What follows from the shapes of a call's arrays.

    `addresses` are those of the program's buffers: of temporaries (`in_workspace` is 1) within the workspace, and 0 at
    the `places` that each call fills in.
    """

    sizes: dict[Axis, int]
    code: Code
    arena: Arena
    addresses: np.ndarray
    in_workspace: np.ndarray
    places: tuple[Place, ...]
    counts: Any
    shares: Shares
    alone: np.ndarray  # the table of shares for one thread
    patience: Any


class Runner:
    """Programs in this process, with what it takes to call them by name. `choose` gives the program for any lengths of
    axes."""

    def __init__(
        self,
        graph: Graph,
        lowered: Lowered,
        choose: Callable[[Mapping[str, int]], Code],
        checks: tuple[IndexCheck, ...],
        threads: int | None,
    ) -> None:
        self.graph = graph
        self.lowered = lowered
        self.choose = choose
        self.checks = checks
        self.threads = threads or cores()
        self._layouts: Recent[Layout] = Recent(_MOST_LAYOUTS)
        self._declared = declared_arrays(graph)
        self._dtypes = {name: np.dtype(node.dtype) for name, node in self._declared.items()}
        self._settled = all(self._shown(a) for a in graph.axes.values() if isinstance(a.length, Node))
        self._constants = {name: array.ctypes.data for name, array in lowered.constants.items()}
        self._pool: list[np.ndarray] = []

    def __call__(self, given: Mapping[str, Any], into: Mapping[str, np.ndarray] | None = None) -> Results:
        """Run it. `into` are arrays for results, by output; what is returned has the others."""
        arguments, layout = self._sound(given)
        call = self._bound(arguments, layout, into=self._usable(into, arguments, layout) if into else {})
        call()
        self._pool = [call.workspace]  # kept for the next call; a call at the same time on another thread takes its own
        if not into:
            return call.results
        for name, array in into.items():
            if call.results[name] is not array:
                array[...] = call.results[name]
        return Results({name: array for name, array in call.results.items() if name not in into})

    def bind(self, given: Mapping[str, Any]) -> BoundCall:
        """A call that reads these arrays where they lie: none may need a copy."""
        call = self.prepare(given)
        check_bound(self._declared, given)
        return call

    def prepare(self, given: Mapping[str, Any]) -> BoundCall:
        """A call with everything done but running the code."""
        return self._bound(*self._sound(given))

    def clocked(self, given: Mapping[str, Any]) -> tuple[BoundCall, np.ndarray, Layout]:
        """A call that keeps clocks; the clocks; and its layout. A clock has the ticks that a thread has spent on a
        top-level statement: int64 (threads, statements)."""
        arguments, layout = self._sound(given)
        clocks = np.zeros((layout.shares.threads, len(layout.code.program.body)), np.int64)
        tables = layout.shares.table.copy(), layout.alone.copy()
        for table in tables:
            table[:, CLOCKS] = clocks.ctypes.data + clocks.strides[0] * np.arange(len(table))
        shared, alone = tables
        layout = replace(layout, shares=replace(layout.shares, table=shared), alone=alone)
        return self._bound(arguments, layout, clocks), clocks, layout

    def _sound(self, given: Mapping[str, Any]) -> tuple[Arguments, Layout]:
        """The checked arrays of a call, and their layout."""
        arguments, layout = self._checked(given)
        check_updated(self.graph.updates, given, arguments)
        check_indices(self.checks, arguments)
        return arguments, layout

    def layout(self, given: Mapping[str, Any]) -> Layout:
        """What the shapes of these arrays lead to."""
        return self._checked(given)[1]

    def _checked(self, given: Mapping[str, Any]) -> tuple[Arguments, Layout]:
        key = self._key(given)
        layout = self._layouts.get(key) if key is not None else None
        if layout is None:
            arguments = check_arguments(self.graph, given)
            key = self._key({**given, **arguments.arrays})  # what made an array, such as a number, is one now
            make = partial(self._layout, arguments)
            layout = make() if key is None else self._layouts.get_or_make(key, make)
        else:
            arguments = Arguments({n: given[n] for n in self._declared}, layout.sizes)
            self._check_lengths(arguments)
        return arguments, layout

    def _key(self, given: Mapping[str, Any]) -> Any:
        """What tells layouts of arrays apart; None if other things than plain arrays of the right dtypes are among
        them."""
        if not self._settled:
            return None
        parts = []
        for name, dtype in self._dtypes.items():
            array = given.get(name)
            if type(array) is not np.ndarray or array.dtype != dtype:
                return None
            parts.append(array.shape)
        extra = tuple((n, type(v), v) for n, v in given.items() if n not in self._declared)
        try:
            hash(extra)
        except TypeError:
            return None
        return tuple(parts), extra

    def _shown(self, axis: Axis) -> bool:
        """Whether the shapes of arrays tell how long an axis is."""
        return any(axis in node.axes for node in self._declared.values())

    def _layout(self, arguments: Arguments) -> Layout:
        code = self.choose({axis.name: extent for axis, extent in arguments.sizes.items()})
        program, sizes = code.program, code.sizes
        together = code.shares(self.threads)
        placed = arena(program, sizes, together.time_slots)
        outputs = sum(buffer_bytes(b, sizes) for b in program.buffers if b.kind == "output")
        check_memory(placed.size + outputs, "the call")
        counts = (ctypes.c_int64 * max(len(program.sizes), 1))(*(sizes[s] for s in program.sizes))
        alone = together.alone(program, code.loaded.partition, sizes)
        known = {**self._constants, **placed.offsets}
        addresses = np.array([known.get(b.name, 0) for b in program.buffers], np.int64)
        in_workspace = np.array([b.kind == "temp" for b in program.buffers], np.int64)
        places = tuple(
            Place(index, b.name, (buffer_shape(b, sizes), np.dtype(b.dtype)) if b.kind == "output" else None)
            for index, b in enumerate(program.buffers)
            if b.name not in known
        )
        patience = (ctypes.c_int64 * 2)()
        return Layout(arguments.sizes, code, placed, addresses, in_workspace, places, counts, together, alone, patience)

    def _check_lengths(self, arguments: Arguments) -> None:
        for axis in self.graph.axes.values():
            if isinstance(axis.length, Node):
                lengths = arguments.arrays[axis.length["name"]]
                if lengths.size and not 0 <= lengths.min() <= lengths.max() <= arguments.sizes[axis]:
                    check_arguments(self.graph, arguments.arrays)

    def _bound(
        self,
        arguments: Arguments,
        layout: Layout,
        *written: np.ndarray,
        into: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> BoundCall:
        """A call of the layout's code. `written` are arrays that the code writes to beside results and workspace; the
        call keeps them. `into` are arrays for results, by buffer."""
        code, workspace = layout.code, self._workspace(layout.arena.size)
        pointers = layout.addresses + layout.in_workspace * workspace.ctypes.data
        arrays: dict[str, np.ndarray] = {}
        for place in layout.places:
            if place.made is None:
                array, address = arguments.arrays[place.name], arguments.addresses[place.name]
                if not _plain(array):
                    array = np.require(array, requirements=["C", "A"])
                    address = array.ctypes.data
                pointers[place.index] = address
            elif place.name in into:
                array = into[place.name]
                pointers[place.index] = array.ctypes.data
            else:
                array, pointers[place.index] = _aligned(*place.made)
            arrays[place.name] = array
        results = {name: arrays[buffer] for name, buffer in self.lowered.outputs.items()}
        shares = layout.shares
        rounds = sum(made.rounds for made in shares.waves if made)
        job = Job(
            function=code.loaded.shared_address,
            args=pointers.ctypes.data,
            sizes=ctypes.addressof(layout.counts),
            alone=layout.alone.ctypes.data,
            shares=shares.table.ctypes.data,
            stride=shares.table.strides[0],
            threads=shares.threads,
            tolerance=_FEWEST_SLEEPS + int(shares.cycles / _CYCLES_A_SLEEP) + rounds,
            patience=ctypes.addressof(layout.patience),
        )
        team.start(shares.threads)
        kept = pointers, layout, arrays, self.lowered.constants, written
        return BoundCall(job, Results(results), workspace, kept)

    def _usable(self, into: Mapping[str, np.ndarray], arguments: Arguments, layout: Layout) -> dict[str, np.ndarray]:
        """The arrays that the code can write results to, by buffer. Raises `ArgumentError` for arrays that are not as
        the results are."""
        made = {place.name: place.made for place in layout.places if place.made is not None}
        rest = {buffer for name, buffer in self.lowered.outputs.items() if name not in into}
        usable = {}
        for name, array in into.items():
            buffer = self.lowered.outputs[name]
            fits = isinstance(array, np.ndarray) and (array.shape, array.dtype) == made[buffer]
            if not fits or not array.flags.carray:
                shape, dtype = made[buffer]
                raise ArgumentError(
                    f"{name} is written to, so it must be a numpy array of {dtype} and shape {shape}, contiguous, "
                    f'aligned and writeable; make one: {name} = np.empty({shape}, "{dtype}")'
                )
            if array.ctypes.data % ALIGNMENT == 0 and buffer not in rest:
                usable[buffer] = array
        read = [(arguments.addresses[n], a.nbytes, n) for n, a in arguments.arrays.items() if a.flags.c_contiguous]
        check_apart([(a.ctypes.data, a.nbytes, name) for name, a in into.items()], read)
        return usable

    def _workspace(self, size: int) -> np.ndarray:
        """The last call's memory, if it is large enough; otherwise new memory, for which the last call's is given up
        first."""
        try:
            workspace = self._pool.pop()
        except IndexError:  # there was none, or another thread has it
            return aligned_empty((size,), "uint8")
        if workspace.size >= size:
            return workspace
        del workspace
        return aligned_empty((size,), "uint8")


class BoundCall:
    """A call with its memory fixed: it reads the arrays as they are now, and overwrites `results` each time.

    Lengths and indices were checked when it was bound. One that has been changed since to what there is not counts as
    the nearest one that there is. It serves one Python thread at a time: a call while another runs is an error.
    """

    __slots__ = ("__call__", "results", "workspace")  # what is called is a builtin: no function of Python's around it

    if TYPE_CHECKING:

        def __call__(self) -> Results: ...

    def __init__(self, job: Job, results: Results, workspace: np.ndarray, kept: object) -> None:
        """`kept`: what the code reads and writes, beside results and workspace."""
        self.__call__ = builtin(job, results, GraphError, _RUNNING, (workspace, kept))  # type: ignore[method-assign]
        self.results = results
        self.workspace = workspace

    __reduce__ = no_copy


def _plain(array: np.ndarray) -> bool:
    """Whether compiled code can read an array where it lies."""
    return array.flags.c_contiguous and array.flags.aligned


def aligned_empty(shape: tuple[int, ...], dtype: str, rank: int | None = None) -> np.ndarray:
    """An uninitialised array that begins at a multiple of `ALIGNMENT` bytes. Arrays that are read side by side have a
    `rank` each: it puts their beginnings at different places of a page, as in an `Arena`."""
    return _aligned(shape, np.dtype(dtype), rank)[0]


def _aligned(shape: tuple[int, ...], kind: np.dtype[Any], rank: int | None = None) -> tuple[np.ndarray, int]:
    """The array, and its address, which numpy takes as long to tell as to make the array."""
    alignment, start = (ALIGNMENT, 0) if rank is None else (PAGE, rank * STAGGER % PAGE)
    raw = np.empty(math.prod(shape) * kind.itemsize + alignment + start, np.uint8)
    address = raw.ctypes.data
    start += -address % alignment
    return np.ndarray(shape, kind, raw, start), address + start
